"""How many decimals the amounts of a currency have at Stripe."""

from __future__ import annotations

import re
from typing import Any

ZERO_DECIMAL = (
    "bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf",
    0,
)  # https://docs.stripe.com/currencies#zero-decimal
THREE_DECIMAL = ("bhd jod kwd omr tnd", 3)  # ISK and UGX are sent with two decimals
DECIMALS = {
    currency: count for names, count in (ZERO_DECIMAL, THREE_DECIMAL) for currency in names.split()
}
AMOUNT = re.compile(r"(-?)(\d{1,40})(?:\.(\d{1,12}))?", re.ASCII)  # `*_decimal` fields are texts


def in_major_units(amount: Any, currency: Any) -> str | None:
    """Return an amount in minor units as an exact decimal in major units; null if amount or
    currency is invalid.
    """
    match = (
        AMOUNT.fullmatch(str(amount))
        if isinstance(amount, int | str) and not isinstance(amount, bool)
        else None
    )
    if match is None or not isinstance(currency, str):
        return None
    sign, digits, fraction = match[1], match[2], match[3] or ""
    count = DECIMALS.get(currency.lower(), 2)
    padded = digits.zfill(count + 1)
    major, minor = padded[: len(padded) - count], padded[len(padded) - count :] + fraction
    return f"{sign}{major}{'.' if minor else ''}{minor}"
