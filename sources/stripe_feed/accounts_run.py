"""Sync the accounts that are connected to a platform, several at once, each into its own copy."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack, closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from .api.client import Api
from .api.rate_limits import SharedBudget
from .destination.duckdb_file import hold_open
from .destination.error_messages import translate_error
from .destination.pipeline import copy_names, resolve_place, settings_for_many
from .destination.read import open_reader, read_state
from .errors import StripeFeedError, UsageError
from .extract.paging.fetch import decode_raw_rows, fetch_sublist
from .extract.run import RunContext, make_api
from .resources import CHANGES
from .resources.model import Expandable
from .sync_run import Synced, sync
from .wording import counted

log = logging.getLogger("stripe_feed")

ACCOUNTS_AT_ONCE = 4
_ACCOUNTS = Expandable("accounts", "/v1/accounts")
_current_account: ContextVar[str] = ContextVar("current_account", default="")


@dataclass(frozen=True, slots=True)
class AccountResult:
    """What became of one account: what was loaded, or the error that kept it from being loaded."""

    account_id: str
    synced: Synced | None = None
    error: str = ""
    exit_code: int = 0  # that of the error
    cause: StripeFeedError | None = field(default=None, repr=False)


class RunningSyncs:
    """The syncs that run in several threads, so that all of them can be stopped."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self._lock = threading.Lock()
        self._contexts: dict[str, RunContext] = {}  # by account

    def watch(self, account: str, context: RunContext) -> None:
        """Keep the run of an account, in the place of the one before."""
        with self._lock:
            self._contexts[account] = context
        if self.stopped.is_set():
            context.api.close()

    def forget(self, account: str) -> None:
        """The run of an account has ended."""
        with self._lock:
            self._contexts.pop(account, None)

    def stop(self) -> None:
        """Stop what runs: the requests end, and the next sync of each account continues there."""
        self.stopped.set()
        with self._lock:
            contexts = list(self._contexts.values())
        for context in contexts:
            context.api.close()


def sync_accounts(
    *,
    database: str | None = None,
    destination: str | None = None,
    state_dir: str | None = None,
    max_rps: float | None = None,
    at_once: int = ACCOUNTS_AT_ONCE,
    **options: Any,
) -> Iterator[AccountResult]:
    """Sync each account that is connected to that of the key into its own dataset, `at_once` of them
    side by side; yield the results as they come.

    Those whose copy is missing or unfinished come first, then the one with the oldest cursor: a
    round that was interrupted goes on where it ended. `database` holds all datasets in one file,
    which has one writer: one account at once. By default each account has a file of its own.
    `max_rps` is for each account and for all of them together. The other arguments are those of
    `sync`. Until the iterator is closed, new files of this process are private, and dlt's settings
    are ours.

    An account that fails stops no other. Raises the errors of `stripe_feed.errors` only if the
    platform itself cannot be read, before or after an account failed.
    """
    if at_once < 1:
        raise UsageError("at_once is the number of accounts to sync side by side: give 1 or more.")
    reading: Any = {**options, "max_rps": max_rps}
    platform = make_api(reading)
    syncs = RunningSyncs()
    with ExitStack() as held:
        held.enter_context(closing(platform))
        held.enter_context(settings_for_many())
        held.enter_context(accounts_in_log())
        accounts = accounts_of(platform)
        log.info("%d connected accounts.", len(accounts))
        one_file = is_one_file(database, destination)
        pool = ThreadPoolExecutor(1 if one_file else at_once, "stripe-feed-account")
        held.callback(pool.shutdown, cancel_futures=True)
        held.callback(syncs.stop)
        sync_one = partial(
            sync_account,
            syncs,
            SharedBudget(platform.rps, time.monotonic()),
            database=database,
            destination=destination,
            state_dir=state_dir,
            max_rps=max_rps,
            **options,
        )
        for id, future in _in_order(pool, accounts, database, destination, sync_one):
            try:
                done = future.result()
            except UsageError:
                raise  # the same for all
            except Exception as fault:
                yield log_failure(failed_account(id, fault))
                platform.account()  # one that cannot be reached fails for all
            else:
                log.info(
                    "%s: %s, %s, %.1f s.",
                    id,
                    counted(sum(done.rows.values()), "row"),
                    counted(done.requests, "request"),
                    done.seconds,
                )
                yield AccountResult(id, done)


