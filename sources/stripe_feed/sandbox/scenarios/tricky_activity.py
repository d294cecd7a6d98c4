"""Things that happen to accounts and are hard to follow: there and back, twice in a second, away
and back again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..samples.customers import discount
from ..samples.subscriptions import ENDED
from ..samples.values import Object, decoded
from ..state import mutations
from ..state.account import Account
from ..state.table import Row

Action = tuple[str, str, str]
"""What was done, to which resource, and to which of its objects."""

RowTest = Callable[[Row], bool]
EDITED = ("customers", "customers", "subscriptions", "invoices", "products", "prices")


def random_object(account: Account, table: str, fits: RowTest = lambda row: True) -> Row | None:
    """An object by chance that fits; a few are looked at."""
    rows = account.tables[table]
    drawn: Iterable[Row | None] = (rows.random_row(account.rng) for _ in range(25))
    return next((row for row in drawn if row and fits(row)), None)


def update_in_steps(account: Account, table: str, id: str, *steps: Object) -> Action:
    for fields in steps:
        mutations.update(account, table, id, fields)
    return "updated", table, id


def edit_repeatedly(account: Account) -> Action | None:
    """Several changes of one object within a second."""
    rng, table = (
        account.rng,
        account.rng.pick(("customers", "customers", "subscriptions", "products")),
    )
    row = random_object(account, table)
    if row is None:
        return None
    words = [rng.word(5) for _ in range(2 + int(rng.random() * 4))]
    return update_in_steps(
        account, table, row.id, *({"description": f"Note {word}"} for word in words)
    )


def flip_flag(account: Account) -> Action | None:
    """There, and half of the time back in the same second."""
    table, field = account.rng.pick(
        (("customers", "delinquent"), ("products", "active"), ("prices", "active"))
    )
    row = random_object(
        account,
        table,
        lambda row: row.group != "inline" and isinstance(row.content().get(field), bool),
    )
    if row is None:
        return None
    was = row.content()[field]
    steps: tuple[Object, ...] = ({field: not was}, {field: was})
    return update_in_steps(account, table, row.id, *steps[: 2 if account.rng.chance(0.5) else 1])


def edit_metadata(account: Account) -> Action | None:
    """A key of the metadata comes, goes, or has another value."""
    rng, table = account.rng, account.rng.pick(EDITED)
    row = random_object(account, table)
    if row is None:
        return None
    held: dict[str, str] = row.content().get("metadata") or {}
    name = rng.pick(list(held)) if held and rng.chance(0.6) else f"tag_{int(rng.random() * 5)}"
    rest = {key: value for key, value in held.items() if key != name}
    after = rest if name in held and rng.chance(0.5) else held | {name: rng.word(4)}
    return update_in_steps(account, table, row.id, {"metadata": after})


def resize_items(account: Account) -> Action | None:
    """A subscription has more items than it shows, changes one of those, or has few again."""
    row = random_object(account, "subscriptions", lambda row: row.group not in ENDED)
    if row is None:
        return None
    items: list[Object] = [
        {"id": decoded(raw)["id"]} for raw in account.children("subscriptions", row)
    ]
    drawn = account.rng.random()
    if len(items) <= 10:
        items += [{} for _ in range(11 - len(items) + int(drawn * 4))]
    elif drawn < 0.4:
        items[-1] |= {"quantity": 2 + int(drawn * 90)}
    else:
        items = items[: 1 + int(drawn * 4)]
    return update_in_steps(account, "subscriptions", row.id, {"items": items})


def resize_lines(account: Account) -> Action | None:
    """The same with the lines of a draft."""
    row = random_object(account, "invoices", lambda row: b'"status":"draft"' in row.raw)
    if row is None:
        return None
    lines: list[Object] = [{"id": decoded(raw)["id"]} for raw in account.children("invoices", row)]
    drawn = account.rng.random()
    more: list[Object] = [{} for _ in range(11 - len(lines) + int(drawn * 4))]
    return update_in_steps(
        account,
        "invoices",
        row.id,
        {"lines": lines + more if len(lines) <= 10 else lines[: int(drawn * 4)]},
    )


def archive_or_restore_price(account: Account) -> Action | None:
    """A price is archived or comes back, through either of its endpoints."""
    table = account.rng.pick(("plans", "prices"))
    row = random_object(account, table, lambda row: row.group != "inline")
    return (
        update_in_steps(account, table, row.id, {"active": row.group != "active"}) if row else None
    )


def recreate_product(account: Account) -> Action:
    """A product is deleted and comes again under its id, at once or at some later time."""
    rng, gone = account.rng, list(account.deleted["products"])
    if gone and rng.chance(0.5):
        return (
            "created",
            "products",
            mutations.create(account, "products", {"id": rng.pick(gone)})["id"],
        )
    row = account.tables["products"].random_row(rng)
    free = row is not None and not mutations.has_prices(account, row.id)
    id = (
        row.id
        if row and free
        else mutations.create(account, "products", {"default_price": None})["id"]
    )
    mutations.delete(account, "products", id)
    if rng.chance(0.5):
        return "deleted", "products", id
    return "created", "products", mutations.create(account, "products", {"id": id})["id"]


def delete_archived_plan(account: Account) -> Action | None:
    row = random_object(account, "plans", lambda row: row.group == "archived")
    if row is None:
        return None
    mutations.delete(account, "plans", row.id)
    return "deleted", "plans", row.id


def change_customer_discount(account: Account) -> Action | None:
    """A customer gets, switches or loses a discount."""
    row = random_object(account, "customers")
    if row is None:
        return None
    held = row.content().get("discount")
    lost = held and account.rng.chance(0.5)
    return update_in_steps(
        account,
        "customers",
        row.id,
        {"discount": None if lost else discount(account.rng, account.now, customer=row.id)},
    )


def change_subscription_discounts(account: Account) -> Action | None:
    """The same for a subscription, which may have several."""
    row = random_object(account, "subscriptions", lambda row: row.group not in ENDED)
    if row is None:
        return None
    held: list[str] = row.content()["discounts"]
    after = held[1:] if held and account.rng.chance(0.5) else [*held, account.rng.id("di")]
    return update_in_steps(account, "subscriptions", row.id, {"discounts": after})


TRICKY_ACTIONS: tuple[tuple[int, Callable[[Account], Action | None]], ...] = (
    (3, edit_repeatedly), (4, flip_flag), (5, edit_metadata), (3, resize_items), (2, resize_lines), (2, archive_or_restore_price), (2, recreate_product), (1, delete_archived_plan),
    (2, change_customer_discount), (2, change_subscription_discounts),
)  # fmt: skip
"""How often each is done, by the measure of `life.DEEDS`."""
