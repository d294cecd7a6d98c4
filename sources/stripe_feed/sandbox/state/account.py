"""The account: its clock, its keys, its objects as bytes, and the one place through which every
change of them goes.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Literal

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
"""How much of an embedded list an object shows."""


class Account:
    """All that the endpoints answer from. Callers hold `lock` while they read or change it."""

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
        self.all_children: dict[
            str, list[bytes]
        ] = {}  # all children of an object that shows only ten
        self.embedded_prices = EmbeddedPrices(self.tables["subscriptions"], self.all_children)
        self.opt_in_values: dict[
            str, Object
        ] = {}  # what the opt-in fields hold, where it was given
        self.inline_prices: set[str] = set()  # prices made from `price_data`: in no list
        self.clocks: dict[str, Object] = {}
        self.other_mode: dict[str, str] = {}  # an id per table that exists in the other mode
        self.observers: list[Callable[[Mutation], None]] = []
        self.faults = Faults(seed)
        self.idempotency = IdempotencyStore(self.faults.clock)
        self.locks = Locks(self.faults.clock)
        self.log: deque[LoggedRequest] = deque(maxlen=20_000)
        self.counts: Counter[tuple[str, int]] = Counter()
        self.on_request: Callable[[str, dict[str, Any]], None] | None = None
        self.gzip = self.indent = False
        self.cpu_before = self.cpu_seconds = 0.0  # of earlier servers, and of this one
        self.failures: list[Exception] = []  # our own mistakes, and those of `on_request`
        self._sold: dict[str, PriceRef] = {}
        self._encoder, self._buffer = msgspec.json.Encoder(), bytearray()

    @property
    def now(self) -> int:
        return int(self._now + (time.time() - self._since if self._real_time else 0))

    def advance(self, seconds: int) -> None:
        self._now += seconds

    def allowed(self, key: str, permission: str) -> bool:
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
        """Every change of the account ends here, once it is done."""
        mutation = Mutation(operation, table, id, before, after, events, self.now, hidden)
        for observer in self.observers:
            observer(mutation)

    def store(self, table: str, found: Object, raw: bytes = b"") -> Row:
        """Put an object in place, new or changed; `raw` is given where the bytes matter."""
        if table in EMBEDDED and not raw:
            found, whole = self.truncate_list(table, found)
            if whole:
                self.all_children[found["id"]] = whole
        self.deleted[table].pop(found["id"], None)
        if not raw:
            self._encoder.encode_into(found, self._buffer)
            raw = bytes(self._buffer)  # as long as it is, where `encode` leaves a gap behind each
        if table in ("prices", "plans"):
            self._sold.pop(found["id"], None)
            if found["id"] in self.tables[table].rows:
                self.embedded_prices.replace_price(
                    found["id"], self.tables[table].rows[found["id"]].raw, raw
                )
        row = self._place(table, found, raw)
        if table == "subscriptions":
            self.embedded_prices.subscription_written(row.id)
        return row

    def store_price(self, found: Object) -> None:
        """A price, and the plan that it is too."""
        self.store("prices", found)
        if found["recurring"]:
            self.store("plans", plan_of(found))

    def truncate_list(self, table: str, found: Object) -> tuple[Object, list[bytes]]:
        """An object as it is shown, and all of its children where these are more than ten."""
        embedded = EMBEDDED[table]
        whole = found[embedded.field]
        children = whole["data"]
        if len(children) <= SHOWN:
            return found, []
        url = embedded.url(found["id"])
        shown = whole | {"data": children[:SHOWN], "has_more": True, "url": url}
        return found | {embedded.field: shown}, [msgspec.json.encode(child) for child in children]

    def _place(self, table: str, found: Object, raw: bytes) -> Row:
        rows, row = self.tables[table], self.tables[table].rows.get(found["id"])
        created = found.get("created") if isinstance(found.get("created"), int) else None
        clock = found.get("test_clock") if isinstance(found.get("test_clock"), str) else None
        group = self._group(table, found)
        if row is None:
            return rows.add(found["id"], created, raw, group, clock)
        if row.created != created:
            rows.remove(row.id)
            return rows.add(found["id"], created, raw, group, clock)
        row.raw, row.group, row.clock = raw, group, clock
        return row

    def _group(self, table: str, found: Object) -> str:
        match KINDS[table].grouped:
            case "active" if found["id"] in self.inline_prices:
                return "inline"
            case "active":
                return "active" if found.get("active") else "archived"
            case field:
                return str(found.get(field, ""))

    def remove(self, table: str, id: str) -> Object:
        """Take an object away; its last content is kept."""
        row = self.tables[table].remove(id)
        self.deleted[table][id] = row.raw
        self.all_children.pop(id, None)
        self.opt_in_values.pop(id, None)
        self._sold.pop(id, None)
        return row.content()

    def children(self, table: str, row: Row) -> list[bytes]:
        """All children of an object of `table`, in the order of its embedded list."""
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
        """A price as others embed it."""
        if price not in self._sold:
            content = self.tables["prices"].rows[price].content()
            plan = self.tables["plans"].rows.get(price)
            self._sold[price] = PriceRef(
                price,
                content["product"],
                content.get("unit_amount"),
                content.get("unit_amount_decimal"),
                content["currency"],
                msgspec.Raw(self.tables["prices"].rows[price].raw),
                msgspec.Raw(plan.raw if plan else b"null"),
            )
        return self._sold[price]

    def objects(self, table: str) -> Iterator[tuple[str, bytes]]:
        """Everything that exists, by id: the tables, and the children of all objects."""
        if table in KINDS:
            yield from ((row.id, row.raw) for row in self.tables[table].rows.values())
            return
        parent = PARENTS[table].name
        for row in self.tables[parent].rows.values():
            for child in self.children(parent, row):
                yield msgspec.json.decode(child, type=Head).id, child

    def set_opt_in(self, id: str, fields: Mapping[str, Any]) -> None:
        self.opt_in_values.setdefault(id, {}).update(fields)


class Head(msgspec.Struct):
    id: str
