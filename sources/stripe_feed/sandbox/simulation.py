"""An account, and what can be done to it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from .http import webhook_endpoints
from .protocol.event_types import TYPES
from .protocol.faults import Faults
from .samples.values import API_VERSION, Object, decode
from .scenarios import activity, edge_cases, plain_activity, unrelated_events
from .scenarios import business as business_scenario
from .scenarios.seed_data import SeedData, Shape, Sizes, gc_paused
from .state import mutations as state_mutations
from .state.api_versions import check_version
from .state.event_builder import EventDraft
from .state.event_log import Event
from .state.kinds import GROUPS
from .state.mutation import LoggedRequest, Mutation
from .state.mutation_log import check_table
from .world import World

if TYPE_CHECKING:
    from typing_extensions import Self

NOW = 1_780_000_000
THREE_YEARS = 3 * 365 * 86_400


class Simulation:
    """One account of a look-alike of Stripe.

    The same arguments give the same account. `groups` names the groups of further objects
    (`payments`, `billing`, ...) that its past and its activity include. A `business` lives: about
    `customers` of them have signed up in the last 18 months, and subscriptions renew. Its clock
    moves only by `advance` and `live`, unless `real_time` is set.
    """

    def __init__(
        self,
        seed: int = 1,
        customers: int = 200,
        invoices: int | None = None,
        subscriptions: int | None = None,
        products: int | None = None,
        now: int | None = None,
        start: int | None = None,
        oddities: bool = True,
        livemode: bool = False,
        shape: Shape = "growth",
        real_time: bool = False,
        gzip: bool = False,
        indent: bool = False,
        api_version: str = API_VERSION,
        groups: Sequence[str] = (),
        business: bool = False,
    ) -> None:
        now = NOW if now is None else now
        self.account = World(
            seed, now, now - THREE_YEARS if start is None else start, livemode, real_time
        )
        self.connected: dict[str, Self] = {}
        self.account.gzip, self.account.indent = gzip, indent
        self.api_version = api_version
        self.account.has_business = business
        if business and (invoices, subscriptions, products) != (None, None, None):
            raise ValueError("the other numbers of a business follow from its customers")
        sizes = (
            Sizes(0, 0, 0, 0)
            if business
            else Sizes(
                customers,
                customers if invoices is None else invoices,
                customers // 2 if subscriptions is None else subscriptions,
                max(5, customers // 50) if products is None else products,
            )
        )
        with gc_paused():
            SeedData(self.account, sizes, shape, bursts=oddities).run()
            if oddities:
                self._add_edge_cases(sizes)
            if business:
                business_scenario.found(self.account, customers)
            self._add_groups(sizes, groups)
        if not business:
            self.account.observers.append(self.account.event_log.record)

    def connect(self, **options: Any) -> Self:
        """Connect a new account, which is reached with `Stripe-Account` and this account's key, and
        return it. `options` are those of a new account; it has ten customers by default.

        Its clock is this account's, as are the limits of requests; its objects, events and other
        faults are its own.
        """
        number = len(self.connected) + 1
        defaults: dict[str, Any] = {
            "seed": self.account.seed * 10_000 + number,
            "customers": 10,
            "oddities": False,
            "now": self.now,
            "livemode": self.account.livemode,
            "api_version": self.api_version,
        }
        with self.account.lock:
            made = type(self)(**defaults | options)
            self.account.connect(made.account)
            self.connected[made.account_id] = made
            own = made.account.object
            shared = ("country", "created", "default_currency", "email", "type")
            self.create("accounts", id=made.account_id, **{name: own[name] for name in shared})
            return made

    def revoke(self, id: str) -> None:
        """Let a connected account revoke the access: it is in no list any more, and requests for it
        are refused.
        """
        with self.account.lock:
            unrelated_events.deauthorize(self.account.connected[id])
            self.account.revoked.add(id)
            self.delete("accounts", id)

    def _add_edge_cases(self, sizes: Sizes) -> None:
        edge_cases.add_edge_cases(self.account, sizes)

    def _add_groups(self, sizes: Sizes, groups: Sequence[str]) -> None:
        if unknown := sorted(set(groups) - set(GROUPS)):
            raise ValueError(f"no such group: {', '.join(unknown)}; groups are {', '.join(GROUPS)}")
        self.account.groups = tuple(groups)
        if kinds := plain_activity.kinds_of(groups):
            plain_activity.add_past(self.account, kinds, max(100, 2 * sizes.customers))

    @contextmanager
    def _acting(self) -> Iterator[World]:
        """Make all changes inside one request to Stripe: no other thread comes between, and all
        events name the request.
        """
        with self.account.lock, self.account.event_log.action():
            yield self.account

    @property
    def key(self) -> str:
        """A secret key with all permissions."""
        return self.account.key

    @property
    def account_id(self) -> str:
        return self.account.id

    @property
    def now(self) -> int:
        """The sandbox's time, in Unix seconds."""
        return self.account.now

    def advance(self, seconds: int) -> None:
        with self.account.lock:
            self.account.advance(seconds)

    def objects(self, table: str) -> dict[str, Object]:
        """The present state by id, as the API shows it. Embedded lists show ten objects; `children`
        has all.
        """
        check_table(table)
        return self._decoded(table)

    def children(self, table: str) -> dict[str, Object]:
        """All `subscription_items` or `invoice_line_items` by id."""
        return self._decoded(table)

    def _decoded(self, table: str) -> dict[str, Object]:
        with self.account.lock:
            return {id: msgspec.json.decode(raw) for id, raw in self.account.objects(table)}

    def deleted(self, table: str) -> dict[str, Object]:
        """The last content of deleted objects by id."""
        with self.account.lock:
            return {id: msgspec.json.decode(raw) for id, raw in self.account.deleted[table].items()}

    def create(self, table: str, **fields: Any) -> Object:
        """Create an object; fields that are not given are random. `items` and `lines` take a list
        of partial objects, or their number.
        """
        with self._acting() as account:
            return state_mutations.create(account, table, fields)

    def update(self, table: str, id: str, **fields: Any) -> Object:
        """Replace fields. `items` and `lines` are the whole new list; an object in it whose id is
        known keeps the fields that are not given.
        """
        with self._acting() as account:
            return state_mutations.update(account, table, id, fields)

    def delete(self, table: str, id: str) -> Object:
        """Delete an object and return its last content. Deleting a customer cancels its
        subscriptions.
        """
        with self._acting() as account:
            return state_mutations.delete(account, table, id)

    def cancel(self, id: str) -> Object:
        """Cancel a subscription now. It still exists, with the status `canceled`."""
        with self._acting() as account:
            return state_mutations.cancel(account, id)

    def put(self, table: str, given: Object | bytes) -> Object:
        """Store an object as it is; bytes are served unchanged."""
        with self._acting() as account:
            return state_mutations.put(account, table, given)

    def live(self, seconds: int, changes: int = 50) -> list[tuple[str, str, str]]:
        """Take `changes` actions within the next `seconds`; returns (action, table, id) of each."""
        with self.account.lock:
            if self.account.has_business:
                return business_scenario.live_on(self.account, seconds, changes)
            return activity.live(self.account, seconds, changes)

    def burst(self, count: int, seconds: int = 1) -> list[tuple[str, str, str]]:
        """Update `count` random objects within `seconds`; 1 means all within the current second."""
        with self.account.lock:
            return activity.burst(self.account, count, seconds)

    def preview(self, id: str) -> Object:
        """Record the event that announces the next invoice of a customer or a subscription. Its
        object does not exist.
        """
        with self._acting() as account:
            return unrelated_events.preview(account, id)

    def noise(self, count: int) -> None:
        """Record `count` events about objects of other kinds: cards, tax ids, charges, payments."""
        with self.account.lock:
            unrelated_events.noise(self.account, count)

    @property
    def api_version(self) -> str:
        """The account's default API version. Its events are recorded in the shape of that version
        and keep it.
        """
        return self.account.api_version

    @api_version.setter
    def api_version(self, version: str) -> None:
        self.account.api_version = check_version(version)

    @property
    def stub_deletes(self) -> bool:
        """Whether `*.deleted` events carry only a stub with three keys, not the last content."""
        return self.account.event_log.stub_deletes

    @stub_deletes.setter
    def stub_deletes(self, short: bool) -> None:
        self.account.event_log.stub_deletes = short

    @property
    def silent_changes(self) -> bool:
        """Whether `live` includes changes that no event tells, as Stripe has none for them."""
        return self.account.silent_changes

    @silent_changes.setter
    def silent_changes(self, included: bool) -> None:
        self.account.silent_changes = included

    def announce(self, table: str, id: str, type: str) -> None:
        """Record an event of any type of Stripe's about an object that does not change."""
        if type not in TYPES:
            raise ValueError(f"no such event type: {type}")
        with self._acting() as account:
            raw = account.tables[table].rows[id].raw
            account.event_log.add(EventDraft(type, table, id, raw), account.now)

    @property
    def events(self) -> list[Event]:
        """All events in the order in which they happened, including those that are lost, late or
        expired.
        """
        with self.account.lock:
            return list(self.account.event_log.records)

    @property
    def history(self) -> list[Mutation]:
        """All changes since the sandbox started, in order."""
        with self.account.lock:
            return [stored.decode() for stored in self.account.event_log.mutations]

    def oddities(self) -> dict[str, int]:
        """Count the objects of each edge case in the present state."""
        with self.account.lock:
            return edge_cases.count_edge_cases(self.account)

    def restrict(self, key: str | None = None, permissions: Collection[str] = ()) -> str:
        """Create a restricted key with these permissions. If `key` is one (`rk_...`), replace its
        permissions.
        """
        with self.account.lock:
            if key is None or not key.startswith("rk_"):
                key = f"rk_{self.account.mode}_51{self.account.rng.word(30)}"
            self.account.permissions[key] = frozenset(permissions)
            return key

    def expire(self, key: str) -> None:
        self.account.expired.add(key)

    @property
    def account_needs_permission(self) -> bool:
        """Whether restricted keys need `rak_accounts_kyc_basic_read` for `GET /v1/account`."""
        return self.account.needs_permission

    @account_needs_permission.setter
    def account_needs_permission(self, needed: bool) -> None:
        self.account.needs_permission = needed

    def webhook_endpoint(
        self, url: str, enabled_events: Sequence[str] = ("*",), **more: Any
    ) -> Object:
        """Create a webhook endpoint as `POST /v1/webhook_endpoints` does; the answer has its
        secret.
        """
        with self.account.lock:
            params = {"url": url, "enabled_events": list(enabled_events), **more}
            return decode(webhook_endpoints.create_endpoint(self.account, "", "", params))

    def drain_webhooks(self, timeout: float = 10.0) -> None:
        """Wait until each due webhook was sent once, successfully or not. Raises TimeoutError if
        that takes longer.
        """
        self.account.webhooks.sender.drain(timeout)

    def resend(self) -> int:
        """Send all failed webhooks again and return their number. Stripe repeats this itself for
        three days.
        """
        return self.account.webhooks.sender.resend()

    @property
    def failed_webhooks(self) -> list[tuple[str, str, str]]:
        """Webhooks that wait for `resend`: event id, URL, and why they failed."""
        failed = list(self.account.webhooks.sender.failed)
        return [
            (failure.delivery.event, failure.delivery.endpoint.object["url"], failure.why)
            for failure in failed
        ]

    @property
    def faults(self) -> Faults:
        """The faults that the sandbox injects; change its fields at any time."""
        return self.account.faults

    @property
    def observers(self) -> list[Callable[[Mutation], None]]:
        """Callables that get every change once it is done."""
        return self.account.observers

    @property
    def log(self) -> deque[LoggedRequest]:
        """The newest 20,000 requests: method, path template, parameters, status."""
        return self.account.log

    @property
    def counts(self) -> Counter[tuple[str, int]]:
        """Requests by path template and status."""
        return self.account.counts

    def reset_counts(self) -> None:
        self.account.counts.clear()
        self.account.log.clear()

    @property
    def on_request(self) -> Callable[[str, dict[str, Any]], None] | None:
        """Called with path template and parameters before each answer is computed; it may change
        the account.
        """
        return self.account.on_request

    @on_request.setter
    def on_request(self, call: Callable[[str, dict[str, Any]], None] | None) -> None:
        self.account.on_request = call

    @property
    def cpu_seconds(self) -> float:
        """CPU time spent on serving so far."""
        return self.account.cpu_before + self.account.cpu_seconds
