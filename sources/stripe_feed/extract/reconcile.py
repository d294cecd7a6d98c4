"""The whole list against the destination: what events did not tell is healed, and told as changes of origin `diff`.

What an event explains is left to it. A difference is read again before it counts, and so is a row that the list does not show.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import dlt

from ..errors import NotReadable
from ..resources import RESOURCES, Resource
from . import prior
from .changes import Change, diff
from .cursors import VERSION_STEP
from .histories import same_shape
from .images import Image, in_shape_of, with_lists_of
from .lists import open_listing, whole_ranges
from .odd import Odd
from .records import typed
from .rereads import Read, read_again
from .session import Session
from .shapes import Record, shape_id
from .told import objects_told
from .writer import Writer, items_of, version_read

log = logging.getLogger("stripe_feed")

State = dict[str, dict[str, Any]]
Writers = Callable[[Resource], Writer]


class Held(NamedTuple):
    """What the destination says of an object."""

    hash: str
    version: int
    deleted: bool
    created: int | None
    volatile: tuple[Any, ...]
    children: tuple[int, ...]


def prune(session: Session, writers: Writers, mine: State) -> Iterator[Any]:
    """Remove rows that were deleted before the look-back, where deletes are `hard`."""
    if session.options.deletes == "hard":
        for table, cursors in mine.items():
            writer = writers(RESOURCES[table])
            if writer.client is not None:
                with writer.client as client:
                    prior.remove_deleted(client, table, cursors["cursor"] - session.options.look_back)
    yield None


def reconcile(session: Session, writers: Writers, tables: Sequence[str], mine: State) -> Iterator[Any]:
    """Compare and heal these resources; yields their rows and changes. A gap's events begin anew at the time of the list."""
    copies: dict[str, dict[str, str]] = {}
    for table in sorted(tables, key=lambda name: not RESOURCES[name].children):      # what they embed is compared with it
        try:
            yield from Reconciling(session, writers(RESOURCES[table]), mine.get(table), copies).run()
        except NotReadable as refusal:
            session.refused.setdefault(table, refusal)
            log.warning("%s is not compared: %s", table, refusal)
        session.reconciled.add(table)


