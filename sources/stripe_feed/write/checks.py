"""What Stripe would refuse, or should never get, found before the call: e-mail addresses, ids,
lengths, card numbers, and what a parameter needs beside itself.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from ..api.forms import LONGEST_ID
from ..errors import InvalidParameter
from ..resources.writable import Writable

_Params = Mapping[str, Any]

LENGTHS: dict[str, dict[str, int]] = {
    "customers": {
        "email": 512, "name": 256, "phone": 20, "business_name": 150, "individual_name": 150,
    },
    "products": {"name": 5_000, "description": 40_000, "unit_label": 12},
    "prices": {"lookup_key": 200},
    "coupons": {"name": 40},
    "subscriptions": {"description": 500},
    "invoices": {"description": 1_500},
    "quotes": {"header": 50, "description": 500, "footer": 500},
}  # fmt: skip
"""Characters; other text has 5,000 at most."""
LONGEST_TEXT = 5_000
COUNTS: dict[str, dict[str, int]] = {
    "products": {"images": 8, "marketing_features": 15},
    "subscriptions": {"items": 20},
    "customers": {"invoice_settings.custom_fields": 4},
    "invoices": {"custom_fields": 4},
}
MOST_KEYS, LONGEST_VALUE = 50, 500  # of metadata
LONGEST_STATEMENT = 22
REFERENCES = {"customer": "cus_", "invoice": "in_", "subscription": "sub_"}
EMAIL = re.compile(r"[^@\s,;<>\"()]+@[^@\s,;<>\"().]+(?:\.[^@\s,;<>\"().]+)+")
NUMBER = re.compile(r"(?<![\d.])(?:\d[ -]?){12,18}\d(?![\d.])")
FEWEST_DIGITS = 13
CARD = re.compile(r"3\d|4|5\d|6\d|2[2-7]|81")
NO_CARD = re.compile(r"(?:^|\.)(?:phone|id)$|_decimal$|^tax_id_data|^value$")
"""Digits of another kind; `value` is that of a tax id."""


def check_id(row: Writable, object_id: object) -> str:
    """Return an id that can be one of this kind. Raises `InvalidParameter` before any request."""
    if not isinstance(object_id, str) or not 0 < len(object_id) <= LONGEST_ID:
        raise InvalidParameter(f"Give the id of the {row.noun}.", "id")
    if not re.match(id_pattern(row.prefix), object_id):
        raise InvalidParameter(f"The id of a {row.noun} begins with {row.prefix}.", "id")
    if object_id != object_id.strip() or not object_id.isprintable():
        raise InvalidParameter("An id does not begin or end with white space.", "id")
    return object_id


@cache
def id_pattern(prefix: str) -> str:
    """What ids of the kind with this prefix match at their start.

    Customers who came from another system have the ids that they had there; only those that Stripe
    gives to other objects are none.
    """
    if prefix == REFERENCES["customer"]:
        others = "acct|ch|evt|ii|in|pi|plan|pm|price|prod|py|qt|re|seti|si|sub|txi"
        return f"^(?!(?:{others})_[A-Za-z0-9])"
    return f"^{prefix}"


def check(row: Writable, verb: str, params: _Params) -> None:
    """Raise `InvalidParameter` for the first thing that Stripe would refuse or should never get."""
    for path, value in walk(params):
        if isinstance(value, str):
            _check_text(path, _text_rules(row.table, path), value)
        elif isinstance(value, int) and value < 0 and path.rpartition(".")[2] == "quantity":
            raise InvalidParameter(f"{path} is not negative.", path)
        elif isinstance(value, list) and len(value) > (
            most := COUNTS.get(row.table, {}).get(path, len(value))
        ):
            raise InvalidParameter(f"{path} has at most {most} entries.", path)
    check_metadata(params.get("metadata"))
    if verb == "create":
        for rule in _RULES.get(row.table, ()):
            if sentence := rule(params):
                raise InvalidParameter(sentence)


def walk(params: _Params, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value with its path, lists and hashes too."""
    for name, value in params.items():
        path = f"{prefix}{name}"
        yield path, value
        if isinstance(value, str):
            continue
        if isinstance(value, dict):
            yield from walk(value, f"{path}.")
        elif isinstance(value, list):
            for item in value:
                yield f"{path}[]", item
                if isinstance(item, dict):
                    yield from walk(item, f"{path}[].")


