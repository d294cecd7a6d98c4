"""Fetch objects again by id, in parallel within the rate limits; if many lie close together, list
their range instead.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec

from ..api.client import Api
from ..errors import CursorGone, NoAccess, NotFound, NotReadable, RequestRefused, Unreachable
from ..resources import RESOURCES
from ..resources.model import QueryPairs, Resource
from . import existing
from .paging.fetch import complete_lists, fetch_list_page, path_segment
from .paging.windows import NoProgress, Planner, Range
from .run import RunContext
from .tables.codec import Record, TableCodec
from .tables.rejected import Rejected

Job = tuple[
    str, Callable[[], "list[Fetched]"]
]  # a table, and the function that fetches some of its objects

LIST_PAGE_SIZE = 100
RANGE_GAIN = 2  # list a range if that takes fewer requests than its objects, by this factor


class Fetched(NamedTuple):
    """The current object, and Stripe's time of the request."""

    record: Record
    requested_at: int


class _Stub(msgspec.Struct):
    deleted: msgspec.Raw = msgspec.Raw(b"false")


_stub = msgspec.json.Decoder(_Stub)


def refetch(
    context: RunContext,
    wanted: Mapping[str, Mapping[str, int | None]],
    clients: Mapping[str, Any],
    codecs: Mapping[str, TableCodec] | None = None,
    owners: Mapping[str, str] | None = None,
    wanted_by: str = "",
) -> Iterator[list[tuple[str, Fetched]]]:
    """Yield the objects that were fetched, by table; an empty list while all requests are pending.

    `wanted`: table -> id -> `created`. Deleted objects are left out. A table that the key may not
    read is recorded as refused. `clients`: the destination's SQL clients, which count the objects
    of a range. `codecs`: how to decode the objects, if not as their tables have them. `owners`: id
    -> the parent whose list has it, for objects that are found below another one. `wanted_by`: the
    resource that is recorded as refused in place of the objects' own.
    """
    decoders = codecs or context.codecs
    waiting = _in_proportion(
        [
            _jobs(context, decoders[table], objects, clients[table], owners or {})
            for table, objects in wanted.items()
        ]
    )[::-1]
    futures: dict[Future[list[Fetched]], str] = {}
    while futures or waiting:
        while waiting and len(futures) < 2 * context.api.threads:
            table, job = waiting.pop()
            futures[context.connections.pool.submit(job)] = table
        done, _ = wait(futures, timeout=0.05, return_when=FIRST_COMPLETED)
        yield [
            (futures[future], job)
            for future in done
            for job in _result(context, wanted_by or futures[future], future)
        ]
        for future in done:
            del futures[future]


def _in_proportion(jobs: Sequence[Sequence[Job]]) -> list[Job]:
    """Mix the jobs of all tables so that all tables end together: each endpoint has its own rate
    limit, and the last one alone could not use the account's.
    """
    places = [
        ((n + 0.5) / len(table_jobs), job)
        for table_jobs in jobs
        for n, job in enumerate(table_jobs)
    ]
    return [job for _, job in sorted(places, key=itemgetter(0))]


def _result(context: RunContext, table: str, future: Future[list[Fetched]]) -> list[Fetched]:
    """Return what a job has fetched; nothing if the key may not read the resource."""
    try:
        return future.result()
    except NotReadable as refusal:
        context.refuse(table, refusal)
        return []


def _jobs(
    context: RunContext,
    codec: TableCodec,
    wanted: Mapping[str, int | None],
    client: Any,
    owners: Mapping[str, str],
) -> list[Job]:
    table = codec.name
    resource = RESOURCES[table]

    def count_stored(lo: int, hi: int) -> int:
        if client is None:
            return 10**9
        with client as opened:
            return existing.count_between(opened, resource, lo, hi)

    if not resource.created_field:
        wanted = dict.fromkeys(wanted)  # no range of its list can be asked for
    singles, ranges = plan_requests(wanted, count_stored, len(resource.list_filters))
    listed: list[Job] = [
        (table, partial(_fetch_range, context, resource, codec, span, ids)) for span, ids in ranges
    ]
    return [
        *listed,
        *(
            (table, partial(_fetch_one, context, resource, codec, id, owners.get(id, "")))
            for id in singles
        ),
    ]


