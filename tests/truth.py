"""Compares the tables of a copy with the sandbox's true state, field by field, on any SQL
destination of dlt.

Written from the resource table and the objects' JSON alone; it shares no code with what shapes the
rows. A value that its column cannot hold is expected in `extra`, under Stripe's name, and null in
the column.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import msgspec

from stripe_feed.resources import RESOURCES, TABLES
from stripe_feed.resources.column_files import DETAILS
from stripe_feed.resources.model import Child, Column, ColumnKind, Parent, Resource
from stripe_feed.sandbox import Sandbox
from stripe_feed.sandbox.http.expansions import full_value
from stripe_feed.sandbox.state.kinds import KIND_OF_PATH
from stripe_feed.sandbox.state.table import Row
from tests.core import CORE

MOST_SHOWN = 12
SLOW = 60  # seconds of a run, in which our clock goes on and the sandbox's does not
STEP = 1_000_000  # of `_version`
SECONDS = range(253_402_300_800)
BIGINT = range(-(2**63), 2**63)
OWN = ("extra", "account_id", "deleted_at", "_version", "_dlt_load_id")

Fields = dict[str, msgspec.Raw]


@dataclass(slots=True)
class Expected:
    """What one table should hold: per id the object's bytes; of children also whose they are."""

    raws: dict[str, bytes] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    vague: set[str] = field(default_factory=set)  # whose content is not compared
    embedded: set[str] = field(default_factory=set)  # known only from inside another object
    ends: dict[str, tuple[int, bytes]] = field(
        default_factory=dict
    )  # of deleted objects: when, and their last content
    hidden: dict[str, bytes] = field(
        default_factory=dict
    )  # in no list: there only if an item held it once


def truth(
    box: Sandbox,
    tables: Collection[str] = tuple(CORE),
    *,
    clocks: bool = False,
    since: int | None = None,
    until: int | None = None,
) -> dict[str, Expected]:
    """What a copy of these resources should hold, by table: all that was created in [since, until),
    until now by default.

    Objects on a test clock only with `clocks`, customers and subscriptions among them whatever
    their time. Prices and plans that no list shows are there where an item that is there holds
    them.
    """
    end = box.now if until is None else until
    found = {
        name: Expected()
        for table in tables
        for name in (table, *(child.table for child in RESOURCES[table].children))
    }
    with box.account.lock:
        for table in tables:
            parent = RESOURCES[table].parent
            for row in box.account.tables[kind_of(table)].rows.values():
                if parent and not _has_list(box, parent, row.group):
                    continue
                id = f"{row.group}/{row.id}" if parent and parent.local_ids else row.id
                if row.group and row_parent(table):
                    found[table].owners[id] = row.group
                created = row.created
                within = (
                    created < end and (since is None or created >= since)
                    if created is not None
                    else since is None
                )
                if row.group == "inline":
                    found[table].hidden[id] = row.raw
                elif (clocks and (within or table != "invoices")) if row.clock else within:
                    found[table].raws[id] = row.raw
        for table in tables:
            for child in RESOURCES[table].children:
                _add_children(box, table, child, found)
    return found


def _has_list(box: Sandbox, parent: Parent, id: str) -> bool:
    """Whether an object has a list of its own in which others are."""
    row = box.account.tables[kind_of(parent.table)].rows.get(id)
    return row is not None and (not parent.flag or bool(row.content()[parent.flag]))


def _add_children(box: Sandbox, table: str, child: Child, found: dict[str, Expected]) -> None:
    kind, into = kind_of(table), found[child.table]
    rows = box.account.tables[kind].rows
    for parent in found[table].raws:
        for raw in children_of(box, kind, child, rows[parent]):
            fields = msgspec.json.decode(raw, type=Fields)
            id = msgspec.json.decode(fields["id"], type=str)
            into.raws[id], into.owners[id] = raw, parent
            for name, embeds in child.embeds:
                if embeds in found:
                    _add_embedded(box, embeds, bytes(fields.get(name, b"null")), found[embeds])


