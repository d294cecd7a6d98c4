"""What all samples are made of: a seeded random generator, names of places, addresses, metadata."""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

Object = dict[str, Any]
T = TypeVar("T")

API_VERSION = "2026-10-28.endive"
"""The version that samples look like."""

LETTERS = string.ascii_letters + string.digits
CURRENCIES = ("usd",) * 11 + ("eur",) * 5 + ("gbp",) * 2 + ("jpy", "kwd")
CITIES = (
    ("Berlin", "DE", "10115", None, "Torstraße"), ("Lyon", "FR", "69002", None, "rue Mercière"),
    ("Portland", "US", "97205", "OR", "SW Alder St"), ("Austin", "US", "78701", "TX", "Congress Ave"),
    ("Leeds", "GB", "LS1 4DY", "West Yorkshire", "Wellington Street"), ("大阪市", "JP", "530-0001", "大阪府", "梅田"),
    ("São Paulo", "BR", "01310-100", "SP", "Avenida Paulista"), ("Kuwait City", "KW", "13001", None, "Al Soor Street"),
)  # fmt: skip
LOCALES = ("en", "de", "fr", "ja", "pt-BR", "en-GB")
METADATA_KEYS = ("crm_id", "plan", "source", "region", "cohort", "salesforce_id", "seats")


class Random(random.Random):
    """A seeded generator that also makes ids as Stripe does."""

    livemode = False
    account = "acct_"

    def chance(self, share: float) -> bool:
        return self.random() < share

    def pick(self, choices: Sequence[T]) -> T:
        return choices[int(self.random() * len(choices))]

    def word(self, length: int) -> str:
        return "".join(self.choices(LETTERS, k=length))

    def id(self, prefix: str) -> str:
        """A random id: short for the oldest kinds, else with a part of the account's id inside."""
        if prefix in ("cus", "prod", "si"):
            return f"{prefix}_{self.word(14)}"
        return f"{prefix}_1{self.word(5)}{self.account[6:16]}{self.word(8)}"


def address(rng: Random) -> Object:
    city, country, postal_code, state, street = rng.pick(CITIES)
    return {
        "city": city,
        "country": country,
        "line1": f"{street} {int(rng.random() * 180) + 1}",
        "line2": f"{int(rng.random() * 9)}. OG" if rng.chance(0.2) else None,
        "postal_code": postal_code,
        "state": state,
    }


def metadata(rng: Random) -> dict[str, str]:
    keys = int(rng.random() * 4)
    return {rng.pick(METADATA_KEYS): rng.word(6 + keys) for _ in range(keys)}


def decode(raw: bytes) -> Object:
    content: Object = msgspec.json.decode(raw)
    return content
