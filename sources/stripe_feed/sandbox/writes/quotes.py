"""`/v1/quotes`: drafts, open quotes, and what accepting one creates."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from ..protocol.errors import Refusal, missing
from ..protocol.parameters import Params
from ..samples.values import Object
from ..state import mutations
from ..world import World
from . import billing, invoice_items, invoice_lines, invoices, subscriptions
from .records import add, merge_hash, object_in_param, object_in_path, schedule, to_fields

_DAY = 86_400
_AUTOMATIC_TAX: Object = {"enabled": False, "liability": None, "provider": None, "status": None}
_INVOICE_SETTINGS: Object = {
    "custom_fields": None, "days_until_due": None, "description": None, "footer": None, "issuer": {"type": "self"},
}  # fmt: skip
SUBSCRIPTION_DATA: Object = {
    "billing_mode": {"flexible": {"proration_discounts": "included"}, "type": "flexible"},
    "description": None,
    "effective_date": None,
    "metadata": None,
    "trial_period_days": None,
}
_TRANSITIONS: Object = dict.fromkeys(("accepted_at", "canceled_at", "finalized_at"))
NOTHING: Object = {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0}
_EMPTY: Object = {
    "amount_subtotal": 0,
    "amount_total": 0,
    "application": None,
    "application_fee_amount": None,
    "application_fee_percent": None,
    "automatic_tax": _AUTOMATIC_TAX,
    "collection_method": "charge_automatically",
    "computed": {"recurring": None, "upfront": None},
    "currency": None,
    "customer": None,
    "customer_account": None,
    "default_tax_rates": [],
    "description": None,
    "discounts": [],
    "footer": None,
    "from_quote": None,
    "header": None,
    "invoice": None,
    "invoice_settings": _INVOICE_SETTINGS,
    "line_items": [],
    "metadata": {},
    "number": None,
    "on_behalf_of": None,
    "status": "draft",
    "status_transitions": _TRANSITIONS,
    "subscription": None,
    "subscription_data": SUBSCRIPTION_DATA,
    "subscription_schedule": None,
    "test_clock": None,
    "total_details": NOTHING | {"breakdown": None},
    "transfer_data": None,
}
_PLAIN = frozenset(
    [
        "application_fee_amount",
        "application_fee_percent",
        "collection_method",
        "customer",
        "description",
        "expires_at",
        "footer",
        "header",
        "metadata",
        "on_behalf_of",
        "test_clock",
        "transfer_data",
    ]
)
"""Parameters that are fields of the same name."""

_UNSET: Object = {"default_tax_rates": [], "discounts": []}


def create(account: World, id: str, given: Params) -> Object:
    id = account.rng.id("qt")
    empty = _EMPTY | {"id": id, "expires_at": account.now + 30 * _DAY}
    source = _source(account, given)
    for name in ("customer", "test_clock"):
        _check_reference(account, given, name)
    own = (
        "id",
        "object",
        "created",
        "expires_at",
        "number",
        "status",
        "status_transitions",
        "invoice",
        "subscription",
    )
    copied = {name: value for name, value in (source or {}).items() if name not in own}
    if source:
        lines = [line | {"id": account.rng.id("li")} for line in _lines(account, source["id"])]
        revision = bool(given["from_quote"].get("is_revision"))
        copied |= {
            "line_items": lines,
            "from_quote": {"is_revision": revision, "quote": source["id"]},
        }
    made = add(account, "quotes", empty | copied | _fields(account, empty, given))
    _schedule_expiry(account, made)
    return made


def _source(account: World, given: Params) -> Object | None:
    if "from_quote" not in given:
        return None
    if more := sorted(set(given) - {"from_quote", "expires_at"}):
        raise Refusal(
            400,
            f"With `from_quote` you may only specify `expires_at`, not `{more[0]}`.",
            param=more[0],
        )
    return object_in_param(account, "quotes", given["from_quote"]["quote"], "from_quote[quote]")


def _check_reference(account: World, given: Params, name: str) -> None:
    if name == "customer" and given.get(name):
        object_in_param(account, "customers", given[name], name)
    if name == "test_clock" and given.get(name, "") not in {"", *account.clocks}:
        raise missing("test_clock", given[name], name, 400)


def update(account: World, id: str, given: Params) -> Object:
    """Update a quote, without an event."""
    before = object_in_path(account, "quotes", id)
    if before["status"] not in ("draft", "open"):
        raise Refusal(400, f"This quote cannot be updated because it is {before['status']}.")
    if before["status"] == "open" and (refused := sorted(set(given) - {"expires_at"})):
        raise Refusal(400, "Only `expires_at` of an open quote can be updated.", param=refused[0])
    _check_reference(account, given, "customer")
    if before["customer"] and given.get("customer", before["customer"]) != before["customer"]:
        raise Refusal(
            400, "The customer of a quote cannot be changed once it is set.", param="customer"
        )
    fields = _fields(account, before, given)
    after = mutations.update(account, "quotes", id, fields)
    _schedule_expiry(account, after)
    return after


def finalize(account: World, id: str, given: Params) -> Object:
    before = _needs(account, id, "finalized", "draft")
    if not before["customer"]:
        raise Refusal(400, "A quote needs a customer before it can be finalized.", param="customer")
    if not _lines(account, id):
        raise Refusal(
            400, "A quote needs line items before it can be finalized.", param="line_items"
        )
    number = f"QT-{account.rng.word(8).upper()}-0001-1"
    fields = {"expires_at": given.get("expires_at", before["expires_at"]), "number": number}
    after = _reach(account, before | fields, "open", "finalized_at")
    _schedule_expiry(account, after)
    return after


def accept(account: World, id: str, given: Params) -> Object:
    """Accept a quote. Recurring prices become a subscription, others a draft invoice."""
    quote = _needs(account, id, "accepted", "open")
    lines = _lines(account, id)
    recurring = [line for line in lines if line["price"]["type"] == "recurring"]
    if recurring:
        made = _subscribed(
            account, quote, recurring, [line for line in lines if line not in recurring]
        )
    else:
        made = {"invoice": _invoiced(account, quote, lines)}
    return _reach(account, quote | made, "accepted", "accepted_at")


def cancel(account: World, id: str, given: Params) -> Object:
    return _reach(
        account, _needs(account, id, "canceled", "draft", "open"), "canceled", "canceled_at"
    )


def _schedule_expiry(account: World, quote: Object) -> None:
    at = quote["expires_at"]
    schedule(account, at, partial(_expire, account, quote["id"], at))


def _expire(account: World, id: str, at: int) -> None:
    quote = object_in_path(account, "quotes", id)
    if quote["status"] in ("draft", "open") and quote["expires_at"] == at:
        _reach(account, quote, "canceled", "canceled_at")


def _needs(account: World, id: str, what: str, *statuses: str) -> Object:
    quote = object_in_path(account, "quotes", id)
    if quote["status"] not in statuses:
        raise Refusal(400, f"This quote cannot be {what} because its status is {quote['status']}.")
    return quote


def _reach(account: World, quote: Object, status: str, at: str) -> Object:
    moments = quote["status_transitions"] | {at: account.now}
    after = quote | {"status": status, "status_transitions": moments}
    return mutations.replace(account, "quotes", after, children=False)


def _fields(account: World, before: Object, given: Params) -> Object:
    fields = to_fields(before, {name: given[name] for name in _PLAIN if name in given}, _UNSET)
    for name, empty in (("automatic_tax", _AUTOMATIC_TAX), ("invoice_settings", _INVOICE_SETTINGS), ("subscription_data", SUBSCRIPTION_DATA)):  # fmt: skip
        if name in given:
            fields[name] = merge_hash(before[name], given[name], empty)
    if "default_tax_rates" in given:
        fields["default_tax_rates"] = given["default_tax_rates"] or []
    if "discounts" in given:
        fields["discounts"] = billing.discounts(account, given["discounts"], before["discounts"])
    if "line_items" in given:
        fields |= _priced(_built(account, before["id"], given["line_items"]))
    return fields


def _lines(account: World, id: str) -> list[Object]:
    found: list[Object] = account.opt_in_values.get(id, {}).get("line_items", [])
    return found


def _built(account: World, quote: str, given: Sequence[Params]) -> list[Object]:
    """Build the whole new list. Rows with an id keep what is not given."""
    held = {line["id"]: line for line in _lines(account, quote)}
    return [
        _line(account, entry, f"line_items[{place}]", held) for place, entry in enumerate(given)
    ]


def _line(account: World, entry: Params, name: str, held: dict[str, Object]) -> Object:
    if entry.get("id") and entry["id"] not in held:
        raise missing("line_item", entry["id"], f"{name}[id]", 400)
    before = held.get(entry.get("id", ""))
    if before is None or entry.get("price") or entry.get("price_data"):
        price = billing.sold_price(account, entry, name, recurring=None)
        id = billing.price_id(account, price)
        price = account.tables["prices"].rows[id].content()
    else:
        price = before["price"]
    quantity = entry.get("quantity", before["quantity"] if before else 1)
    amount = billing.amount_of(price, quantity)
    return {
        "id": before["id"] if before else account.rng.id("li"),
        "object": "item",
        "adjustable_quantity": None,
        "amount_discount": 0,
        "amount_subtotal": amount,
        "amount_tax": 0,
        "amount_total": amount,
        "currency": price["currency"],
        "description": price["product"],
        "metadata": None,
        "price": price,
        "quantity": quantity,
    }


def _priced(lines: list[Object]) -> Object:
    """Return line items, currency and totals as fields."""
    if len({line["currency"] for line in lines}) > 1:
        raise Refusal(400, "All prices of a quote must have the same currency.", param="line_items")
    recurring = [line for line in lines if line["price"]["type"] == "recurring"]
    total = sum(line["amount_total"] for line in lines)
    computed: Object = {"recurring": None, "upfront": _sums(lines)}
    if recurring:
        cycle = recurring[0]["price"]["recurring"]
        computed["recurring"] = _sums(recurring) | {
            "interval": cycle["interval"],
            "interval_count": cycle["interval_count"],
        }
    return {
        "amount_subtotal": total,
        "amount_total": total,
        "computed": computed,
        "currency": lines[0]["currency"] if lines else None,
        "line_items": lines,
    }


def _sums(lines: list[Object]) -> Object:
    total = sum(line["amount_total"] for line in lines)
    return {"amount_subtotal": total, "amount_total": total, "total_details": NOTHING}


def _subscribed(
    account: World, quote: Object, recurring: list[Object], once: list[Object]
) -> Object:
    data = quote["subscription_data"]
    if isinstance(data["effective_date"], int) and data["effective_date"] > account.now:
        return {"subscription_schedule": account.rng.id("sub_sched")}
    customer = object_in_param(account, "customers", quote["customer"], "customer")
    given = {
        "customer": customer["id"],
        "items": [
            {"price": line["price"]["id"], "quantity": line["quantity"]} for line in recurring
        ],
        "add_invoice_items": [
            {"price": line["price"]["id"], "quantity": line["quantity"]} for line in once
        ],
        "collection_method": quote["collection_method"],
        "currency": quote["currency"],
        "days_until_due": quote["invoice_settings"]["days_until_due"],
        "description": data["description"],
        "metadata": data["metadata"] or {},
        "trial_period_days": data["trial_period_days"],
    }
    if quote["collection_method"] == "charge_automatically" and not billing.can_pay(customer, {}):
        given["payment_behavior"] = "default_incomplete"
    made = subscriptions.create(account, "", given)
    return {"subscription": made["id"], "invoice": made["latest_invoice"]}


def _invoiced(account: World, quote: Object, lines: list[Object]) -> str:
    customer = object_in_param(account, "customers", quote["customer"], "customer")
    for line in lines:
        own = {
            "customer": customer["id"],
            "currency": quote["currency"],
            "quantity": line["quantity"],
        }
        invoice_items.create(account, "", own | {"pricing": {"price": line["price"]["id"]}})
    items = invoice_lines.pending(account, customer["id"], quote["currency"], None)[-len(lines) :]
    parent = {
        "quote_details": {"quote": quote["id"]},
        "subscription_details": None,
        "type": "quote_details",
    }
    fields = {"billing_reason": "quote_accept", "parent": parent}
    days = quote["invoice_settings"]["days_until_due"]
    given = {"collection_method": quote["collection_method"], "days_until_due": days}
    return str(
        invoices.create_draft(account, customer, quote["currency"], fields, items, given=given)[
            "id"
        ]
    )
