"""Events that webhooks told of: which are worth reading, from when on their list is read, and by id
what no list shows.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from ...api.client import Account, Api
from ...api.json_repair import decoded
from ...errors import SetupError, StripeFeedError, Unreachable
from ..paging.fetch import in_path
from ..run import Session
from .reader import PATH, Event, event_of

# events of before the newest that was told: so many are asked for by id before the list begins with
# them
FEW = 20
ALONE = 200  # events asked for by id in one run
PATIENCE = 10.0  # seconds in which one more of them has to come
MOST_SECONDS = 2**33

Name = Annotated[str, Meta(max_length=255)]
Second = Annotated[int, Meta(ge=0, lt=MOST_SECONDS)]


class Head(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a webhook's body says of its event: a hint, since whoever has the secret can write it."""

    type: Name | None = None
    created: Second | None = None
    account: Name | None = None
    livemode: bool | None = None


class Rung(NamedTuple):
    """The id of an event that a webhook brought; its body too, where the key may not read events.
    `alone`: no list shows it.
    """

    event_id: str
    body: bytes | None = None
    head: Head = Head()
    alone: bool = False

    def tells_of(self, types: Collection[str]) -> bool:
        """Whether it may be of one of these types."""
        return self.head.type is None or self.head.type in types


_head = msgspec.json.Decoder(Head)


def head_of(body: bytes | None) -> Head:
    """What a body says of its event; nothing where it says it oddly."""
    try:
        return _head.decode(body or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Head()


def worth_reading(rung: Iterable[Rung], account: Account, types: Collection[str]) -> list[Rung]:
    """Without events of connected accounts and of the other mode, which an endpoint is sent too,
    and of types nobody reads.
    """
    return [
        one
        for one in rung
        if one.tells_of(types)
        and one.head.account in (None, account.id)
        and one.head.livemode in (None, account.livemode)
    ]


def listed_from(mine: Mapping[str, Any], rung: Sequence[Rung], lowest: int) -> int:
    """The second from which on the events of a resource are listed: where what was told ends, or
    where those before that begin.

    Of the latter a few are asked for by id. None from before `lowest`, which was listed long ago.
    """
    told = max(mine["cursor"], mine.get("rung", 0))
    before = sorted(
        one.head.created for one in rung if one.head.created is not None and one.head.created < told
    )
    return max(before[FEW], lowest) if len(before) > FEW else told


def read_alone(session: Session, rung: Sequence[Rung]) -> Iterator[list[Event]]:
    """Yield what was read of these events by id, and nothing while all are under way.

    Those that cannot be read are noted as failed, each with the reason; they stop nothing else.
    """
    clock = session.api.clock
    under_way = {
        session.pool.submit(_retrieved, session.api, one.event_id): one.event_id for one in rung
    }
    until = clock.monotonic() + PATIENCE
    while under_way and clock.monotonic() < until:
        done, _ = wait(under_way, timeout=0.05, return_when=FIRST_COMPLETED)
        found = []
        for future in done:
            event_id, until = under_way.pop(future), clock.monotonic() + PATIENCE
            try:
                found.append(future.result())
            except SetupError:
                raise
            except StripeFeedError as fault:
                if session.api.stopped.is_set():
                    raise
                session.failed[event_id] = type(fault).__name__
        yield found
    for future, event_id in under_way.items():
        future.cancel()
        session.failed[event_id] = Unreachable.__name__


def _retrieved(api: Api, id: str) -> Event:
    return api.get(f"{PATH}/{in_path(id)}", {}, event_of).value


def in_bodies(rung: Iterable[Rung]) -> list[Event]:
    """The events that the bodies of webhooks are, of those that are any."""
    found = []
    for one in rung:
        try:
            event = decoded(event_of, one.body or b"")
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        if event.id == one.event_id and 0 <= event.created < MOST_SECONDS:
            found.append(event)
    return found
