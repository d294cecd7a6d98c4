"""Prefect: an hourly copy of each connected account, mapped over the accounts.

`python prefect_accounts.py` serves the schedule; `python prefect_accounts.py --once` runs it now.
The key of the platform comes from STRIPE_SECRET_KEY.
"""

from __future__ import annotations

import os
import sys

from prefect import flow, task
from prefect.task_runners import ThreadPoolTaskRunner

from stripe_feed import StripeFeedError, connected_accounts, sync

FOLDER = os.environ.get("STRIPE_FOLDER", ".")


def can_pass(_task: object, _run: object, state: object) -> bool:
    """Only what time mends is tried again: Stripe unreachable or limiting."""
    try:
        state.result()  # type: ignore[attr-defined]
    except StripeFeedError as fault:
        return fault.exit_code == 5
    except Exception:
        return False
    return False


@task(retries=2, retry_delay_seconds=300, retry_condition_fn=can_pass)
def copy_account(account: str) -> int:
    """Bring the copy of one account up to date, in a file of its own; return how many rows came."""
    done = sync(
        account=account, database=f"{FOLDER}/stripe_feed_{account.lower()}.duckdb", wait=600
    )
    return sum(done.rows.values())


# so many are read at once
@flow(name="stripe-feed-accounts", task_runner=ThreadPoolTaskRunner(max_workers=4))
def stripe_accounts() -> dict[str, int | None]:
    """Copy every account; None for one that failed, whose task run says why."""
    accounts = connected_accounts()
    copies = copy_account.map(accounts)
    copies.wait()
    states = [copy.state for copy in copies]
    return {
        account: state.result() if state.is_completed() else None
        for account, state in zip(accounts, states, strict=True)
    }


if __name__ == "__main__":
    if "--once" in sys.argv:
        stripe_accounts()
    else:
        stripe_accounts.serve(name="hourly-accounts", cron="7 * * * *")