def plan_requests(
    wanted: Mapping[str, int | None], count_stored: Callable[[int, int], int], walks: int
) -> tuple[list[str], list[tuple[Range, list[str]]]]:
    """Decide which objects to fetch one by one, and for which ids to list a range of `created` (both
    ends included).
    """
    dated = sorted((created, id) for id, created in wanted.items() if created is not None)
    singles = [id for id, created in wanted.items() if created is None]
    ranges = []
    for start in range(0, len(dated), LIST_PAGE_SIZE):
        batch = dated[start : start + LIST_PAGE_SIZE]
        ids = [id for _, id in batch]
        span = (batch[0][0], batch[-1][0])
        if len(ids) > RANGE_GAIN * 2 * walks and RANGE_GAIN * (
            count_stored(*span) / LIST_PAGE_SIZE + walks
        ) < len(ids):
            ranges.append((span, ids))
        else:
            singles += ids
    return singles, ranges


def _fetch_one(
    context: RunContext, resource: Resource, codec: TableCodec, id: str, owner: str = ""
) -> list[Fetched]:
    try:
        fetched = retrieve(context.api, resource, codec, id, owner)
    except Rejected as rejected:
        if owner:  # its list is read again
            reason = f"of its {resource.table}, {id}: {rejected.reason}"
            rejected = Rejected(resource.table, owner, None, reason)
        context.left_out.add(rejected)
        return []
    except NoAccess:
        if not owner:
            raise
        return []  # its connected account has left
    return [] if fetched is None else [fetched]


def retrieve(
    api: Api, resource: Resource, codec: TableCodec, id: str, owner: str = ""
) -> Fetched | None:
    """Fetch one object with complete embedded lists; None if it does not exist (any more). `owner`:
    the parent whose list has it.

    Raises `Rejected` if it cannot be stored.
    """
    expand = list(codec.expand)

    def decode(body: bytes) -> Record | None:
        return None if bytes(_stub.decode(body).deleted) == b"true" else codec.decode_object(body)

    path = resource.path.replace("{id}", path_segment(owner))
    try:
        reply = api.get(
            f"{path}/{path_segment(codec.own_id(id))}", {"expand": expand} if expand else {}, decode
        )
    except NotFound:
        return None
    except CursorGone:
        raise
    except RequestRefused as fault:
        raise Rejected(
            resource.table, id, None, f"Stripe refuses it ({fault.code or 'no code'})"
        ) from None
    record = reply.value
    if record is not None and record.row.id != id:
        raise Rejected(resource.table, id, None, "Stripe answers with another object")
    return (
        Fetched(record, reply.requested_at)
        if record is not None and complete_lists(api, resource, codec, record)
        else None
    )


def _fetch_range(
    context: RunContext, resource: Resource, codec: TableCodec, span: Range, ids: Sequence[str]
) -> list[Fetched]:
    only = set(ids)
    by_id: dict[str, Fetched] = {}
    try:
        for walk in resource.list_filters:
            by_id.update(
                (fetched.record.row.id, fetched)
                for fetched in _walk_range(context, resource, codec, walk, span, only)
            )
    except NoProgress as stuck:
        raise Unreachable(f"{resource.path} {stuck}. Run again; if it stays, report it.") from None
    unlisted = [
        fetched
        for id in only - set(by_id) - context.left_out.ids(resource.table)
        for fetched in _fetch_one(context, resource, codec, id)
    ]
    return [*by_id.values(), *unlisted]


def _walk_range(
    context: RunContext,
    resource: Resource,
    codec: TableCodec,
    walk: QueryPairs,
    span: Range,
    only: Collection[str],
) -> Iterator[Fetched]:
    planner = Planner([(span[0], span[1] + 1)])
    while (request := planner.next_request()) is not None:
        try:
            page = fetch_list_page(
                context.api,
                resource,
                codec,
                walk,
                request,
                True,
                only,
                False,
                context.left_out.add,
            )
        except CursorGone:
            planner.cursor_refused(request)
            continue
        planner.record_page(request, page.keys, page.has_more)
        yield from (Fetched(record, page.requested_at) for record in page.rows.values())
