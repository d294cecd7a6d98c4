"""The whole list against the destination: what events did not tell is healed, and told as changes
of origin `diff`.

What an event explains is left to it. A difference is read again before it counts, and so is a row
that the list does not show.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import dlt

from ..errors import NotReadable
from ..resources import RESOURCES
from ..resources.model import Resource
from . import existing
from .events.classify import ids_with_events
from .events.history import same_schema
from .lists import open_listing, whole_ranges
from .next_step import VERSION_STEP
from .refetch import Read, read_again
from .repairs import stray_rows
from .repairs.copy_rows import Held, doubled, look
from .repairs.row_digests import Content, contents_of
from .run import Session
from .tables.arrow import typed
from .tables.changes import Change, diff
from .tables.codec import Record, shape_id
from .tables.diff import Image, in_shape_of, with_lists_of
from .tables.rejected import Odd
from .writer import Writer, is_copy, items_of, version_read

log = logging.getLogger("stripe_feed")

State = dict[str, dict[str, Any]]
Writers = Callable[[Resource], Writer]


def prune(session: Session, writers: Writers, mine: State) -> Iterator[Any]:
    """Remove rows that were deleted before the look-back, where deletes are `hard`."""
    if session.options.deletes == "hard":
        for table, cursors in mine.items():
            writer = writers(RESOURCES[table])
            if writer.client is not None:
                with writer.client as client:
                    existing.remove_deleted(
                        client, table, cursors["cursor"] - session.options.look_back
                    )
    yield None


def reconcile(
    session: Session, writers: Writers, tables: Sequence[str], mine: State
) -> Iterator[Any]:
    """Compare and heal these resources; yields their rows and changes. A gap's events begin anew at
    the time of the list.
    """
    copies: dict[str, dict[str, str]] = {}
    for table in sorted(
        tables, key=lambda name: not RESOURCES[name].children
    ):  # what they embed is compared with it
        try:
            yield from Reconciling(
                session, writers(RESOURCES[table]), mine.get(table), copies
            ).run()
        except NotReadable as refusal:
            session.refused.setdefault(table, refusal)
            log.warning("%s is not compared: %s", table, refusal)
        session.reconciled.add(table)


class Reconciling:
    """One resource being compared."""

    def __init__(
        self,
        session: Session,
        writer: Writer,
        cursors: dict[str, Any] | None,
        copies: dict[str, dict[str, str]],
    ) -> None:
        self.session, self.writer, self.cursors, self.copies = session, writer, cursors, copies
        self.resource, self.shape = writer.resource, writer.shape
        self.t0 = session.api.now()
        self.gap = session.standing.get(self.resource.table) == "gap"
        listed = dlt.current.source_state()["resources"][self.resource.table]
        self.asked: int = listed.get("start", 0)  # by the lists so far
        self.listed_until: int = listed.get("t0", 0)
        self.start = session.options.start or 0
        if self.gap:
            self.start = min(self.start, self.asked)  # all that was followed is to be followed on
        self.held: dict[str, Held] = {}
        self.listed: set[str] = set()
        self.suspects: dict[str, int | None] = {}
        self.absent: list[tuple[Record, int]] = []  # listed and not held
        self.silent: list[tuple[Record, int]] = []  # right at Stripe, and nothing happened there
        self.restored: set[str] = set()  # of these, those whose rows were wrong

    def run(self) -> Iterator[Any]:
        """Yield what heals the resource."""
        if self.writer.client is None:
            return
        self._look()
        yield from self._list()
        told_by_events = yield from self._explained()
        missing = {
            id: held.created
            for id, held in self.held.items()
            if not held.deleted
            and id not in self.listed
            and (held.created or 0) < self.t0
            and self._in_range(held)
        }
        missing = self._without_copies(missing)
        self.suspects |= self._only_marked()
        wanted = {
            id: at for id, at in {**self.suspects, **missing}.items() if id not in told_by_events
        }
        reads: list[Read] = []
        table = self.resource.table
        for some in read_again(self.session, {table: wanted}, {table: self.writer.client}):
            yield None
            reads += [read for _, read in some]
        if table in self.session.refused:
            raise self.session.refused[table]
        there = {read.record.row.id for read in reads} | self.session.left_out.ids(table)
        gone = [id for id in missing if id in wanted and id not in there]
        healed = [*(yield from self._heal(reads)), *(yield from self._end(gone))]
        changes = [
            *self._untold(told_by_events),
            *healed,
            *self._behind({*told_by_events, *self.suspects, *missing}),
        ]
        yield from self.writer.changes(changes)
        self._done(changes)

    def _look(self) -> None:
        with self.writer.client as client:
            self.held = look(
                client, self.resource, self.shape, self.session.account.id, self.session.api.now()
            )

    def _list(self) -> Iterator[Any]:
        ranges = whole_ranges(self.start, self.t0, self.session.account.created)
        listing = open_listing(
            self.session, self.resource, [ranges for _ in self.resource.list_filters]
        )
        self.session.compared.append(listing)
        while not (listing.finished and not listing.parts):
            parts = self.session.reader.take(listing)
            if not parts:
                yield None
            for part in parts:
                contents = contents_of(self.resource, self.shape, part.rows, self.writer.stamp)
                for record, content in zip(part.rows, contents, strict=True):
                    self._compare(record, content, part.requested_at)
            self._lost()
            yield from self._restore()
        self.session.reader.drop(listing)

    def _compare(self, record: Record, content: Content, requested_at: int) -> None:
        id = record.row.id
        self.listed.add(id)
        self._copies_of(record)
        held = self.held.get(id)
        if held is None:
            self.absent.append((record, version_read(requested_at)))
        elif held.deleted or (held.content.counted != content.counted and held.hash != record.hash):
            self.suspects[id] = typed(record.row.created, "timestamp")
        elif held.odd or held.content != content or held.hash != record.hash:
            self.silent.append((record, max(version_read(requested_at), held.version)))
            if held.odd or held.content.counted != content.counted:
                self.restored.add(id)  # it is what was loaded once: somebody has changed the row

    def _lost(self) -> None:
        """Of what is not held: what was there before anything is told of, and of which nothing was
        told, was there once.
        """
        old = [(record, version) for record, version in self.absent if self._is_old(record)]
        with self.writer.client as client:
            told = existing.told(client, self.resource.table, [record.row.id for record, _ in old])
        lost = {
            record.row.id: (record, version) for record, version in old if record.row.id not in told
        }
        self.silent += lost.values()
        self.restored.update(id for id, (record, _) in lost.items() if not self._is_older(record))
        for record, _ in self.absent:
            if record.row.id not in lost:
                self.suspects[record.row.id] = typed(record.row.created, "timestamp")
        self.absent = []

    def _is_old(self, record: Record) -> bool:
        """Whether an object was there before its changes are told."""
        created = typed(record.row.created, "timestamp")
        return created is None or created < (
            self._told_since() or self.listed_until - self.session.options.look_back
        )

    def _told_since(self) -> int:
        """The time since which changes are told; 0 where they are not yet."""
        return (
            max(self.cursors["since"], self.cursors.get("told", 0))
            if self.cursors is not None
            else 0
        )

    def _restore(self) -> Iterator[Any]:
        """Write what is right at Stripe, and tell nobody."""
        some, self.silent = self.silent, []
        yield from self.writer.rows(
            [record for record, _ in some], [version for _, version in some]
        )

    def _copies_of(self, record: Record) -> None:
        """Prices and plans inside items: the list may not show them."""
        for child, _ in self.shape.children:
            for name, table in child.embeds:
                shape, found = self.session.shapes[table], self.copies.setdefault(table, {})
                for item in items_of(record, child):
                    if bytes(getattr(item, name)).startswith(b"{"):
                        with suppress(Odd):  # it is told where it is written
                            copy = shape.object(bytes(getattr(item, name)))
                            found[copy.row.id] = copy.hash

    def _without_copies(self, missing: Mapping[str, int | None]) -> dict[str, int | None]:
        """Without what no list ever showed, if an item still shows it as it is held."""
        copies = self.copies.get(self.resource.table, {})
        return {
            id: at
            for id, at in missing.items()
            if copies.get(id) != (held := self.held[id]).hash
            or not is_copy(held.version, held.created, held.active)
            or held.odd
            or not held.ours
        }

    def _only_marked(self) -> dict[str, int | None]:
        """What is marked as deleted, though no change tells of that and an item shows it: somebody
        marked it by hand. A list may not show it.
        """
        copies = self.copies.get(self.resource.table, {})
        marked = [
            id
            for id, held in self.held.items()
            if held.deleted and id in copies and id not in self.listed
        ]
        with self.writer.client as client:
            told = existing.told_gone(client, self.resource.table, marked)
        return {id: self.held[id].created for id in marked if id not in told}

    def _in_range(self, held: Held) -> bool:
        return held.created is None or held.created >= self.start

    def _explained(self) -> Generator[Any, None, set[str]]:
        """The ids of objects whose events are still to be applied, unsettled ones included."""
        if self.session.unreadable is not None or self.cursors is None:
            return set()
        yield None
        lo = self.t0 if self.gap else self.cursors["cursor"]
        found: set[str] = set()
        try:
            for some in ids_with_events(self.session.api, self.resource, lo):
                found |= some
                yield None
        except NotReadable as refusal:  # the comparison stands without them
            self.session.unreadable = refusal
        return found

    def _heal(self, reads: Sequence[Read]) -> Generator[Any, None, list[Change]]:
        """Write what was read again and still differs; the changes that this makes."""
        contents = contents_of(
            self.resource, self.shape, [read.record for read in reads], self.writer.stamp
        )
        reads = [
            read
            for read, content in zip(reads, contents, strict=True)
            if self._differs(read, content)
        ]
        ids = [read.record.row.id for read in reads]
        befores = self._images([id for id in ids if id in self.held and not self.held[id].deleted])
        with self.writer.client as client:
            last = existing.last_images(
                client, self.resource.table, dict.fromkeys(ids, existing.EVER)
            )
        afters = {read.record.row.id: self.shape.image(read.record.row) for read in reads}
        names = existing.compared(self.resource, self.shape)
        shared = names if self._is_same_shape() else self._shared(names, befores, afters)
        versions = [self._version(read) for read in reads]
        yield from self.writer.rows([read.record for read in reads], versions)
        changes = []
        for read in reads:
            id = read.record.row.id
            before, after = befores.get(id), afters[id]
            if before is not None:
                before = with_lists_of(
                    before, after, [child.field for child in self.resource.children]
                )
                if shared is not names:
                    before = reshaped(before, after, shared)
            if (found := last.get(id)) is not None and found.image is not None:
                before = self._before(found, read, before, after)
            elif id not in self.held and self._is_older(read.record):
                continue  # not new, but asked for only now
            elif id in self.held and self.held[id].hash == read.record.hash and found is None:
                before = after  # it is what was loaded once
            if before is not None and all(before.get(name) == after.get(name) for name in names):
                if shared is names:  # else only what one side does not have
                    self.restored.add(id)
                continue
            changes.append(self._diff(id, before, after, read.record.hash))
        return changes

    def _differs(self, read: Read, content: Content) -> bool:
        held = self.held.get(read.record.row.id)
        return (
            held is None
            or held.deleted
            or held.odd
            or held.content != content
            or held.hash != read.record.hash
        )

    def _version(self, read: Read) -> int:
        held = self.held.get(read.record.row.id)
        return max(version_read(read.requested_at), held.version if held else 0)

    def _before(
        self, last: existing.LastImage, read: Read, before: Image | None, after: Image
    ) -> Image:
        """The image before a difference, by what was told last: a row that somebody changed by hand
        tells wrongly.
        """
        held = self.held.get(read.record.row.id)
        if (
            not same_schema(self.resource, last.api_version, self.session.api.version)
            or last.image is None
        ):
            is_known = held is not None and not held.deleted and held.hash != read.record.hash
            return before if before is not None and is_known else after
        names = existing.unlike(self.resource, self.shape, last.image, after)
        found = after | {name: last.image.get(name) for name in names}
        if held is not None and before is not None and held.hash != read.record.hash:
            found |= {child.field: before[child.field] for child in self.resource.children}
        return found

    def _is_older(self, record: Record) -> bool:
        """Whether an object was created before all that the lists so far were asked for."""
        created = typed(record.row.created, "timestamp")
        return created is not None and created < self.asked

    def _is_same_shape(self) -> bool:
        """Whether the rows were made with this API version and these columns."""
        return self.cursors is None or self.cursors.get("shape") in (
            None,
            shape_id(self.session.api.version, self.shape),
        )

    def _shared(
        self, names: set[str], befores: Mapping[str, Image], afters: Mapping[str, Image]
    ) -> set[str]:
        """The fields that both shapes have: what is null everywhere on one side is new, or gone."""
        both = [(befores[id], afters[id]) for id in befores]
        return {
            name
            for name in names
            if any(before.get(name) is not None for before, _ in both)
            and any(after.get(name) is not None for _, after in both)
        }

    def _images(self, ids: Sequence[str]) -> dict[str, Image]:
        with self.writer.client as client:
            return existing.images(client, self.shape, existing.rows(client, self.shape, ids))

    def _end(self, gone: Sequence[str]) -> Generator[Any, None, list[Change]]:
        """Rows of objects that do not exist any more; those of objects that never did go without a
        word. What was deleted before and has odd rows is written once more.
        """
        left = [
            id
            for id, held in self.held.items()
            if held.deleted and id not in self.listed and (held.odd or not held.ours)
        ]
        if not gone and not left:
            return []
        now, table = self.session.api.now(), self.resource.table
        with self.writer.client as client:
            foreign = self._foreign(client, [*gone, *left])
            stray_rows.remove(client, table, sorted(foreign))
            for child in self.resource.children if foreign else ():
                stray_rows.remove_orphans(client, child, table)
            rows = existing.rows(
                client, self.shape, [id for id in (*gone, *left) if id not in foreign]
            )
            befores = existing.images(client, self.shape, rows)
            last = existing.last_images(client, table, dict.fromkeys(rows, existing.EVER))
        ends = {
            id: last[id].at for id in rows if id in last and last[id].image is None
        }  # told already
        ends |= {
            id: existing.as_json("timestamp", rows[id]["deleted_at"]) or now
            for id in left
            if id in rows and id not in ends
        }
        self.restored.update(foreign, ends)
        versions = [max(version_read(now), self.held[id].version + 1) for id in rows]
        yield from self.writer.ended(
            list(rows.values()), versions, [ends.get(id, now) for id in rows]
        )
        return [self._diff(id, befores[id], None, "") for id in rows if id not in ends]

    def _foreign(self, client: Any, gone: Sequence[str]) -> set[str]:
        """Of rows without an object, those that no run can have written: another account's, of no
        load, or copied from another row, whose digest covers its id.
        """
        told = existing.told(client, self.resource.table, gone)
        copied = doubled(self.held.values())
        return {
            id
            for id in gone
            if id not in told and (not self.held[id].ours or self.held[id].hash in copied)
        }

    def _untold(self, told_by_events: set[str]) -> list[Change]:
        """Objects created since the events are followed, whose creation no change tells."""
        if self.cursors is None or self.session.unreadable is not None:
            return []
        since = self._told_since() or self.t0
        young = [
            id
            for id, held in self.held.items()
            if not held.deleted
            and held.created is not None
            and since <= held.created < self.t0
            and id not in told_by_events
            and id not in self.suspects
            and id not in self.restored
        ]
        with self.writer.client as client:
            told = existing.told(client, self.resource.table, young)
        images = self._images([id for id in young if id not in told])
        return [self._diff(id, None, image, self.held[id].hash) for id, image in images.items()]

    def _behind(self, left_out: set[str]) -> list[Change]:
        """Rows that a list brought, or a reading, and whose changes do not lead there: one of those
        was never told.
        """
        if self.cursors is None or self.session.unreadable is not None:
            return []
        with self.writer.client as client:
            told = (
                existing.told(client, self.resource.table) & self.listed - left_out - self.restored
            )
            ids = [
                id
                for id in sorted(told)
                if not self.held[id].deleted and self.held[id].version % VERSION_STEP == 0
            ]
            last = existing.last_images(
                client, self.resource.table, dict.fromkeys(ids, existing.EVER)
            )
        found = []
        for id, after in self._images(list(last)).items():
            version, before, *_ = last[id]
            if before is None:
                found.append(self._diff(id, None, after, self.held[id].hash))
            elif same_schema(self.resource, version, self.session.api.version) and (
                names := existing.unlike(self.resource, self.shape, before, after)
            ):
                found.append(
                    self._diff(
                        id,
                        after | {name: before.get(name) for name in names},
                        after,
                        self.held[id].hash,
                    )
                )
        return found

    def _diff(self, id: str, before: Image | None, after: Image | None, hash: str) -> Change:
        version = self.held[id].version if id in self.held and before is not None else 0
        return diff(
            self.resource,
            id,
            before,
            after,
            version,
            hash,
            self.session.api.now(),
            self.session.api.version,
        )

    def _done(self, changes: Sequence[Change]) -> None:
        table = self.resource.table
        self.session.left_out.keep(table)
        self.session.healed[table] = len(changes)
        if changes:
            log.info("%s: differences healed: %s", table, f"{len(changes):,}")
        if self.restored:
            self.session.restored[table] = len(self.restored)
            log.warning(
                "%s: rows in the destination that were not as Stripe has them, though nothing happened there, are restored: %s",
                table,
                f"{len(self.restored):,}",
            )
        listed = dlt.current.source_state()["resources"][table]
        t0 = self.session.proven(self.t0)
        listed.update(
            t0=t0, left=[[] for _ in self.resource.list_filters], start=min(self.asked, self.start)
        )
        listed.pop("compare", None)
        if table in self.session.runs:
            self.session.runs[table].compare = False
        if self.cursors is not None:
            self.cursors["shape"] = shape_id(self.session.api.version, self.shape)
            if self.gap:
                self.cursors.update(since=t0, cursor=t0)


def reshaped(before: Image, after: Image, shared: Collection[str]) -> Image:
    """A held image of another shape as it would be in this one: what only one of them has is as it
    is now.
    """
    found = dict(after)
    for name in shared:
        old, now = before.get(name), after.get(name)
        found[name] = old if old is None or now is None else in_shape_of(now, old, name)
    return found
