"""A bad day at Stripe: a whole account is loaded through everything that passes, and is exact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stripe_feed.cli.main import raise_if_incomplete
from stripe_feed.errors import PartlyDone, TryLater
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


def test_a_list_without_an_answer_is_left_out_and_the_others_are_loaded(tmp_path: Path) -> None:
    box, tables = Sandbox(seed=4, customers=3, oddities=False), ["customers", "products"]
    box.faults.always["/v1/products"] = 503
    with copy_of(box, tmp_path) as copy:
        with pytest.raises(TryLater):  # where nothing else answers, nothing is left out
            copy.sync(give_up_after=0.5, resources=["products"])
        done = copy.sync(give_up_after=1, resources=tables)
        assert done.rows["customers"] == 3 and list(done.refused) == ["products"]
        assert "Stripe keeps answering 503" in done.refused["products"]
        with pytest.raises(PartlyDone, match=r"Left out: products;"):  # of a group as well
            raise_if_incomplete(done.refused, {}, ["billing"], unanswered=done.unanswered)
        box.faults.always.clear()
        assert copy.sync(resources=tables).rows["products"]
