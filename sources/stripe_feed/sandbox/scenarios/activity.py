"""Ordinary activity in the account: what customers and the account's owner do, drawn from the seed."""

from __future__ import annotations

from collections.abc import Callable

from ..samples.customers import LAST_NAMES
from ..samples.subscriptions import ENDED
from ..samples.values import Object, decode
from ..state import mutations
from ..state.table import Row
from ..world import World
from . import plain_activity
from .tricky_activity import EDITED, TRICKY_ACTIONS, Action, random_object


def live(account: World, seconds: int, count: int) -> list[Action]:
    """Take `count` actions at random times of the next `seconds`, and leave the clock at their end."""
    rng = account.rng
    times = sorted(int(rng.random() * seconds) for _ in range(count))
    actions: list[Action] = []
    elapsed = 0
    for time in times:
        account.advance(time - elapsed)
        elapsed = time
        actions.append(_one_action(account))
    account.advance(seconds - elapsed)
    return actions


def burst(account: World, count: int, seconds: int) -> list[Action]:
    """Edit `count` random objects within the next `seconds`. The clock stops in the second of the
    last edit.
    """
    rng = account.rng
    elapsed, actions = 0, []
    for time in sorted(int(rng.random() * seconds) for _ in range(count)):
        account.advance(time - elapsed)
        elapsed = time
        with account.event_log.action():
            actions.append(_edit_any(account))
    return actions


def _edit_any(account: World) -> Action:
    """Edit the metadata of a random object."""
    table = account.rng.pick(EDITED)
    row = random_object(account, table)
    if row is None:
        return _add_customer(account)
    metadata = (row.content().get("metadata") or {}) | {"touched": account.rng.word(6)}
    mutations.update(account, table, row.id, {"metadata": metadata})
    return "updated", table, row.id


def _one_action(account: World) -> Action:
    """Take one action with all its events in one request."""
    with account.event_log.action():
        return _weighted_action(account)


def _weighted_action(account: World) -> Action:
    """Take a random action. If it finds no object to act on, add a customer instead."""
    kinds = plain_activity.kinds_of(account.groups) if account.groups else []
    if kinds and account.rng.chance(0.5):
        return plain_activity.act(account, kinds) or _add_customer(account)
    drawn = account.rng.random() * sum(weight for weight, _ in ACTIONS)
    for weight, action in ACTIONS:
        drawn -= weight
        if drawn < 0:
            return action(account) or _add_customer(account)
    return _add_customer(account)


def _add_customer(account: World) -> Action:
    return "created", "customers", mutations.create(account, "customers", {})["id"]


def _edit_customer(account: World) -> Action | None:
    row = random_object(account, "customers")
    if row is None:
        return None
    rng = account.rng
    name = f"{rng.pick(LAST_NAMES)} {rng.word(5)}"
    phone, metadata = f"+44 20 {rng.word(6)}", {"moved": rng.word(4)}
    choices: tuple[Object, ...] = (
        {"name": name},
        {"phone": phone},
        {"metadata": metadata},
        {"delinquent": True},
    )
    fields = rng.pick(choices)
    mutations.update(account, "customers", row.id, fields)
    return "updated", "customers", row.id


def _delete_customer(account: World) -> Action | None:
    row = random_object(account, "customers")
    if row is None:
        return None
    mutations.delete(account, "customers", row.id)
    return "deleted", "customers", row.id


def _add_subscription(account: World) -> Action:
    rng = account.rng
    inline = [{"price_data": {"unit_amount": 1000 + int(rng.random() * 9000)}}]
    items = inline if rng.chance(0.15) else rng.pick((1, 1, 2))
    row = random_object(account, "customers")
    fields = {"items": items, "status": rng.pick(("active", "trialing", "incomplete"))}
    subscription = mutations.create(
        account, "subscriptions", fields | ({"customer": row.id} if row else {})
    )
    invoice = mutations.create(
        account, "invoices", {"subscription": subscription["id"], "status": "open"}
    )
    mutations.update(
        account, "subscriptions", subscription["id"], {"latest_invoice": invoice["id"]}
    )
    return "created", "subscriptions", subscription["id"]


