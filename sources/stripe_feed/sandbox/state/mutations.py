"""What can happen to the objects of an account: created, updated, deleted, canceled, or planted as
they are.
"""

from __future__ import annotations

import msgspec

from ..samples import catalog, invoices, subscriptions
from ..samples.values import Object, decode
from .account import Account
from .builders import consistent_amounts, create_price, draft, draft_items, draft_lines, payer_of
from .kinds import EMBEDDED, KINDS, Kind, Operation
from .mutation_log import check_table, price_and_plan, read_object, record, record_price
from .table import has_text


def create(account: Account, table: str, fields: Object) -> Object:
    """Make an object, by default at the account's now; fields that are not given are drawn."""
    check_table(table)
    id, fields = fields.get("id"), dict(fields)
    opt_in = {name: fields.pop(name) for name in KINDS[table].opt_in if name in fields}
    if id is not None and id in account.tables[table].rows:
        raise ValueError(f"{table} has {id} already")
    if table in ("prices", "plans"):
        return create_price(account, table, fields, opt_in)
    return insert(account, table, draft(account, table, fields), opt_in)


def insert(account: Account, table: str, found: Object, opt_in: Object) -> Object:
    """Put a whole object in place, and tell that it was created."""
    account.store(table, found)
    if opt_in:
        account.set_opt_in(found["id"], opt_in)
    done = read_object(account, table, found["id"])
    record(
        account,
        "created",
        table,
        None,
        done,
        _status_events(KINDS[table], "draft", done.get("status")),
    )
    return done


def update(account: Account, table: str, id: str, fields: Object) -> Object:
    """Replace fields of an object; `items` and `lines` are the whole new list."""
    check_table(table)
    opt_in = {name: fields[name] for name in KINDS[table].opt_in if name in fields}
    fields = {name: value for name, value in fields.items() if name not in opt_in}
    if opt_in:
        account.set_opt_in(id, opt_in)
    if table in ("prices", "plans"):
        return _update_price(account, table, id, fields)
    before = read_object(account, table, id)
    after = before | FIELD_RULES.get(table, _as_given)(account, id, before, fields)
    return replace(
        account, table, after, EMBEDDED[table].field in fields if table in EMBEDDED else False
    )


def replace(account: Account, table: str, after: Object, children: bool) -> Object:
    """Put the next state of an object in place, and tell what changed; `children`: it has all of
    them, not the first ten.
    """
    id = after["id"]
    before, whole = read_object(account, table, id), account.all_children.get(id)
    if children:
        account.all_children.pop(id, None)
    account.store(table, after)
    done = read_object(account, table, id)
    ends = "canceled" in KINDS[table].events and (
        done.get("status") == "canceled" != before.get("status")
    )
    operation: Operation = "canceled" if ends else "updated"
    passed = _status_events(KINDS[table], before.get("status"), done.get("status"))
    hidden = account.all_children.get(id) != whole
    record(
        account,
        operation,
        table,
        before,
        done,
        passed + _payment_failed(table, before, done),
        hidden,
    )
    return done


def _status_events(kind: Kind, before: str | None, status: str | None) -> tuple[str, ...]:
    """The events of a change of the status."""
    if before == status:
        return ()
    return kind.leaving.get(before or "", ()) + kind.reaching.get(status or "", ())


def _payment_failed(table: str, before: Object, done: Object) -> tuple[str, ...]:
    """A payment that was tried and leaves its invoice open."""
    tried = table == "invoices" and (done["attempt_count"] or 0) > (before["attempt_count"] or 0)
    return ("payment_failed",) if tried and done["status"] == "open" else ()


def _update_price(account: Account, table: str, id: str, fields: Object) -> Object:
    price = read_object(account, "prices", id)
    if table == "plans":
        fields = catalog.price_fields(fields, price)
    before = price_and_plan(account, id)
    account.store_price(price | consistent_amounts(fields))
    record_price(account, "updated", id, before)
    return read_object(account, table, id)


def _as_given(account: Account, id: str, before: Object, fields: Object) -> Object:
    return fields


def _changed_product(account: Account, id: str, before: Object, fields: Object) -> Object:
    return {"updated": account.now} | fields


def _changed_subscription(account: Account, id: str, before: Object, fields: Object) -> Object:
    if "items" not in fields:
        return fields
    payer = payer_of(account, before["customer"], before["currency"])
    items = draft_items(
        account,
        id,
        payer,
        fields["items"],
        account.now,
        _children_by_id(account, "subscriptions", id),
    )
    return fields | {"items": subscriptions.embedded_list(subscriptions.items_url(id), items)}