def children_of(box: Sandbox, kind: str, child: Child, row: Row) -> list[bytes]:
    """All objects of an embedded list, also of one that only comes when expanded."""
    if not child.expand:
        return box.account.children(kind, row)
    value = full_value(box.account, kind, row.content(), child.field)
    return [msgspec.json.encode(element) for element in value]


def kind_of(table: str) -> str:
    """The sandbox's name of the objects in a table: those that the resource's path lists."""
    return KIND_OF_PATH[RESOURCES[table].path.replace("{id}", ":id")].name


def row_parent(table: str) -> str:
    """The column with the id of the object that a row is listed under; "" if there is none."""
    parent = getattr(TABLES[table], "parent", None)
    return parent if isinstance(parent, str) else getattr(parent, "column", "")


def _add_embedded(box: Sandbox, table: str, raw: bytes, found: Expected) -> None:
    if not raw.startswith(b"{"):
        return
    id = msgspec.json.decode(raw)["id"]
    if id not in found.raws:
        row = box.account.tables[kind_of(table)].rows.get(id)
        found.raws[id] = row.raw if row else raw
        found.embedded.add(id)


def assert_true(
    pipeline: Any, box: Sandbox, tables: Collection[str] = tuple(CORE), **options: Any
) -> None:
    """Fail with the differences between a pipeline's tables and the truth; `options` are those of
    `truth`.

    Rows of deleted objects stay, with their last content and the time of their deletion.

    `found_later`: deletions may have been noticed after they happened. `expand`: opt-in fields that
    are loaded. `exact=False`: where the database has no decimals, they come as floats.
    `volatile=False`: not the fields that change without an event; `last=False`: not the content of
    deleted objects, whose last state nobody could read. `pruned`: deleted objects may have no row,
    though an item shows a copy.
    """
    expand, exact = options.pop("expand", {}), options.pop("exact", True)
    found_later = options.pop("found_later", False)
    volatile, last = options.pop("volatile", True), options.pop("last", True)
    pruned = options.pop("pruned", False)
    now = box.now
    found: list[str] = []
    true = truth(box, tables, **options)
    with pipeline.sql_client() as client:
        loads = {
            load_id
            for (load_id,) in _select(
                client, f"select load_id from {_name(client, '_dlt_loads')} where status = 0"
            )
        }
        versions: dict[str, dict[str, int]] = {}
        for table, expected in true.items():
            row = TABLES[table]
            columns = columns_of(row, expand.get(table, ()))
            if not volatile and isinstance(row, Resource):
                columns = [column for column in columns if column.name not in row.volatile]
            actual = read(client, table, columns, isinstance(row, Child), exact)
            expected.raws |= {
                id: expected.hidden[id] for id in actual["id"] if id in expected.hidden
            }
            expected.ends = _ends(box, table, actual, found_later)
            expected.raws |= {id: raw for id, (_, raw) in expected.ends.items()}
            if isinstance(row, Resource) and row.parent:
                expected.owners |= {id: _last_owner(box, row, id) for id in expected.ends}
            if pruned:
                expected.raws = {
                    id: raw
                    for id, raw in expected.raws.items()
                    if id in actual["id"] or id not in _gone(box, table)
                }
            expected.vague = set() if last else set(expected.ends)
            for name, embeds in row.embeds if isinstance(row, Child) else ():
                actual[name] = _as_now(box, embeds, name, expected, actual)
            found += differences(table, expected, actual, columns, expand.get(table, ()), exact)
            found += own_differences(table, expected, actual, box, loads, now)
            versions[table] = dict(zip(actual["id"], actual["_version"], strict=True))
            if isinstance(row, Child):
                found += _version_differences(
                    table, actual, versions[_parent_of(table)], row.parent
                )
    if found:
        raise AssertionError("\n".join([f"{len(found)} differences", *found[:MOST_SHOWN]]))


