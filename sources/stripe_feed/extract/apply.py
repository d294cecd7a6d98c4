"""Turn a batch of events of one resource into its changes and the rows of its objects: from the
events themselves, fetched again, or as stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from ..resources import RESOURCES
from . import existing
from .accounts.package import source_state
from .events.classify import ObjectEvent, is_discount_only
from .events.history import (
    BaseState,
    changes_for,
    events_of_stored_change,
    final_object,
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


def version_after(last: ObjectEvent) -> int:
    """The version of an object after the last of its events."""
    return last.event.created * VERSION_STEP + last.position


def deletion_time(last: ObjectEvent) -> int | None:
    """When the last of its events deleted an object; None if it did not."""
    return last.event.created if last.kind == "deleted" else None


@dataclass
class Batch:
    """The result of a batch of events for one resource, by the ids of the objects. Those in
    `to_refetch` must be fetched before its tables can be made. `contents`: after the last event,
    with the pinned schema, if an event holds it. `deletions`: the last that any event reports.
    """

    writer: Writer
    changes: list[ChangeRow] = field(default_factory=list)
    last_events: dict[str, ObjectEvent] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    deletions: dict[str, ObjectEvent] = field(default_factory=dict)
    # with version and time of deletion
    rows: list[tuple[Record, int, int | None]] = field(default_factory=list)
    deleted: dict[str, ObjectEvent] = field(default_factory=dict)
    to_refetch: dict[str, int | None] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)  # id -> the object whose list has it
    fetched: list[Fetched] = field(default_factory=list)

    def tables(self) -> Iterator[Any]:
        """Yield the tables: rows first, then the changes that led to them."""
        rows = [
            *self.rows,
            *((fetched.record, self._version(fetched), None) for fetched in self._worth_writing()),
        ]
        yield from self.writer.rows(
            [r for r, _, _ in rows],
            [v for _, v, _ in rows],
            [deleted_at for _, _, deleted_at in rows],
        )
        self._use_deletions()
        yield from self._deleted_tables()
        yield from self.writer.changes(sorted(self.changes, key=lambda change: change.occurred_at))

    def _version(self, fetched: Fetched) -> int:
        """Return the version of an object that was fetched because of an event: at least the event's."""
        last = self.last_events.get(fetched.record.row.id)
        return max(read_version(fetched.requested_at), 0 if last is None else version_after(last))

    def _worth_writing(self) -> list[Fetched]:
        """Drop objects on test clocks, and objects of discount events that are stored unchanged."""
        clocks = self.writer.context.options.test_clocks
        wanted = [
            fetched
            for fetched in self.fetched
            if clocks or not getattr(fetched.record.row, "test_clock", None)
        ]
        doubtful = [
            fetched.record for fetched in wanted if fetched.record.row.id not in self.last_events
        ]
        unchanged = {record.row.id for record in doubtful} - {
            record.row.id for record in self.writer.drop_unchanged(doubtful)
        }
        return [fetched for fetched in wanted if fetched.record.row.id not in unchanged]

    def _use_deletions(self) -> None:
        """If an object no longer exists and the batch contains its deletion, treat the deletion as
        the last event.
        """
        fetched_ids = {fetched_ids.record.row.id for fetched_ids in self.fetched}
        for id in (
            self.to_refetch.keys()
            - fetched_ids
            - self.writer.context.left_out.ids(self.writer.resource.table)
        ):
            if (deletion := self.deletions.get(id)) is not None:
                self.deleted[id] = deletion

    def _deleted_tables(self) -> Iterator[Any]:
        """Yield deleted objects whose event does not hold their content: the stored row becomes
        their last.
        """
        if not self.deleted or self.writer.client is None:
            return
        with self.writer.client as client:
            rows = existing.stored_rows(client, self.writer.codec, list(self.deleted))
        deletions = [self.deleted[id] for id in rows]
        yield from self.writer.deleted_rows(
            list(rows.values()),
            [version_after(event) for event in deletions],
            [deletion_time(event) or 0 for event in deletions],
        )
        if self.writer.resource.table in EMBEDDED_TABLES:
            # an item that embeds the object may come later: it must not bring it to life
            unstored = [event for id, event in self.deleted.items() if id not in rows]
            bodies = [_documented_body(self.writer, event) for event in unstored]
            records = self.writer.codec.decode_objects(bodies) if bodies else []
            storable = [
                (event, record)
                for event, record in zip(unstored, records, strict=True)
                if not isinstance(record, Rejected)
            ]
            yield from self.writer.rows(
                [record for _, record in storable],
                [version_after(event) for event, _ in storable],
                [deletion_time(event) for event, _ in storable],
            )


