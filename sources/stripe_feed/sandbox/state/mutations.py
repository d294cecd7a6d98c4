"""Create, update, delete, cancel or put the objects of an account."""

from __future__ import annotations

import msgspec

from ..samples import catalog, invoices, subscriptions
from ..samples.values import Object, decode
from .account import Account
from .builders import (
    consistent_amounts,
    create_price,
    draft,
    draft_children,
    draft_items,
    draft_lines,
    insert,
    payer_of,
    status_events,
)
from .kinds import EMBEDDED, KINDS, OWNED, Operation
from .mutation_log import check_table, price_and_plan, read_object, record, record_price
from .table import has_text


def create(account: Account, table: str, fields: Object) -> Object:
    """Create an object, by default now; fields that are not given are random."""
    check_table(table)
    id, fields = fields.get("id"), dict(fields)
    opt_in = {name: fields.pop(name) for name in KINDS[table].opt_in if name in fields}
    if id is not None and id in account.tables[table].rows:
        raise ValueError(f"{table} already has {id}")
    if table in ("prices", "plans"):
        return create_price(account, table, fields, opt_in)
    return insert(account, table, draft(account, table, fields), opt_in)


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
    if KINDS[table].immutable:
        raise ValueError(f"{table} never change")
    after = before | FIELD_RULES.get(table, _as_given)(account, id, before, fields)
    if KINDS[table].plain and table in EMBEDDED and EMBEDDED[table].field in fields:
        after |= _changed_children(account, table, before, fields)
    return replace(
        account, table, after, EMBEDDED[table].field in fields if table in EMBEDDED else False
    )


def replace(
    account: Account, table: str, after: Object, children: bool, more: tuple[str, ...] = ()
) -> Object:
    """Store the next state of an object and report the change. `children` says that it contains all
    of them, not just the first ten; `more` are ends of further event types.
    """
    id = after["id"]
    before, children_before = read_object(account, table, id), account.all_children.get(id)
    if children:
        account.all_children.pop(id, None)
    account.store(table, after)
    stored = read_object(account, table, id)
    cancels = "canceled" in KINDS[table].events and (
        stored.get("status") == "canceled" != before.get("status")
    )
    operation: Operation = "canceled" if cancels else "updated"
    of_status = status_events(KINDS[table], before.get("status"), stored.get("status"))
    hidden = account.all_children.get(id) != children_before
    changing = KINDS[table].changing
    instead = tuple(change.ending for change in changing if change.happened(before, stored))
    record(
        account,
        operation,
        table,
        before,
        stored,
        of_status + _payment_failed(table, before, stored) + more,
        hidden,
        instead,
    )
    return stored


def _payment_failed(table: str, before: Object, after: Object) -> tuple[str, ...]:
    """The event of a payment attempt that leaves its invoice open."""
    attempted = table == "invoices" and (after["attempt_count"] or 0) > (
        before["attempt_count"] or 0
    )
    return ("payment_failed",) if attempted and after["status"] == "open" else ()


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


def _changed_children(account: Account, table: str, before: Object, fields: Object) -> Object:
    """The whole new list that a plain kind embeds."""
    embedded, id = EMBEDDED[table], before["id"]
    old = children_by_id(account, table, id)
    children = draft_children(account, KINDS[table], before, fields[embedded.field], old)
    return {embedded.field: subscriptions.embedded_list(embedded.url(id), children)}


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
        children_by_id(account, "subscriptions", id),
    )
    return fields | {"items": subscriptions.embedded_list(subscriptions.items_url(id), items)}


def _changed_invoice(account: Account, id: str, before: Object, fields: Object) -> Object:
    changes = dict(fields)
    if "lines" in fields:
        payer = payer_of(account, before["customer"], before["currency"])
        lines = draft_lines(
            account,
            id,
            payer,
            fields["lines"],
            account.now,
            None,
            children_by_id(account, "invoices", id),
        )
        changes |= {
            "lines": subscriptions.embedded_list(subscriptions.lines_url(id), lines)
        } | invoices.totals(lines)
    status = str(fields.get("status", before["status"]))
    if status != before["status"]:
        changes = _status_changes(account, before, status) | changes
    if "lines" in fields or "status" in fields:
        changes = invoices.with_amounts_due(before | changes) | {
            name: fields[name] for name in fields if name != "lines"
        }
    return changes


