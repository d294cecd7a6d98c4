"""A play on changes: bring the copy up to date, then handle each subscription that turned past_due
or canceled.

The first run loads everything and handles nothing; each later one handles what happened since. Put
your own action into `handle`: where it raises, its change is not acknowledged and comes first in
the next run.

Exit codes: 0 all is handled; 3 fix the key, a permission or the database; 4 some resources left
out, or the key may not read events; 5 Stripe unreachable or limiting, the next run goes on; 1
anything else, `handle` included. The key comes from STRIPE_SECRET_KEY, or from `api_key` under
[sources.stripe_feed] in .dlt/secrets.toml.
"""

from __future__ import annotations

import sys

from stripe_feed import Change, PartlyDone, StripeFeedError, open_feed, open_pipeline, sync

DATABASE = "stripe_feed.duckdb"
CONSUMER = "watch_subscriptions"  # its position is kept under this name
TURNED = {"status": (..., ["past_due", "canceled"])}


def handle(change: Change) -> None:
    """Replace this. Delivery is at least once: `change.change_id` is the key for doing something
    exactly once.
    """
    before, after = change.before or {}, change.after or {}
    print(
        f"{change.object_id} of {change.customer_id}: {before.get('status')} -> {after.get('status')}",
        flush=True,
    )


def main() -> int:
    """Run once and return the exit code."""
    try:
        done = sync(database=DATABASE, wait=600)
        with open_feed(open_pipeline(DATABASE)) as feed:
            for change in feed.consume(CONSUMER, resource="subscriptions", transition=TURNED):
                handle(change)  # acknowledged when the loop asks for the next one
    except StripeFeedError as fault:
        print(f"error: {fault}", file=sys.stderr)
        return fault.exit_code
    return PartlyDone.exit_code if done.refused else 0


if __name__ == "__main__":
    sys.exit(main())