_Form = Callable[[str], object]


@cache
def _text_rules(table: str, path: str) -> tuple[_Form | None, str, int, bool]:
    """Of a parameter: a test that its text passes, what it is told otherwise, the most characters, and
    whether a card number could stand there.
    """
    top, _, last = path.rpartition(".")
    test, sentence = _FORMS.get(path, (None, ""))
    if path in REFERENCES:
        prefix = REFERENCES[path]
        test, sentence = _begins_with(prefix), f"{{path}} is an id that begins with {prefix}."
    longest = LENGTHS.get(table, {}).get(path, LONGEST_TEXT)
    if top.endswith("custom_fields[]"):
        longest = 40 if last == "name" else 140
    return test, sentence.format(path=path), longest, not NO_CARD.search(path)


def _begins_with(prefix: str) -> _Form:
    return lambda text: not text or re.match(id_pattern(prefix), text)


def _is_statement(text: str) -> bool:
    return len(text) <= LONGEST_STATEMENT and not re.search(r"[<>\\'\"]", text)


_CURRENCY = (
    re.compile(r"[A-Za-z]{3}").fullmatch,
    "{path} is a code of three letters, such as eur.",
)
_COUNTRY = (
    re.compile(r"(?:[A-Za-z]{2})?").fullmatch,
    "{path} is a code of two letters, such as DE.",
)
_FORMS: dict[str, tuple[_Form, str]] = {
    "currency": _CURRENCY,
    "address.country": _COUNTRY,
    "shipping.address.country": _COUNTRY,
    "email": (lambda text: not text or (EMAIL.fullmatch(text) and text.isprintable()), "{path} is no e-mail address."),
    "invoice_prefix": (
        re.compile(r"[A-Z0-9]{1,12}").fullmatch, "{path} has 1 to 12 capital letters or digits.",
    ),
    "statement_descriptor": (
        _is_statement,
        f"{{path}} has at most {LONGEST_STATEMENT} characters, none of < > \\ ' \".",
    ),
}  # fmt: skip
"""Per parameter a test of its text, and what is wrong with one that fails."""


def _check_text(path: str, rules: tuple[_Form | None, str, int, bool], text: str) -> None:
    test, sentence, longest, could_be_card = rules
    if test is not None and not test(text):
        raise InvalidParameter(sentence, path)
    if "\0" in text:
        raise InvalidParameter(f"{path} holds a character that no text has (NUL).", path)
    if len(text) > longest:
        raise InvalidParameter(f"{path} has at most {longest:,} characters.", path)
    if could_be_card and holds_card_number(text):
        raise InvalidParameter(
            f"{path} holds what looks like a card number, which must never be stored there. Remove it.",
            path,
        )


def holds_card_number(text: str) -> bool:
    """Whether some digits of a text are a card number: 13 to 19 of them, a card's first ones, and
    the right check digit.
    """
    if len(text) < FEWEST_DIGITS and text.isascii():
        return False
    for match in NUMBER.finditer(unicodedata.normalize("NFKC", text)):
        digits = re.sub(r"\D", "", match[0])
        if CARD.match(digits) and _luhn(digits):
            return True
    return False


def _luhn(digits: str) -> bool:
    doubled = (int(digit) * (1 + n % 2) for n, digit in enumerate(reversed(digits)))
    return sum(n - 9 if n > 9 else n for n in doubled) % 10 == 0


def check_metadata(metadata: object, held: Mapping[str, Any] | None = None) -> None:
    """Check lengths and number of the keys; `held`: those that the object has already."""
    if not isinstance(metadata, dict):
        return
    for key, value in metadata.items():
        if holds_card_number(key):
            raise InvalidParameter("A key of metadata looks like a card number.", "metadata")
        if len(value) > LONGEST_VALUE:
            raise InvalidParameter(
                f"A value of metadata has at most {LONGEST_VALUE} characters.", "metadata"
            )
    if len(metadata) + len(held or ()) <= MOST_KEYS:
        return
    merged = {key: value for key, value in {**(held or {}), **metadata}.items() if value != ""}
    if len(merged) > MOST_KEYS:
        raise InvalidParameter(
            f"metadata has at most {MOST_KEYS} keys; these would be {len(merged)}.", "metadata"
        )


