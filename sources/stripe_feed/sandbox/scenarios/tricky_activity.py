"""Things that happen to accounts and are hard to follow: there and back, twice in a second, away
and back again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..samples.customers import Object, decoded, discount
from ..samples.subscriptions import ENDED
from ..state import mutations
from ..state.account import Account
from ..state.table import Row

Deed = tuple[str, str, str]
"""What was done, to which resource, and to which of its objects."""

Fits = Callable[[Row], bool]
TAGGED = ("customers", "customers", "subscriptions", "invoices", "products", "prices")


def one(account: Account, table: str, fits: Fits = lambda row: True) -> Row | None:
    """An object by chance that fits; a few are looked at."""
    rows = account.tables[table]
    drawn: Iterable[Row | None] = (rows.any(account.dice) for _ in range(25))
    return next((row for row in drawn if row and fits(row)), None)


def updated(account: Account, table: str, id: str, *steps: Object) -> Deed:
    for fields in steps:
        mutations.update(account, table, id, fields)
    return "updated", table, id


def flurry(account: Account) -> Deed | None:
    """Several changes of one object within a second."""
    dice, table = (
        account.dice,
        account.dice.pick(("customers", "customers", "subscriptions", "products")),
    )
    row = one(account, table)
    if row is None:
        return None
    words = [dice.word(5) for _ in range(2 + int(dice.random() * 4))]
    return updated(account, table, row.id, *({"description": f"Note {word}"} for word in words))


def toggle(account: Account) -> Deed | None:
    """There, and half of the time back in the same second."""
    table, field = account.dice.pick(
        (("customers", "delinquent"), ("products", "active"), ("prices", "active"))
    )
    row = one(
        account,
        table,
        lambda row: row.group != "inline" and isinstance(row.content().get(field), bool),
    )
    if row is None:
        return None
    was = row.content()[field]
    steps: tuple[Object, ...] = ({field: not was}, {field: was})
    return updated(account, table, row.id, *steps[: 2 if account.dice.chance(0.5) else 1])


def tag(account: Account) -> Deed | None:
    """A key of the metadata comes, goes, or has another value."""
    dice, table = account.dice, account.dice.pick(TAGGED)
    row = one(account, table)
    if row is None:
        return None
    held: dict[str, str] = row.content().get("metadata") or {}
    name = dice.pick(list(held)) if held and dice.chance(0.6) else f"tag_{int(dice.random() * 5)}"
    rest = {key: value for key, value in held.items() if key != name}
    after = rest if name in held and dice.chance(0.5) else held | {name: dice.word(4)}
    return updated(account, table, row.id, {"metadata": after})


def grow(account: Account) -> Deed | None:
    """A subscription has more items than it shows, changes one of those, or has few again."""
    row = one(account, "subscriptions", lambda row: row.group not in ENDED)
    if row is None:
        return None
    items: list[Object] = [
        {"id": decoded(raw)["id"]} for raw in account.children("subscriptions", row)
    ]
    drawn = account.dice.random()
    if len(items) <= 10:
        items += [{} for _ in range(11 - len(items) + int(drawn * 4))]
    elif drawn < 0.4:
        items[-1] |= {"quantity": 2 + int(drawn * 90)}
    else:
        items = items[: 1 + int(drawn * 4)]
    return updated(account, "subscriptions", row.id, {"items": items})


def lengthen(account: Account) -> Deed | None:
    """The same with the lines of a draft."""
    row = one(account, "invoices", lambda row: b'"status":"draft"' in row.raw)
    if row is None:
        return None
    lines: list[Object] = [{"id": decoded(raw)["id"]} for raw in account.children("invoices", row)]
    drawn = account.dice.random()
    more: list[Object] = [{} for _ in range(11 - len(lines) + int(drawn * 4))]
    return updated(
        account,
        "invoices",
        row.id,
        {"lines": lines + more if len(lines) <= 10 else lines[: int(drawn * 4)]},
    )


def shelve(account: Account) -> Deed | None:
    """A price is archived or comes back, through either of its endpoints."""
    table = account.dice.pick(("plans", "prices"))
    row = one(account, table, lambda row: row.group != "inline")
    return updated(account, table, row.id, {"active": row.group != "active"}) if row else None


def relaunch(account: Account) -> Deed:
    """A product is deleted and comes again under its id, at once or at some later time."""
    dice, gone = account.dice, list(account.gone["products"])
    if gone and dice.chance(0.5):
        return (
            "created",
            "products",
            mutations.create(account, "products", {"id": dice.pick(gone)})["id"],
        )
    row = account.tables["products"].any(dice)
    free = row is not None and not mutations.priced(account, row.id)
    id = (
        row.id
        if row and free
        else mutations.create(account, "products", {"default_price": None})["id"]
    )
    mutations.delete(account, "products", id)
    if dice.chance(0.5):
        return "deleted", "products", id
    return "created", "products", mutations.create(account, "products", {"id": id})["id"]


def drop_plan(account: Account) -> Deed | None:
    row = one(account, "plans", lambda row: row.group == "archived")
    if row is None:
        return None
    mutations.delete(account, "plans", row.id)
    return "deleted", "plans", row.id


def grant(account: Account) -> Deed | None:
    """A customer gets, switches or loses a discount."""
    row = one(account, "customers")
    if row is None:
        return None
    held = row.content().get("discount")
    lost = held and account.dice.chance(0.5)
    return updated(
        account,
        "customers",
        row.id,
        {"discount": None if lost else discount(account.dice, account.now, customer=row.id)},
    )


def rebate(account: Account) -> Deed | None:
    """The same for a subscription, which may have several."""
    row = one(account, "subscriptions", lambda row: row.group not in ENDED)
    if row is None:
        return None
    held: list[str] = row.content()["discounts"]
    after = held[1:] if held and account.dice.chance(0.5) else [*held, account.dice.id("di")]
    return updated(account, "subscriptions", row.id, {"discounts": after})


HABITS: tuple[tuple[int, Callable[[Account], Deed | None]], ...] = (
    (3, flurry), (4, toggle), (5, tag), (3, grow), (2, lengthen), (2, shelve), (2, relaunch), (1, drop_plan),
    (2, grant), (2, rebate),
)  # fmt: skip
"""How often each is done, by the measure of `life.DEEDS`."""
