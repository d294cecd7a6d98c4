"""How far lists and events have been read, and what that allows."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from stripe_feed.extract.events.poll_groups import poll_groups
from stripe_feed.extract.next_step import (
    IDLE_STORE_INTERVAL,
    SECONDS_PER_DAY,
    TOO_OLD,
    RunPlan,
    event_window,
    must_probe_events,
    next_step,
    plan_run,
    should_store,
)
from stripe_feed.resources import RESOURCES
from stripe_feed.resources.groups import GROUPS
from stripe_feed.resources.model import Resource

NOW = 1_780_000_000


def listed(t0: int = NOW - 100, left: Any = ((),)) -> dict[str, Any]:
    return {"t0": t0, "left": left, "start": 0}


def read(since: int = NOW - 100, cursor: int = NOW - 100) -> dict[str, int]:
    return {"since": since, "cursor": cursor}


@pytest.mark.parametrize(
    ("state", "mine", "follows", "found"),
    [
        ({}, None, True, "backfill"),  # nothing was ever read
        (listed(), None, True, "gap"),  # listed before events were followed
        (listed(left=[[[1, 5]]]), None, True, "relist"),  # nor is that list complete
        (listed(), None, False, "incremental"),
        (listed(NOW - 200), read(), True, "relist"),  # an older list: a refresh, a restored file
        (listed(left=[[[1, 5]]]), read(), True, "backfill"),  # on its way
        (
            listed(NOW - TOO_OLD - 1, [[[1, 5]]]),
            read(NOW - TOO_OLD - 1),
            True,
            "relist",
        ),  # its events are gone
        (listed(NOW - TOO_OLD - 1, [[[1, 5]]]), None, False, "backfill"),
        (listed(), read(), True, "incremental"),
        (listed(), read(NOW - 40 * SECONDS_PER_DAY, NOW - TOO_OLD), True, "incremental"),
        (listed(), read(NOW - 40 * SECONDS_PER_DAY, NOW - TOO_OLD - 1), True, "gap"),
        (
            listed(NOW),
            read(NOW - 40 * SECONDS_PER_DAY, NOW - TOO_OLD - 1),
            False,
            "incremental",
        ),  # nobody follows: the list goes on
    ],
)
def test_what_to_do_for_a_resource(
    state: dict[str, Any], mine: dict[str, int] | None, follows: bool, found: str
) -> None:
    """Go on with its listing, list again, follow its events, or heal a gap."""
    assert next_step(state, mine, NOW, follows) == found


NAMES = ("customers", "invoices")
OLD = NOW - TOO_OLD - 1


def states(events: dict[str, Any], **lists: dict[str, Any]) -> dict[str, Any]:
    return {"changes": events, **lists}


def both(**more: Any) -> dict[str, Any]:
    """Two resources whose lists are complete and whose events are read."""
    return states(
        {name: read() | more.get("events", {}) for name in NAMES},
        **{name: listed() | more.get("lists", {}) for name in NAMES},
    )


def test_an_incremental_run_reads_its_lists_and_then_its_events() -> None:
    """In one sequence, for all resources; nothing is compared."""
    plan = plan_run(both(), NAMES, NOW, reads_events=True)

    assert plan == RunPlan(dict.fromkeys(NAMES, "incremental"), NAMES, NAMES, (), reads_events=True)
    assert plan.is_incremental(())


def test_each_resource_has_a_step_of_its_own() -> None:
    """A backfill has no events yet; over a gap the whole list is compared instead of read."""
    found = states({"invoices": read(OLD, OLD)}, invoices=listed())
    plan = plan_run(found, NAMES, NOW, reads_events=True)

    assert plan.steps == {"customers": "backfill", "invoices": "gap"}
    assert (plan.lists, plan.polled, plan.compared) == (("customers",), (), ("invoices",))
    assert plan.with_step("backfill") == ["customers"]
    assert not plan.is_incremental(())
    assert plan.is_incremental(NAMES), "who is refused holds up nobody"


def test_without_the_right_to_read_events_lists_continue_alone() -> None:
    """Whatever the cursors of the events say: nothing is polled, and no gap is seen."""
    found = states({"invoices": read(OLD, OLD)}, invoices=listed(), customers=listed())
    plan = plan_run(found, NAMES, NOW, reads_events=False)

    assert plan == RunPlan(dict.fromkeys(NAMES, "incremental"), NAMES)


@pytest.mark.parametrize(
    ("more", "lists", "compared"),
    [
        ({}, (), NAMES),  # on request: the whole list is compared, and so not read before
        ({"listed": ("customers",)}, (), ("invoices",)),  # this run has just read the list
        ({"compared": ("customers",)}, (), ("invoices",)),  # once in a run
    ],
)
def test_a_comparison_on_request(
    more: dict[str, Any], lists: tuple[str, ...], compared: tuple[str, ...]
) -> None:
    plan = plan_run(both(), NAMES, NOW, reads_events=True, reconcile=NAMES, **more)

    assert (plan.lists, plan.polled, plan.compared) == (lists, NAMES, compared)


def test_a_list_that_was_read_again_is_compared_after_the_events() -> None:
    """It does not show what was deleted."""
    plan = plan_run(both(lists={"compare": True}), NAMES, NOW, reads_events=True)

    assert (plan.lists, plan.polled, plan.compared) == (NAMES, NAMES, NAMES)


def test_a_comparison_that_was_put_off_comes_before_more_events() -> None:
    """Or a busy account would never be compared."""
    found = both(lists={"compare": True}, events={"put_off": True})
    plan = plan_run(found, NAMES, NOW, reads_events=True)

    assert (plan.compares_first, plan.polled, plan.compared) == (True, (), NAMES)


def test_a_package_for_events_by_id_polls_nothing() -> None:
    """The destination must hold the changes of the package before."""
    assert plan_run(both(), NAMES, NOW, reads_events=True, is_by_id=True).polled == ()


def test_without_lists_the_followed_resources_are_polled() -> None:
    """As far as their events were ever read; none where they cannot be."""
    followed = ("customers", "invoices", "prices")
    plan = plan_run(both(), (), NOW, reads_events=True, followed=followed)

    assert (plan.lists, plan.polled) == ((), NAMES)
    assert plan_run(both(), (), NOW, reads_events=False, followed=followed) == RunPlan()


@pytest.mark.parametrize(
    ("found", "must"),
    [
        (both(), False),
        ({}, True),  # a backfill: its events begin with it
        (states({"customers": read()}, customers=listed(), invoices=listed()), True),
        (both(events={"cursor": OLD}), True),
        (both(events={"cursor": OLD}, lists={"left": [[[1, 5]]]}), False),
    ],
)
def test_the_right_to_read_events_is_asked_for_only_if_the_plan_depends_on_it(
    found: dict[str, Any], must: bool
) -> None:
    """An idle run does without the request."""
    assert must_probe_events(found, NAMES, NOW) is must


@pytest.mark.parametrize(
    ("mine", "found"),
    [
        (read(NOW - SECONDS_PER_DAY, NOW - 1_000), (NOW - 1_300, NOW - 60)),
        (
            read(NOW - 1_100, NOW - 1_000),
            (NOW - 1_100, NOW - 60),
        ),  # nothing that was before the list
        (read(NOW - 5, NOW - 5), (NOW - 5, NOW - 60)),  # nothing is settled yet
    ],
)
def test_the_span_that_is_read(mine: dict[str, int], found: tuple[int, int]) -> None:
    """From the look-back before the cursor, but not from before the list, to what is settled."""
    assert event_window(mine, NOW, 300, 60) == found


def test_a_cursor_rests_once_its_events_have_left_the_look_back() -> None:
    """Else every six hours: idle runs write nothing."""
    stored, hi = NOW - 1_000, NOW - 60
    assert not should_store(stored, hi, 300, hi - 300)
    assert should_store(stored, hi, 300, hi - 301)
    assert not should_store(stored, hi, 300, None)
    assert not should_store(stored, stored + IDLE_STORE_INTERVAL - 1, 300, None)
    assert should_store(stored, stored + IDLE_STORE_INTERVAL, 300, None)


# -- objects that change without an event, and lists without a filter by time

SILENT = {
    row.table: row
    for row in (
        Resource("fees", "fee", relist_days=14),
        Resource("intents", "intent", relist_days=30, events=("intent.created",)),
        Resource("quotes", "quote", created_field="", events=("quote.created",)),
        Resource("codes", "code", created_field=""),
    )
}
ALL = tuple(SILENT)
EVENTS = ("intents", "quotes")


def silent(
    t0: int = NOW - 100, put_off: Collection[str] = (), relisted: int = NOW - 100, **lists: Any
) -> dict[str, Any]:
    """The states after a first load at `t0`, whose last days were listed again at `relisted`."""
    event_states = {
        name: read(t0, t0) | ({"put_off": True} if name in put_off else {}) for name in EVENTS
    }
    found = {name: listed(t0) | {"relisted": relisted} for name in ALL}
    return states(event_states, **{name: state | lists for name, state in found.items()})


def plan(found: dict[str, Any], **more: Any) -> RunPlan:
    return plan_run(found, ALL, NOW, reads_events=True, resources=SILENT, **more)


LATE: Any = {"t0": NOW - SECONDS_PER_DAY, "relisted": NOW - SECONDS_PER_DAY}
WINDOWS = {"fees": NOW - 14 * SECONDS_PER_DAY, "intents": NOW - 30 * SECONDS_PER_DAY}


def test_a_first_load_lists_everything_and_waits_for_no_events_of_what_has_none() -> None:
    found = plan({})

    assert (found.lists, found.polled, found.compared) == (ALL, (), ())
    assert not must_probe_events({}, ("fees", "codes"), NOW, SILENT)
    assert must_probe_events({}, ALL, NOW, SILENT)


def test_until_they_are_due_whole_lists_rest() -> None:
    found = plan(silent())

    assert found.steps == dict.fromkeys(ALL, "incremental")
    assert (found.lists, found.polled) == (("fees", "intents"), EVENTS)
    assert (found.compared, found.relist_from) == ((), {})


def test_what_is_due_is_listed_again_or_compared() -> None:
    """A list tells itself what no event tells; where events tell something, a comparison knows
    them.
    """
    found = plan(silent(**LATE))

    assert (found.lists, found.polled) == (("fees",), EVENTS)
    assert found.compared == ("intents", "quotes", "codes")
    assert found.relist_from == WINDOWS
    assert plan(silent(), relist_every=100) == found
    assert plan(silent(), relist_every=101).compared == ()


@pytest.mark.parametrize(
    ("more", "lists", "compared", "windows"),
    [
        # nothing can be compared: `changes` is not selected
        ({"compares": False}, ALL, (), WINDOWS),
        ({"compares": False, "is_range": True}, ALL, (), WINDOWS),
        # a comparison of everything was asked for
        ({"reconcile": ALL}, (), ALL, {}),
        # this run has done it
        ({"compared": ALL}, ("fees", "intents"), (), {}),
        ({"listed": ALL}, ("fees", "intents"), (), {}),
    ],
)
def test_what_is_due_otherwise(
    more: dict[str, Any], lists: tuple[str, ...], compared: tuple[str, ...], windows: dict[str, int]
) -> None:
    found = plan(silent(**LATE), **more)

    assert (found.lists, found.compared, found.relist_from) == (lists, compared, windows)


def test_a_fixed_range_reads_every_list() -> None:
    """Also those that cannot be filtered by time, and are not due."""
    assert plan(silent(), compares=False, is_range=True).lists == ALL


def test_an_earlier_start_has_whole_lists_read() -> None:
    """Others read what is older; events do not bring it."""
    assert plan(silent(start=1_000), start=999).compared == ("quotes", "codes")
    assert plan(silent(start=1_000), start=1_000).compared == ()


def test_a_relist_that_was_put_off_comes_before_more_events() -> None:
    """Though this run has listed them, and the others are not due."""
    found = plan(silent(put_off=EVENTS), listed=ALL)

    assert (found.compares_first, found.polled, found.compared) == (True, (), EVENTS)
    assert found.relist_from == {"intents": WINDOWS["intents"]}


def test_a_comparison_of_everything_is_not_limited_to_the_last_days() -> None:
    assert plan(silent(**LATE, compare=True)).relist_from == {}


def requests_of(names: Collection[str], relist_every: int) -> int:
    """What an idle run asks: the account, each list that is read or compared, and the events."""
    cursors = {name: read() for name in names if RESOURCES[name].events}
    found = states(cursors, **{name: listed() | {"relisted": NOW - 100} for name in names})
    run = plan_run(found, list(names), NOW, reads_events=True, relist_every=relist_every)
    walks = sum(len(RESOURCES[name].list_filters) for name in {*run.lists, *run.compared})
    calls = poll_groups([RESOURCES[name] for name in run.polled], dict.fromkeys(names, NOW))
    return 1 + walks + len(calls)


def test_an_idle_run_of_all_groups_asks_hardly_more_than_each_list() -> None:
    """Whether whole lists are due or not; the core costs what it did before there were groups."""
    lists = [name for name, row in RESOURCES.items() if row.parent is None]

    assert len(lists) > 25
    assert requests_of(lists, SECONDS_PER_DAY) <= len(lists) + 4
    assert requests_of(lists, 0) <= len(lists) + 4
    assert requests_of(GROUPS["core"], SECONDS_PER_DAY) == requests_of(GROUPS["core"], 0) == 10
