"""Deliberate mistakes in the extractor, each with the test that must notice it."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """A mistake: in `file` of the package, `old` becomes `new`, and `killer` must fail. Those that are `quick` run in CI."""

    name: str
    file: str
    old: str
    new: str
    killer: str
    quick: bool = True


WINDOWS = "extract/windows.py"
PAGES = "extract/pages.py"
FETCH = "extract/fetch.py"
RECORDS = "extract/records.py"
LISTS = "extract/lists.py"
HINTS = "extract/hints.py"

MUTANTS = (
    Mutant(
        "no status=all", "resources.py", '        walks=((("status", "all"),),),\n', "",
        "test_fetch.py::test_a_page_is_asked_for_with_the_filters_of_its_walk",
    ),
    Mutant(
        "prices only active", "resources.py", 'walks=((("active", "true"),), (("active", "false"),)),',
        'walks=((("active", "true"),),),',
        "test_extract_small.py::test_canceled_subscriptions_and_archived_prices_are_there", quick=False,
    ),
    Mutant(
        "T0 taken late", LISTS, "_replace(state, run.state(session.options) if worth else before)",
        '_replace(state, {**run.state(session.options), "t0": session.api.now()} if worth else before)',
        "test_extract_small.py::test_what_is_created_while_a_listing_runs_is_in_the_next_one",
    ),
    Mutant(
        "state written before the rows are yielded", LISTS, "        for table in tables:\n            run.yielded = True\n",
        "        state.update(run.state(session.options))\n        for table in tables:\n            run.yielded = True\n",
        "test_extract_small.py::test_a_run_that_stops_after_any_yield_loses_nothing[0]",
    ),
    Mutant(
        "stale row wins", HINTS, 'return {**MERGE, "source_filter": _no_newer(names.table, "id", "")}', "return dict(MERGE)",
        "test_extract_small.py::test_a_stale_row_does_not_replace_a_newer_one",
    ),
    Mutant(
        "tie drops the row", HINTS, "xv > {alias}_version", "xv >= {alias}_version",
        "test_extract_small.py::test_of_two_rows_of_the_same_second_the_one_that_came_last_wins", quick=False,
    ),
    Mutant(
        "vanished children stay", HINTS, '"destination_scope": f"{key} in ({seen})"', '"destination_scope": "1 = 0"',
        "test_extract_small.py::test_children_are_complete_and_follow_their_parent", quick=False,
    ),
    Mutant(
        "tombstones are stored", HINTS, 'f"id <> {key} and {fresh}"', "fresh",
        "test_extract_small.py::test_children_are_complete_and_follow_their_parent", quick=False,
    ),
    Mutant(
        "cursor past an unfinished second", WINDOWS, "down = window.lo if ended else min(window.pos + 1, top)",
        "down = window.lo if ended else min(window.pos, top)",
        "test_windows.py::test_a_second_that_a_page_ends_in_stays_uncovered",
    ),
    Mutant(
        "window bounds inclusive on both ends", WINDOWS, 'created = {"lt": self.hi,', 'created = {"lte": self.hi,',
        "test_windows.py::test_covers_and_windows_always_partition_the_ranges",
    ),
    Mutant(
        "raised lower bound ignored", WINDOWS, "cut = window.lo > ask.lo", "cut = False",
        "test_windows.py::test_a_window_that_was_cut_while_its_page_was_under_way_ends_at_its_new_bound",
    ),
    Mutant(
        "rows of a cut page not dropped", WINDOWS, "if not (cut and times[n] < window.lo) and head.id not in window.edge",
        "if head.id not in window.edge",
        "test_windows.py::test_a_window_that_was_cut_while_its_page_was_under_way_ends_at_its_new_bound",
    ),
    Mutant(
        "has_more ignored for short pages", WINDOWS, "ended = not has_more or (", "ended = not has_more or len(heads) < 100 or (",
        "test_windows.py::test_a_short_page_that_has_more_goes_on",
    ),
    Mutant(
        "children cut at ten", FETCH, "if embedded is None or embedded.has_more:", "if embedded is None:",
        "test_fetch.py::test_a_cut_embedded_list_is_read_whole",
    ),
    Mutant(
        "test clocks not filtered", FETCH, "return test_clocks or not typed(", "return True or not typed(",
        "test_fetch.py::test_rows_on_a_test_clock_are_left_out_unless_asked_for",
    ),
    Mutant(
        "digest includes volatile fields", RECORDS, "for column in self.columns if column.name not in volatile]",
        "for column in self.columns]", "test_records.py::test_the_digest_does_not_see_what_means_nothing",
    ),
    Mutant(
        "look-back dropped", LISTS, 'state["t0"] - options.look_back)', 'state["t0"])',
        "test_lists.py::test_later_listings_read_what_is_new_and_look_back",
    ),
    Mutant(
        "rows read again after a refusal are kept", WINDOWS, "and head.id not in window.edge", "",
        "test_windows.py::test_a_refused_cursor_goes_on_by_time_and_drops_what_was_seen", quick=False,
    ),
    Mutant(
        "an empty page is the end", WINDOWS, "if ask.cursor is None and not has_more:", "if True:",
        "test_windows.py::test_an_empty_page_after_a_cursor_is_no_proof_of_the_end", quick=False,
    ),
    Mutant(
        "a row without created covers the rest", WINDOWS, "newest = newest if head.created is None else head.created",
        "newest = 0 if head.created is None else head.created",
        "test_windows.py::test_rows_without_created_are_kept_and_cover_nothing", quick=False,
    ),
    Mutant(
        "finished before its last rows wait", PAGES, "self.walk is None and not self.delivering", "self.walk is None",
        "test_pages.py::test_a_listing_is_not_finished_before_its_last_rows_wait", quick=False,
    ),
    Mutant(
        "no gate", PAGES, "and not (crowded and (", "and not (False and (",
        "test_pages.py::test_no_page_is_asked_for_while_enough_batches_wait", quick=False,
    ),
    Mutant(
        "sub-list cut short in silence", FETCH, "if not has_more:\n", "if not has_more or not fresh:\n",
        "test_fetch.py::test_a_sub_list_that_never_ends_is_told", quick=False,
    ),
    Mutant(
        "version from the end of the request", "api.py", "int(date - (ended - began))", "int(date)",
        "test_api.py::test_the_time_of_a_reply_is_its_date_minus_its_elapsed_time", quick=False,
    ),
    Mutant(
        "reason of a 429 ignored", "rates.py", 'elif reason.startswith("global"):', "elif False:",
        "test_rates.py::test_a_429_teaches_the_bucket_that_its_reason_names", quick=False,
    ),
    Mutant(
        "half of the state forgotten", WINDOWS, "((a, min(b, lo)), (max(a, hi), b))]", "((max(a, hi), b),)]",
        "test_windows.py::test_subtract_leaves_the_seconds_outside_of_the_cover", quick=False,
    ),
)
