"""Run one sync: lock the copy, finish pending loads, restore the state from the destination, and
load in packages until Stripe has nothing new.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .api.account import Account
from .api.rate_limits import MAX_PAGE_SIZE, SharedBudget
from .destination.duckdb_file import duckdb_path, trim_memory, wait_for_file, wait_for_readers
from .destination.lease import hold_lease
from .destination.load import finish_pending, run_load, sync_state, translate_errors
from .destination.locks import DEFAULT_WAIT, retry_while_locked
from .destination.pipeline import (
    DEFAULT_PIPELINE,
    check_destination,
    copy_names,
    dlt_settings,
    lock_copy,
    open_pipeline,
    require_merge,
)
from .destination.preflight import (
    require_column_types,
    require_no_dependent_views,
    require_usable_dataset,
)
from .destination.state import check_owner, stored_owner
from .errors import Locked, NotReadable, SetupError, UsageError
from .extract import existing
from .extract.dependents.parents import count_to_sweep, touched_parents
from .extract.events.poll_groups import poll_groups
from .extract.events.webhook import WebhookEvent
from .extract.next_step import RunPlan, event_window, plan_run
from .extract.options import SourceOptions, resource_names
from .extract.paging.listing import plan_listing
from .extract.run import RunContext, open_run
from .extract.source import source_for_run
from .feed.relay import relay_pipeline, store_path
from .feed.storage.store import FeedStore
from .resources import CHANGES, RESOURCES, TABLES
from .resources.groups import OWNED_TABLES, tables_filled_by
from .resources.model import Parent, Resource
from .wording import counted
from .write.push.log import log_beside

if TYPE_CHECKING:
    from typing_extensions import Unpack

log = logging.getLogger("stripe_feed")

REFRESH_ALL = "--full-refresh drops and reloads all tables: leave out --resources."
CHECKPOINT_ROWS = 40_000  # objects, not counting their children


@dataclass(frozen=True, slots=True)
class Synced:
    """The result of one run.

    `refused`: resources that could not be read, each with the reason; `changes` is one of them if
    the key may not read events. `healed`: differences that a comparison of whole lists found, by
    resource. `restored`: rows that it repaired although nothing happened in Stripe; they give no
    change. `relayed`: new changes in the feed. `unread`: webhook events that are still to be read.
    `failed`: webhook events that could not be read, each with the class of the error. `left_out`:
    objects that could not be stored, by table and id, each with the reason.
    """

    rows: dict[str, int]
    requests: int
    seconds: float
    packages: int
    account_id: str
    livemode: bool
    refused: dict[str, str] = field(default_factory=dict)
    healed: dict[str, int] = field(default_factory=dict)
    restored: dict[str, int] = field(default_factory=dict)
    relayed: int = 0
    unread: tuple[str, ...] = ()
    left_out: dict[str, dict[str, str]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Planned:
    """What a run would read of one resource, in Unix seconds; `since` is 0 for a first listing.

    `requests`: how many it takes at least; None where nothing tells, as for a first listing.
    """

    resource: str
    # "everything", "the rest", "new", "range", "events"; "again": what changes without an event
    kind: str
    since: int
    until: int
    requests: int | None = None


def sync(
    *,
    database: str | None = None,
    destination: str | None = None,
    dataset: str | None = None,
    state_dir: str | None = None,
    pipeline_name: str = DEFAULT_PIPELINE,
    resources: Sequence[str] | None = None,
    full_refresh: bool = False,
    checkpoint_rows: int | None = None,
    wait: float = DEFAULT_WAIT,
    watch: Callable[[RunContext], None] | None = None,
    reconcile: bool = False,
    webhook_events: Sequence[WebhookEvent] = (),
    polls: bool = True,
    budget: SharedBudget | None = None,
    **reading: Unpack[SourceOptions],
) -> Synced:
    """Bring the copy up to date and record each change; return what was loaded.

    A crash or an interrupt loses at most the current package (`checkpoint_rows` objects); the next
    run continues there. The state stored with the data replaces dlt's local state. A resource that
    the key may not read is left out and named in the result. `reconcile`: compare every object with
    Stripe, fix differences and record them as changes of origin `diff`. `webhook_events`: events that
    webhooks announced; they are read first, with everything that happened until then. Without
    `polls`, nothing else is read. `wait`: seconds to wait for the lock of another command, or for a
    process that has the DuckDB file open. `watch` is called once, with the run context whose
    listings show the progress. `budget`: what syncs of several accounts share. With `account`, the
    id is in the default names of the file and dataset. The other arguments are those of
    `stripe_source` and `open_pipeline`.

    Raises the errors of `stripe_feed.errors`. Nothing is written if the key or the destination does
    not work.
    """
    names = resource_names(resources)
    database, dataset = copy_names(
        reading.get("account"), database, destination, dataset, pipeline_name
    )
    compared = frozenset(names if reconcile else ())
    context = open_run(
        reading,
        keep_open=True,
        webhook_events=webhook_events,
        package_rows=checkpoint_rows or CHECKPOINT_ROWS,
        reconcile=compared,
        polls=polls,
        budget=budget,
        followed=tuple(names),
        lock_wait=wait,
    )
    started = time.monotonic()
    with dlt_settings():
        pipeline = open_pipeline(database, destination, dataset, state_dir, pipeline_name)
        _ = context.api
        holder = f"stripe-feed {'reconcile' if reconcile else 'sync'}"
        require_merge(pipeline.destination)
        with (
            wait_for_readers(pipeline, wait),
            lock_copy(pipeline, holder, wait),
            hold_lease(pipeline, holder, wait) as holds,
            closing(context),
        ):
            retry_while_locked(partial(check_destination, pipeline), wait)
            account = context.account
            pipeline, left = finish_pending(pipeline, account, wait, holds)
            context.counters.add_pending(left)
            with translate_errors(pipeline):
                require_usable_dataset(pipeline, state_of_source(pipeline), tables_filled_by(names))
                if reconcile:
                    require_column_types(pipeline)
                if full_refresh:
                    from .models.copies import release_raw_tables

                    names = with_loaded(names, pipeline)
                    check_owner(account, _owner(pipeline))
                    check_refresh(pipeline, context, names, resources)
                    if views := release_raw_tables(pipeline):
                        log.info(
                            "Dropped %s of the models, made from the tables: `stripe-feed models build` creates what is missing.",
                            counted(len(views), "view"),
                        )
                    require_no_dependent_views(pipeline)
            if watch is not None:
                watch(context)
            tell_if_store_is_lost(pipeline)
            try:
                packages = bool(left) + _load(pipeline, context, names, full_refresh, wait, holds)
                requests = context.api.requests
                relayed = relay_changes(pipeline, wait)
                _record_pushes(pipeline, database, destination, dataset)
            except BaseException as fault:
                try:
                    if isinstance(fault, SetupError):
                        with translate_errors(pipeline):  # says more than the destination does
                            require_column_types(pipeline)
                finally:
                    if not pipeline.has_pending_data:
                        # dlt keeps the rows of a package that was extracted only in part
                        pipeline.drop()
                raise
    seconds = time.monotonic() - started
    return synced_of(context, account, requests, seconds, packages, relayed)


def synced_of(
    context: RunContext,
    account: Account,
    requests: int,
    seconds: float,
    packages: int,
    relayed: int,
) -> Synced:
    """What a run whose packages are loaded brought for an account."""
    return Synced(
        {
            table: context.counters.rows[table]
            for table in (*TABLES, CHANGES)
            if table in context.counters.rows
        },
        requests,
        seconds,
        packages,
        account.id,
        account.livemode,
        {
            table: str(context.refused[table])
            for table in (*RESOURCES, CHANGES)
            if table in context.refused
        },
        dict(context.counters.healed),
        dict(context.counters.restored),
        relayed,
        tuple(event.event_id for event in context.pending_events.events),
        context.left_out.reasons,
        dict(context.pending_events.failed),
    )


def dry_run(
    *,
    database: str | None = None,
    destination: str | None = None,
    dataset: str | None = None,
    pipeline_name: str = DEFAULT_PIPELINE,
    resources: Sequence[str] | None = None,
    full_refresh: bool = False,
    **reading: Unpack[SourceOptions],
) -> list[Planned]:
    """Return what `sync` would read with these arguments, after the same checks. Makes one request
    and writes nothing.
    """
    names = resource_names(resources)
    if full_refresh and resources:
        raise UsageError(REFRESH_ALL)
    context = open_run(reading, keep_open=True)
    database, dataset = copy_names(
        reading.get("account"), database, destination, dataset, pipeline_name
    )
    with open_checked_copy(context, database, destination, dataset, pipeline_name) as pipeline:
        return plan_sync(pipeline.drop() if full_refresh else pipeline, context, names)


@contextmanager
def open_checked_copy(
    context: RunContext,
    database: str | None,
    destination: str | None,
    dataset: str,
    pipeline_name: str,
    wait: float = DEFAULT_WAIT,
) -> Iterator[Any]:
    """Open a copy read-only: yield its pipeline with the state of the destination, after checking that
    it holds the account of the key.

    A DuckDB file is open inside the block. The run is closed at the end. Raises the errors of
    `stripe_feed.errors`.
    """
    with (
        ExitStack() as stack,
        tempfile.TemporaryDirectory(prefix="stripe-feed-") as folder,
        closing(context),
    ):
        stack.enter_context(dlt_settings())
        _ = context.api
        pipeline = open_pipeline(
            database, destination, dataset, folder, pipeline_name
        )  # dlt's copy of the state
        retry_while_locked(partial(check_destination, pipeline), wait)
        file = duckdb_path(pipeline)
        if file is None or file.exists():  # dlt would create it
            if file is not None:
                client = pipeline.sql_client()
                wait_for_file(client, file, wait)
                stack.enter_context(client)
            sync_state(pipeline)
            with translate_errors(pipeline):
                require_usable_dataset(pipeline, state_of_source(pipeline))
                check_owner(context.account, _owner(pipeline))
        yield pipeline


def _owner(pipeline: Any) -> tuple[str, bool] | None:
    """The account whose rows the dataset holds, and whether it is in live mode."""
    return stored_owner(state_of_source(pipeline), pipeline.sql_client(), OWNED_TABLES)


def plan_sync(
    pipeline: Any, context: RunContext, resources: Sequence[str] | None = None
) -> list[Planned]:
    """Return what a run would read, from the state of the destination. Writes nothing."""
    states, names = resource_states(pipeline), resource_names(resources)
    cursors, options = states.get(CHANGES, {}), context.options
    _ = context.account  # its answer also has Stripe's time
    without_events = [
        n for n in names if "t0" in states.get(n, {}) and n not in cursors and RESOURCES[n].events
    ]
    reads_events = options.end is None and (not without_events or context.can_read_events())
    run_plan = plan_run(
        states,
        names,
        context.api.now(),
        reads_events=reads_events,
        compares=options.end is None,
        is_range=options.end is not None,
        start=options.start or 0,
        relist_every=options.relist_every,
    )
    plans: list[Planned] = []
    for name in (name for name in names if not RESOURCES[name].holders):
        if (parent := RESOURCES[name].parent) is not None:
            plans += _planned_sublists(pipeline, context, states.get(name, {}), name, parent)
        elif name in run_plan.compared and run_plan.steps[name] != "gap":
            plans.append(_planned_comparison(pipeline, context, run_plan, name))
        elif name in run_plan.lists or run_plan.steps[name] == "gap":
            plans.append(_planned_list(pipeline, context, run_plan, states.get(name, {}), name))
    return [*plans, *_planned_events(run_plan, cursors, context)]


def _planned_comparison(
    pipeline: Any, context: RunContext, run_plan: RunPlan, name: str
) -> Planned:
    """A list that is read once more, to find what no event has told."""
    now, since = context.api.now(), run_plan.relist_from.get(name, context.options.start or 0)
    return Planned(name, "again", since, now, _pages_between(pipeline, RESOURCES[name], since, now))


def _planned_list(
    pipeline: Any, context: RunContext, run_plan: RunPlan, state: dict[str, Any], name: str
) -> Planned:
    row, relist_from = RESOURCES[name], run_plan.relist_from.get(name)
    if run_plan.steps[name] in ("relist", "gap"):
        state = {}  # no events continue from this list: it is read again
    planned = plan_listing(
        row,
        state,
        context.options,
        context.api.now(),
        context.account.created,
        relist_from=relist_from,
    )
    ranges = [r for walk in planned.remaining for r in walk]
    since, until = min(lo for lo, _ in ranges), min(max(hi for _, hi in ranges), context.api.now())
    if planned.keeps_cursor:
        return Planned(name, "range", since, until)
    if planned.first:
        return Planned(name, "everything", since, until)
    if any(state["left"]):
        return Planned(name, "the rest", since, until)
    pages = _pages_between(pipeline, row, since, until)
    return Planned(name, "new" if relist_from is None else "again", since, until, pages)


def _pages_between(pipeline: Any, resource: Resource, since: int, until: int) -> int:
    """How many pages of a list the copy would fill: at least one for each walk."""
    with pipeline.sql_client() as client:
        rows = (
            existing.count_between(client, resource, since, until)
            if since and resource.created_column
            else existing.count_rows(client, resource.table)
        )
    return max(len(resource.list_filters), -(-rows // MAX_PAGE_SIZE))


def _planned_sublists(
    pipeline: Any, context: RunContext, state: Mapping[str, Any], name: str, parent: Parent
) -> Iterator[Planned]:
    """The lists to read, one for each parent; unknown until the parents are loaded."""
    now = context.api.now()
    is_swept = "t0" in state and not any(state["left"])
    since = 0 if is_swept or not state else state["left"][0][0][0]
    with pipeline.sql_client() as client:
        parents = (
            len(touched_parents(client, parent, state["looked"]).present)
            if is_swept
            else count_to_sweep(client, parent, since)
        )
    if parents or not is_swept:
        is_known = is_swept or "t0" in resource_states(pipeline).get(parent.table, {})
        kind = "the rest" if since else "everything"
        if is_swept:
            kind = "new"
        yield Planned(name, kind, since, now, parents if is_known else None)


def _planned_events(
    run_plan: RunPlan, cursors: Mapping[str, Any], context: RunContext
) -> list[Planned]:
    """What a run would read of the events; nothing until the lists are complete."""
    options = context.options
    if options.end is not None or not any(cursor["cursor"] for cursor in cursors.values()):
        return []
    # others: lists first
    spans = {
        table: event_window(cursor, context.api.now(), options.look_back, options.settle)
        for table, cursor in cursors.items()
        if cursor["cursor"]
    }
    since, until = min(lo for lo, _ in spans.values()), max(hi for _, hi in spans.values())
    polled = [RESOURCES[name] for name in run_plan.polled if name in spans]
    calls = len(poll_groups(polled, {table: lo for table, (lo, _) in spans.items()}))
    return [Planned(CHANGES, "events", since, until, calls)] if since < until else []


def with_loaded(names: Sequence[str], pipeline: Any) -> list[str]:
    """These resources, and the others that the copy holds."""
    states = resource_states(pipeline)
    return [name for name in RESOURCES if name in names or "t0" in states.get(name, {})]


def check_refresh(
    pipeline: Any, context: RunContext, names: Sequence[str], resources: Sequence[str] | None
) -> None:
    """Refuse a full refresh, which drops every table, if some rows could not be loaded again."""
    if resources:
        raise UsageError(REFRESH_ALL)
    for name in (name for name in names if not RESOURCES[name].is_dependent):
        try:
            context.api.get(RESOURCES[name].path, {"limit": 1}, bytes)
        except NotReadable:
            with pipeline.sql_client() as client:
                if not existing.is_empty(client, name):
                    raise


def tell_if_store_is_lost(pipeline: Any) -> None:
    """Fill a missing feed store before the run's own changes come: that there are others is told."""
    if pipeline.default_schema_name is None or duckdb_path(pipeline) is None:
        return
    if not store_path(pipeline).exists():
        with FeedStore(store_path(pipeline)) as store, suppress(Locked):
            relay_pipeline(pipeline, store)