def _status_changes(account: Account, before: Object, status: str) -> Object:
    """The fields that follow from a new status. Number, links and dates that exist stay."""
    new_fields = invoices.status_fields(account.rng, before["id"], status, account.now - 3700)
    kept = {name: before[name] for name in KEPT_FIELDS if before[name]}
    dates = {name: at for name, at in before["status_transitions"].items() if at}
    transitions = new_fields["status_transitions"] | dates
    return (
        new_fields
        | kept
        | {"status_transitions": transitions, "webhooks_delivered_at": account.now}
    )


KEPT_FIELDS = ("number", "hosted_invoice_url", "invoice_pdf", "effective_at")
FIELD_RULES = {
    "products": _changed_product,
    "subscriptions": _changed_subscription,
    "invoices": _changed_invoice,
}


def children_by_id(account: Account, table: str, id: str) -> dict[str, Object]:
    """All embedded objects of an object, by id."""
    children = [decode(raw) for raw in account.children(table, account.tables[table].rows[id])]
    return {child["id"]: child for child in children}


def delete(account: Account, table: str, id: str) -> Object:
    """Delete what Stripe lets be deleted: customers, draft invoices, products without prices; and
    prices with their plans.
    """
    before = read_object(account, table, id)
    if table == "subscriptions":
        return cancel(account, id)
    if KINDS[table].plain and not KINDS[table].deletable:
        raise ValueError(f"Stripe deletes no {table}")
    if table == "invoices" and before["status"] != "draft":
        raise ValueError(f"{id} is {before['status']}: only drafts can be deleted")
    if table == "products" and has_prices(account, id):
        raise ValueError(f"{id} has prices: only products without prices can be deleted")
    if table == "customers":
        for subscription in running_subscriptions(account, id):
            cancel(account, subscription)
    if table in ("prices", "plans"):
        _delete_price(account, id)
    else:
        account.remove(table, id)
        record(account, "deleted", table, before, None)
    _release_belongings(account, table, id)
    return before


def _release_belongings(account: Account, table: str, id: str) -> None:
    """What is listed only below a deleted object goes with it, without an event; what has a list of
    its own stays, without an owner.
    """
    for kind in OWNED.get(table, ()):
        owned = [row for row in account.tables[kind.name].rows.values() if row.group == id]
        for row in owned:
            if kind.under:
                update(account, kind.name, row.id, {kind.owner: None})
            elif ":id" in kind.path or kind.owner in kind.required:
                before = account.remove(kind.name, row.id)
                account.commit("deleted", kind.name, row.id, before, None, ())


def has_prices(account: Account, product: str) -> bool:
    return any(map(has_text("product", product), account.tables["prices"].rows.values()))


def _delete_price(account: Account, id: str) -> None:
    before = price_and_plan(account, id)
    for table in before:
        account.remove(table, id)
    account.inline_prices.discard(id)
    record_price(account, "deleted", id, before)


def running_subscriptions(account: Account, customer: str) -> list[str]:
    rows = account.tables["subscriptions"].rows.values()
    running = (row for row in rows if row.group not in subscriptions.ENDED)
    return [row.id for row in filter(has_text("customer", customer), running)]


def cancel(account: Account, id: str) -> Object:
    """Cancel a subscription now. It still exists, with the status `canceled`."""
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


def put(account: Account, table: str, content_or_bytes: Object | bytes) -> Object:
    """Store an object as it is; given bytes are kept unchanged."""
    check_table(table)
    raw = (
        content_or_bytes.strip()
        if isinstance(content_or_bytes, bytes)
        else msgspec.json.encode(content_or_bytes)
    )
    content = decode(raw)
    row = account.tables[table].rows.get(content["id"])
    before = row.content() if row else None
    account.all_children.pop(content["id"], None)
    account.store(table, content, raw)
    record(account, "updated" if before else "created", table, before, content)
    _put_other_side(account, table, content)
    return content


def _put_other_side(account: Account, table: str, content: Object) -> None:
    """Store the plan of a price, or the price of a plan, unless it exists."""
    id, tables = content["id"], account.tables
    other = {"prices": "plans", "plans": "prices"}.get(table, "")
    if (
        not other
        or id in tables[other].rows
        or (table == "prices" and not content.get("recurring"))
    ):
        return
    if table == "prices":
        account.store("plans", catalog.plan_of(content))
    else:
        drawn = catalog.price(
            account.rng, content["product"], content["created"], content["currency"]
        )
        account.store("prices", drawn | catalog.price_fields(content) | {"object": "price"})
    record(account, "created", other, None, read_object(account, other, id))
