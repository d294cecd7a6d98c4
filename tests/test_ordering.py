"""Events of one object in one second are put in the order in which they happened, or are marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, permutations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stripe_feed.extract.events.ordering import (
    ABSENT,
    UNKNOWN_STATE,
    Transition,
    is_cycle,
    order_transitions,
    unique_start,
)

QUICK = settings(derandomize=True, deadline=None, max_examples=300, database=None)
MORE = settings(QUICK, max_examples=1_000)
DEEP = settings(deadline=None, max_examples=50_000, database=None, print_blob=True)
Line = list[tuple[str, str, str | None, str]]


def moved(
    before: str, after: str, id: str = "", type: str = "x.updated", seen: bool = False
) -> Transition:
    return Transition("updated", id or f"evt_{type}_{before}_{after}", type, before, after, seen)


def said(after: str, type: str = "x.paid", seen: bool = False) -> Transition:
    return Transition("status", f"evt_{type}_{after}", type, None, after, seen)


def created(after: str, id: str = "evt_created", seen: bool = False) -> Transition:
    return Transition("created", id, "x.created", ABSENT, after, seen)


def deleted(before: str | None, id: str = "evt_deleted") -> Transition:
    """`before` None: the event has three keys and no image."""
    return Transition("deleted", id, "x.deleted", before, ABSENT)


def walk(*images: str) -> list[Transition]:
    """Updates from image to image."""
    return [moved(one, other, f"evt_{n}") for n, (one, other) in enumerate(pairwise(images))]


def content(steps: Sequence[Transition]) -> Line:
    """What twins have in common."""
    return [(step.kind, step.type, step.before, step.after) for step in steps]


def ids(found: tuple[list[Transition], bool]) -> list[str]:
    return [step.id for step in found[0]]


def test_a_single_event_is_in_order() -> None:
    assert order_transitions([moved("a", "b")], "z") == ([moved("a", "b")], True)


@pytest.mark.parametrize("known", ["a", None])
def test_each_begins_where_the_one_before_ended(known: str | None) -> None:
    """Whatever came before the second, if it is no round."""
    steps = walk("a", "b", "c", "d")
    assert order_transitions([steps[1], steps[2], steps[0]], known) == (steps, True)


def test_there_and_back_goes_on_from_what_was_known() -> None:
    """Without it, a round may have begun anywhere: marked."""
    there, back = moved("a", "b"), moved("b", "a")

    assert order_transitions([back, there], "a") == ([there, back], True)
    assert order_transitions([there, back], "b") == ([back, there], True)
    assert order_transitions([there, back])[1] is False


def test_there_and_back_ends_where_the_next_second_begins() -> None:
    there, back = moved("a", "b"), moved("b", "a")
    assert ids(order_transitions([there, back], None, "b")) == [back.id, there.id]


def test_a_twin_is_dropped() -> None:
    """One change told twice under two ids: one of them stays, the one that was seen if any."""
    one, twin = moved("a", "b", "evt_2"), moved("a", "b", "evt_1")

    assert ids(order_transitions([one, twin], "a")) == ["evt_1"]
    assert ids(order_transitions([replace(one, seen=True), twin], "a")) == ["evt_2"]
    assert ids(order_transitions([twin, one, moved("b", "c")], "a")) == [
        "evt_1",
        moved("b", "c").id,
    ]


def test_twins_of_what_is_only_said_are_dropped() -> None:
    steps = [moved("a", "b"), said("b"), replace(said("b"), id="evt_twin", seen=True)]
    assert ids(order_transitions(steps, "a")) == [moved("a", "b").id, "evt_twin"]


def test_twins_of_a_bare_deletion_are_dropped() -> None:
    steps = [moved("a", "b"), deleted(None), deleted(None, "evt_twin")]
    assert content(order_transitions(steps, "a")[0]) == content([moved("a", "b"), deleted("b")])
    assert content(order_transitions(steps[1:])[0]) == content([deleted(UNKNOWN_STATE)])


def test_there_and_back_and_there_again_are_no_twins() -> None:
    """They follow each other. As it cannot be told from a twin, the order is marked."""
    steps = walk("a", "b", "a", "b")
    found, sure = order_transitions([steps[2], steps[1], steps[0]], "a")

    assert content(found) == content(steps)
    assert sure is False


def test_two_rounds_from_one_image_are_marked() -> None:
    """Either may have been first."""
    steps = walk("a", "b", "a", "c", "a")
    assert order_transitions(steps, "a")[1] is False
    assert order_transitions(steps[:3], "a") == (steps[:3], True)


def test_what_is_only_said_comes_after_what_led_there() -> None:
    steps = [
        moved("a", "b"),
        said("b"),
        said("b", "x.payment_succeeded"),
        moved("b", "c"),
        said("c", "x.voided"),
    ]
    found, sure = order_transitions([steps[4], steps[2], steps[3], steps[1], steps[0]], "a")

    assert [step.after for step in found] == ["b", "b", "b", "c", "c"]
    assert [step.kind for step in found] == ["updated", "status", "status", "updated", "status"]
    assert sure


def test_what_is_said_of_the_image_before_comes_first() -> None:
    """As `invoice.paid` of a change that was told in the second before."""
    assert content(order_transitions([moved("a", "b"), said("a")], "a")[0]) == content(
        [said("a"), moved("a", "b")]
    )


def test_what_is_said_can_close_a_gap() -> None:
    """Without an event that moves there, it moved there itself."""
    steps = [moved("a", "b"), said("c"), moved("c", "d")]
    assert content(order_transitions([steps[2], steps[1], steps[0]], "a")[0]) == content(steps)


def test_what_is_said_and_not_moved_to_does_not_come_first() -> None:
    """As a cancellation between two updates: its event tells what it led to only."""
    steps = [moved("a", "b"), said("c", "x.canceled"), moved("c", "d")]
    for shuffled in permutations(steps):
        assert content(order_transitions(shuffled)[0]) == content(steps)


def test_a_creation_comes_first_and_a_deletion_last() -> None:
    steps = [created("a"), moved("a", "b"), said("b"), deleted("b")]
    assert order_transitions(steps[::-1], ABSENT) == (steps, True)
    assert order_transitions([steps[2], *steps[:2]], None) == (steps[:3], True)


@pytest.mark.parametrize("bare", [False, True])
def test_deleted_and_created_again_in_a_second(bare: bool) -> None:
    """The object was there before: the deletion is first, though a creation and a deletion would
    fit as well.
    """
    steps = [deleted(None if bare else "a"), created("b")]

    assert [step.kind for step in order_transitions(steps[::-1], "a")[0]] == ["deleted", "created"]
    assert order_transitions(steps[::-1], "a")[1]


@pytest.mark.parametrize("bare", [False, True])
def test_created_and_deleted_in_a_second(bare: bool) -> None:
    """Nothing was there before."""
    steps = [created("a"), moved("a", "b"), deleted(None if bare else "b")]

    assert [step.kind for step in order_transitions(steps[::-1], ABSENT)[0]] == [
        "created",
        "updated",
        "deleted",
    ]


def test_created_deleted_and_created_again_in_a_second() -> None:
    steps = [created("a", "evt_1"), moved("a", "b"), deleted("b"), created("c", "evt_2")]
    assert order_transitions([steps[3], steps[1], steps[2], steps[0]], ABSENT) == (steps, True)


def test_a_bare_deletion_ends_what_is_not_left() -> None:
    """It has no image: that of the change that nothing else follows."""
    steps = [moved("a", "b"), deleted(None), created("c", "evt_2"), moved("c", "d")]
    found, _ = order_transitions([steps[3], steps[2], steps[1], steps[0]], "a", "d")
    assert [(step.kind, step.after) for step in found] == [
        ("updated", "b"),
        ("deleted", ""),
        ("created", "c"),
        ("updated", "d"),
    ]


def test_which_state_a_bare_deletion_ended_may_be_unknown() -> None:
    """Created twice and deleted once, with nothing after: either is the one that goes on."""
    steps = [created("a", "evt_1"), deleted(None), created("b", "evt_2")]
    assert order_transitions(steps, ABSENT)[1] is False
    assert order_transitions(steps, ABSENT, "b") == ([steps[0], deleted("a"), steps[2]], True)


def test_lines_that_do_not_hang_together_are_marked() -> None:
    """A lost event: Stripe's order is kept, nothing is dropped."""
    steps = [moved("a", "b"), moved("x", "y")]
    found, sure = order_transitions(steps, "a")

    assert sorted(ids((found, sure))) == sorted(step.id for step in steps)
    assert sure is False


