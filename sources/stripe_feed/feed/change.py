"""One change of one object: the form consumers get, and the form stored in the log."""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from typing import Any

from ..api.iso_time import with_zone
from ..extract.tables.diff import Image, revert
from ..resources import CHANGE_COLUMNS
from ..write.order import KEY_PREFIX

TEXTS = tuple(column.name for column in CHANGE_COLUMNS if column.kind == "text")
_TIMES = tuple(column.name for column in CHANGE_COLUMNS if column.kind == "timestamp")
_OTHERS = tuple(column.name for column in CHANGE_COLUMNS if column.kind in ("bool", "bigint"))
SOURCE_COLUMNS = (*TEXTS, *_TIMES, *_OTHERS, "_dlt_load_id", "changed", "after", "previous")
"""The columns that are read from the destination, in this order."""

LOG_COLUMNS = (*TEXTS, *_TIMES, *_OTHERS, "load_id", "changed", "body")
"""The columns of the log beside `position` and `object_version`. Times are microseconds since 1970,
UTC.
"""

Entry = tuple[Any, ...]
"""The values of `LOG_COLUMNS`, in this order."""

CHANGE_ID, RESOURCE, OBJECT_ID, CUSTOMER_ID, ACCOUNT_ID = (
    LOG_COLUMNS.index(name)
    for name in ("change_id", "resource", "object_id", "customer_id", "account_id")
)

OP_WORDS = {"c": "added", "u": "updated", "d": "removed", "r": "read"}
"""Each `op` in words."""


@dataclass(frozen=True, slots=True)
class Change:
    """One transition of one Stripe object. `offset` orders the feed, `object_version` (1, 2, 3, …)
    the object's own changes.

    `change_id` is the same whenever and wherever this change is read: the key for exactly-once
    effects. `op`: c created, u updated, d deleted, r read (a requested snapshot). Times are UTC.
    `after` is null for a deletion; `before` is computed. Both are null once the object was
    forgotten.
    """

    offset: int
    object_version: int
    change_id: str
    resource: str
    object_id: str
    customer_id: str | None
    op: str
    origin: str
    event_id: str | None
    event_type: str | None
    api_version: str | None
    request_id: str | None
    request_idempotency_key: str | None
    context: str | None
    before_quality: str
    account_id: str | None
    occurred_at: datetime
    observed_at: datetime | None
    late: bool
    livemode: bool | None
    seq: int
    load_id: str
    changed: list[str]
    after: Image | None = field(repr=False)  # a logged change must show no personal data
    previous: Image | None = field(repr=False)

    @property
    def before(self) -> Image | None:
        """The object before this change; null for a new object, and if Stripe did not send it."""
        if self.before_quality == "none":
            return None
        if self.op == "d":
            return self.previous or None
        if self.op == "u" and self.after is not None and self.previous is not None:
            return revert(self.after, self.previous)
        return None

    @property
    def origin_push(self) -> bool:
        """Whether an action or push of this package made the change: its idempotency key begins with
        `sf-`.
        """
        return (self.request_idempotency_key or "").startswith(KEY_PREFIX)

    def as_dict(self) -> dict[str, Any]:
        """Return all fields and `before`, ready for JSON; times are ISO 8601 in UTC."""
        values = {column.name: getattr(self, column.name) for column in fields(self)}
        for name in _TIMES:
            values[name] = iso(values[name])
        return {**values, "before": self.before}


def entry_from_row(row: Sequence[Any]) -> Entry:
    """Pack a row of the destination (`SOURCE_COLUMNS`) for the log."""
    texts, (occurred, observed) = row[: len(TEXTS)], row[len(TEXTS) : len(TEXTS) + 2]
    late, livemode, seq, load_id, changed, after, previous = row[len(TEXTS) + 2 :]
    flags = (int(bool(late)), None if livemode is None else int(livemode), int(seq or 0))
    body = pack_body(_json(after), _json(previous))
    return (
        *texts,
        to_microseconds(occurred),
        to_microseconds(observed),
        *flags,
        str(load_id),
        _json(changed).decode(),
        body,
    )


def change_from_row(position: int, version: int, stored: Sequence[Any]) -> Change:
    """Unpack a row of the log."""
    texts, (occurred, observed) = stored[: len(TEXTS)], stored[len(TEXTS) : len(TEXTS) + 2]
    late, livemode, seq, load_id, changed, body = stored[len(TEXTS) + 2 :]
    after, previous = (None, None) if body is None else json.loads(zlib.decompress(body))
    values: list[Any] = [
        position,
        version,
        *texts,
        from_microseconds(occurred) or EPOCH,
        from_microseconds(observed),
    ]  # in the order of the fields
    values += [
        bool(late),
        None if livemode is None else bool(livemode),
        seq,
        load_id,
        json.loads(changed) or [],
        after,
        previous,
    ]
    return Change(*values)


def pack_body(after: bytes, previous: bytes) -> bytes:
    """Compress two JSON texts into one body."""
    return zlib.compress(b"[" + after + b"," + previous + b"]", 1)


def _json(value: Any) -> bytes:
    """Return JSON text, whether the destination gives text or parsed JSON."""
    if value is None or value == "":
        return b"null"
    if isinstance(value, bytes):
        return value
    return (
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    ).encode()


EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def to_microseconds(value: Any) -> int | None:
    """Return a time as stored; destinations give it with or without a zone, or as text."""
    if value is None:
        return None
    since = with_zone(value) - EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def from_microseconds(stored: int | None) -> datetime | None:
    """Return a stored time as a datetime in UTC."""
    if stored is None:
        return None
    return datetime.fromtimestamp(stored // 1_000_000, timezone.utc).replace(
        microsecond=stored % 1_000_000
    )


def iso(value: datetime | None) -> str | None:
    """Format a time as ISO 8601 in UTC, with `Z`."""
    return (
        None if value is None else value.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")
    )
