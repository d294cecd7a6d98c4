"""Prepare rows for dlt: versioned, with all their children, marked with their table and with the
merge that keeps the newest version.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import dlt
import msgspec
import pyarrow as pa

from ..destination.comments import comment_columns
from ..destination.duckdb_file import duckdb_path, wait_for_file
from ..destination.missing_tables import recreate_missing
from ..destination.pipeline import require_merge
from ..destination.place import require_own_file, require_same_place
from ..destination.preflight import require_usable_dataset
from ..destination.state import check_owner, stored_owner
from ..resources import CHANGES, RESOURCES
from ..resources.groups import OWNED_TABLES, tables_filled_by
from ..resources.model import Child, Resource
from . import existing
from .accounts.package import account_part, load_id, selected_resources, source_state
from .next_step import VERSION_STEP
from .repairs.clock_errors import repair_clock_errors
from .run import HAS_CHANGES, RunContext
from .tables.arrow import LoadStamp, child_table, parent_table
from .tables.changes import ChangeRow, change_hints, change_table, digest_id
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

VERSION_LAG = 5  # seconds by which a listed row is older than an event of the same time
MAX_REQUEST_SECONDS = 10  # seconds that a request usually takes at most


def read_version(requested_at: int) -> int:
    """Return the version of a row that was read directly, from Stripe's time of the request."""
    return (requested_at - VERSION_LAG) * VERSION_STEP


def is_embedded_copy(version: int, created: int | None, active: bool) -> bool:
    """Whether a price or plan is known only from items that embed it, or from its creation: one made
    for a single subscription is in no list, and never active. Lists have shown all others.
    """
    return not active and version // VERSION_STEP == created


def certainly_before(version: int, second: int) -> bool:
    """Whether a row of this version certainly shows its object before a second: a row that was read
    directly may show what happened while the request was pending.
    """
    at, order = divmod(version, VERSION_STEP)
    return at < second if order else at + VERSION_LAG + MAX_REQUEST_SECONDS < second


class NamedTable(NamedTuple):
    """Rows for a table, in a package of several accounts."""

    name: str
    rows: pa.Table


