"""What clients ask of the feed over HTTP, and what they get: a page of changes behind a cursor, in
one of several formats.

The server keeps nothing about a client, except for those that give themselves a name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from typing import Any

import msgspec

from ..delivery.payloads import PayloadContext, render
from ..errors import PositionLost, UsageError
from ..feed import consumers
from ..feed.change import OP_WORDS, Change
from ..feed.filters import Filter, combine, compile_filter, parse_transitions
from ..feed.latest import SCAN_LIMIT, newest_first
from ..feed.lookups import NO_LOOKUPS, Lookups
from ..feed.paths import split_paths
from ..feed.storage.store import FeedStore
from ..triggers.trigger import Trigger

LIMIT, MOST = 100, 1_000  # changes in one answer
MOST_BYTES = 32_000_000  # of one to whoever polls without a place
LONGEST_WAIT = 25  # seconds: proxies often end what is silent for 30
WINDOWS = 20  # of the log, looked through for one answer
READ = 500  # changes in memory, where few of them match
FORMATS = ("json", "zapier", "cloudevents")
RESERVED = (
    "trigger:"  # consumers that are triggers: who acknowledged for them would swallow messages
)
CURSOR = re.compile(r"(\d{1,18})(?::(\d{1,18}))?", re.ASCII)
ID = re.compile(r"[\w.-]{1,255}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the feed: behind an offset. What was pruned up to `accepted` is no loss; none: nor
    what was until now.
    """

    offset: int = 0
    accepted: int | None = None

    def __str__(self) -> str:
        accepted = self.accepted or 0
        return (
            f"{self.offset}:{accepted}"
            if accepted > self.offset or not self.offset
            else str(self.offset)
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """A question: `after` is a cursor, a change id or nothing; `wait` in seconds."""

    filters: Filter
    after: Cursor | str | None = None
    limit: int | None = None
    wait: float = 0.0
    form: str = "json"
    consumer: str | None = None
    start: str = "latest"


@dataclass(frozen=True, slots=True)
class Pulled:
    """Changes in order, the cursor behind all that was looked at, and the newest offset."""

    changes: list[Change]
    cursor: Cursor
    head: int
    epoch: int | None = None  # of the consumer

    @property
    def has_more(self) -> bool:
        """Whether there is more of the log to look at."""
        return self.cursor.offset < self.head


class Acknowledged(msgspec.Struct, forbid_unknown_fields=True):
    """What a consumer has done with: everything up to an offset."""

    consumer: str
    offset: int
    epoch: int | None = None


Params = Iterable[tuple[str, str]]


FILTERS = ("resource", "op", "transition", "changed", "origin", "customer", "trigger")


def asked(
    params: Params,
    names: Collection[str],
    triggers: Iterable[Trigger] = (),
    lookups: Lookups = NO_LOOKUPS,
) -> Asked:
    """Read the parameters of a question; `UsageError` names the one that is wrong, or not among
    `names`. `triggers`: those whose rules can be asked for by name, with what they look up.
    """
    found: dict[str, str] = {}
    for name, value in params:
        if name not in names:
            raise UsageError(
                f"There is no parameter {name[:40]!r}. Choose from: {', '.join(names)}."
            )
        if name in found:
            raise UsageError(f"{name} is given twice.")
        found[name] = value
    read = {
        "form" if name == "format" else name: _READ[name](value)
        for name, value in found.items()
        if name in _READ
    }
    question = Asked(_filters(found, triggers, lookups), **read)
    _together(question, found)
    return question


def _together(question: Asked, found: Mapping[str, str]) -> None:
    if question.form == "zapier" and (
        wrong := [name for name in ("after", "wait", "consumer", "start") if name in found]
    ):
        raise UsageError(
            f"{wrong[0]} does not go with format=zapier, which is always the newest changes."
        )
    if question.consumer is not None and "after" in found:
        raise UsageError("after does not go with consumer, whose place is kept here.")
    if question.consumer is None and "start" in found:
        raise UsageError("start goes with consumer: it says where a new one begins.")


def _filters(found: Mapping[str, str], triggers: Iterable[Trigger], lookups: Lookups) -> Filter:
    read: dict[str, Any] = {}
    for name in FILTERS[:-1]:
        if name in found:
            try:
                read[name] = _FILTERS[name](found[name])
                compile_filter(**{name: read[name]})
            except UsageError as fault:
                raise UsageError(f"{name}: {fault}") from None
    if "trigger" not in found:
        return compile_filter(**read)
    rule = _rule(found["trigger"], triggers, lookups)
    return combine(
        compile_filter(**{"op": rule.ops, **read}), rule
    )  # a rule may be about snapshots


def _rule(name: str, triggers: Iterable[Trigger], lookups: Lookups) -> Filter:
    """What a trigger's rule holds for, whoever is enrolled."""
    known = {one.name: one for one in triggers}
    if name not in known:
        near = "".join(f" Did you mean {one!r}?" for one in get_close_matches(name[:100], known, 1))
        raise UsageError(f"trigger: there is no trigger {name[:60]!r} here.{near}")
    rule = known[name]
    return replace(
        rule.wanted,
        matches=partial(rule.fires, lookups=lookups),
        prefetch=partial(rule.look_up, lookups=lookups),
    )


def _list(text: str) -> list[str]:
    return [one.strip() for one in text.split(",")]


_FILTERS: dict[str, Callable[[str], Any]] = {
    "resource": _list,
    "op": _list,
    "origin": _list,
    "customer": _list,
    "transition": lambda text: parse_transitions([text]),
    "changed": lambda text: split_paths([text]) or [""],
}


def place(text: str, name: str = "after") -> Cursor | str:
    """A cursor or a change id. Raises `UsageError`, which names the parameter."""
    if found := CURSOR.fullmatch(text):
        offset, accepted = int(found[1]), found[2]
        return Cursor(offset, int(accepted) if accepted else 0 if offset else None)
    if not ID.fullmatch(text):
        raise UsageError(
            f"{name} is a cursor (`next_cursor` of the last answer), an offset, or a change id."
        )
    return text


def _number(name: str, low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 10 and low <= int(text) <= high):
            raise UsageError(f"{name} is a whole number from {low} to {high}.")
        return int(text)

    return read


def _form(text: str) -> str:
    if text not in FORMATS:
        raise UsageError(f"format is one of: {', '.join(FORMATS)}.")
    return text


def _consumer(text: str) -> str:
    if text.startswith(RESERVED):
        raise UsageError(f"consumer: names that begin with {RESERVED} are those of triggers.")
    return text


_READ: dict[str, Callable[[str], Any]] = {
    "after": place,
    "limit": _number("limit", 1, MOST),
    "wait": _number("wait", 0, LONGEST_WAIT),
    "format": _form,
    "consumer": _consumer,
    "start": str,
}


def pull(store: FeedStore, question: Asked, now: float) -> Pulled:
    """The answer to a question. A consumer that is new begins at its `start`; its place is moved by
    `acknowledge` only.

    Raises `PositionLost` where changes behind the cursor were pruned, or it belongs to a feed that
    is no more.
    """
    if question.consumer is None:
        return behind(store, cursor_of(store, question.after), question)
    query = "select position, accepted, epoch from consumers where name = ?"
    rows = store.query(query, question.consumer)
    if not rows:
        try:
            consumers.attach(store, question.consumer, question.start, now)
        except UsageError as fault:
            raise UsageError(f"consumer, start: {fault}") from None
        rows = store.query(query, question.consumer)
    position, accepted, epoch = rows[0]
    consumers.check_retained(question.consumer, max(position, accepted), store.pruned_through)
    return replace(behind(store, Cursor(position, accepted), question), epoch=epoch)


def cursor_of(store: FeedStore, after: Cursor | str | None) -> Cursor:
    """The cursor of a place; nothing is before the oldest change that is kept."""
    if not isinstance(after, str):
        return after or Cursor()
    rows = store.query("select position from log where change_id = ?", after)
    if rows:
        return Cursor(int(rows[0][0]), 0)
    if store.query("select 1 from pruned where change_id = ?", after):
        raise PositionLost(f"The change {after} was pruned. Begin at 0, the oldest that is kept.")
    raise UsageError(
        f"after, Last-Event-ID: there is no change {after[:60]!r}. Give the `next_cursor` of the last answer."
    )


def behind(store: FeedStore, cursor: Cursor, question: Asked) -> Pulled:
    """The next changes behind a cursor that match, out of some ten thousand positions. Raises
    `PositionLost`.
    """
    found, after, accepted = list[Change](), cursor.offset, cursor.accepted
    filters, limit = question.filters, question.limit or LIMIT
    for turn in range(WINDOWS):
        page = store.page(after, READ if turn else limit, filters.resources, filters.ops)
        accepted = page.pruned_through if accepted is None else accepted
        if page.pruned_through > max(after, accepted):
            raise consumers.offset_out_of_range(after, page.pruned_through)
        if after > page.head:
            raise PositionLost(
                f"Offset {after} is of another feed: this one goes up to {page.head}. Begin at 0."
            )
        matching = filters.select(page.changes)
        if len(found) + len(matching) >= limit:
            found += matching[: limit - len(found)]
            after = found[-1].offset
            break
        found += matching
        after = page.upto
        if after >= page.head:
            break
    return Pulled(found, Cursor(after, accepted), page.head)


def acknowledge(store: FeedStore, body: bytes, now: float) -> Acknowledged:
    """Move a consumer on, never back, and return where it stands. Raises `UsageError`, or `Fenced`
    for an old `epoch`.
    """
    try:
        told = msgspec.json.decode(body, type=Acknowledged)
    except (msgspec.DecodeError, RecursionError) as fault:
        raise UsageError(f'The body is {{"consumer": NAME, "offset": N}}: {fault}.') from None
    _consumer(told.consumer)
    with store.transaction() as db:
        query = "select epoch, position from consumers where name = ?"
        row = db.execute(query, (told.consumer,)).fetchone()
        if row is None:
            raise UsageError(
                "consumer: there is none of this name. `GET /changes?consumer=NAME` makes it."
            )
        if not 0 <= told.offset <= store.head:
            raise UsageError(f"offset: the feed goes from 1 to {store.head}.")
        consumers.advance(
            db, told.consumer, row[0] if told.epoch is None else told.epoch, told.offset, now
        )
        epoch, position = db.execute(query, (told.consumer,)).fetchone()
    return Acknowledged(told.consumer, position, epoch)


def as_json(question: Asked, found: Pulled) -> bytes:
    """`data`, `next_cursor`, `has_more`, and `lag`: how many changes come behind it. For a
    consumer, what to acknowledge.
    """
    answer: dict[str, Any] = {
        "data": [one.as_dict() for one in found.changes],
        "next_cursor": str(found.cursor),
        "has_more": found.has_more,
        "lag": max(found.head - found.cursor.offset, 0),
    }
    if question.consumer is not None:
        answer["ack"] = {
            "consumer": question.consumer,
            "offset": found.cursor.offset,
            "epoch": found.epoch,
        }
    return encoded(answer)


def as_cloudevents(found: Pulled) -> bytes:
    """https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md#4-json-batch-format"""
    return _joined(
        render("cloudevents", PayloadContext(one, "", one.change_id)).content
        for one in found.changes
    )


def as_records(store: FeedStore, question: Asked) -> tuple[bytes, bool]:
    """The newest changes, newest first, for whoever keeps no place: `limit`, or else those of the
    last hour and at least `LIMIT`; and whether more of the hour were left out. Each is the object
    with `id` (of the change: what Zapier tells new ones by), `object_id` and `change_…`.

    https://docs.zapier.com/platform/build/deduplication
    """
    found, size = list[bytes](), 0
    for one, is_recent in newest_first(store, question.filters):
        if (
            len(found) >= (question.limit or (SCAN_LIMIT if is_recent else LIMIT))
            or size > MOST_BYTES
        ):
            return _joined(found), is_recent
        found.append(encoded(_record(one)))
        size += len(found[-1])
    return _joined(found), False


def _joined(found: Iterable[bytes]) -> bytes:
    return b"[" + b",".join(found) + b"]"


def _record(one: Change) -> dict[str, Any]:
    told = one.as_dict()
    names = ("resource", "event_type", "occurred_at", "offset", "customer_id", "changed", "before")
    image = one.after if one.op != "d" else one.before
    return {
        **(image or {}),
        "id": one.change_id,
        "object_id": one.object_id,
        "change_op": OP_WORDS[one.op],
        **{f"change_{name}": told[name] for name in names},
    }


def encoded(value: Any) -> bytes:
    """JSON in one line of ASCII: half a surrogate pair, which strangers can write, has no UTF-8."""
    return json.dumps(value, separators=(",", ":")).encode()
