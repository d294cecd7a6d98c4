"""Sync every account that is connected to a platform, one after the other, each into its own copy."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from .api.client import Api
from .api.rate_limits import SharedBudget
from .destination.error_messages import translate_error
from .destination.pipeline import copy_names
from .destination.read import open_reader, read_state
from .errors import StripeFeedError, UsageError
from .extract.paging.fetch import decode_raw_rows, fetch_sublist
from .extract.run import make_api
from .resources import CHANGES
from .resources.model import Expandable
from .sync_run import Synced, sync

log = logging.getLogger("stripe_feed")

_ACCOUNTS = Expandable("accounts", "/v1/accounts")


@dataclass(frozen=True, slots=True)
class AccountResult:
    """What became of one account: what was loaded, or the error that kept it from being loaded."""

    account_id: str
    synced: Synced | None = None
    error: str = ""
    exit_code: int = 0  # that of the error
    cause: StripeFeedError | None = field(default=None, repr=False)


def sync_accounts(
    *,
    database: str | None = None,
    destination: str | None = None,
    state_dir: str | None = None,
    max_rps: float | None = None,
    **options: Any,
) -> Iterator[AccountResult]:
    """Sync each account that is connected to that of the key into its own dataset; yield the results
    as they come.

    First the accounts whose copy is missing or unfinished, then the one with the oldest cursor: a
    round that was interrupted goes on where it ended. `database` holds all datasets in one file; by
    default each account has a file of its own. `max_rps` is for each account and for all of them
    together. The other arguments are those of `sync`.

    An account that fails stops no other. Raises the errors of `stripe_feed.errors` only if the
    platform itself cannot be read, before or after an account failed.
    """
    reading: Any = {**options, "max_rps": max_rps}
    platform = make_api(reading)
    with closing(platform):
        accounts = _accounts_of(platform)
        budget = SharedBudget(platform.rps, time.monotonic())
        place = {"database": database, "destination": destination}
        cursors = {id: oldest_cursor(*_place_of(id, **place)) for id in accounts}
        log.info("%d connected accounts.", len(accounts))
        for id in sorted(accounts, key=lambda id: cursors[id]):
            own_file, _, dataset = _place_of(id, **place)
            try:
                done = sync(
                    account=id,
                    database=own_file,
                    destination=destination,
                    dataset=dataset,
                    state_dir=state_dir,
                    max_rps=max_rps,
                    budget=budget,
                    **options,
                )
            except UsageError:
                raise  # the same for all
            except Exception as fault:
                yield _failed(id, fault)
                platform.account()  # one that cannot be reached fails for all
            else:
                log.info(
                    "%s: %s rows, %s requests, %.1f s.",
                    id,
                    f"{sum(done.rows.values()):,}",
                    f"{done.requests:,}",
                    done.seconds,
                )
                yield AccountResult(id, done)


def connected_accounts(api_key: str | None = None, **options: Any) -> list[str]:
    """The ids of the accounts that are connected to the account of a key. `options` are those of the
    client, such as `max_rps`.
    """
    with closing(Api(api_key, **options)) as api:
        return _accounts_of(api)


def _accounts_of(api: Api) -> list[str]:
    def ids(body: bytes) -> tuple[list[tuple[str, Any]], bool]:
        rows, has_more = decode_raw_rows(body)
        return [(id, id) for id, _ in rows], has_more

    return fetch_sublist(api, _ACCOUNTS, "", ids)


def oldest_cursor(database: str | None, destination: str | None, dataset: str) -> int:
    """Up to which second the copy of an account was read; 0 if there is none yet, or if a first load
    is unfinished.
    """
    try:
        with open_reader(database, destination, dataset, wait=0.0) as copy:
            resources = read_state(copy).get("resources", {})
    except StripeFeedError:
        return 0  # the sync says why
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


def _failed(account: str, fault: Exception) -> AccountResult:
    known = translate_error(fault)
    reason = str(known or f"unexpected {type(fault).__name__}. Sync it alone to see more.")
    log.warning("%s: not loaded: %s", account, reason)
    return AccountResult(account, None, reason, known.exit_code if known else 1, known)
