"""Render objects in the shape of older API versions. The account's events have the shape of its
default version.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from ..protocol.versions import KNOWN_VERSIONS
from ..samples.values import Object, decode
from .account import Account
from .discounts import coupon_content, discount_content
from .kinds import EMBEDDED, KINDS

NEWEST, OLDEST = "2026-09-30", "2024-04-10"
"""Objects are stored in the shape of all versions from NEWEST on; versions before OLDEST are not
supported.
"""

REMOVED: tuple[tuple[str, dict[str, tuple[str, ...]]], ...] = (
    (NEWEST, {
        "invoices": ("status_details",), "subscriptions": ("status_details",), "items": ("current_trial",),
        "products": ("tax_details",),
    }),
    ("2026-08-26", {
        "invoices": ("amount_paid_off_stripe",), "items": ("billed_until",),
        "subscriptions": ("billing_schedules", "managed_payments", "invoice_settings.custom_fields",
                          "invoice_settings.description", "invoice_settings.footer", "cancellation_details.feedback_option"),
    }),
    ("2026-03-25", {"lines": ("quantity_decimal",), "subscriptions": ("presentment_details",)}),
    ("2026-02-25", {
        "customers": ("customer_account",), "invoices": ("customer_account",), "subscriptions": ("customer_account",),
        "discounts": ("customer_account",), "lines": ("subtotal",),
    }),
    ("2025-09-30", {"customers": ("business_name", "individual_name"), "subscriptions": ("billing_mode.flexible",)}),
    ("2025-08-27", {"subscriptions": ("billing_mode",), "invoices": ("automatic_tax.provider",)}),
    ("2025-02-24", {
        "invoices": ("total_pretax_credit_amounts", "automatic_tax.disabled_reason"), "lines": ("pretax_credit_amounts",),
        "subscriptions": ("automatic_tax.disabled_reason",),
    }),
)  # fmt: skip
"""Version -> the fields that older versions lack."""

TABLE_OF = {kind.object: name for name, kind in KINDS.items()} | {
    embedded.object: embedded.field for embedded in EMBEDDED.values()
}

BASIL, THRESHOLDS_AGAIN, CLOVER = "2025-03-31", "2025-08-27", "2025-09-30"


def check_version(version: str) -> str:
    if version not in KNOWN_VERSIONS or version < OLDEST:
        raise ValueError(
            f"unknown API version: {version}; the sandbox knows versions from {OLDEST} on"
        )
    return version


def is_current(version: str) -> bool:
    return version[:10] >= NEWEST


def deleted_stub(object: str, id: str) -> Object:
    return {"id": id, "object": object, "deleted": True}


def previous_attributes(before: Object, after: Object) -> Object:
    """The old values of changed fields: of a hash only the changed keys, of an array all elements,
    of a new field null.
    """
    changed: Object = {}
    for name in (*before, *(name for name in after if name not in before)):
        old, new = before.get(name), after.get(name)
        if old is new or same_json(old, new):
            continue
        changed[name] = (
            previous_attributes(old, new)
            if isinstance(old, dict) and isinstance(new, dict)
            else old
        )
    return changed


def same_json(old: object, new: object) -> bool:
    """Whether two values are equal as JSON: 0 is not false."""
    if old != new or type(old) is not type(new):
        return False
    if isinstance(old, list) and isinstance(new, list):
        return all(map(same_json, old, new))
    return not (isinstance(old, dict) and isinstance(new, dict)) or all(
        same_json(value, new[name]) for name, value in old.items()
    )


def render_answer(account: Account, body: bytes, version: str) -> bytes:
    """Render an answer of the API in the requested version. Events keep theirs."""
    content = decode(body)
    if content.get("object") == "list" and content["data"]:
        table = TABLE_OF.get(content["data"][0].get("object"))
        rendered = table and content | {
            "data": [render(account, table, listed, version) for listed in content["data"]]
        }
    else:
        table = TABLE_OF.get(content.get("object", ""))
        rendered = table and render(account, table, content, version)
    return msgspec.json.encode(rendered) if rendered else body


def render(account: Account, table: str, content: Object, version: str) -> Object:
    """Render an object with all that it embeds in the shape of a version; the given object is not
    changed.
    """
    date = version[:10]
    if date >= NEWEST:
        return content
    shaped = _without_new_fields(content, table, date)
    if date < CLOVER and table == "discounts":
        shaped = _old_discount(account, shaped)
    if isinstance(shaped.get("discount"), dict):
        shaped["discount"] = render(account, "discounts", shaped["discount"], version)
    if date < BASIL and table in BEFORE_BASIL:
        shaped = BEFORE_BASIL[table](account, shaped)
    if date < CLOVER and table == "invoices" and str(shaped.get("id", "")).startswith("upcoming_"):
        shaped.pop("id")
    for field in ("items", "lines") if table in BEFORE_BASIL else ():
        if isinstance(shaped.get(field), dict):
            data = [render(account, field, child, version) for child in shaped[field]["data"]]
            shaped[field] = shaped[field] | {"data": data}
    return shaped


def _without_new_fields(content: Object, table: str, date: str) -> Object:
    shaped = dict(content)
    for version, removed in REMOVED:
        if date < version:
            for path in removed.get(table, ()):
                _drop(shaped, path)
    if BASIL <= date < THRESHOLDS_AGAIN and table in ("subscriptions", "items"):
        _drop(shaped, "billing_thresholds")
    return shaped


def _drop(shaped: Object, path: str) -> None:
    name, _, inner = path.partition(".")
    if not inner:
        shaped.pop(name, None)
    elif isinstance(shaped.get(name), dict):
        shaped[name] = {key: value for key, value in shaped[name].items() if key != inner}


def _old_discount(account: Account, content: Object) -> Object:
    """Embed the coupon, as versions before clover do."""
    source = content.pop("source", None) or {}
    name = source.get("coupon")
    coupon = coupon_content(account, name) if isinstance(name, str) else name
    return content | {"coupon": coupon}


def _old_subscription(account: Account, content: Object) -> Object:
    items = (content.get("items") or {}).get("data") or [{}]
    starts = [
        item["current_period_start"]
        for item in items
        if item.get("current_period_start") is not None
    ]
    ends = [
        item["current_period_end"] for item in items if item.get("current_period_end") is not None
    ]
    return content | {
        "current_period_start": min(starts, default=None),
        "current_period_end": max(ends, default=None),
        "discount": _first_discount(account, content),
    }


def _first_discount(account: Account, content: Object) -> Object | None:
    first = next(iter(content.get("discounts") or ()), None)
    discount = discount_content(account, first, content) if isinstance(first, str) else first
    return discount and render(account, "discounts", discount, OLDEST)


def _old_item(account: Account, content: Object) -> Object:
    shaped = {
        name: value
        for name, value in content.items()
        if name not in ("current_period_start", "current_period_end")
    }
    for field, table in (("plan", "plans"), ("price", "prices")):
        if isinstance(shaped.get(field), dict):
            shaped[field] = BEFORE_BASIL[table](account, shaped[field])
    return shaped


def _old_invoice(account: Account, content: Object) -> Object:
    parent = content.get("parent") or {}
    details, quote = parent.get("subscription_details") or {}, parent.get("quote_details") or {}
    taxes, paid = content.get("total_taxes"), content.get("status") == "paid"
    number = str(content.get("id", ""))[3:]
    shaped = {
        name: value
        for name, value in content.items()
        if name not in ("amount_overpaid", "parent", "total_taxes")
    }
    return shaped | {
        "application_fee_amount": None,
        "charge": f"ch_{number}" if paid else None,
        "discount": _first_discount(account, content),
        "paid": paid,
        "paid_out_of_band": False,
        "payment_intent": f"pi_{number}" if content.get("status") in ("open", "paid") else None,
        "quote": quote.get("quote"),
        "subscription": details.get("subscription"),
        "subscription_details": {"metadata": details.get("metadata")},
        "subscription_proration_date": details.get("subscription_proration_date"),
        "tax": sum(tax["amount"] for tax in taxes) if taxes else None,
        "total_tax_amounts": [_old_tax(tax) for tax in taxes or ()],
        "transfer_data": None,
    }


def _old_line(account: Account, content: Object) -> Object:
    parent = content.get("parent") or {}
    item_details = parent.get("subscription_item_details") or {}
    details = item_details or parent.get("invoice_item_details") or {}
    pricing = (content.get("pricing") or {}).get("price_details") or {}
    shaped = {
        name: value for name, value in content.items() if name not in ("parent", "pricing", "taxes")
    }
    shaped |= {
        "amount_excluding_tax": content.get("amount"),
        "plan": _price_or_plan(account, "plans", pricing.get("price")),
        "price": _price_or_plan(account, "prices", pricing.get("price")),
        "proration": bool(details.get("proration")),
        "proration_details": details.get("proration_details") or {"credited_items": None},
        "tax_amounts": [_old_tax(tax) for tax in content.get("taxes") or ()],
        "tax_rates": [],
        "type": "subscription" if item_details else "invoiceitem",
        "unit_amount_excluding_tax": (content.get("pricing") or {}).get("unit_amount_decimal"),
    }
    if item_details:
        return shaped | {"subscription_item": item_details.get("subscription_item")}
    return shaped | {"invoice_item": details.get("invoice_item")}


def _price_or_plan(account: Account, table: str, id: str | None) -> Object | None:
    """A price or plan as it is now, or was last."""
    row, deleted = account.tables[table].rows.get(id or ""), account.deleted[table].get(id or "")
    if row is not None:
        return BEFORE_BASIL[table](account, row.content())
    return None if deleted is None else BEFORE_BASIL[table](account, decode(deleted))


def _old_tax(tax: Object) -> Object:
    return {
        "amount": tax.get("amount"),
        "inclusive": tax.get("tax_behavior") == "inclusive",
        "tax_rate": (tax.get("tax_rate_details") or {}).get("tax_rate"),
        "taxability_reason": tax.get("taxability_reason"),
        "taxable_amount": tax.get("taxable_amount"),
    }


def _old_plan(account: Account, content: Object) -> Object:
    return content | {"aggregate_usage": None}


def _old_price(account: Account, content: Object) -> Object:
    recurring: Any = content.get("recurring")
    return (
        content | {"recurring": recurring | {"aggregate_usage": None}}
        if isinstance(recurring, dict)
        else content
    )


BEFORE_BASIL: dict[str, Callable[[Account, Object], Object]] = {
    "subscriptions": _old_subscription, "items": _old_item, "invoices": _old_invoice, "lines": _old_line,
    "plans": _old_plan, "prices": _old_price,
}  # fmt: skip
"""Undo the change of the billing objects in version basil."""
