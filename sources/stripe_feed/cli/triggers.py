"""The commands `stripe-feed triggers …`, `deliver` and `feed dead …`. Data goes to stdout, messages
to stderr.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import PartlyDone, UsageError
from ..wording import counted
from .command import command
from .feed import POSITION_FORMS, feed_app, open_feed_for_cli
from .options import Json, LocalCopyOptions

if TYPE_CHECKING:
    from ..delivery.worker import DeliveryReport
    from ..triggers.engine import TriggerResult
    from ..triggers.models.model_trigger import AnyTrigger, ModelTrigger

triggers_app = typer.Typer(
    name="triggers",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Send a message to another tool when the account changes, by rules in a file.",
)
dead_app = typer.Typer(
    name="dead",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Messages that failed at every attempt.",
)
feed_app.add_typer(dead_app, name="dead")

_File = Annotated[
    str, typer.Option("--triggers", metavar="FILE", help="The file with the trigger rules.")
]
_Name = Annotated[str, typer.Argument(metavar="NAME", help="The trigger's name.")]
Since = Annotated[
    str, typer.Option("--since", metavar="PLACE", help=f"Start here: {POSITION_FORMS}.")
]
SAMPLES = 3


@partial(command, triggers_app)
def check(triggers: _File = "triggers.toml") -> None:
    """Check the file: print every error and warning, or what each trigger does."""
    from ..delivery.transports import Endpoint
    from ..triggers.config import check_triggers
    from .output import echo_err

    report = check_triggers(triggers)
    for line in report.warnings:
        echo_err(line)
    if report.errors:
        *others, last = report.errors
        for line in others:
            echo_err(f"error: {line}")
        raise UsageError(last)
    for trigger in report.triggers:
        Endpoint(
            trigger.name, trigger.deliver, lambda: 0.0
        ).close()  # raises if a secret is not set
        sys.stdout.write(f"{trigger.name}: {describe(trigger)} -> {trigger.deliver.shown}\n")
    echo_err(f"{counted(len(report.triggers), 'trigger')} valid.")
    if report.warnings:
        raise PartlyDone(
            f"{counted(len(report.warnings), 'warning')}, see above: a misspelt name never matches."
        )


@partial(command, triggers_app)
def init(triggers: _File = "triggers.toml") -> None:
    """Write a starter file with commented examples. An existing file is left unchanged."""
    from ..triggers.config import write_starter
    from .output import echo_err

    write_starter(triggers)
    echo_err(
        f"{triggers} holds examples. Uncomment the ones you want, then run `stripe-feed triggers check`."
    )


@partial(command, triggers_app, name="list")
def show(
    *,
    triggers: _File = "triggers.toml",
    json: Json = False,
    copy: LocalCopyOptions,
) -> None:
    """Show each trigger: its condition, how often it fired, and its waiting, held and failed
    messages.
    """
    from ..triggers.config import read_triggers
    from ..triggers.states import TriggerState, trigger_states
    from .trigger_output import print_triggers, state_record

    with open_feed_for_cli(copy, allow_empty=True) as feed:
        configured, states = read_triggers(triggers), trigger_states(feed.store, time.time())
    messages = {name: state.messages for name, state in states.items()}
    records: list[dict[str, Any]] = [
        {
            **state_record(states.get(trigger.name, TriggerState(trigger.name))),
            "waits_for": describe(trigger),
            "receiver": trigger.deliver.shown,
        }
        for trigger in configured
    ]
    removed: dict[str, Any] = {
        "waits_for": "nothing",
        "receiver": "none",
        "state": "not in the file",
    }
    records += [state_record(states[name]) | removed for name in orphans(messages, configured)]
    print_triggers(records, json)
    warn_orphans(messages, configured)


def orphans(
    messages: Mapping[str, Mapping[str, int]], configured: Sequence[AnyTrigger]
) -> dict[str, int]:
    """Triggers that are not in the file but still have waiting, held or dead messages, with their
    number.
    """
    removed = sorted(messages.keys() - {trigger.name for trigger in configured})
    remaining = {
        name: sum(messages[name].get(state, 0) for state in ("waiting", "held", "dead"))
        for name in removed
    }
    return {name: count for name, count in remaining.items() if count}


def warn_orphans(
    messages: Mapping[str, Mapping[str, int]], configured: Sequence[AnyTrigger]
) -> None:
    """Print how many messages remain for triggers that are not in the file."""
    from .output import echo_err

    for name, count in orphans(messages, configured).items():
        echo_err(
            f"{counted(count, 'message')} left of {name}, which is not in the file. Put it back, or drop them with "
            f"`stripe-feed triggers discard {name} --waiting`."
        )


def describe(trigger: AnyTrigger) -> str:
    """Describe the condition of a trigger in one line."""
    from ..feed.change import OP_WORDS
    from ..feed.filters import DEFAULT_OPS
    from ..triggers.models.model_trigger import ModelTrigger
    from ..triggers.trigger import format_side

    if isinstance(trigger, ModelTrigger):
        return ", ".join([*_describe_rows(trigger), *_describe_common(trigger)])
    parts = ["/".join(trigger.filter.resources) or "anything"]
    if trigger.filter.ops != DEFAULT_OPS:
        parts.append("/".join(OP_WORDS[op] for op in trigger.filter.ops))
    if trigger.event:
        parts.append(f"event {'/'.join(trigger.event)}")
    parts += [
        f"{path} changes to {format_side(new)}"
        if old == "*"
        else f"{path} from {format_side(old)} to {format_side(new)}"
        for path, (old, new) in trigger.transition.items()
    ]
    parts += [f"{path} changes" for path in trigger.changed]
    return ", ".join([*parts, *_describe_common(trigger)])


def _describe_rows(trigger: ModelTrigger) -> list[str]:
    events = " or ".join(trigger.on)
    parts = [f"a row of {trigger.model} {events}"]
    if trigger.rows:
        parts.append(f"of rows with {' '.join(trigger.rows.split())}")
    if trigger.watch:
        parts.append(f"watching {'/'.join(trigger.watch)}")
    return parts


def _describe_common(trigger: AnyTrigger) -> list[str]:
    parts = []
    if trigger.where:
        parts.append(f"where {trigger.where.text}")
    if trigger.enrol.kind != "always":
        parts.append(f"{trigger.enrol.kind} per {trigger.per.removesuffix('_id')}")
    return parts


@partial(command, triggers_app)
def test(
    *,
    name: _Name,
    since: Since = "30d",
    triggers: _File = "triggers.toml",
    json: Json = False,
    copy: LocalCopyOptions,
) -> None:
    """Show how often a trigger would have fired in the past, per day, with sample messages; of one on
    a model, what its next evaluation would do. Nothing is sent.
    """
    import time

    from ..triggers.backtest import backtest
    from ..triggers.models.explain import try_rows
    from ..triggers.models.model_trigger import ModelTrigger
    from .trigger_output import print_backtest, print_trial

    trigger = find_trigger(triggers, name)
    with open_feed_for_cli(copy, allow_empty=isinstance(trigger, ModelTrigger)) as feed:
        if isinstance(trigger, ModelTrigger):
            trial = try_rows(
                feed.store, trigger, SAMPLES, time.time(), feed.read_models, feed.lookups
            )
            print_trial(trial, json)
            return
        print_backtest(backtest(feed.store, trigger, since, SAMPLES, lookups=feed.lookups), json)


@partial(command, triggers_app)
def explain(
    *,
    change_id: Annotated[
        str,
        typer.Argument(
            metavar="CHANGE_ID",
            help="The id of a change; `feed tail --json` shows them. Or the key of a model's row.",
        ),
    ],
    triggers: _File = "triggers.toml",
    json: Json = False,
    copy: LocalCopyOptions,
) -> None:
    """Show why each trigger did or did not fire for a change, or for a row of a model: every condition
    with its value, and every delivery attempt.
    """
    from ..triggers.config import read_triggers
    from ..triggers.models.explain import explain
    from .trigger_output import print_explanations

    with open_feed_for_cli(copy, allow_empty=True) as feed:
        print_explanations(explain(feed, read_triggers(triggers), change_id), json)


@partial(command, triggers_app)
def replay(
    *,
    name: _Name,
    since: Since,
    triggers: _File = "triggers.toml",
    copy: LocalCopyOptions,
) -> None:
    """Fire a trigger again for past changes, with the same message ids; `deliver` sends the
    messages.
    """
    import time

    from ..triggers.engine import replay
    from ..triggers.models.model_trigger import ModelTrigger
    from ..triggers.models.replay import replay_rows
    from .output import echo_err

    trigger, now = find_trigger(triggers, name), time.time()
    is_on_model = isinstance(trigger, ModelTrigger)
    with open_feed_for_cli(copy, allow_empty=is_on_model) as feed:
        if isinstance(trigger, ModelTrigger):
            result = replay_rows(feed.store, trigger, since, now)
        else:
            result = replay(feed.store, trigger, since, now, feed.query_ids, feed.lookups)
    state = f"held: {result.held}" if result.held else "to be sent by `stripe-feed deliver`"
    made = f"{counted(result.fired, 'message')} from {counted(result.seen, 'change')}"
    echo_err(f"{made}, {state}.")


@partial(command, triggers_app)
def release(
    *,
    name: _Name,
    copy: LocalCopyOptions,
) -> None:
    """Resume a trigger that its guard holds, or whose receiver is disabled."""
    import time

    from ..delivery.outbox import release
    from .output import echo_err

    with open_feed_for_cli(copy) as feed:
        echo_err(
            f"{name} resumed; {counted(release(feed.store, name, time.time()), 'message')} released."
        )


@partial(command, triggers_app)
def discard(
    *,
    name: _Name,
    waiting: Annotated[
        bool, typer.Option("--waiting", help="Also drop messages that wait or failed for good.")
    ] = False,
    copy: LocalCopyOptions,
) -> None:
    """Drop the messages that a guard holds, and resume the trigger. If a replay is held, only the
    replay is dropped.
    """
    import time

    from ..delivery.outbox import discard
    from .output import echo_err

    with open_feed_for_cli(copy) as feed:
        dropped = discard(feed.store, name, time.time(), waiting)
        ((held,),) = feed.store.query("select held from triggers where name = ?", name)
    state = f"is still held: {held}; run discard again to drop those too" if held else "resumed"
    echo_err(f"{name} {state}; {counted(dropped, 'message')} dropped.")


@partial(command, dead_app, name="list")
def dead_list(
    *,
    json: Json = False,
    copy: LocalCopyOptions,
) -> None:
    """Show the messages that failed for good, with the result of the last attempt."""
    from ..delivery.outbox import attempts, dead
    from .output import format_time
    from .trigger_output import print_records

    with open_feed_for_cli(copy, allow_empty=True) as feed:
        messages = [
            (message, attempts(feed.store, message.message_id)) for message in dead(feed.store)
        ]
    print_records(
        [
            {
                "message": message.message_id,
                "trigger": message.trigger,
                "change": message.change_id,
                "resource": message.resource,
                "object": message.object_id,
                "attempts": len(tries),
                "last": tries[-1].code if tries else None,
                "given up": None
                if message.ended_at is None
                else format_time(int(message.ended_at)),
            }
            for message, tries in messages
        ],
        json,
    )


@partial(command, dead_app, name="retry")
def dead_retry(
    *,
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MESSAGE_ID]...", help="Only these messages; all by default."),
    ] = None,
    trigger: Annotated[
        str | None, typer.Option("--trigger", metavar="NAME", help="Only messages of this trigger.")
    ] = None,
    copy: LocalCopyOptions,
) -> None:
    """Queue failed messages again; `deliver` sends them with the same ids."""
    import time

    from ..delivery.outbox import retry
    from .output import echo_err

    with open_feed_for_cli(copy, allow_empty=True) as feed:
        echo_err(
            f"{counted(retry(feed.store, time.time(), ids or (), trigger), 'message')} to be sent by `stripe-feed deliver`."
        )


def deliver(
    *,
    triggers: _File = "triggers.toml",
    once: Annotated[
        bool,
        typer.Option(
            "--once", help="Send what is due, then exit (for cron); otherwise run until stopped."
        ),
    ] = False,
    json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show only warnings and errors.")] = False,
    copy: LocalCopyOptions,
) -> None:
    """Fire the triggers for new changes, and send due messages. On SIGTERM, messages being sent are
    finished first.
    """
    from ..delivery.outbox import unfinished_counts
    from ..delivery.worker import open_worker
    from ..triggers.config import read_triggers
    from ..triggers.run import trigger_loop
    from .trigger_output import print_delivered, stop_on_signals

    configured, fired = read_triggers(triggers), dict[str, Any]()
    with (
        stop_on_signals() as stop,
        open_feed_for_cli(copy, allow_empty=True) as feed,
        open_worker(feed.store, configured, lookups=feed.lookups) as delivery,
    ):
        run_triggers = trigger_loop(feed, configured, keep_running=not once)

        def tick() -> None:
            for result in run_triggers():
                name = result.trigger
                fired[name] = fired[name].plus(result) if name in fired else result

        tick()
        report = delivery.once(stop) if once else delivery.follow(stop, tick)
        waiting = unfinished_counts(feed.store)
    print_delivered(list(fired.values()), report, json, quiet)
    warn_orphans(waiting, configured)
    raise_if_blocked(list(fired.values()), report, once)


def raise_if_blocked(fired: Sequence[TriggerResult], report: DeliveryReport, once: bool) -> None:
    """Raise `PartlyDone` if messages wait for a person, or for another run."""

    problems = [
        f"{result.trigger} is held: {result.held}. Run `stripe-feed triggers release {result.trigger}`, or discard."
        for result in fired
        if result.held
    ]
    problems += [
        f"{result.trigger} did not run: {result.error}" for result in fired if result.error
    ]
    problems += [
        f"{name} is disabled: {why}. Fix the receiver, then run `stripe-feed triggers release {name}`."
        for name, why in report.disabled.items()
    ]
    if report.dead:
        problems.append(
            f"{counted(report.dead, 'message')} failed for good: see `stripe-feed feed dead list`."
        )
    if once and report.failed and not problems:
        problems = [f"{counted(report.failed, 'message')} failed; a later run tries again."]
    if problems:
        raise PartlyDone(" ".join(problems))


def find_trigger(file: str, name: str) -> AnyTrigger:
    """Read the trigger of this name from a file. Raises `UsageError` if there is none."""
    from ..triggers.config import read_triggers

    triggers = {trigger.name: trigger for trigger in read_triggers(file)}
    if name not in triggers:
        raise UsageError(f"{file} has no trigger {name!r}. It has: {', '.join(triggers)}.")
    return triggers[name]
