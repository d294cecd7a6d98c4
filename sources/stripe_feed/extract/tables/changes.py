"""Build the `changes` table: one row per transition of an object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Literal

import msgspec
import pyarrow as pa

from ...resources import CHANGE_COLUMNS, CHANGES
from ...resources.model import Resource
from .arrow import LoadStamp, json_text
from .codec import ARROW_MEMORY, ARROW_TYPES, LOAD_COLUMN, UTC_TIME
from .diff import Image, changed_paths, difference
from .hints import ACCOUNT_COLUMN, DATA_TYPES, JSON_AS_TEXT, MERGE, key_of

ChangeOp = Literal["c", "u", "d", "r"]
ChangeOrigin = Literal["event", "diff", "snapshot", "list"]
BeforeQuality = Literal["exact", "derived", "none"]

_NOT_NULL = frozenset({"change_id", "_dlt_load_id"})
CHANGE_SCHEMA = pa.schema(
    [
        pa.field(c.name, ARROW_TYPES[c.kind], nullable=c.name not in _NOT_NULL)
        for c in (*CHANGE_COLUMNS, LOAD_COLUMN)
    ]
)


_account_field = CHANGE_SCHEMA.get_field_index(ACCOUNT_COLUMN)
SHARED_CHANGE_SCHEMA = CHANGE_SCHEMA.set(
    _account_field, CHANGE_SCHEMA.field(_account_field).with_nullable(False)
)
"""The same, where the account is part of the key."""


class ChangeRow(msgspec.Struct, gc=False):
    """One transition; times are Unix seconds, `after` and `previous` JSON bytes."""

    change_id: str
    resource: str
    object_id: str
    op: ChangeOp
    origin: ChangeOrigin
    occurred_at: int
    after: bytes | None
    previous: bytes | None = None
    before_quality: BeforeQuality = "none"
    changed: list[str] = []
    customer_id: str | None = None
    event_id: str | None = None
    event_type: str | None = None
    api_version: str | None = None
    request_id: str | None = None
    request_idempotency_key: str | None = None
    context: str | None = None
    late: bool = False


def digest_id(*parts: object) -> str:
    """Return a change id for a change without an event: the same parts give the same id."""
    text = "\0".join(map(str, parts))
    return f"chg_{blake2b(text.encode(), digest_size=16).hexdigest()}"


def listed_change_id(account_id: str, resource: str, object_id: str, created: int | None) -> str:
    """Return the change id of a creation that only a list has shown."""
    return digest_id("list", account_id, resource, object_id, created)


def diff_change(
    resource: Resource,
    id: str,
    before: Image | None,
    after: Image | None,
    version: int,
    hash: str,
    now: int,
    api_version: str,
) -> ChangeRow:
    """Return the change between a stored row and the object at Stripe. `version` is that of the
    replaced row, `hash` that of the new one (a deletion has none).
    """
    op: ChangeOp = "u"
    previous = None
    if before is None:
        op = "c"
    elif after is None:
        op, previous = "d", before
    else:
        previous = difference(before, after)
    change_id = digest_id(
        "diff", resource.table, id, version, hash if after is not None else "deleted"
    )
    return ChangeRow(
        change_id,
        resource.table,
        id,
        op,
        "diff",
        now,
        after=None if after is None else encode_image(resource, after),
        previous=None if previous is None else encode_image(resource, previous),
        before_quality="exact" if op != "u" else "derived",
        changed=changed_paths(previous or {}) if op == "u" else [],
        customer_id=customer_id_of(resource, id, after or before or {}),
        api_version=api_version,
    )


def encode_image(resource: Resource, image: Image) -> bytes:
    """Encode an image as JSON, without the links that grant access to whoever holds them."""
    left_out = {*resource.bearer_links, *resource.excluded}
    return msgspec.json.encode(
        {name: value for name, value in image.items() if name not in left_out}
    )


def customer_id_of(resource: Resource, id: str, image: Mapping[str, Any]) -> str | None:
    """Return the id of the customer that an object belongs to."""
    if resource.table == "customers":
        return id
    customer = image.get("customer")
    customer = customer.get("id") if isinstance(customer, dict) else customer
    return customer if isinstance(customer, str) else None


def change_hints(destination: str = "", is_shared: bool = False) -> dict[str, Any]:
    """Return dlt's hints for the table. The merge has no condition: a change never changes, and its
    key removes duplicates.
    """
    types = {**DATA_TYPES, "json": {"data_type": "text" if destination in JSON_AS_TEXT else "json"}}
    columns = {
        column.name: {
            "name": column.name,
            **types[column.kind],
            "description": column.description,
            "nullable": column.name not in _NOT_NULL,
        }
        for column in (*CHANGE_COLUMNS, LOAD_COLUMN)
    }
    if is_shared:
        columns[ACCOUNT_COLUMN]["nullable"] = False
    return {
        "table_name": CHANGES,
        "primary_key": key_of("change_id", is_shared),
        "file_format": "parquet",
        "write_disposition": dict(MERGE),
        "columns": columns,
    }


def change_table(
    changes: Sequence[ChangeRow], stamp: LoadStamp, livemode: bool, now: int, first: int
) -> pa.Table:
    """Build the table of changes in their order, numbered from `first`."""
    count = len(changes)
    fixed: dict[str, list[Any]] = {
        "observed_at": [now] * count,
        "account_id": [stamp.account_id] * count,
        "livemode": [livemode] * count,
        "seq": list(range(first, first + count)),
        "_dlt_load_id": [stamp.load_id] * count,
        "changed": [msgspec.json.encode(change.changed) for change in changes],
    }
    arrays = []
    for field in CHANGE_SCHEMA:
        values = fixed.get(field.name) or [getattr(change, field.name) for change in changes]
        if field.type == UTC_TIME:
            seconds = pa.array(values, pa.timestamp("s", tz="UTC"), memory_pool=ARROW_MEMORY)
            arrays.append(seconds.cast(UTC_TIME, memory_pool=ARROW_MEMORY))
        else:
            arrays.append(
                json_text(values)
                if field.name in JSON_FIELDS
                else pa.array(values, field.type, memory_pool=ARROW_MEMORY)
            )
    return pa.Table.from_arrays(arrays, schema=CHANGE_SCHEMA)


JSON_FIELDS = frozenset(column.name for column in CHANGE_COLUMNS if column.kind == "json")
