"""Parse queries for changes, and read pages of changes after a cursor, in one of several formats.

The server keeps no state about a client, except for named consumers.
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
from ..errors import OffsetOutOfRange, UsageError
from ..feed import consumers
from ..feed.change import OP_WORDS, Change
from ..feed.filters import Filter, combine, compile_filter, parse_transitions
from ..feed.latest import SCAN_LIMIT, newest_first
from ..feed.lookups import NO_LOOKUPS, Lookups
from ..feed.paths import split_paths
from ..feed.storage.store import FeedStore
from ..triggers.models.model_trigger import AnyTrigger, ModelTrigger

DEFAULT_LIMIT, MAX_LIMIT = 100, 1_000  # changes in one answer
MAX_ZAPIER_BYTES = 32_000_000  # of one to whoever polls without a place
_MAX_WAIT_SECONDS = 25  # seconds: proxies often end what is silent for 30
MAX_SCANS = 20  # of the log, looked through for one answer
_BATCH_SIZE = 500  # changes in memory, where few of them match
_FORMATS = ("json", "zapier", "cloudevents")
RESERVED = (
    "trigger:"  # consumers that are triggers: who acknowledged for them would swallow messages
)
CURSOR = re.compile(r"(\d{1,18})(?::(\d{1,18}))?", re.ASCII)
_ID = re.compile(r"[\w.-]{1,255}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position after an offset. Changes pruned up to `accepted` are not reported as lost; None:
    nor are changes pruned so far.
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
class ChangesQuery:
    """A parsed query: `after` is a cursor, a change id or None; `wait` in seconds."""

    filters: Filter
    after: Cursor | str | None = None
    limit: int | None = None
    wait: float = 0.0
    form: str = "json"
    consumer: str | None = None
    start: str = "latest"


@dataclass(frozen=True, slots=True)
class ChangesPage:
    """Changes in order, the cursor after everything searched, and the newest offset."""

    changes: list[Change]
    cursor: Cursor
    head: int
    epoch: int | None = None  # of the consumer

    @property
    def has_more(self) -> bool:
        """Whether more of the log remains to search."""
        return self.cursor.offset < self.head


class Acknowledged(msgspec.Struct, forbid_unknown_fields=True):
    """A consumer's acknowledgement: everything up to an offset."""

    consumer: str
    offset: int
    epoch: int | None = None


QueryParams = Iterable[tuple[str, str]]


FILTERS = (
    "resource",
    "op",
    "transition",
    "changed",
    "origin",
    "customer",
    "origin_push",
    "trigger",
)


def parse_query(
    params: QueryParams,
    names: Collection[str],
    triggers: Iterable[AnyTrigger] = (),
    lookups: Lookups = NO_LOOKUPS,
) -> ChangesQuery:
    """Parse the parameters of a query; `UsageError` names an invalid one, or one not in `names`.
    `triggers`: their rules can be used by name, with their lookups.
    """
    given: dict[str, str] = {}
    for name, value in params:
        if name not in names:
            raise UsageError(
                f"There is no parameter {name[:40]!r}. Choose from: {', '.join(names)}."
            )
        if name in given:
            raise UsageError(f"{name} is given twice.")
        given[name] = value
    parsed = {
        "form" if name == "format" else name: _PARSERS[name](value)
        for name, value in given.items()
        if name in _PARSERS
    }
    question = ChangesQuery(_filters(given, triggers, lookups), **parsed)
    _check_combination(question, given)
    return question


def _check_combination(question: ChangesQuery, given: Mapping[str, str]) -> None:
    if question.form == "zapier" and (
        wrong := [name for name in ("after", "wait", "consumer", "start") if name in given]
    ):
        raise UsageError(
            f"{wrong[0]} does not go with format=zapier, which is always the newest changes."
        )
    if question.consumer is not None and "after" in given:
        raise UsageError("after does not go with consumer: the server keeps its position.")
    if question.consumer is None and "start" in given:
        raise UsageError("start goes with consumer: it says where a new one begins.")


def _filters(given: Mapping[str, str], triggers: Iterable[AnyTrigger], lookups: Lookups) -> Filter:
    parsed: dict[str, Any] = {}
    for name in FILTERS[:-1]:
        if name in given:
            try:
                parsed[name] = _FILTER_PARSERS[name](given[name])
                compile_filter(**{name: parsed[name]})
            except UsageError as fault:
                raise UsageError(f"{name}: {fault}") from None
    if "trigger" not in given:
        return compile_filter(**parsed)
    rule = _rule(given["trigger"], triggers, lookups)
    return combine(
        compile_filter(**{"op": rule.ops, **parsed}), rule
    )  # a rule may be about snapshots


