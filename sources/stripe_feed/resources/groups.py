"""The groups of resources that are asked for together."""

from __future__ import annotations

from collections.abc import Iterable

from . import RESOURCES

DEFAULT_GROUP = "core"

GROUPS: dict[str, tuple[str, ...]] = {
    group: tuple(row.table for row in RESOURCES.values() if row.group == group)
    for group in dict.fromkeys(row.group for row in RESOURCES.values())
}
"""The resources of each group, in the order of display; none is in two groups."""


OWNED_TABLES = [
    row.table
    for row in RESOURCES.values()
    if any(column.name == "livemode" for column in row.columns)
]
"""The tables whose rows say of which mode they are."""


def tables_filled_by(names: Iterable[str]) -> list[str]:
    """The tables that get rows when these resources are read: their own, those of their children and
    of the objects that these embed.
    """
    tables: dict[str, None] = {}
    for name in names:
        row = RESOURCES[name]
        tables |= dict.fromkeys([row.table, *(child.table for child in row.children)])
        tables |= dict.fromkeys(row.embedded_tables)
    return list(tables)
