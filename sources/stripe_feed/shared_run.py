"""Sync the accounts that are connected to a platform into one dataset, keyed by account and id."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .accounts_run import (
    AccountResult,
    accounts_in_log,
    accounts_of,
    cursor_in,
    failed_account,
    log_failure,
    named_in_log,
)
from .api.client import Api
from .api.rate_limits import SharedBudget
from .api.transport import BytesHttpClient
from .destination.duckdb_file import hold_open, trim_memory, wait_for_readers
from .destination.load import finish_pending, run_load
from .destination.locks import DEFAULT_WAIT, retry_while_locked
from .destination.pipeline import (
    DEFAULT_PIPELINE,
    check_destination,
    lock_copy,
    open_pipeline,
    settings_for_many,
)
from .destination.place import place_of
from .destination.preflight import require_usable_dataset
from .destination.read import open_reader, read_state
from .destination.state import ACCOUNTS, check_owner, owner_of_many, stored_owner_of_many
from .errors import SetupError, StripeFeedError, UsageError
from .extract.accounts.batch import AccountBatch, AccountRun, accounts_source
from .extract.events.webhook import WebhookEvent
from .extract.options import SourceOptions, resource_names
from .extract.run import make_api, open_run, shared_codecs
from .resources.groups import tables_filled_by
from .sync_run import relay_changes, state_of_source, synced_of, tell_if_store_is_lost

log = logging.getLogger("stripe_feed")

SHARED_DATASET = "stripe_accounts"
SHARED_AT_ONCE = 8
PACKAGE_ROWS = 40_000
PACKAGE_ACCOUNTS = 300  # a crash costs the requests of so many accounts at most
ROWS_OF_ACCOUNT = 5_000  # objects of one account in a package: several are in memory
_LIMITS = "One dataset for all accounts "


def shared_names(database: str | None, dataset: str | None) -> tuple[str, str]:
    """The DuckDB file and the dataset of all accounts; those that are not given have a default."""
    return (
        f"{DEFAULT_PIPELINE}_accounts.duckdb" if database is None else database,
        SHARED_DATASET if dataset is None else dataset,
    )


@dataclass(frozen=True, slots=True)
class AccountTurn:
    """An account to read: everything that is new, or without `polls` only `webhook_events`."""

    account: str
    webhook_events: Sequence[WebhookEvent] = ()
    polls: bool = True


class SharedCopy:
    """The dataset of all accounts, open for writing; one thread uses it.

    `platform`: the client of the platform's key. `reading`: the options of a source, for each
    account.
    """

    def __init__(
        self,
        pipeline: Any,
        platform: Api,
        names: Sequence[str],
        reading: SourceOptions,
        at_once: int,
        wait: float,
        package_rows: int = PACKAGE_ROWS,
    ) -> None:
        self.pipeline, self.platform, self.names = pipeline, platform, names
        self.at_once, self.wait, self.package_rows = at_once, wait, package_rows
        self.owner = owner_of_many(platform.account())
        self._batch: AccountBatch | None = None
        self._stopped = False
        self._file = Path(str(place_of(pipeline).file))
        budget = SharedBudget(platform.rps, time.monotonic())
        transport = BytesHttpClient(platform.base, 4 * at_once)
        codecs = shared_codecs(open_run(reading).options)

        def open_account(turn: AccountTurn) -> AccountRun:
            of_account: Any = {**reading, "account": turn.account}
            context = open_run(
                of_account,
                keep_open=True,
                webhook_events=turn.webhook_events,
                budget=budget,
                codecs=codecs,
                transport=transport,
                package_rows=ROWS_OF_ACCOUNT,
                polls=turn.polls,
                followed=tuple(names),
            )
            return AccountRun(turn.account, context)

        self._open_account = open_account

    def cursors(self) -> dict[str, int]:
        """Up to which second each account was read; 0 if a first load is unfinished."""
        states = state_of_source(self.pipeline).get(ACCOUNTS, {})
        return {account: cursor_in(state) for account, state in states.items()}

    def stop(self) -> None:
        """Stop what runs, from another thread: its accounts fail, and are read again another time."""
        self._stopped = True
        if self._batch is not None:
            self._batch.stop()

    def sync(self, turns: Sequence[AccountTurn]) -> Iterator[AccountResult]:
        """Read these accounts, in this order as far as they have room; yield the result of each once
        its rows are loaded.
        """
        tell_if_store_is_lost(self.pipeline)
        waiting = deque(map(self._open_account, turns))
        while waiting and not self._stopped:
            self._batch = batch = AccountBatch(
                self.owner,
                self.platform.version,
                self.names,
                waiting,
                self.at_once,
                self.package_rows,
                PACKAGE_ACCOUNTS,
                named_in_log,
            )
            with hold_open(self._file):  # each opening costs as much as a query
                run_load(self.pipeline, accounts_source(batch), self.wait)
                relayed = relay_changes(self.pipeline, self.wait)
            trim_memory()
            for run, fault in batch.failed:
                yield failed_account(run.account, fault)
            for run in batch.done:
                if run.is_finished:
                    synced = synced_of(
                        run.context,
                        run.context.account,
                        run.requests,
                        run.seconds,
                        run.packages,
                        relayed,
                    )
                    yield AccountResult(run.account, synced)
                    run.context.close()
                else:
                    waiting.append(run)


def shared_cursors(database: str | None, dataset: str | None) -> dict[str, int]:
    """Up to which second each account of a dataset was read; empty if there is none."""
    file, name = shared_names(database, dataset)
    try:
        with open_reader(file, None, name, wait=0.0) as copy:
            states = read_state(copy).get(ACCOUNTS, {})
    except StripeFeedError:
        return {}  # the sync says why
    return {account: cursor_in(state) for account, state in states.items()}


@contextmanager
def open_shared(
    platform: Api,
    *,
    database: str | None = None,
    destination: str | None = None,
    dataset: str | None = None,
    state_dir: str | None = None,
    resources: Sequence[str] | None = None,
    at_once: int = SHARED_AT_ONCE,
    wait: float = DEFAULT_WAIT,
    checkpoint_rows: int | None = None,
    **reading: Any,
) -> Iterator[SharedCopy]:
    """Open the dataset of all accounts for writing: lock it, load what an earlier run left, and take
    the state from the destination.

    Raises the errors of `stripe_feed.errors`; nothing is written then.
    """
    if destination not in (None, "duckdb"):
        raise SetupError(
            f"{_LIMITS}is for DuckDB. Leave out --shared: then each account has a dataset of its own in {destination}."
        )
    if reading.pop("full_refresh", False):
        raise UsageError(
            f"{_LIMITS}has no --full-refresh: delete the file and its feed store, and sync again."
        )
    if reading.get("deletes", "soft") != "soft":
        raise UsageError(f"{_LIMITS}keeps deleted rows: leave out --deletes hard.")
    names = resource_names(resources)
    database, dataset = shared_names(database, dataset)
    pipeline = open_pipeline(database, None, dataset, state_dir)
    with wait_for_readers(pipeline, wait), lock_copy(pipeline, "stripe-feed sync", wait):
        retry_while_locked(partial(check_destination, pipeline), wait)
        owner = owner_of_many(platform.account())
        pipeline, _ = finish_pending(pipeline, owner, wait)
        check_owner(owner, stored_owner_of_many(state_of_source(pipeline)))
        require_usable_dataset(pipeline, state_of_source(pipeline), tables_filled_by(names))
        options: Any = reading
        try:
            rows = checkpoint_rows or PACKAGE_ROWS
            yield SharedCopy(pipeline, platform, names, options, at_once, wait, rows)
        except BaseException:
            if not pipeline.has_pending_data:
                pipeline.drop()  # dlt keeps the rows of a package that was extracted only in part
            raise


def sync_shared(
    *,
    max_rps: float | None = None,
    **options: Any,
) -> Iterator[AccountResult]:
    """Sync all connected accounts into one dataset; yield the result of each once it is loaded.

    The tables are those of one account, keyed by `account_id` and `id`, and the source's state holds
    a state for each account. Accounts that are missing or unfinished come first, then the one with
    the oldest cursor. An account that fails stops no other, and nothing of it is in the package.
    `options`: those of `sync_accounts`, and `dataset`. Raises the errors of `stripe_feed.errors` if
    the platform or the dataset cannot be used.
    """
    reading: Any = {**options, "max_rps": max_rps}
    with ExitStack() as held:
        platform = held.enter_context(closing(make_api(reading)))
        held.enter_context(settings_for_many())
        held.enter_context(accounts_in_log())
        accounts = accounts_of(platform)
        log.info("%d connected accounts.", len(accounts))
        copy = held.enter_context(open_shared(platform, **reading))
        cursors = copy.cursors()
        turns = [AccountTurn(id) for id in sorted(accounts, key=lambda id: cursors.get(id, 0))]
        for result in copy.sync(turns):
            yield result if result.synced is not None else log_failure(result)
            if result.synced is None:
                platform.account()  # one that cannot be reached fails for all
