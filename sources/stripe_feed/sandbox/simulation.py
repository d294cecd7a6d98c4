"""An account, and what happens to it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from .http import webhook_endpoints
from .protocol.faults import Faults
from .samples.values import API_VERSION, Object, decoded
from .scenarios import activity, edge_cases, unrelated_events
from .scenarios.seed_data import SeedData, Shape, Sizes, gc_paused
from .state import mutations as state_mutations
from .state.api_versions import check_version
from .state.event_log import Event
from .state.mutation import LoggedRequest, Mutation
from .state.mutation_log import check_table
from .world import World

NOW = 1_780_000_000
THREE_YEARS = 3 * 365 * 86_400


class Simulation:
    """One account of a look-alike of Stripe.

    The same arguments give the same account. Its clock stands still but for `advance` and `live`,
    unless `real_time`.
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
    ) -> None:
        now = NOW if now is None else now
        self.account = World(
            seed, now, now - THREE_YEARS if start is None else start, livemode, real_time
        )
        self.account.gzip, self.account.indent = gzip, indent
        self.api_version = api_version
        sizes = Sizes(
            customers,
            customers if invoices is None else invoices,
            customers // 2 if subscriptions is None else subscriptions,
            max(5, customers // 50) if products is None else products,
        )
        with gc_paused():
            SeedData(self.account, sizes, shape, bursts=oddities).run()
            if oddities:
                self._add_edge_cases(sizes)
        self.account.observers.append(self.account.event_log.record)

    def _add_edge_cases(self, sizes: Sizes) -> None:
        edge_cases.add_edge_cases(self.account, sizes)

    @contextmanager
    def _acting(self) -> Iterator[World]:
        """One request to Stripe: nobody comes between, and all its events name it."""
        with self.account.lock, self.account.event_log.action():
            yield self.account

    @property
    def key(self) -> str:
        """A secret key that may do everything."""
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
        """The true present state by id, as the API shows it: embedded lists stop at ten, `children`
        has all.
        """
        check_table(table)
        return self._decoded(table)

    def children(self, table: str) -> dict[str, Object]:
        """All `subscription_items` or `invoice_line_items` by id, complete."""
        return self._decoded(table)

    def _decoded(self, table: str) -> dict[str, Object]:
        with self.account.lock:
            return {id: msgspec.json.decode(raw) for id, raw in self.account.objects(table)}

    def deleted(self, table: str) -> dict[str, Object]:
        """What was deleted, by id, with its last content."""
        with self.account.lock:
            return {id: msgspec.json.decode(raw) for id, raw in self.account.deleted[table].items()}

    def create(self, table: str, **fields: Any) -> Object:
        """Make an object; fields not given are drawn. `items`, `lines`: a list of partial ones, or
        a number.
        """
        with self._acting() as account:
            return state_mutations.create(account, table, fields)

    def update(self, table: str, id: str, **fields: Any) -> Object:
        """Replace fields; `items`, `lines`: the whole new list, where those with a known id keep
        what is not given.
        """
        with self._acting() as account:
            return state_mutations.update(account, table, id, fields)

    def delete(self, table: str, id: str) -> Object:
        """Delete an object and return its last content; a customer's subscriptions end with it."""
        with self._acting() as account:
            return state_mutations.delete(account, table, id)

    def cancel(self, id: str) -> Object:
        """End a subscription now; it stays, as canceled."""
        with self._acting() as account:
            return state_mutations.cancel(account, id)

    def put(self, table: str, given: Object | bytes) -> Object:
        """Plant an object as it is; bytes are served as the same bytes."""
        with self._acting() as account:
            return state_mutations.put(account, table, given)

    def live(self, seconds: int, changes: int = 50) -> list[tuple[str, str, str]]:
        """Let the account live: `changes` changes spread over the next `seconds`, as (what,
        resource, id).
        """
        with self.account.lock:
            return activity.live(self.account, seconds, changes)

    def burst(self, count: int, seconds: int = 1) -> list[tuple[str, str, str]]:
        """Update `count` objects by chance within so many seconds; with one, all in the second that
        it is.
        """
        with self.account.lock:
            return activity.burst(self.account, count, seconds)

    def preview(self, id: str) -> Object:
        """Announce the next invoice of a customer or a subscription: an event about an object that
        does not exist.
        """
        with self._acting() as account:
            return unrelated_events.preview(account, id)

    def noise(self, count: int) -> None:
        """Record so many events about objects of other kinds: cards, tax ids, charges, payments."""
        with self.account.lock:
            unrelated_events.noise(self.account, count)

    @property
    def api_version(self) -> str:
        """The account's default: its events are recorded in that version's shape, and stay so."""
        return self.account.api_version

    @api_version.setter
    def api_version(self, version: str) -> None:
        self.account.api_version = check_version(version)

    @property
    def stub_deletes(self) -> bool:
        """Whether `*.deleted` events carry three keys only, not the last full object."""
        return self.account.event_log.stub_deletes

    @stub_deletes.setter
    def stub_deletes(self, short: bool) -> None:
        self.account.event_log.stub_deletes = short

    @property
    def events(self) -> list[Event]:
        """All events ever, in the order in which they happened: those that are lost, late, or too
        old to show too.
        """
        with self.account.lock:
            return list(self.account.event_log.records)

    @property
    def history(self) -> list[Mutation]:
        """All changes since the sandbox opened, in their order."""
        with self.account.lock:
            return [kept.decode() for kept in self.account.event_log.kept]

    def oddities(self) -> dict[str, int]:
        """How many there are of each oddity, counted in the present state."""
        with self.account.lock:
            return edge_cases.count_edge_cases(self.account)

    def restrict(self, key: str | None = None, permissions: Collection[str] = ()) -> str:
        """A restricted key with these permissions, `key` itself where it is a restricted one
        (`rk_...`).
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
        """Add an endpoint as `POST /v1/webhook_endpoints` does; the answer has its secret."""
        with self.account.lock:
            params = {"url": url, "enabled_events": list(enabled_events), **more}
            return decoded(webhook_endpoints.create_endpoint(self.account, "", "", params))

    def drain_webhooks(self, timeout: float = 10.0) -> None:
        """Wait until all webhooks that are due were sent once, with or without success;
        TimeoutError if that takes longer.
        """
        self.account.webhooks.sender.drain(timeout)

    def resend(self) -> int:
        """Send all webhooks that have failed once more, and say how many: what Stripe does by
        itself for three days.
        """
        return self.account.webhooks.sender.resend()

    @property
    def failed_webhooks(self) -> list[tuple[str, str, str]]:
        """Those that wait for `resend`: event, URL, and why it failed."""
        failed = list(self.account.webhooks.sender.failed)
        return [(one.delivery.event, one.delivery.hook.object["url"], one.why) for one in failed]

    @property
    def faults(self) -> Faults:
        """What goes wrong: change its fields at any time."""
        return self.account.faults

    @property
    def observers(self) -> list[Callable[[Mutation], None]]:
        """Observers: each is called with every change, once it is done."""
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
        """CPU time that serving took so far."""
        return self.account.cpu_before + self.account.cpu_seconds
