"""The Stripe resources: one row of data for each.

The rest of the package iterates over `RESOURCES`; a new resource is one row in the module of its
group, one file in `columns` and one sample object in the sandbox. Stripe is called by path, never
by SDK class.
"""

from __future__ import annotations

from .banking import BANKING, ISSUING_LISTS, TREASURY_LISTS
from .billing import BILLING, CUSTOMER_LISTS, PRODUCT_LISTS, USAGE_LISTS
from .checkout import CHECKOUT
from .column_files import FOLDER, parse_columns, with_columns
from .connect import ACCOUNT_LISTS, CONNECT
from .core import CORE
from .model import Child, Resource, index_by_table, with_children
from .payments import PAYMENT_LISTS, PAYMENTS
from .push_tables import PUSHES
from .settings import SETTINGS

_LISTS = (
    *CUSTOMER_LISTS,
    *PRODUCT_LISTS,
    *PAYMENT_LISTS,
    *ACCOUNT_LISTS,
    *USAGE_LISTS,
    *ISSUING_LISTS,
    *TREASURY_LISTS,
)

RESOURCES: dict[str, Resource] = index_by_table(
    *with_columns((*CORE, *PAYMENTS, *BILLING, *CHECKOUT, *CONNECT, *BANKING, *SETTINGS, *_LISTS))
)
"""Every resource by table, in the order of display."""

TABLES: dict[str, Resource | Child] = {row.table: row for row in with_children(RESOURCES.values())}
"""Every table, each child after its parent."""

FEED_RESOURCES: dict[str, Resource] = {**RESOURCES, PUSHES.table: PUSHES}
"""What changes of the feed are about."""

CHANGES = "changes"
"""The table with one row per change, and the dlt resource that fills it."""

CHANGE_COLUMNS, _ = parse_columns((FOLDER.parent / "changes.tsv").read_text(encoding="utf-8"))
"""The columns of `changes`, but for that of the load. Whoever stores a change takes them from here."""