def test_rounds_and_starts() -> None:
    assert is_cycle(walk("a", "b", "a"))
    assert not is_cycle(walk("a", "b", "c"))
    assert not is_cycle(walk("a", "b"))
    assert unique_start(walk("a", "b", "c")) == "a"
    assert unique_start(walk("a", "b", "a")) is None
    assert unique_start([]) is None


# F6: shuffled groups of two to six events


@dataclass(frozen=True)
class Second:
    """What happened to an object in a second, and how Stripe lists it."""

    start: str
    happened: tuple[Transition, ...]
    shuffled: tuple[Transition, ...]

    @property
    def end(self) -> str:
        return self.happened[-1].after


def second(dice: Random, images: int, twins: bool = False) -> Second:
    """Two to six events of an object that has so many states; what is said comes right after what
    led there.
    """
    at = start = f"image {dice.randrange(images)}"
    steps: list[Transition] = []
    count = dice.randint(2, 6)
    while len(steps) < count:
        to = f"image {dice.randrange(images)}"
        if to == at:
            continue
        steps.append(moved(at, to, f"evt_{dice.getrandbits(32)}"))
        at = to
        if dice.random() < 0.2 and len(steps) < count:
            steps.append(replace(said(at), id=f"evt_{dice.getrandbits(32)}"))
    listed = [
        *steps,
        *(
            replace(step, id=f"twin_{dice.getrandbits(32)}")
            for step in steps
            if twins and dice.random() < 0.3
        ),
    ]
    dice.shuffle(listed)
    return Second(start, tuple(steps), tuple(listed))