def _changed_invoice(account: Account, id: str, before: Object, fields: Object) -> Object:
    found = dict(fields)
    if "lines" in fields:
        payer = payer_of(account, before["customer"], before["currency"])
        lines = draft_lines(
            account,
            id,
            payer,
            fields["lines"],
            account.now,
            None,
            _children_by_id(account, "invoices", id),
        )
        found |= {
            "lines": subscriptions.embedded_list(subscriptions.lines_url(id), lines)
        } | invoices.totals(lines)
    status = str(fields.get("status", before["status"]))
    if status != before["status"]:
        found = _status_changes(account, before, status) | found
    if "lines" in fields or "status" in fields:
        found = invoices.with_amounts_due(before | found) | {
            name: fields[name] for name in fields if name != "lines"
        }
    return found


def _status_changes(account: Account, before: Object, status: str) -> Object:
    """The fields that a new status brings; number, links and dates that are there stay."""
    fresh = invoices.status_fields(account.rng, before["id"], status, account.now - 3700)
    kept = {name: before[name] for name in KEPT_FIELDS if before[name]}
    dates = {name: at for name, at in before["status_transitions"].items() if at}
    transitions = fresh["status_transitions"] | dates
    return fresh | kept | {"status_transitions": transitions, "webhooks_delivered_at": account.now}


KEPT_FIELDS = ("number", "hosted_invoice_url", "invoice_pdf", "effective_at")
FIELD_RULES = {
    "products": _changed_product,
    "subscriptions": _changed_subscription,
    "invoices": _changed_invoice,
}


def _children_by_id(account: Account, table: str, id: str) -> dict[str, Object]:
    children = [decode(raw) for raw in account.children(table, account.tables[table].rows[id])]
    return {child["id"]: child for child in children}


def delete(account: Account, table: str, id: str) -> Object:
    """Delete what Stripe lets go: customers, drafts, products without prices, prices with their
    plans.
    """
    before = read_object(account, table, id)
    if table == "subscriptions":
        return cancel(account, id)
    if table == "invoices" and before["status"] != "draft":
        raise ValueError(f"{id} is {before['status']}: only drafts can be deleted")
    if table == "products" and has_prices(account, id):
        raise ValueError(f"{id} has prices: only products without prices can be deleted")
    if table == "customers":
        for subscription in _running_subscriptions(account, id):
            cancel(account, subscription)
    if table in ("prices", "plans"):
        _delete_price(account, id)
    else:
        account.remove(table, id)
        record(account, "deleted", table, before, None)
    return before


def has_prices(account: Account, product: str) -> bool:
    return any(map(has_text("product", product), account.tables["prices"].rows.values()))


def _delete_price(account: Account, id: str) -> None:
    before = price_and_plan(account, id)
    for table in before:
        account.remove(table, id)
    account.inline_prices.discard(id)
    record_price(account, "deleted", id, before)


def _running_subscriptions(account: Account, customer: str) -> list[str]:
    rows = account.tables["subscriptions"].rows.values()
    running = (row for row in rows if row.group not in subscriptions.ENDED)
    return [row.id for row in filter(has_text("customer", customer), running)]


def cancel(account: Account, id: str) -> Object:
    """End a subscription now. It stays, as canceled."""
    before = read_object(account, "subscriptions", id)
    details = before["cancellation_details"] | {"reason": "cancellation_requested"}
    now = account.now
    after = before | {
        "status": "canceled",
        "canceled_at": now,
        "ended_at": now,
        "cancellation_details": details,
    }
    account.store("subscriptions", after)
    record(account, "canceled", "subscriptions", before, after)
    return after


def put(account: Account, table: str, given: Object | bytes) -> Object:
    """Plant an object as it is: bytes stay the same bytes."""
    check_table(table)
    raw = given.strip() if isinstance(given, bytes) else msgspec.json.encode(given)
    found = decode(raw)
    there = account.tables[table].rows.get(found["id"])
    before = there.content() if there else None
    account.all_children.pop(found["id"], None)
    account.store(table, found, raw)
    record(account, "updated" if before else "created", table, before, found)
    _put_other_side(account, table, found)
    return found


def _put_other_side(account: Account, table: str, found: Object) -> None:
    """A planted price is a plan as well, and the reverse, unless that one is there."""
    id, tables = found["id"], account.tables
    other = {"prices": "plans", "plans": "prices"}.get(table, "")
    if not other or id in tables[other].rows or (table == "prices" and not found.get("recurring")):
        return
    if table == "prices":
        account.store("plans", catalog.plan_of(found))
    else:
        drawn = catalog.price(account.rng, found["product"], found["created"], found["currency"])
        account.store("prices", drawn | catalog.price_fields(found) | {"object": "price"})
    record(account, "created", other, None, read_object(account, other, id))
