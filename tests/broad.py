"""What `make test` leaves to `make broad`, and what holds the same guarantee there.

By file and test: a tuple names the cases that stay in `make test`; a text names the cheaper test
that stays.
"""

from __future__ import annotations

BROAD: dict[str, dict[str, tuple[str, ...] | str]] = {
    "test_contract.py": {
        "test_a_life_of_a_copy": "test_contract.py::test_a_short_life_of_a_copy_in_a_lake",
        "test_the_newest_version_wins_and_children_are_complete": ("duckdb",),
    },
    "test_lakes.py": {
        "test_a_few_histories_end_equal_to_the_account": "test_contract.py::test_a_short_life_of_a_copy_in_a_lake",
        "test_updates_and_deletes_by_sql_are_commits": ("delta",),
        "test_a_full_refresh_loads_everything_again": "test_contract.py::test_a_short_life_of_a_copy_in_a_lake",
    },
    "test_crash.py": {
        "test_a_killed_run_goes_on": ("merged-1-later",),
        "test_a_run_in_packages_reads_nothing_twice": "test_crash.py::test_at_most_one_package_is_read_again",
        "test_a_package_with_a_table_that_dlt_has_not_noted_is_read_again": "test_locks.py::test_a_package_that_cannot_be_loaded_holds_up_no_run",
    },
    "test_damage.py": {
        "test_whatever_is_done_to_the_tables_a_comparison_restores": "test_damage.py::test_a_comparison_restores_whatever_was_done_and_records_no_change",
        "test_whatever_table_is_gone_a_sync_lists_it_again": "test_damage.py::test_a_table_that_is_gone_or_empty_is_listed_again",
        "test_a_table_that_is_gone_or_empty_is_listed_again": ("dropped",),
        "test_a_lost_table_gets_back_what_only_items_show": ("prices-0-False",),
    },
    "test_dataset_owner.py": {
        "test_another_key_is_refused_before_anything_is_written":
            ("another account-by_sync-no state in the destination", "another account-by_a_plain_run-state only here", "the other mode-by_sync-no local state"),
        "test_the_right_key_goes_on_after_a_refusal": ("by_a_plain_run",),
    },
    "test_deleted_prices.py": {
        "test_what_came_and_went_between_two_runs_does_not_live_on_in_an_item": ("bare",),
        "test_a_few_histories_end_as_they_are": "test_deleted_prices.py::test_what_was_deleted_in_a_gap_is_gone_though_an_item_shows_it",
    },
    "test_destinations.py": {
        "test_a_merge_on_postgres_is_linear": "test_destinations.py::test_on_postgres_ids_are_indexed_once",
        "test_two_runs": ("postgres",),
        "test_an_account_without_most_things": "test_destinations.py::test_two_runs",
        "test_a_role_that_may_not_index_still_loads": "test_destinations.py::test_an_index_waits_for_nobody",
        "test_a_push_asks_a_copy_on_postgres_for_an_address_in_another_case": "test_push_copy.py::test_a_fresh_copy_plans_what_stripe_would",
    },
    "test_dlt_native.py": {
        "test_subscriptions_alone_bring_the_prices_of_their_items": "test_truth.py::test_prices_that_are_selected_later_find_the_hidden_ones_there",
        "test_the_shortest_script_loads_the_account": "test_pipelines.py::test_the_shortest_script_loads_the_account_and_shows_its_tables",
        "test_a_generator_that_is_stopped_after_any_yield_loses_nothing": ("2-1",),
        "test_no_thread_is_left_after_a_run": ("None",),
        "test_a_pipeline_that_began_in_another_folder_is_refused_there": ("None",),
        "test_no_rows_stay_in_dlt_s_folder": ("False",),
        "test_every_column_is_described_in_the_schema": "test_dlt_native.py::test_every_column_is_described_in_the_database",
        "test_a_backfill_that_is_stopped_and_started_again_loses_nothing": "test_small_accounts.py::test_a_run_that_stops_after_any_yield_loses_nothing",
        "test_a_limit_counts_pages": "test_dlt_native.py::test_a_limit_brings_some_rows_and_the_next_run_the_rest",
    },
    "test_docs.py": {
        "test_every_block_of_a_page_runs": ("docs/actions.md", "docs/tables.md", "docs/how-it-works.md", "docs/faq.md"),
    },
    "test_feed_crash.py": {
        "test_a_run_that_is_killed_among_events_goes_on": "test_crash.py::test_a_killed_run_goes_on",
    },
    "test_error_messages.py": {
        "test_a_level_of_dlts_log_that_does_not_exist_is_a_setting":
            "test_error_messages.py::test_what_dlt_raises_where_it_applies_its_settings_is_a_setting",
    },
    "test_feed_cli.py": {
        "test_a_reader_that_goes_away_costs_at_most_what_it_did_not_read": "test_feed_cli.py::test_who_stops_reading_costs_at_most_what_was_not_read",
        "test_follow_prints_what_comes_and_ends_with_ctrl_c": "test_feed_cli.py::test_follow_prints_what_comes_until_it_is_interrupted",
    },
    "test_feed_property.py": {
        "test_the_same_on_postgres": "test_destinations.py::test_two_runs",
    },
    "test_first_loads.py": {
        "test_a_first_load_under_writes_ends_equal_to_the_account": "test_small_accounts.py::test_what_is_created_while_a_listing_runs_is_in_the_next_one",
    },
    "test_group_histories.py": {
        "test_tables_of_all_groups_equal_a_random_history": "test_resource_rows.py::test_every_table_equals_the_account",
    },
    "test_group_kills.py": {
        "test_runs_that_end_badly_leave_no_trace": "test_crash.py::test_a_killed_run_goes_on",
    },
    "test_relists.py": {
        "test_without_changes_whole_lists_are_read_for_their_rows": "test_next_step.py::test_what_is_due_otherwise",
        "test_dates_hold_for_lists_without_a_filter_by_time": "test_next_step.py::test_an_earlier_start_has_whole_lists_read",
        "test_a_snapshot_has_objects_without_events_too": "test_snapshot.py::test_f7_a_snapshot_of_objects_that_change_while_they_are_read",
        "test_an_empty_whole_list_is_not_taken_for_a_lost_table": "test_relists.py::test_a_table_that_is_gone_comes_back_without_a_change",
        "test_tables_equal_a_random_history_of_silent_changes": "test_relists.py::test_the_tables_equal_the_account_after_that",
        "test_an_own_pipeline_reads_lists_again_too": "test_relists.py::test_silent_changes_are_told_once_when_the_lists_are_read_again",
        "test_how_often_lists_are_read_again_can_be_set": "test_next_step.py::test_what_is_due_otherwise",
        "test_a_key_that_may_not_read_events_finds_changes_of_whole_lists": "test_relists.py::test_silent_changes_are_told_once_when_the_lists_are_read_again",
    },
    "test_stream.py": {
        "test_f4_change_ids_are_the_same_wherever_and_whenever_they_are_read": "test_stream.py::test_f1_every_transition_is_recorded_once",
        "test_a_comparison_that_begins_to_follow_knows_the_shape_of_the_rows": "test_reconcile.py::test_another_api_version_makes_no_changes",
        "test_webhooks_do_not_record_what_a_comparison_records": "test_stream.py::test_a_copy_whose_key_gets_the_permission_later_is_compared_first",
        "test_a_key_that_loses_its_permission_while_lists_are_compared": "test_stream.py::test_a_key_that_loses_its_permission_within_a_run_loses_no_event",
        "test_f10_a_deletion_without_a_body_has_the_whole_object_before": ("row",),
        "test_deleted_rows_stay_with_their_last_content": ("stubs",),
        "test_an_object_that_is_created_again_lives_again": ("0-True",),
        "test_events_of_another_shape_are_read_again": ("2024-06-20",),
        "test_a_copy_whose_key_gets_the_permission_later_is_compared_first": ("at once",),
        "test_a_comparison_that_begins_to_follow_and_a_start_date": "test_stream.py::test_a_copy_whose_key_gets_the_permission_later_is_compared_first",
        "test_a_limit_loses_nothing": "test_dlt_native.py::test_a_limit_brings_some_rows_and_the_next_run_the_rest",
        "test_lost_and_doubled_events": "test_reconcile.py::test_a_lost_update_deletion_and_creation_are_found",
        "test_f9_another_version_of_the_account_is_no_change": "test_reconcile.py::test_another_api_version_makes_no_changes",
        "test_an_idle_run_asks_little_and_writes_nothing": "test_incremental.py::test_a_run_with_nothing_new_writes_nothing",
        "test_a_key_that_lost_its_permission_a_month_ago_still_loads": "test_stream.py::test_a_key_that_may_not_read_events_loses_none",
        "test_a_key_that_lost_its_permission_reports_new_objects_by_its_lists": "test_incremental.py::test_a_key_without_events_tells_what_is_new_by_its_lists",
        "test_a_resource_that_is_added_later_is_followed_from_its_list_on": "test_stream.py::test_a_selection_leaves_the_cursors_of_the_rest",
        "test_events_of_every_type_are_read_in_one_call": "test_stream.py::test_f1_every_transition_is_recorded_once",
        "test_an_incremental_run_asks_for_its_events_and_nothing_else": "test_event_reader.py::test_a_page_is_one_request",
    },
    "test_model_presets.py": {
        "test_each_preset_fires_for_what_the_account_shows": "test_model_triggers.py::test_every_preset_reads_its_model_as_it_is_built",
    },
    "test_models_oracle.py": {
        "test_every_cell_is_as_calculated_with_another_definition":
            "test_models_oracle.py::test_every_cell_is_as_calculated_with_all_other_definitions",
        "test_however_changes_come_every_cell_is_the_same": ("old-shape-shuffled-invoiced",),
        "test_a_fault_in_the_sql_is_seen": ("unpaid counts", "a discount lasts", "due when it was made"),
        "test_after_one_load_or_many_every_cell_is_the_same": "test_models_slices.py::test_however_rows_change_the_tables_are_those_of_a_whole_build",
    },
    "test_incremental.py": {
        "test_the_look_back_bounds_how_late_an_object_may_be": ("300-True",),
        "test_an_object_of_the_future_comes_when_its_time_comes": ("without events",),
        "test_a_key_without_events_tells_what_is_new_by_its_lists": ("1",),
        "test_an_idle_cursor_is_stored_every_six_hours": ("2",),
        "test_lists_come_first_and_the_events_after_them": "test_incremental.py::test_events_wait_until_every_list_has_ended",
        "test_a_later_start_date_is_remembered_as_the_earliest_that_was_asked_for":
            "test_incremental.py::test_a_start_date_leaves_out_what_is_older_and_a_lower_one_fills_the_gap",
        "test_objects_on_test_clocks_are_loaded_on_request": "test_fetch.py::test_rows_on_a_test_clock_are_left_out_unless_asked_for",
        "test_a_working_directory_that_was_deleted_costs_nothing": "test_incremental.py::test_a_load_that_ended_half_way_in_a_lost_container_is_done_again",
        "test_a_load_that_ended_half_way_in_a_lost_container_is_done_again": ("prices",),
        "test_a_database_that_was_deleted_is_loaded_anew": "test_incremental.py::test_an_older_database_that_was_restored_loses_nothing",
        "test_a_resource_that_is_selected_later_is_loaded_whole": "test_truth.py::test_prices_that_are_selected_later_find_the_hidden_ones_there",
        "test_a_backfill_between_two_runs_moves_no_cursor": "test_incremental.py::test_a_range_loads_what_lies_in_it_and_leaves_the_cursor_alone",
    },
    "test_locks.py": {
        "test_a_reader_holds_a_run_up_for_as_long_as_it_may_wait": ("before rows are looked up",),
        "test_without_waiting_it_says_who_is_in_the_way": ("before the load",),
    },
    "test_push_kills.py": {
        "test_a_push_that_is_killed_again_and_again_does_everything_once": ("60-20",),
    },
    "test_preflight.py": {
        "test_another_tools_tables_stay_as_they_are": ("by_sync", "by_own_pipeline"),
    },
    "test_in_place.py": {
        "test_a_column_may_have_the_name_that_duckdb_gives_the_number_of_a_row": ("of the table alone",),
    },
    "test_privacy.py": {
        "test_no_canary_shows_up": ("an error after some rows",),
        "test_a_row_that_a_destination_refuses_is_shown_nowhere": ("duckdb",),
    },
    "test_bad_input.py": {
        "test_a_key_that_lacks_one_permission_loads_the_others": ("prices",),
        "test_a_list_that_stripe_refuses_is_left_out": ("404-Stripe refuses the list (404, ",),
        "test_a_key_that_lacks_one_permission_reads_the_events_of_the_others": ("True",),
        "test_ctrl_c_in_a_later_step": ("Load",),
        "test_another_command_that_writes": "test_pipelines.py::test_a_run_that_does_not_get_its_turn_is_exit_code_3_and_names_the_holder",
        "test_a_resource_that_was_refused_at_first_has_changes_since_it_is_loaded": "test_stream.py::test_a_copy_whose_key_gets_the_permission_later_is_compared_first",
    },
    "test_push_record.py": {
        "test_a_full_refresh_keeps_the_tables_and_other_commands_know_them": "test_push_record.py::test_sync_catches_up",
        "test_a_kill_while_runs_are_loaded_doubles_and_loses_nothing": ("after-push_runs",),
        "test_postgres_has_the_runs_once_and_is_left_alone_where_it_is_read_only": "test_push_record.py::test_sync_catches_up",
    },
    "test_reconcile.py": {
        "test_f8_an_outage_heals_by_itself_and_says_so": ("45",),
        "test_what_a_list_brought_without_an_event_is_recorded": ("its creation was told-loaded", "nothing was told-its load did not end"),
        "test_another_api_version_makes_no_changes": ("2024-06-20-2026-10-28.endive",),
        "test_without_events_it_finds_the_updates": "test_verify_run.py::test_a_key_without_events_loads_says_so_once_and_reconcile_finds_the_updates",
        "test_differences_have_the_same_ids_wherever_they_are_found": "test_reconcile.py::test_a_lost_update_deletion_and_creation_are_found",
        "test_a_permission_that_comes_later_brings_what_was_deleted_before": "test_stream.py::test_a_copy_whose_key_gets_the_permission_later_is_compared_first",
        "test_a_backfill_that_was_left_for_a_month_is_listed_again": "test_reconcile.py::test_f8_an_outage_heals_by_itself_and_says_so",
    },
    "test_webhook_events.py": {
        "test_what_came_before_a_webhook_event_is_recorded_before_it": ("3-False",),
        "test_what_shows_only_after_a_newer_one_says_late": ("3-True",),
        "test_webhooks_in_any_order_doubled_or_missing_lead_to_the_same": "test_feed_property.py::test_webhooks_in_any_order_lead_to_the_same",
        "test_a_body_of_another_account_or_mode_is_passed_over": ("foreign0",),
        "test_what_no_list_shows_says_late_though_the_newer_one_is_not_read_with_it": "test_webhook_events.py::test_what_shows_only_after_a_newer_one_says_late",
    },
    "test_snapshot.py": {
        "test_events_go_on_from_an_image_that_was_made_of_a_row": ("snapshot-1",),
        "test_f7_without_it_there_are_none": "test_small_accounts.py::test_what_is_created_while_a_listing_runs_is_in_the_next_one",
    },
    "test_truth.py": {
        "test_every_field_of_every_row_equals_the_account": ("seed9",),
        "test_everything_odd_is_in_the_account": ("seed9",),
        "test_rows_that_are_easily_lost_are_there": ("seed9",),
        "test_rows_that_do_not_belong_are_not_there": ("seed9",),
        "test_future_objects_come_when_their_time_comes": "test_incremental.py::test_an_object_of_the_future_comes_when_its_time_comes",
    },
    "test_notebooks.py": {
        "test_it_runs_and_says_what_is_committed": "test_notebooks.py::test_what_it_imports_is_there",
        "test_those_about_models_say_over_one_copy_what_is_committed": "test_notebooks.py::test_what_it_imports_is_there",
    },
    "test_fuzz.py": {
        "test_odd_arguments_of_verbs_that_read_are_answered": "test_positions.py::test_no_verb_gets_a_number_that_nobody_means_or_bytes_that_are_no_text",
        "test_odd_requests_are_answered": "test_changes_api.py::test_a_parameter_that_makes_no_sense_is_refused_by_name",
    },
    "test_faults.py": {
        "test_a_large_account_is_loaded_exactly_through_all_kinds_of_faults": "test_bad_input.py::test_a_broken_answer_is_asked_for_again",
    },
    "test_changes_api.py": {
        "test_h1_a_stream_that_is_cut_off_200_times_loses_nothing": "test_changes_api.py::test_a_stream_goes_on_where_it_was_left",
    },
    "test_service.py": {
        "test_sigterm_ends_it_in_the_middle_of_a_backfill": "test_service.py::test_it_ends_in_the_middle_of_a_backfill",
        "test_killed_again_and_again_it_loses_nothing": "test_delivery_kills.py::test_a_delivery_killed_at_any_point_loses_nothing",
    },
    "test_pipelines.py": {
        "test_a_play_that_fails_gets_its_change_again": "test_process_once.py::test_c4_what_is_rolled_back_comes_again",
        "test_a_wrong_key_is_exit_code_3": "test_pipelines.py::test_a_run_that_does_not_get_its_turn_is_exit_code_3_and_names_the_holder",
        "test_a_missing_permission_is_exit_code_4": "test_bad_input.py::test_a_key_that_lacks_one_permission_loads_the_others",
    },
    "test_cli.py": {
        "test_the_demo_loads_twice_and_says_the_same_each_time": "test_docs.py::test_the_readme_leads_to_the_first_query_change_and_trigger",
        "test_a_reader_that_goes_away_is_no_error_for_tables_either": ("arguments1",),
        "test_a_sync_goes_on_when_nobody_listens_any_more": "test_cli.py::test_a_sync_goes_on_though_nobody_reads_what_it_says",
        "test_the_demo_leaves_a_foreign_file_alone": "test_cli.py::test_only_the_files_of_an_earlier_demo_are_removed",
    },
    "test_models_postgres.py": {
        "test_every_row_is_that_of_duckdb_in_any_time_zone": ("invoiced",),
        "test_a_full_refresh_drops_the_views_and_a_build_brings_them_back": "test_models_postgres.py::test_every_row_is_that_of_duckdb_in_any_time_zone",
    },
    "test_models_render.py": {
        "test_the_sql_of_every_engine_parses": ("bigquery", "clickhouse"),
    },
    "test_paging_property.py": {
        "test_a_large_account_costs_hardly_more_than_its_pages": ("5000-even", "5000-growth", "5000-import", "5000-months", "5000-bursts", "50000-bursts"),
        "test_a_large_account_is_read_at_the_rate_limit": ("growth",),
        "test_more_threads_cost_no_more_requests": "test_paging_property.py::test_a_large_account_costs_hardly_more_than_its_pages",
    },
    "test_sublists.py": {
        "test_the_same_on_postgres": "test_destinations.py::test_two_runs",
    },
    "test_stripe_time.py": {
        "test_a_time_that_is_wrong_in_a_whole_run": ("7200--3600-1",),
    },
    "test_diff.py": {
        "test_f5_the_image_before_is_exact": ("invoices",),
    },
    "test_doctor.py": {
        "test_each_permission_that_lacks_has_its_own_fix": ("prices", "customers"),
    },
    "test_lease.py": {
        "test_two_workers_take_turns": "test_lease.py::test_a_sync_does_not_begin_before_its_turn",
    },
    "test_connect.py": {
        "test_all_accounts_in_one_file": "test_connect.py::test_each_account_has_a_copy_of_its_own",
    },
    "test_connect_truth.py": {
        "test_each_account_equals_its_truth": "test_connect.py::test_each_account_has_a_copy_of_its_own",
    },
    "test_held_objects.py": {
        "test_discounts_of_items_beyond_the_first_ten_are_found": "test_stream.py::test_children_follow_their_parent_beyond_the_ten_that_an_event_shows",
    },
    "test_store.py": {
        "test_another_destination_is_relayed_rebuilt_and_forgotten": ("sqlite",),
        "test_l3_more_interleavings": "test_store.py::test_l3_any_interleaving_of_loads_loses_nothing",
    },
    "test_small_accounts.py": {
        "test_a_run_that_stops_after_any_yield_loses_nothing": ("1-True",),
        "test_what_becomes_visible_late_is_found_by_the_overlap": "test_incremental.py::test_the_look_back_bounds_how_late_an_object_may_be",
        "test_a_stale_row_does_not_replace_a_newer_one": "test_contract.py::test_the_newest_version_wins_and_children_are_complete",
        "test_of_two_rows_of_the_same_second_the_one_that_came_last_wins":
            "test_contract.py::test_the_newest_version_wins_and_children_are_complete",
        "test_canceled_subscriptions_and_archived_prices_are_there": "test_truth.py::test_rows_that_are_easily_lost_are_there",
    },
    "test_models_slices.py": {
        "test_what_belongs_to_nobody_makes_a_whole_build": ("a product", "a price"),
        "test_a_damaged_table_is_built_whole": ("a column added",),
        "test_load_by_load_every_cell_is_as_calculated":
            "test_models_slices.py::test_however_rows_change_the_tables_are_those_of_a_whole_build",
    },
}  # fmt: skip
