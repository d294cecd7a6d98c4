"""One row per Stripe resource: everything that is particular to it, as data.

The rest of the package iterates over `RESOURCES`; a new Stripe resource is one new row here and one
sample object in the sandbox. Stripe is called by path, never by SDK class.
"""

from __future__ import annotations

from .core import CORE
from .model import Child, Resource, table, with_children

RESOURCES: dict[str, Resource] = table(*CORE)
"""Every resource by table, in the order of display."""

TABLES: dict[str, Resource | Child] = {row.table: row for row in with_children(RESOURCES.values())}
"""Every table, each child after its parent."""

CHANGES = "changes"
"""The table with a row per change, and the resource that reads them."""
