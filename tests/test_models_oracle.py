"""Every cell of the marts equals a calculation in plain Python that shares no SQL with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import groupby
from typing import Any

import pytest

from .modelled import Row, differences, rows_of
from .mrr_oracle import MrrOracle, Span
from .timelines import utc_time

EXPONENTS = {"usd": 2, "eur": 2, "jpy": 0}


def mrr_items(oracle: MrrOracle) -> Iterator[Row]:
    """Yield the rows of `mrr_items`."""
    for span in oracle.spans:
        value = span.value
        yield {
            "subscription_item_id": value.item,
            "valid_from": utc_time(span.start),
            "valid_to": None if span.end is None else utc_time(span.end),
            "subscription_id": value.subscription,
            "customer_id": value.customer,
            "product_id": value.price.product,
            "price_id": value.price.id,
            "currency": value.price.currency,
            "status": value.status,
            "quantity": value.quantity,
            "unit_amount": None if value.price.unit is None else Fraction(value.price.unit),
            "billing_interval": value.price.interval,
            "billing_interval_count": value.price.interval_count,
            "billed_amount": value.billed,
            "mrr": value.gross,
            "mrr_major": Fraction(value.gross, 10 ** EXPONENTS[value.price.currency]),
            "is_metered": value.price.metered,
            "is_estimated": False,
            "is_collection_paused": value.is_paused,
            "basis": value.basis,
        }
