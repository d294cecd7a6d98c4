"""Situations that no other test of pushes has: what a breaker tried, and what did not hold."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stripe_feed.errors import StripeFeedError
from stripe_feed.write.push.log import LOG, PushLog
from tests.pushing import Pushing, ends, pushing


@pytest.fixture
def crm() -> Iterator[Pushing]:
    with pushing(object="customers", key="id", match="email") as found:
        yield found


def test_a_run_that_could_not_begin_has_stripes_time_too(crm: Pushing) -> None:
    """Stripe was out of reach, and this machine's clock is wrong: alerts keep their order."""
    crm.box.advance(7_200)
    rows = [{"id": 1, "email": "ann@example.com"}]
    assert ends(crm.run(rows)) == {"created": 1}
    with pytest.raises(StripeFeedError):
        crm.run([{"id": 1}, {"id": 1}])  # it answers, and the rows are refused
    crm.box.faults.always["GET /v1/account"] = "reset"
    with pytest.raises(StripeFeedError):
        crm.run(rows)
    crm.box.faults.always.clear()
    assert ends(crm.run(rows)) == {"unchanged": 1}
    with PushLog(LOG, lambda: 0.0) as log:
        times = [run["started_at"] for run in log.runs()]
    assert len(times) == 4 and max(times) - min(times) < 60, times
