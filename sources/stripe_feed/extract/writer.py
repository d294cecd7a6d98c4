"""Rows on their way to dlt: marked with their table, versioned, with all their children, and the
merge that keeps the newest.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import dlt
import msgspec
import pyarrow as pa
from dlt.common.configuration.container import Container
from dlt.common.storages.load_package import LoadPackageStateInjectableContext

from ..destination.comments import comment_columns
from ..destination.duckdb_file import duckdb_path, wait_for_file
from ..destination.missing_tables import recreate_missing
from ..destination.pipeline import require_merge
from ..destination.place import require_own_file, require_same_place
from ..destination.preflight import require_usable_dataset
from ..destination.state import check_owner, stored_owner
from ..resources import CHANGES, RESOURCES
from ..resources.model import Child, Resource
from . import existing
from .next_step import VERSION_STEP
from .repairs.clock_errors import settle
from .run import Session
from .tables.arrow import Stamp, children, parents, typed
from .tables.changes import Change, change_hints, change_table
from .tables.codec import Record, Shape
from .tables.dlt_resource import keep_private, load_in_turn
from .tables.hints import NO_EMPTY_FILES, Names, names_of, newer_wins, table_hints, whole_lists
from .tables.indexes import index
from .tables.rejected import Odd

log = logging.getLogger("stripe_feed")

# in the source's state: there are changes, so that an empty table of them has lost them
HAS_TOLD = "has_told"
VERSION_LAG = 5  # seconds that a listed row yields to an event of the same time
MOST_ELAPSED = 10  # seconds that an answer takes at most, as a rule


def version_read(requested_at: int) -> int:
    """The version of a row that was read directly, by Stripe's time when it was asked for."""
    return (requested_at - VERSION_LAG) * VERSION_STEP


def is_copy(version: int, created: int | None, active: bool) -> bool:
    """Whether a price or plan is known only from inside items, or from its creation: made for one
    subscription it is in no list, and never active. Others lists have shown.
    """
    return not active and version // VERSION_STEP == created


def is_before(version: int, second: int) -> bool:
    """Whether a row of this version surely shows its object as it was before a second: one that was
    read directly shows what happened while the answer came.
    """
    at, order = divmod(version, VERSION_STEP)
    return at < second if order else at + VERSION_LAG + MOST_ELAPSED < second


