"""What triggers did and would do, on a terminal: tables for people, JSON for machines."""

from __future__ import annotations

import json as json_text
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .output import data, plain, print_json, say, table, when

if TYPE_CHECKING:
    from ..delivery.worker import Delivered
    from ..triggers.backtest import Rehearsed
    from ..triggers.engine import Explained, Fired


def print_records(found: Sequence[Mapping[str, Any]], json: bool) -> None:
    """Records of one form: a JSON object or a line each, with every id whole."""
    if json:
        print_json(
            *({name.replace(" ", "_"): value for name, value in one.items()} for one in found)
        )
        return
    for one in found:
        sys.stdout.write(plain("  ".join(f"{name} {value}" for name, value in one.items())) + "\n")


def print_triggers(found: Sequence[Mapping[str, Any]], json: bool) -> None:
    """What each trigger waits for, and how it stands."""
    if json:
        print_json(*found)
        return
    for one in found:
        sys.stdout.write(
            plain(f"{one['trigger']} ({one['state']}): {one['waits_for']} -> {one['receiver']}")
            + "\n"
        )
        parts = [
            f"fired {one['fired']:,}" + f", last {one['last_fired']}" * bool(one["last_fired"])
        ]
        parts += [f"{count:,} {state}" for state, count in sorted(one["messages"].items())]
        parts += [f"{one['behind']:,} changes behind"] if one["behind"] else []
        sys.stdout.write(f"  {', '.join(parts)}\n")


def print_rehearsal(found: Rehearsed, json: bool) -> None:
    """How often a trigger would have fired, per day, and some of its messages."""
    if json:
        print_json(found)
        return
    console = data()
    console.print(
        f"{found.trigger} would have fired {found.fired:,} times for {found.changes:,} changes: at most "
        f"{found.busiest_minute:,} in a minute, and {found.most_per_key:,} for one object or customer. Nothing was sent."
    )
    if found.days:
        console.print(table(["day", "messages"], list(found.days.items())))
    for sample in found.samples:
        console.print(plain(f"{when(sample.occurred_at)}  {sample.object_id}  {sample.change_id}"))
        console.print(
            plain(json_text.dumps(sample.body, ensure_ascii=False, indent=2)).replace("\\n", "\n")
        )


def print_explained(found: Sequence[Explained], json: bool) -> None:
    """Why triggers fired or did not."""
    if json:
        print_json(*found)
        return
    for one in found:
        sys.stdout.write(plain(f"{one.trigger}: {one.verdict}.") + "\n")
        for clause in one.clauses:
            holds = "yes" if clause.holds else "no "
            sys.stdout.write(
                plain(f"  {holds}  {clause.what}: {clause.asks}; it is {_shown(clause.found)}")
                + "\n"
            )
        for message, attempts in one.messages:
            sys.stdout.write(f"  {message.message_id}: {message.state}\n")
            for attempt in attempts:
                words = f"    {when(int(attempt.at))}  {attempt.code}  {attempt.seconds:.2f} s  {attempt.note}"
                sys.stdout.write(plain(words).rstrip() + "\n")


def _shown(value: Any) -> str:
    return (
        json_text.dumps(value, ensure_ascii=False)
        if isinstance(value, dict | list) or value is None
        else str(value)
    )


def print_delivered(fired: Sequence[Fired], done: Delivered, json: bool, quiet: bool) -> None:
    """What a delivery did: JSON on stdout, or a line of talk."""
    if json:
        print_json(
            {
                "fired": {one.trigger: one.fired for one in fired},
                "sent": done.sent,
                "failed": done.failed,
                "dead": done.dead,
                "dropped": done.dropped,
                "held": {one.trigger: one.held for one in fired if one.held},
                "disabled": done.disabled,
            }
        )
        return
    if quiet:
        return
    for one in fired:
        if one.is_new:
            say(f"{one.trigger} is new: it fires for what changes from now on.")
    fires = sum(one.fired for one in fired)
    again = f", {done.failed:,} failed and will be tried again" * bool(done.failed)
    say(
        f"{fires:,} fired, {done.sent:,} sent{again}{f', {done.dropped:,} dropped' * bool(done.dropped)}."
    )


@contextmanager
def stopping() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set, so that what is under way can finish; a second one ends
    at once.
    """
    stop = threading.Event()

    def heard(number: int, _: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop.set()

    before = {number: signal.signal(number, heard) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
