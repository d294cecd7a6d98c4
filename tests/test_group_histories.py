"""Random histories of objects of all groups: after each run the tables equal the account."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from stripe_feed.resources import RESOURCES
from stripe_feed.sandbox import Sandbox
from stripe_feed.sandbox.state.kinds import GROUPS, KINDS, paths_of
from tests.copies import copy_of

RUNS = 3
PATHS = {path for kind in KINDS.values() for path in paths_of(kind)}
"""Those of lists with objects of the sandbox."""


def drawn_tables(dice: random.Random) -> list[str]:
    """A few resources that have a list of their own, most of them not of the core, and a few with
    one list per object of another resource, with that one.
    """
    rows = [row for row in RESOURCES.values() if row.path.replace("{id}", ":id") in PATHS]
    whole = [row.table for row in rows if row.parent is None]
    others = [row.table for row in rows if row.parent is None and row.group != "core"]
    sublists = dice.sample([row for row in rows if row.parent], 2)
    parents = [row.parent.table for row in sublists if row.parent]
    own = [*dice.sample(others, 4), *dice.sample(whole, 1)]
    return [*own, *parents, *(row.table for row in sublists)]


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
