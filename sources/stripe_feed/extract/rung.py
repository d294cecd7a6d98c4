"""Events that a webhook told of: read by id at once, without waiting until all of their time are visible."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import NamedTuple

import msgspec

from ..api import Api
from ..errors import NotFound
from ..repair import decoded
from .events import PATH, Event, event_of
from .fetch import in_path
from .session import Session


class Rung(NamedTuple):
    """The id of an event that a webhook brought; its body too, where the key may not read events."""

    event_id: str
    body: bytes | None = None


def read_rung(session: Session, rung: Collection[Rung]) -> Iterator[list[Event]]:
    """Yield what was read of these events, and nothing while all are under way; those that are not the account's are left out."""
    under_way: set[Future[Event | None]] = set()
    for one in rung:
        if one.body is None:
            under_way.add(session.pool.submit(_retrieved, session.api, one.event_id))
        elif (event := _decoded(one.body)) is not None:
            yield [event]
    while under_way:
        done, under_way = wait(under_way, timeout=0.05, return_when=FIRST_COMPLETED)
        yield [event for future in done if (event := future.result()) is not None]


def _retrieved(api: Api, id: str) -> Event | None:
    try:
        return api.get(f"{PATH}/{in_path(id)}", {}, event_of).value
    except NotFound:
        return None


def _decoded(body: bytes) -> Event | None:
    try:
        return decoded(event_of, body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
