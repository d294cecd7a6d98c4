"""The floor: what a hand-written loader without dlt costs. bytes -> msgspec -> Arrow -> DuckDB
delete + insert.

It keeps the same columns, completes embedded lists and loads children; it has no state, no
checkpoints, no versions, no retries and no schema evolution. Usage: floor.py URL KEY FILE.
"""

from __future__ import annotations

import sys
from typing import Any

import duckdb
import msgspec
import pyarrow as pa
import urllib3

from stripe_feed.resources.model import Child, Resource
from tests.core import CORE

TYPES: dict[str, Any] = {
    "text": str | None,
    "ref": str | None,
    "bigint": int | None,
    "bool": bool | None,
    "timestamp": int | None,
    "decimal": str | None,
    "double": float | None,
    "json": msgspec.Raw,
}
ARROW: dict[str, pa.DataType] = {
    "text": pa.string(),
    "ref": pa.string(),
    "bigint": pa.int64(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("s", tz="UTC"),
    "decimal": pa.decimal128(38, 12),
    "double": pa.float64(),
    "json": pa.string(),
}
NULL = msgspec.Raw(b"null")
BATCH = 50


def struct(row: Resource | Child) -> Any:
    fields: list[Any] = [
        ("id", str)
        if c.name == "id"
        else (c.name, TYPES[c.kind], NULL if c.kind == "json" else None)
        for c in row.columns
    ]
    for child in getattr(row, "children", ()):
        item: Any = struct(child)
        embedded = msgspec.defstruct(
            "List", [("data", list[item]), ("has_more", bool, False)], gc=False
        )
        fields.append((child.field, embedded))
    return msgspec.defstruct(row.table, fields, gc=False, kw_only=True)


def page_decoder(row: Resource | Child) -> Any:
    page = msgspec.defstruct("Page", [("data", list[struct(row)]), ("has_more", bool)], gc=False)  # type: ignore[misc]
    return msgspec.json.Decoder(page)


def table(row: Resource | Child, rows: list[Any]) -> pa.Table:
    arrays = []
    for column in row.columns:
        values = [getattr(r, column.name) for r in rows]
        if column.kind == "json":
            values = [None if raw == b"null" else raw for raw in map(bytes, values)]
        if column.kind == "decimal":
            arrays.append(pa.array(values, pa.string()).cast(ARROW["decimal"]))
        else:
            arrays.append(pa.array(values, ARROW[column.kind]))
    return pa.Table.from_arrays(arrays, names=[c.name for c in row.columns])


def store(base: duckdb.DuckDBPyConnection, name: str, rows: pa.Table) -> None:
    base.register("batch", rows)
    base.execute(f"create table if not exists {name} as select * from batch limit 0")
    base.execute(f"delete from {name} where id in (select id from batch)")
    base.execute(f"insert into {name} select * from batch")
    base.unregister("batch")


class Floor:
    def __init__(self, url: str, key: str, file: str) -> None:
        self.url, self.headers = url, {"Authorization": f"Bearer {key}"}
        self.http = urllib3.PoolManager(maxsize=8)
        self.base = duckdb.connect(file)

    def get(self, path: str, **fields: str) -> bytes:
        return self.http.request(
            "GET", self.url + path, fields={"limit": "100", **fields}, headers=self.headers
        ).data

    def walk(self, row: Resource, filters: dict[str, str]) -> None:
        decode, child_decoders = page_decoder(row), {c.field: page_decoder(c) for c in row.children}
        waiting: list[Any] = []
        cursor: dict[str, str] = {}
        pages = 0
        while True:
            page = decode.decode(self.get(row.path, **filters, **cursor))
            for child in row.children:
                for item in page.data:
                    embedded = getattr(item, child.field)
                    if embedded.has_more:
                        embedded.data = self.rest(child, item.id, child_decoders[child.field])
            waiting += page.data
            pages += 1
            if pages % BATCH == 0 or not page.has_more:
                self.flush(row, waiting)
                waiting = []
            if not page.has_more:
                return
            cursor = {"starting_after": page.data[-1].id}

    def rest(self, child: Child, parent: str, decoder: Any) -> list[Any]:
        found: list[Any] = []
        cursor: dict[str, str] = {}
        while True:
            fields = {name: value.format(id=parent) for name, value in child.params}
            page = decoder.decode(self.get(child.path.format(id=parent), **fields, **cursor))
            found += page.data
            if not page.has_more:
                return found
            cursor = {"starting_after": page.data[-1].id}

    def flush(self, row: Resource, rows: list[Any]) -> None:
        if rows:
            store(self.base, row.table, table(row, rows))
        for child in row.children:
            items = [item for parent in rows for item in getattr(parent, child.field).data]
            if items:
                store(self.base, child.table, table(child, items))


def main(url: str, key: str, file: str) -> None:
    floor = Floor(url, key, file)
    for row in CORE.values():
        for walk in row.list_filters:
            floor.walk(row, dict(walk))


if __name__ == "__main__":
    main(*sys.argv[1:])
