"""Print the results of triggers: tables for people, JSON for machines."""

from __future__ import annotations

import json as json_text
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..wording import counted
from .output import (
    console_out,
    echo_err,
    escape_control,
    format_firings,
    format_time,
    make_table,
    print_json,
)

if TYPE_CHECKING:
    from ..delivery.worker import DeliveryReport
    from ..triggers.backtest import BacktestReport, SampleMessage
    from ..triggers.engine import Explanation, TriggerResult
    from ..triggers.models.explain import RowTrial
    from ..triggers.states import TriggerState


def print_records(records: Sequence[Mapping[str, Any]], json: bool) -> None:
    """Print each record as a line or a JSON object; ids are never cut."""
    if json:
        print_json(
            *(
                {name.replace(" ", "_"): value for name, value in record.items()}
                for record in records
            )
        )
        return
    for record in records:
        line = "  ".join(f"{name} {value}" for name, value in record.items())
        sys.stdout.write(f"{escape_control(line)}\n")


def print_triggers(triggers: Sequence[Mapping[str, Any]], json: bool) -> None:
    """Print the condition, state and counts of each trigger."""
    if json:
        print_json(*triggers)
        return
    for trigger in triggers:
        line = "{trigger} ({state}): {waits_for} -> {receiver}".format_map(trigger)
        sys.stdout.write(f"{escape_control(line)}\n  {format_firings(trigger)}\n")


def state_record(state: TriggerState) -> dict[str, Any]:
    """What the store knows of a trigger, with `state`: held, disabled, failing, on, or new if it never
    ran.
    """
    if state.held:
        described = f"held: {state.held}"
    elif state.disabled:
        described = f"disabled: {state.disabled}"
    elif state.failing_since:
        described = f"failing since {format_time(int(state.failing_since))}"
    else:
        described = "on" if state.is_known else "new"
    fired_at, evaluated_at = state.fired_at, state.evaluated_at
    return {
        "trigger": state.trigger,
        "state": described,
        "fired": state.fired,
        "last_fired": None if fired_at is None else format_time(int(fired_at)),
        "behind": state.behind,
        "rows": state.rows,
        "evaluated": None if evaluated_at is None else format_time(int(evaluated_at)),
        "messages": state.messages,
    }


def stored_triggers(file: str | None) -> list[dict[str, Any]]:
    """What a feed store knows of its triggers; none if there is no file. A store that cannot be read
    is said.
    """
    from ..errors import StripeFeedError
    from ..feed.storage.store import FeedStore
    from ..triggers.states import trigger_states

    if file is None or not Path(file).exists():
        return []
    try:
        with FeedStore(file) as store:
            return [state_record(one) for one in trigger_states(store, time.time()).values()]
    except StripeFeedError as fault:
        echo_err(str(fault))
        return []


def print_backtest(report: BacktestReport, json: bool) -> None:
    """Print how often a trigger would have fired, per day, with sample messages."""
    if json:
        print_json(report)
        return
    console = console_out()
    console.print(
        f"{report.trigger} would have fired {counted(report.fired, 'time')} for {counted(report.changes, 'change')}: at most "
        f"{report.busiest_minute:,} in a minute, and {report.most_per_key:,} for one object or customer. Nothing was sent."
    )
    if report.days:
        console.print(make_table(["day", "messages"], list(report.days.items())))
    _print_samples(report.samples)


def print_trial(trial: RowTrial, json: bool) -> None:
    """Print what the next evaluation of a trigger on a model would do, with sample messages."""
    if json:
        print_json(trial)
        return
    console = console_out()
    if trial.is_new:
        console.print(
            f"{trial.trigger} would start from {counted(trial.rows, 'row')}, without a message. Nothing was sent. "
            "A row that enters later makes a message such as:"
        )
    else:
        console.print(
            f"{trial.trigger} would fire {counted(trial.fires, 'time')}: of {counted(trial.rows, 'row')} {trial.entered:,} entered, "
            f"{trial.left:,} left and {trial.changed:,} changed since the last evaluation. Nothing was sent."
        )
    if trial.held:
        console.print(escape_control(f"The guard would hold it: {trial.held}."))
    _print_samples(trial.samples)


def _print_samples(samples: Sequence[SampleMessage]) -> None:
    console = console_out()
    for sample in samples:
        console.print(
            escape_control(
                f"{format_time(sample.occurred_at)}  {sample.object_id}  {sample.change_id}"
            )
        )
        console.print(
            escape_control(json_text.dumps(sample.body, ensure_ascii=False, indent=2)).replace(
                "\\n", "\n"
            )
        )


def print_explanations(explanations: Sequence[Explanation], json: bool) -> None:
    """Print why each trigger fired or did not."""
    if json:
        print_json(*explanations)
        return
    for explanation in explanations:
        sys.stdout.write(escape_control(f"{explanation.trigger}: {explanation.verdict}.") + "\n")
        for clause in explanation.clauses:
            holds = "yes" if clause.holds else "no "
            sys.stdout.write(
                escape_control(
                    f"  {holds}  {clause.what}: {clause.asks}; it is {_format_value(clause.found)}"
                )
                + "\n"
            )
        for message, attempts in explanation.messages:
            sys.stdout.write(f"  {message.message_id}: {message.state}\n")
            for attempt in attempts:
                line = f"    {format_time(int(attempt.at))}  {attempt.code}  {attempt.seconds:.2f} s  {attempt.note}"
                sys.stdout.write(escape_control(line).rstrip() + "\n")


def _format_value(value: Any) -> str:
    if isinstance(value, dict | list) or value is None:
        return json_text.dumps(value, ensure_ascii=False)
    return str(value)


def print_delivered(
    fired: Sequence[TriggerResult], report: DeliveryReport, json: bool, quiet: bool
) -> None:
    """Print the result of a delivery: JSON on stdout, or one line on stderr."""
    if json:
        print_json(
            {
                "fired": {result.trigger: result.fired for result in fired},
                "sent": report.sent,
                "failed": report.failed,
                "dead": report.dead,
                "dropped": report.dropped,
                "held": {result.trigger: result.held for result in fired if result.held},
                "disabled": report.disabled,
            }
        )
        return
    if quiet:
        return
    for result in fired:
        if result.baseline is not None:
            echo_err(
                f"{result.trigger} starts from {counted(result.baseline, 'row')} of now: it fires for what happens to rows from now on."
            )
        elif result.is_new:
            echo_err(f"{result.trigger} is new: it fires for changes from now on.")
    parts = [f"{sum(result.fired for result in fired):,} fired", f"{report.sent:,} sent"]
    if report.failed:
        parts.append(f"{report.failed:,} failed and will be retried")
    if report.dropped:
        parts.append(f"{report.dropped:,} dropped")
    echo_err(f"{', '.join(parts)}.")


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Yield an event that SIGTERM and SIGINT set, so that running work can finish; a second signal
    ends the process at once.
    """
    stop = threading.Event()

    def on_signal(number: int, _: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop.set()

    before = {
        number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
