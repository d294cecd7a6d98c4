"""Events about objects that no table holds: invoice previews, and objects of other kinds."""

from __future__ import annotations

import msgspec

from ..samples import customers
from ..samples.subscriptions import ENDED
from ..samples.values import Object
from ..state.api_versions import render
from ..state.builders import draft_invoice
from ..state.event_builder import EventDraft
from ..state.table import has_text
from ..world import World


def preview(account: World, id: str) -> Object:
    """Record `invoice.upcoming` with a preview of the next invoice of a customer or a subscription."""
    target = (
        {"subscription": id}
        if id in account.tables["subscriptions"].rows
        else _of_customer(account, id)
    )
    invoice_id = account.event_log.rng.id("upcoming_in")
    invoice = draft_invoice(
        account, target | {"id": invoice_id, "created": account.now, "billing_reason": "upcoming"}
    )
    shown = account.truncate_list("invoices", invoice)[0]
    raw = msgspec.json.encode(render(account, "invoices", shown, account.api_version))
    account.event_log.add(
        EventDraft("invoice.upcoming", "previews", invoice_id, raw, sides=(None, shown)),
        account.now,
    )
    return invoice


def _of_customer(account: World, id: str) -> Object:
    if id not in account.tables["customers"].rows:
        raise KeyError(f"no such customer or subscription: {id}")
    rows = filter(has_text("customer", id), account.tables["subscriptions"].rows.values())
    subscription = next((row.id for row in rows if row.group not in ENDED), None)
    return {"customer": id} | ({"subscription": subscription} if subscription else {})


def noise(account: World, count: int) -> None:
    """Record `count` events about cards, tax ids and payments."""
    history = account.event_log
    for _ in range(count):
        row = account.tables["customers"].random_row(history.rng)
        type, table = history.rng.pick(TYPES_AND_TABLES)
        unrelated = _unrelated_object(
            account, table, row.content() if row else {"id": history.rng.id("cus")}
        )
        with history.action():
            history.add(
                EventDraft(type, table, unrelated["id"], msgspec.json.encode(unrelated)),
                account.now,
            )


def deauthorize(account: World) -> None:
    """Record that the account's owner revoked the access of the platform's application."""
    application = {
        "id": account.event_log.rng.id("ca"),
        "object": "application",
        "name": "Platform",
    }
    raw = msgspec.json.encode(application)
    with account.event_log.action():
        account.event_log.add(
            EventDraft("account.application.deauthorized", "applications", application["id"], raw),
            account.now,
        )


TYPES_AND_TABLES = (
    ("customer.source.created", "sources"), ("customer.tax_id.created", "tax_ids"),
    ("charge.succeeded", "charges"), ("payment_intent.succeeded", "payment_intents"),
)  # fmt: skip


def _unrelated_object(account: World, table: str, customer: Object) -> Object:
    rng = account.event_log.rng
    if table == "sources":
        return customers.card(rng, customer["id"])
    if table == "tax_ids":
        return customers.tax_id(rng, customer) | {"created": account.now}
    amount = 100 + int(rng.random() * 90_000)
    return {
        "id": rng.id("ch" if table == "charges" else "pi"),
        "object": table[:-1],
        "amount": amount,
        "created": account.now,
        "currency": customer.get("currency") or "usd",
        "customer": customer["id"],
        "livemode": rng.livemode,
        "metadata": {},
        "status": "succeeded",
    }
