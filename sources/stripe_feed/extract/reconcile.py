"""Compare the whole list with the destination: fix differences that no event explains, and record
them as changes of origin `diff`.

Objects with pending events are left to these. An object that differs, or that the list does not
show, is fetched again before it counts.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from typing import Any

from ..errors import NotReadable
from ..resources import RESOURCES
from ..resources.model import Resource
from . import existing
from .accounts.package import source_state
from .events.classify import ids_with_events
from .events.history import same_schema
from .lists import KEPT_IN_STATE, open_listing
from .next_step import VERSION_STEP, EventStates, ResourceStep, RunPlan
from .paging.listing import whole_ranges
from .refetch import Fetched, refetch
from .repairs import stray_rows
from .repairs.copy_rows import HeldRow, read_copy, shared_hashes
from .repairs.row_changes import comparable_image, project_image, shared_fields
from .repairs.row_digests import RowDigests, digests_of
from .run import RunContext
from .tables.changes import ChangeRow, diff_change
from .tables.codec import Record, schema_id
from .tables.diff import Image
from .tables.rejected import Rejected
from .writer import Writer, child_items, is_embedded_copy, read_version

log = logging.getLogger("stripe_feed")

Writers = Callable[[Resource], Writer]
Images = Callable[[Sequence[str]], dict[str, Image]]
Copies = dict[str, dict[str, tuple[str, int]]]
"""Of each resource, the objects that items show: id -> hash and digest of the documented fields."""


def remove_old_deletions(
    context: RunContext, writers: Writers, states: EventStates
) -> Iterator[Any]:
    """Remove rows of objects that were deleted before the look-back, if deletes are `hard`."""
    if context.options.deletes == "hard":
        list_states = source_state().get("resources", {})
        read_until = {
            table: state["t0"]
            for table, state in list_states.items()
            if table in RESOURCES and not RESOURCES[table].events and "t0" in state
        }
        read_until |= {table: cursors["cursor"] for table, cursors in states.items()}
        for table, second in read_until.items():
            writer = writers(RESOURCES[table])
            if writer.client is not None:
                with writer.client as client:
                    existing.remove_deleted(client, table, second - context.options.look_back)
    yield None


def reconcile(
    context: RunContext, plan: RunPlan, writers: Writers, tables: Sequence[str], states: EventStates
) -> Iterator[Any]:
    """Compare these resources and fix them; yield their rows and changes. After a gap, events begin
    anew at the time of the list. Where objects change without an event, compare those that were
    created lately, as the plan says.
    """
    copies: Copies = {}
    # resources with children first: the objects that these embed are compared with them
    for table in sorted(tables, key=lambda name: not RESOURCES[name].children):
        try:
            yield from Reconciliation(
                context,
                writers(RESOURCES[table]),
                states.get(table),
                copies,
                plan.steps[table],
                plan.relist_from.get(table),
            ).run()
        except NotReadable as refusal:
            context.refuse(table, refusal)
            log.warning("%s is not compared: %s", table, refusal)
        context.end_comparison(table)


class Reconciliation:
    """The comparison of one resource, or of its objects created since `relist_from`."""

    def __init__(
        self,
        context: RunContext,
        writer: Writer,
        event_state: dict[str, Any] | None,
        copies: Copies,
        step: ResourceStep,
        relist_from: int | None = None,
    ) -> None:
        self.context, self.writer, self.event_state, self.copies = (
            context,
            writer,
            event_state,
            copies,
        )
        self.resource, self.codec = writer.resource, writer.codec
        self.t0 = context.api.now()
        self.gap = step == "gap"
        list_state = source_state()["resources"][self.resource.table]
        self.oldest_listed: int = list_state.get("start", 0)  # by the lists so far
        self.listed_until: int = list_state.get("t0", 0)
        self.was_empty = "empty" in list_state
        self.start = context.options.start or 0
        if self.gap:  # continue to follow everything that was followed
            self.start = min(self.start, self.oldest_listed)
        self.is_partial = relist_from is not None
        if relist_from is not None:  # and what is new since the list
            new_since = self.listed_until - context.options.look_back
            self.start = max(self.start, min(relist_from, new_since))
        self.shape = (list_state if event_state is None else event_state).get("shape")
        self.held: dict[str, HeldRow] = {}
        self.listed: set[str] = set()
        self.suspects: dict[str, int | None] = {}
        self.absent: list[Fetched] = []  # listed, but not stored
        self.new: dict[str, Fetched] = {}  # those of them that no event could tell
        # objects whose rows are to be written again without a change: nothing happened at Stripe
        self.quiet_fixes: list[tuple[Record, int]] = []
        self.restored: set[str] = set()  # those of them whose rows were wrong
        # rows that share a hash, and those that did when this was put off
        self.copied: set[str] = set()
        self.unrecorded: list[ChangeRow] = []  # what led to rows, and was never recorded

    def run(self) -> Iterator[Any]:
        """Yield the rows and changes that fix the resource."""
        if self.writer.client is None:
            return
        self._read_copy()
        yield from self._compare_list()
        yield from self._restore_unlisted()
        missing = {
            id: row.created
            for id, row in self.held.items()
            if not row.deleted
            and id not in self.listed
            and (row.created or 0) < self.t0
            and self._in_range(row)
        }
        missing = self._drop_known_copies(missing)
        self.suspects |= self._marked_without_change()
        doubtful = {**self.suspects, **missing}
        creates = self._missing_creates(
            (id for id in self.held if id not in self.suspects and id not in self.restored),
            self._images,
        )
        ahead = self._rows_ahead_of_changes(
            self.listed - {*doubtful, *self.restored}, self._images, most=not self.is_partial
        )
        pending: set[str] = set()
        if doubtful or creates or ahead or self.unrecorded:
            pending = yield from self._ids_with_pending_events()
        wanted = {id: at for id, at in doubtful.items() if id not in pending}
        fetched: list[Fetched] = []
        table = self.resource.table
        for batch in refetch(self.context, {table: wanted}, {table: self.writer.client}):
            yield None
            fetched += [item for _, item in batch]
        if table in self.context.refused:
            raise self.context.refused[table]
        fetched += self.new.values()
        found_ids = {item.record.row.id for item in fetched} | self.context.left_out.ids(table)
        gone = [id for id in missing if id in wanted and id not in found_ids]
        healed = [*(yield from self._heal(fetched)), *(yield from self._delete_missing(gone))]
        changes = [
            *(change for change in creates if change.object_id not in pending),
            *healed,
            *(c for c in (*ahead, *self.unrecorded) if c.object_id not in pending),
        ]
        yield from self.writer.changes(changes)
        self._store_result(changes)

    def _read_copy(self) -> None:
        with self.writer.client as client:
            self.held = read_copy(
                client,
                self.resource,
                self.codec,
                self.context.account.id,
                self.context.api.now(),
                self.start if self.is_partial else None,
            )
        hashes = shared_hashes(self.held.values())
        self.copied = {id for id, row in self.held.items() if row.hash in hashes}
        if self.event_state is not None:
            self.copied.update(self.event_state.pop("copied", ()))

    def _compare_list(self) -> Iterator[Any]:
        ranges = whole_ranges(self.start, self.t0, self.context.account.created)
        listing = open_listing(
            self.context, self.resource, [ranges for _ in self.resource.list_filters]
        )
        while not listing.done:
            pages = self.context.connections.reader.next_batch(listing)
            if not pages:
                yield None
            for page in pages:
                records = list(page.rows.values())
                self._collect_copies(records)
                digests = digests_of(self.resource, self.codec, records, self.writer.stamp)
                for record, row_digests in zip(records, digests, strict=True):
                    self._compare(record, row_digests, page.requested_at)
            self._sort_absent()
            yield from self._restore()
        self.context.connections.reader.stop(listing)

    def _compare(self, record: Record, digests: RowDigests, requested_at: int) -> None:
        id = record.row.id
        self.listed.add(id)
        row = self.held.get(id)
        if row is None:
            self.absent.append(Fetched(record, requested_at))
        elif row.deleted or (
            row.content.documented != digests.documented and row.hash != record.hash
        ):
            self.suspects[id] = record.created
        elif row.irregular or row.content != digests or row.hash != record.hash:
            self.quiet_fixes.append((record, max(read_version(requested_at), row.version)))
            if row.irregular or row.content.documented != digests.documented:
                self.restored.add(id)  # it is what was loaded once: somebody has changed the row

    def _restore_unlisted(self) -> Iterator[Any]:
        """Ask for objects without a row that items show and no list does, and restore what is there."""
        table = self.resource.table
        if self.is_partial or self.context.options.deletes == "hard":
            return  # their rows may be removed
        lost = dict.fromkeys(
            id for id in self.copies.get(table, {}) if id not in self.held and id not in self.listed
        )
        for batch in refetch(self.context, {table: lost}, {table: self.writer.client}):
            yield None
            self.absent += [item for _, item in batch]
        self._sort_absent()
        yield from self._restore()

    def _sort_absent(self) -> None:
        """Sort listed objects without a row: one that is older than its resource's changes, and has no
        change, had a row once; the others are suspects.
        """
        old = [absent for absent in self.absent if self._is_old(absent.record)]
        with self.writer.client as client:
            with_changes = existing.ids_with_changes(
                client, self.resource.table, [absent.record.row.id for absent in old]
            )
        lost = {
            absent.record.row.id: (absent.record, read_version(absent.requested_at))
            for absent in old
            if absent.record.row.id not in with_changes
        }
        self.quiet_fixes += lost.values()
        self.restored.update(id for id, (record, _) in lost.items() if not self._is_older(record))
        for absent in self.absent:
            id = absent.record.row.id
            if id not in lost and self.resource.events:
                self.suspects[id] = absent.record.created
            elif id not in lost:
                self.new[id] = absent
        self.absent = []

    def _is_old(self, record: Record) -> bool:
        """Whether an object existed before the changes of its resource begin."""
        created = record.created
        if created is None:  # some never say when: they are old if their table is lost
            return bool(self.resource.created_column) or not (self.held or self.was_empty)
        return created < (
            self._changes_since() or self.listed_until - self.context.options.look_back
        )

    def _changes_since(self) -> int:
        """Return the time at which the changes of the resource begin; 0 if there are none yet."""
        return (
            max(self.event_state["since"], self.event_state.get("told", 0))
            if self.event_state is not None
            else 0
        )

    def _restore(self) -> Iterator[Any]:
        """Write rows again. Nothing happened at Stripe, but what led to a row may not be recorded: a
        load can end between the two.
        """
        fixes, self.quiet_fixes = self.quiet_fixes, []
        rows = {
            record.row.id: record.row
            for record, _ in fixes
            if record.row.id in self.restored and record.row.id in self.held
        }

        def images(ids: Sequence[str]) -> dict[str, Image]:
            return {id: self.codec.image(rows[id]) for id in ids}

        if rows:
            self.unrecorded += self._missing_creates(rows, images)
            self.unrecorded += self._rows_ahead_of_changes(rows.keys(), images)
        yield from self.writer.rows(
            [record for record, _ in fixes], [version for _, version in fixes]
        )

    def _collect_copies(self, records: Sequence[Record]) -> None:
        """Collect the prices and plans inside items: their own list may not show them."""
        for child, _ in self.codec.children:
            for name, table in child.embeds:
                codec, copies = self.context.codecs[table], self.copies.setdefault(table, {})
                found: dict[str, Record] = {}
                for item in (item for record in records for item in child_items(record, child)):
                    if bytes(getattr(item, name)).startswith(b"{"):
                        with suppress(Rejected):  # recorded when it is written
                            copy = codec.decode_object(bytes(getattr(item, name)))
                            found[copy.row.id] = copy
                new = [
                    copy
                    for id, copy in found.items()
                    if id not in copies or copies[id][0] != copy.hash
                ]
                contents = digests_of(RESOURCES[table], codec, new, self.writer.stamp)
                for copy, content in zip(new, contents, strict=True):
                    copies[copy.row.id] = copy.hash, content.documented

    def _drop_known_copies(self, missing: Mapping[str, int | None]) -> dict[str, int | None]:
        """Drop missing objects that no list ever showed, if an item still shows them as stored."""
        copies = self.copies.get(self.resource.table, {})
        return {
            id: at
            for id, at in missing.items()
            if copies.get(id) != ((row := self.held[id]).hash, row.content.documented)
            or not is_embedded_copy(row.version, row.created, row.active)
            or row.irregular
            or not row.written_by_run
        }

    def _marked_without_change(self) -> dict[str, int | None]:
        """Find objects marked as deleted without a change, although an item shows them: somebody
        marked them by hand. A list may not show them.
        """
        copies = self.copies.get(self.resource.table, {})
        marked = [
            id
            for id, row in self.held.items()
            if row.deleted and id in copies and id not in self.listed
        ]
        with self.writer.client as client:
            with_deletion = existing.ids_with_deletion(client, self.resource.table, marked)
        return {id: self.held[id].created for id in marked if id not in with_deletion}

    def _in_range(self, row: HeldRow) -> bool:
        return not self.is_partial if row.created is None else row.created >= self.start

    def _ids_with_pending_events(self) -> Generator[Any, None, set[str]]:
        """Return the ids of objects with events that are not applied yet, unsettled ones included."""
        if self.context.events_denied is not None or self.event_state is None:
            return set()
        yield None
        lo = self.t0 if self.gap else self.event_state["cursor"]
        pending: set[str] = set()
        try:
            for ids in ids_with_events(self.context.api, self.resource, lo, self._applied):
                pending |= ids
                yield None
        except NotReadable as refusal:  # the comparison stands without them
            self.context.deny_events(refusal)
        return pending

    def _applied(self, event_ids: Sequence[str]) -> set[str]:
        with self.writer.client as client:
            return existing.known_change_ids(client, event_ids)

    def _heal(self, fetched: Sequence[Fetched]) -> Generator[Any, None, list[ChangeRow]]:
        """Write fetched objects that still differ, and return the changes."""
        contents = digests_of(
            self.resource, self.codec, [item.record for item in fetched], self.writer.stamp
        )
        fetched = [
            item
            for item, content in zip(fetched, contents, strict=True)
            if self._differs(item, content)
        ]
        ids = [item.record.row.id for item in fetched]
        befores = self._images([id for id in ids if id in self.held and not self.held[id].deleted])
        with self.writer.client as client:
            last_images = existing.last_images(
                client, self.resource.table, dict.fromkeys(ids, existing.AFTER_ANY_CHANGE)
            )
        afters = {item.record.row.id: self.codec.image(item.record.row) for item in fetched}
        names = existing.compared_fields(self.resource, self.codec)
        shared = names if self._is_same_schema() else shared_fields(names, befores, afters)
        versions = [self._version(item) for item in fetched]
        yield from self.writer.rows([item.record for item in fetched], versions)
        changes = []
        for item in fetched:
            id = item.record.row.id
            before, after = befores.get(id), afters[id]
            if before is not None:
                before = comparable_image(self.resource, before, after)
                if shared is not names:
                    before = project_image(before, after, shared)
            if (last_image := last_images.get(id)) is not None and last_image.image is not None:
                before = self._before(last_image, item, before, after)
            elif id not in self.held and self._is_older(item.record):
                continue  # not new, but asked for only now
            elif id in self.held and self.held[id].hash == item.record.hash and last_image is None:
                before = after  # it is what was loaded once
            if before is not None and all(before.get(name) == after.get(name) for name in names):
                if shared is names:  # else only what one side does not have
                    self.restored.add(id)
                continue
            changes.append(self._diff(id, before, after, item.record.hash))
        return changes

    def _differs(self, fetched: Fetched, content: RowDigests) -> bool:
        row = self.held.get(fetched.record.row.id)
        return (
            row is None
            or row.deleted
            or row.irregular
            or row.content != content
            or row.hash != fetched.record.hash
        )

    def _version(self, fetched: Fetched) -> int:
        row = self.held.get(fetched.record.row.id)
        return max(read_version(fetched.requested_at), row.version if row else 0)

    def _before(
        self, last: existing.LastImage, fetched: Fetched, before: Image | None, after: Image
    ) -> Image:
        """Return the image before a difference from the last change: a row may have been changed by
        hand.
        """
        row = self.held.get(fetched.record.row.id)
        if (
            not same_schema(self.resource, last.api_version, self.context.api.version)
            or last.image is None
        ):
            is_known = row is not None and not row.deleted and row.hash != fetched.record.hash
            return before if before is not None and is_known else after
        names = existing.differing_fields(self.resource, self.codec, last.image, after)
        image = after | {name: last.image.get(name) for name in names}
        if row is not None and before is not None and row.hash != fetched.record.hash:
            image |= {child.field: before[child.field] for child in self.resource.children}
        return image

    def _is_older(self, record: Record) -> bool:
        """Whether an object was created before the range that was ever listed."""
        created = record.created
        return created is not None and created < self.oldest_listed

    def _is_same_schema(self) -> bool:
        """Whether the stored rows have this API version and these columns."""
        return self.shape in (None, schema_id(self.context.api.version, self.codec))

    def _images(self, ids: Sequence[str]) -> dict[str, Image]:
        with self.writer.client as client:
            return existing.objects_from_rows(
                client, self.codec, existing.stored_rows(client, self.codec, ids)
            )

    def _delete_missing(self, gone: Sequence[str]) -> Generator[Any, None, list[ChangeRow]]:
        """Mark the rows of objects that no longer exist as deleted, and remove rows of objects that
        never existed without a change. Write irregular rows of deleted objects again.
        """
        deleted = [
            id
            for id, row in self.held.items()
            if row.deleted and id not in self.listed and (row.irregular or self._is_foreign(id))
        ]
        if not gone and not deleted:
            return []
        now, table = self.context.api.now(), self.resource.table
        with self.writer.client as client:
            foreign = self._foreign(client, [*gone, *deleted])
            irregular = [
                id
                for id in deleted
                if id not in foreign
                and (self.held[id].irregular or not self.held[id].written_by_run)
            ]
            stray_rows.delete_rows(client, table, sorted(foreign))
            for child in self.resource.children if foreign else ():
                stray_rows.delete_orphans(client, child, table)
            rows = existing.stored_rows(
                client, self.codec, [*(id for id in gone if id not in foreign), *irregular]
            )
            befores = existing.objects_from_rows(client, self.codec, rows)
            last_images = existing.last_images(
                client, table, dict.fromkeys(rows, existing.AFTER_ANY_CHANGE)
            )
        deleted_at = {
            id: last_images[id].at
            for id in rows
            if id in last_images and last_images[id].image is None
        }  # told already
        deleted_at |= {
            id: existing.stripe_value("timestamp", rows[id]["deleted_at"]) or now
            for id in irregular
            if id in rows and id not in deleted_at
        }
        self.restored.update(foreign, deleted_at)
        versions = [max(read_version(now), self.held[id].version + 1) for id in rows]
        yield from self.writer.deleted_rows(
            list(rows.values()), versions, [deleted_at.get(id, now) for id in rows]
        )
        return [self._diff(id, befores[id], None, "") for id in rows if id not in deleted_at]

    def _foreign(self, client: Any, gone: Sequence[str]) -> set[str]:
        """Of rows without an object, return those that no run can have written: of another account,
        of no load, or copied from another row, whose hash covers its id.
        """
        with_changes = existing.ids_with_changes(client, self.resource.table, gone)
        return {id for id in gone if id not in with_changes and self._is_foreign(id)}

    def _is_foreign(self, id: str) -> bool:
        return not self.held[id].written_by_run or id in self.copied

    def _missing_creates(self, ids: Iterable[str], images: Images) -> list[ChangeRow]:
        """Return changes for those of these objects that were created since events are applied, but
        have no change.
        """
        if self.event_state is None or self.context.events_denied is not None:
            return []
        since = self._changes_since() or self.t0
        young = [
            id
            for id in ids
            if not (row := self.held[id]).deleted
            and row.created is not None
            and since <= row.created < self.t0
            and (id in self.listed or not self._is_foreign(id))
        ]
        with self.writer.client as client:
            with_changes = existing.ids_with_changes(client, self.resource.table, young)
        return [
            self._diff(id, None, image, self.held[id].hash)
            for id, image in images([id for id in young if id not in with_changes]).items()
        ]

    def _rows_ahead_of_changes(
        self, listed: Set[str], images: Images, most: bool = False
    ) -> list[ChangeRow]:
        """Return changes for those of these rows that were listed or fetched and that their changes
        do not lead to: one of these was never recorded. `most`: they are most of the rows there are.
        """
        if self.event_state is None or self.context.events_denied is not None:
            return []
        with self.writer.client as client:
            with_changes = listed & existing.ids_with_changes(
                client, self.resource.table, None if most else sorted(listed)
            )
            ids = [
                id
                for id in sorted(with_changes)
                if not self.held[id].deleted and self.held[id].version % VERSION_STEP == 0
            ]
            last_images = existing.last_images(
                client, self.resource.table, dict.fromkeys(ids, existing.AFTER_ANY_CHANGE)
            )
        changes = []
        for id, after in images(list(last_images)).items():
            version, before, *_ = last_images[id]
            if before is None:
                changes.append(self._diff(id, None, after, self.held[id].hash))
            elif same_schema(self.resource, version, self.context.api.version) and (
                names := existing.differing_fields(self.resource, self.codec, before, after)
            ):
                changes.append(
                    self._diff(
                        id,
                        after | {name: before.get(name) for name in names},
                        after,
                        self.held[id].hash,
                    )
                )
        return changes

    def _diff(self, id: str, before: Image | None, after: Image | None, hash: str) -> ChangeRow:
        version = self.held[id].version if id in self.held and before is not None else 0
        return diff_change(
            self.resource,
            id,
            before,
            after,
            version,
            hash,
            self.context.api.now(),
            self.context.api.version,
        )

    def _store_result(self, changes: Sequence[ChangeRow]) -> None:
        table = self.resource.table
        self.context.left_out.store(table)
        self.context.counters.add_fixes(table, len(changes), len(self.restored))
        if changes:
            log.info("%s: differences fixed: %s", table, f"{len(changes):,}")
        if self.restored:
            log.warning(
                "%s: rows in the destination that differed although nothing happened at Stripe are restored: %s",
                table,
                f"{len(self.restored):,}",
            )
        list_state = source_state()["resources"][table]
        t0 = self.context.proven(self.t0)
        list_state.update(
            t0=t0,
            left=[[] for _ in self.resource.list_filters],
            start=min(self.oldest_listed, self.start),
        )
        shape = schema_id(self.context.api.version, self.codec)
        if self.resource.relist_days:
            list_state["relisted"] = t0
        if not self.resource.created_field:
            list_state.pop("empty", None)
            list_state |= {} if self.listed else {"empty": True}
        if not self.is_partial:
            list_state.pop("compare", None)
            if "shape" in list_state:
                list_state["shape"] = shape
            if self.event_state is not None:
                self.event_state["shape"] = shape
        if (run := self.context.listing_runs.get(table)) is not None:
            run.compare = run.compare and self.is_partial
            run.carried |= {name: list_state[name] for name in KEPT_IN_STATE if name in list_state}
        if self.event_state is not None and self.gap:
            self.event_state.update(since=t0, cursor=t0)