def relay_changes(pipeline: Any, wait: float) -> int:
    """Copy new changes into the feed. If the file stays locked, the next run does it."""
    with FeedStore(store_path(pipeline)) as store:
        try:
            return retry_while_locked(lambda: relay_pipeline(pipeline, store), wait)
        except Locked as fault:
            log.warning(
                "Data loaded; the feed could not be updated and will catch up on the next run: %s",
                fault,
            )
            return 0


def _record_pushes(
    pipeline: Any, database: str | None, destination: str | None, dataset: str
) -> None:
    """Take over what pushes did and a kill, or a busy copy, kept from being taken over."""
    push_log = Path(log_beside(database))
    if push_log.exists():
        from .feed.storage.push_states import note_runs
        from .write.push.history.load import record_runs

        with FeedStore(store_path(pipeline)) as store:
            record_runs(
                push_log,
                database,
                destination,
                dataset,
                is_locked=True,
                first=partial(note_runs, store),
            )


def _load(
    pipeline: Any,
    context: RunContext,
    names: Sequence[str],
    full_refresh: bool,
    wait: float,
    holds: Callable[[], None],
) -> int:
    refresh: dict[str, Any] = {"refresh": "drop_sources"} if full_refresh else {}
    packages = 0
    while True:
        context.begin_package()
        wanted = [
            name
            for name in (*(names if context.options.polls else ()), CHANGES)
            if name not in context.refused
        ]
        run_load(
            pipeline, source_for_run(context, names).with_resources(*wanted), wait, holds, **refresh
        )
        refresh = {}
        packages += context.counters.package_rows > 0
        trim_memory()
        if context.finished:
            return packages


def resource_states(pipeline: Any) -> dict[str, Any]:
    """The stored state of each resource: its cursors."""
    states: dict[str, Any] = state_of_source(pipeline).get("resources", {})
    return states


def state_of_source(pipeline: Any) -> dict[str, Any]:
    """The state of the source as the pipeline has it: account, mode, and the states of resources."""
    state: dict[str, Any] = pipeline.state.get("sources", {}).get("stripe", {})
    return state