def _as_now(
    box: Sandbox, table: str, name: str, expected: Expected, actual: dict[str, list[Any]]
) -> list[Any]:
    """Cells with a full object that changes without its owner: a version that it had since stands
    for the one of now.
    """
    now = [
        msgspec.json.decode(expected.raws.get(id, b"{}"), type=Fields).get(name, b"null")
        for id in actual["id"]
    ]
    true = [bytes(raw).decode() for raw in now]
    old = [
        n
        for n, cell in enumerate(actual[name])
        if cell not in (None, true[n]) and true[n] != "null"
    ]
    had: dict[str, list[Any]] = defaultdict(list)
    for mutation in box.history if old else ():
        if mutation.table == kind_of(table):
            had[mutation.id].append((mutation.at, mutation.before))
    cells = list(actual[name])
    for n in old:
        held, owned = (
            json.loads(cells[n]),
            msgspec.json.decode(expected.raws[actual["id"][n]])["created"],
        )
        if held["id"] == json.loads(true[n])["id"] and any(
            before == held and at >= owned for at, before in had[held["id"]]
        ):
            cells[n] = true[n]
    return cells


def _ends(
    box: Sandbox, table: str, actual: dict[str, list[Any]], found_later: bool
) -> dict[str, tuple[int, bytes]]:
    """Of the rows that say so, those of objects that really were deleted: when, and their last
    content.
    """
    marked = {
        id: int(end)
        for id, end in zip(actual["id"], actual["deleted_at"], strict=True)
        if end is not None
    }
    if table not in RESOURCES or not marked:
        return {}
    gone = {id: raw for id, raw in _gone(box, table).items() if id in marked}
    ends = {
        one.id: one
        for one in box.history
        if one.table == kind_of(table) and one.operation == "deleted"
    }
    return {
        id: (max(one.at, marked[id]) if found_later or not one.events else one.at, gone[id])
        for id, one in ends.items()
        if id in gone
    }


def _last_owner(box: Sandbox, row: Resource, id: str) -> str:
    """The id of the object that a deleted one was listed under."""
    assert row.parent is not None
    content = box.deleted(kind_of(row.table))[id]
    return str(content.get(row.parent.column) or box.account.owners[kind_of(row.table), id])


def _gone(box: Sandbox, table: str) -> dict[str, bytes]:
    """The deleted objects of a table, with their last content; children have none."""
    with box.account.lock:
        return dict(box.account.deleted[kind_of(table)]) if table in RESOURCES else {}


def _parent_of(table: str) -> str:
    return next(
        row.table for row in RESOURCES.values() if table in [child.table for child in row.children]
    )


def columns_of(row: Resource | Child, expand: Collection[str] = ()) -> list[Column]:
    """The columns of Stripe's fields."""
    extra = row.expandable if isinstance(row, Resource) else ()
    return [*row.columns, *(one.column for one in extra if one.name in expand)]


def read(
    client: Any, table: str, columns: Sequence[Column], is_child: bool, exact: bool = True
) -> dict[str, list[Any]]:
    """A whole table, by column. JSON comes as its text."""
    as_text = ("json", "decimal") if exact else ("json",)
    own = (*OWN, *(() if is_child else ("_hash",)))
    asked = [(c.name, c.kind) for c in columns] + [(name, OWN_KINDS[name]) for name in own]
    quoted = [(client.escape_column_name(name), kind) for name, kind in asked]
    exprs = [f"cast({name} as text)" if kind in as_text else name for name, kind in quoted]
    rows = _select(client, f"select {', '.join(exprs)} from {_name(client, table)}")
    by_column = list(zip(*rows, strict=True)) if rows else [()] * len(asked)
    return {
        name: list(map(DECODE[kind], values))
        for (name, kind), values in zip(asked, by_column, strict=True)
    }


OWN_KINDS: dict[str, ColumnKind] = {
    "extra": "json",
    "account_id": "text",
    "deleted_at": "timestamp",
    "_version": "bigint",
    "_dlt_load_id": "text",
    "_hash": "text",
}


def _same(value: Any) -> Any:
    return value


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    at = at.replace(tzinfo=timezone.utc) if at.tzinfo is None else at
    return float(at.timestamp())


