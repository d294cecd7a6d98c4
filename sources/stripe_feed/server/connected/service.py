"""Keep the copies of connected accounts fresh: sync an account when its webhooks announce events, and
read each account as a whole once in a while.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, suppress
from functools import partial
from typing import Any

from ...accounts_run import (
    ACCOUNTS_AT_ONCE,
    RunningSyncs,
    accounts_in_log,
    accounts_of,
    cursor_of_account,
    is_one_file,
    sync_account,
)
from ...api.credentials import find_key
from ...api.rate_limits import SharedBudget
from ...destination.pipeline import open_pipeline, settings_for_many
from ...destination.place import companion_file
from ...errors import SetupError, StripeFeedError, TryLater
from ...extract.run import make_api
from ...feed.storage.store import FeedStore
from ...shared_run import (
    SHARED_AT_ONCE,
    SharedCopy,
    open_shared,
    shared_cursors,
    shared_names,
)
from .. import webhook_inbox
from ..service import (
    KEEP_SECONDS,
    WAIT_FOR_LOCK,
    pause_after,
)
from .accounts import Accounts
from .turns import Turns

log = logging.getLogger("stripe_feed")

INBOX_SUFFIX = ".accounts.sqlite"
TOGETHER = 200  # accounts with announced events, in one package
LIST_EVERY = 600.0  # seconds between two looks at the list of accounts
LIST_SOON = 10.0  # the same after a webhook of an account that is not in it


def follow_list(
    accounts: Accounts, listed: Callable[[], Sequence[str]], cursor: Callable[[str], int]
) -> None:
    """Read the list of connected accounts at once, every ten minutes and after a webhook of an
    account that is not in it, until stopped.
    """
    failures = 0
    while not accounts.stopped.is_set():
        accounts.list_asked.clear()
        try:
            accounts.follow(listed(), cursor)
            webhook_inbox.prune_read_events(accounts.inbox, accounts.now() - KEEP_SECONDS)
            accounts.error, failures = None, 0
        except Exception as fault:  # its words may hold data
            failures += 1
            accounts.error = type(fault).__name__
            words = str(fault) if isinstance(fault, StripeFeedError) else "It is tried again."
            log.warning("The connected accounts cannot be listed (%s): %s", accounts.error, words)
        accounts.stopped.wait(pause_after(failures) if failures else LIST_SOON)
        if not failures:
            accounts.list_asked.wait(LIST_EVERY)


def keep_together(
    accounts: Accounts,
    open_copy: Callable[[], AbstractContextManager[SharedCopy]],
    copies: list[SharedCopy],
) -> None:
    """Sync the accounts that have a turn into one dataset, until stopped. `copies` holds the open one.

    The dataset is opened again after a failure: what is left of a load is finished then.
    """
    failures = 0
    while not accounts.stopped.is_set():
        try:
            with open_copy() as copy:
                copies[:] = [copy]
                accounts.load_error, failures = None, 0
                accounts.work_together(copy.sync)
        except Exception as fault:  # its words may hold data
            failures += 1
            accounts.load_error = type(fault).__name__
            words = str(fault) if isinstance(fault, StripeFeedError) else "It is tried again."
            if not accounts.stopped.is_set():
                log.warning("Nothing can be loaded (%s): %s", accounts.load_error, words)
            accounts.stopped.wait(pause_after(failures))
        finally:
            copies.clear()


def serve_accounts(
    *,
    host: str,
    port: int,
    secrets: Sequence[str],
    every: float,
    stopped: threading.Event,
    ready: Callable[[str], object],
    database: str | None = None,
    destination: str | None = None,
    state_dir: str | None = None,
    at_once: int | None = None,
    shared: bool = False,
    dataset: str | None = None,
    **reading: Any,
) -> None:
    """Keep the copy of each connected account fresh until SIGTERM, SIGINT or `stopped`.

    Answers `POST /stripe`, to which Stripe sends the events of connected accounts, and `GET
    /health`. `secrets`: of the endpoint in Stripe; if empty, webhooks are refused. `every`: seconds
    between whole readings of an account. `shared`: all accounts have one dataset, in which those
    with announced events are loaded together. `ready` gets the address once requests are answered. The other
    arguments are those of `sync_accounts`. Raises `UsageError` and `SetupError` before it starts.
    """
    try:
        from ..listener import listen, run_listener
        from .app import create_accounts_app
    except ModuleNotFoundError as fault:
        raise SetupError(
            f"{fault.name} is not installed. Run: pip install 'stripe-feed[serve]'"
        ) from None
    reading["api_key"] = find_key(reading.get("api_key"))
    if shared:
        database, dataset = shared_names(database, dataset)
    places: dict[str, Any] = {"database": database, "destination": destination}
    syncs, options = RunningSyncs(), {**reading, **places, "state_dir": state_dir}
    client_options: Any = reading
    with ExitStack() as held:
        bound = held.enter_context(listen(host, port))
        held.enter_context(settings_for_many())
        held.enter_context(accounts_in_log())
        platform = held.enter_context(closing(make_api(client_options)))
        pipeline = open_pipeline(state_dir=state_dir, dataset=dataset, **places)
        path = companion_file(pipeline, INBOX_SUFFIX)
        path.parent.mkdir(parents=True, exist_ok=True)
        at_once = at_once or (SHARED_AT_ONCE if shared else ACCOUNTS_AT_ONCE)
        threads_of_syncs = 1 if shared or is_one_file(database, destination) else at_once
        budget = SharedBudget(platform.rps, time.monotonic())
        accounts = Accounts(
            held.enter_context(FeedStore(path)),
            held.enter_context(FeedStore(path)),
            Turns(every, TOGETHER, at_once // 2) if shared else Turns(every, threads_of_syncs),
            platform.live,
            partial(sync_account, syncs, budget, wait=WAIT_FOR_LOCK, **options),
            stopped=stopped,
        )
        with suppress(TryLater):  # then it is read as soon as Stripe answers
            accounts.connected = frozenset(accounts_of(platform))
        copies: list[SharedCopy] = []
        work: Callable[[], None] = accounts.work
        cursor: Callable[[str], int] = partial(cursor_of_account, **places)
        if shared:
            open_copy = partial(
                open_shared,
                platform,
                dataset=dataset,
                at_once=at_once,
                **{**options, "wait": WAIT_FOR_LOCK},
            )
            work = partial(keep_together, accounts, open_copy, copies)
            cursors = shared_cursors(database, dataset)
            cursor = lambda account: cursors.get(account, 0)  # noqa: E731
        threads = [
            threading.Thread(target=work, name=f"account-{n}") for n in range(threads_of_syncs)
        ]
        threads.append(
            threading.Thread(
                target=follow_list,
                args=(accounts, partial(accounts_of, platform), cursor),
                name="accounts",
            )
        )
        app = create_accounts_app(accounts, secrets)
        for thread in threads:
            thread.start()
        try:
            run_listener(app, host, bound, stopped, ready, accounts.counts)
        finally:
            accounts.stop()
            for copy in copies:
                copy.stop()
            platform.close()
            syncs.stop()
            for thread in threads:
                thread.join()
