"""Prices and plans inside the items of subscriptions: they always show the current price, and their
change is no event of the subscription.
"""

from __future__ import annotations

import re

from .table import Table

EMBEDDED_PRICE = re.compile(rb'"price":\{"id":"([^"]+)"')


class EmbeddedPrices:
    """Knows which subscriptions embed a price. The index is built when a price first changes, and
    kept up to date from then on.
    """

    def __init__(self, subscriptions: Table, all_children: dict[str, list[bytes]]) -> None:
        self.rows, self.all_children = subscriptions.rows, all_children
        self._embedding: dict[bytes, set[str]] | None = None

    def subscription_written(self, id: str) -> None:
        """Index a new or changed subscription."""
        if self._embedding is not None:
            self._find_prices(self._embedding, id)

    def replace_price(self, price: str, old: bytes, new: bytes) -> None:
        """Replace all embedded copies of a price or a plan, which share one id. Copies stored with
        other bytes stay.
        """
        if self._embedding is None:
            self._embedding = {}
            for id in self.rows:
                self._find_prices(self._embedding, id)
        for id in self._embedding.get(price.encode(), ()):
            if id in self.rows:
                self.rows[id].raw = self.rows[id].raw.replace(old, new)
            if id in self.all_children:
                self.all_children[id] = [item.replace(old, new) for item in self.all_children[id]]

    def _find_prices(self, embedding: dict[bytes, set[str]], id: str) -> None:
        for raw in (self.rows[id].raw, *self.all_children.get(id, ())):
            for price in EMBEDDED_PRICE.findall(raw):
                embedding.setdefault(price, set()).add(id)