DECODE: dict[ColumnKind, Callable[[Any], Any]] = {
    "text": _same,
    "ref": _same,
    "bigint": _same,
    "double": _same,
    "json": _same,
    "timestamp": _seconds,
    "bool": lambda value: None if value is None else bool(value),
    "decimal": lambda value: Decimal(value) if isinstance(value, str) else value,
}


def _select(client: Any, query: str) -> list[tuple[Any, ...]]:
    with client.execute_query(query) as cursor:
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows


def _name(client: Any, table: str) -> str:
    return str(client.make_qualified_table_name(table))


def differences(
    table: str,
    true: Expected,
    actual: dict[str, list[Any]],
    columns: Sequence[Column],
    expand: Collection[str] = (),
    exact: bool = True,
) -> list[str]:
    """What differs in the rows' existence and in Stripe's fields."""
    ids = actual["id"]
    found = [f"{table}: {id} is there {ids.count(id)} times" for id in _twice(ids)]
    found += (
        [f"{table}: {id} is missing" for id in true.raws if id not in set(ids)]
        if len(true.raws) != len(set(ids))
        else []
    )
    found += [f"{table}: {id} should not be there" for id in ids if id not in true.raws]
    at = [n for n, id in enumerate(ids) if id in true.raws and id not in true.vague]
    raws = [true.raws[ids[n]] for n in at]
    fields = [msgspec.json.decode(raw, type=Fields) for raw in raws]
    contents = [msgspec.json.decode(raw) for raw in raws]
    row = TABLES[table]
    if isinstance(row, Resource) and row.folded:
        for content, one in zip(contents, fields, strict=True):
            _fold(row.folded, content, one)
    extras: list[dict[str, Any]] = [{} for _ in at]
    is_local = isinstance(row, Resource) and row.parent is not None and row.parent.local_ids
    for column in columns:
        name = column.name
        cells = [actual[name][n] for n in at]
        if name == "id" and is_local:
            found += _unequal(
                table,
                name,
                cells,
                [cell.rpartition("/")[2] for cell in cells],
                [content["id"] for content in contents],
            )
        elif name == row_parent(table) and true.owners:
            wanted: list[Any] = [true.owners[ids[n]] for n in at]
            found += _unequal(table, name, [ids[n] for n in at], cells, wanted)
        elif column.kind == "json":
            texts = [bytes(one[name]).decode() if name in one else "null" for one in fields]
            found += _unequal_json(table, name, [ids[n] for n in at], cells, texts)
        else:
            wanted = [
                _cell(column.kind, name, one.get(name), extra)
                for one, extra in zip(contents, extras, strict=True)
            ]
            if column.kind == "decimal" and not exact:
                wanted = [None if value is None else float(value) for value in wanted]
            found += _unequal(table, name, [ids[n] for n in at], cells, wanted)
    known = _known(row, expand)
    for content, extra in zip(contents, extras, strict=True):
        extra.update((name, value) for name, value in content.items() if name not in known)
    cells = [{} if actual["extra"][n] is None else json.loads(actual["extra"][n]) for n in at]
    return found + _unequal(table, "extra", [ids[n] for n in at], cells, extras)


def _fold(names: Collection[str], content: dict[str, Any], fields: dict[str, msgspec.Raw]) -> None:
    """Put the fields that share a column into it, as they are in a row."""
    there = {name: content.pop(name) for name in names if name in content}
    there = {name: value for name, value in there.items() if value is not None}
    content[DETAILS.name] = there or None
    fields[DETAILS.name] = msgspec.Raw(msgspec.json.encode(there or None))


def _twice(ids: Sequence[str]) -> set[str]:
    seen: set[str] = set()
    return set() if len(set(ids)) == len(ids) else {id for id in ids if id in seen or seen.add(id)}  # type: ignore[func-returns-value]


def _known(row: Resource | Child, expand: Collection[str]) -> set[str]:
    known = {column.name for column in columns_of(row, expand)}
    return (
        known | {child.field for child in row.children} | set(row.excluded)
        if isinstance(row, Resource)
        else known
    )


