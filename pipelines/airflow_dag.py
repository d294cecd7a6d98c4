"""Airflow (2.9 or 3): an hourly copy, then the triggers. For the dags folder; `stripe-feed` goes
where the workers run.

The connection-free way: the key comes from STRIPE_SECRET_KEY of the workers, or .dlt/secrets.toml
in STRIPE_FOLDER. Exit codes 3 and 4 want a person, so they fail without a retry; 5 (Stripe
unreachable or limiting) is worth one.
"""

from __future__ import annotations

import os
from datetime import timedelta

import pendulum
from airflow.decorators import dag, task
from airflow.exceptions import AirflowFailException

from stripe_feed import StripeFeedError, deliver, open_feed, open_pipeline, read_triggers, sync

FOLDER = os.environ.get("STRIPE_FOLDER", "/srv/stripe")
DATABASE = f"{FOLDER}/stripe_feed.duckdb"


def only_if_it_helps(fault: StripeFeedError) -> Exception:
    """A retry does not mend a key."""
    return fault if fault.exit_code == 5 else AirflowFailException(str(fault))


@dag(
    schedule="@hourly",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5)},
)
def stripe() -> None:
    """Copy, then plays."""

    @task
    def copy() -> dict[str, int]:
        try:
            return sync(database=DATABASE, wait=600).rows
        except StripeFeedError as fault:
            raise only_if_it_helps(fault) from None

    @task(trigger_rule="all_done")  # what is due is sent, whatever became of the copy
    def plays() -> int:
        with open_feed(open_pipeline(DATABASE)) as feed:
            return deliver(feed, read_triggers(f"{FOLDER}/triggers.toml"))[1].sent

    copy() >> plays()


stripe()
