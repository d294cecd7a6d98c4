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
from .repairs.clock_errors import repair_clock_errors
from .run import RunContext
from .tables.arrow import LoadStamp, child_table, parent_table, value_of
from .tables.changes import ChangeRow, change_hints, change_table
from .tables.codec import Record, TableCodec
from .tables.dlt_resource import load_sqlite_serially, restrict_access
from .tables.hints import (
    NO_EMPTY_FILES,
    TableNames,
    newer_wins,
    replace_children,
    table_hints,
    table_names,
)
from .tables.indexes import create_indexes
from .tables.rejected import Rejected

log = logging.getLogger("stripe_feed")

# in the source's state: there are changes, so that an empty table of them has lost them
HAS_CHANGES = "has_told"
VERSION_LAG = 5  # seconds that a listed row yields to an event of the same time
MAX_REQUEST_SECONDS = 10  # seconds that an answer takes at most, as a rule


def read_version(requested_at: int) -> int:
    """The version of a row that was read directly, by Stripe's time when it was asked for."""
    return (requested_at - VERSION_LAG) * VERSION_STEP


def is_embedded_copy(version: int, created: int | None, active: bool) -> bool:
    """Whether a price or plan is known only from inside items, or from its creation: made for one
    subscription it is in no list, and never active. Others lists have shown.
    """
    return not active and version // VERSION_STEP == created


def certainly_before(version: int, second: int) -> bool:
    """Whether a row of this version surely shows its object as it was before a second: one that was
    read directly shows what happened while the answer came.
    """
    at, order = divmod(version, VERSION_STEP)
    return at < second if order else at + VERSION_LAG + MAX_REQUEST_SECONDS < second


