"""Prices and plans inside the items of subscriptions: shown as they are now, and no event of the
subscription tells of it.
"""

from __future__ import annotations

import re

from .table import Table

EMBEDDING = re.compile(rb'"price":\{"id":"([^"]+)"')


class EmbeddedPrices:
    """Which subscriptions embed a price; looked up once a price changes, and kept from then on."""

    def __init__(self, subscriptions: Table, whole: dict[str, list[bytes]]) -> None:
        self.rows, self.all_children = subscriptions.rows, whole
        self._embedding: dict[bytes, set[str]] | None = None

    def subscription_written(self, id: str) -> None:
        """A subscription is new, or changed."""
        if self._embedding is not None:
            self._note(self._embedding, id)

    def replace_price(self, price: str, old: bytes, new: bytes) -> None:
        """Put a price or a plan, which have one id, in the place of its copies; those planted
        otherwise stay.
        """
        if self._embedding is None:
            self._embedding = {}
            for id in self.rows:
                self._note(self._embedding, id)
        for id in self._embedding.get(price.encode(), ()):
            if id in self.rows:
                self.rows[id].raw = self.rows[id].raw.replace(old, new)
            if id in self.all_children:
                self.all_children[id] = [item.replace(old, new) for item in self.all_children[id]]

    def _note(self, carriers: dict[bytes, set[str]], id: str) -> None:
        for raw in (self.rows[id].raw, *self.all_children.get(id, ())):
            for price in EMBEDDING.findall(raw):
                carriers.setdefault(price, set()).add(id)
