"""A play: each new customer gets a welcome message, once. Run it on a schedule, such as every five
minutes.

The message goes to the URL in WELCOME_URL (a hook of Slack, Customer.io, n8n, Zapier or your own);
with WELCOME_SECRET (whsec_..., https://www.standardwebhooks.com) it is signed. The first run loads
everything and greets nobody; each later one greets those who came since. A message that fails is
tried again by later runs, for three days, with the same `webhook-id`.

What is due is sent whatever became of the copy. Exit codes: 0 all is well; 3 fix the key, a secret
or the database; 4 something was left out, held or given up; 5 Stripe is unreachable or limiting.
The key comes from STRIPE_SECRET_KEY or .dlt/secrets.toml.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from stripe_feed import (
    PartlyDone,
    StripeFeedError,
    deliver,
    open_feed,
    open_pipeline,
    sync,
    trigger,
)

DATABASE = "stripe_feed.duckdb"
MESSAGE = {
    "text": "Welcome {after.name}! Your customer id is {after.id}.",
    "to": "{after.email}",
    "id": "{after.id}",
}


def receiver() -> dict[str, Any]:
    """Where messages go; a receiver on this machine or network needs `allow_private`."""
    url, secrets = (
        os.environ["WELCOME_URL"],
        ["env:WELCOME_SECRET"] if "WELCOME_SECRET" in os.environ else [],
    )
    return {
        "url": url,
        "template": MESSAGE,
        "secrets": secrets,
        "allow_private": url.startswith("http://127.0.0.1"),
    }


def copied() -> int:
    """Bring the copy up to date and return the exit code."""
    try:
        return PartlyDone.exit_code if sync(database=DATABASE, wait=600).refused else 0
    except StripeFeedError as fault:
        print(f"error: {fault}", file=sys.stderr)
        return fault.exit_code


def main() -> int:
    """Run once and return the exit code."""
    try:
        welcome = trigger(
            {
                "name": "welcome",
                "preset": "customer_created",
                "where": "after.email != null",
                "enrol": "once",
                "deliver": receiver(),
            }
        )
        code = copied()
        with open_feed(open_pipeline(DATABASE)) as feed:
            fired, sent = deliver(feed, [welcome])
    except StripeFeedError as fault:
        print(f"error: {fault}", file=sys.stderr)
        return fault.exit_code
    print(f"{sent.sent} sent, {sent.failed} to be tried again, {sent.dead} given up")
    stuck = sent.dead or sent.disabled or any(one.held or one.error for one in fired)
    return code or (PartlyDone.exit_code if stuck else 0)


if __name__ == "__main__":
    sys.exit(main())
