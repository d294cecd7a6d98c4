"""A batch of events of one resource -> its changes, and the rows of its objects: from snapshots,
read again, or as held.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dlt
import msgspec

from ..resources import RESOURCES
from . import existing
from .events.classify import ObjectEvent, is_discount_only
from .events.derive import changes_for, final_object
from .events.history import (
    BaseState,
    SequencedEvent,
    events_of_stored_change,
    needs_base_state,
    order_events,
)
from .lists import LIST_EMITTED_CREATES
from .next_step import VERSION_STEP
from .refetch import Fetched
from .tables.changes import ChangeRow, listed_change_id
from .tables.codec import Record
from .tables.rejected import Rejected
from .writer import Writer, certainly_before, read_version

EMBEDDED_TABLES = frozenset(
    table for row in RESOURCES.values() for child in row.children for _, table in child.embeds
)
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


class FinalState:
    """Where an object stands after its events; `body`: its content of the pinned shape, where an
    event holds it. `held`: the copy has it, because its last event was told before.
    """

    def __init__(self, ordered: SequencedEvent, body: bytes | None) -> None:
        event = ordered.entry.event
        self.id = ordered.entry.id
        self.body = body
        self.last_event = ordered.entry
        self.created = ordered.entry.created
        self.version = event.created * VERSION_STEP + ordered.position
        self.deleted_at = event.created if ordered.entry.kind == "deleted" else None
        self.is_stored = ordered.entry.from_copy and ordered.certain
        self.deletion: FinalState | None = None  # by an event that seemed not to be the last one


@dataclass
class Batch:
    """What a batch of events leads to for one resource; `again` must be read before its tables can
    be made.
    """

    writer: Writer
    changes: list[ChangeRow] = field(default_factory=list)
    final_states: dict[str, FinalState] = field(default_factory=dict)
    rows: list[tuple[Record, int, int | None]] = field(
        default_factory=list
    )  # with version and time of deletion
    deleted: dict[str, FinalState] = field(default_factory=dict)
    to_refetch: dict[str, int | None] = field(default_factory=dict)
    fetched: list[Fetched] = field(default_factory=list)

    def tables(self) -> Iterator[Any]:
        """The tables to yield: rows first, then the changes that led there."""
        rows = [
            *self.rows,
            *((read.record, self._version(read), None) for read in self._worth_writing()),
        ]
        yield from self.writer.rows(
            [r for r, _, _ in rows], [v for _, v, _ in rows], [end for _, _, end in rows]
        )
        self._use_deletions()
        yield from self._deleted_tables()
        yield from self.writer.changes(sorted(self.changes, key=lambda change: change.occurred_at))

    def _version(self, read: Fetched) -> int:
        """What was read because of an event shows it, however short ago that happened."""
        last = self.final_states.get(read.record.row.id)
        return max(read_version(read.requested_at), 0 if last is None else last.version)

    def _worth_writing(self) -> list[Fetched]:
        """Without objects on test clocks, and what only a discount led to if it is held as it is."""
        clocks = self.writer.context.options.test_clocks
        wanted = [
            read
            for read in self.fetched
            if clocks or not getattr(read.record.row, "test_clock", None)
        ]
        doubtful = [read.record for read in wanted if read.record.row.id not in self.final_states]
        held = {record.row.id for record in doubtful} - {
            record.row.id for record in self.writer.drop_unchanged(doubtful)
        }
        return [read for read in wanted if read.record.row.id not in held]

    def _use_deletions(self) -> None:
        """Objects that could not be read again were gone, where an event of this batch says so,
        though another seemed later.
        """
        read = {read.record.row.id for read in self.fetched}
        for id in (
            self.to_refetch.keys()
            - read
            - self.writer.context.left_out.ids(self.writer.resource.table)
        ):
            if (state := self.final_states.get(id)) is not None and state.deletion is not None:
                self.deleted[id] = state.deletion

    def _deleted_tables(self) -> Iterator[Any]:
        """Deleted objects whose event does not hold their content: the row that is held becomes
        their last.
        """
        if not self.deleted or self.writer.client is None:
            return
        with self.writer.client as client:
            rows = existing.stored_rows(client, self.writer.shape, list(self.deleted))
        ends = [self.deleted[id] for id in rows]
        yield from self.writer.deleted_rows(
            list(rows.values()),
            [one.version for one in ends],
            [one.deleted_at or 0 for one in ends],
        )
        if (
            self.writer.resource.table in EMBEDDED_TABLES
        ):  # a copy inside an item may come at any time: it must not live
            ends = [one for id, one in self.deleted.items() if id not in rows]
            records = (
                self.writer.shape.decode_objects(
                    [_documented_body(self.writer, one.last_event) for one in ends]
                )
                if ends
                else []
            )
            whole = [
                (one, record)
                for one, record in zip(ends, records, strict=True)
                if not isinstance(record, Rejected)
            ]
            yield from self.writer.rows(
                [record for _, record in whole],
                [one.version for one, _ in whole],
                [one.deleted_at for one, _ in whole],
            )


def plan_batch(writer: Writer, history: Sequence[ObjectEvent], started: int) -> Batch:
    """Derive the changes of a batch of events, oldest first, and see where each object's row is to
    come from.

    Events before `started` may have been seen by an earlier run.
    """
    batch = Batch(writer)
    objects, compared = _objects_with_new_events(writer, history, started)
    known, pin = _base_states(writer, objects), writer.context.api.version
    for id, some in objects.items():
        events = [one for one in some if not is_discount_only(one)]
        if len(events) < len(some):
            batch.to_refetch[id] = None
        if all(one.seen for one in events):
            continue  # only its discount is new
        ordered = order_events(events, known.get(id), id in known)
        if all(one.entry.seen for one in ordered):
            continue  # a twin of a change that was told
        batch.changes += changes_for(ordered, known.get(id), pin, compared.get(id, 0))
        batch.final_states[id] = last = FinalState(ordered[-1], final_object(ordered, pin))
        last.deletion = next(
            (FinalState(one, None) for one in reversed(ordered) if one.entry.kind == "deleted"),
            None,
        )
    batch.changes = _drop_listed_creates(writer, batch.changes, batch.final_states)
    _route(batch)
    return batch


def _objects_with_new_events(
    writer: Writer, history: Sequence[ObjectEvent], started: int
) -> tuple[dict[str, list[ObjectEvent]], dict[str, int]]:
    """The events by object, of objects with one that was not seen before; and when a comparison
    told of these last.

    Where one is older than what an earlier run may have seen, what that told of its object since
    belongs to its history.
    """
    distinct = {(one.event.id, one.id): one for one in history}
    old = [one.event.id for one in distinct.values() if one.event.created < started]
    if old and writer.client is not None:
        with writer.client as client:
            seen = existing.known_change_ids(client, old)
        for one in distinct.values():
            one.seen = one.seen or one.event.id in seen
    objects: dict[str, list[ObjectEvent]] = {}
    for one in distinct.values():
        objects.setdefault(one.id, []).append(one)
    found = {id: some for id, some in objects.items() if not all(one.seen for one in some)}
    since = {
        id: min(one.event.created for one in some if not one.seen) for id, some in found.items()
    }
    overtaken = {id: second for id, second in since.items() if second < started}
    if not overtaken or writer.client is None:
        return found, {}
    with writer.client as client:
        told_before = existing.changes_since(client, writer.resource.table, overtaken)
    compared: dict[str, int] = {}
    for row in told_before:
        if row.event_id is None:
            compared[row.object_id] = row.occurred_at
        elif (row.event_id, row.object_id) not in distinct:
            found[row.object_id] += events_of_stored_change(row, writer.resource)
    for id in overtaken:
        found[id].sort(key=lambda one: one.event.created)
    return found, compared


def _base_states(
    writer: Writer, objects: Mapping[str, Sequence[ObjectEvent]]
) -> dict[str, BaseState | None]:
    """The images before the first events, where these do not tell: from the newest change before,
    else from the row held.

    None where there was no object.
    """
    asked: dict[str, int] = {}
    for id, some in objects.items():
        events = [one for one in some if not is_discount_only(one)]
        if events and needs_base_state(events):
            asked[id] = events[0].event.created
    if not asked or writer.client is None:
        return {}
    with writer.client as client:
        images = existing.last_images(client, writer.resource.table, asked)
        rows = existing.stored_rows(client, writer.shape, [id for id in asked if id not in images])
        stored = existing.objects_from_rows(client, writer.shape, rows)
    found: dict[str, BaseState | None] = {
        id: None if last.image is None else BaseState(last.image, last.api_version, last.complete)
        for id, last in images.items()
    }
    for id in set(asked) - set(images):
        row = rows.get(id)
        if row is None or (
            row["deleted_at"] is not None and certainly_before(row["_version"], asked[id])
        ):
            found[id] = None
        elif certainly_before(row["_version"], asked[id]):
            found[id] = BaseState(stored[id], writer.context.api.version, complete=False)
    return found


def _drop_listed_creates(
    writer: Writer, changes: list[ChangeRow], last: Mapping[str, FinalState]
) -> list[ChangeRow]:
    """Without the creations that a list has told already, of a time when the key could not read
    events.
    """
    account, created = writer.context.account.id, [change for change in changes if change.op == "c"]
    if (
        not created
        or writer.client is None
        or not dlt.current.source_state().get(LIST_EMITTED_CREATES)
    ):
        return changes
    ids = {
        listed_change_id(
            account, writer.resource.table, change.object_id, last[change.object_id].created
        ): change.change_id
        for change in created
    }
    with writer.client as client:
        told_by_list = existing.known_change_ids(client, list(ids))
    left_out = {ids[id] for id in told_by_list}
    return [change for change in changes if change.change_id not in left_out]


def _route(batch: Batch) -> None:
    """Sort the objects by where their rows come from."""
    bodies: list[FinalState] = []
    codec = batch.writer.shape
    for id, one in batch.final_states.items():
        if one.is_stored:
            if id in batch.to_refetch:
                batch.to_refetch[id] = one.created
            continue
        if one.deleted_at is None and (
            one.body is None or codec.expanded or id in batch.to_refetch
        ):
            batch.to_refetch[id] = one.created
            continue
        batch.to_refetch.pop(id, None)
        if one.body is None or codec.expanded:
            batch.deleted[id] = one
        else:
            bodies.append(one)
    records = codec.decode_objects([one.body or b"" for one in bodies]) if bodies else []
    for record, one in zip(records, bodies, strict=True):
        if isinstance(record, Rejected):
            _route_rejected(batch, record, one)
        elif one.deleted_at is None and _has_truncated_list(batch.writer, record):
            batch.to_refetch[record.row.id] = one.created
        else:
            batch.rows.append((record, one.version, one.deleted_at))


def _route_rejected(batch: Batch, odd: Rejected, state: FinalState) -> None:
    """An event's content that cannot be taken: the object is read again, or was deleted as it is
    held.
    """
    if state.deleted_at is None:
        batch.to_refetch[state.id] = state.created
    else:
        batch.deleted[state.id] = state


def _documented_body(writer: Writer, event: ObjectEvent) -> bytes:
    """An object by its last event, whatever its API version: in the fields that are documented."""
    names = {column.name for column in writer.shape.columns}
    kept = {
        name: raw for name, raw in _fields.decode(event.event.data.object).items() if name in names
    }
    return msgspec.json.encode(kept)


def _has_truncated_list(writer: Writer, record: Record) -> bool:
    """Whether an embedded list of a snapshot is not whole."""
    lists = [
        codec.decode_list(getattr(record.row, child.field))
        for child, codec in writer.shape.children
    ]
    return any(embedded is None or embedded.has_more for embedded in lists)