def _rule(name: str, triggers: Iterable[AnyTrigger], lookups: Lookups) -> Filter:
    """Return a trigger's rule as a filter, ignoring enrolment."""
    rules = {trigger.name: trigger for trigger in triggers}
    if name not in rules:
        near = "".join(
            f" Did you mean {trigger!r}?" for trigger in get_close_matches(name[:100], rules, 1)
        )
        raise UsageError(f"trigger: there is no trigger {name[:60]!r} here.{near}")
    rule = rules[name]
    if isinstance(rule, ModelTrigger):
        raise UsageError(f"trigger: {name} is a trigger on a model, which no change meets.")
    return replace(
        rule.filter,
        matches=partial(rule.fires, lookups=lookups),
        prefetch=partial(rule.prefetch, lookups=lookups),
    )


def _split(text: str) -> list[str]:
    return [item.strip() for item in text.split(",")]


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise UsageError("it is true or false.")
    return text == "true"


_FILTER_PARSERS: dict[str, Callable[[str], Any]] = {
    "resource": _split,
    "op": _split,
    "origin": _split,
    "customer": _split,
    "origin_push": _boolean,
    "transition": lambda text: parse_transitions([text]),
    "changed": lambda text: split_paths([text]) or [""],
}


def parse_cursor(text: str, name: str = "after") -> Cursor | str:
    """Parse a cursor or a change id. Raises `UsageError`, which names the parameter."""
    if match := CURSOR.fullmatch(text):
        offset, accepted = int(match[1]), match[2]
        if accepted:
            return Cursor(offset, int(accepted))
        return Cursor(offset, 0 if offset else None)
    if not _ID.fullmatch(text):
        raise UsageError(
            f"{name} is a cursor (`next_cursor` of the last answer), an offset, or a change id."
        )
    return text


def _integer(name: str, low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) < 10 and low <= int(text) <= high):
            raise UsageError(f"{name} is a whole number from {low} to {high}.")
        return int(text)

    return read


def _parse_format(text: str) -> str:
    if text not in _FORMATS:
        raise UsageError(f"format is one of: {', '.join(_FORMATS)}.")
    return text


def _check_consumer(text: str) -> str:
    if text.startswith(RESERVED):
        raise UsageError(f"consumer: names that begin with {RESERVED} are reserved for triggers.")
    return text


_PARSERS: dict[str, Callable[[str], Any]] = {
    "after": parse_cursor,
    "limit": _integer("limit", 1, MAX_LIMIT),
    "wait": _integer("wait", 0, _MAX_WAIT_SECONDS),
    "format": _parse_format,
    "consumer": _check_consumer,
    "start": str,
}


def fetch_page(store: FeedStore, question: ChangesQuery, now: float) -> ChangesPage:
    """Return the page for a query. A new consumer begins at its `start`; only `acknowledge` moves
    it.

    Raises `OffsetOutOfRange` if changes after the cursor were pruned, or it belongs to a feed that no
    longer exists.
    """
    if question.consumer is None:
        return after_cursor(store, cursor_of(store, question.after), question)
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
    return replace(after_cursor(store, Cursor(position, accepted), question), epoch=epoch)


def cursor_of(store: FeedStore, after: Cursor | str | None) -> Cursor:
    """Return the cursor of a position; None is before the oldest kept change."""
    if not isinstance(after, str):
        return after or Cursor()
    rows = store.query("select position from log where change_id = ?", after)
    if rows:
        return Cursor(int(rows[0][0]), 0)
    if store.query("select 1 from pruned where change_id = ?", after):
        raise OffsetOutOfRange(
            f"The change {after} was pruned. Start at 0, the oldest kept change."
        )
    raise UsageError(
        f"after, Last-Event-ID: there is no change {after[:60]!r}. Give the `next_cursor` of the last answer."
    )