def plan_batch(
    writer: Writer, history: Sequence[ObjectEvent], started: int, since: int = 0
) -> Batch:
    """Derive the changes of a batch of events, oldest first, and decide where each object's row comes
    from.

    An earlier run may have seen events before the second `started`. The changes of the resource
    begin at the second `since`.
    """
    batch = Batch(writer)
    objects, compared = _objects_with_new_events(writer, history, started)
    known, pin = _base_states(writer, objects, since), writer.context.api.version
    for id, object_events in objects.items():
        events = [event for event in object_events if not is_discount_only(event)]
        if owner := next((event.owner for event in events if event.owner), None):
            batch.owners[id] = owner
        if len(events) < len(object_events):
            batch.to_refetch[id] = None
        if all(event.seen for event in events):
            continue  # only its discount is new
        ordered = order_events(events, known.get(id), id in known)
        if all(event.seen for event in ordered):
            continue  # a duplicate of a stored change
        batch.changes += changes_for(ordered, known.get(id), pin, compared.get(id, 0))
        batch.last_events[id] = ordered[-1]
        if (content := final_object(ordered, pin)) is not None:
            batch.contents[id] = content
        if deletions := [event for event in ordered if event.kind == "deleted"]:
            batch.deletions[id] = deletions[-1]
    batch.changes = _drop_listed_creates(writer, batch.changes, batch.last_events)
    _route(batch)
    return batch


def _objects_with_new_events(
    writer: Writer, history: Sequence[ObjectEvent], started: int
) -> tuple[dict[str, list[ObjectEvent]], dict[str, int]]:
    """Group events by object, for objects with a new event; also return when a comparison last
    changed each of these objects.

    If a new event is older than events that an earlier run may have seen, the changes stored since
    then belong to its object's history.
    """
    distinct = {(event.event.id, event.id): event for event in history}
    old = [event.event.id for event in distinct.values() if event.event.created < started]
    if old and writer.client is not None:
        with writer.client as client:
            seen = existing.known_change_ids(client, old)
        for event in distinct.values():
            event.seen = event.seen or event.event.id in seen
    by_object: dict[str, list[ObjectEvent]] = {}
    for event in distinct.values():
        by_object.setdefault(event.id, []).append(event)
    objects = {
        id: events for id, events in by_object.items() if not all(event.seen for event in events)
    }
    first_new = {
        id: min(event.event.created for event in events if not event.seen)
        for id, events in objects.items()
    }
    overtaken = {id: second for id, second in first_new.items() if second < started}
    if not overtaken or writer.client is None:
        return objects, {}
    with writer.client as client:
        stored_changes = existing.changes_since(client, writer.resource.table, overtaken)
    compared: dict[str, int] = {}
    for change in stored_changes:
        if change.event_id is None:
            compared[change.object_id] = change.occurred_at
        elif (change.event_id, change.object_id) not in distinct:
            objects[change.object_id] += events_of_stored_change(change, writer.resource)
    for id in overtaken:
        objects[id].sort(key=lambda event: event.event.created)
    return objects, compared