_Rule = Callable[[_Params], str | None]


def _needs_one(*names: str) -> _Rule:
    """Exactly one of some parameters."""

    def rule(params: _Params) -> str | None:
        given = [name for name in names if name in params]
        return None if len(given) == 1 else f"Give exactly one of {', '.join(names)}."

    return rule


def _at_most_one(*names: str) -> _Rule:
    def rule(params: _Params) -> str | None:
        given = [name for name in names if name in params]
        return f"Give only one of {' and '.join(given)}." if len(given) > 1 else None

    return rule


def _needs(*names: str) -> _Rule:
    def rule(params: _Params) -> str | None:
        missing = [name for name in names if name not in params]
        return f"{missing[0]} is missing." if missing else None

    return rule


def _when(name: str, value: object, *needed: str) -> _Rule:
    """If a parameter has a value, one of others is needed."""

    def rule(params: _Params) -> str | None:
        if params.get(name) != value or any(other in params for other in needed):
            return None
        return f"{name}={value} needs {' or '.join(needed)}."

    return rule


def _price_amount(params: _Params) -> str | None:
    names = ("unit_amount", "unit_amount_decimal", "custom_unit_amount")
    for name in names[:2]:
        if str(params.get(name, "")).startswith("-"):
            return f"{name} is not negative."
    if params.get("billing_scheme") == "tiered":
        if "recurring" not in params:
            return "A tiered price needs recurring.interval."
        return None if "tiers" in params else "A tiered price needs tiers."
    return _needs_one(*names)(params)


def _price_meter(params: _Params) -> str | None:
    recurring = params.get("recurring", {})
    if recurring.get("usage_type") == "metered" and "meter" not in recurring:
        return "A metered price needs recurring.meter."
    return None


def _item_amount(params: _Params) -> str | None:
    priced = "price_data" in params or "price" in params.get("pricing", {})
    amounts = "amount" in params or "unit_amount_decimal" in params
    if priced or (amounts and "currency" in params):
        return None
    return (
        "Give amount and currency, unit_amount_decimal and currency, pricing.price or price_data."
    )


def _percent(params: _Params) -> str | None:
    percent = params.get("percent_off")
    if percent is not None and not 0 < percent <= 100:
        return "percent_off is more than 0 and at most 100."
    return None


def _coupon_currency(params: _Params) -> str | None:
    return (
        "amount_off needs currency."
        if "amount_off" in params and "currency" not in params
        else None
    )


def _from_quote(params: _Params) -> str | None:
    others = params.keys() - {"from_quote", "expires_at"}
    return (
        "With from_quote, only expires_at can be set."
        if "from_quote" in params and others
        else None
    )


CUSTOMER = _needs_one("customer", "customer_account")
_SENDS = _when("collection_method", "send_invoice", "days_until_due", "due_date")
_RULES: dict[str, tuple[_Rule, ...]] = {
    "products": (_needs("name"),),
    "prices": (
        _needs("currency"), _needs_one("product", "product_data"), _price_amount, _price_meter,
    ),
    "plans": (_needs("currency", "interval"),),
    "coupons": (
        _needs_one("percent_off", "amount_off"), _coupon_currency, _percent,
        _when("duration", "repeating", "duration_in_months"),
    ),
    "subscriptions": (
        CUSTOMER, _needs("items"), _SENDS, _at_most_one("trial_end", "trial_from_plan"),
        _at_most_one("billing_cycle_anchor", "billing_cycle_anchor_config"),
    ),
    "invoices": (CUSTOMER, _SENDS),
    "invoice_items": (CUSTOMER, _item_amount),
    "quotes": (_from_quote,),
}  # fmt: skip
"""What a new object needs, as the types of the SDK do not say it."""