def after_cursor(store: FeedStore, cursor: Cursor, question: ChangesQuery) -> ChangesPage:
    """Return the next matching changes after a cursor, from some ten thousand positions. Raises
    `OffsetOutOfRange`.
    """
    page_changes, after, accepted = list[Change](), cursor.offset, cursor.accepted
    filters, limit = question.filters, question.limit or DEFAULT_LIMIT
    for turn in range(MAX_SCANS):
        page = store.page(after, _BATCH_SIZE if turn else limit, filters.resources, filters.ops)
        accepted = page.pruned_through if accepted is None else accepted
        if page.pruned_through > max(after, accepted):
            raise consumers.offset_out_of_range(after, page.pruned_through)
        if after > page.head:
            raise OffsetOutOfRange(
                f"Offset {after} is of another feed: this one goes up to {page.head}. Start at 0."
            )
        selected = filters.select(page.changes)
        if len(page_changes) + len(selected) >= limit:
            page_changes += selected[: limit - len(page_changes)]
            after = page_changes[-1].offset
            break
        page_changes += selected
        after = page.upto
        if after >= page.head:
            break
    return ChangesPage(page_changes, Cursor(after, accepted), page.head)


def acknowledge_request(store: FeedStore, body: bytes, now: float) -> Acknowledged:
    """Move a consumer forward, never back, and return its position. Raises `UsageError`, or
    `Fenced` for an old `epoch`.
    """
    try:
        request = msgspec.json.decode(body, type=Acknowledged)
    except (msgspec.DecodeError, RecursionError) as fault:
        raise UsageError(f'The body is {{"consumer": NAME, "offset": N}}: {fault}.') from None
    _check_consumer(request.consumer)
    with store.transaction() as db:
        query = "select epoch, position from consumers where name = ?"
        row = db.execute(query, (request.consumer,)).fetchone()
        if row is None:
            raise UsageError(
                "consumer: no consumer has this name. `GET /changes?consumer=NAME` creates it."
            )
        if not 0 <= request.offset <= store.head:
            raise UsageError(f"offset: the feed has offsets 1 to {store.head}.")
        consumers.advance(
            db,
            request.consumer,
            row[0] if request.epoch is None else request.epoch,
            request.offset,
            now,
        )
        epoch, position = db.execute(query, (request.consumer,)).fetchone()
    return Acknowledged(request.consumer, position, epoch)


def as_json(question: ChangesQuery, page: ChangesPage) -> bytes:
    """Return `data`, `next_cursor`, `has_more`, and `lag`: how many changes follow. For a consumer,
    also what to acknowledge.
    """
    answer: dict[str, Any] = {
        "data": [change.as_dict() for change in page.changes],
        "next_cursor": str(page.cursor),
        "has_more": page.has_more,
        "lag": max(page.head - page.cursor.offset, 0),
    }
    if question.consumer is not None:
        answer["ack"] = {
            "consumer": question.consumer,
            "offset": page.cursor.offset,
            "epoch": page.epoch,
        }
    return to_json(answer)


def as_cloudevents(page: ChangesPage) -> bytes:
    """https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md#4-json-batch-format"""
    return _join(
        render("cloudevents", PayloadContext(change, "", change.change_id)).content
        for change in page.changes
    )


def as_records(store: FeedStore, question: ChangesQuery) -> tuple[bytes, bool]:
    """Return the newest changes, newest first, for clients that keep no position: `limit`, or those
    of the last hour and at least `DEFAULT_LIMIT`; and whether more of the hour were left out. Each
    is the object with `id` (the change's id, by which Zapier recognizes new ones), `object_id` and
    `change_…`.

    https://docs.zapier.com/platform/build/deduplication
    """
    records, size = list[bytes](), 0
    for change, is_recent in newest_first(store, question.filters):
        if (
            len(records) >= (question.limit or (SCAN_LIMIT if is_recent else DEFAULT_LIMIT))
            or size > MAX_ZAPIER_BYTES
        ):
            return _join(records), is_recent
        records.append(to_json(_record(change)))
        size += len(records[-1])
    return _join(records), False


def _join(texts: Iterable[bytes]) -> bytes:
    return b"[" + b",".join(texts) + b"]"


def _record(change: Change) -> dict[str, Any]:
    fields = change.as_dict()
    names = ("resource", "event_type", "occurred_at", "offset", "customer_id", "changed", "before")
    image = change.after if change.op != "d" else change.before
    return {
        **(image or {}),
        "id": change.change_id,
        "object_id": change.object_id,
        "change_op": OP_WORDS[change.op],
        **{f"change_{name}": fields[name] for name in names},
    }


def to_json(value: Any) -> bytes:
    """Return JSON in one line of ASCII: half a surrogate pair, which strangers can write, has no
    UTF-8.
    """
    return json.dumps(value, separators=(",", ":")).encode()
