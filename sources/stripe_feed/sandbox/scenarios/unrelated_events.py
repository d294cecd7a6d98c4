"""Events of what is in none of the tables: previews of invoices, and objects of other kinds."""

from __future__ import annotations

import msgspec

from ..http import expansions
from ..samples.customers import Object
from ..samples.subscriptions import ENDED
from ..state.api_versions import rendered
from ..state.builders import draft_invoice
from ..state.event_builder import Happening
from ..state.table import naming
from ..world import World


def preview(account: World, id: str) -> Object:
    """Tell of the next invoice of a customer or a subscription: `invoice.upcoming`, with an object
    that is none yet.
    """
    given = (
        {"subscription": id}
        if id in account.tables["subscriptions"].rows
        else _of_customer(account, id)
    )
    name = account.history.dice.id("upcoming_in")
    found = draft_invoice(
        account, given | {"id": name, "created": account.now, "billing_reason": "upcoming"}
    )
    shown = account.cut("invoices", found)[0]
    raw = msgspec.json.encode(rendered(account, "invoices", shown, account.api_version))
    account.history.add(
        Happening("invoice.upcoming", "previews", name, raw, sides=(None, shown)), account.now
    )
    return found


def _of_customer(account: World, id: str) -> Object:
    if id not in account.tables["customers"].rows:
        raise KeyError(f"no such customer or subscription: {id}")
    rows = filter(naming("customer", id), account.tables["subscriptions"].rows.values())
    running = next((row.id for row in rows if row.group not in ENDED), None)
    return {"customer": id} | ({"subscription": running} if running else {})


def noise(account: World, count: int) -> None:
    """So many events about cards, tax ids and payments."""
    history = account.history
    for _ in range(count):
        row = account.tables["customers"].any(history.dice)
        type, table = history.dice.pick(OTHERS)
        found = _other(account, table, row.content() if row else {"id": history.dice.id("cus")})
        with history.action():
            history.add(
                Happening(type, table, found["id"], msgspec.json.encode(found)), account.now
            )


OTHERS = (
    ("customer.source.created", "sources"), ("customer.tax_id.created", "tax_ids"),
    ("charge.succeeded", "charges"), ("payment_intent.succeeded", "payment_intents"),
)  # fmt: skip


def _other(account: World, table: str, customer: Object) -> Object:
    dice = account.history.dice
    if table == "sources":
        return expansions.card(dice, customer["id"])
    if table == "tax_ids":
        return expansions.tax_id(dice, customer) | {"created": account.now}
    amount = 100 + int(dice.random() * 90_000)
    return {
        "id": dice.id("ch" if table == "charges" else "pi"),
        "object": table[:-1],
        "amount": amount,
        "created": account.now,
        "currency": customer.get("currency") or "usd",
        "customer": customer["id"],
        "livemode": dice.livemode,
        "metadata": {},
        "status": "succeeded",
    }
