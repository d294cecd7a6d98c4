"""A first load while the account lives on ends equal to it, row by row and change by change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stripe_feed.sandbox import Sandbox
from tests.copies import copy_of
from tests.feed_truth import assert_complete

SETTLED = (
    5 * 86_400
)  # by then what was created in the future is there, which events have told of before
WRITES = 100  # a second
PACES = (25, 10, 50, 4, 100)  # requests a second, by which the account's time goes on


def load(seed: int, folder: Path, customers: int) -> None:
    """Load an account that is written to all the time, then once more when all has settled."""
    box, pace, asked = (
        Sandbox(seed=seed, customers=customers, oddities=seed % 2 == 0),
        PACES[seed % len(PACES)],
        0,
    )

    def live(template: str, params: Any) -> None:
        nonlocal asked
        asked += 1
        box.live(0, WRITES // pace)
        if asked % pace == 0:
            box.advance(1)

    with copy_of(box, folder, hold=True) as copy:
        box.on_request = live
        copy.sync(**({"checkpoint_rows": 200} if seed % 3 == 0 else {}))
        box.on_request = None
        box.advance(SETTLED)
        copy.sync()
        copy.check(volatile=False)
        if seed % 2:  # what is on a test clock is told of nobody
            assert_complete(copy, late=True)


@pytest.mark.parametrize("seed", [3, 4])
def test_a_first_load_under_writes_ends_equal_to_the_account(seed: int, tmp_path: Path) -> None:
    load(seed, tmp_path, 40)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(50))
def test_fifty_first_loads_of_a_thousand_objects_end_equal_to_the_account(
    seed: int, tmp_path: Path
) -> None:
    load(seed, tmp_path, 370)
