"""What can happen to the objects of an account: created, updated, deleted, canceled, or planted as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from . import billing, catalog, invoices
from .account import EMBEDDED, NAMES, OPT_IN, Account, Kind
from .billing import Payer, Sold
from .objects import Object, customer

EVENT_OF = {
    "customers": "customer",
    "subscriptions": "customer.subscription",
    "invoices": "invoice",
    "products": "product",
    "plans": "plan",
    "prices": "price",
}
REACHED = {
    "open": ("invoice.finalized",),
    "paid": ("invoice.paid", "invoice.payment_succeeded"),
    "void": ("invoice.voided",),
    "uncollectible": ("invoice.marked_uncollectible",),
}


def create(account: Account, table: str, fields: Object) -> Object:
    """Make an object, by default at the account's now; fields that are not given are drawn."""
    known(table)
    id, fields = fields.get("id"), dict(fields)
    opt_in = {name: fields.pop(name) for name in OPT_IN.get(table, ()) if name in fields}
    if id is not None and id in account.tables[table].rows:
        raise ValueError(f"{table} has {id} already")
    if table in ("prices", "plans"):
        return _create_price(account, table, fields, opt_in)
    found = DRAFTS[table](account, fields)
    account.store(table, found)
    if opt_in:
        account.remember(found["id"], opt_in)
    done = content(account, table, found["id"])
    _commit(account, "created", table, None, done, "created", REACHED.get(done.get("status") or "", ())[:1])
    return done


def _create_price(account: Account, table: str, fields: Object, opt_in: Object) -> Object:
    inline = bool(fields.pop("inline", False))
    if table == "plans":
        fields = catalog.price_fields(fields)
    found = draft_price(account, fields, inline)
    if inline:
        account.inline.add(found["id"])
    account.store_price(found)
    if opt_in:
        account.remember(found["id"], opt_in)
    _commit_price(account, "created", found["id"], {})
    return content(account, table, found["id"])


def update(account: Account, table: str, id: str, fields: Object) -> Object:
    """Replace fields of an object; `items` and `lines` are the whole new list."""
    known(table)
    opt_in = {name: fields[name] for name in OPT_IN.get(table, ()) if name in fields}
    fields = {name: value for name, value in fields.items() if name not in opt_in}
    if opt_in:
        account.remember(id, opt_in)
    if table in ("prices", "plans"):
        return _update_price(account, table, id, fields)
    before = content(account, table, id)
    after = before | CHANGED.get(table, _plain)(account, id, before, fields)
    if table in EMBEDDED and EMBEDDED[table][0] in fields:
        account.whole.pop(id, None)
    account.store(table, after)
    done = content(account, table, id)
    reached = REACHED.get(done["status"] or "", ()) if table == "invoices" and done["status"] != before["status"] else ()
    _commit(account, "updated", table, before, done, "updated", reached)
    return done


def _update_price(account: Account, table: str, id: str, fields: Object) -> Object:
    price = content(account, "prices", id)
    if table == "plans":
        fields = catalog.price_fields(fields, price)
    before = _sides(account, id)
    account.store_price(price | _amounts(fields))
    _commit_price(account, "updated", id, before)
    return content(account, table, id)


def _plain(account: Account, id: str, before: Object, fields: Object) -> Object:
    return fields


def _changed_product(account: Account, id: str, before: Object, fields: Object) -> Object:
    return {"updated": account.now} | fields


def _changed_subscription(account: Account, id: str, before: Object, fields: Object) -> Object:
    if "items" not in fields:
        return fields
    payer = payer_of(account, before["customer"], before["currency"])
    items = draft_items(account, id, payer, fields["items"], account.now, _old(account, "subscriptions", id))
    return fields | {"items": billing.listed(billing.items_url(id), items)}


def _changed_invoice(account: Account, id: str, before: Object, fields: Object) -> Object:
    found = dict(fields)
    if "lines" in fields:
        payer = payer_of(account, before["customer"], before["currency"])
        lines = draft_lines(account, id, payer, fields["lines"], account.now, None, _old(account, "invoices", id))
        found |= {"lines": billing.listed(billing.lines_url(id), lines)} | invoices.money(lines)
    status = fields.get("status", before["status"])
    if status != before["status"]:
        found = _reach(account, before, status) | found
    if "lines" in fields or "status" in fields:
        found = invoices.settled(before | found) | {name: fields[name] for name in fields if name != "lines"}
    return found