class Reconciling:
    """One resource being compared."""

    def __init__(
        self, session: Session, writer: Writer, cursors: dict[str, Any] | None, copies: dict[str, dict[str, str]]
    ) -> None:
        self.session, self.writer, self.cursors, self.copies = session, writer, cursors, copies
        self.resource, self.shape = writer.resource, writer.shape
        self.t0 = session.api.now()
        self.gap = session.standing.get(self.resource.table) == "gap"
        self.asked: int = dlt.current.source_state()["resources"][self.resource.table].get("start", 0)    # by the lists so far
        self.start = session.options.start or 0
        if self.gap:
            self.start = min(self.start, self.asked)             # all that was followed is to be followed on
        self.held: dict[str, Held] = {}
        self.listed: set[str] = set()
        self.suspects: dict[str, int | None] = {}
        self.silent: list[tuple[Record, int]] = []     # only volatile fields differ, or rows of children are missing

    def run(self) -> Iterator[Any]:
        """Yield what heals the resource."""
        if self.writer.client is None:
            return
        self._look()
        yield from self._list()
        told_by_events = yield from self._explained()
        missing = {
            id: held.created for id, held in self.held.items()
            if not held.deleted and id not in self.listed and (held.created or 0) < self.t0 and self._in_range(held)
        }
        missing = self._without_copies(missing)
        wanted = {id: at for id, at in {**self.suspects, **missing}.items() if id not in told_by_events}
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
        changes = [*self._untold(told_by_events), *healed, *self._behind({*told_by_events, *self.suspects, *missing})]
        yield from self.writer.changes(changes)
        self._done(changes)

    def _look(self) -> None:
        names = ["id", "_hash", "_version", "deleted_at", "created", *self.resource.volatile]
        kinds = {column.name: column.kind for column in self.shape.columns}
        with self.writer.client as client:
            counts = [prior.counts(client, child) for child in self.resource.children]
            for id, hash, version, deleted, created, *rest in prior.all_rows(client, self.resource.table, names):
                volatile = tuple(
                    prior.as_json(kinds[name], value) for name, value in zip(self.resource.volatile, rest, strict=True)
                )
                at = prior.as_json("timestamp", created)
                children = tuple(found.get(id, 0) for found in counts)
                self.held[id] = Held(hash, version, deleted is not None, at, volatile, children)

    def _list(self) -> Iterator[Any]:
        ranges = whole_ranges(self.start, self.t0, self.session.account.created)
        listing = open_listing(self.session, self.resource, [ranges for _ in self.resource.walks])
        self.session.compared.append(listing)
        while not (listing.finished and not listing.parts):
            parts = self.session.reader.take(listing)
            if not parts:
                yield None
            for part in parts:
                for record in part.rows:
                    self._compare(record, part.asked_at)
            if self.silent:
                records, versions = [record for record, _ in self.silent], [version for _, version in self.silent]
                self.silent = []
                yield from self.writer.rows(records, versions)
        self.session.reader.drop(listing)

    def _compare(self, record: Record, asked_at: int) -> None:
        id = record.row.id
        self.listed.add(id)
        self._copies_of(record)
        held = self.held.get(id)
        if held is None or held.deleted or held.hash != record.hash:
            self.suspects[id] = typed(record.row.created, "timestamp")
        else:
            volatile = tuple(getattr(record.row, name) for name in self.resource.volatile)
            children = tuple(len(items_of(record, child)) for child in self.resource.children)
            if (held.volatile, held.children) != (volatile, children):
                self.silent.append((record, max(version_read(asked_at), held.version)))

    def _copies_of(self, record: Record) -> None:
        """Prices and plans inside items: the list may not show them."""
        for child, _ in self.shape.children:
            for name, table in child.embeds:
                shape, found = self.session.shapes[table], self.copies.setdefault(table, {})
                for item in items_of(record, child):
                    if bytes(getattr(item, name)).startswith(b"{"):
                        with suppress(Odd):          # it is told where it is written
                            copy = shape.object(bytes(getattr(item, name)))
                            found[copy.row.id] = copy.hash

    def _without_copies(self, missing: Mapping[str, int | None]) -> dict[str, int | None]:
        copies = self.copies.get(self.resource.table, {})
        return {id: at for id, at in missing.items() if copies.get(id) != self.held[id].hash}

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
            for some in objects_told(self.session.api, self.resource, lo):
                found |= some
                yield None
        except NotReadable as refusal:         # the comparison stands without them
            self.session.unreadable = refusal
        return found

    def _heal(self, reads: Sequence[Read]) -> Generator[Any, None, list[Change]]:
        """Write what was read again and still differs; the changes that this makes."""
        reads = [
            read for read in reads
            if (held := self.held.get(read.record.row.id)) is None or held.deleted or held.hash != read.record.hash
        ]
        ids = [read.record.row.id for read in reads]
        befores = self._images([id for id in ids if id in self.held and not self.held[id].deleted])
        afters = {read.record.row.id: self.shape.image(read.record.row) for read in reads}
        names = prior.compared(self.resource, self.shape)
        shared = names if self._is_same_shape() else self._shared(names, befores, afters)
        yield from self.writer.rows([read.record for read in reads], [version_read(read.asked_at) for read in reads])
        changes = []
        for read in reads:
            id = read.record.row.id
            before, after = befores.get(id), afters[id]
            if id not in self.held and self._is_older(read):
                continue                             # not new, but asked for only now
            if before is not None:
                before = with_lists_of(before, after, [child.field for child in self.resource.children])
                if shared is not names:
                    before = reshaped(before, after, shared)
                if all(before.get(name) == after.get(name) for name in names):
                    continue                         # only what one side does not have
            changes.append(self._diff(id, before, after, read.record.hash))
        return changes

    def _is_older(self, read: Read) -> bool:
        created = typed(read.record.row.created, "timestamp")
        return created is not None and created < self.asked

    def _is_same_shape(self) -> bool:
        """Whether the rows were made with this API version and these columns."""
        return self.cursors is None or self.cursors.get("shape") in (None, shape_id(self.session.api.version, self.shape))

    def _shared(self, names: set[str], befores: Mapping[str, Image], afters: Mapping[str, Image]) -> set[str]:
        """The fields that both shapes have: what is null everywhere on one side is new, or gone."""
        both = [(befores[id], afters[id]) for id in befores]
        return {
            name for name in names
            if any(before.get(name) is not None for before, _ in both) and any(after.get(name) is not None for _, after in both)
        }

    def _images(self, ids: Sequence[str]) -> dict[str, Image]:
        with self.writer.client as client:
            return prior.images(client, self.shape, prior.rows(client, self.shape, ids))

    def _end(self, gone: Sequence[str]) -> Generator[Any, None, list[Change]]:
        """Rows of objects that do not exist any more."""
        if not gone:
            return []
        now = self.session.api.now()
        with self.writer.client as client:
            rows = prior.rows(client, self.shape, gone)
            befores = prior.images(client, self.shape, rows)
        versions = [max(version_read(now), row["_version"] + 1) for row in rows.values()]
        yield from self.writer.ended(list(rows.values()), versions, [now] * len(rows))
        return [self._diff(id, befores[id], None, "") for id in rows]

    def _untold(self, told_by_events: set[str]) -> list[Change]:
        """Objects created since the events are followed, whose creation no change tells."""
        if self.cursors is None or self.session.unreadable is not None:
            return []
        since = self.cursors["since"] or self.t0
        young = [
            id for id, held in self.held.items()
            if not held.deleted and held.created is not None and since <= held.created < self.t0
            and id not in told_by_events and id not in self.suspects
        ]
        with self.writer.client as client:
            told = prior.told(client, self.resource.table, young)
        images = self._images([id for id in young if id not in told])
        return [self._diff(id, None, image, self.held[id].hash) for id, image in images.items()]

    def _behind(self, left_out: set[str]) -> list[Change]:
        """Rows that a list brought, or a reading, and whose changes do not lead there: one of those was never told."""
        if self.cursors is None or self.session.unreadable is not None:
            return []
        with self.writer.client as client:
            told = prior.told(client, self.resource.table) & self.listed - left_out
            ids = [id for id in sorted(told) if not self.held[id].deleted and self.held[id].version % VERSION_STEP == 0]
            last = prior.last_images(client, self.resource.table, dict.fromkeys(ids, self.session.api.now() + 1))
        found = []
        for id, after in self._images(list(last)).items():
            version, before, _ = last[id]
            if before is None:
                found.append(self._diff(id, None, after, self.held[id].hash))
            elif same_shape(self.resource, version, self.session.api.version) and (
                names := prior.unlike(self.resource, self.shape, before, after)
            ):
                found.append(self._diff(id, after | {name: before.get(name) for name in names}, after, self.held[id].hash))
        return found

    def _diff(self, id: str, before: Image | None, after: Image | None, hash: str) -> Change:
        version = self.held[id].version if id in self.held and before is not None else 0
        return diff(self.resource, id, before, after, version, hash, self.session.api.now(), self.session.api.version)

    def _done(self, changes: Sequence[Change]) -> None:
        table = self.resource.table
        self.session.left_out.keep(table)
        self.session.healed[table] = len(changes)
        if changes:
            log.info("%s: differences healed: %s", table, f"{len(changes):,}")
        listed = dlt.current.source_state()["resources"][table]
        t0 = self.session.proven(self.t0)
        listed.update(t0=t0, left=[[] for _ in self.resource.walks], start=min(self.asked, self.start))
        listed.pop("compare", None)
        if table in self.session.runs:
            self.session.runs[table].compare = False
        if self.cursors is not None:
            self.cursors["shape"] = shape_id(self.session.api.version, self.shape)
            if self.gap:
                self.cursors.update(since=t0, cursor=t0)


def reshaped(before: Image, after: Image, shared: Collection[str]) -> Image:
    """A held image of another shape as it would be in this one: what only one of them has is as it is now."""
    found = dict(after)
    for name in shared:
        old, now = before.get(name), after.get(name)
        found[name] = old if old is None or now is None else in_shape_of(now, old, name)
    return found
