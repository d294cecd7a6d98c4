"""A bad day at Stripe: a whole account is loaded through everything that passes, and is exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stripe_feed.sandbox import Sandbox
from stripe_feed.sandbox.protocol.faults import Faults
from tests.copies import copy_of
from tests.truth import truth

LIMITED = range(40, 70)  # requests that are answered, by number


def test_a_large_account_is_loaded_exactly_through_all_kinds_of_faults(tmp_path: Path) -> None:
    """5 % of the answers are errors, 2 % resets, 1 % cut off, 1 % no JSON, and for a time most
    requests are too many.
    """
    box = Sandbox(seed=6, customers=3700)
    chance = Faults(seed=6, error_500=0.05, reset=0.02, truncate=0.01, malformed=0.01)
    setattr(box.faults, "inject", chance.inject)  # noqa: B010  the n-th request has the same fate in each run
    box.faults.short = 0.5  # more pages, for more faults
    seen = 0

    def phase(template: str, params: dict[str, Any]) -> None:
        nonlocal seen
        seen += 1
        box.faults.rate = 10.0 if seen in LIMITED else None

    box.on_request = phase
    with copy_of(box, tmp_path) as copy:
        done = copy.sync(give_up_after=60)

        assert done.refused == {}
        statuses = {
            status: sum(n for (_, code), n in box.counts.items() if code == status)
            for status in (200, 429, 500)
        }
        assert statuses[500] > 5 and statuses[429] > 0
        assert done.requests == box.counts.total()
        assert sum(len(expected.raws) for expected in truth(box).values()) >= 20_000
        copy.check()
