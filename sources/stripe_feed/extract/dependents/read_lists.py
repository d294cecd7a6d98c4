"""Read the lists of many parents in parallel within the rate limits; one that cannot be read stops
no other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field

from ...errors import NoAccess, NotFound, NotReadable, PermissionMissing, RequestRefused
from ...resources.model import Parent, Resource
from ..paging.fetch import UnstableList, read_list, sublist_query
from ..run import RunContext
from ..tables.codec import Record, TableCodec
from ..tables.rejected import Rejected
from ..tables.values import value_of


@dataclass
class ListRead:
    """The whole list of one parent; `refusal`: why it was not read."""

    parent: str
    records: list[Record] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    requested_at: int = 0
    refusal: Exception | None = None


def read_lists(
    context: RunContext, resource: Resource, parent: Parent, parents: Sequence[str]
) -> Iterator[list[ListRead]]:
    """Yield the lists that were read; nothing while all requests are pending. A parent that does not
    exist any more has an empty list. Raises `PermissionMissing` if the key lacks the permission.
    """
    waiting, futures = deque(parents), set[Future[ListRead]]()
    pool, codec = context.connections.pool, context.codecs[resource.table]
    while futures or waiting:
        while waiting and len(futures) < 2 * context.api.threads:
            futures.add(pool.submit(_read_one, context, resource, codec, parent, waiting.popleft()))
        done, futures = wait(futures, timeout=0.05, return_when=FIRST_COMPLETED)
        yield [future.result() for future in done]


def _read_one(
    context: RunContext, resource: Resource, codec: TableCodec, parent: Parent, id: str
) -> ListRead:
    read = ListRead(id)
    unnamed: list[Rejected] = []

    def decode(body: bytes) -> tuple[list[tuple[str, Record | Rejected]], bool]:
        rows, has_more = codec.decode_page(body)
        unnamed.extend(row for row in rows if isinstance(row, Rejected) and row.id is None)
        return [(name, row) for row in rows if (name := _own_id(codec, row))], has_more

    path, params = sublist_query(resource.path, parent.params, id)
    try:
        rows, read.requested_at = read_list(context.api, path, params, decode)
    except PermissionMissing as refusal:
        if refusal.permission:
            raise
        return ListRead(id, refusal=refusal)
    except NotFound:
        return ListRead(id, requested_at=context.api.now())
    except (NoAccess, NotReadable, RequestRefused, UnstableList) as refusal:
        return ListRead(id, refusal=refusal)
    read.rejected = [*(row for row in rows if isinstance(row, Rejected)), *unnamed]
    read.records = [
        _named(codec, row, parent.column, id)
        for row in rows
        if isinstance(row, Record) and not codec.is_stub(row.row)
    ]
    return read


def _own_id(codec: TableCodec, row: Record | Rejected) -> str:
    return codec.own_id(row.row.id) if isinstance(row, Record) else row.id or ""


def _named(codec: TableCodec, record: Record, column: str, parent: str) -> Record:
    """Set the parent's id in an object that does not have it."""
    if not value_of(getattr(record.row, column), "ref"):
        setattr(record.row, column, parent)
        record.hash = codec.hash(record.row)
    return record
