"""The default group of resources: what is read unless others are asked for."""

from __future__ import annotations

from stripe_feed.resources import RESOURCES, TABLES
from stripe_feed.resources.groups import DEFAULT_GROUP
from stripe_feed.resources.model import with_children

CORE = {name: row for name, row in RESOURCES.items() if row.group == DEFAULT_GROUP}
CORE_TABLES = {row.table: TABLES[row.table] for row in with_children(CORE.values())}
