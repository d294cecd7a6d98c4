"""Objects read again by id, side by side within the budget; where many lie close together, by
listing their range instead.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec

from ..api.client import Api
from ..errors import CursorGone, NotFound, NotReadable, RequestRefused, Unreachable
from ..resources import RESOURCES
from ..resources.model import Params, Resource
from . import existing
from .paging.fetch import complete, in_path, page_of
from .paging.windows import Planner, Range, Stuck
from .run import Session
from .tables.codec import Record, Shape
from .tables.rejected import Odd

Job = tuple[str, Callable[[], "list[Read]"]]  # a table, and what reads some of its objects

PAGE = 100
WORTH = 2  # a range is listed where that takes fewer requests than its objects, by this factor


class Read(NamedTuple):
    """An object as it is now, and Stripe's time when it was asked for."""

    record: Record
    requested_at: int


class _Stub(msgspec.Struct):
    deleted: msgspec.Raw = msgspec.Raw(b"false")


_stub = msgspec.json.Decoder(_Stub)


def read_again(
    session: Session, wanted: Mapping[str, Mapping[str, int | None]], clients: Mapping[str, Any]
) -> Iterator[list[tuple[str, Read]]]:
    """Yield what was read of the objects wanted, by table, and nothing while all are under way.

    The objects are given by table and id with their `created`; those that are gone are left out. A
    table that the key may not read is noted as refused. `clients`: the destination's SQL clients,
    which tell how many objects lie in a range.
    """
    waiting = _in_proportion(
        [_jobs(session, table, some, clients[table]) for table, some in wanted.items()]
    )[::-1]
    futures: dict[Future[list[Read]], str] = {}
    while futures or waiting:
        while waiting and len(futures) < 2 * session.api.threads:
            table, read = waiting.pop()
            futures[session.pool.submit(read)] = table
        done, _ = wait(futures, timeout=0.05, return_when=FIRST_COMPLETED)
        yield [
            (futures[future], read)
            for future in done
            for read in _result(session, futures[future], future)
        ]
        for future in done:
            del futures[future]


def _in_proportion(jobs: Sequence[Sequence[Job]]) -> list[Job]:
    """The jobs of all tables so mixed that all end together: each endpoint has a rate of its own,
    and one that is left alone at the end cannot use the account's.
    """
    places = [((n + 0.5) / len(some), job) for some in jobs for n, job in enumerate(some)]
    return [job for _, job in sorted(places, key=itemgetter(0))]


def _result(session: Session, table: str, future: Future[list[Read]]) -> list[Read]:
    """What a job has read; nothing of a resource that the key may not read."""
    try:
        return future.result()
    except NotReadable as refusal:
        session.refused.setdefault(table, refusal)
        return []


def _jobs(session: Session, table: str, wanted: Mapping[str, int | None], client: Any) -> list[Job]:
    resource = RESOURCES[table]

    def held(lo: int, hi: int) -> int:
        if client is None:
            return 10**9
        with client as opened:
            return existing.count_between(opened, resource, lo, hi)

    singles, ranges = plan(wanted, held, len(resource.list_filters))
    listed: list[Job] = [
        (table, partial(_listed, session, resource, span, ids)) for span, ids in ranges
    ]
    return [*listed, *((table, partial(_one, session, resource, id)) for id in singles)]


def plan(
    wanted: Mapping[str, int | None], held: Callable[[int, int], int], walks: int
) -> tuple[list[str], list[tuple[Range, list[str]]]]:
    """Which objects to ask for one by one, and which ranges of `created` (both ends included) to
    list for theirs.
    """
    dated = sorted((created, id) for id, created in wanted.items() if created is not None)
    singles = [id for id, created in wanted.items() if created is None]
    ranges = []
    for start in range(0, len(dated), PAGE):
        some = dated[start : start + PAGE]
        ids = [id for _, id in some]
        span = (some[0][0], some[-1][0])
        if len(ids) > WORTH * 2 * walks and WORTH * (held(*span) / PAGE + walks) < len(ids):
            ranges.append((span, ids))
        else:
            singles += ids
    return singles, ranges


def _one(session: Session, resource: Resource, id: str) -> list[Read]:
    try:
        found = retrieve(session.api, resource, session.shapes[resource.table], id)
    except Odd as odd:
        session.left_out.add(odd)
        return []
    return [] if found is None else [found]


def retrieve(api: Api, resource: Resource, shape: Shape, id: str) -> Read | None:
    """One object, its embedded lists complete; nothing where it does not exist (any more).

    Raises `Odd` where it cannot be taken.
    """
    expand = [expandable.column.name for expandable in shape.expanded]

    def decode(body: bytes) -> Record | None:
        return None if bytes(_stub.decode(body).deleted) == b"true" else shape.object(body)

    try:
        reply = api.get(
            f"{resource.path}/{in_path(id)}", {"expand": expand} if expand else {}, decode
        )
    except NotFound:
        return None
    except CursorGone:
        raise
    except RequestRefused as fault:
        raise Odd(
            resource.table, id, None, f"Stripe refuses it ({fault.code or 'no code'})"
        ) from None
    record = reply.value
    if record is not None and record.row.id != id:
        raise Odd(resource.table, id, None, "Stripe answers with another object")
    return (
        Read(record, reply.requested_at)
        if record is not None and complete(api, resource, shape, record)
        else None
    )


def _listed(session: Session, resource: Resource, span: Range, ids: Sequence[str]) -> list[Read]:
    only = set(ids)
    found: dict[str, Read] = {}
    try:
        for walk in resource.list_filters:
            found.update(
                (read.record.row.id, read) for read in _walked(session, resource, walk, span, only)
            )
    except Stuck as stuck:
        raise Unreachable(f"{resource.path} {stuck}. Run again; if it stays, report it.") from None
    rest = [
        read
        for id in only - set(found) - session.left_out.ids(resource.table)
        for read in _one(session, resource, id)
    ]
    return [*found.values(), *rest]


def _walked(
    session: Session, resource: Resource, walk: Params, span: Range, only: Collection[str]
) -> Iterator[Read]:
    planner = Planner([(span[0], span[1] + 1)])
    while (ask := planner.take()) is not None:
        try:
            page = page_of(
                session.api,
                resource,
                session.shapes[resource.table],
                walk,
                ask,
                True,
                only,
                False,
                session.left_out.add,
            )
        except CursorGone:
            planner.refused(ask)
            continue
        planner.page(ask, page.heads, page.has_more)
        yield from (Read(row, page.requested_at) for row in page.rows if row is not None)