def _reach(account: Account, before: Object, status: str) -> Object:
    """The fields that a new status brings; number, links and dates that are there stay."""
    fresh = invoices.standing(account.dice, before["id"], status, account.now - 3700)
    kept = {name: before[name] for name in ("number", "hosted_invoice_url", "invoice_pdf", "effective_at") if before[name]}
    dates = {name: at for name, at in before["status_transitions"].items() if at}
    return fresh | kept | {"status_transitions": fresh["status_transitions"] | dates, "webhooks_delivered_at": account.now}


CHANGED = {
    "products": _changed_product,
    "subscriptions": _changed_subscription,
    "invoices": _changed_invoice,
}


def _old(account: Account, table: str, id: str) -> dict[str, Object]:
    children = [msgspec.json.decode(raw) for raw in account.children(table, account.tables[table].rows[id])]
    return {child["id"]: child for child in children}


def delete(account: Account, table: str, id: str) -> Object:
    """Delete what Stripe lets go: customers, drafts, products without prices, prices with their plans."""
    before = content(account, table, id)
    if table == "subscriptions":
        return cancel(account, id)
    if table == "invoices" and before["status"] != "draft":
        raise ValueError(f"{id} is {before['status']}: only drafts can be deleted")
    if table == "products" and any(f'"product":"{id}"'.encode() in row.raw for row in account.tables["prices"].rows.values()):
        raise ValueError(f"{id} has prices: only products without prices can be deleted")
    if table == "customers":
        for subscription in _running(account, id):
            cancel(account, subscription)
    if table in ("prices", "plans"):
        _delete_price(account, id)
    else:
        account.remove(table, id)
        _commit(account, "deleted", table, before, None, "deleted")
    return before


def _delete_price(account: Account, id: str) -> None:
    before = _sides(account, id)
    for table in before:
        account.remove(table, id)
    account.inline.discard(id)
    _commit_price(account, "deleted", id, before)


def _running(account: Account, customer: str) -> list[str]:
    named = f'"customer":"{customer}"'.encode()
    rows = account.tables["subscriptions"].rows.values()
    return [row.id for row in rows if named in row.raw and row.group not in ("canceled", "incomplete_expired")]


def cancel(account: Account, id: str) -> Object:
    """End a subscription now. It stays, as canceled."""
    before = content(account, "subscriptions", id)
    details = before["cancellation_details"] | {"reason": "cancellation_requested"}
    now = account.now
    after = before | {"status": "canceled", "canceled_at": now, "ended_at": now, "cancellation_details": details}
    account.store("subscriptions", after)
    _commit(account, "canceled", "subscriptions", before, after, "deleted")
    return after


def put(account: Account, table: str, given: Object | bytes) -> Object:
    """Plant an object as it is: bytes stay the same bytes."""
    known(table)
    raw = given.strip() if isinstance(given, bytes) else msgspec.json.encode(given)
    found: Object = msgspec.json.decode(raw)
    there = account.tables[table].rows.get(found["id"])
    before = there.content() if there else None
    account.whole.pop(found["id"], None)
    account.store(table, found, raw)
    _put_other_side(account, table, found)
    _commit(account, "updated" if before else "created", table, before, found, "updated" if before else "created")
    return found


def _put_other_side(account: Account, table: str, found: Object) -> None:
    """A planted price is a plan as well, and the reverse, unless that one is there."""
    id, tables = found["id"], account.tables
    if table == "prices" and found.get("recurring") and id not in tables["plans"].rows:
        account.store("plans", catalog.plan_of(found))
    if table == "plans" and id not in tables["prices"].rows:
        drawn = catalog.price(account.dice, found["product"], found["created"], found["currency"])
        account.store("prices", drawn | catalog.price_fields(found) | {"object": "price"})


def content(account: Account, table: str, id: str) -> Object:
    row = account.tables[table].rows.get(id)
    if row is None:
        raise KeyError(f"no such {NAMES[table]}: {id}")
    return row.content()


def known(table: str) -> None:
    if table not in NAMES:
        raise ValueError(f"no such table: {table}; there are {', '.join(NAMES)}")


def _sides(account: Account, id: str) -> dict[str, Object]:
    """A price as both of its tables show it."""
    return {table: content(account, table, id) for table in ("plans", "prices") if id in account.tables[table].rows}


def _commit(
    account: Account,
    kind: Kind,
    table: str,
    before: Object | None,
    after: Object | None,
    event: str,
    more: tuple[str, ...] = (),
) -> None:
    id = (after or before or {})["id"]
    account.commit(kind, table, id, before, after, (f"{EVENT_OF[table]}.{event}", *(more if table == "invoices" else ())))


def _commit_price(account: Account, kind: Kind, id: str, before: dict[str, Object]) -> None:
    after = _sides(account, id)
    for table in {**before, **after}:
        _commit(account, kind, table, before.get(table), after.get(table), kind)
