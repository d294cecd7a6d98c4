"""`expand[]`: ids become objects, and the fields that only come when asked for come."""

from __future__ import annotations

import zlib
from typing import Any

import msgspec

from ..protocol.errors import Refusal, forbidden, not_expandable
from ..samples import catalog, invoices
from ..samples.customers import Dice, Object
from ..state.account import NAMES, OPT_IN, SHOWN, Account
from ..state.table import naming

Path = tuple[str, ...]

DEPTH = 4
TARGETS = {
    "customer": "customers", "latest_invoice": "invoices", "default_price": "prices", "product": "products",
    "subscription": "subscriptions", "price": "prices", "invoice": "invoices", "latest_revision": "invoices",
}  # fmt: skip
"""Fields with the id of an object that the sandbox holds."""

STRANGERS = {
    "application": "application", "default_source": "card", "default_payment_method": "payment_method",
    "on_behalf_of": "account", "pending_setup_intent": "setup_intent", "schedule": "subscription_schedule",
    "discounts": "discount", "coupon": "coupon", "promotion_code": "promotion_code", "tax_code": "tax_code",
    "account_tax_ids": "tax_id",
}  # fmt: skip
"""Fields with the id of an object that it does not hold: expanded, they give a stub with the right
name.
"""

PERMISSIONS = {
    "customers": "rak_customer_read", "invoices": "rak_invoice_read", "subscriptions": "rak_subscription_read",
    "products": "rak_product_read", "prices": "rak_plan_read",
}  # fmt: skip


def paths(
    account: Account, key: str, table: str, asked: tuple[str, ...], in_list: bool
) -> list[Path]:
    """The paths below an object; refuses what cannot be expanded, and what the key may not read."""
    found = []
    for dotted in asked:
        parts = tuple(dotted.split("."))
        if in_list:
            if parts[0] != "data" or len(parts) < 2:
                raise not_expandable(dotted, f"data.{dotted}")
            parts = parts[1:]
        if len(parts) > DEPTH:
            raise Refusal(
                400, f"You cannot expand more than {DEPTH} levels of a property.", param="expand"
            )
        _check(table, parts, dotted)
        _permit(account, key, parts)
        found.append(parts)
    return found


def _check(table: str, parts: Path, dotted: str) -> None:
    """Each path must at least begin with a field of the object, and end in one that can be
    expanded.
    """
    last, first = parts[-1], parts[0]
    own = (
        first in OPT_IN.get(table, ()) or first in TARGETS or first in STRANGERS or first in NESTED
    )
    if not own or (
        last not in TARGETS and last not in STRANGERS and last not in EVERY and last != "test_clock"
    ):
        raise not_expandable(dotted)
    if len(parts) == 1 and not (first in OPT_IN.get(table, ()) or first in FIELDS[table]):
        raise not_expandable(dotted)


EVERY = frozenset(name for names in OPT_IN.values() for name in names)
NESTED = frozenset(
    {"items", "lines", "parent", "discount", "test_clock", "from_invoice", "transfer_data"}
)
FIELDS: dict[str, frozenset[str]] = {
    "customers": frozenset({"default_source", "test_clock"}),
    "invoices": frozenset(
        {"customer", "account_tax_ids", "application", "default_payment_method", "default_source", "discounts",
         "latest_revision", "on_behalf_of", "test_clock"}
    ),
    "subscriptions": frozenset(
        {"customer", "latest_invoice", "application", "default_payment_method", "default_source", "discounts",
         "on_behalf_of", "pending_setup_intent", "schedule", "test_clock"}
    ),
    "products": frozenset({"default_price", "tax_code"}),
    "plans": frozenset({"product"}),
    "prices": frozenset({"product"}),
}  # fmt: skip


def _permit(account: Account, key: str, parts: Path) -> None:
    """What is expanded needs its own permission."""
    for part in parts:
        permission = PERMISSIONS.get(TARGETS.get(part, ""), "")
        if permission and not account.allowed(key, permission):
            raise forbidden(key, account.id, [permission])


def expanded(account: Account, table: str, raw: bytes, paths: list[Path]) -> bytes:
    """The same object with these paths filled in; without a path into it, a field keeps its bytes."""
    found = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    whole: dict[str, Any] = dict(found)
    content: Object | None = None
    for path in paths:
        first = path[0]
        if first in OPT_IN.get(table, ()) and first not in whole:
            content = content or msgspec.json.decode(raw)
            whole[first] = opt_in(account, table, content, first)
        elif isinstance(whole.get(first), msgspec.Raw):
            whole[first] = msgspec.json.decode(whole[first])
        if first in whole:
            _walk(account, whole, path)
    return msgspec.json.encode(whole)


def _walk(account: Account, holder: Any, path: Path) -> None:
    if isinstance(holder, list):
        for one in holder:
            _walk(account, one, path)
        return
    if not isinstance(holder, dict) or path[0] not in holder:
        return
    name, rest = path[0], path[1:]
    held = holder[name]
    many = isinstance(held, list)
    holder[name] = held = (
        [_object(account, name, one) for one in held] if many else _object(account, name, held)
    )
    if rest:
        _walk(account, held, rest)


