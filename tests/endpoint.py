"""A list endpoint in memory with Stripe's rules, for the pager alone: newest first, windows of
`created`, strict cursors.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from stripe_feed.api.client import Api
from stripe_feed.errors import CursorGone
from stripe_feed.extract.paging.reader import Listing, ListPage, PageReader
from stripe_feed.extract.paging.windows import PageRequest, RowKey

UNDATED = -1  # where objects without `created` stand: older than everything

Key = tuple[int, int]


class Endpoint:
    """Objects by `created`, shown `size` to a page at most: it stands for Stripe's limit of 100."""

    def __init__(self, created: Iterable[int | None] = (), size: int = 100) -> None:
        self.size = size
        self.order: list[Key] = []  # oldest first
        self.keys: dict[str, Key] = {}
        self.ever: dict[str, int | None] = {}
        self.asked: list[dict[str, Any]] = []
        for moment in created:
            self.add(moment)

    def __len__(self) -> int:
        return len(self.order)

    def add(self, created: int | None) -> str:
        """Create an object and return its id."""
        number = len(self.ever)
        id = f"cus_{number}"
        self.keys[id] = key = (UNDATED if created is None else created, number)
        self.ever[id] = created
        insort(self.order, key)
        return id

    def delete(self, id: str) -> None:
        """Make an object go."""
        self.order.remove(self.keys.pop(id))

    def within(self, lo: int, hi: int) -> set[str]:
        """The ids of what exists in [lo, hi); 0: without a lower bound."""
        first, last = bisect_left(self.order, (lo or UNDATED, 0)), bisect_left(self.order, (hi, 0))
        return {f"cus_{number}" for _, number in self.order[first:last]}

    def page(self, ask: PageRequest) -> tuple[list[RowKey], bool]:
        """One page and `has_more`. Raises `CursorGone` as Stripe does, for an id that does not
        exist.
        """
        params = ask.params()
        self.asked.append(dict(params))
        assert params.pop("limit") == 100
        lo, hi = _bounds(params.pop("created"))
        cursor = params.pop("starting_after", None)
        assert not params, f"unknown parameters: {params}"
        first, last = bisect_left(self.order, (lo, 0)), bisect_left(self.order, (hi, 0))
        if cursor is not None:
            key = self.keys.get(str(cursor))
            if key is None:
                raise CursorGone("deleted", "resource_missing", "starting_after")
            last = min(last, bisect_left(self.order, key))
        rows = self.order[max(first, last - self.size) : last]
        return list(_heads(rows[::-1])), last - first > self.size


def _heads(keys: Iterable[Key]) -> Iterator[RowKey]:
    for created, number in keys:
        yield RowKey(f"cus_{number}", None if created == UNDATED else created)


def _bounds(created: Any) -> tuple[int, int]:
    """The half-open range that `gte`, `gt`, `lt` and `lte` mean; without a lower bound the undated
    ones belong to it.
    """
    known = {"gte": 0, "gt": 1, "lt": 0, "lte": 1}
    assert set(created) <= set(known), f"unknown bounds: {created}"
    lows = [value + known[name] for name, value in created.items() if name.startswith("g")]
    highs = [value + known[name] for name, value in created.items() if name.startswith("l")]
    return max(lows, default=UNDATED), min(highs, default=2**40)


@dataclass
class Tokens:
    """What the reader needs of an `Api`, without HTTP: tokens are there at once, unless `waits`
    says how long one takes.
    """

    threads: int = 4
    in_flight_ceiling: int = 99
    waits: list[float] = field(default_factory=list)
    tokens_taken: list[str] = field(default_factory=list)
    closed: bool = False

    def take_token(self, endpoint: str) -> float:
        if self.waits:
            return self.waits.pop()
        self.tokens_taken.append(endpoint)
        return 0.0

    def return_token(self, endpoint: str) -> None:
        self.tokens_taken.remove(endpoint)

    def close(self) -> None:
        self.closed = True


def reader_of(tokens: Tokens) -> PageReader:
    return PageReader(cast(Api, tokens))


def read(reader: PageReader, listing: Listing[str]) -> Iterator[list[ListPage[str]]]:
    """What a listing hands out, batch by batch, to its end."""
    while not listing.done:
        if parts := reader.next_batch(listing):
            yield parts
        else:
            with reader._cond:
                if not listing.batch_ready and listing.error is None:
                    reader._cond.wait(1)
