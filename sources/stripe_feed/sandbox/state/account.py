"""The account: its clock, keys and stored objects. Every change of an object goes through it."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from heapq import heappop, heappush
from typing import Any, Literal, NamedTuple

import msgspec

from ..protocol.faults import Faults
from ..protocol.idempotency import IdempotencyStore
from ..protocol.locks import Locks
from ..samples.account import account_object
from ..samples.catalog import plan_of
from ..samples.subscriptions import PriceRef
from ..samples.values import API_VERSION, Object, Random
from .embedded_prices import EmbeddedPrices
from .kinds import EMBEDDED, KINDS, PARENTS, Operation
from .mutation import LoggedRequest, Mutation
from .table import Row, Table

SHOWN = 10
"""How many objects an embedded list shows."""


class Timer(NamedTuple):
    """What Stripe does by itself at a time; the number keeps the order of equal times."""

    at: int
    number: int
    act: Callable[[], None]


class Account:
    """The state that all endpoints answer from. Hold `lock` to read or change it."""

    def __init__(self, seed: int, now: int, start: int, livemode: bool, real_time: bool) -> None:
        self.lock = threading.RLock()
        self.rng = Random(f"account {seed}")
        self.rng.livemode = livemode
        self.id = self.rng.account = f"acct_1{self.rng.word(15)}"
        self.livemode = livemode
        self.mode: Literal["live", "test"] = "live" if livemode else "test"
        self.key = f"sk_{self.mode}_51{self.rng.word(30)}"
        self.permissions: dict[str, Collection[str] | None] = {self.key: None}
        self.expired: set[str] = set()
        self.needs_permission = False
        self.api_version = API_VERSION
        self.seed, self.start = seed, start
        self._now, self._real_time, self._since = now, real_time, time.time()
        self.object = account_object(self.rng, self.id, start)
        self.tables = {name: Table() for name in KINDS}
        self.deleted: dict[str, dict[str, bytes]] = {name: {} for name in KINDS}
        self.owners: dict[tuple[str, str], str] = {}  # of objects that do not name theirs
        self.all_children: dict[str, list[bytes]] = {}  # of objects that have more than they show
        self.embedded_prices = EmbeddedPrices(self.tables["subscriptions"], self.all_children)
        self.opt_in_values: dict[str, Object] = {}  # by object id, if they were given
        self.groups: tuple[str, ...] = ()  # of kinds that ordinary activity includes
        self.has_business = False
        self.silent_changes = True  # whether ordinary activity includes what no event tells
        self.inline_prices: set[str] = set()  # made from `price_data`; in no list
        self.clocks: dict[str, Object] = {}
        self.other_mode: dict[str, str] = {}  # table -> an id that exists in the other mode
        self.observers: list[Callable[[Mutation], None]] = []
        self.faults = Faults(seed)
        self.idempotency = IdempotencyStore(self.faults.clock)
        self.timers: list[Timer] = []
        self._timer_count = 0
        self.locks = Locks(self.faults.clock)
        self.log: deque[LoggedRequest] = deque(maxlen=20_000)
        self.counts: Counter[tuple[str, int]] = Counter()
        self.on_request: Callable[[str, dict[str, Any]], None] | None = None
        self.gzip = self.indent = False
        self.cpu_before = self.cpu_seconds = 0.0  # of earlier servers, and of this one
        self.failures: list[Exception] = []  # of the sandbox itself, and of `on_request`
        self._price_refs: dict[str, PriceRef] = {}
        self._encoder, self._buffer = msgspec.json.Encoder(), bytearray()

    def generator(self, purpose: str) -> Random:
        """A generator of its own for one purpose, so that its draws change nothing else."""
        rng = Random(f"{purpose} {self.seed}")
        rng.livemode, rng.account = self.livemode, self.id
        return rng

    @property
    def now(self) -> int:
        return int(self._now + (time.time() - self._since if self._real_time else 0))

    def advance(self, seconds: int) -> None:
        """Move the clock, and do on the way what is due."""
        while self.timers and self.timers[0].at <= self.now + seconds:
            timer = heappop(self.timers)
            step = max(0, timer.at - self.now)
            self._now, seconds = self._now + step, seconds - step
            timer.act()
        self._now += seconds

    def rewind(self, seconds: int) -> None:
        """Move the clock back, to make the past."""
        self._now -= seconds

    def schedule(self, at: int, act: Callable[[], None]) -> None:
        """Do something once the clock is there."""
        self._timer_count += 1
        heappush(self.timers, Timer(at, self._timer_count, act))

    def is_allowed(self, key: str, permission: str) -> bool:
        granted = self.permissions[key]
        return (
            granted is None
            or permission in granted
            or permission.replace("_read", "_write") in granted
        )

    def commit(
        self,
        operation: Operation,
        table: str,
        id: str,
        before: Object | None,
        after: Object | None,
        events: tuple[str, ...],
        hidden: bool = False,
    ) -> None:
        """Pass a finished change to the observers."""
        mutation = Mutation(operation, table, id, before, after, events, self.now, hidden)
        for observer in self.observers:
            observer(mutation)

    def store(self, table: str, content: Object, raw: bytes = b"") -> Row:
        """Store an object, new or changed. `raw` gives its exact bytes."""
        if table in EMBEDDED and not raw:
            content, children = self.truncate_list(table, content)
            if children:
                self.all_children[content["id"]] = children
        self.deleted[table].pop(content["id"], None)
        if not raw:
            self._encoder.encode_into(content, self._buffer)
            raw = bytes(self._buffer)  # exactly as long as needed; `encode` would allocate more
        if table in ("prices", "plans"):
            self._price_refs.pop(content["id"], None)
            if content["id"] in self.tables[table].rows:
                self.embedded_prices.replace_price(
                    content["id"], self.tables[table].rows[content["id"]].raw, raw
                )
        row = self._place(table, content, raw)
        if table == "subscriptions":
            self.embedded_prices.subscription_written(row.id)
        return row

    def store_price(self, content: Object) -> None:
        """Store a price, and the plan that it also is."""
        self.store("prices", content)
        if content["recurring"]:
            self.store("plans", plan_of(content))

    def truncate_list(self, table: str, content: Object) -> tuple[Object, list[bytes]]:
        """The object with ten children, and all children if it has more than ten."""
        embedded = EMBEDDED[table]
        whole_list = content[embedded.field]
        children = whole_list["data"]
        if len(children) <= SHOWN:
            return content, []
        url = embedded.url(content["id"])
        shown = whole_list | {"data": children[:SHOWN], "has_more": True, "url": url}
        return content | {embedded.field: shown}, [msgspec.json.encode(child) for child in children]

    def other_mode_of(self, table: str, id: str) -> str:
        """The mode that an id exists in if it is the other one, else an empty string."""
        if self.other_mode.get(table) != id:
            return ""
        return "test" if self.livemode else "live"

    def _place(self, table: str, content: Object, raw: bytes) -> Row:
        rows, row = self.tables[table], self.tables[table].rows.get(content["id"])
        dated = KINDS[table].dated
        at = self.now if row is None else row.created
        if dated:
            at = content.get(dated)
        created = at if isinstance(at, int) else None
        clock = content.get("test_clock") if isinstance(content.get("test_clock"), str) else None
        group = self._group(table, content)
        if row is None:
            return rows.add(content["id"], created, raw, group, clock)
        if row.created != created:
            rows.remove(row.id)
            return rows.add(content["id"], created, raw, group, clock)
        row.raw, row.group, row.clock = raw, group, clock
        return row

    def _group(self, table: str, content: Object) -> str:
        kind = KINDS[table]
        if kind.owner:
            return str(content.get(kind.owner) or self.owners.get((table, content["id"]), ""))
        match kind.grouped:
            case "active" if content["id"] in self.inline_prices:
                return "inline"
            case "active":
                return "active" if content.get("active") else "archived"
            case field:
                return str(content.get(field, ""))

    def remove(self, table: str, id: str) -> Object:
        """Remove an object and keep its last content in `deleted`."""
        row = self.tables[table].remove(id)
        self.deleted[table][id] = row.raw
        self.all_children.pop(id, None)
        self.opt_in_values.pop(id, None)
        self._price_refs.pop(id, None)
        return row.content()

    def children(self, table: str, row: Row) -> list[bytes]:
        """All children of an object, in the order of its embedded list."""
        if row.id in self.all_children:
            return self.all_children[row.id]
        fields = msgspec.json.decode(row.raw, type=dict[str, msgspec.Raw])
        embedded = fields.get(EMBEDDED[table].field)
        if embedded is None:
            return []
        listed = msgspec.json.decode(embedded, type=dict[str, msgspec.Raw])
        return [
            bytes(child) for child in msgspec.json.decode(listed["data"], type=list[msgspec.Raw])
        ]

    def price_ref(self, price: str) -> PriceRef:
        """A price as items and lines refer to it."""
        if price not in self._price_refs:
            price_content = self.tables["prices"].rows[price].content()
            plan = self.tables["plans"].rows.get(price)
            self._price_refs[price] = PriceRef(
                price,
                price_content["product"],
                price_content.get("unit_amount"),
                price_content.get("unit_amount_decimal"),
                price_content["currency"],
                msgspec.Raw(self.tables["prices"].rows[price].raw),
                msgspec.Raw(plan.raw if plan else b"null"),
            )
        return self._price_refs[price]

    def objects(self, table: str) -> Iterator[tuple[str, bytes]]:
        """All objects of a table, or all children of all its objects, with their ids."""
        if table in KINDS:
            yield from ((row.id, row.raw) for row in self.tables[table].rows.values())
            return
        parent = PARENTS[table].name
        for row in self.tables[parent].rows.values():
            for child in self.children(parent, row):
                yield msgspec.json.decode(child, type=_Id).id, child

    def assign(self, table: str, id: str, owner: str) -> None:
        """Give an object that does not name its owner another one. Nothing that it shows changes."""
        self.owners[table, id] = owner
        self.tables[table].rows[id].group = owner

    def has_held(self, table: str) -> bool:
        """Whether the table has or had objects. Until then, lists below other objects are sampled."""
        return bool(self.tables[table].rows or self.deleted[table])

    def set_opt_in(self, id: str, fields: Mapping[str, Any]) -> None:
        self.opt_in_values.setdefault(id, {}).update(fields)


class _Id(msgspec.Struct):
    id: str