def _in_order(
    pool: ThreadPoolExecutor,
    accounts: Sequence[str],
    database: str | None,
    destination: str | None,
    sync_one: Callable[[str, bool], Synced],
) -> Iterator[tuple[str, Future[Synced]]]:
    """Start the syncs in the order of the cursors, and yield them as they end."""

    cursor = partial(cursor_of_account, database=database, destination=destination)
    cursors = dict(zip(accounts, pool.map(cursor, accounts), strict=True))
    futures = {
        pool.submit(sync_one, id, cursors[id] > 0): id
        for id in sorted(accounts, key=lambda id: cursors[id])
    }
    for future in as_completed(futures):
        yield futures.pop(future), future  # a fault holds on to all that its run had


def is_one_file(database: str | None, destination: str | None) -> bool:
    """Whether the copies of all accounts are in one file, which has one writer."""
    if destination in (None, "duckdb"):
        return database is not None
    place = resolve_place(database, destination)
    return place.file is not None or place.is_sqlite


def sync_account(
    syncs: RunningSyncs,
    budget: SharedBudget,
    account: str,
    has_whole_copy: bool,
    *,
    database: str | None,
    destination: str | None,
    **options: Any,
) -> Synced:
    """Sync one account in one of several threads. `has_whole_copy`: it was loaded once."""
    own_file, _, dataset = _place_of(account, database, destination)
    try:
        with named_in_log(account), ExitStack() as held:
            if own_file is not None and has_whole_copy and not options.get("full_refresh"):
                held.enter_context(hold_open(Path(own_file)))  # there is little to load
            return sync(
                account=account,
                database=own_file,
                destination=destination,
                dataset=dataset,
                budget=budget,
                watch=partial(syncs.watch, account),
                **options,
            )
    finally:
        syncs.forget(account)


@contextmanager
def named_in_log(account: str) -> Iterator[None]:
    """Let the messages of this thread begin with the account, inside `accounts_in_log`."""
    named = _current_account.set(account)
    try:
        yield
    finally:
        _current_account.reset(named)


@contextmanager
def accounts_in_log() -> Iterator[None]:
    """Let the messages of a thread that syncs an account begin with the account."""

    def name(record: logging.LogRecord) -> bool:
        if account := _current_account.get():
            record.msg = f"{account}: {record.msg}"
        return True

    log.addFilter(name)
    try:
        yield
    finally:
        log.removeFilter(name)


def connected_accounts(api_key: str | None = None, **options: Any) -> list[str]:
    """The ids of the accounts that are connected to the account of a key. `options` are those of the
    client, such as `max_rps`.
    """
    with closing(Api(api_key, **options)) as api:
        return accounts_of(api)


def accounts_of(api: Api) -> list[str]:
    """The ids of the accounts that are connected to that of the key."""

    def ids(body: bytes) -> tuple[list[tuple[str, Any]], bool]:
        rows, has_more = decode_raw_rows(body)
        return [(id, id) for id, _ in rows], has_more

    return fetch_sublist(api, _ACCOUNTS, "", ids)


def cursor_of_account(account: str, database: str | None, destination: str | None) -> int:
    """`oldest_cursor` of the copy of an account."""
    return oldest_cursor(*_place_of(account, database, destination))


def oldest_cursor(database: str | None, destination: str | None, dataset: str) -> int:
    """Up to which second the copy of an account was read; 0 if there is none yet, or if a first load
    is unfinished.
    """
    try:
        with open_reader(database, destination, dataset, wait=0.0) as copy:
            state = read_state(copy)
    except StripeFeedError:
        return 0  # the sync says why
    return cursor_in(state)


def cursor_in(state: Mapping[str, Any]) -> int:
    """The same, from the state of the account's source."""
    resources = state.get("resources", {})
    if any(any(state.get("left", ())) for state in resources.values()):
        return 0
    cursors = [state.get("cursor") or 0 for state in resources.get(CHANGES, {}).values()]
    listed = [state["t0"] for state in resources.values() if "t0" in state]
    return min(cursors or listed, default=0)


def _place_of(
    account: str, database: str | None, destination: str | None
) -> tuple[str | None, str | None, str]:
    own_file, dataset = copy_names(account, database, destination, None)
    return own_file, destination, dataset


def failed_account(account: str, fault: Exception) -> AccountResult:
    """The result of an account that could not be loaded."""
    known = translate_error(fault)
    reason = str(known or f"unexpected {type(fault).__name__}. Sync it alone to see more.")
    return AccountResult(account, None, reason, known.exit_code if known else 1, known)


def log_failure(result: AccountResult) -> AccountResult:
    """Log why an account could not be loaded."""
    log.warning("%s: not loaded: %s", result.account_id, result.error)
    return result
