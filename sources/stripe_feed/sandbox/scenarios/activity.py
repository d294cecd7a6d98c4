"""A stretch of the account's life: what customers and their owner do, drawn from the seed."""

from __future__ import annotations

from collections.abc import Callable

from ..samples.customers import LAST, Object, decoded
from ..samples.subscriptions import ENDED
from ..state import mutations
from ..state.table import Row
from ..world import World
from .tricky_activity import HABITS, TAGGED, Deed, one


def live(account: World, seconds: int, count: int) -> list[Deed]:
    """Do `count` things, spread over the next `seconds`; the clock stands at their end afterwards."""
    dice = account.dice
    moments = sorted(int(dice.random() * seconds) for _ in range(count))
    done: list[Deed] = []
    before = 0
    for moment in moments:
        account.advance(moment - before)
        before = moment
        done.append(_act(account))
    account.advance(seconds - before)
    return done


def burst(account: World, count: int, seconds: int) -> list[Deed]:
    """Update `count` objects, spread over `seconds` whole ones; the clock stops in the last of them
    that has a change.
    """
    dice = account.dice
    before, done = 0, []
    for moment in sorted(int(dice.random() * seconds) for _ in range(count)):
        account.advance(moment - before)
        before = moment
        with account.history.action():
            done.append(_touch(account))
    return done


def _touch(account: World) -> Deed:
    """A quick change of any object."""
    table = account.dice.pick(TAGGED)
    row = one(account, table)
    if row is None:
        return _join(account)
    metadata = (row.content().get("metadata") or {}) | {"touched": account.dice.word(6)}
    mutations.update(account, table, row.id, {"metadata": metadata})
    return "updated", table, row.id


def _act(account: World) -> Deed:
    """One thing; where there is nothing to do it to, a customer comes instead."""
    with account.history.action():
        return _drawn(account)


def _drawn(account: World) -> Deed:
    drawn = account.dice.random() * sum(weight for weight, _ in DEEDS)
    for weight, deed in DEEDS:
        drawn -= weight
        if drawn < 0:
            return deed(account) or _join(account)
    return _join(account)


def _join(account: World) -> Deed:
    return "created", "customers", mutations.create(account, "customers", {})["id"]


def _move(account: World) -> Deed | None:
    row = one(account, "customers")
    if row is None:
        return None
    dice = account.dice
    name = f"{dice.pick(LAST)} {dice.word(5)}"
    phone, metadata = f"+44 20 {dice.word(6)}", {"moved": dice.word(4)}
    choices: tuple[Object, ...] = (
        {"name": name},
        {"phone": phone},
        {"metadata": metadata},
        {"delinquent": True},
    )
    fields = dice.pick(choices)
    mutations.update(account, "customers", row.id, fields)
    return "updated", "customers", row.id


def _leave(account: World) -> Deed | None:
    row = one(account, "customers")
    if row is None:
        return None
    mutations.delete(account, "customers", row.id)
    return "deleted", "customers", row.id


def _subscribe(account: World) -> Deed:
    dice = account.dice
    inline = [{"price_data": {"unit_amount": 1000 + int(dice.random() * 9000)}}]
    items = inline if dice.chance(0.15) else dice.pick((1, 1, 2))
    row = one(account, "customers")
    fields = {"items": items, "status": dice.pick(("active", "trialing", "incomplete"))}
    made = mutations.create(
        account, "subscriptions", fields | ({"customer": row.id} if row else {})
    )
    bill = mutations.create(account, "invoices", {"subscription": made["id"], "status": "open"})
    mutations.update(account, "subscriptions", made["id"], {"latest_invoice": bill["id"]})
    return "created", "subscriptions", made["id"]


def _change_subscription(account: World) -> Deed | None:
    row = one(account, "subscriptions", lambda row: row.group not in ENDED)
    if row is None:
        return None
    if account.dice.chance(0.5):
        status = account.dice.pick(("active", "past_due", "unpaid"))
        mutations.update(account, "subscriptions", row.id, {"status": status})
    else:
        mutations.update(account, "subscriptions", row.id, {"items": _other_items(account, row)})
    return "updated", "subscriptions", row.id


def _other_items(account: World, row: Row) -> list[Object]:
    """Another quantity, one more, or one less."""
    items: list[Object] = [
        {"id": decoded(raw)["id"]} for raw in account.children("subscriptions", row)
    ]
    drawn = account.dice.random()
    if drawn < 0.3 or not items:
        return [*items, {}]
    if drawn < 0.5 and len(items) > 1:
        return items[:-1]
    return [items[0] | {"quantity": 2 + int(drawn * 40)}, *items[1:]]


def _cancel(account: World) -> Deed | None:
    row = one(account, "subscriptions", lambda row: row.group not in ENDED)
    if row is None:
        return None
    mutations.cancel(account, row.id)
    return "canceled", "subscriptions", row.id


def _bill(account: World) -> Deed:
    dice = account.dice
    row = one(account, "customers")
    fields = {"lines": dice.pick((1, 2, 3, 12)), "status": dice.pick(("draft", "open"))}
    made = mutations.create(account, "invoices", fields | ({"customer": row.id} if row else {}))
    return "created", "invoices", made["id"]


def _settle(account: World) -> Deed | None:
    row = one(
        account,
        "invoices",
        lambda row: b'"status":"open"' in row.raw or b'"status":"draft"' in row.raw,
    )
    if row is None:
        return None
    after = {"draft": ("open", "paid"), "open": ("paid", "paid", "uncollectible", "void")}
    status = account.dice.pick(after[row.content()["status"]])
    mutations.update(account, "invoices", row.id, {"status": status})
    return "updated", "invoices", row.id


def _throw_away(account: World) -> Deed | None:
    row = one(account, "invoices", lambda row: b'"status":"draft"' in row.raw)
    if row is None:
        return None
    mutations.delete(account, "invoices", row.id)
    return "deleted", "invoices", row.id


def _launch(account: World) -> Deed:
    return "created", "products", mutations.create(account, "products", {})["id"]


def _price(account: World) -> Deed:
    fields = {
        "unit_amount": 100 * (1 + int(account.dice.random() * 90)),
        "recurring": {"interval": "month"},
    }
    return "created", "prices", mutations.create(account, "prices", fields)["id"]


def _rename(account: World) -> Deed | None:
    row = one(account, "products")
    if row is None:
        return None
    mutations.update(account, "products", row.id, {"name": f"Renamed {account.dice.word(5)}"})
    return "updated", "products", row.id


def _archive(account: World) -> Deed | None:
    row = one(account, "prices", lambda row: row.group == "active")
    if row is None:
        return None
    mutations.update(account, "prices", row.id, {"active": False})
    return "updated", "prices", row.id


DEEDS: tuple[tuple[int, Callable[[World], Deed | None]], ...] = (
    (16, _join), (20, _move), (4, _leave), (10, _subscribe), (12, _change_subscription), (6, _cancel), (10, _bill),
    (14, _settle), (2, _throw_away), (2, _launch), (3, _price), (3, _rename), (2, _archive),
    *HABITS,
)  # fmt: skip
"""How often each is done, out of their sum."""
