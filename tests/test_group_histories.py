"""Random histories of objects of all groups: after each run the tables equal the account."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from stripe_feed.resources import RESOURCES
from stripe_feed.sandbox import Sandbox
from stripe_feed.sandbox.state.kinds import GROUPS, KINDS
from tests.copies import copy_of

RUNS = 3
PATHS = {kind.path for kind in KINDS.values()}
"""Those of lists with objects of the sandbox."""


def drawn_tables(dice: random.Random) -> list[str]:
    """A few resources that have a list of their own, most of them not of the core."""
    rows = [row for row in RESOURCES.values() if row.path in PATHS and row.parent is None]
    others = [row.table for row in rows if row.group != "core"]
    return [*dice.sample(others, 5), *dice.sample([row.table for row in rows], 2)]


@pytest.mark.parametrize("seed", range(1, 14), ids="seed{}".format)
def test_tables_of_all_groups_equal_a_random_history(seed: int, tmp_path: Path) -> None:
    """A first load, then what happened since, with all that events tell."""
    dice = random.Random(f"history {seed}")
    tables = sorted(set(drawn_tables(dice)))
    box = Sandbox(seed=seed, customers=6, oddities=False, groups=GROUPS)
    box.silent_changes = False
    box.advance(3600)
    with copy_of(box, tmp_path) as copy:
        for _ in range(RUNS):
            copy.sync(resources=tables, relist_hours=0)
            copy.check(*tables, found_later=True)
            box.live(dice.choice((60, 5_000, 90_000)), dice.choice((10, 60)))
            box.advance(600)
