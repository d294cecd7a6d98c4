"""Activity that is hard to replicate: several changes within a second, changes that are undone, and
objects that are deleted and created again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..samples.customers import discount
from ..samples.subscriptions import ENDED
from ..samples.values import Object, decode
from ..state import mutations
from ..state.account import Account
from ..state.table import Row

Action = tuple[str, str, str]
"""What was done, the table, and the object's id."""

RowTest = Callable[[Row], bool]
EDITED = ("customers", "customers", "subscriptions", "invoices", "products", "prices")
"""The tables of objects that get edited; customers twice as often."""


def random_object(account: Account, table: str, matches: RowTest = lambda row: True) -> Row | None:
    """A random object that matches; None if 25 draws find none."""
    rows = account.tables[table]
    candidates: Iterable[Row | None] = (rows.random_row(account.rng) for _ in range(25))
    return next((row for row in candidates if row and matches(row)), None)


def update_in_steps(account: Account, table: str, id: str, *steps: Object) -> Action:
    for fields in steps:
        mutations.update(account, table, id, fields)
    return "updated", table, id


def edit_repeatedly(account: Account) -> Action | None:
    """Change one object several times within a second."""
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
    """Change a boolean, and half of the time change it back within the same second."""
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
    value = row.content()[field]
    steps: tuple[Object, ...] = ({field: not value}, {field: value})
    return update_in_steps(account, table, row.id, *steps[: 2 if account.rng.chance(0.5) else 1])


def edit_metadata(account: Account) -> Action | None:
    """Add, change or remove one key of the metadata."""
    rng, table = account.rng, account.rng.pick(EDITED)
    row = random_object(account, table)
    if row is None:
        return None
    metadata: dict[str, str] = row.content().get("metadata") or {}
    name = (
        rng.pick(list(metadata)) if metadata and rng.chance(0.6) else f"tag_{int(rng.random() * 5)}"
    )
    rest = {key: value for key, value in metadata.items() if key != name}
    after = rest if name in metadata and rng.chance(0.5) else metadata | {name: rng.word(4)}
    return update_in_steps(account, table, row.id, {"metadata": after})


def resize_items(account: Account) -> Action | None:
    """Give a subscription more items than it shows, change one of those, or remove them again."""
    row = random_object(account, "subscriptions", lambda row: row.group not in ENDED)
    if row is None:
        return None
    items: list[Object] = [
        {"id": decode(raw)["id"]} for raw in account.children("subscriptions", row)
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
    """Give a draft invoice more lines than it shows, or remove them again."""
    row = random_object(account, "invoices", lambda row: b'"status":"draft"' in row.raw)
    if row is None:
        return None
    lines: list[Object] = [{"id": decode(raw)["id"]} for raw in account.children("invoices", row)]
    drawn = account.rng.random()
    new_lines: list[Object] = [{} for _ in range(11 - len(lines) + int(drawn * 4))]
    return update_in_steps(
        account,
        "invoices",
        row.id,
        {"lines": lines + new_lines if len(lines) <= 10 else lines[: int(drawn * 4)]},
    )


def archive_or_restore_price(account: Account) -> Action | None:
    """Archive or restore a price, through either of its endpoints."""
    table = account.rng.pick(("plans", "prices"))
    row = random_object(account, table, lambda row: row.group != "inline")
    return (
        update_in_steps(account, table, row.id, {"active": row.group != "active"}) if row else None
    )


def recreate_product(account: Account) -> Action:
    """Delete a product, and create it again with the same id, now or later."""
    rng, deleted = account.rng, list(account.deleted["products"])
    if deleted and rng.chance(0.5):
        return (
            "created",
            "products",
            mutations.create(account, "products", {"id": rng.pick(deleted)})["id"],
        )
    row = account.tables["products"].random_row(rng)
    deletable = row is not None and not mutations.has_prices(account, row.id)
    id = (
        row.id
        if row and deletable
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
    """Add, replace or remove a customer's discount."""
    row = random_object(account, "customers")
    if row is None:
        return None
    has_discount = row.content().get("discount")
    removed = has_discount and account.rng.chance(0.5)
    return update_in_steps(
        account,
        "customers",
        row.id,
        {"discount": None if removed else discount(account.rng, account.now, customer=row.id)},
    )


def change_subscription_discounts(account: Account) -> Action | None:
    """Add a discount to a subscription, which may have several, or remove the first."""
    row = random_object(account, "subscriptions", lambda row: row.group not in ENDED)
    if row is None:
        return None
    discounts: list[str] = row.content()["discounts"]
    changed = (
        discounts[1:]
        if discounts and account.rng.chance(0.5)
        else [*discounts, account.rng.id("di")]
    )
    return update_in_steps(account, "subscriptions", row.id, {"discounts": changed})


TRICKY_ACTIONS: tuple[tuple[int, Callable[[Account], Action | None]], ...] = (
    (3, edit_repeatedly),
    (4, flip_flag),
    (5, edit_metadata),
    (3, resize_items),
    (2, resize_lines),
    (2, archive_or_restore_price),
    (2, recreate_product),
    (1, delete_archived_plan),
    (2, change_customer_discount),
    (2, change_subscription_discounts),
)
"""Weight and action, on the scale of `activity.ACTIONS`."""
