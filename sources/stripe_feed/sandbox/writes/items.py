"""The items of a subscription. Parameters add to them; only `deleted` removes one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..protocol.errors import Refusal, missing
from ..protocol.parameters import Params
from ..samples.values import Object, decode
from ..world import World
from . import billing
from .invoice_items import Proration
from .records import to_fields

NAMED = ("price", "plan", "price_data")
OWN = ("billing_thresholds", "current_trial", "metadata", "quantity", "tax_rates", "discounts")
CADENCE = (
    "Currently, all prices on a subscription must have the same `recurring.interval` and `recurring.interval_count`. "
    "If you need to support multiple billing frequencies, please use multiple subscriptions."
)


class Planned(NamedTuple):
    """A future item: its previous state, its parameters, their name, and its price."""

    before: Object | None
    given: Params
    name: str
    price: Object

    @property
    def changes_price(self) -> bool:
        return self.before is None or self.price.get("id") != self.before["price"]["id"]

    @property
    def quantity(self) -> int | None:
        """The quantity. A changed price resets it to one unless it is given."""
        if self.price["recurring"]["usage_type"] == "metered":
            return None
        if "quantity" in self.given:
            return int(self.given["quantity"])
        return 1 if self.before is None or self.changes_price else self.before["quantity"]


def read_items(account: World, subscription: str) -> list[Object]:
    """Return all items of a subscription in order."""
    row = account.tables["subscriptions"].rows[subscription]
    return [decode(raw) for raw in account.children("subscriptions", row)]


def plan_items(
    account: World, before: list[Object], given: list[Params], name: str = "items"
) -> list[Planned]:
    """Check the parameters and return the future items without changing anything."""
    by_id = {item["id"]: item for item in before}
    named = {
        entry["id"]: (entry, f"{name}[{place}]")
        for place, entry in enumerate(given)
        if entry.get("id")
    }
    if unknown := [id for id in named if id not in by_id]:
        raise missing("subscription_item", unknown[0], f"{named[unknown[0]][1]}[id]", 400)
    found = [
        _planned(account, item, *named.get(id, ({}, "")))
        for id, item in by_id.items()
        if not named.get(id, ({}, ""))[0].get("deleted")
    ]
    for place, entry in enumerate(given):
        if not entry.get("id"):
            found.append(_planned(account, None, entry, f"{name}[{place}]"))
    if given or not found:
        _check(found)
    return found


def _planned(account: World, before: Object | None, given: Params, name: str) -> Planned:
    if before is None or any(given.get(kind) is not None for kind in NAMED):
        price = billing.sold_price(account, given, name)
    else:
        price = before["price"]
    if "quantity" in given and price["recurring"]["usage_type"] == "metered":
        raise Refusal(
            400, "You cannot set the quantity of a metered price.", param=f"{name}[quantity]"
        )
    return Planned(before, given, name, price)


def _check(items: list[Planned]) -> None:
    if not items:
        raise Refusal(
            400,
            "A subscription must have at least one active price. To cancel a subscription, use the cancel endpoint.",
            param="items",
        )
    if len(items) > 20:
        raise Refusal(400, "A subscription can have up to 20 items.", param="items")
    ids = [item.price["id"] for item in items if "id" in item.price]
    if twice := [id for id in ids if ids.count(id) > 1]:
        raise Refusal(
            400,
            f"Cannot add multiple subscription items with the same plan: {twice[0]}",
            param="items",
        )
    if len({item.price["currency"] for item in items}) > 1:
        raise Refusal(
            400, "All prices on a subscription must have the same currency.", param="items"
        )
    cycles = {
        (item.price["recurring"]["interval"], item.price["recurring"]["interval_count"])
        for item in items
    }
    if len(cycles) > 1:
        raise Refusal(400, CADENCE, param="items")


def build_items(
    account: World, subscription: str, items: list[Planned], start: int, end: int
) -> list[Object]:
    """Build the items. Inline prices are created."""
    return [_built(account, subscription, item, start, end) for item in items]


def _built(account: World, subscription: str, item: Planned, start: int, end: int) -> Object:
    before = item.before or _empty(account, subscription)
    own = {name: item.given[name] for name in OWN if name in item.given}
    fields = to_fields(before, own, {"discounts": [], "tax_rates": []})
    if "tax_rates" in own:
        fields["tax_rates"] = billing.tax_rates(account, own["tax_rates"])
    if "discounts" in own:
        holder = {"subscription": subscription, "subscription_item": before["id"]}
        fields["discounts"] = billing.discounts(
            account, own["discounts"], before["discounts"], **holder
        )
    if item.changes_price:
        ref = account.price_ref(billing.price_id(account, item.price))
        fields |= {"price": ref.price, "plan": ref.plan}
    period = {"current_period_start": start, "current_period_end": end}
    return before | fields | {"quantity": item.quantity} | period


def _empty(account: World, subscription: str) -> Object:
    return {
        "id": account.rng.id("si"),
        "object": "subscription_item",
        "billed_until": None,
        "billing_thresholds": None,
        "created": account.now,
        "current_period_end": 0,
        "current_period_start": 0,
        "current_trial": None,
        "discounts": [],
        "metadata": {},
        "plan": None,
        "price": None,
        "quantity": 1,
        "subscription": subscription,
        "tax_rates": [],
    }


def prorations(
    before: list[Object], after: list[Planned], start: int, end: int, at: int
) -> Iterator[Proration]:
    """Yield the credits and debits of a change within a period."""
    share = max(0.0, (end - at) / (end - start)) if end > start else 0.0
    kept = {item.before["id"]: item for item in after if item.before is not None}
    for item in before:
        now = kept.get(item["id"])
        if now is None or now.changes_price or now.quantity != item["quantity"]:
            whole = billing.amount_of(item["price"], item["quantity"])
            yield Proration(item["id"], item["price"], item["quantity"], -round(whole * share))
    for planned_item in after:
        old = planned_item.before
        if old and not planned_item.changes_price and planned_item.quantity == old["quantity"]:
            continue
        whole = billing.amount_of(planned_item.price, planned_item.quantity)
        yield Proration(
            old["id"] if old else "",
            planned_item.price,
            planned_item.quantity,
            round(whole * share),
        )
