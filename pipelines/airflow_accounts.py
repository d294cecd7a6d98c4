"""Airflow (2.9 or 3): an hourly copy of each connected account, mapped over the accounts. For the
dags folder; `stripe-feed` goes where the workers run.

The key of the platform comes from STRIPE_SECRET_KEY of the workers. Make the pool `stripe`: its
slots say how many accounts are read at once.
"""

from __future__ import annotations

import os
from datetime import timedelta

import pendulum
from airflow.decorators import dag, task
from airflow.exceptions import AirflowFailException

from stripe_feed import StripeFeedError, connected_accounts, sync

FOLDER = os.environ.get("STRIPE_FOLDER", "/srv/stripe")


@dag(
    schedule="@hourly",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5)},
)
def stripe_accounts() -> None:
    """List the accounts, then copy each."""

    @task
    def accounts() -> list[str]:
        return connected_accounts()

    @task(pool="stripe")
    def copy(account: str) -> int:
        try:
            file = f"{FOLDER}/stripe_feed_{account.lower()}.duckdb"
            return sum(sync(account=account, database=file, wait=600).rows.values())
        except StripeFeedError as fault:  # a retry does not give back an access
            raise fault if fault.exit_code == 5 else AirflowFailException(str(fault)) from None

    copy.expand(account=accounts())


stripe_accounts()
