"""The dlt source: one resource per row of the table."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Iterable
from typing import Any

import dlt
from dlt.extract import DltResource

from ..api.client import API_VERSION, GIVE_UP_AFTER
from ..resources import CHANGES, RESOURCES, TABLES
from ..resources.groups import tables_filled_by
from ..resources.model import Resource
from .dependents.held_objects import held_rows
from .dependents.sublists import sublist_rows
from .lists import list_rows
from .options import LOOK_BACK, RELIST_HOURS, SETTLE, Deletes, resource_names
from .run import RunContext, open_run
from .stream import stream_changes
from .tables.changes import change_hints
from .tables.dlt_resource import StripeResource
from .tables.hints import table_hints


class _LogFilter(logging.Filter):
    """Drop two log records of dlt: the warning on every yield that a JSON column arrives as Arrow
    text, as it should, and the message of a failed job, which can quote rows; the error that ends
    the run reports it.
    """

    FAILED = re.compile(rf"[jJ]ob (for )?({'|'.join((*TABLES, CHANGES))}|_dlt_\w+)\.")

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        failed = record.levelno >= logging.WARNING and self.FAILED.search(message)
        return not failed and "several column hints were different" not in message


logging.getLogger("dlt").addFilter(_LogFilter())


@dlt.source(name="stripe", section="stripe_feed", max_table_nesting=0)
def stripe_source(
    api_key: dlt.TSecretStrValue | None = None,
    resources: Any = None,
    start_date: Any = None,
    end_date: Any = None,
    expand: Any = None,
    test_clocks: bool = False,
    look_back: int = LOOK_BACK,
    settle: int = SETTLE,
    relist_hours: float = RELIST_HOURS,
    deletes: Deletes = "soft",
    snapshot: bool = False,
    max_rps: float | None = None,
    endpoint_rps: float | None = None,
    api_base: str | None = None,
    allow_api_base: bool = False,
    api_version: str = API_VERSION,
    give_up_after: float = GIVE_UP_AFTER,
    account: str | None = None,
) -> Iterable[DltResource]:
    """A Stripe account as dlt resources: one per list of Stripe's, and `changes`: what happened to
    the objects.

    A first run loads everything; later runs load what was created, updated, cancelled or deleted
    since, and a row per change with before and after. Works with any SQL destination that can
    merge. Each object is there once, and each change, whatever the order of runs, faults and
    crashes.

    `api_key`: a restricted or secret key; else dlt's secrets (`sources.stripe_feed.api_key`) or
    `STRIPE_SECRET_KEY`. `resources`: names and groups of what is selected at first, as a list or
    `"core,payments"`; by default the group `core`: customers, products, prices, plans,
    subscriptions and invoices. `with_resources` selects any other. `start_date`, `end_date`: by
    `created`, as ISO dates (UTC), datetimes or Unix seconds, the end exclusive. A start alone
    leaves out what is older; with an end the range is fixed and the cursor is left alone. `expand`:
    opt-in fields by resource, `{"customers": ["tax_ids"]}`. `test_clocks`: also the objects on test
    clocks. `look_back`: seconds that each run reads again, for objects and events that become
    visible late; `settle`: seconds that an event must be old to be read. `relist_hours`: how often
    objects are listed again that change without an event, such as balance transactions, and whole
    lists that have no filter by time. `deletes`: `soft` keeps deleted rows, with `deleted_at`;
    `hard` removes them later. `snapshot`: a first backfill also gives a change of op `r` for each
    object. `max_rps`, `endpoint_rps`: requests per second, 80 % of Stripe's limits by default.
    `give_up_after`: seconds after which an unanswered request ends the run with `TryLater`.
    `account`: an account that is connected to that of the key (`acct_...`), which is read in its
    place; give it a pipeline and a dataset of its own.

    Raises the errors of `stripe_feed.errors` (inside dlt's `PipelineStepFailed` when a pipeline
    runs it).
    """
    return source_resources(
        open_run(
            {
                "api_key": api_key,
                "account": account,
                "start_date": start_date,
                "end_date": end_date,
                "expand": expand,
                "test_clocks": test_clocks,
                "look_back": look_back,
                "settle": settle,
                "relist_hours": relist_hours,
                "deletes": deletes,
                "snapshot": snapshot,
                "max_rps": max_rps,
                "endpoint_rps": endpoint_rps,
                "api_base": api_base,
                "allow_api_base": allow_api_base,
                "api_version": api_version,
                "give_up_after": give_up_after,
            }
        ),
        RESOURCES,
        resource_names(resources.split(",") if isinstance(resources, str) else resources),
    )


def source_resources(
    context: RunContext, names: Iterable[str], selected: Collection[str]
) -> Iterable[DltResource]:
    """Yield the resources of a source, which share one context; those of `selected` are read."""
    listed, held, below = (
        dlt.resource(rows, name="list", _impl_cls=StripeResource)
        for rows in (list_rows, held_rows, sublist_rows)
    )
    for name in names:
        row = RESOURCES[name]
        template = below if row.parent else listed
        if row.holders:
            template = held
        resource = _list_resource(context, row, template)
        resource.selected = name in selected
        yield resource
    yield _changes_resource(context, names)


@dlt.source(name="stripe", section="stripe_feed", max_table_nesting=0)
def source_for_run(context: Any, names: Any) -> Iterable[DltResource]:
    """Return the same source with these resources alone, on a context that is kept open, for a run
    in several packages.
    """
    return source_resources(context, names, names)


def _changes_resource(context: RunContext, names: Iterable[str]) -> DltResource:
    """Return the resource of the events. It has no hints of its own: the variants of all tables
    would inherit them.
    """
    resource: DltResource = dlt.resource(stream_changes, name=CHANGES, _impl_cls=StripeResource)(
        context
    )
    filled = tables_filled_by(names)
    for table in (name for name in RESOURCES if name in filled):
        codec = context.codecs[table]
        for child, table_codec in [(None, codec), *codec.children]:
            resource.apply_hints(**table_hints(table_codec, child), create_table_variant=True)
    resource.apply_hints(**change_hints(), create_table_variant=True)
    return resource


def _list_resource(
    context: RunContext, row: Resource, make: Callable[..., DltResource]
) -> DltResource:
    resource = DltResource.with_name(make(context, row), row.table)
    codec = context.codecs[row.table]
    # variants before the resource's own hints, which they would inherit
    for child, child_codec in codec.children:
        resource.apply_hints(**table_hints(child_codec, child), create_table_variant=True)
    for table in sorted(set(row.embedded_tables)):
        resource.apply_hints(**table_hints(context.codecs[table]), create_table_variant=True)
    resource.apply_hints(**change_hints(), create_table_variant=True)  # for a key without events
    resource.apply_hints(
        **{name: hint for name, hint in table_hints(codec).items() if name != "table_name"}
    )
    return resource