class Writer:
    """Turns the objects of one resource into marked Arrow tables, for the dlt resource `by`.

    The first table of each name brings its merge conditions along: they need the destination's
    names.
    """

    def __init__(self, context: RunContext, resource: Resource, resource_name: str = "") -> None:
        self.context = context
        self.resource = resource
        self.resource_name = resource_name or resource.table
        self.shape = context.codecs[resource.table]
        self.hinted: set[str] = set()
        self.client: Any = None
        self.destination = ""
        self.names: dict[str, TableNames] = {}
        self.stored_hashes: dict[str, str] = {}  # id -> hash of what was looked up last
        load_id = ""
        if (
            LoadPackageStateInjectableContext in Container()
        ):  # otherwise somebody just looks at the rows
            load_id = dlt.current.load_package_state()["load_id"]
            self.client, self.destination = self._client(load_id)
            self.names = {name: table_names(self.client, name) for name in self._tables()}
            self._check_owner()
            if self.context.clocks_checked_for != load_id:
                self.context.clocks_checked_for = load_id
                repair_clock_errors(self.context, self.client, dlt.current.source_state())
        self.stamp = LoadStamp(context.account.id, load_id)

    def _client(self, load_id: str) -> tuple[Any, str]:
        """The destination's SQL client and type, made once for a package: dlt resolves its
        configuration each time.
        """
        if self.context.sql_client is None or self.context.sql_client[0] != load_id:
            pipeline = dlt.current.pipeline()
            require_merge(pipeline.destination)
            require_own_file(pipeline)
            require_same_place(pipeline)
            restrict_access(pipeline)
            load_sqlite_serially(pipeline)
            require_usable_dataset(pipeline, dlt.current.source_state())
            client, destination = pipeline.sql_client(), pipeline.destination.destination_type
            if self.context.lock_wait and (file := duckdb_path(pipeline)) is not None:
                wait_for_file(client, file, self.context.lock_wait)
            recreate_missing(pipeline)
            create_indexes(client, destination)
            if not self.context.keep_open:  # whoever keeps it loads by itself, and describes then
                comment_columns(client, destination, dlt.current.source_schema().tables)
            self.context.sql_client = (load_id, client, destination)
        return self.context.sql_client[1:]

    def _tables(self) -> list[str]:
        embeds = [table for child in self.resource.children for _, table in child.embeds]
        return [self.resource.table, *(child.table for child in self.resource.children), *embeds]

    def _check_owner(self) -> None:
        """One dataset holds one account in one mode; asked of the rows themselves where the state
        does not say.
        """
        account = self.context.account
        state = dlt.current.source_state()
        check_owner(account, stored_owner(state, self.client, list(RESOURCES)))
        state.update(account=account.id, livemode=account.livemode)
        if state.get("api_version") != self.context.api.version:
            if "api_version" in state:
                log.warning(
                    "The API version changes from %s to %s.",
                    state["api_version"],
                    self.context.api.version,
                )
            state["api_version"] = self.context.api.version

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
        deletions = [None] * len(records) if deleted_at is None else deleted_at
        tables = [
            self._mark(
                self.resource.table,
                parent_table(self.shape, records, versions, self.stamp, deletions),
            )
        ]
        for (
            child,
            codec,
        ) in self.shape.children:  # children last: where they are held, the rest is as well
            families: list[tuple[str, list[Any], int]] = [
                (record.row.id, child_items(record, child) if deletion is None else [], version)
                for record, version, deletion in zip(records, versions, deletions, strict=True)
            ]
            tables += self._embedded(child, families)
            tables.append(self._children(codec, child, families))
        return tables

    def deleted_rows(
        self, rows: Sequence[existing.Row], versions: Sequence[int], deleted_at: Sequence[int]
    ) -> list[Any]:
        """The tables to yield for objects that were deleted and whose last content is the row that
        is held.
        """
        if not rows:
            return []
        table = existing.rows_as_table(self.shape, rows, versions, deleted_at, self.stamp)
        tables = [self._mark(self.resource.table, table)]
        for child, codec in self.shape.children:
            families = [
                (str(row["id"]), list[Any](), version)
                for row, version in zip(rows, versions, strict=True)
            ]
            tables.append(self._children(codec, child, families))
        return tables

    def changes(self, changes: Sequence[ChangeRow], empty: bool = False) -> list[Any]:
        """The table to yield for some changes, in their order; one without rows only if it may be
        `empty`.
        """
        if self.client is None or not (
            changes or (empty and self.destination not in NO_EMPTY_FILES)
        ):
            return []
        if changes:
            dlt.current.source_state()[HAS_CHANGES] = True
        first = self.context.count_changes(len(changes))
        table = change_table(
            changes, self.stamp, self.context.account.livemode, self.context.api.now(), first
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
        tables = [self._mark(self.resource.table, parent_table(self.shape, [], [], self.stamp))]
        for child, codec in self.shape.children:
            tables.append(self._children(codec, child, []))
        return tables

    def drop_unchanged(self, records: Sequence[Record]) -> list[Record]:
        """Without the objects that the destination holds as they are, children included."""
        if not records or self.client is None:
            return list(records)
        with self.client as client:
            stored = self.stored_hashes = existing.stored_hashes(
                client, self.resource.table, [record.row.id for record in records]
            )
            unchanged_ids = [
                record.row.id for record in records if stored.get(record.row.id) == record.hash
            ]
            child_counts = [
                (
                    child,
                    existing.stored_child_counts(client, self.resource.table, child, unchanged_ids),
                )
                for child in self.resource.children
            ]

        def is_unchanged(record: Record) -> bool:
            id = record.row.id
            return stored.get(id) == record.hash and all(
                counts.get(id, 0) == len({item.id for item in child_items(record, child)})
                for child, counts in child_counts
            )

        return [record for record in records if not is_unchanged(record)]

    def _children(
        self, codec: TableCodec, child: Child, families: Sequence[tuple[str, Sequence[Any], int]]
    ) -> Any:
        return self._mark(
            child.table,
            child_table(codec, child, families, self.stamp, self.context.api.now()),
            child,
        )

    def _embedded(
        self, child: Child, families: Sequence[tuple[str, Sequence[Any], int]]
    ) -> list[Any]:
        """Rows for full objects inside children: the list may hide them. Anything read directly is
        newer.
        """
        tables = []
        for name, table in child.embeds:
            fresh: dict[str, Record] = {}
            for _, rows, _ in families:
                for row in rows:
                    self._collect(fresh, self.context.codecs[table], getattr(row, name))
            if (
                fresh and self.client is not None and self.context.options.deletes == "hard"
            ):  # its row may be removed
                with self.client as client:
                    gone = existing.ids_with_deletion(
                        client, table, [record.row.id for record in fresh.values()]
                    )
                fresh = {key: record for key, record in fresh.items() if record.row.id not in gone}
            if fresh:
                records = list(fresh.values())
                versions = [
                    (value_of(record.row.created, "timestamp") or 0) * VERSION_STEP
                    for record in records
                ]
                codec = self.context.codecs[table]
                tables.append(self._mark(table, parent_table(codec, records, versions, self.stamp)))
        return tables

    def _collect(self, fresh: dict[str, Record], codec: TableCodec, raw: msgspec.Raw) -> None:
        try:
            key = f"{codec.name}/{_head.decode(raw).id}"
        except msgspec.ValidationError:
            return  # an id, or nothing: no full object
        if key not in self.context.embedded_seen:
            self.context.embedded_seen.add(key)
            try:
                fresh[key] = codec.decode_object(bytes(raw))
            except Rejected as odd:
                self.context.left_out.add(odd)
                self.context.left_out.store(odd.table)

    def _mark(self, name: str, table: pa.Table, child: Child | None = None) -> Any:
        """Tell dlt where a table goes, and count its rows; copies from inside other objects are not
        counted.
        """
        if name == self.resource.table or child is not None:
            self.context.count_rows(
                name, table.num_rows if child is None else table["deleted_at"].null_count
            )
        is_own = name == self.resource_name
        if name in self.hinted or self.client is None:
            return table if is_own else dlt.mark.with_table_name(table, name)
        self.hinted.add(name)
        names = self.names[name]
        merge = (
            newer_wins(names)
            if child is None
            else replace_children(child, self.names[self.resource.table], names)
        )
        hints = {
            **table_hints(self._shape(name), child, self.destination),
            "write_disposition": merge,
        }
        if is_own:
            columns = hints["columns"]
            own_hints: dict[str, Any] = {"write_disposition": merge, "columns": columns}
            return dlt.mark.with_hints(table, dlt.mark.make_hints(**own_hints))
        return dlt.mark.with_hints(table, dlt.mark.make_hints(**hints), create_table_variant=True)

    def _shape(self, name: str) -> TableCodec:
        children = {codec.name: codec for _, codec in self.shape.children}
        return children.get(name) or self.context.codecs[name]


class _Head(msgspec.Struct):
    id: str
    object: str


_head = msgspec.json.Decoder(_Head)


def child_items(record: Record, child: Child) -> list[Any]:
    """The children of an object."""
    return list(getattr(record.row, child.field).data)
