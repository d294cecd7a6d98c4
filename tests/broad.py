"""What `make test` leaves to `make broad`, and what holds the same guarantee there.

By file and test: a tuple names the cases that stay in `make test`; a text names the cheaper test
that stays.
"""

from __future__ import annotations

BROAD: dict[str, dict[str, tuple[str, ...] | str]] = {
    "test_contract.py": {
        "test_a_life_of_a_copy": ("delta",),
        "test_the_newest_version_wins_and_children_are_complete": ("duckdb", "delta"),
    },
    "test_lakes.py": {
        "test_a_few_histories_end_equal_to_the_account": "test_contract.py::test_a_life_of_a_copy",
        "test_updates_and_deletes_by_sql_are_commits": ("delta",),
        "test_a_full_refresh_loads_everything_again": ("delta",),
    },
    "test_crash.py": {
        "test_a_killed_run_goes_on": (
            "between-packages-1", "merged-1-later", "the-local-state-is-half-gone-1-later",
        ),
        "test_a_run_in_packages_reads_nothing_twice": "test_crash.py::test_at_most_one_package_is_read_again",
        "test_a_package_with_a_table_that_dlt_has_not_noted_is_read_again": "test_locks.py::test_a_package_that_cannot_be_loaded_holds_up_no_run",
    },
    "test_damage.py": {
        "test_whatever_is_done_to_the_tables_a_comparison_restores":
            "test_damage.py::test_a_comparison_restores_whatever_was_done_and_records_no_change",
        "test_whatever_table_is_gone_a_sync_lists_it_again": "test_damage.py::test_a_table_that_is_gone_or_empty_is_listed_again",
        "test_a_table_that_is_gone_or_empty_is_listed_again": ("dropped",),
    },
    "test_dataset_owner.py": {
        "test_another_key_is_refused_before_anything_is_written": (
            "another account-by_sync-no state in the destination", "another account-by_a_plain_run-state only here",
            "the other mode-by_sync-no local state",
        ),
        "test_the_right_key_goes_on_after_a_refusal": ("by_a_plain_run",),
    },
    "test_deleted_prices.py": {
        "test_what_came_and_went_between_two_runs_does_not_live_on_in_an_item": ("bare",),
        "test_a_few_histories_end_as_they_are": "test_deleted_prices.py::test_what_was_deleted_in_a_gap_is_gone_though_an_item_shows_it",
    },
    "test_destinations.py": {
        "test_a_merge_on_postgres_is_linear": "test_destinations.py::test_on_postgres_ids_are_indexed_once",
        "test_two_runs": ("postgres", "sqlite"),
        "test_an_account_without_most_things": "test_destinations.py::test_two_runs",
    },
    "test_dlt_native.py": {
        "test_the_shortest_script_loads_the_account": "test_pipelines.py::test_the_shortest_script_loads_the_account_and_shows_its_tables",
        "test_a_generator_that_is_stopped_after_any_yield_loses_nothing": ("2",),
        "test_no_thread_is_left_after_a_run": ("None",),
        "test_a_pipeline_that_began_in_another_folder_is_refused_there": ("None",),
        "test_no_rows_stay_in_dlt_s_folder": ("False",),
    },
    "test_docs.py": {
        "test_every_block_of_a_page_runs": ("docs/actions.md", "docs/agents.md", "docs/push.md", "docs/python.md", "docs/tables.md", "docs/how-it-works.md", "docs/faq.md"),
    },
    "test_feed_crash.py": {
        "test_a_run_that_is_killed_among_events_goes_on": "test_crash.py::test_a_killed_run_goes_on",
    },
    "test_feed_property.py": {"test_the_same_on_postgres": ("customers products",)},
    "test_first_loads.py": {"test_a_first_load_under_writes_ends_equal_to_the_account": "test_small_accounts.py::test_what_is_created_while_a_listing_runs_is_in_the_next_one"},
    "test_group_histories.py": {"test_tables_of_all_groups_equal_a_random_history": ("seed1",)},
    "test_group_kills.py": {"test_runs_that_end_badly_leave_no_trace": ("a bit of each-0",)},
    "test_relists.py": {
        "test_without_changes_whole_lists_are_read_for_their_rows": "test_next_step.py::test_what_is_due_otherwise",
        "test_dates_hold_for_lists_without_a_filter_by_time": "test_next_step.py::test_an_earlier_start_has_whole_lists_read",
        "test_a_snapshot_has_objects_without_events_too": "test_snapshot.py::test_f7_a_snapshot_of_objects_that_change_while_they_are_read",
        "test_an_empty_whole_list_is_not_taken_for_a_lost_table": "test_relists.py::test_a_table_that_is_gone_comes_back_without_a_change",
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
        "test_a_comparison_that_begins_to_follow_and_a_start_date": ("a start then",),
        "test_a_limit_loses_nothing": ("4",),
        "test_lost_and_doubled_events": "test_reconcile.py::test_a_lost_update_deletion_and_creation_are_found",
        "test_f9_another_version_of_the_account_is_no_change": "test_reconcile.py::test_another_api_version_makes_no_changes",
        "test_an_idle_run_asks_little_and_writes_nothing": "test_incremental.py::test_a_run_with_nothing_new_writes_nothing",
        "test_a_key_that_lost_its_permission_a_month_ago_still_loads": "test_stream.py::test_a_key_that_may_not_read_events_loses_none",
    },
    "test_model_presets.py": {
        "test_each_preset_fires_for_what_the_account_shows":
            "test_model_triggers.py::test_every_preset_reads_its_model_as_it_is_built",
    },
    "test_models_oracle.py": {
        "test_every_cell_is_as_calculated_with_another_definition": (
            "churn_timing-cancel-invoiced", "paused_collection-excluded-observed", "discounts-all-observed",
            "reporting_timezone-America/New_York-invoiced",
        ),
        "test_however_changes_come_every_cell_is_the_same": ("old-shape-shuffled-invoiced", "doubled-observed"),
    },
    "test_incremental.py": {
        "test_the_look_back_bounds_how_late_an_object_may_be": ("300-True",),
        "test_an_object_of_the_future_comes_when_its_time_comes": ("without events",),
        "test_a_later_start_date_is_remembered_as_the_earliest_that_was_asked_for":
            "test_incremental.py::test_a_start_date_leaves_out_what_is_older_and_a_lower_one_fills_the_gap",
        "test_objects_on_test_clocks_are_loaded_on_request": "test_fetch.py::test_rows_on_a_test_clock_are_left_out_unless_asked_for",
        "test_a_working_directory_that_was_deleted_costs_nothing": ("sync",),
        "test_a_load_that_ended_half_way_in_a_lost_container_is_done_again": ("prices",),
    },
    "test_locks.py": {
        "test_a_reader_holds_a_run_up_for_as_long_as_it_may_wait": ("before rows are looked up", "before the load"),
        "test_without_waiting_it_says_who_is_in_the_way": ("before the load",),
    },
    "test_push_kills.py": {"test_a_push_that_is_killed_again_and_again_does_everything_once": ("60-20",)},
    "test_preflight.py": {"test_another_tools_tables_stay_as_they_are": ("by_sync", "by_own_pipeline")},
    "test_privacy.py": {
        "test_no_canary_shows_up": ("an error after some rows", "a malformed page"),
        "test_a_row_that_a_destination_refuses_is_shown_nowhere": ("duckdb", "postgres"),
    },
    "test_bad_input.py": {
        "test_a_key_that_lacks_one_permission_loads_the_others": ("prices",),
        "test_a_list_that_stripe_refuses_is_left_out": ("404-Stripe refuses the list (404, ",),
        "test_a_key_that_lacks_one_permission_reads_the_events_of_the_others": ("True",),
        "test_ctrl_c_in_a_later_step": ("Load",),
    },
    "test_push_record.py": {
        "test_a_kill_while_runs_are_loaded_doubles_and_loses_nothing": ("after-push_runs",),
    },
    "test_reconcile.py": {
        "test_f8_an_outage_heals_by_itself_and_says_so": ("45",),
        "test_what_a_list_brought_without_an_event_is_recorded": ("its creation was told",),
        "test_another_api_version_makes_no_changes": ("2024-06-20-2026-10-28.endive",),
    },
    "test_webhook_events.py": {
        "test_what_came_before_a_webhook_event_is_recorded_before_it": ("3-False",),
        "test_what_shows_only_after_a_newer_one_says_late": ("3-True",),
        "test_webhooks_in_any_order_doubled_or_missing_lead_to_the_same":
            "test_feed_property.py::test_webhooks_in_any_order_lead_to_the_same",
        "test_a_body_of_another_account_or_mode_is_passed_over": ("foreign0",),
    },
    "test_snapshot.py": {"test_events_go_on_from_an_image_that_was_made_of_a_row": ("snapshot-1",)},
    "test_truth.py": {
        "test_every_field_of_every_row_equals_the_account": ("seed1",),
        "test_everything_odd_is_in_the_account": ("seed1",),
        "test_rows_that_are_easily_lost_are_there": ("seed1",),
        "test_rows_that_do_not_belong_are_not_there": ("seed1",),
    },
    "test_notebooks.py": {"test_it_runs_and_says_what_is_committed": ("01_quickstart",)},
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
        "test_killed_again_and_again_it_loses_nothing": "test_delivery_kills.py::test_a_delivery_killed_at_any_point_loses_nothing",
    },
    "test_pipelines.py": {
        "test_a_play_that_fails_gets_its_change_again": "test_process_once.py::test_c4_what_is_rolled_back_comes_again",
        "test_a_wrong_key_is_exit_code_3": "test_pipelines.py::test_a_run_that_does_not_get_its_turn_is_exit_code_3_and_names_the_holder",
        "test_a_missing_permission_is_exit_code_4": "test_bad_input.py::test_a_key_that_lacks_one_permission_loads_the_others",
    },
    "test_cli.py": {
        "test_the_demo_loads_twice_and_says_the_same_each_time": "test_docs.py::test_the_readme_leads_to_the_first_query_change_and_trigger",
    },
    "test_models_postgres.py": {
        "test_every_row_is_that_of_duckdb_in_any_time_zone": ("invoiced",),
    },
    "test_models_render.py": {
        "test_the_sql_of_every_engine_parses": ("bigquery", "clickhouse"),
    },
    "test_paging_property.py": {
        "test_a_large_account_costs_hardly_more_than_its_pages": ("5000-even", "5000-growth", "5000-import", "5000-months", "5000-bursts", "50000-bursts"),
        "test_a_large_account_is_read_at_the_rate_limit": ("growth",),
        "test_more_threads_cost_no_more_requests": "test_paging_property.py::test_a_large_account_costs_hardly_more_than_its_pages",
    },
}  # fmt: skip
