"""A burst of webhooks through `serve`: `python tests/bench/burst.py [--events N]`. Requests per
page are exact, seconds are not.

Within the budget of test mode, 20 requests a second; the webhooks come as the events happen, 500 a
second.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from math import ceil
from pathlib import Path

from stripe_feed.feed.storage.store import FeedStore
from stripe_feed.sandbox import Sandbox

Figure = tuple[str, str, str, bool]

MOST_SECONDS = 300.0
RATE = 500  # events a second


def figures(events: int = 1_700) -> list[Figure]:
    """How many requests a burst takes for each page that it fills, and how long it is until the
    last change is in the feed.
    """
    box = Sandbox(seed=1, customers=200, oddities=False, now=int(time.time()), real_time=True)
    with tempfile.TemporaryDirectory() as name, box.serve() as url:
        environment = {
            **os.environ,
            "STRIPE_API_BASE": url,
            "STRIPE_SECRET_KEY": box.key,
            "DLT_DATA_DIR": f"{name}/dlt",
            "STRIPE_FEED_TOKEN": "a token that nobody asks for".replace(" ", "-"),
            "STRIPE_WEBHOOK_SECRET": "whsec_none",
        }
        hook = box.webhook_endpoint("http://127.0.0.1:1/stripe")
        environment["STRIPE_WEBHOOK_SECRET"] = hook["secret"]
        command = [
            sys.executable,
            "-m",
            "stripe_feed",
            "serve",
            "--port",
            "0",
            "--every",
            "1h",
            "--resources",
            "customers",
        ]
        process = subprocess.Popen(
            command,
            cwd=name,
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stderr is not None
            said = next(line for line in process.stderr if "http://127.0.0.1:" in line)
            port = (
                said.partition("http://127.0.0.1:")[2].partition("/")[0].partition(",")[0].strip()
            )
            box.account.webhooks.endpoints[hook["id"]].object["url"] = (
                f"http://127.0.0.1:{port}/stripe"
            )
            return _measured(
                box,
                Path(name) / "stripe_feed.feed.sqlite",
                f"http://127.0.0.1:{port}/health",
                events,
            )
        finally:
            process.terminate()
            process.wait()


def _measured(box: Sandbox, store: Path, health: str, events: int) -> list[Figure]:
    until = time.monotonic() + MOST_SECONDS
    while time.monotonic() < until:
        with urllib.request.urlopen(health) as answer:
            if json.load(answer)["synced_at"]:
                break
        time.sleep(0.2)
    box.reset_counts()
    began, ids = time.monotonic(), sorted(box.objects("customers"))
    for n in range(events):
        time.sleep(max(0.0, began + n / RATE - time.monotonic()))
        box.update("customers", ids[n % len(ids)], name=f"Burst {n}")
    with FeedStore(store) as feed:
        while feed.head < events and time.monotonic() < until:
            time.sleep(0.1)
        seconds, head = time.monotonic() - began, feed.head
    asked = sum(count for (path, _), count in box.counts.items() if path.startswith("/v1/events"))
    alone = sum(count for (path, _), count in box.counts.items() if path == "/v1/events/:id")
    share = asked / ceil(events / 100)
    return [
        (
            f"a burst of {events:,} webhooks, requests per page",
            f"{share:.2f}",
            "<= 1.2",
            share <= 1.2 and head >= events,
        ),
        ("events asked for by id", f"{alone}", "(no target)", True),
        ("all requests", f"{sum(box.counts.values())}", "(no target)", True),
        ("until the last change is in the feed", f"{seconds:.1f} s", "(no target)", True),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_700)
    for name, value, target, good in figures(parser.parse_args().events):
        print(f"{'ok  ' if good else 'MISS'}  {name:<52} {value:>12}   target {target}", flush=True)


if __name__ == "__main__":
    main()
