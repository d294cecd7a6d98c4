"""Prefect: an hourly copy, then an event for each change, which can start other flows.

`python prefect_flow.py` serves the schedule; `python prefect_flow.py --once` runs it now. The key
comes from STRIPE_SECRET_KEY.
"""

from __future__ import annotations

import os
import sys

from prefect import flow, task
from prefect.events import emit_event

from stripe_feed import StripeFeedError, open_feed, open_pipeline, sync

DATABASE = os.environ.get("STRIPE_DATABASE", "stripe_feed.duckdb")


def may_pass(_task: object, _run: object, state: object) -> bool:
    """Only what time mends is tried again: Stripe unreachable or limiting."""
    try:
        state.result()  # type: ignore[attr-defined]
    except StripeFeedError as fault:
        return fault.exit_code == 5
    except Exception:
        return False
    return False


@task(retries=2, retry_delay_seconds=300, retry_condition_fn=may_pass)
def copy() -> dict[str, int]:
    """Bring the copy up to date."""
    return sync(database=DATABASE, wait=600).rows


@task
def tell() -> int:
    """Emit an event for each new change; with ids only, because many may read events."""
    told = 0
    with open_feed(open_pipeline(DATABASE)) as feed:
        for change in feed.consume("prefect"):
            emit_event(
                f"stripe.{change.resource}.{change.op}",
                {"prefect.resource.id": f"stripe.{change.object_id}"},
                payload={"change_id": change.change_id, "changed": change.changed},
            )
            told += 1
    return told


@flow(name="stripe-feed")
def stripe_feed() -> int:
    """Copy, then tell."""
    copy()
    return tell()


if __name__ == "__main__":
    stripe_feed() if "--once" in sys.argv else stripe_feed.serve(name="hourly", cron="7 * * * *")
