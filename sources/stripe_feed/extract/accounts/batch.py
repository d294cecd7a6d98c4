"""Read several connected accounts into one package: their rows are in the same tables, keyed by
account and id, and the source's state holds a state for each account.

Each account is read in a thread, as if it had a dataset of its own. What it brings becomes part of
the package as a whole, rows and state, or not at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack, closing
from copy import deepcopy
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import dlt
import pyarrow as pa
from dlt.extract import DltResource

from ...api.account import Account
from ...destination.missing_tables import recreate_missing
from ...destination.state import ACCOUNTS, AccountClient
from ...resources import CHANGES, RESOURCES, TABLES
from ...resources.groups import tables_filled_by
from ...resources.model import Child, Resource
from .. import existing
from ..dependents.held_objects import held_rows
from ..dependents.sublists import sublist_rows
from ..lists import list_rows
from ..run import RunContext
from ..stream import stream_changes
from ..tables.changes import SHARED_CHANGE_SCHEMA, change_hints
from ..tables.codec import TableCodec
from ..tables.dlt_resource import StripeResource, restrict_access
from ..tables.hints import newer_wins, replace_children, table_hints, table_names
from ..writer import NamedTable
from .package import AccountPart, load_id, reading, source_state

ROWS_OF_TABLE = 5_000  # rows of one table
SHARED_TABLES = (*TABLES, CHANGES)

Tables = list[NamedTable]


@dataclass(eq=False)
class AccountRun:
    """The run of one account, in one or more packages."""

    account: str
    context: RunContext
    is_finished: bool = False
    requests: int = 0
    packages: int = 0
    seconds: float = 0.0


@dataclass(eq=False)
class AccountBatch:
    """The accounts of a package. `waiting`: those to read, in their order; a package takes accounts
    until it has `most_rows` rows or `most_accounts`. `owner` stands for all accounts of the platform.
    `named`: what is entered while an account is read.
    """

    owner: Account
    api_version: str
    names: Sequence[str]
    waiting: deque[AccountRun]
    at_once: int
    most_rows: int
    most_accounts: int
    named: Callable[[str], AbstractContextManager[Any]]
    running: dict[Future[tuple[AccountPart, Tables]], AccountRun] = field(default_factory=dict)
    is_stopped: bool = False
    done: list[AccountRun] = field(default_factory=list)
    failed: list[tuple[AccountRun, Exception]] = field(default_factory=list)

    def rows(self) -> Iterator[Any]:
        """Yield the rows of the accounts as Arrow tables, those of several together."""
        load, state = load_id(), source_state()
        state.update(
            account=self.owner.id, livemode=self.owner.livemode, api_version=self.api_version
        )
        threads = max(1, min(self.at_once, len(self.waiting)))
        with _Destination(self.names, threads) as destination:
            collected = _Collected(destination, self.waiting[0].context if self.waiting else None)
            for run, part, tables in self._read(load, state.setdefault(ACCOUNTS, {}), destination):
                state[ACCOUNTS][run.account] = part.state
                yield from collected.add(tables)
            yield from collected.rest()

    def _read(
        self, load: str, states: dict[str, Any], destination: _Destination
    ) -> Iterator[tuple[AccountRun, AccountPart, Tables]]:
        """Read accounts side by side, and yield what each brings once it is read as a whole."""
        begun = rows = 0
        running = self.running
        with ExitStack() as held:
            pool = ThreadPoolExecutor(self.at_once, "stripe-feed-account")
            held.callback(pool.shutdown, cancel_futures=True)
            held.callback(self.stop)
            while running or self._has_room(begun, rows):
                while self._has_room(begun, rows) and len(running) < self.at_once:
                    run = self.waiting.popleft()
                    known = deepcopy(states.get(run.account, {}))
                    job = pool.submit(self._read_account, run, load, known, destination)
                    running[job] = run
                    begun += 1
                for job in wait(running, return_when=FIRST_COMPLETED).done:
                    run = running.pop(job)
                    try:
                        part, tables = job.result()
                    except Exception as fault:
                        run.context.close()
                        self.failed.append((run, fault))
                        continue
                    rows += sum(one.rows.num_rows for one in tables)
                    self.done.append(run)
                    yield run, part, tables

    def stop(self) -> None:
        """Stop what runs, and begin nothing more."""
        self.is_stopped = True
        for run in list(self.running.values()):
            run.context.api.close()

    def _has_room(self, begun: int, rows: int) -> bool:
        is_open = bool(self.waiting) and not self.is_stopped
        return is_open and begun < self.most_accounts and rows < self.most_rows

    def _read_account(
        self, run: AccountRun, load: str, state: dict[str, Any], destination: _Destination
    ) -> tuple[AccountPart, Tables]:
        context = run.context
        context.begin_package()
        wanted = [
            name
            for name in (*(self.names if context.options.polls else ()), CHANGES)
            if name not in context.refused
        ]
        with self.named(run.account), destination.client() as client:
            part = AccountPart(
                load,
                state,
                wanted,
                AccountClient(client, run.account, SHARED_TABLES),
                destination.type,
                destination.tables_without_rows,
                destination.columns,
            )
            api = context.api
            started, requests = api.clock.monotonic(), api.requests
            _ = context.account  # raises if Stripe answers for another one
            with reading(part):
                tables = list(_in_turn([_rows_of(context, name) for name in wanted]))
            run.packages += bool(context.counters.package_rows)
            run.seconds += api.clock.monotonic() - started
            run.requests += api.requests - requests
        run.is_finished = context.finished
        if all(one.done for one in context.listing_runs.values()):
            context.connections.rest()
        else:
            context.close()  # many may be unfinished: the next package continues from the state
        return part, tables


def _rows_of(context: RunContext, name: str) -> Iterator[Any]:
    if name == CHANGES:
        return stream_changes(context)
    row = RESOURCES[name]
    if row.holders:
        return held_rows(context, row)
    return sublist_rows(context, row) if row.parent else list_rows(context, row)


def _in_turn(generators: Iterable[Iterator[Any]]) -> Iterator[NamedTable]:
    """Take from each of these in turn, as dlt does with resources."""
    with ExitStack() as held:
        waiting = deque(generators)
        for one in waiting:
            held.enter_context(closing(one))  # type: ignore[type-var]
        while waiting:
            current = waiting.popleft()
            try:
                item = next(current)
            except StopIteration:
                continue
            waiting.append(current)
            if item is not None:
                yield item


class _Destination:
    """The destination of a package, with an open SQL client for each of some threads."""

    def __init__(self, names: Sequence[str], threads: int) -> None:
        self._threads = threads
        self._filled = tables_filled_by(names)
        self._clients: SimpleQueue[Any] = SimpleQueue()
        self._held = ExitStack()
        self.tables_without_rows: frozenset[str] = frozenset()

    def __enter__(self) -> _Destination:
        pipeline = dlt.current.pipeline()
        restrict_access(pipeline)
        recreate_missing(pipeline)
        self.type: str = pipeline.destination.destination_type
        tables = dlt.current.source_schema().tables
        self.columns = {name: table.get("columns", {}) for name, table in tables.items()}
        first: Any = pipeline.sql_client()
        for _ in range(self._threads):
            # dlt reads its whole configuration for each client that it makes: they share the first's
            client = type(first)(
                first.dataset_name,
                first.staging_dataset_name,
                first.credentials,
                first.capabilities,
            )
            self._clients.put(self._held.enter_context(client))
        with self.client() as client:
            self.names = {name: table_names(client, name) for name in (*self._filled, CHANGES)}
            is_first = not source_state().get(ACCOUNTS)
            if not is_first:
                self.tables_without_rows = existing.tables_without_rows(client, self._filled)
        return self

    def __exit__(self, *fault: Any) -> None:
        self._held.close()

    def client(self) -> AbstractContextManager[Any]:
        """Lend a client to the thread that asks."""
        return _lent(self._clients)

    def hints(self, resource: Resource, codec: TableCodec, child: Child | None) -> dict[str, Any]:
        """The hints of a table, with its merge."""
        names = self.names[codec.name]
        merge = (
            newer_wins(names, is_shared=True)
            if child is None
            else replace_children(child, self.names[resource.table], names, is_shared=True)
        )
        return {**table_hints(codec, child, self.type, True), "write_disposition": merge}


class _lent(AbstractContextManager[Any]):
    def __init__(self, clients: SimpleQueue[Any]) -> None:
        self._clients = clients

    def __enter__(self) -> Any:
        self._client = self._clients.get()
        return self._client

    def __exit__(self, *fault: Any) -> None:
        self._clients.put(self._client)


class _Collected:
    """The rows that accounts brought, by table, until there are enough for one yield."""

    def __init__(self, destination: _Destination, context: RunContext | None) -> None:
        self._destination, self._context = destination, context
        self._tables: dict[str, list[pa.Table]] = {}
        self._hinted: set[str] = set()

    def add(self, tables: Iterable[NamedTable]) -> Iterator[Any]:
        """Add rows, and yield those of tables that have enough."""
        for name, rows in tables:
            waiting = self._tables.setdefault(name, [])
            waiting.append(rows)
            if sum(one.num_rows for one in waiting) >= ROWS_OF_TABLE:
                yield self._take(name)

    def rest(self) -> Iterator[Any]:
        """Yield what is left; children last: if they are stored, the rest is as well."""
        for name in sorted(self._tables, key=SHARED_TABLES.index):
            if self._tables[name]:
                yield self._take(name)

    def _take(self, name: str) -> Any:
        rows = pa.concat_tables(self._tables.pop(name))
        if name == CHANGES:
            rows = rows.cast(SHARED_CHANGE_SCHEMA)
        if name in self._hinted:
            return dlt.mark.with_table_name(rows, name)
        self._hinted.add(name)
        hints = dlt.mark.make_hints(**self._hints_of(name))
        return dlt.mark.with_hints(rows, hints, create_table_variant=True)

    def _hints_of(self, name: str) -> dict[str, Any]:
        if name == CHANGES:
            return change_hints(self._destination.type, is_shared=True)
        assert self._context is not None
        if name in RESOURCES:
            return self._destination.hints(RESOURCES[name], self._context.codecs[name], None)
        resource = _PARENTS[name]
        child, codec = next(
            (child, codec)
            for child, codec in self._context.codecs[resource.table].children
            if codec.name == name
        )
        return self._destination.hints(resource, codec, child)


_PARENTS = {child.table: row for row in RESOURCES.values() for child in row.children}


@dlt.source(name="stripe", section="stripe_feed", max_table_nesting=0)
def accounts_source(batch: Any) -> Iterable[DltResource]:
    """The source of one package of several accounts: one resource, which fills all tables."""
    resource: DltResource = dlt.resource(_rows_of_accounts, name=CHANGES, _impl_cls=StripeResource)(
        batch
    )
    yield resource


def _rows_of_accounts(batch: AccountBatch) -> Iterator[Any]:
    yield from batch.rows()