def _base_states(
    writer: Writer, objects: Mapping[str, Sequence[ObjectEvent]], since: int
) -> dict[str, BaseState | None]:
    """Look up the states before the first events of objects if the events do not tell them: from
    the newest change before, else from the stored row. None if there was no object.

    If no event reports new objects, the first one about an object that was created after `since`,
    and that no change is about, does.
    """
    first_events: dict[str, int] = {}
    for id, object_events in objects.items():
        events = [event for event in object_events if not is_discount_only(event)]
        if events and needs_base_state(events):
            first_events[id] = events[0].event.created
    if not first_events or writer.client is None:
        return {}
    with writer.client as client:
        images = existing.last_images(client, writer.resource.table, first_events)
        without_change = [id for id in first_events if id not in images]
        rows = existing.stored_rows(client, writer.codec, without_change)
        stored = existing.objects_from_rows(client, writer.codec, rows)
        untold = set[str]()
        if not writer.resource.created_by:
            untold = {*without_change} - existing.ids_with_changes(
                client, writer.resource.table, without_change
            )
    bases: dict[str, BaseState | None] = {
        id: None if last.image is None else BaseState(last.image, last.api_version, last.complete)
        for id, last in images.items()
    }
    for id in without_change:
        row, first = rows.get(id), first_events[id]
        begins = objects[id][0]
        if id in untold and begins.created is not None and begins.created >= since:
            begins.kind, bases[id] = "created", None
            continue
        if row is None or (
            row["deleted_at"] is not None and certainly_before(row["_version"], first)
        ):
            bases[id] = None
        elif certainly_before(row["_version"], first):
            bases[id] = BaseState(stored[id], writer.context.api.version, complete=False)
    return bases


def _drop_listed_creates(
    writer: Writer, changes: list[ChangeRow], last_events: Mapping[str, ObjectEvent]
) -> list[ChangeRow]:
    """Drop creations that a list has reported already, while the key could not read events."""
    account, created = writer.context.account.id, [change for change in changes if change.op == "c"]
    if not created or writer.client is None or not source_state().get(LIST_EMITTED_CREATES):
        return changes
    ids = {
        listed_change_id(
            account, writer.resource.table, change.object_id, last_events[change.object_id].created
        ): change.change_id
        for change in created
    }
    with writer.client as client:
        reported = {ids[id] for id in existing.known_change_ids(client, list(ids))}
    return [change for change in changes if change.change_id not in reported]


def _route(batch: Batch) -> None:
    """Decide where the row of each object comes from."""
    usable: list[ObjectEvent] = []
    codec = batch.writer.codec
    for id, last in batch.last_events.items():
        if last.from_copy and last.certain:  # the copy has it: an earlier run applied the event
            if id in batch.to_refetch:
                batch.to_refetch[id] = last.created
            continue
        has_content = id in batch.contents and not codec.expand
        if last.kind != "deleted" and (not has_content or id in batch.to_refetch):
            batch.to_refetch[id] = last.created
            continue
        batch.to_refetch.pop(id, None)
        if has_content:
            usable.append(last)
        else:
            batch.deleted[id] = last
    bodies = [batch.contents[last.id] for last in usable]
    records = codec.decode_objects(bodies) if bodies else []
    for record, last in zip(records, usable, strict=True):
        if isinstance(record, Rejected):
            _route_rejected(batch, last)
        elif last.kind != "deleted" and _has_truncated_list(batch.writer, record):
            batch.to_refetch[record.row.id] = last.created
        else:
            batch.rows.append((record, version_after(last), deletion_time(last)))


def _route_rejected(batch: Batch, last: ObjectEvent) -> None:
    """Fetch an object again if its event's content cannot be stored; if it was deleted, keep its
    stored row.
    """
    if last.kind == "deleted":
        batch.deleted[last.id] = last
    else:
        batch.to_refetch[last.id] = last.created


def _documented_body(writer: Writer, event: ObjectEvent) -> bytes:
    """Return the documented fields of an object from its last event, whatever its API version."""
    names = {column.name for column in writer.codec.columns}
    fields = {
        name: raw for name, raw in _fields.decode(event.event.data.object).items() if name in names
    }
    return msgspec.json.encode(fields)


def _has_truncated_list(writer: Writer, record: Record) -> bool:
    """Whether an embedded list of an event's object is truncated."""
    lists = [
        codec.decode_list(getattr(record.row, child.field))
        for child, codec in writer.codec.children
    ]
    return any(embedded is None or embedded.has_more for embedded in lists)
