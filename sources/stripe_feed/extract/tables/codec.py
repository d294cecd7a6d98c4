"""JSON bytes in, typed structs with declared columns out; what Stripe added meanwhile is kept
aside.

Bytes are decoded into typed structs that leave nested values as they came. A struct learns names
that it does not know and fields that changed their type, so neither ever fails a load.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from operator import attrgetter
from typing import Any

import msgspec
import pyarrow as pa

from ...api.client import InvalidBody
from ...resources.model import Child, Column, ColumnKind, Resource
from .rejected import Odd, odd, usable_id

log = logging.getLogger("stripe_feed")

UNFIT = re.compile(r'[\\"\x00-\x1f]')  # in names of fields, for a struct
NULL = msgspec.Raw(b"null")
ABSENT = msgspec.Raw(b"")
MEMORY = (
    pa.system_memory_pool()
)  # gives memory back; Arrow's default pool keeps several times as much
UTC_TIME = pa.timestamp("us", tz="UTC")


class Ref(msgspec.Struct, gc=False):
    """An object where an id would do: somebody expanded it."""

    id: str


DECODED: dict[ColumnKind, Any] = {
    "text": str | None,
    "ref": str | Ref | None,
    "bigint": int | None,
    "bool": bool | None,
    "timestamp": int | None,
    "decimal": str | None,
    "double": float | None,
    "json": msgspec.Raw,
}
ARROW: dict[ColumnKind, pa.DataType] = {
    "text": pa.string(),
    "ref": pa.string(),
    "bigint": pa.int64(),
    "bool": pa.bool_(),
    "timestamp": UTC_TIME,
    "decimal": pa.decimal128(38, 12),
    "double": pa.float64(),
    "json": pa.string(),
}
OWN_COLUMNS = (
    Column(
        "extra",
        "json",
        "Fields that Stripe sends and this version does not know, under Stripe's names.",
    ),
    Column("account_id", "text", "The Stripe account that the object belongs to."),
    Column(
        "deleted_at",
        "timestamp",
        "When the object was deleted at Stripe (UTC); null while it exists.",
    ),
    Column(
        "_version",
        "bigint",
        "How fresh the row is: Unix second * 1,000,000 + order within it; the greatest wins.",
    ),
)
HASH_COLUMN = Column(
    "_hash", "text", "Digest of the content without volatile fields, children included."
)
LOAD_COLUMN = Column("_dlt_load_id", "text", "The load package that brought the row.")
NEVER_NULL = frozenset({"id", "account_id", "_version", "_dlt_load_id"})


class Record(msgspec.Struct, gc=False):
    """One decoded object with its children, and the hash of its content."""

    row: Any
    hash: str


class _Raws(msgspec.Struct):
    data: list[msgspec.Raw]
    has_more: bool


_raws = msgspec.json.Decoder(_Raws)
_map = msgspec.json.Decoder(dict[str, msgspec.Raw])
_json = msgspec.json.Encoder(order="sorted")
_id = attrgetter("id")


class Shape:
    """How the objects of one table are decoded and laid out."""

    def __init__(self, row: Resource | Child, expand: Iterable[str] = ()) -> None:
        self.name, self.kind = row.table, row.object
        expandable = row.expandable if isinstance(row, Resource) else ()
        self.expanded = tuple(e for e in expandable if e.column.name in set(expand))
        self.columns = (*row.columns, *(e.column for e in self.expanded))
        self.children = tuple(
            (child, Shape(child)) for child in (row.children if isinstance(row, Resource) else ())
        )
        self.embeds = row.embeds if isinstance(row, Child) else ()
        self.never = row.excluded if isinstance(row, Resource) else ()
        volatile = row.volatile if isinstance(row, Resource) else ()
        hashed = self._hashed = [
            column.name for column in self.columns if column.name not in volatile
        ]
        self._content = attrgetter(*hashed)
        self._embeds_at = [hashed.index(name) for name, _ in self.embeds]
        self._maps_at = [hashed.index("metadata")] if "metadata" in hashed else []
        self._loose_at: list[int] = []
        self.known = (
            {column.name for column in self.columns}
            | set(self.never)
            | {c.field for c, _ in self.children}
        )
        own = (*OWN_COLUMNS, *((HASH_COLUMN,) if isinstance(row, Resource) else ()), LOAD_COLUMN)
        self.all_columns = (*self.columns, *own)
        self.schema = pa.schema(
            [
                pa.field(c.name, ARROW[c.kind], nullable=c.name not in NEVER_NULL)
                for c in self.all_columns
            ]
        )
        self.unknown: dict[str, str] = {}  # Stripe's name -> attribute
        self.loose: set[str] = set()  # known fields that came with another type than documented
        self._lock = threading.Lock()
        self.struct: Any
        self.embedded: Any
        self._page: Any
        self._define()

    def page(self, body: bytes) -> tuple[list[Record | Odd], bool]:
        """Decode a list into records; what cannot be taken is in its place, with the reason. Raises
        `InvalidBody` where the body is no list.
        """
        rows, has_more = self.rows(body)
        return [row if isinstance(row, Odd) else self._record(row) for row in rows], has_more

    def rows(self, body: bytes) -> tuple[list[Any], bool]:
        """Decode a list into structs; as `page` does."""
        try:
            page = self._page.decode(body)
        except msgspec.ValidationError:
            self._learn(body)
            try:
                page = self._page.decode(body)
            except msgspec.ValidationError:
                raws = _raws.decode(body)
                return [self._row(raw) for raw in raws.data], raws.has_more
        return page.data, page.has_more

    def _row(self, raw: msgspec.Raw) -> Any:
        try:
            fields = {UNFIT.sub("_", name): value for name, value in _fields(raw).items()}
            return msgspec.json.decode(
                msgspec.json.encode(fields) if fields else raw, type=self.struct
            )
        except msgspec.ValidationError as fault:
            return odd(self.name, raw, fault)

    def is_stub(self, row: Any) -> bool:
        """Whether it only says that the object was deleted."""
        attribute = self.unknown.get("deleted")
        return (
            attribute is not None
            and bytes(getattr(row, attribute, ABSENT)) == b"true"
            and row.created is None
        )

    def _record(self, row: Any) -> Record | Odd:
        """An object of this table that can be kept."""
        created = row.created if isinstance(row.created, int) else None
        if usable_id(row.id) is None:
            return Odd(self.name, None, created, "it has no id")
        if row.object != self.kind and row.object is not None:
            return Odd(self.name, row.id, created, f"it is no {self.kind}")
        for child, _ in self.children:
            own(child, row.id, getattr(row, child.field))
        return Record(row, self.hash(row))

    def list_in(self, embedded: Any) -> Any:
        """The embedded list of an object, decoded; nothing where it is none."""
        if not isinstance(embedded, msgspec.Raw):
            return embedded
        try:
            return msgspec.json.decode(embedded, type=self.embedded)
        except msgspec.ValidationError:
            return None

    def object(self, body: bytes) -> Record:
        """Decode one object. Raises `Odd` where it cannot be taken."""
        (found,) = self.objects([body])
        if isinstance(found, Odd):
            raise found
        return found

    def objects(self, bodies: Sequence[bytes]) -> list[Record | Odd]:
        """Decode objects; as `page` does."""
        records, _ = self.page(b'{"has_more":false,"data":[' + b",".join(bodies) + b"]}")
        return records

    def hash(self, row: Any) -> str:
        """Digest of an object's documented fields and children; neither white space nor the order
        of metadata counts.

        Full objects embedded in a child count by their id only, for they change without their
        parent.
        """
        kept = self.content(row)
        for child, shape in self.children:
            embedded = getattr(row, child.field)
            rows = [] if embedded is None or isinstance(embedded, msgspec.Raw) else embedded.data
            kept.append([shape.content(item) for item in sorted(rows, key=_id)])
        return blake2b(
            msgspec.json.format(_json.encode(kept), indent=-1), digest_size=8
        ).hexdigest()

    def image(self, row: Any) -> dict[str, Any]:
        """An object as parsed JSON, children and unknown fields included."""
        found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self._fields(row)))
        return found

    def _fields(self, row: Any) -> dict[str, Any]:
        found = {column.name: getattr(row, column.name) for column in self.columns}
        found = {
            name: value.id if isinstance(value, Ref) else value for name, value in found.items()
        }
        for child, shape in self.children:
            embedded = getattr(row, child.field)
            if embedded is not None and not isinstance(embedded, msgspec.Raw):
                data = [shape._fields(item) for item in embedded.data]
                found[child.field] = {"object": "list", "data": data, "has_more": False}
        unknown = {
            name: getattr(row, attribute, ABSENT) for name, attribute in self.unknown.items()
        }
        return found | {name: raw for name, raw in unknown.items() if bytes(raw)}

    def content(self, row: Any) -> list[Any]:
        """The fields that count, in the order of the columns."""
        kept = list(self._content(row))
        for n in self._embeds_at:
            kept[n] = _embedded_id(kept[n])
        for n in self._maps_at:
            kept[n] = _sorted_map(kept[n])
        for n in (
            self._loose_at
        ):  # as if it were not loose: another row's odd value must not change this digest
            kept[n] = msgspec.json.decode(kept[n]) if isinstance(kept[n], msgspec.Raw) else kept[n]
        return kept

    def _define(self) -> None:
        """Make the struct anew from what is known."""
        fields: list[Any] = []
        for column in self.columns:
            if column.name == "id":
                fields.append(("id", str))
            elif column.kind == "json" or column.name in self.loose:
                fields.append((column.name, msgspec.Raw, NULL))
            else:
                fields.append((column.name, DECODED[column.kind], None))
        fields += [(name, msgspec.Raw, NULL) for name in self.never]
        for child, shape in self.children:
            loose = child.field in self.loose
            fields.append(
                (
                    child.field,
                    msgspec.Raw if loose else shape.embedded | None,
                    NULL if loose else None,
                )
            )
        fields += [(attribute, msgspec.Raw, ABSENT) for attribute in self.unknown.values()]
        rename = {attribute: name for name, attribute in self.unknown.items()}
        self.struct = msgspec.defstruct(
            f"{self.name}_row",
            fields,
            forbid_unknown_fields=True,
            gc=False,
            kw_only=True,
            rename=rename,
        )
        self._loose_at = [n for n, name in enumerate(self._hashed) if name in self.loose]
        rows: Any = list.__class_getitem__(self.struct)
        self.embedded = msgspec.defstruct(
            "Embedded", [("data", rows), ("has_more", bool, False)], gc=False
        )
        self._page = msgspec.json.Decoder(
            msgspec.defstruct("Page", [("data", rows), ("has_more", bool)], gc=False)
        )

    def _learn(self, body: bytes) -> None:
        """Take in every unknown name and changed type of a page."""
        try:
            objects = _raws.decode(body).data
        except msgspec.ValidationError:
            raise InvalidBody("no list of objects") from None
        with self._lock:
            self._learn_objects(objects)
            self._define()

    def _learn_objects(self, raws: Sequence[msgspec.Raw]) -> None:
        kinds = {column.name: column.kind for column in self.columns}
        shapes = {child.field: shape for child, shape in self.children}
        for obj in filter(None, map(_fields, raws)):
            for given, raw in obj.items():
                name = UNFIT.sub("_", given)
                if name in shapes:
                    self._learn_embedded(name, shapes[name], raw)
                elif name not in self.known:
                    self._learn_name(name)
                elif (
                    name in kinds and name not in self.loose and not _is(raw, DECODED[kinds[name]])
                ):
                    self._learn_type(name)

    def _learn_embedded(self, name: str, shape: Shape, raw: msgspec.Raw) -> None:
        if bytes(raw) == b"null" or name in self.loose:
            return
        try:
            objects = msgspec.json.decode(raw, type=_Embedded).data
        except msgspec.ValidationError:
            self._learn_type(name)
            return
        with shape._lock:
            shape._learn_objects(objects)
            shape._define()

    def _learn_name(self, name: str) -> None:
        self.known.add(name)
        self.unknown[name] = f"x{len(self.unknown)}_"
        log.info(
            "%s: Stripe sends a field that this version does not know; it is kept in `extra`",
            self.name,
        )

    def _learn_type(self, name: str) -> None:
        self.loose.add(name)
        log.warning(
            "%s.%s does not have its documented type; such values are kept in `extra`",
            self.name,
            name,
        )


class _Embedded(msgspec.Struct):
    data: list[msgspec.Raw]
    has_more: bool = False


def _fields(raw: msgspec.Raw) -> dict[str, msgspec.Raw]:
    try:
        return _map.decode(raw)
    except msgspec.ValidationError:
        return {}  # no object


def _embedded_id(raw: msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(raw, type=Ref).id
    except msgspec.ValidationError:
        return raw


def _sorted_map(raw: msgspec.Raw) -> Any:
    if len(bytes(raw)) <= 2:
        return raw
    try:
        return _map.decode(raw)
    except msgspec.ValidationError:
        return raw


def _is(raw: msgspec.Raw, kind: Any) -> bool:
    try:
        msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError:
        return False
    return True


def own(child: Child, parent: str, embedded: Any) -> None:
    """Name the parent in the children of an object: some leave it open."""
    for item in [] if embedded is None or isinstance(embedded, msgspec.Raw) else embedded.data:
        if getattr(item, child.parent) != parent:
            setattr(item, child.parent, parent)


def shape_id(version: str, shape: Shape) -> str:
    """Which API version and columns rows are made with."""
    names = " ".join(
        column.name for _, one in [(None, shape), *shape.children] for column in one.columns
    )
    return f"{version} {blake2b(names.encode(), digest_size=4).hexdigest()}"
