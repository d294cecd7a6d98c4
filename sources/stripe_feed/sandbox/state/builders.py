"""Objects before they are stored: what is given, and the rest drawn. Prices that they need are made
on the way.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..samples import catalog, invoices, subscriptions
from ..samples.subscriptions import Payer, PriceRef
from ..samples.values import Object, decode
from .account import Account
from .kinds import KIND_OF_OBJECT, KINDS
from .mutation_log import read_object, record, record_price
from .table import has_text


def draft(account: Account, table: str, fields: Object) -> Object:
    """An object of any kind but a price: made by one of DRAFTS, or its kind's sample with the given
    fields. A reference that the sample leaves empty becomes the id of an object of its kind.
    """
    if table in DRAFTS:
        return DRAFTS[table](account, fields)
    sample = KINDS[table].sample
    if sample is None:
        raise ValueError(f"no sample of {table}: give its row one in state/kinds.py")
    found = sample(account.rng, fields.get("created", account.now)) | fields
    return found | {
        name: random_id(account, KIND_OF_OBJECT[becomes].name)
        for name, becomes in KINDS[table].expandable.items()
        if found.get(name) == "" and becomes in KIND_OF_OBJECT
    }


def draft_product(account: Account, fields: Object) -> Object:
    found = catalog.product(account.rng, fields.get("created", account.now)) | {"active": True}
    return found | {"updated": found["created"]} | fields


def draft_price(account: Account, fields: Object, inline: bool = False) -> Object:
    fields = dict(fields)
    product = fields.get("product") or random_id(account, "products")
    found = catalog.price(
        account.rng, product, fields.get("created", account.now), fields.get("currency")
    )
    found |= {"active": not inline, "product": product}
    if "recurring" in fields:
        cycle = fields["recurring"]
        whole = (
            catalog.recurring(account.rng)
            | {"interval_count": 1, "trial_period_days": None}
            | (cycle or {})
        )
        found |= {"custom_unit_amount": None}
        once = cycle is None
        fields |= {
            "recurring": None if once else whole,
            "type": "one_time" if once else "recurring",
        }
    return found | consistent_amounts(fields)


def consistent_amounts(fields: Object) -> Object:
    """A price's two amounts say the same, and one that has an amount is neither tiered nor free to
    choose.
    """
    if "unit_amount" not in fields:
        return fields
    amount = fields["unit_amount"]
    found = {"unit_amount_decimal": None if amount is None else str(amount)} | fields
    if found["unit_amount_decimal"] is None:
        return found
    return {"billing_scheme": "per_unit", "tiers_mode": None, "custom_unit_amount": None} | found


def draft_subscription(account: Account, fields: Object) -> Object:
    rng, fields = account.rng, dict(fields)
    created, status = fields.get("created", account.now), fields.get("status", "active")
    id = fields.get("id") or rng.id("sub")
    payer = payer_of(account, fields.get("customer"), fields.get("currency"))
    given = fields.pop("items", None)
    items = draft_items(account, id, payer, given, created, {})
    return subscriptions.subscription(rng, id, payer, items, created, status) | fields | {"id": id}


def draft_items(
    account: Account,
    id: str,
    payer: Payer,
    given: Sequence[Object] | int | None,
    created: int,
    old: dict[str, Object],
) -> list[Object]:
    """The items of a subscription, from partial ones or from their number; those with an old id
    keep its fields.
    """
    if given is None or isinstance(given, int):
        given = [{}] * (1 if given is None else given)
    found = []
    for fields in given:
        fields = dict(fields)
        before = old.get(fields.get("id", ""))
        price_ref = _item_price(account, fields, payer, created)
        if price_ref or not before:
            price_ref = price_ref or any_price(account, payer.currency)
            fields |= {"price": price_ref.price, "plan": price_ref.plan}
            before = before or subscriptions.item(account.rng, id, price_ref, created)
        found.append(before | fields)
    return found


def _item_price(account: Account, fields: Object, payer: Payer, created: int) -> PriceRef | None:
    """The price that an item names by its id, brings whole, or describes as `price_data`."""
    price, data = fields.get("price"), fields.pop("price_data", None)
    if data is not None:
        inline = {
            "created": created,
            "currency": payer.currency,
            "recurring": {"interval": "month"},
        } | data
        made = create_price(account, "prices", inline | {"inline": True}, {})
        return account.price_ref(made["id"])
    if isinstance(price, str):
        return account.price_ref(price)
    return None


def any_price(account: Account, currency: str) -> PriceRef:
    """An active price that recurs, in this currency where there is one."""
    plans = account.tables["plans"]
    drawn = [
        row
        for row in (plans.random_row(account.rng) for _ in range(12))
        if row and row.group == "active"
    ]
    rows = drawn or [row for row in plans.rows.values() if row.group == "active"]
    if rows:
        return account.price_ref(next(filter(has_text("currency", currency), rows), rows[0]).id)
    made = create_price(
        account, "prices", {"currency": currency, "unit_amount": 900, "recurring": {}}, {}
    )
    return account.price_ref(made["id"])


def draft_invoice(account: Account, fields: Object) -> Object:
    rng, fields = account.rng, dict(fields)
    created, status = fields.get("created", account.now), fields.get("status", "draft")
    id, subscription = fields.get("id") or rng.id("in"), fields.pop("subscription", None)
    if subscription is not None:
        fields.setdefault(
            "customer", read_object(account, "subscriptions", subscription)["customer"]
        )
    payer = payer_of(account, fields.get("customer"), fields.get("currency"))
    lines = draft_lines(account, id, payer, fields.pop("lines", None), created, subscription, {})
    found = invoices.invoice(rng, id, payer, lines, created, status, subscription)
    return invoices.with_amounts_due(found | {"starting_balance": 0} | fields) | fields | {"id": id}


def draft_lines(
    account: Account,
    id: str,
    payer: Payer,
    given: Sequence[Object] | int | None,
    created: int,
    subscription: str | None,
    old: dict[str, Object],
) -> list[Object]:
    """The lines of an invoice, from partial ones or from their number."""
    billed: list[tuple[str, str]] = []
    if subscription is not None:
        row = account.tables["subscriptions"].rows[subscription]
        billed = [
            (subscription, decode(raw)["id"]) for raw in account.children("subscriptions", row)
        ]
    if given is None or isinstance(given, int):
        given = [{}] * (max(1, len(billed)) if given is None else given)
    found = []
    for place, fields in enumerate(given):
        before = old.get(fields.get("id", ""))
        if before is None:
            item = billed[place] if place < len(billed) else None
            before = subscriptions.line(
                account.rng, id, any_price(account, payer.currency), created, item, payer
            )
            if "amount" in fields:
                before |= {"subtotal": fields["amount"], "taxes": []}
        found.append(before | fields)
    return found


def payer_of(account: Account, id: str | None, currency: str | None = None) -> Payer:
    id = id or random_id(account, "customers")
    row = account.tables["customers"].rows.get(id)
    found = row.content() if row else {}
    currency = currency or found.get("currency") or "usd"
    return Payer(
        id,
        found.get("name"),
        found.get("email"),
        currency,
        found.get("address"),
        found.get("test_clock"),
    )


def random_id(account: Account, table: str) -> str:
    """One of what is there; the first one is made."""
    row = account.tables[table].random_row(account.rng)
    if row is not None:
        return row.id
    found = draft(account, table, {})
    account.store(table, found)
    record(account, "created", table, None, found)
    return str(found["id"])


def create_price(account: Account, table: str, fields: Object, opt_in: Object) -> Object:
    inline = bool(fields.pop("inline", False))
    if table == "plans":
        fields = catalog.price_fields(fields)
    found = draft_price(account, fields, inline)
    if inline:
        account.inline_prices.add(found["id"])
    account.store_price(found)
    if opt_in:
        account.set_opt_in(found["id"], opt_in)
    record_price(account, "created", found["id"], {})
    return read_object(account, table, found["id"])


DRAFTS = {
    "products": draft_product,
    "subscriptions": draft_subscription,
    "invoices": draft_invoice,
}