def _edit_subscription(account: World) -> Action | None:
    row = random_object(account, "subscriptions", lambda row: row.group not in ENDED)
    if row is None:
        return None
    if account.rng.chance(0.5):
        status = account.rng.pick(("active", "past_due", "unpaid"))
        mutations.update(account, "subscriptions", row.id, {"status": status})
    else:
        mutations.update(account, "subscriptions", row.id, {"items": _edited_items(account, row)})
    return "updated", "subscriptions", row.id


def _edited_items(account: World, row: Row) -> list[Object]:
    """The items with another quantity, one more item, or one less."""
    items: list[Object] = [
        {"id": decode(raw)["id"]} for raw in account.children("subscriptions", row)
    ]
    drawn = account.rng.random()
    if drawn < 0.3 or not items:
        return [*items, {}]
    if drawn < 0.5 and len(items) > 1:
        return items[:-1]
    return [items[0] | {"quantity": 2 + int(drawn * 40)}, *items[1:]]


def _cancel_subscription(account: World) -> Action | None:
    row = random_object(account, "subscriptions", lambda row: row.group not in ENDED)
    if row is None:
        return None
    mutations.cancel(account, row.id)
    return "canceled", "subscriptions", row.id


def _add_invoice(account: World) -> Action:
    rng = account.rng
    row = random_object(account, "customers")
    fields = {"lines": rng.pick((1, 2, 3, 12)), "status": rng.pick(("draft", "open"))}
    invoice = mutations.create(account, "invoices", fields | ({"customer": row.id} if row else {}))
    return "created", "invoices", invoice["id"]


def _advance_invoice(account: World) -> Action | None:
    row = random_object(
        account,
        "invoices",
        lambda row: b'"status":"open"' in row.raw or b'"status":"draft"' in row.raw,
    )
    if row is None:
        return None
    next_statuses = {"draft": ("open", "paid"), "open": ("paid", "paid", "uncollectible", "void")}
    status = account.rng.pick(next_statuses[row.content()["status"]])
    mutations.update(account, "invoices", row.id, {"status": status})
    return "updated", "invoices", row.id


def _delete_draft(account: World) -> Action | None:
    row = random_object(account, "invoices", lambda row: b'"status":"draft"' in row.raw)
    if row is None:
        return None
    mutations.delete(account, "invoices", row.id)
    return "deleted", "invoices", row.id


def _add_product(account: World) -> Action:
    return "created", "products", mutations.create(account, "products", {})["id"]


def _add_price(account: World) -> Action:
    fields = {
        "unit_amount": 100 * (1 + int(account.rng.random() * 90)),
        "recurring": {"interval": "month"},
    }
    return "created", "prices", mutations.create(account, "prices", fields)["id"]


def _rename_product(account: World) -> Action | None:
    row = random_object(account, "products")
    if row is None:
        return None
    mutations.update(account, "products", row.id, {"name": f"Renamed {account.rng.word(5)}"})
    return "updated", "products", row.id


def _archive_price(account: World) -> Action | None:
    row = random_object(account, "prices", lambda row: row.group == "active")
    if row is None:
        return None
    mutations.update(account, "prices", row.id, {"active": False})
    return "updated", "prices", row.id


ACTIONS: tuple[tuple[int, Callable[[World], Action | None]], ...] = (
    (16, _add_customer),
    (20, _edit_customer),
    (4, _delete_customer),
    (10, _add_subscription),
    (12, _edit_subscription),
    (6, _cancel_subscription),
    (10, _add_invoice),
    (14, _advance_invoice),
    (2, _delete_draft),
    (2, _add_product),
    (3, _add_price),
    (3, _rename_product),
    (2, _archive_price),
    *TRICKY_ACTIONS,
)
"""Weight and action; an action that finds no object to act on gives None."""
