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
SHAPES = "extract/shapes.py"
LISTS = "extract/lists.py"
HINTS = "extract/hints.py"
CURSORS = "extract/cursors.py"
EVENTS = "extract/events.py"
ORDER = "extract/order.py"
TOLD = "extract/told.py"
DERIVE = "extract/derive.py"
HISTORIES = "extract/histories.py"
IMAGES = "extract/images.py"
FOLLOW = "extract/follow.py"
APPLY = "extract/apply.py"
WRITER = "extract/writer.py"
RECONCILE = "extract/reconcile.py"

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
        "test_extract_small.py::test_a_run_that_stops_after_any_yield_loses_nothing", quick=False,
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
        "test clocks not filtered", FETCH, "(test_clocks or not typed(", "(True or not typed(",
        "test_fetch.py::test_rows_on_a_test_clock_are_left_out_unless_asked_for",
    ),
    Mutant(
        "digest includes volatile fields", SHAPES, "for column in self.columns if column.name not in volatile]",
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
        "version from the end of the request", "api.py", "int(date - max(0.0, ended - began))", "int(date)",
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
    # what happened
    Mutant(
        "look-back of events dropped", CURSORS, 'mine["cursor"] - look_back), now - settle', 'mine["cursor"]), now - settle',
        "test_cursors.py::test_the_span_that_is_read",
    ),
    Mutant(
        "events from before the list", CURSORS, 'max(mine["since"], mine["cursor"] - look_back)', 'mine["cursor"] - look_back',
        "test_cursors.py::test_the_span_that_is_read",
    ),
    Mutant(
        "settle dropped", CURSORS, "look_back), now - settle", "look_back), now",
        "test_follow.py::test_an_event_is_applied_once_it_is_settled",
    ),
    Mutant(
        "gap not noticed", CURSORS, 'return "gap" if follows and', 'return "complete" if follows and',
        "test_cursors.py::test_what_to_do_for_a_resource",
    ),
    Mutant(
        "newest first", EVENTS, "            yield newest[::-1]\n", "            yield newest\n",
        "test_events.py::test_a_page_is_one_request",
    ),
    Mutant(
        "pages backwards", EVENTS, "            found = newest[::-1]\n", "            found = newest\n",
        "test_events.py::test_many_pages_by_an_anchor", quick=False,
    ),
    Mutant(
        "reading ends at an anchor that is gone", EVENTS,
        "                anchor, refused = None, _one_more(refused)\n                continue\n", "                return\n",
        "test_events.py::test_an_anchor_that_is_refused_is_replaced",
    ),
    Mutant(
        "a second is read twice", EVENTS, "if event.id not in edge and event.created >= lo]", "if event.created >= lo]",
        "test_events.py::test_an_anchor_that_is_refused_within_a_second_with_many_events", quick=False,
    ),
    Mutant(
        "twins told twice", ORDER, "    if len(kept) == len(steps):\n", "    if True:\n", "test_order.py::test_a_twin_is_dropped",
    ),
    Mutant(
        "doubtful order not marked", ORDER, "sure and told and chained and _is_only(line)", "sure and told and chained",
        "test_order.py::test_f6_nothing_is_wrong_and_unmarked",
    ),
    Mutant(
        "order not derived", ORDER, "    line = _trail(moves, known, {step.after for step in says})\n", "    line = list(moves)\n",
        "test_order.py::test_f6_shuffled_groups_are_put_in_order", quick=False,
    ),
    Mutant(
        "cancelled is deleted", TOLD, "if event.type == resource.deleted_by:", 'if event.type.endswith(".deleted"):',
        "test_derive.py::test_a_cancellation_is_no_deletion",
    ),
    Mutant(
        "previews land", TOLD, " or event.type not in resource.events:", ":",
        "test_derive.py::test_sub_objects_and_previews_are_no_objects", quick=False,
    ),
    Mutant(
        "foreign snapshot is the row", DERIVE, "    if last.stub or not same_shape(", "    if last.stub and not same_shape(",
        "test_derive.py::test_images_of_another_shape_are_derived_and_make_no_row",
    ),
    Mutant(
        "doubtful snapshot is the row", DERIVE, 'if last.held or (not history[-1].sure and last.role != "ends"):', "if False:",
        "test_derive.py::test_an_order_that_is_not_sure_gives_no_content", quick=False,
    ),
    Mutant(
        "bare deletion without content", DERIVE, "    elif known is not None:\n", "    elif False:\n",
        "test_derive.py::test_bare_deletions_have_the_whole_object_before",
    ),
    Mutant(
        "late is not told", DERIVE, "n < last_seen or", "False or",
        "test_derive.py::test_seen_events_give_no_change_and_what_they_overtook_is_late", quick=False,
    ),
    Mutant(
        "events of a second have one version", HISTORIES, "Ordered(one, n, sure) for n, one", "Ordered(one, 1, sure) for n, one",
        "test_derive.py::test_numbers_count_within_a_second", quick=False,
    ),
    Mutant(
        "links are told", DERIVE, "    left_out = (*one.resource.links, *one.resource.never)\n", "    left_out = ()\n",
        "test_derive.py::test_links_are_in_no_change",
    ),
    Mutant(
        "an absent key becomes null", IMAGES, "if is_map and old is None:", "if False:",
        "test_images.py::test_the_old_values_give_the_image_before",
    ),
    Mutant(
        "tie goes to the list row", WRITER, "VERSION_LAG = 5 ", "VERSION_LAG = -5 ",
        "test_follow.py::test_an_event_in_the_second_of_the_list_wins", quick=False,
    ),
    Mutant(
        "children of deleted parents stay", WRITER, "(record.row.id, items_of(record, child) if end is None else [], version)",
        "(record.row.id, items_of(record, child), version)",
        "test_follow.py::test_deleted_rows_stay_with_their_last_content", quick=False,
    ),
    Mutant(
        "seen events applied again", APPLY, "one.seen = one.seen or one.event.id in seen", "one.seen = False",
        "test_follow.py::test_an_event_is_applied_once_it_is_settled", quick=False,
    ),
    Mutant(
        "cut snapshot is the row", APPLY, "if one.ends is None and _is_cut(work.writer, record):", "if False:",
        "test_follow.py::test_children_follow_their_parent_beyond_the_ten_that_an_event_shows", quick=False,
    ),
    Mutant(
        "cursor advanced on a 403", FOLLOW, "            while (going := [",
        '            for r in resources:\n                self.mine[r.table]["cursor"] = settled\n            while (going := [',
        "test_follow.py::test_a_key_that_loses_its_permission_within_a_run_loses_no_event", quick=False,
    ),
    Mutant(
        "a difference although an event will tell", RECONCILE, "            found |= some", "            found &= some",
        "test_reconcile.py::test_what_an_event_will_tell_is_left_to_it", quick=False,
    ),
    Mutant(
        "what is not listed is gone", RECONCILE, "if id in wanted and id not in there]",
        "if id in wanted]", "test_reconcile.py::test_what_the_list_does_not_show_is_not_gone", quick=False,
    ),
    Mutant(
        "what a list brought is never told", RECONCILE, ", *self._behind({*told_by_events, *self.suspects, *missing})]", "]",
        "test_reconcile.py::test_what_a_list_brought_and_no_event_told_is_told", quick=False,
    ),
    Mutant(
        "nothing before a lost creation", RECONCILE, "*self._untold(told_by_events), *healed, ", "*healed, ",
        "test_reconcile.py::test_what_a_list_brought_and_no_event_told_is_told", quick=False,
    ),
    Mutant(
        "a copy in an item proves its price", RECONCILE, " or not is_copy(held.version, held.created, held.active)", "",
        "test_deleted_prices.py::test_what_was_deleted_in_a_gap_is_gone_though_an_item_shows_it", quick=False,
    ),
    Mutant(
        "what was never held is not marked as gone", "extract/apply.py", "in EMBEDDED:", "in ():",
        "test_deleted_prices.py::test_what_came_and_went_between_two_runs_does_not_live_on_in_an_item", quick=False,
    ),
    Mutant(
        "the digest that was loaded vouches for the row", RECONCILE, "held.content != content or held.hash != record.hash",
        "held.hash != record.hash", "test_damage.py::test_a_comparison_restores_whatever_was_done_and_tells_nobody", quick=False,
    ),
    Mutant(
        "an empty table counts as listed", LISTS, "if prior.is_empty(client, writer.resource.table):", "if False:",
        "test_damage.py::test_a_table_that_is_gone_or_empty_is_listed_again", quick=False,
    ),
    Mutant(
        "a list that is read again is not compared", LISTS, "run.compare = again or ", "run.compare = ",
        "test_reconcile.py::test_a_permission_that_comes_later_brings_what_was_deleted_before", quick=False,
    ),
    Mutant(
        "any account's webhook lands", FOLLOW,
        "return event.account in (None, account.id) and event.livemode in (None, account.livemode)", "return True",
        "test_rung.py::test_a_body_of_another_account_or_mode_is_passed_over", quick=False,
    ),
    Mutant(
        "polling forgets what rang", FOLLOW, 'mine["rung"] = min(max(mine.get("rung", 0), one.event.created), now)', "pass",
        "test_rung.py::test_what_shows_only_after_a_newer_one_says_late", quick=False,
    ),
    Mutant(
        "what was told is not asked", APPLY, "if second < started}", "if False}",
        "test_rung.py::test_what_shows_only_after_a_newer_one_says_late", quick=False,
    ),
    Mutant(
        "a row read again is older than its event", APPLY, "0 if last is None else last.version)", "0)",
        "test_rung.py::test_a_row_is_right_at_once_whatever_the_order_in_its_second", quick=False,
    ),
    Mutant(
        "rung events are read unread", "service.py", "read = [one for one in waiting if one not in left]", "read = waiting",
        "test_service.py::test_rung_events_are_noted_as_read_once_they_are_in_the_feed", quick=False,
    ),
    Mutant(
        "signatures of the future", "feed/signing.py", "if int(time) > now + tolerance:", "if False:",
        "test_signing.py", quick=False,
    ),
    Mutant(
        "a guard counts a run only", "feed/triggers.py", ' + store.ask(f"select count(*) {just_now}", trigger.name, now - WINDOW)[0][0]\n', "\n",
        "test_triggers.py::test_a_large_load_that_comes_in_pieces_is_held_as_one", quick=False,
    ),
    Mutant(
        "a share counts messages", "feed/triggers.py", "    if total and touched >= SHARE_FROM and touched >", "    if total and count >= SHARE_FROM and count >",
        "test_triggers.py::test_t4_a_share_counts_each_object_once_over_runs_too", quick=False,
    ),
    Mutant(
        "the middle of a chain twice", "feed/expressions.py", "            right = value(scope)\n", "            right = value(scope) or value(scope)\n",
        "test_expressions.py::test_each_field_is_read_once_however_deeply_the_rule_is_nested", quick=False,
    ),
    Mutant(
        "a copy in use is null", "feed/lookups.py", "            raise NotNow(str(fault)) from None\n", "            self._known |= dict.fromkeys(missing, (now, None))\n",
        "test_lookups.py::test_a_copy_that_cannot_be_read_is_later_and_never_null", quick=False,
    ),
    Mutant(
        "what was forgotten is looked up", "feed/lookups.py", "return {root: None if image is not None and self._is_forgotten(image) else image", "return {root: image",
        "test_lookups.py::test_a_message_says_what_is_beside_its_change_when_it_is_sent", quick=False,
    ),
    Mutant(
        "a poll gets a hundred", "feed/pulls.py", "(AMONG if is_recent else LIMIT)", "LIMIT",
        "test_outlet.py::test_who_polls_without_a_place_gets_all_of_the_hour_or_is_told_that_there_is_more", quick=False,
    ),
    Mutant(
        "one trigger's fault is all triggers'", "feed/triggers.py", "        except StripeFeedError as fault:\n", "        except ZeroDivisionError as fault:\n",
        "test_triggers.py::test_a_trigger_that_cannot_run_says_so_and_holds_up_no_other", quick=False,
    ),
    Mutant(
        "one of two equal rows came first", HISTORIES, "return like.pop() if len(like) == 1 else None", "return max(like, default=None)",
        "test_derive.py::test_a_round_through_other_children_is_never_wrong_and_sure",
    ),
    Mutant(
        "a shape of before tells nothing", HISTORIES, "return _key_like(some, before.image, all_told=True)", "return None",
        "test_derive.py::test_a_round_begins_like_the_image_before_whatever_its_shape", quick=False,
    ),
    Mutant(
        "a copy inside an item counts", HISTORIES, "content = counted({", "content = dict({",
        "test_derive.py::test_a_price_that_changes_between_them_does_not_part_two_events_of_a_subscription",
    ),
    Mutant(
        "an image made of a row is an event's", "extract/prior.py", 'parsed(after), origin == "event", int(', "parsed(after), True, int(",
        "test_snapshot.py::test_events_go_on_from_an_image_that_was_made_of_a_row", quick=False,
    ),
    Mutant(
        "what happened before events were readable is untold", "extract/cursors.py",
        'return "again" if any(listed["left"]) else "gap"', 'return "again"',
        "test_follow.py::test_a_copy_whose_key_gets_the_permission_later_is_compared_first", quick=False,
    ),
    Mutant(
        "a discount counts by its id", "extract/images.py", "id_of(value) if name in COPIES else value", "id_of(value)",
        "test_derive.py::test_what_is_part_of_an_object_counts_whole", quick=False,
    ),
    Mutant(
        "another version is a change", RECONCILE, "if shared is not names:", "if not names:",
        "test_reconcile.py::test_another_api_version_makes_no_changes", quick=False,
    ),
    Mutant(
        "what was extracted is kept", "loading.py", "for load_id in pipeline.list_extracted_load_packages():", "for load_id in ():",
        "test_crash.py::test_a_package_with_a_table_that_dlt_has_not_noted_is_read_again", quick=False,
    ),
    Mutant(
        "a replay takes over what waits", "feed/messages.py", "where = \"state not in ('waiting', 'held')\" if again", 'where = "1" if again',
        "test_replays.py::test_a_replay_that_is_discarded_leaves_what_waits", quick=False,
    ),
    Mutant(
        "a discarded replay hides what happens", "feed/messages.py", "else \"replayed = 'new' and state in ('held', 'dropped')\"", 'else "0"',
        "test_replays.py::test_what_a_discarded_replay_saw_first_is_sent_all_the_same", quick=False,
    ),
    Mutant(
        "quiet is forgotten between runs", "feed/deliver.py", "pauses.get(name, 0.0), True", "0.0, True",
        "test_deliver.py::test_quiet_that_a_receiver_asks_for_holds_for_later_runs", quick=False,
    ),
    Mutant(
        "two failures disable", "feed/standing.py", "<= APART:", "<= 1e12:",
        "test_deliver.py::test_d2_failures_must_be_spread_over_the_120_hours", quick=False,
    ),
    Mutant(
        "two databases are one place", "place.py", '"port", "service", "database", "dbname",', '"port", "service",',
        "test_place.py::test_another_database_is_another_place", quick=False,
    ),
    Mutant(
        "what waits is loaded anywhere", "loading.py", "_digest(stored) in (upon, _digest(mine))", "True",
        "test_place.py::test_what_waits_is_read_again_where_a_backup_was_restored", quick=False,
    ),
    Mutant(
        "a lease that everybody gets", "lease.py", "if not cursor.fetchone()[0]:", "if cursor.fetchone() is None:",
        "test_two_workers.py::test_one_at_a_time_holds_a_dataset", quick=False,
    ),
)