def _cell(kind: ColumnKind, name: str, value: Any, extra: dict[str, Any]) -> Any:
    """The cell for a value; what does not fit is added to `extra`."""
    if value is None:
        return None
    match kind:
        case "text" | "ref":
            if kind == "ref" and isinstance(value, dict):
                value = value["id"]
            if isinstance(value, str):
                if "\0" in value:  # no database holds one: in JSON it is written out
                    extra[name] = value.replace("\0", "\\u0000")
                return value.replace("\0", "")
        case "bigint" | "timestamp":
            fits = BIGINT if kind == "bigint" else SECONDS
            if isinstance(value, int) and not isinstance(value, bool) and value in fits:
                return value
        case "bool":
            if isinstance(value, bool):
                return value
        case "double":
            if isinstance(value, int | float) and not isinstance(value, bool):
                return float(value)
        case "decimal":
            if isinstance(value, str) and _fits_decimal(value):
                return Decimal(value)
    extra[name] = value
    return None


def _fits_decimal(text: str) -> bool:
    whole, _, fraction = text.lstrip("-").partition(".")
    return (whole + fraction).isdigit() and len(whole) <= 26 and len(fraction) <= 12


def _unequal(
    table: str, name: str, ids: Sequence[str], cells: Sequence[Any], wanted: Sequence[Any]
) -> list[str]:
    if cells == wanted:
        return []
    rows = zip(ids, cells, wanted, strict=True)
    return [
        f"{table}.{name} of {id}: {cell!r} is there, {true!r} is true"
        for id, cell, true in rows
        if cell != true
    ]


def _unequal_json(
    table: str, name: str, ids: Sequence[str], cells: Sequence[Any], texts: Sequence[str]
) -> list[str]:
    wanted = [None if text == "null" else text for text in texts]
    if cells == wanted:
        return []
    found = []
    for id, cell, text in zip(ids, cells, wanted, strict=True):
        if cell == text:
            continue
        if (
            name == "metadata"
            or cell is None
            or text is None
            or json.loads(cell) != json.loads(text)
        ):
            found.append(f"{table}.{name} of {id}: {cell!r} is there, {text!r} is true")
    return found


def own_differences(
    table: str,
    true: Expected,
    actual: dict[str, list[Any]],
    box: Sandbox,
    loads: Collection[str],
    now: int,
) -> list[str]:
    """What is wrong with the columns that are not Stripe's."""

    def wrong(name: str, fits: Callable[[int, Any], bool]) -> Iterator[str]:
        for n, value in enumerate(actual[name]):
            if not fits(n, value):
                yield f"{table}.{name} of {actual['id'][n]}: {value!r}"

    ids = actual["id"]
    found = list(wrong("account_id", lambda n, value: value == box.account_id))
    found += wrong("deleted_at", lambda n, value: value == true.ends.get(ids[n], (None, b""))[0])
    found += wrong("_dlt_load_id", lambda n, value: value in loads)
    found += wrong("_version", lambda n, value: 0 <= value < (now + SLOW) * STEP)
    if true.embedded:
        told = {one.id for one in box.history}  # an event or a list may have shown it, too
        embedded = {id: json.loads(true.raws[id])["created"] * STEP for id in true.embedded - told}
        found += wrong("_version", lambda n, value: value == embedded.get(ids[n], value))
    if "_hash" in actual:
        found += wrong(
            "_hash", lambda n, value: len(value) == 16 and set(value) <= set("0123456789abcdef")
        )
        found += [f"{table}._hash {value} is there twice" for value in _twice(actual["_hash"])]
    return found


def _version_differences(
    table: str, actual: dict[str, list[Any]], parents: dict[str, int], key: str
) -> list[str]:
    rows = zip(actual["id"], actual[key], actual["_version"], strict=True)
    return [
        f"{table}._version of {id}: {version}, but {parents.get(parent)} of {parent}"
        for id, parent, version in rows
        if parents.get(parent) != version
    ]
