"""A list without a filter by time is read whole, whatever is deleted and created meanwhile."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stripe_feed.extract.paging.whole_walk import MAX_CURSORS, WHOLE_LIST, WholeWalk
from stripe_feed.extract.paging.windows import MAX_EMPTY_PAGES, NoProgress, PageRequest, RowKey


class Shown:
    """A list as Stripe shows it, newest first, a few objects per page."""

    def __init__(self, count: int, size: int = 3) -> None:
        self.ids = [f"o{n}" for n in range(count)]
        self.size = size

    def page(self, request: PageRequest) -> tuple[list[RowKey], bool]:
        """Raises `ValueError` if the cursor is gone."""
        start = self.ids.index(request.cursor) + 1 if request.cursor else 0
        page = self.ids[start : start + self.size]
        return [RowKey(id, None) for id in page], start + self.size < len(self.ids)


def walk(shown: Shown, meanwhile: Callable[[int], None] = lambda step: None) -> list[str]:
    """The ids that were delivered."""
    walking, delivered, step = WholeWalk(), list[str](), 0
    while (request := walking.next_request()) is not None:
        assert walking.next_request() is None, "one request at a time"
        assert "created" not in request.params()
        try:
            keys, has_more = shown.page(request)
        except ValueError:
            walking.cursor_refused(request)
        else:
            accepted = walking.record_page(request, keys, has_more)
            delivered += [keys[n].id for n in accepted.kept]
            assert (accepted.covered == WHOLE_LIST) == walking.finished == (not has_more)
        step += 1
        meanwhile(step)
    return delivered


def test_each_object_comes_once() -> None:
    for count in range(10):
        shown = Shown(count)
        assert walk(shown) == shown.ids


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 30), st.lists(st.tuples(st.integers(1, 12), st.integers(0, 29))))
def test_what_stays_is_delivered_whatever_goes(count: int, gone: list[tuple[int, int]]) -> None:
    """Objects of refused cursors among it."""
    shown, stays = Shown(count), set(range(count)) - {n for _, n in gone}

    def meanwhile(step: int) -> None:
        for at, n in gone:
            if at == step and f"o{n}" in shown.ids:
                shown.ids.remove(f"o{n}")
        shown.ids.insert(0, f"new{step}")

    assert {f"o{n}" for n in stays} <= set(walk(shown, meanwhile))


def test_a_deleted_cursor_is_replaced_by_the_one_before() -> None:
    """What was read already is not read again."""
    shown = Shown(9)

    def meanwhile(step: int) -> None:
        if step == 2:
            shown.ids.remove("o5")

    assert walk(shown, meanwhile) == [f"o{n}" for n in range(9)]


def test_of_many_objects_only_the_last_ids_are_kept() -> None:
    shown = Shown(3 * MAX_CURSORS, size=100)
    walking = WholeWalk()
    while (request := walking.next_request()) is not None:
        walking.record_page(request, *shown.page(request))
        assert len(walking._recent) <= MAX_CURSORS


def test_a_request_that_failed_is_made_again() -> None:
    walking = WholeWalk()
    request = walking.next_request()
    assert request is not None
    walking.request_failed(request)
    assert walking.next_request() == request


def test_a_list_that_makes_no_progress_ends_the_walk() -> None:
    """One that repeats itself, stays empty, or refuses all cursors."""
    repeating = WholeWalk()
    for _ in range(2):
        request = repeating.next_request()
        assert request is not None
        if request.cursor:
            with pytest.raises(NoProgress, match="repeats o1"):
                repeating.record_page(request, [RowKey("o1", None)], True)
        else:
            repeating.record_page(request, [RowKey("o1", None)], True)
    with pytest.raises(NoProgress, match="nothing new"):
        empty = WholeWalk()
        for _ in range(MAX_EMPTY_PAGES + 1):
            request = empty.next_request()
            assert request is not None
            empty.record_page(request, [], True)
    with pytest.raises(NoProgress, match="refuses one cursor"):
        refusing = WholeWalk()
        for _ in range(100):
            request = refusing.next_request()
            assert request is not None
            if request.cursor:
                refusing.cursor_refused(request)
            else:
                refusing.record_page(request, [RowKey(f"o{n}", None) for n in range(5)], True)
