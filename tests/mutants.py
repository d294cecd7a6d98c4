"""Deliberate mistakes in the extractor, each with the test that must notice it."""

from __future__ import annotations

from typing import NamedTuple


class Mutant(NamedTuple):
    """A mistake: in `file` of the package, `old` becomes `new`, and `killer` must fail. Those that
    are `quick` are in `make test`, all in CI.
    """

    name: str
    file: str
    old: str
    new: str
    killer: str
    quick: bool = True


MUTANTS = (
    Mutant(
        "no status=all",
        "resources/core.py",
        '        list_filters=((("status", "all"),),),\n',
        "",
        "test_fetch.py::test_a_page_is_asked_for_with_the_filters_of_its_walk",
        quick=False,
    ),
    Mutant(
        "prices only active",
        "resources/core.py",
        '        list_filters=((("active", "true"),), (("active", "false"),)),\n',
        '        list_filters=((("active", "true"),),),\n',
        "test_small_accounts.py::test_canceled_subscriptions_and_archived_prices_are_there",
        quick=False,
    ),
    Mutant(
        "T0 taken late",
        "extract/lists.py",
        "        _replace_state(state, run.state(context.options) if is_news else before)\n",
        '        _replace_state(state, {**run.state(context.options), "t0": context.api.now()} if is_news else before)\n',
        "test_small_accounts.py::test_what_is_created_while_a_listing_runs_is_in_the_next_one",
        quick=False,
    ),
    Mutant(
        "state written before the rows are yielded",
        "extract/lists.py",
        "        for table in tables:\n            run.yielded = True\n",
        "        state.update(run.state(context.options))\n        for table in tables:\n            run.yielded = True\n",
        "test_small_accounts.py::test_a_run_that_stops_after_any_yield_loses_nothing",
        quick=False,
    ),
    Mutant(
        "stale row wins",
        "extract/tables/hints.py",
        '    return {**MERGE, "source_filter": _no_newer(names.table, "id", "", is_shared)}\n',
        "    return dict(MERGE)\n",
        "test_small_accounts.py::test_a_stale_row_does_not_replace_a_newer_one",
        quick=False,
    ),
    Mutant(
        "tie drops the row",
        "extract/tables/hints.py",
        '    return f"not exists (select 1 from ({stored_versions}) xx where {same_account}xid = {key} and xv > {alias}_version)"\n',
        '    return f"not exists (select 1 from ({stored_versions}) xx where {same_account}xid = {key} and xv >= {alias}_version)"\n',
        "test_small_accounts.py::test_of_two_rows_of_the_same_second_the_one_that_came_last_wins",
        quick=False,
    ),
    Mutant(
        "vanished children stay",
        "extract/tables/hints.py",
        '        "destination_scope": f"{keys} in ({seen})",\n',
        '        "destination_scope": "1 = 0",\n',
        "test_small_accounts.py::test_children_are_complete_and_follow_their_parent",
        quick=False,
    ),
    Mutant(
        "tombstones are stored",
        "extract/tables/hints.py",
        '        "source_filter": f"id <> {key} and {fresh}",  # tombstones: id = key\n',
        '        "source_filter": fresh,  # tombstones: id = key\n',
        "test_small_accounts.py::test_children_are_complete_and_follow_their_parent",
        quick=False,
    ),
    Mutant(
        "cursor past an unfinished second",
        "extract/paging/windows.py",
        "        window.covered = window.lo if ended else min(window.position + 1, covered_before)\n",
        "        window.covered = window.lo if ended else min(window.position, covered_before)\n",
        "test_windows.py::test_a_second_that_a_page_ends_in_stays_uncovered",
    ),
    Mutant(
        "window bounds inclusive on both ends",
        "extract/paging/windows.py",
        '        created = {"lt": self.hi, **({"gte": self.lo} if self.lo > 0 else {})}\n',
        '        created = {"lte": self.hi, **({"gte": self.lo} if self.lo > 0 else {})}\n',
        "test_windows.py::test_covers_and_windows_always_partition_the_ranges",
        quick=False,
    ),
    Mutant(
        "raised lower bound ignored",
        "extract/paging/windows.py",
        "        was_split = window.lo > request.lo\n",
        "        was_split = False\n",
        "test_windows.py::test_a_window_that_was_cut_while_its_page_was_under_way_ends_at_its_new_bound",
        quick=False,
    ),
    Mutant(
        "rows of a cut page not dropped",
        "extract/paging/windows.py",
        (
            "        keep = [\n"
            "            n\n"
            "            for n, key in enumerate(keys)\n"
            "            if not (was_split and times[n] < window.lo) and key.id not in window.boundary_ids\n"
            "        ]\n"
        ),
        "        keep = [n for n, key in enumerate(keys) if key.id not in window.boundary_ids]\n",
        "test_windows.py::test_a_window_that_was_cut_while_its_page_was_under_way_ends_at_its_new_bound",
        quick=False,
    ),
    Mutant(
        "has_more ignored for short pages",
        "extract/paging/windows.py",
        "        ended = not has_more or (was_split and times[-1] < window.lo)\n",
        "        ended = not has_more or len(keys) < 100 or (was_split and times[-1] < window.lo)\n",
        "test_windows.py::test_a_short_page_that_has_more_goes_on",
        quick=False,
    ),
    Mutant(
        "children cut at ten",
        "extract/paging/fetch.py",
        "            if embedded is None or embedded.has_more:\n",
        "            if embedded is None:\n",
        "test_fetch.py::test_a_cut_embedded_list_is_read_whole",
        quick=False,
    ),
    Mutant(
        "test clocks not filtered",
        "extract/paging/fetch.py",
        '            and (test_clocks or not value_of(clock, "ref"))\n',
        '            and (True or not value_of(clock, "ref"))\n',
        "test_fetch.py::test_rows_on_a_test_clock_are_left_out_unless_asked_for",
        quick=False,
    ),
    Mutant(
        "digest includes volatile fields",
        "extract/tables/codec.py",
        (
            "        hashed = self._hashed = [\n"
            "            column.name for column in self.columns if column.name not in volatile\n"
            "        ]\n"
        ),
        "        hashed = self._hashed = [column.name for column in self.columns]\n",
        "test_codec.py::test_the_digest_does_not_see_what_means_nothing",
    ),
    Mutant(
        "look-back dropped",
        "extract/paging/listing.py",
        '    since = max(state["start"], state["t0"] - options.look_back)\n',
        '    since = max(state["start"], state["t0"])\n',
        "test_lists.py::test_later_listings_read_what_is_new_and_look_back",
        quick=False,
    ),
    Mutant(
        "events do not wait for the lists",
        "extract/stream.py",
        "    while not context.has_ended([name for name in selected if name in RESOURCES]):\n",
        "    while False:\n",
        "test_incremental.py::test_events_wait_until_every_list_has_ended",
        quick=False,
    ),
    Mutant(
        "a key that cannot read events is not asked first",
        "extract/run.py",
        "        was_denied = EVENTS_DENIED in state and any(RESOURCES[n].events for n in lists)\n",
        "        was_denied = False\n",
        "test_stream.py::test_a_key_that_lost_its_permission_reports_new_objects_by_its_lists",
        quick=False,
    ),
    Mutant(
        "a comparison that was put off waits for the events again",
        "extract/next_step.py",
        "    polls = reads_events and not compares_first and not is_by_id\n",
        "    polls = reads_events and not is_by_id\n",
        "test_next_step.py::test_a_comparison_that_was_put_off_comes_before_more_events",
        quick=False,
    ),
    Mutant(
        "rows read again after a refusal are kept",
        "extract/paging/windows.py",
        (
            "        keep = [\n"
            "            n\n"
            "            for n, key in enumerate(keys)\n"
            "            if not (was_split and times[n] < window.lo) and key.id not in window.boundary_ids\n"
            "        ]\n"
        ),
        "        keep = [n for n, key in enumerate(keys) if not (was_split and times[n] < window.lo)]\n",
        "test_windows.py::test_a_refused_cursor_goes_on_by_time_and_drops_what_was_seen",
        quick=False,
    ),
    Mutant(
        "an empty page is the end",
        "extract/paging/windows.py",
        "        if request.cursor is None and not has_more:\n",
        "        if True:\n",
        "test_windows.py::test_an_empty_page_after_a_cursor_is_no_proof_of_the_end",
        quick=False,
    ),
    Mutant(
        "a row without created covers the rest",
        "extract/paging/windows.py",
        "        newest = newest if key.created is None else key.created\n",
        "        newest = 0 if key.created is None else key.created\n",
        "test_windows.py::test_rows_without_created_are_kept_and_cover_nothing",
        quick=False,
    ),
    Mutant(
        "finished before its last rows wait",
        "extract/paging/reader.py",
        "        return self.walk is None and not self.handing_over\n",
        "        return self.walk is None\n",
        "test_page_reader.py::test_a_listing_is_not_finished_before_its_last_rows_wait",
        quick=False,
    ),
    Mutant(
        "no gate",
        "extract/paging/reader.py",
        "                crowded\n",
        "                False\n",
        "test_page_reader.py::test_no_page_is_asked_for_while_enough_batches_wait",
        quick=False,
    ),
    Mutant(
        "sub-list cut short in silence",
        "extract/paging/fetch.py",
        "                if not has_more:\n",
        "                if not has_more or not fresh:\n",
        "test_fetch.py::test_a_sub_list_that_never_ends_leaves_its_object_out",
        quick=False,
    ),
    Mutant(
        "version from the end of the request",
        "api/client.py",
        "        requested_at = int(date - max(0.0, ended_at - started_at))\n",
        "        requested_at = int(date)\n",
        "test_client.py::test_the_time_of_a_reply_is_its_date_minus_its_elapsed_time",
        quick=False,
    ),
    Mutant(
        "reason of a 429 ignored",
        "api/rate_limits.py",
        '        elif reason.startswith("global"):\n',
        "        elif False:\n",
        "test_rate_limits.py::test_a_429_teaches_the_bucket_that_its_reason_names",
        quick=False,
    ),
    Mutant(
        "half of the state forgotten",
        "extract/paging/windows.py",
        "    pieces = [piece for a, b in ranges for piece in ((a, min(b, lo)), (max(a, hi), b))]\n",
        "    pieces = [piece for a, b in ranges for piece in ((max(a, hi), b),)]\n",
        "test_windows.py::test_subtract_leaves_the_seconds_outside_of_the_cover",
        quick=False,
    ),
    Mutant(
        "look-back of events dropped",
        "extract/next_step.py",
        '    return max(event_state["since"], event_state["cursor"] - look_back), now - settle\n',
        '    return max(event_state["since"], event_state["cursor"]), now - settle\n',
        "test_next_step.py::test_the_span_that_is_read",
        quick=False,
    ),
    Mutant(
        "events from before the list",
        "extract/next_step.py",
        '    return max(event_state["since"], event_state["cursor"] - look_back), now - settle\n',
        '    return event_state["cursor"] - look_back, now - settle\n',
        "test_next_step.py::test_the_span_that_is_read",
        quick=False,
    ),
    Mutant(
        "settle dropped",
        "extract/next_step.py",
        '    return max(event_state["since"], event_state["cursor"] - look_back), now - settle\n',
        '    return max(event_state["since"], event_state["cursor"] - look_back), now\n',
        "test_stream.py::test_an_event_is_applied_once_it_is_settled",
        quick=False,
    ),
    Mutant(
        "gap not noticed",
        "extract/next_step.py",
        (
            "    return (\n"
            '        "gap"\n'
            '        if reads_events and event_state is not None and event_state["cursor"] < now - TOO_OLD\n'
            '        else "incremental"\n'
        ),
        (
            "    return (\n"
            '        "incremental"\n'
            '        if reads_events and event_state is not None and event_state["cursor"] < now - TOO_OLD\n'
            '        else "incremental"\n'
        ),
        "test_next_step.py::test_what_to_do_for_a_resource",
    ),
    Mutant(
        "newest first",
        "extract/events/reader.py",
        "            yield newest[::-1]\n",
        "            yield newest\n",
        "test_event_reader.py::test_a_page_is_one_request",
        quick=False,
    ),
    Mutant(
        "pages backwards",
        "extract/events/reader.py",
        "            events = newest[::-1]\n",
        "            events = newest\n",
        "test_event_reader.py::test_many_pages_by_an_anchor",
        quick=False,
    ),
    Mutant(
        "reading ends at an anchor that is gone",
        "extract/events/reader.py",
        (
            "                anchor, refused = None, _count_refusal(refused)\n                continue\n"
        ),
        "                return\n",
        "test_event_reader.py::test_an_anchor_that_is_refused_is_replaced",
        quick=False,
    ),
    Mutant(
        "a second is read twice",
        "extract/events/reader.py",
        "        fresh = [event for event in events if event.id not in edge and event.created >= lo]\n",
        "        fresh = [event for event in events if event.created >= lo]\n",
        "test_event_reader.py::test_an_anchor_that_is_refused_within_a_second_with_many_events",
        quick=False,
    ),
    Mutant(
        "twins told twice",
        "extract/events/ordering.py",
        "    if len(kept) == len(steps):\n",
        "    if True:\n",
        "test_ordering.py::test_a_twin_is_dropped",
        quick=False,
    ),
    Mutant(
        "doubtful order not marked",
        "extract/events/ordering.py",
        "    return ordered, sure and match_sure and chained and _is_unique(chain)\n",
        "    return ordered, sure and match_sure and chained\n",
        "test_ordering.py::test_f6_nothing_is_wrong_and_unmarked",
        quick=False,
    ),
    Mutant(
        "order not derived",
        "extract/events/ordering.py",
        "    chain = _chain(updates, start, {step.after for step in status_only})\n",
        "    chain = list(updates)\n",
        "test_ordering.py::test_f6_shuffled_groups_are_put_in_order",
        quick=False,
    ),
    Mutant(
        "cancelled is deleted",
        "extract/events/classify.py",
        "    if event.type in resource.deleted_by:\n",
        '    if event.type.endswith(".deleted"):\n',
        "test_derive.py::test_a_cancellation_is_no_deletion",
        quick=False,
    ),
    Mutant(
        "previews land",
        "extract/events/classify.py",
        "    resource = next((row for row in candidates if event.type in row.events), None)\n",
        "    resource = next(iter(candidates), None)\n",
        "test_derive.py::test_sub_objects_and_previews_are_no_objects",
        quick=False,
    ),
    Mutant(
        "foreign snapshot is the row",
        "extract/events/history.py",
        "    if last.is_stub or not same_schema(last.resource, last.event.api_version, pin):\n",
        "    if last.is_stub and not same_schema(last.resource, last.event.api_version, pin):\n",
        "test_derive.py::test_images_of_another_shape_are_derived_and_make_no_row",
        quick=False,
    ),
    Mutant(
        "doubtful snapshot is the row",
        "extract/events/history.py",
        '    if last.from_copy or (not last.certain and last.kind != "deleted"):\n',
        "    if False:\n",
        "test_derive.py::test_an_order_that_is_not_sure_gives_no_content",
        quick=False,
    ),
    Mutant(
        "bare deletion without content",
        "extract/events/history.py",
        "    elif base is not None:\n",
        "    elif False:\n",
        "test_derive.py::test_bare_deletions_have_the_whole_object_before",
        quick=False,
    ),
    Mutant(
        "late is not told",
        "extract/events/history.py",
        ("            late = n < last_seen or entry.event.created < compared\n"),
        "            late = entry.event.created < compared\n",
        "test_derive.py::test_seen_events_give_no_change_and_what_they_overtook_is_late",
        quick=False,
    ),
    Mutant(
        "events of a second have one version",
        "extract/events/history.py",
        "            msgspec.structs.replace(entry, position=n, certain=sure)\n",
        "            msgspec.structs.replace(entry, position=1, certain=sure)\n",
        "test_derive.py::test_numbers_count_within_a_second",
        quick=False,
    ),
    Mutant(
        "links are told",
        "extract/events/history.py",
        "    left_out = (*entry.resource.bearer_links, *entry.resource.excluded)\n",
        "    left_out = ()\n",
        "test_derive.py::test_links_are_in_no_change",
        quick=False,
    ),
    Mutant(
        "an absent key becomes null",
        "extract/tables/diff.py",
        "        if is_map and old is None:\n",
        "        if False:\n",
        "test_diff.py::test_the_old_values_give_the_image_before",
        quick=False,
    ),
    Mutant(
        "tie goes to the list row",
        "extract/writer.py",
        "VERSION_LAG = 5  # seconds by which a listed row is older than an event of the same time\n",
        "VERSION_LAG = -5  # seconds that a listed row yields to an event of the same time\n",
        "test_stream.py::test_an_event_in_the_second_of_the_list_wins",
        quick=False,
    ),
    Mutant(
        "children of deleted parents stay",
        "extract/writer.py",
        "                (record.row.id, child_items(record, child) if deletion is None else [], version)\n",
        "                (record.row.id, child_items(record, child), version)\n",
        "test_stream.py::test_deleted_rows_stay_with_their_last_content",
        quick=False,
    ),
    Mutant(
        "seen events applied again",
        "extract/apply.py",
        "            event.seen = event.seen or event.event.id in seen\n",
        "            event.seen = False\n",
        "test_stream.py::test_an_event_is_applied_once_it_is_settled",
        quick=False,
    ),
    Mutant(
        "cut snapshot is the row",
        "extract/apply.py",
        '        elif last.kind != "deleted" and _has_truncated_list(batch.writer, record):\n',
        "        elif False:\n",
        "test_stream.py::test_children_follow_their_parent_beyond_the_ten_that_an_event_shows",
        quick=False,
    ),
    Mutant(
        "cursor advanced on a 403",
        "extract/stream.py",
        (
            "        try:\n"
            "            while (\n"
            "                active := [b for b in batches if not b.finished]\n"
            "            ) and not self.context.package_full:\n"
        ),
        (
            "        try:\n"
            "            for r in resources:\n"
            '                self.states[r.table]["cursor"] = settled\n'
            "            while (active := [b for b in batches if not b.finished]) and not self.context.package_full:\n"
        ),
        "test_stream.py::test_a_key_that_loses_its_permission_within_a_run_loses_no_event",
        quick=False,
    ),
    Mutant(
        "a difference although an event will tell",
        "extract/reconcile.py",
        "                pending |= ids\n",
        "                pending &= ids\n",
        "test_reconcile.py::test_what_an_event_will_tell_is_left_to_it",
        quick=False,
    ),
    Mutant(
        "what is not listed is gone",
        "extract/reconcile.py",
        "        gone = [id for id in missing if id in wanted and id not in found_ids]\n",
        "        gone = [id for id in missing if id in wanted]\n",
        "test_reconcile.py::test_what_the_list_does_not_show_is_not_gone",
        quick=False,
    ),
    Mutant(
        "what a list brought is never told",
        "extract/reconcile.py",
        "            *(c for c in (*ahead, *self.unrecorded) if c.object_id not in pending),\n",
        "            *(c for c in self.unrecorded if c.object_id not in pending),\n",
        "test_reconcile.py::test_what_a_list_brought_without_an_event_is_recorded",
        quick=False,
    ),
    Mutant(
        "nothing before a lost creation",
        "extract/reconcile.py",
        "            *(change for change in creates if change.object_id not in pending),\n",
        "",
        "test_reconcile.py::test_what_a_list_brought_without_an_event_is_recorded",
        quick=False,
    ),
    Mutant(
        "a load that did not end told everything",
        "extract/reconcile.py",
        "            *(c for c in (*ahead, *self.unrecorded) if c.object_id not in pending),\n",
        "            *(c for c in ahead if c.object_id not in pending),\n",
        "test_reconcile.py::test_what_a_list_brought_without_an_event_is_recorded",
        quick=False,
    ),
    Mutant(
        "a row that was copied before its original changed was deleted",
        "extract/stream.py",
        '                    states[table]["copied"] = sorted(copied)\n',
        "                    pass\n",
        "test_damage.py::test_a_copied_row_is_removed_although_its_original_changes_meanwhile",
        quick=False,
    ),
    Mutant(
        "the state names every copied row",
        "extract/repairs/stray_rows.py",
        "select_rows(client, query, limit=most) if id",
        "select_rows(client, query) if id",
        "test_damage.py::test_the_state_names_a_limited_number_of_copied_rows",
    ),
    Mutant(
        "a copy in an item proves its price",
        "extract/reconcile.py",
        (
            "            or not is_embedded_copy(row.version, row.created, row.active)\n"
            "            or row.irregular\n"
            "            or not row.written_by_run\n"
        ),
        "",
        "test_deleted_prices.py::test_what_was_deleted_in_a_gap_is_gone_though_an_item_shows_it",
        quick=False,
    ),
    Mutant(
        "what was never held is not marked as gone",
        "extract/apply.py",
        "        if self.writer.resource.table in EMBEDDED_TABLES:\n",
        "        if self.writer.resource.table in ():\n",
        "test_deleted_prices.py::test_what_came_and_went_between_two_runs_does_not_live_on_in_an_item",
        quick=False,
    ),
    Mutant(
        "the digest that was loaded vouches for the row",
        "extract/reconcile.py",
        "        elif row.irregular or row.content != digests or row.hash != record.hash:\n",
        "        elif row.irregular or row.hash != record.hash:\n",
        "test_damage.py::test_a_comparison_restores_whatever_was_done_and_records_no_change",
        quick=False,
    ),
    Mutant(
        "an empty table counts as listed",
        "extract/lists.py",
        '    if writer.resource.table in writer.tables_without_rows and "empty" not in state:\n',
        "    if False:\n",
        "test_damage.py::test_a_table_that_is_gone_or_empty_is_listed_again",
        quick=False,
    ),
    Mutant(
        "events are asked for in as many calls as it takes",
        "extract/events/poll_groups.py",
        "    if len(groups) <= MAX_FILTERED_CALLS:\n",
        "    if True:\n",
        "test_event_reader.py::test_one_call_for_every_type_replaces_more_than_three",
        quick=False,
    ),
    Mutant(
        "a resource without events waits for them",
        "extract/next_step.py",
        "            reads_events and bool(resources[name].events),\n",
        "            reads_events,\n",
        "test_next_step.py::test_until_they_are_due_whole_lists_rest",
        quick=False,
    ),
    Mutant(
        "a list tells what its first load had not read yet",
        "extract/lists.py",
        "    return record.created >= since\n",
        "    return True\n",
        "test_relists.py::test_an_interrupted_first_load_tells_nothing_either",
        quick=False,
    ),
    Mutant(
        "a list overwrites a change that no event tells",
        "extract/lists.py",
        "    return writer.changes([*created, *changed])\n",
        "    return writer.changes(created)\n",
        "test_relists.py::test_a_change_within_the_look_back_of_the_list_is_told",
        quick=False,
    ),
    Mutant(
        "a whole walk begins anew where its last object was deleted",
        "extract/paging/whole_walk.py",
        "            self._recent.pop(request.cursor, None)\n",
        "            self._recent.clear()\n",
        "test_whole_walk.py::test_a_deleted_cursor_is_replaced_by_the_one_before",
        quick=False,
    ),
    Mutant(
        "a column that only names the parent is compared",
        "extract/tables/diff.py",
        "    if items and isinstance(parent, str):\n",
        "    if False:\n",
        "test_diff.py::test_a_column_that_only_names_the_parent_is_not_compared",
        quick=False,
    ),
    Mutant(
        "a list that is read again is not compared",
        "extract/lists.py",
        '    run.compare = relist or state.get("compare", False)\n',
        '    run.compare = state.get("compare", False)\n',
        "test_reconcile.py::test_what_was_deleted_in_the_middle_of_a_first_list_that_took_too_long_is_found",
        quick=False,
    ),
    Mutant(
        "any account's webhook lands",
        "extract/stream.py",
        "        return event.account in (None, account.id) and event.livemode in (None, account.livemode)\n",
        "        return True\n",
        "test_webhook_events.py::test_a_body_of_another_account_or_mode_is_passed_over",
        quick=False,
    ),
    Mutant(
        "polling forgets what rang",
        "extract/stream.py",
        '                state["rung"] = min(max(state.get("rung", 0), object_event.event.created), now)\n',
        "                pass\n",
        "test_webhook_events.py::test_what_shows_only_after_a_newer_one_says_late",
        quick=False,
    ),
    Mutant(
        "what was told is not asked",
        "extract/apply.py",
        "    overtaken = {id: second for id, second in first_new.items() if second < started}\n",
        "    overtaken = {id: second for id, second in first_new.items() if False}\n",
        "test_webhook_events.py::test_what_no_list_shows_says_late_though_the_newer_one_is_not_read_with_it",
        quick=False,
    ),
    Mutant(
        "a row read again is older than its event",
        "extract/apply.py",
        "        return max(read_version(fetched.requested_at), 0 if last is None else version_after(last))\n",
        "        return max(read_version(fetched.requested_at), 0)\n",
        "test_webhook_events.py::test_a_row_is_right_at_once_whatever_the_order_in_its_second",
        quick=False,
    ),
    Mutant(
        "rung events are read unread",
        "server/service.py",
        "    read = [one for one in waiting if one not in left]\n",
        "    read = waiting\n",
        "test_service.py::test_rung_events_are_noted_as_read_once_they_are_in_the_feed",
        quick=False,
    ),
    Mutant(
        "signatures of the future",
        "delivery/signatures.py",
        "    if int(time) > now + tolerance:\n",
        "    if False:\n",
        "test_signatures.py",
        quick=False,
    ),
    Mutant(
        "a guard counts a run only",
        "triggers/engine.py",
        ' + store.query(f"select count(*) {recent_messages}", *values)[0][0]',
        "",
        "test_engine.py::test_a_large_load_that_comes_in_pieces_is_held_as_one",
        quick=False,
    ),
    Mutant(
        "a share counts messages",
        "triggers/engine.py",
        "    if total and object_count >= MIN_FOR_SHARE and object_count > trigger.guard.share * total:\n",
        "    if total and count >= MIN_FOR_SHARE and count > trigger.guard.share * total:\n",
        "test_engine.py::test_t4_a_share_counts_each_object_once_over_runs_too",
        quick=False,
    ),
    Mutant(
        "the middle of a chain twice",
        "triggers/expressions.py",
        "            right = value(scope)\n",
        "            right = value(scope) or value(scope)\n",
        "test_expressions.py::test_each_field_is_read_once_however_deeply_the_rule_is_nested",
        quick=False,
    ),
    Mutant(
        "a copy in use is null",
        "feed/lookups.py",
        "            raise LookupUnavailable(str(fault)) from None\n",
        "            self._cache |= dict.fromkeys(missing, (now, None))\n",
        "test_lookups.py::test_a_copy_that_cannot_be_read_is_later_and_never_null",
        quick=False,
    ),
    Mutant(
        "what was forgotten is looked up",
        "feed/lookups.py",
        (
            "        return {\n"
            "            root: None if image is not None and self._is_forgotten(image) else image\n"
            "            for root, image in images.items()\n"
            "        }\n"
        ),
        "        return {root: image for root, image in images.items()}\n",
        "test_lookups.py::test_a_message_says_what_is_beside_its_change_when_it_is_sent",
        quick=False,
    ),
    Mutant(
        "a poll gets a hundred",
        "server/changes_query.py",
        "            len(records) >= (question.limit or (SCAN_LIMIT if is_recent else DEFAULT_LIMIT))\n",
        "            len(records) >= (question.limit or DEFAULT_LIMIT)\n",
        "test_changes_api.py::test_who_polls_without_a_cursor_gets_all_of_the_hour_or_has_more",
        quick=False,
    ),
    Mutant(
        "one trigger's fault is all triggers'",
        "triggers/engine.py",
        "        except StripeFeedError as fault:\n",
        "        except ZeroDivisionError as fault:\n",
        "test_engine.py::test_a_trigger_that_cannot_run_says_so_and_holds_up_no_other",
        quick=False,
    ),
    Mutant(
        "one of two equal rows came first",
        "extract/events/history.py",
        "    return candidates.pop() if len(candidates) == 1 else None\n",
        "    return max(candidates, default=None)\n",
        "test_derive.py::test_a_round_through_other_children_is_never_wrong_and_sure",
        quick=False,
    ),
    Mutant(
        "a shape of before tells nothing",
        "extract/events/history.py",
        "        return _hash_of_matching_before(second, before.image, require_all=True)\n",
        "        return None\n",
        "test_derive.py::test_a_round_begins_like_the_image_before_whatever_its_shape",
        quick=False,
    ),
    Mutant(
        "a copy inside an item counts",
        "extract/events/history.py",
        (
            "    content = normalized_image(\n"
            "        {name: value for name, value in image.items() if name not in left_out}\n"
            "    )\n"
        ),
        "    content = dict({name: value for name, value in image.items() if name not in left_out})\n",
        "test_derive.py::test_a_price_that_changes_between_them_does_not_part_two_events_of_a_subscription",
        quick=False,
    ),
    Mutant(
        "an image made of a row is an event's",
        "extract/existing.py",
        (
            "            version,\n"
            '            None if op == "d" else parse_cell(after),\n'
            '            origin == "event",\n'
            "            int(with_zone(at).timestamp()),\n"
        ),
        '            version, None if op == "d" else parse_cell(after), True, int(with_zone(at).timestamp())\n',
        "test_snapshot.py::test_events_go_on_from_an_image_that_was_made_of_a_row",
        quick=False,
    ),
    Mutant(
        "what happened before events were readable is untold",
        "extract/next_step.py",
        '        return "relist" if any(list_state["left"]) else "gap"\n',
        '        return "relist"\n',
        "test_stream.py::test_a_copy_whose_key_gets_the_permission_later_is_compared_first",
        quick=False,
    ),
    Mutant(
        "a discount counts by its id",
        "extract/tables/diff.py",
        (
            "    return {\n"
            "        name: id_of(value) if name in EMBEDDED_OBJECTS else value for name, value in image.items()\n"
            "    }\n"
        ),
        "    return {name: id_of(value) for name, value in image.items()}\n",
        "test_derive.py::test_what_is_part_of_an_object_counts_whole",
        quick=False,
    ),
    Mutant(
        "another version is a change",
        "extract/reconcile.py",
        "                if shared is not names:\n",
        "                if not names:\n",
        "test_reconcile.py::test_another_api_version_makes_no_changes",
        quick=False,
    ),
    Mutant(
        "what was extracted is kept",
        "destination/load.py",
        "    for load_id in pipeline.list_extracted_load_packages():\n",
        "    for load_id in ():\n",
        "test_crash.py::test_a_package_with_a_table_that_dlt_has_not_noted_is_read_again",
        quick=False,
    ),
    Mutant(
        "a replay takes over what waits",
        "delivery/outbox.py",
        (
            "    where = (\n"
            "        \"state not in ('waiting', 'held')\"\n"
            "        if replay\n"
            "        else \"replayed = 'new' and state in ('held', 'dropped')\"\n"
            "    )\n"
        ),
        "    where = \"1\" if replay else \"replayed = 'new' and state in ('held', 'dropped')\"\n",
        "test_replays.py::test_a_replay_that_is_discarded_leaves_what_waits",
        quick=False,
    ),
    Mutant(
        "a discarded replay hides what happens",
        "delivery/outbox.py",
        (
            "    where = (\n"
            "        \"state not in ('waiting', 'held')\"\n"
            "        if replay\n"
            "        else \"replayed = 'new' and state in ('held', 'dropped')\"\n"
            "    )\n"
        ),
        "    where = \"state not in ('waiting', 'held')\" if replay else \"0\"\n",
        "test_replays.py::test_what_a_discarded_replay_saw_first_is_sent_all_the_same",
        quick=False,
    ),
    Mutant(
        "quiet is forgotten between runs",
        "delivery/worker.py",
        (
            "            lanes.disabled, lanes.paused_until, lanes.has_more = (\n"
            "                name in disabled,\n"
            "                pauses.get(name, 0.0),\n"
            "                True,\n"
            "            )\n"
        ),
        "            lanes.disabled, lanes.paused_until, lanes.has_more = name in disabled, 0.0, True\n",
        "test_worker.py::test_quiet_that_a_receiver_asks_for_holds_for_later_runs",
        quick=False,
    ),
    Mutant(
        "two failures disable",
        "delivery/endpoint_health.py",
        "    if since is None or not -CLOCK_SKEW <= now - (since if before is None else before) <= MAX_GAP:\n",
        "    if since is None or not -CLOCK_SKEW <= now - (since if before is None else before) <= 1e12:\n",
        "test_worker.py::test_d2_failures_must_be_spread_over_the_120_hours",
        quick=False,
    ),
    Mutant(
        "two databases are one place",
        "destination/place.py",
        ('    "database",\n    "dbname",\n'),
        "",
        "test_place.py::test_another_database_is_another_place",
        quick=False,
    ),
    Mutant(
        "what waits is loaded anywhere",
        "destination/load.py",
        " and _digest(stored) in digests\n",
        "\n",
        "test_place.py::test_what_waits_is_read_again_where_a_backup_was_restored",
        quick=False,
    ),
    Mutant(
        "a lease that everybody gets",
        "destination/lease.py",
        "            if not cursor.fetchone()[0]:\n",
        "            if cursor.fetchone() is None:\n",
        "test_lease.py::test_one_at_a_time_holds_a_dataset",
        quick=False,
    ),
    Mutant(
        "another key for each try of a write",
        "api/client.py",
        '            self._client.raw_request(method, path, **({"idempotency_key": key} if key else {}))\n',
        "            self._client.raw_request(method, path)\n",
        "test_client_writes.py::test_a_write_without_an_answer_is_repeated_with_the_same_key_and_body",
        quick=False,
    ),
    Mutant(
        "a lost answer is a failure",
        "api/client.py",
        "                if _may_have_arrived(final, fault):\n",
        "                if False:\n",
        "test_client_writes.py::test_a_write_that_never_gets_an_answer_is_unknown",
        quick=False,
    ),
    Mutant(
        "the first 404 of a delete is success",
        "api/client.py",
        '                if isinstance(final, NotFound) and method == "delete" and doubt:\n',
        '                if isinstance(final, NotFound) and method == "delete":\n',
        "test_client_writes.py::test_a_404_of_the_first_delete_is_not",
        quick=False,
    ),
    Mutant(
        "what was sent is quoted",
        "api/transport.py",
        "            body = _redacted(body, form)\n",
        "            pass\n",
        "test_client_writes.py::test_stripes_sentence_is_quoted_without_what_was_sent",
        quick=False,
    ),
    Mutant(
        "search decides a create",
        "write/lookup/find.py",
        "        if not filters and query is not None and (answer or not decides_create):\n",
        "        if not filters and query is not None:\n",
        "test_actions.py::test_a_create_is_never_decided_by_search",
        quick=False,
    ),
    Mutant(
        "hits of search are not tested",
        "write/lookup/find.py",
        "                hits = tuple(hit for hit in found if matches(wanted, hit))\n",
        "                hits = tuple(found)\n",
        "test_actions.py::test_search_may_decide_an_update_and_each_hit_is_tested",
        quick=False,
    ),
    Mutant(
        "null clears a field",
        "write/parameters.py",
        '        return SKIPPED if nulls == "skip" or is_entry else _cleared(row, verb, known, path)\n',
        "        return _cleared(row, verb, known, path)\n",
        "test_parameters.py::test_an_empty_value_has_three_meanings",
        quick=False,
    ),
    Mutant(
        "an answer in another mode is taken",
        "write/lookup/find.py",
        "    if live is not None and live != api.live:\n",
        "    if False:\n",
        "test_actions.py::test_an_answer_in_the_other_mode_ends_everything",
        quick=False,
    ),
    Mutant(
        "rows that are gone delete in every mode",
        "write/push/definition.py",
        '    if push.on_delete != NOTHING and push.mode != "upsert":\n',
        "    if False:\n",
        "test_push_matrix.py::test_a_definition_stands_for_what_stripe_can_do",
        quick=False,
    ),
    Mutant(
        "an insert updates what is there",
        "write/push/decide.py",
        '    if push.mode == "insert":\n',
        "    if False:\n",
        "test_push_matrix.py::test_a_row_is_decided_by_mode_match_and_nulls",
        quick=False,
    ),
    Mutant(
        "a value that is there is replaced",
        "write/push/mapping.py",
        "    if push.only_if_empty:\n",
        "    if False:\n",
        "test_push.py::test_values_that_are_there_stay_if_that_is_asked_for",
        quick=False,
    ),
    Mutant(
        "live data is deleted without a question",
        "write/verbs.py",
        "    if effect and not order.confirm:\n",
        "    if False:\n",
        "test_actions.py::test_what_cannot_be_undone_on_live_data_needs_a_confirmation",
        quick=False,
    ),
    Mutant(
        "a key without the version of its row",
        "write/push/log.py",
        "        what = [self.account_id, self.livemode, push, row_key, version, step]\n",
        "        what = [self.account_id, self.livemode, push, row_key, step]\n",
        "test_push_log.py::test_no_two_requests_share_a_key",
        quick=False,
    ),
    Mutant(
        "an alert for each failing run",
        "feed/storage/push_states.py",
        '        if found not in ("healthy", "interrupted", prior):\n',
        '        if found not in ("healthy", "interrupted"):\n',
        "test_push_alerts.py::test_each_change_of_state_is_told_once",
        quick=False,
    ),
    Mutant(
        "what pushes did goes to everybody",
        "feed/storage/store.py",
        "    if not resources:\n        sql +=",
        "    if False:\n        sql +=",
        "test_push_alerts.py::test_only_who_names_pushes_gets_them",
        quick=False,
    ),
    Mutant(
        "an e-mail address is the key of a row on record",
        "write/push/history/records.py",
        '    return sha256(key.encode()).hexdigest() if "@" in key else key\n',
        "    return key\n",
        "test_push_record.py::test_a_run_is_in_the_destination_without_personal_data",
        quick=False,
    ),
    Mutant(
        "runs are loaded before what belongs to them",
        "resources/push_tables.py",
        "for one in (_OPERATIONS, _REJECTED, _RUNS)}",
        "for one in (_RUNS, _OPERATIONS, _REJECTED)}",
        "test_push_record.py::test_the_runs_come_last",
        quick=False,
    ),
    Mutant(
        "a request without an answer counts as refused",
        "write/push/send.py",
        "        except OutcomeUnknown as error:\n            return self._after_doubt(request, error)\n",
        '        except OutcomeUnknown as error:\n            self.log.abandon(request.operation)\n            return Outcome("rejected", None, str(error))\n',
        "test_push.py::test_a_request_without_an_answer_takes_effect_once",
        quick=False,
    ),
    Mutant(
        "a push deletes as much as it likes",
        "write/push/compare.py",
        "    if count > push.max_deletes:\n",
        "    if False:\n",
        "test_push.py::test_more_deletes_than_allowed_stop_the_run_before_it_sends_anything",
        quick=False,
    ),
    Mutant(
        "a price is archived before another one is the default",
        "write/push/rules/prices.py",
        '    if product is not None and product.get("default_price") in replaced:\n',
        "    if False:\n",
        "test_push_catalog.py::test_a_changed_amount_makes_a_new_price_that_takes_the_old_ones_place",
        quick=False,
    ),
    Mutant(
        "items of a subscription are added",
        "write/push/rules/subscriptions.py",
        "    return difference + [",
        "    return difference + [] and [",
        "test_push_billing.py::test_items_are_changed_swapped_and_removed_never_added_twice",
        quick=False,
    ),
    Mutant(
        "a changed subscription is prorated unasked",
        "write/push/rules/subscriptions.py",
        '    params.setdefault("proration_behavior", push.proration_behavior)\n',
        "",
        "test_push_billing.py::test_a_change_is_prorated_only_if_that_is_asked_for",
        quick=False,
    ),
    Mutant(
        "a run takes a copy's word for what exists",
        "write/push/matching.py",
        "        if not newer or not self.is_plan:\n            return self.is_plan\n",
        "        if not newer:\n            return True\n",
        "test_push_copy.py::test_a_run_asks_stripe_though_a_fresh_copy_knows_better_or_nothing",
        quick=False,
    ),
    Mutant(
        "a row that is gone is settled after the others",
        "write/push/run.py",
        "        self._each(open_and_gone, execution.settling, lambda row: row.row_key)\n",
        "",
        "test_push_doubt.py::test_a_row_that_gets_another_key_while_its_request_is_open_has_one_object",
        quick=False,
    ),
    Mutant(
        "what is on a test clock is looked for in the list of all",
        "write/push/send.py",
        'FIXED = ("customer", "customer_account", "test_clock", "product")\n',
        'FIXED = ("customer", "customer_account", "product")\n',
        "test_push_doubt.py::test_a_customer_on_a_test_clock_is_found_after_a_day",
        quick=False,
    ),
    Mutant(
        "a blank cell shortens a list",
        "write/push/mapping.py",
        "            keep_entries(push, wanted, name, len(sent), True)\n",
        "            pass\n",
        "test_push_billing.py::test_a_blank_cell_shortens_no_list",
        quick=False,
    ),
)
