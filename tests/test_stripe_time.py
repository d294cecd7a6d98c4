"""Wrong clocks, of whoever writes the `Date` and of this machine: nothing is skipped, nothing told
twice, no row stays behind.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from stripe_feed.api import stripe_time
from stripe_feed.api.client import Api, Clock
from stripe_feed.extract import run
from stripe_feed.sandbox import Sandbox
from tests.copies import PERMISSIONS, Copy, copy_of

HOUR = 3_600
YEARS = 3 * 365 * 24 * HOUR
T = "customers"


@pytest.fixture
def copy(tmp_path: Path) -> Any:
    """An account whose newest event is a day old, and no copy of it yet."""
    box = Sandbox(seed=3, customers=3, oddities=False)
    box.advance(24 * HOUR)
    with copy_of(box, tmp_path, hold=True) as found:
        yield found


Set = Callable[[int, int], None]


@pytest.fixture
def set_clocks(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> Set:
    """Set how far the `Date` of all answers and the local clock are from Stripe's true time."""
    off = {"date": 0, "local": 0}
    real = stripe_time.parse_date

    def date_of(headers: Any) -> float | None:
        found = real(headers)
        return None if found is None else found + off["date"]

    monkeypatch.setattr(stripe_time, "parse_date", date_of)
    monkeypatch.setattr(
        run, "Api", partial(Api, clock=Clock(time=lambda: float(copy.box.now + off["local"])))
    )
    return lambda date, local: off.update(date=date, local=local)


def turn(copy: Copy, name: str, **options: Any) -> None:
    """A run; then one customer is renamed, another is made, and half an hour passes."""
    copy.sync(resources=[T], **options)
    copy.box.update(T, first_of(copy), name=name)
    copy.box.create(T)
    copy.box.advance(HOUR // 2)


def first_of(copy: Copy) -> str:
    return min(copy.box.objects(T))


def told(copy: Copy) -> list[str]:
    found = copy.select(
        "select event_id from stripe.changes where resource = 'customers' and origin = 'event'"
    )
    return sorted(str(id) for (id,) in found)


@pytest.mark.parametrize(
    ("date", "local", "bad"),
    [
        (2 * HOUR, 0, 0),
        (2 * HOUR, -HOUR, 1),
        *(
            pytest.param(*some, marks=pytest.mark.long)
            for some in ((-2 * HOUR, 0, 0), (-2 * HOUR, 0, 1), (0, -2 * HOUR, 0))
        ),
    ],
)
def test_a_time_that_is_wrong_in_a_whole_run(
    copy: Copy, set_clocks: Set, date: int, local: int, bad: int
) -> None:
    """The next runs read what happened meanwhile, and its rows are those of now."""
    box = copy.box
    before = {event.id for event in box.events}
    for n in range(3):
        set_clocks(date if n == bad else 0, local)
        turn(copy, f"Turn {n}")
    box.advance(3 * HOUR)
    copy.sync(resources=[T])
    box.advance(HOUR)
    copy.sync(resources=[T])

    copy.check(T)
    mine = {
        event.id
        for event in box.events
        if event.type.startswith("customer.") and event.id not in before
    }
    assert len(mine) == 6
    assert mine <= set(told(copy))
    assert len(told(copy)) == len(set(told(copy)))
    if date > 0 or bad:
        assert mine == set(told(copy))  # and no more
    assert copy.sync(resources=[T]).rows == {}


@pytest.mark.parametrize("local", [0, pytest.param(YEARS, marks=pytest.mark.long)])
def test_cursors_of_the_future_go_back(
    copy: Copy, set_clocks: Set, caplog: pytest.LogCaptureFixture, local: int
) -> None:
    """Where the clocks are years ahead: the next run compares everything, and then goes on as ever.
    Nothing old is told.
    """
    set_clocks(YEARS, local)
    turn(copy, "Untold")
    set_clocks(0, 0)
    turn(copy, "Told")
    assert "The copy's cursors are in the future: a clock was wrong." in caplog.text
    assert {row[0] for row in copy.select("select origin from stripe.changes")} <= {"diff"}
    copy.box.advance(HOUR)
    copy.sync(resources=[T])

    copy.check(T, found_later=True)
    assert len(told(copy)) == 2


def test_lists_alone_do_not_skip_either(copy: Copy, set_clocks: Set) -> None:
    """For a key without events."""
    key = copy.box.restrict(permissions=PERMISSIONS - {"rak_event_read"})
    for n in range(2):
        set_clocks(2 * HOUR if n else 0, 0)
        turn(copy, f"Turn {n}", api_key=key)
    set_clocks(0, 0)
    copy.box.advance(3 * HOUR)
    copy.sync(resources=[T], api_key=key)

    assert copy.one("select count(*) from stripe.customers") == len(copy.box.objects(T))