def _object(account: Account, name: str, held: Any) -> Any:
    """The object that an id stands for."""
    if not isinstance(held, str):
        return held
    if name == "test_clock":
        return account.clocks.get(held, held)
    if name in STRANGERS:
        return {"id": held, "object": STRANGERS[name]}
    table = TARGETS.get(name)
    if table is None:
        return held
    row = account.tables[table].rows.get(held)
    if row is not None:
        return row.content()
    if held in account.gone[table]:
        return {"id": held, "object": NAMES[table], "deleted": True}
    return held


def opt_in(account: Account, table: str, content: Object, field: str) -> Any:
    """A field that only comes when expanded, as the object shows it."""
    found = complete(account, table, content, field)
    if field not in LISTS:
        return found
    url = LISTS[field].format(id=content["id"])
    return {"object": "list", "data": found[:SHOWN], "has_more": len(found) > SHOWN, "url": url}


LISTS = {
    "sources": "/v1/customers/{id}/sources",
    "tax_ids": "/v1/customers/{id}/tax_ids",
    "subscriptions": "/v1/customers/{id}/subscriptions",
    "payments": "/v1/invoice_payments?invoice={id}",
}


def complete(account: Account, table: str, content: Object, field: str) -> Any:
    """All of it: what was given, or what follows from the id."""
    given = account.extras.get(content["id"], {})
    if field in given and not isinstance(given[field], int):
        return given[field]
    dice = Dice(f"{account.seed} {content['id']} {field}")
    dice.account, dice.livemode = account.id, account.livemode
    draw = zlib.crc32(f"{content['id']} {field}".encode())
    match field:
        case "tax_ids":
            return [tax_id(dice, content) for _ in range(given.get(field, draw % 3))]
        case "sources":
            return [card(dice, content["id"]) for _ in range(given.get(field, draw % 2))]
        case "payments":
            return _payments(dice, content, given.get(field, 1))
        case "subscriptions":
            return _subscriptions(account, content["id"])
        case "tax":
            location = {"country": "DE", "source": "billing_address", "state": None}
            known = {
                "automatic_tax": "supported",
                "ip_address": None,
                "location": location,
                "provider": "stripe",
            }
            return (
                known
                if draw % 3
                else known | {"automatic_tax": "unrecognized_location", "location": None}
            )
        case "cash_balance":
            return _cash_balance(dice, content, draw)
        case "invoice_credit_balance":
            return {"eur": -(draw % 5000)} if draw % 4 == 0 else {}
        case "tiers":
            return catalog.tiers(content)
        case "currency_options":
            return catalog.currency_options(content)
    raise not_expandable(field)


def tax_id(dice: Dice, customer: Object) -> Object:
    return {
        "id": dice.id("txi"),
        "object": "tax_id",
        "country": "DE",
        "created": customer.get("created") or 0,
        "customer": customer["id"],
        "customer_account": None,
        "livemode": dice.livemode,
        "owner": {"customer": customer["id"], "customer_account": None, "type": "customer"},
        "type": "eu_vat",
        "value": f"DE{int(dice.random() * 899_999_999) + 100_000_000}",
        "verification": {"status": "verified", "verified_address": None, "verified_name": None},
    }


def card(dice: Dice, customer: str) -> Object:
    return {
        "id": dice.id("card"),
        "object": "card",
        "address_zip": None,
        "brand": dice.pick(("Visa", "MasterCard", "American Express")),
        "country": "DE",
        "customer": customer,
        "exp_month": 1 + int(dice.random() * 12),
        "exp_year": 2029,
        "fingerprint": dice.word(16),
        "funding": "credit",
        "last4": f"{int(dice.random() * 10_000):04d}",
        "metadata": {},
        "name": None,
    }


def _cash_balance(dice: Dice, customer: Object, draw: int) -> Object | None:
    if draw % 5:
        return None
    return {
        "object": "cash_balance",
        "available": {"eur": draw % 10_000},
        "customer": customer["id"],
        "customer_account": None,
        "livemode": dice.livemode,
        "settings": {"reconciliation_mode": "automatic", "using_merchant_default": True},
    }


def _payments(dice: Dice, invoice: Object, count: int) -> list[Object]:
    """What was paid, in `count` parts."""
    paid = invoice.get("amount_paid") or 0
    parts = [paid // count] * (count - 1) if paid else []
    amounts = [*parts, paid - sum(parts)] if paid else []
    return [
        invoices.invoice_payment(dice, invoice, number, amount)
        for number, amount in enumerate(amounts)
    ]


def _subscriptions(account: Account, customer: str) -> list[Object]:
    """The current ones of a customer, newest first."""
    table = account.tables["subscriptions"]
    rows = (row for row in table.older(*table.span(None, None)) if row.group != "canceled")
    return [row.content() for row in filter(naming("customer", customer), rows)]
