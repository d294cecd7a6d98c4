"""A play: each new customer gets a welcome message, once. Run it every five minutes.

The message goes to the URL in WELCOME_URL (a hook of Slack, Customer.io, n8n, Zapier or your own);
with WELCOME_SECRET (whsec_..., https://www.standardwebhooks.com) it is signed. The first run loads
everything and greets nobody; each later one greets those who came since. A message that fails is
tried again by later runs, for three days, with the same `webhook-id`.

What is due is sent whatever became of the copy. Exit codes: 0 all is well; 3 fix the key, a secret
or the database; 4 something was left out, held or given up; 5 Stripe is unreachable or limiting.
The key comes from STRIPE_SECRET_KEY or .dlt/secrets.toml.
"""

import os
import sys
from typing import Any

import stripe_feed as sf

DATABASE = "stripe_feed.duckdb"
TEXT = "Welcome {after.name}! Your customer id is {after.id}."
MESSAGE = {"text": TEXT, "to": "{after.email}", "id": "{after.id}"}
RULE = {"name": "welcome", "preset": "customer_created", "enrol": "once"}


def receiver() -> dict[str, Any]:
    """Where messages go; a receiver on this machine or network needs `allow_private`."""
    url, secrets = os.environ["WELCOME_URL"], []
    if "WELCOME_SECRET" in os.environ:
        secrets = ["env:WELCOME_SECRET"]
    private = url.startswith("http://127.0.0.1")
    return {"url": url, "template": MESSAGE, "secrets": secrets, "allow_private": private}


def copied() -> int:
    """Bring the copy up to date and return the exit code."""
    try:
        return sf.PartlyDone.exit_code if sf.sync(database=DATABASE, wait=600).refused else 0
    except sf.StripeFeedError as fault:
        print(f"error: {fault}", file=sys.stderr)
        return fault.exit_code


def main() -> int:
    """Run once and return the exit code."""
    try:
        welcome = sf.trigger({**RULE, "where": "after.email != null", "deliver": receiver()})
        code = copied()
        with sf.open_feed(sf.open_pipeline(DATABASE)) as feed:
            fired, sent = sf.deliver(feed, [welcome])
    except sf.StripeFeedError as fault:
        print(f"error: {fault}", file=sys.stderr)
        return fault.exit_code
    print(f"{sent.sent} sent, {sent.failed} to be tried again, {sent.dead} given up")
    stuck = sent.dead or sent.disabled or any(one.held or one.error for one in fired)
    return code or (sf.PartlyDone.exit_code if stuck else 0)


if __name__ == "__main__":
    sys.exit(main())
