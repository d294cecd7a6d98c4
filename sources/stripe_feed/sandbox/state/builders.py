"""Build objects before they are stored: the given fields, and random values for the others. Missing
prices are created on the way.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..samples import catalog, generic, invoices, subscriptions
from ..samples.annotations import Field, fields_of
from ..samples.subscriptions import Payer, PriceRef
from ..samples.values import Object, Random, decode
from .account import Account
from .kinds import EMBEDDED, KIND_OF_OBJECT, KINDS, Kind
from .mutation_log import read_object, record, record_price
from .table import has_text


def draft(account: Account, table: str, fields: Object, rng: Random | None = None) -> Object:
    """An object of any kind except prices: built by one of DRAFTS, or the kind's sample with the
    given fields. A reference that the sample leaves empty gets the id of an object of its kind.
    """
    if table in DRAFTS:
        return DRAFTS[table](account, fields)
    kind, rng = KINDS[table], rng or account.rng
    if kind.sample is None:
        raise ValueError(f"{table} has no sample: add one to its row in state/kinds.py")
    if kind.plain:
        return _draft_plain(account, kind, fields, rng)
    content = kind.sample(rng, fields.get(kind.dated, account.now)) | fields
    return content | {
        name: random_id(account, KIND_OF_OBJECT[object_name].name, rng)
        for name, object_name in kind.expandable.items()
        if content.get(name) == "" and object_name in KIND_OF_OBJECT
    }


def _draft_plain(account: Account, kind: Kind, fields: Object, rng: Random) -> Object:
    """An object of a plain kind, with the references that its sample leaves open."""
    created = fields.get(kind.dated) or account.now
    sample = kind.variants.get(str(fields.get("object")), kind.sample)
    assert sample is not None
    embedded = EMBEDDED.get(kind.name)
    given = {
        name: value for name, value in fields.items() if not embedded or name != embedded.field
    }
    content = sample(rng, created) | given
    if _needs_owner(kind, content, fields):
        content[kind.owner] = random_id(account, kind.owners, rng)
    documented = fields_of(content["object"])
    for name in [name for name, value in content.items() if value == generic.REFERENCE]:
        if name not in fields and name in documented:
            content[name] = _referred(account, documented[name], rng)
    if embedded:
        children = draft_children(account, kind, content, fields.get(embedded.field), {})
        content[embedded.field] = subscriptions.embedded_list(embedded.url(content["id"]), children)
    return content


def _needs_owner(kind: Kind, content: Object, fields: Object) -> bool:
    """Whether an object cannot be without one that it belongs to, and none is given."""
    if kind.owner in fields or not kind.owner:
        return False
    asks = ":id" in kind.path or kind.owner in kind.required
    return asks or content.get(kind.owner) == generic.REFERENCE


def _referred(account: Account, field: Field, rng: Random) -> Object | str:
    """The id of an object that a field may stand for, or the object itself if the field embeds it."""
    known = [name for name in field.objects if name in KIND_OF_OBJECT]
    if not known:
        return rng.id(field.objects[0].rpartition(".")[2])
    kind = KIND_OF_OBJECT[known[0]]
    id = random_id(account, kind.name, rng)
    return read_object(account, kind.name, id) if field.nature == "object" else id


def draft_children(
    account: Account,
    kind: Kind,
    content: Object,
    partial: Sequence[Object] | int | None,
    old: dict[str, Object],
) -> list[Object]:
    """The embedded objects of a plain kind, from partial ones or their number. One with a known id
    keeps the fields that are not given.
    """
    embedded = EMBEDDED[kind.name]
    if partial is None or isinstance(partial, int):
        partial = [{}] * (embedded.count if partial is None else partial)
    own = {embedded.parent: content["id"]} if embedded.parent else {}
    return [
        (
            old.get(fields.get("id", ""))
            or generic.sample(
                account.rng,
                account.now,
                object=embedded.object,
                prefix=embedded.prefix,
                values=embedded.values,
            )
            | own
        )
        | fields
        for fields in partial
    ]


def draft_product(account: Account, fields: Object) -> Object:
    content = catalog.product(account.rng, fields.get("created", account.now)) | {"active": True}
    return content | {"updated": content["created"]} | fields


def draft_price(account: Account, fields: Object, inline: bool = False) -> Object:
    fields = dict(fields)
    product = fields.get("product") or random_id(account, "products")
    content = catalog.price(
        account.rng, product, fields.get("created", account.now), fields.get("currency")
    )
    content |= {"active": not inline, "product": product}
    if "recurring" in fields:
        recurring = fields["recurring"]
        whole = (
            catalog.recurring(account.rng)
            | {"interval_count": 1, "trial_period_days": None}
            | (recurring or {})
        )
        content |= {"custom_unit_amount": None}
        once = recurring is None
        fields |= {
            "recurring": None if once else whole,
            "type": "one_time" if once else "recurring",
        }
    return content | consistent_amounts(fields)


def consistent_amounts(fields: Object) -> Object:
    """Make both amounts of a price agree; a price with an amount is neither tiered nor has a custom
    amount.
    """
    if "unit_amount" not in fields:
        return fields
    amount = fields["unit_amount"]
    amounts = {"unit_amount_decimal": None if amount is None else str(amount)} | fields
    if amounts["unit_amount_decimal"] is None:
        return amounts
    return {"billing_scheme": "per_unit", "tiers_mode": None, "custom_unit_amount": None} | amounts


def draft_subscription(account: Account, fields: Object) -> Object:
    rng, fields = account.rng, dict(fields)
    created, status = fields.get("created", account.now), fields.get("status", "active")
    id = fields.get("id") or rng.id("sub")
    payer = payer_of(account, fields.get("customer"), fields.get("currency"))
    partial = fields.pop("items", None)
    items = draft_items(account, id, payer, partial, created, {})
    return subscriptions.subscription(rng, id, payer, items, created, status) | fields | {"id": id}


def draft_items(
    account: Account,
    id: str,
    payer: Payer,
    partial: Sequence[Object] | int | None,
    created: int,
    old_items: dict[str, Object],
) -> list[Object]:
    """The items of a subscription, from partial items or their number. An item with a known id
    keeps the fields that are not given.
    """
    if partial is None or isinstance(partial, int):
        partial = [{}] * (1 if partial is None else partial)
    items = []
    for fields in partial:
        fields = dict(fields)
        old_item = old_items.get(fields.get("id", ""))
        price_ref = _item_price(account, fields, payer, created)
        if price_ref or not old_item:
            price_ref = price_ref or any_price(account, payer.currency)
            fields |= {"price": price_ref.price, "plan": price_ref.plan}
            old_item = old_item or subscriptions.item(account.rng, id, price_ref, created)
        items.append(old_item | fields)
    return items


def _item_price(account: Account, fields: Object, payer: Payer, created: int) -> PriceRef | None:
    """The price of an item: given by id, or described as `price_data`. None if it is given whole or
    not at all.
    """
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
    """An active recurring price, in this currency if there is one."""
    plans = account.tables["plans"]
    active = [
        row
        for row in (plans.random_row(account.rng) for _ in range(12))
        if row and row.group == "active"
    ]
    candidates = active or [row for row in plans.rows.values() if row.group == "active"]
    if candidates:
        return account.price_ref(
            next(filter(has_text("currency", currency), candidates), candidates[0]).id
        )
    created = create_price(
        account, "prices", {"currency": currency, "unit_amount": 900, "recurring": {}}, {}
    )
    return account.price_ref(created["id"])


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
    content = invoices.invoice(rng, id, payer, lines, created, status, subscription)
    return (
        invoices.with_amounts_due(content | {"starting_balance": 0} | fields) | fields | {"id": id}
    )


def draft_lines(
    account: Account,
    id: str,
    payer: Payer,
    partial: Sequence[Object] | int | None,
    created: int,
    subscription: str | None,
    old_lines: dict[str, Object],
) -> list[Object]:
    """The lines of an invoice, from partial lines or their number."""
    items: list[tuple[str, str]] = []
    if subscription is not None:
        row = account.tables["subscriptions"].rows[subscription]
        items = [
            (subscription, decode(raw)["id"]) for raw in account.children("subscriptions", row)
        ]
    if partial is None or isinstance(partial, int):
        partial = [{}] * (max(1, len(items)) if partial is None else partial)
    lines = []
    for place, fields in enumerate(partial):
        line = old_lines.get(fields.get("id", ""))
        if line is None:
            item = items[place] if place < len(items) else None
            line = subscriptions.line(
                account.rng, id, any_price(account, payer.currency), created, item, payer
            )
            if "amount" in fields:
                line |= {"subtotal": fields["amount"], "taxes": []}
        lines.append(line | fields)
    return lines


def payer_of(account: Account, id: str | None, currency: str | None = None) -> Payer:
    id = id or random_id(account, "customers")
    row = account.tables["customers"].rows.get(id)
    customer = row.content() if row else {}
    currency = currency or customer.get("currency") or "usd"
    return Payer(
        id,
        customer.get("name"),
        customer.get("email"),
        currency,
        customer.get("address"),
        customer.get("test_clock"),
    )


def random_id(account: Account, table: str, rng: Random | None = None) -> str:
    """The id of a random object of a table; if there is none, create one."""
    row = account.tables[table].random_row(rng or account.rng)
    if row is not None:
        return row.id
    return str(insert(account, table, draft(account, table, {}, rng), {})["id"])


def insert(account: Account, table: str, content: Object, opt_in: Object) -> Object:
    """Store a whole new object and report its creation."""
    kind = KINDS[table]
    if kind.owner in content and kind.owner not in fields_of(content["object"]):
        account.owners[table, content["id"]] = content[kind.owner]
        content = {name: value for name, value in content.items() if name != kind.owner}
    account.store(table, content)
    if opt_in:
        account.set_opt_in(content["id"], opt_in)
    stored = read_object(account, table, content["id"])
    events = status_events(kind, "draft", stored.get("status"))
    record(account, "created", table, None, stored, events)
    return stored


def status_events(kind: Kind, before: str | None, status: str | None) -> tuple[str, ...]:
    """Last parts of the event types of a change of the status."""
    if before == status:
        return ()
    return kind.leaving.get(before or "", ()) + kind.reaching.get(status or "", ())


def create_price(account: Account, table: str, fields: Object, opt_in: Object) -> Object:
    inline = bool(fields.pop("inline", False))
    if table == "plans":
        fields = catalog.price_fields(fields)
    content = draft_price(account, fields, inline)
    if inline:
        account.inline_prices.add(content["id"])
    account.store_price(content)
    if opt_in:
        account.set_opt_in(content["id"], opt_in)
    record_price(account, "created", content["id"], {})
    return read_object(account, table, content["id"])


DRAFTS = {
    "products": draft_product,
    "subscriptions": draft_subscription,
    "invoices": draft_invoice,
}
