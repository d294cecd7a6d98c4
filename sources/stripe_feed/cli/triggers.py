"""`stripe-feed triggers …`, `deliver` and `feed dead …`: rules that start something elsewhere.
stdout is data, stderr is talk.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import PartlyDone, UsageError
from .command import command
from .feed import PLACES, feed_app, opened
from .options import Database, Dataset, Destination, Json, StateDir

if TYPE_CHECKING:
    from ..triggers.engine import Fired
    from ..triggers.trigger import Trigger

triggers_app = typer.Typer(
    name="triggers",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Rules that start something in another tool when the account changes.",
)
dead_app = typer.Typer(
    name="dead",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Messages that were given up after the last attempt.",
)
feed_app.add_typer(dead_app, name="dead")

File = Annotated[str, typer.Option("--triggers", metavar="FILE", help="The file with the rules.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The trigger's name.")]
Since = Annotated[str, typer.Option("--since", metavar="PLACE", help=f"From here on: {PLACES}.")]
SAMPLES = 3


@partial(command, triggers_app)
def check(triggers: File = "triggers.toml") -> None:
    """Read the file, and say all that is wrong in it or doubtful, or what it does."""
    from ..delivery.endpoint import Receiver
    from ..triggers.config import examine
    from .output import say

    found = examine(triggers)
    for line in found.doubts:
        say(line)
    if found.mistakes:
        *others, last = found.mistakes
        for line in others:
            say(f"error: {line}")
        raise UsageError(last)
    for trigger in found.triggers:
        Receiver(trigger.name, trigger.deliver, lambda: 0.0).close()  # its secrets are set
        sys.stdout.write(f"{trigger.name}: {asks(trigger)} -> {trigger.deliver.shown}\n")
    say(f"{len(found.triggers)} triggers can be used.")
    if found.doubts:
        raise PartlyDone(
            f"{len(found.doubts)} doubts: what is misspelt never holds, or says nothing. See the lines above."
        )


@partial(command, triggers_app)
def init(triggers: File = "triggers.toml") -> None:
    """Write a file with commented examples, to begin with. One that is there stays as it is."""
    from ..triggers.config import write_starter
    from .output import say

    write_starter(triggers)
    say(
        f"{triggers} holds examples. Take the # from what you want; `stripe-feed triggers check` reads it."
    )


@partial(command, triggers_app, name="list")
def show(
    triggers: File = "triggers.toml",
    json: Json = False,
    database: Database = None,
    destination: Destination = None,
    dataset: Dataset = "stripe",
    state_dir: StateDir = None,
) -> None:
    """Show each trigger: what it waits for, how often it fired, what waits, and what is held,
    disabled or given up.
    """
    from ..delivery.outbox import counts
    from ..triggers.config import read_triggers
    from .output import when
    from .trigger_output import print_triggers

    found = []
    with opened(database, destination, dataset, state_dir, empty_is_fine=True) as feed:
        lags, left = {lag.consumer: lag for lag in feed.lag()}, counts(feed.store)
        known = read_triggers(triggers)
        names = {one.name: one for one in known}
        for name in (*names, *strays(left, known)):
            asked = (
                "select fired, fired_at, held, disabled, failing_since from triggers where name = ?"
            )
            rows = feed.store.ask(asked, name)
            fired, at, held, disabled, failing = rows[0] if rows else (0, None, None, None, None)
            lag, trigger = lags.get(f"trigger:{name}"), names.get(name)
            found.append(
                {
                    "trigger": name,
                    "waits_for": asks(trigger) if trigger else "nothing any more",
                    "receiver": trigger.deliver.shown if trigger else "nobody",
                    "fired": fired,
                    "last_fired": None if at is None else when(int(at)),
                    "behind": lag.behind if lag else None,
                    "messages": left.get(name, {}),
                    "state": "not in the file"
                    if trigger is None
                    else f"held: {held}"
                    if held
                    else f"disabled: {disabled}"
                    if disabled
                    else f"failing since {when(int(failing))}"
                    if failing
                    else "on"
                    if rows
                    else "new",
                }
            )
    print_triggers(found, json)
    tell_strays(left, known)


def strays(left: Mapping[str, Mapping[str, int]], known: Sequence[Trigger]) -> dict[str, int]:
    """Triggers that are not in the file (any more), and how many messages wait for them, or were
    given up.
    """
    gone = sorted(left.keys() - {one.name for one in known})
    counted = {
        name: sum(left[name].get(state, 0) for state in ("waiting", "held", "dead"))
        for name in gone
    }
    return {name: count for name, count in counted.items() if count}


def tell_strays(left: Mapping[str, Mapping[str, int]], known: Sequence[Trigger]) -> None:
    """Say what waits for triggers that are not in the file (any more)."""
    from .output import say

    for name, count in strays(left, known).items():
        say(
            f"{count:,} messages are left of {name}, which is not in the file: put it back, or drop them with "
            f"`stripe-feed triggers discard {name} --waiting`."
        )


def asks(trigger: Trigger) -> str:
    """What a trigger waits for, in a few words."""
    from ..feed.change import OP_WORDS
    from ..feed.filters import UNASKED
    from ..triggers.trigger import side_words

    parts = ["/".join(trigger.wanted.resources) or "anything"]
    parts += ["/".join(OP_WORDS[op] for op in trigger.wanted.ops)] * (trigger.wanted.ops != UNASKED)
    parts += [f"event {'/'.join(trigger.event)}"] * bool(trigger.event)
    parts += [
        f"{path} changes to {side_words(new)}"
        if old == "*"
        else f"{path} from {side_words(old)} to {side_words(new)}"
        for path, (old, new) in trigger.transition.items()
    ]
    parts += [f"{path} changes" for path in trigger.changed]
    parts += [f"where {trigger.where.text}"] if trigger.where else []
    parts += [f"{trigger.enrol.kind} per {trigger.per.removesuffix('_id')}"] * (
        trigger.enrol.kind != "always"
    )
    return ", ".join(parts)


@partial(command, triggers_app)
def test(
    name: Name,
    since: Since = "30d",
    triggers: File = "triggers.toml",
    json: Json = False,
    database: Database = None,
    destination: Destination = None,
    dataset: Dataset = "stripe",
    state_dir: StateDir = None,
) -> None:
    """Show what a trigger would have fired for in the past, per day, with sample bodies. Nothing is
    sent.
    """
    from ..triggers.backtest import rehearsed
    from .trigger_output import print_rehearsal

    trigger = named(triggers, name)
    with opened(database, destination, dataset, state_dir) as feed:
        print_rehearsal(rehearsed(feed.store, trigger, since, SAMPLES, lookups=feed.lookups), json)


@partial(command, triggers_app)
def explain(
    change_id: Annotated[
        str, typer.Argument(metavar="CHANGE_ID", help="Of a change; `feed tail --json` shows them.")
    ],
    triggers: File = "triggers.toml",
    json: Json = False,
    database: Database = None,
    destination: Destination = None,
    dataset: Dataset = "stripe",
    state_dir: StateDir = None,
) -> None:
    """Show why each trigger fired for a change or did not: every clause with its value, and every
    attempt.
    """
    from ..triggers.config import read_triggers
    from ..triggers.engine import explain
    from .trigger_output import print_explained

    with opened(database, destination, dataset, state_dir) as feed:
        print_explained(explain(feed.store, read_triggers(triggers), change_id, feed.lookups), json)


@partial(command, triggers_app)
def replay(
    name: Name,
    since: Since,
    triggers: File = "triggers.toml",
    database: Database = None,
    destination: Destination = None,
    dataset: Dataset = "stripe",
    state_dir: StateDir = None,
) -> None:
    """Fire a trigger again for what happened since, with the message ids of then; `deliver` sends
    them.
    """
    import time

    from ..triggers.engine import replay
    from .output import say

    trigger = named(triggers, name)
    with opened(database, destination, dataset, state_dir) as feed:
        done = replay(feed.store, trigger, since, time.time(), feed.ids, feed.lookups)
    what = f"are held: {done.held}" if done.held else "wait for `stripe-feed deliver`"
    say(f"{done.fired:,} messages of {done.seen:,} changes {what}.")


@partial(command, triggers_app)
def release(
    name: Name,
    database: Database = None,
    destination: Destination = None,
    dataset: Dataset = "stripe",
    state_dir: StateDir = None,
) -> None:
    """Let a trigger that is held by its guard, or whose receiver is disabled, go on."""
    import time

    from ..delivery.outbox import release
    from .output import say

    with opened(database, destination, dataset, state_dir) as feed:
        say(
            f"{name} goes on; {release(feed.store, name, time.time()):,} messages are no longer held."
        )


@partial(command, triggers_app)
def discard(
    name: Name,
    waiting: Annotated[
        bool, typer.Option("--waiting", help="Also those that wait, or were given up.")
    ] = False,
    database: Database = None,
    destination: Destination = None,
    dataset: Dataset = "stripe",
    state_dir: StateDir = None,
) -> None:
    """Drop the messages that a guard holds, and let the trigger go on. A replay that is held goes
    first, and alone.
    """
    import time

    from ..delivery.outbox import discard
    from .output import say

    with opened(database, destination, dataset, state_dir) as feed:
        dropped = discard(feed.store, name, time.time(), waiting)
        ((held,),) = feed.store.ask("select held from triggers where name = ?", name)
    goes = f"is still held: {held}; run it again to drop that, too" if held else "goes on"
    say(f"{name} {goes}; {dropped:,} messages were dropped.")


@partial(command, dead_app, name="list")
def dead_list(
    json: Json = False,
    database: Database = None,
    destination: Destination = None,
    dataset: Dataset = "stripe",
    state_dir: StateDir = None,
) -> None:
    """Show the messages that were given up, with what their last attempt came to."""
    from ..delivery.outbox import attempts, dead
    from .output import when
    from .trigger_output import print_records

    with opened(database, destination, dataset, state_dir, empty_is_fine=True) as feed:
        found = [(one, attempts(feed.store, one.message_id)) for one in dead(feed.store)]
    print_records(
        [
            {
                "message": one.message_id,
                "trigger": one.trigger,
                "change": one.change_id,
                "resource": one.resource,
                "object": one.object_id,
                "attempts": len(tries),
                "last": tries[-1].code if tries else None,
                "given up": None if one.ended_at is None else when(int(one.ended_at)),
            }
            for one, tries in found
        ],
        json,
    )


@partial(command, dead_app, name="retry")
def dead_retry(
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MESSAGE_ID]...", help="These; all if none is named."),
    ] = None,
    trigger: Annotated[
        str | None, typer.Option("--trigger", metavar="NAME", help="Only those of one trigger.")
    ] = None,
    database: Database = None,
    destination: Destination = None,
    dataset: Dataset = "stripe",
    state_dir: StateDir = None,
) -> None:
    """Put messages that were given up back into their lanes; `deliver` sends them with the ids that
    they had.
    """
    import time

    from ..delivery.outbox import retry
    from .output import say

    with opened(database, destination, dataset, state_dir, empty_is_fine=True) as feed:
        say(
            f"{retry(feed.store, time.time(), ids or (), trigger):,} messages wait for `stripe-feed deliver`."
        )


def deliver(
    triggers: File = "triggers.toml",
    once: Annotated[
        bool,
        typer.Option(
            "--once", help="Send what is due and end, for cron; else go on until stopped."
        ),
    ] = False,
    json: Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Only warnings and errors.")] = False,
    database: Database = None,
    destination: Destination = None,
    dataset: Dataset = "stripe",
    state_dir: StateDir = None,
) -> None:
    """Fire the triggers for what is new in the feed, and send what is due. SIGTERM lets what is
    under way finish.
    """
    from ..delivery.outbox import left
    from ..delivery.worker import delivering
    from ..triggers.config import read_triggers
    from ..triggers.run import ticking
    from .trigger_output import print_delivered, stopping

    found, fired = read_triggers(triggers), dict[str, Any]()
    with (
        stopping() as stop,
        opened(database, destination, dataset, state_dir, empty_is_fine=True) as feed,
        delivering(feed.store, found, lookups=feed.lookups) as delivery,
    ):
        run = ticking(feed, found, patient=not once)

        def tick() -> None:
            for one in run():
                fired[one.trigger] = (
                    one if one.trigger not in fired else fired[one.trigger].plus(one)
                )

        tick()
        done = delivery.once(stop) if once else delivery.follow(stop, tick)
        waiting = left(feed.store)
    print_delivered(list(fired.values()), done, json, quiet)
    tell_strays(waiting, found)
    tell_trouble(list(fired.values()), done, once)


def tell_trouble(fired: Sequence[Fired], done: Any, once: bool) -> None:
    """Raise `PartlyDone` where something waits for a person, or for another run."""
    said = [
        f"{one.trigger} is held: {one.held}. Run `stripe-feed triggers release {one.trigger}`, or discard."
        for one in fired
        if one.held
    ]
    said += [f"{one.trigger} did not run: {one.error}" for one in fired if one.error]
    said += [
        f"{name} is disabled: {why}. Mend the receiver, then `stripe-feed triggers release {name}`."
        for name, why in done.disabled.items()
    ]
    said += [f"{done.dead:,} messages were given up: `stripe-feed feed dead list`."] * bool(
        done.dead
    )
    if once and done.failed and not said:
        said = [
            f"{done.failed:,} {'messages' if done.failed > 1 else 'message'} failed; a later run tries again."
        ]
    if said:
        raise PartlyDone(" ".join(said))


def named(file: str, name: str) -> Trigger:
    """The trigger of this name in a file. Raises `UsageError`."""
    from ..triggers.config import read_triggers

    triggers = {one.name: one for one in read_triggers(file)}
    if name not in triggers:
        raise UsageError(f"{file} has no trigger {name!r}. It has: {', '.join(triggers)}.")
    return triggers[name]
