"""Resources whose objects change without an event, or whose lists have no filter by time, made from
the SDK's annotations; they are in the table of resources while the block runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from stripe_feed.resources import RESOURCES, TABLES
from stripe_feed.resources.model import Column, Resource, event_types, index_by_table, with_children
from tests.sdk_columns import sdk_fields


def made(table: str, object: str, without: str = "", **more: Any) -> Resource:
    """A resource with a column for each field, but for those that only come expanded."""
    fields = sdk_fields(object)
    names = sorted(fields, key=lambda name: {"id": -2, "created": -1}.get(name, 0))
    columns = [Column(name, fields[name].kind, "") for name in names if name not in without.split()]
    return Resource(table=table, object=object, columns=tuple(columns), **more)


SILENT = (
    # no events: new ones come by the list, changes by listing the last days again
    made("balance_transactions", "balance_transaction", relist_days=14),
    # whatever their age
    made("shipping_rates", "shipping_rate", relist_days=36_500),
    # some changes have no event
    made(
        "payment_intents",
        "payment_intent",
        "hooks payment_details presentment_details client_secret",
        excluded=("client_secret",),
        relist_days=30,
        events=event_types(
            "payment_intent",
            "created processing requires_action amount_capturable_updated payment_failed succeeded canceled",
        ),
        created_by=("payment_intent.created",),
    ),
    # no filter by time, with events
    made(
        "quotes",
        "quote",
        "line_items",
        created_field="",
        events=event_types("quote", "created finalized accepted canceled"),
        created_by=("quote.created",),
        hides_test_clocks=True,
    ),
    # no filter by time, no events; the last one does not say when it was created
    made("invoice_rendering_templates", "invoice_rendering_template", created_field=""),
    made("account_tax_ids", "tax_id", path="/v1/tax_ids", created_field=""),
    made("tax_codes", "tax_code", created_field=""),
)
NAMES = ("customers", *(row.table for row in SILENT))


@contextmanager
def silent_rows() -> Iterator[None]:
    """Have the rows among the resources."""
    with pytest.MonkeyPatch.context() as patch:
        for table, row in index_by_table(*SILENT).items():
            patch.setitem(RESOURCES, table, row)
        for added in with_children(SILENT):
            patch.setitem(TABLES, added.table, added)
        yield