class Writer:
    """Turns the objects of one resource into marked Arrow tables, yielded by the dlt resource
    `resource_name`.

    The first table of each name carries its merge conditions: they need the destination's names.
    """

    def __init__(self, context: RunContext, resource: Resource, resource_name: str = "") -> None:
        self.context = context
        self.resource = resource
        self.resource_name = resource_name or resource.table
        self.codec = context.codecs[resource.table]
        self.hinted: set[str] = set()
        self.client: Any = None
        self.destination = ""
        self.tables_without_rows: frozenset[str] = frozenset()
        self.names: dict[str, TableNames] = {}
        self.stored_hashes: dict[str, str] = {}  # id -> hash, of the rows that were looked up last
        self.lost_table = ""  # of embedded objects; the destination has lost its rows
        load, part = load_id(), account_part()
        if load:  # else nothing is loaded
            if part is not None:
                self.client, self.destination = part.client, part.destination
                self.tables_without_rows = part.tables_without_rows
            else:
                self.client, self.destination, self.tables_without_rows = (
                    self.context.connections.sql_client(load, self._open_client)
                )
                self.names = {name: table_names(self.client, name) for name in self._tables()}
            self._check_owner()
            if self.context.must_check_clocks(load):
                repair_clock_errors(self.context, self.client, source_state())
        self.is_part = part is not None  # tables go to the package of several accounts, unmarked
        self.stamp = LoadStamp(context.account.id, load)

    def _open_client(self) -> tuple[Any, str, frozenset[str]]:
        """Check the destination, and return its SQL client, its type and its empty tables; done once
        per package, since dlt resolves its configuration each time, and DuckDB opens its file.
        """
        pipeline = dlt.current.pipeline()
        require_merge(pipeline.destination)
        require_own_file(pipeline)
        require_same_place(pipeline)
        restrict_access(pipeline)
        load_sqlite_serially(pipeline)
        state = source_state()
        resources = state.get("resources", {})
        selected = selected_resources()
        require_usable_dataset(
            pipeline, state, tables_filled_by(name for name in RESOURCES if name in selected)
        )
        client, destination = pipeline.sql_client(), pipeline.destination.destination_type
        lock_wait = self.context.options.lock_wait
        if lock_wait and (file := duckdb_path(pipeline)) is not None:
            wait_for_file(client, file, lock_wait)
        recreate_missing(pipeline)
        create_indexes(client, destination)
        if not self.context.keep_open:  # else the caller loads, and comments then
            comment_columns(client, destination, dlt.current.source_schema().tables)
        tables = tables_filled_by(name for name in RESOURCES if name in resources)
        if not tables:
            return client, destination, frozenset()  # a first load
        with client as connected:
            return client, destination, existing.tables_without_rows(connected, tables)

    def _tables(self) -> list[str]:
        embeds = self.resource.embedded_tables
        return [self.resource.table, *(child.table for child in self.resource.children), *embeds]

    def _check_owner(self) -> None:
        """Refuse another account or mode than the dataset holds; read it from the rows if the state
        does not say.
        """
        account = self.context.account
        state = source_state()
        tables = [] if account_part() else OWNED_TABLES  # those of several accounts
        check_owner(account, stored_owner(state, self.client, tables))
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
        """Return the tables to yield for some objects: their rows, those of their children, and full
        objects embedded in these.
        """
        if not records:
            return []
        deletions = [None] * len(records) if deleted_at is None else deleted_at
        tables = [
            self._mark(
                self.resource.table,
                parent_table(self.codec, records, versions, self.stamp, deletions),
            )
        ]
        for (
            child,
            codec,
        ) in self.codec.children:  # children last: if they are stored, the rest is as well
            families: list[tuple[str, list[Any], int]] = [
                (record.row.id, child_items(record, child) if deletion is None else [], version)
                for record, version, deletion in zip(records, versions, deletions, strict=True)
            ]
            tables += self._embedded(child, families)
            tables.append(self._children(codec, child, families))
            if any(items for _, items, _ in families):
                self._note_children()
        return tables

    def _note_children(self) -> None:
        """An empty table of children means from now on that it is lost."""
        states, table = source_state().get("resources", {}), self.resource.table
        run = self.context.listing_runs.get(table)
        if states.get(table, {}).pop("childless", False) and run is not None:
            run.childless = False

    def deleted_rows(
        self, rows: Sequence[existing.StoredRow], versions: Sequence[int], deleted_at: Sequence[int]
    ) -> list[Any]:
        """Return the tables to yield for deleted objects whose last content is the stored row."""
        if not rows:
            return []
        table = existing.rows_as_table(self.codec, rows, versions, deleted_at, self.stamp)
        tables = [self._mark(self.resource.table, table)]
        for child, codec in self.codec.children:
            families = [
                (str(row["id"]), list[Any](), version)
                for row, version in zip(rows, versions, strict=True)
            ]
            tables.append(self._children(codec, child, families))
        return tables

    def changes(self, changes: Sequence[ChangeRow], empty: bool = False) -> list[Any]:
        """Return the table to yield for some changes, in their order; without changes only if
        `empty`.
        """
        if self.client is None or not (
            changes or (empty and self.destination not in NO_EMPTY_FILES)
        ):
            return []
        if changes:
            source_state()[HAS_CHANGES] = True
        if self.is_part:
            _distinguish(changes, self.stamp.account_id)
        first = self.context.counters.add_changes(len(changes))
        table = change_table(
            changes, self.stamp, self.context.account.livemode, self.context.api.now(), first
        )
        if self.is_part:
            return [NamedTable(CHANGES, table)]
        if CHANGES not in self.hinted:
            self.hinted.add(CHANGES)
            hints = change_hints(self.destination)
            return [
                dlt.mark.with_hints(table, dlt.mark.make_hints(**hints), create_table_variant=True)
            ]
        return [dlt.mark.with_table_name(table, CHANGES)]

    def empty_tables(self) -> list[Any]:
        """Return tables without rows, so that they exist after the first run; none if the destination
        cannot load them.
        """
        if self.destination in NO_EMPTY_FILES:
            return []
        tables = [self._mark(self.resource.table, parent_table(self.codec, [], [], self.stamp))]
        for child, codec in self.codec.children:
            tables.append(self._children(codec, child, []))
        return tables

    def drop_unchanged(self, records: Sequence[Record]) -> list[Record]:
        """Drop the objects that the destination holds unchanged, children included."""
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
        """Return rows for full objects embedded in children: the list may hide them. Any row that is
        read directly is newer.
        """
        tables = []
        for name, table in child.embeds:
            fresh: dict[str, Record] = {}
            for _, rows, _ in families:
                for row in rows:
                    self._collect(fresh, self.context.codecs[table], getattr(row, name))
            tables += self._copies(table, fresh)
        return tables

    def _copies(self, table: str, fresh: dict[str, Record]) -> list[Any]:
        row_may_be_gone = table == self.lost_table or self.context.options.deletes == "hard"
        if fresh and self.client is not None and row_may_be_gone:
            with self.client as client:
                gone = existing.ids_with_deletion(
                    client, table, [record.row.id for record in fresh.values()]
                )
            fresh = {key: record for key, record in fresh.items() if record.row.id not in gone}
        if not fresh:
            return []
        records = list(fresh.values())
        versions = [(record.created or 0) * VERSION_STEP for record in records]
        codec = self.context.codecs[table]
        return [self._mark(table, parent_table(codec, records, versions, self.stamp))]

    def embedded_rows(self, table: str, bodies: Iterable[bytes]) -> list[Any]:
        """Return rows for full objects embedded in this resource's, from their JSON; like the rows of
        objects embedded in children.
        """
        fresh: dict[str, Record] = {}
        for body in bodies:
            self._collect(fresh, self.context.codecs[table], msgspec.Raw(body))
        return self._copies(table, fresh)

    def _collect(self, fresh: dict[str, Record], codec: TableCodec, raw: msgspec.Raw) -> None:
        try:
            key = f"{codec.name}/{_head.decode(raw).id}"
        except msgspec.ValidationError:
            return  # an id or null, not a full object
        if key not in self.context.embedded_seen:
            self.context.embedded_seen.add(key)
            try:
                fresh[key] = codec.decode_object(bytes(raw))
            except Rejected as rejected:
                self.context.left_out.add(rejected)
                self.context.left_out.store(rejected.table)

    def _mark(self, name: str, table: pa.Table, child: Child | None = None) -> Any:
        """Mark a table with its name for dlt, and count its rows; rows of embedded objects are not
        counted.
        """
        if name == self.resource.table or child is not None:
            self.context.count_rows(
                name, table.num_rows if child is None else table["deleted_at"].null_count
            )
        if self.is_part:
            return NamedTable(name, table)
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
            **table_hints(self._codec_of(name), child, self.destination),
            "write_disposition": merge,
        }
        if is_own:
            columns = hints["columns"]
            own_hints: dict[str, Any] = {"write_disposition": merge, "columns": columns}
            return dlt.mark.with_hints(table, dlt.mark.make_hints(**own_hints))
        return dlt.mark.with_hints(table, dlt.mark.make_hints(**hints), create_table_variant=True)

    def _codec_of(self, name: str) -> TableCodec:
        children = {codec.name: codec for _, codec in self.codec.children}
        return children.get(name) or self.context.codecs[name]


def _distinguish(changes: Iterable[ChangeRow], account: str) -> None:
    """Give differences and snapshots an id of their account's: two accounts can have a product or a
    coupon with the same id and the same content.
    """
    for change in changes:
        if change.origin in ("diff", "snapshot"):
            change.change_id = digest_id(account, change.change_id)


class _Head(msgspec.Struct):
    id: str
    object: str


_head = msgspec.json.Decoder(_Head)


def child_items(record: Record, child: Child) -> list[Any]:
    """Return the children of an object."""
    return list(getattr(record.row, child.field).data)