@pytest.mark.parametrize("twins", [False, True])
def test_f6_shuffled_groups_are_put_in_order(twins: bool) -> None:
    """An object with a few thousand states: 99.5 % with the state before known, and what is wrong
    is marked.
    """
    dice = Random(6)
    seconds = [second(dice, 3_000, twins) for _ in range(2_000)]
    right = 0
    for one in seconds:
        found, sure = order_transitions(one.shuffled, one.start)
        exact = content(found) == content(one.happened)
        assert exact or not sure
        right += exact and (sure or twins)
    assert right >= 0.995 * len(seconds)


def test_f6_most_are_put_in_order_without_it() -> None:
    """The start is where no other event ends, but for rounds, which are marked."""
    dice = Random(7)
    seconds = [second(dice, 300) for _ in range(2_000)]
    right = sum(
        content(order_transitions(one.shuffled)[0]) == content(one.happened) for one in seconds
    )
    assert right >= 0.97 * len(seconds)


SEEDS = st.integers(0, 2**32)
SECONDS = st.builds(lambda seed, images: second(Random(seed), images), SEEDS, st.integers(2, 5))
"""Few states, so that rounds, repetitions and several ways are common."""


def check(one: Second) -> None:
    """Nothing lost or invented; where it is sure, it is right."""
    for known in (one.start, None):
        found, sure = order_transitions(one.shuffled, known)
        moves, happened = (
            [s for s in some if s.kind == "updated"] for some in (found, one.happened)
        )
        assert {*content(found)} == {*content(one.happened)}
        if sure:
            assert content(moves) == content(happened)
        assert all(any(step.id == given.id for given in one.shuffled) for step in found)


@QUICK
@given(SECONDS)
def test_f6_nothing_is_wrong_and_unmarked(one: Second) -> None:
    """Whatever was before, known or not."""
    check(one)


@pytest.mark.broad
@MORE
@given(SECONDS)
def test_f6_nothing_is_wrong_and_unmarked_in_more_cases(one: Second) -> None:
    check(one)


@pytest.mark.long
@DEEP
@given(SECONDS)
def test_f6_nothing_is_wrong_and_unmarked_in_many_more_cases(one: Second) -> None:
    """The same with new cases each time."""
    check(one)


@QUICK
@given(SECONDS, SEEDS)
def test_the_order_does_not_depend_on_how_stripe_lists_the_second(one: Second, seed: int) -> None:
    """Where it is sure."""
    again = list(one.shuffled)
    Random(seed).shuffle(again)
    found, sure = order_transitions(one.shuffled, one.start)
    other, too = order_transitions(again, one.start)

    assert sure == too
    if sure:
        assert [s for s in content(found) if s[0] == "updated"] == [
            s for s in content(other) if s[0] == "updated"
        ]


def test_a_long_second_is_put_in_order_quickly() -> None:
    """Two thousand changes of one object."""
    steps = walk(*(f"image {n}" for n in range(2_001)))
    shuffled = list(steps)
    Random(8).shuffle(shuffled)
    assert order_transitions(shuffled, "image 0") == (steps, True)