class Writer:
    """Turns the objects of one resource into marked Arrow tables, for the dlt resource `by`.

    The first table of each name brings its merge conditions along: they need the destination's
    names.
    """

    def __init__(self, session: Session, resource: Resource, by: str = "") -> None:
        self.session = session
        self.resource = resource
        self.by = by or resource.table
        self.shape = session.shapes[resource.table]
        self.hinted: set[str] = set()
        self.client: Any = None
        self.destination = ""
        self.names: dict[str, Names] = {}
        self.held: dict[str, str] = {}  # id -> hash of what was looked up last
        load_id = ""
        if (
            LoadPackageStateInjectableContext in Container()
        ):  # otherwise somebody just looks at the rows
            load_id = dlt.current.load_package_state()["load_id"]
            self.client, self.destination = self._client(load_id)
            self.names = {name: names_of(self.client, name) for name in self._tables()}
            self._check_owner()
            if self.session.settled != load_id:
                self.session.settled = load_id
                settle(self.session, self.client, dlt.current.source_state())
        self.stamp = Stamp(session.account.id, load_id)

    def _client(self, load_id: str) -> tuple[Any, str]:
        """The destination's SQL client and type, made once for a package: dlt resolves its
        configuration each time.
        """
        if self.session.client is None or self.session.client[0] != load_id:
            pipeline = dlt.current.pipeline()
            require_merge(pipeline.destination)
            require_own_file(pipeline)
            require_same_place(pipeline)
            keep_private(pipeline)
            load_in_turn(pipeline)
            require_usable_dataset(pipeline, dlt.current.source_state())
            client, destination = pipeline.sql_client(), pipeline.destination.destination_type
            if self.session.wait and (file := duckdb_path(pipeline)) is not None:
                wait_for_file(client, file, self.session.wait)
            recreate_missing(pipeline)
            index(client, destination)
            if not self.session.kept:  # whoever keeps it loads by itself, and describes then
                comment_columns(client, destination, dlt.current.source_schema().tables)
            self.session.client = (load_id, client, destination)
        return self.session.client[1:]

    def _tables(self) -> list[str]:
        embeds = [table for child in self.resource.children for _, table in child.embeds]
        return [self.resource.table, *(child.table for child in self.resource.children), *embeds]

    def _check_owner(self) -> None:
        """One dataset holds one account in one mode; asked of the rows themselves where the state
        does not say.
        """
        account = self.session.account
        state = dlt.current.source_state()
        check_owner(account, stored_owner(state, self.client, list(RESOURCES)))
        state.update(account=account.id, livemode=account.livemode)
        if state.get("api_version") != self.session.api.version:
            if "api_version" in state:
                log.warning(
                    "The API version changes from %s to %s.",
                    state["api_version"],
                    self.session.api.version,
                )
            state["api_version"] = self.session.api.version

    def rows(
        self,
        records: Sequence[Record],
        versions: Sequence[int],
        deleted_at: Sequence[int | None] | None = None,
    ) -> list[Any]:
        """The tables to yield for some objects: their rows, those of their children, and full
        objects inside these.
        """
        if not records:
            return []
        ends = [None] * len(records) if deleted_at is None else deleted_at
        found = [
            self._mark(
                self.resource.table, parents(self.shape, records, versions, self.stamp, ends)
            )
        ]
        for (
            child,
            shape,
        ) in self.shape.children:  # children last: where they are held, the rest is as well
            families: list[tuple[str, list[Any], int]] = [
                (record.row.id, items_of(record, child) if end is None else [], version)
                for record, version, end in zip(records, versions, ends, strict=True)
            ]
            found += self._embedded(child, families)
            found.append(self._children(shape, child, families))
        return found

    def ended(
        self, held: Sequence[existing.Row], versions: Sequence[int], deleted_at: Sequence[int]
    ) -> list[Any]:
        """The tables to yield for objects that were deleted and whose last content is the row that
        is held.
        """
        if not held:
            return []
        table = existing.as_table(self.shape, held, versions, deleted_at, self.stamp)
        found = [self._mark(self.resource.table, table)]
        for child, shape in self.shape.children:
            families = [
                (str(row["id"]), list[Any](), version)
                for row, version in zip(held, versions, strict=True)
            ]
            found.append(self._children(shape, child, families))
        return found

    def changes(self, changes: Sequence[Change], empty: bool = False) -> list[Any]:
        """The table to yield for some changes, in their order; one without rows only if it may be
        `empty`.
        """
        if self.client is None or not (
            changes or (empty and self.destination not in NO_EMPTY_FILES)
        ):
            return []
        if changes:
            dlt.current.source_state()[HAS_TOLD] = True
        first = self.session.count_changes(len(changes))
        table = change_table(
            changes, self.stamp, self.session.account.livemode, self.session.api.now(), first
        )
        if CHANGES not in self.hinted:
            self.hinted.add(CHANGES)
            hints = change_hints(self.destination)
            return [
                dlt.mark.with_hints(table, dlt.mark.make_hints(**hints), create_table_variant=True)
            ]
        return [dlt.mark.with_table_name(table, CHANGES)]

    def empty_tables(self) -> list[Any]:
        """Tables without rows, so that they exist after the first run; none where the destination
        cannot take them.
        """
        if self.destination in NO_EMPTY_FILES:
            return []
        found = [self._mark(self.resource.table, parents(self.shape, [], [], self.stamp))]
        for child, shape in self.shape.children:
            found.append(self._children(shape, child, []))
        return found

    def changed(self, records: Sequence[Record]) -> list[Record]:
        """Without the objects that the destination holds as they are, children included."""
        if not records or self.client is None:
            return list(records)
        with self.client as client:
            held = self.held = existing.hashes(
                client, self.resource.table, [record.row.id for record in records]
            )
            same = [record.row.id for record in records if held.get(record.row.id) == record.hash]
            whole = [
                (child, existing.children(client, self.resource.table, child, same))
                for child in self.resource.children
            ]

        def is_held(record: Record) -> bool:
            id = record.row.id
            return held.get(id) == record.hash and all(
                found.get(id, 0) == len({item.id for item in items_of(record, child)})
                for child, found in whole
            )

        return [record for record in records if not is_held(record)]

    def _children(
        self, shape: Shape, child: Child, families: Sequence[tuple[str, Sequence[Any], int]]
    ) -> Any:
        return self._mark(
            child.table, children(shape, child, families, self.stamp, self.session.api.now()), child
        )

    def _embedded(
        self, child: Child, families: Sequence[tuple[str, Sequence[Any], int]]
    ) -> list[Any]:
        """Rows for full objects inside children: the list may hide them. Anything read directly is
        newer.
        """
        found = []
        for name, table in child.embeds:
            fresh: dict[str, Record] = {}
            for _, rows, _ in families:
                for row in rows:
                    self._collect(fresh, self.session.shapes[table], getattr(row, name))
            if (
                fresh and self.client is not None and self.session.options.deletes == "hard"
            ):  # its row may be removed
                with self.client as client:
                    gone = existing.told_gone(
                        client, table, [record.row.id for record in fresh.values()]
                    )
                fresh = {key: record for key, record in fresh.items() if record.row.id not in gone}
            if fresh:
                records = list(fresh.values())
                versions = [
                    (typed(record.row.created, "timestamp") or 0) * VERSION_STEP
                    for record in records
                ]
                shape = self.session.shapes[table]
                found.append(self._mark(table, parents(shape, records, versions, self.stamp)))
        return found

    def _collect(self, fresh: dict[str, Record], shape: Shape, raw: msgspec.Raw) -> None:
        try:
            key = f"{shape.name}/{_head.decode(raw).id}"
        except msgspec.ValidationError:
            return  # an id, or nothing: no full object
        if key not in self.session.embedded_seen:
            self.session.embedded_seen.add(key)
            try:
                fresh[key] = shape.object(bytes(raw))
            except Odd as odd:
                self.session.left_out.add(odd)
                self.session.left_out.keep(odd.table)

    def _mark(self, name: str, table: pa.Table, child: Child | None = None) -> Any:
        """Tell dlt where a table goes, and count its rows; copies from inside other objects are not
        counted.
        """
        if name == self.resource.table or child is not None:
            self.session.wrote(
                name, table.num_rows if child is None else table["deleted_at"].null_count
            )
        own = name == self.by
        if name in self.hinted or self.client is None:
            return table if own else dlt.mark.with_table_name(table, name)
        self.hinted.add(name)
        names = self.names[name]
        merge = (
            newer_wins(names)
            if child is None
            else whole_lists(child, self.names[self.resource.table], names)
        )
        hints = {
            **table_hints(self._shape(name), child, self.destination),
            "write_disposition": merge,
        }
        if own:
            columns = hints["columns"]
            own_hints: dict[str, Any] = {"write_disposition": merge, "columns": columns}
            return dlt.mark.with_hints(table, dlt.mark.make_hints(**own_hints))
        return dlt.mark.with_hints(table, dlt.mark.make_hints(**hints), create_table_variant=True)

    def _shape(self, name: str) -> Shape:
        children = {shape.name: shape for _, shape in self.shape.children}
        return children.get(name) or self.session.shapes[name]


class _Head(msgspec.Struct):
    id: str
    object: str


_head = msgspec.json.Decoder(_Head)


def items_of(record: Record, child: Child) -> list[Any]:
    """The children of an object."""
    return list(getattr(record.row, child.field).data)
