"""Decode JSON bytes into typed structs with declared columns.

The structs leave nested values undecoded. They learn unknown names and changed types of fields, so
neither fails a load.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from operator import attrgetter, itemgetter
from typing import Any

import msgspec
import pyarrow as pa
from msgspec.structs import astuple

from ...api.client import InvalidBody
from ...resources.column_files import DETAILS
from ...resources.model import Child, Column, ColumnKind, Resource
from .rejected import Rejected, rejection, usable_id
from .values import PYTHON_TYPES, Ref, value_of

log = logging.getLogger("stripe_feed")

INVALID_NAME_CHARS = re.compile(r'[\\"\x00-\x1f]')  # in the field names of a struct
NULL_RAW = msgspec.Raw(b"null")
ABSENT_RAW = msgspec.Raw(b"")
# returns freed memory; Arrow's default pool keeps several times as much
ARROW_MEMORY = pa.system_memory_pool()
UTC_TIME = pa.timestamp("us", tz="UTC")


ARROW_TYPES: dict[ColumnKind, pa.DataType] = {
    "text": pa.string(),
    "ref": pa.string(),
    "bigint": pa.int64(),
    "bool": pa.bool_(),
    "timestamp": UTC_TIME,
    "decimal": pa.decimal128(38, 12),
    "double": pa.float64(),
    "json": pa.string(),
}
ADDED_COLUMNS = (
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
    """One decoded object with its children, the hash of its content, and the second in which it was
    created; None if it does not say.
    """

    row: Any
    hash: str
    created: int | None = None


class _Raws(msgspec.Struct):
    data: list[msgspec.Raw]
    has_more: bool


_raws = msgspec.json.Decoder(_Raws)
_map = msgspec.json.Decoder(dict[str, msgspec.Raw])
_json = msgspec.json.Encoder(order="sorted")
_id = attrgetter("id")


class TableCodec:
    """Decodes the objects of one table, and knows its columns."""

    def __init__(self, row: Resource | Child, expand: Iterable[str] = ()) -> None:
        self.name = row.table
        self.object_names = row.objects if isinstance(row, Resource) else (row.object,)
        self.parent = row.parent if isinstance(row, Resource) else None
        expandable = row.expandable if isinstance(row, Resource) else ()
        children = row.children if isinstance(row, Resource) else ()
        self.expanded = tuple(e for e in expandable if e.name in set(expand))
        self.columns = (*row.columns, *(e.column for e in self.expanded))
        # what to ask for in `expand[]`; an event's object does not have it
        self.expand = (
            *(e.name for e in expandable if e.always),
            *(e.name for e in self.expanded),
            *(child.field for child in children if child.expand),
        )
        self.children = tuple((child, TableCodec(child)) for child in children)
        self.embeds = row.embeds if isinstance(row, Child) else ()
        self.excluded = row.excluded if isinstance(row, Resource) else ()
        self.folded = row.folded if isinstance(row, Resource) else ()
        self._created_column = row.created_column if isinstance(row, Resource) else ""
        volatile = row.volatile if isinstance(row, Resource) else ()
        hashed = self._hashed = [
            column.name for column in self.columns if column.name not in volatile
        ]
        # the columns come first in a struct
        names = [column.name for column in self.columns]
        self._content = itemgetter(*map(names.index, hashed))
        self._embeds_at = [hashed.index(name) for name, _ in self.embeds]
        self._maps_at = [hashed.index("metadata")] if "metadata" in hashed else []
        self._mistyped_at: list[int] = []
        self.known_names = (
            {column.name for column in self.columns}
            | {*self.excluded, *self.folded}
            | {c.field for c, _ in self.children}
        )
        added_columns = (
            *ADDED_COLUMNS,
            *((HASH_COLUMN,) if isinstance(row, Resource) else ()),
            LOAD_COLUMN,
        )
        self.all_columns = (*self.columns, *added_columns)
        self.schema = pa.schema(
            [
                pa.field(c.name, ARROW_TYPES[c.kind], nullable=c.name not in NEVER_NULL)
                for c in self.all_columns
            ]
        )
        self.unknown_fields: dict[str, str] = {}  # Stripe's name -> attribute
        self.mistyped: set[str] = set()  # known fields that came with an undocumented type
        self._lock = threading.Lock()
        self.row_struct: Any
        self.list_struct: Any
        self._page: Any
        self._define()

    def decode_page(self, body: bytes) -> tuple[list[Record | Rejected], bool]:
        """Decode a list into records, and its `has_more`; an object that cannot be stored gives a
        `Rejected`. Raises `InvalidBody` if the body is not a list.
        """
        rows, has_more = self.decode_rows(body)
        return [
            row if isinstance(row, Rejected) else self._to_record(row) for row in rows
        ], has_more

    def decode_rows(self, body: bytes) -> tuple[list[Any], bool]:
        """Decode a list into structs; otherwise like `decode_page`."""
        try:
            page = self._page.decode(body)
        except msgspec.ValidationError:
            self._learn(body)
            try:
                page = self._page.decode(body)
            except msgspec.ValidationError:
                raws = _raws.decode(body)
                return [self._decode_row(raw) for raw in raws.data], raws.has_more
        return page.data, page.has_more

    def _decode_row(self, raw: msgspec.Raw) -> Any:
        try:
            fields = {
                INVALID_NAME_CHARS.sub("_", name): value for name, value in _fields(raw).items()
            }
            return msgspec.json.decode(
                msgspec.json.encode(fields) if fields else raw, type=self.row_struct
            )
        except msgspec.ValidationError as fault:
            return rejection(self.name, raw, fault, self._created_column)

    def is_stub(self, row: Any) -> bool:
        """Whether the row says that the object was deleted, whatever else it says."""
        attribute = self.unknown_fields.get("deleted")
        return attribute is not None and bytes(getattr(row, attribute, ABSENT_RAW)) == b"true"

    def _created(self, row: Any) -> int | None:
        if not self._created_column:
            return None
        created: int | None = value_of(getattr(row, self._created_column), "timestamp")
        return created

    def _to_record(self, row: Any) -> Record | Rejected:
        """Turn a struct into a record, if it is an object of this table that can be stored."""
        created = self._created(row)
        if usable_id(row.id) is None:
            return Rejected(self.name, None, created, "it has no id")
        if row.object not in self.object_names and row.object is not None:
            types = " or ".join(self.object_names)
            return Rejected(self.name, row.id, created, f"it is not of type {types}")
        if self.parent is not None and self.parent.local_ids:
            row.id = f"{value_of(getattr(row, self.parent.column), 'ref')}/{row.id}"
        for child, _ in self.children:
            set_parent(child, row.id, getattr(row, child.field))
        if self.folded:
            self._fold(row)
        return Record(row, self.hash(row), created)

    def _fold(self, row: Any) -> None:
        """Put the fields that share a column into it; those that are null or absent are left out."""
        values = {name: getattr(row, name) for name in self.folded}
        there = {name: raw for name, raw in values.items() if bytes(raw) not in (b"", b"null")}
        setattr(row, DETAILS.name, msgspec.Raw(msgspec.json.encode(there)) if there else NULL_RAW)

    def decode_list(self, embedded: Any) -> Any:
        """Decode the embedded list of an object; None if it is not a list."""
        if not isinstance(embedded, msgspec.Raw):
            return embedded
        try:
            return msgspec.json.decode(embedded, type=self.list_struct)
        except msgspec.ValidationError:
            return None

    def decode_object(self, body: bytes) -> Record:
        """Decode one object. Raises `Rejected` if it cannot be stored."""
        (record,) = self.decode_objects([body])
        if isinstance(record, Rejected):
            raise record
        return record

    def decode_objects(self, bodies: Sequence[bytes]) -> list[Record | Rejected]:
        """Decode objects; otherwise like `decode_page`."""
        records, _ = self.decode_page(b'{"has_more":false,"data":[' + b",".join(bodies) + b"]}")
        return records

    def hash(self, row: Any) -> str:
        """Digest the documented fields and children of an object, ignoring white space and the order
        of metadata.

        An object embedded in a child counts by its id only, since it changes without its parent.
        """
        content = self.hashed_content(row)
        for child, codec in self.children:
            embedded = getattr(row, child.field)
            rows = [] if embedded is None or isinstance(embedded, msgspec.Raw) else embedded.data
            content.append([codec.hashed_content(item) for item in sorted(rows, key=_id)])
        return blake2b(
            msgspec.json.format(_json.encode(content), indent=-1), digest_size=8
        ).hexdigest()

    def image(self, row: Any) -> dict[str, Any]:
        """Return an object as parsed JSON, children and unknown fields included."""
        image: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(self._field_values(row)))
        return image

    def _field_values(self, row: Any) -> dict[str, Any]:
        values = {column.name: getattr(row, column.name) for column in self.columns}
        values = {
            name: value.id if isinstance(value, Ref) else value for name, value in values.items()
        }
        values["id"] = self.own_id(row.id)
        for child, codec in self.children:
            embedded = getattr(row, child.field)
            if embedded is not None and not isinstance(embedded, msgspec.Raw):
                data = [codec._field_values(item) for item in embedded.data]
                values[child.field] = {"object": "list", "data": data, "has_more": False}
        if self.folded:
            values.pop(DETAILS.name)
            values |= {
                name: raw for name in self.folded if bytes(raw := getattr(row, name, ABSENT_RAW))
            }
        unknown = {
            name: getattr(row, attribute, ABSENT_RAW)
            for name, attribute in self.unknown_fields.items()
        }
        return values | {name: raw for name, raw in unknown.items() if bytes(raw)}

    def own_id(self, id: str) -> str:
        """Return the id that Stripe knows an object by."""
        return id.partition("/")[2] if self.parent is not None and self.parent.local_ids else id

    def hashed_content(self, row: Any) -> list[Any]:
        """Return the fields that the hash covers, in the order of the columns."""
        content = list(self._content(astuple(row)))
        for n in self._embeds_at:
            content[n] = _embedded_id(content[n])
        for n in self._maps_at:
            content[n] = _sorted_map(content[n])
        for n in self._mistyped_at:
            # decoded as usual: a mistyped value in another row must not change this digest
            if isinstance(content[n], msgspec.Raw):
                content[n] = msgspec.json.decode(content[n])
        return content

    def _define(self) -> None:
        """Define the structs from the known names and types."""
        fields: list[Any] = []
        for column in self.columns:
            if column.name == "id":
                fields.append(("id", str))
            elif column.kind == "json" or column.name in self.mistyped:
                fields.append((column.name, msgspec.Raw, NULL_RAW))
            else:
                fields.append((column.name, PYTHON_TYPES[column.kind], None))
        fields += [(name, msgspec.Raw, NULL_RAW) for name in self.excluded]
        fields += [(name, msgspec.Raw, ABSENT_RAW) for name in self.folded]
        for child, codec in self.children:
            if child.field in self.mistyped:
                fields.append((child.field, msgspec.Raw, NULL_RAW))
            else:
                fields.append((child.field, codec.list_struct | None, None))
        fields += [
            (attribute, msgspec.Raw, ABSENT_RAW) for attribute in self.unknown_fields.values()
        ]
        rename = {attribute: name for name, attribute in self.unknown_fields.items()}
        self.row_struct = msgspec.defstruct(
            f"{self.name}_row",
            fields,
            forbid_unknown_fields=True,
            gc=False,
            kw_only=True,
            rename=rename,
        )
        self._mistyped_at = [n for n, name in enumerate(self._hashed) if name in self.mistyped]
        rows: Any = list.__class_getitem__(self.row_struct)
        self.list_struct = msgspec.defstruct(
            "Embedded", [("data", rows), ("has_more", bool, False)], gc=False
        )
        self._page = msgspec.json.Decoder(
            msgspec.defstruct("Page", [("data", rows), ("has_more", bool)], gc=False)
        )

    def _learn(self, body: bytes) -> None:
        """Learn every unknown name and changed type of a page."""
        try:
            objects = _raws.decode(body).data
        except msgspec.ValidationError:
            raise InvalidBody("no list of objects") from None
        with self._lock:
            self._learn_objects(objects)
            self._define()

    def _learn_objects(self, raws: Sequence[msgspec.Raw]) -> None:
        kinds = {column.name: column.kind for column in self.columns}
        codecs = {child.field: codec for child, codec in self.children}
        for obj in filter(None, map(_fields, raws)):
            for stripe_name, raw in obj.items():
                name = INVALID_NAME_CHARS.sub("_", stripe_name)
                if name in codecs:
                    self._learn_embedded(name, codecs[name], raw)
                elif name not in self.known_names:
                    self._learn_name(name)
                elif (
                    name in kinds
                    and name not in self.mistyped
                    and not _has_type(raw, PYTHON_TYPES[kinds[name]])
                ):
                    self._learn_type(name)

    def _learn_embedded(self, name: str, codec: TableCodec, raw: msgspec.Raw) -> None:
        if bytes(raw) == b"null" or name in self.mistyped:
            return
        try:
            objects = msgspec.json.decode(raw, type=_Embedded).data
        except msgspec.ValidationError:
            self._learn_type(name)
            return
        with codec._lock:
            codec._learn_objects(objects)
            codec._define()

    def _learn_name(self, name: str) -> None:
        self.known_names.add(name)
        self.unknown_fields[name] = f"x{len(self.unknown_fields)}_"
        log.info(
            "%s: Stripe sends a field that this version does not know; it is kept in `extra`",
            self.name,
        )

    def _learn_type(self, name: str) -> None:
        self.mistyped.add(name)
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
        return {}  # not an object


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


def _has_type(raw: msgspec.Raw, kind: Any) -> bool:
    try:
        msgspec.json.decode(raw, type=kind)
    except msgspec.ValidationError:
        return False
    return True


def set_parent(child: Child, parent: str, embedded: Any) -> None:
    """Set the parent's id in the children of an object: some come without it."""
    for item in [] if embedded is None or isinstance(embedded, msgspec.Raw) else embedded.data:
        if getattr(item, child.parent) != parent:
            setattr(item, child.parent, parent)


def schema_id(version: str, codec: TableCodec) -> str:
    """Identify the API version and the columns that rows are made with."""
    names = " ".join(
        column.name
        for _, table_codec in [(None, codec), *codec.children]
        for column in table_codec.columns
    )
    return f"{version} {blake2b(names.encode(), digest_size=4).hexdigest()}"
