"""A push that is killed (kill -9) again and again ends with each row once: nothing twice, nothing missing,
no change made a second time.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from stripe_feed.sandbox import Sandbox
from tests.push_kills import table

SCRIPT = Path(__file__).with_name("push_kills.py")


def killed(rows: int, kills: int, seed: int) -> None:
    box = Sandbox(seed=seed, customers=0, invoices=0, subscriptions=0, oddities=False)
    with box.serve() as url:
        done = subprocess.run(
            [sys.executable, str(SCRIPT), url, box.key, "k.sqlite", *map(str, (rows, kills, seed))],
            check=False,
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr[-2_000:]
    told = json.loads(done.stdout)
    assert sum(told["killed"].values()) == kills
    last = table(rows, told["changes"] + told["changes_of_thinned"], True)
    held = sorted((one["email"], one["name"]) for one in box.objects("customers").values())
    assert held == sorted((row["email"], row["name"]) for row in last)
    assert Counter(event.type for event in box.events) == {
        "customer.created": rows,
        "customer.updated": rows * told["changes"] + len(last) * told["changes_of_thinned"],
        "customer.deleted": rows - len(last),
    }
    print(f"{kills} kills over {rows} rows: {told}")


@pytest.mark.parametrize(("rows", "kills"), [(60, 20), (1_000, 20)])
def test_a_push_that_is_killed_again_and_again_does_everything_once(rows: int, kills: int) -> None:
    killed(rows, kills, seed=rows)


@pytest.mark.long
def test_a_push_of_a_thousand_rows_survives_a_thousand_kills() -> None:
    killed(1_000, 1_000, seed=7)
