"""One run for cron or any other scheduler: it waits for its turn, brings the copy up to date and
logs one line.

Exit codes: 0 up to date; 3 fix the key, a permission or the database; 4 resources or events left
out, the rest is loaded; 5 Stripe unreachable or limiting, the next run goes on; 130 interrupted,
the next run goes on; 1 anything else. The key comes from STRIPE_SECRET_KEY, or from `api_key` under
[sources.stripe_feed] in .dlt/secrets.toml.
"""

from __future__ import annotations

import argparse
import logging
import sys

from stripe_feed import PartlyDone, StripeFeedError, sync

log = logging.getLogger("scheduled")


def main() -> int:
    """Run once and return the exit code."""
    parser = argparse.ArgumentParser(description="Bring a copy of a Stripe account up to date.")
    parser.add_argument("--database", metavar="FILE", default="stripe_feed.duckdb")
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=float,
        default=600.0,
        help="for another run that is still at it",
    )
    given = parser.parse_args()

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")  # warnings of others
    log.setLevel(logging.INFO)
    try:
        done = sync(database=given.database, wait=given.wait)
    except StripeFeedError as fault:
        log.error("%s", fault)
        return fault.exit_code
    except KeyboardInterrupt:
        log.error("Interrupted; the next run goes on.")
        return 130
    except Exception as fault:  # its words may hold keys or data
        log.error("Unexpected %s; `stripe-feed sync --debug` shows where.", type(fault).__name__)
        return 1

    tables = (
        ", ".join(f"{rows:,} {table}" for table, rows in done.rows.items() if rows) or "nothing new"
    )
    log.info("%s: %s; %d requests, %.1f s", done.account_id, tables, done.requests, done.seconds)
    return PartlyDone.exit_code if done.refused else 0


if __name__ == "__main__":
    sys.exit(main())
