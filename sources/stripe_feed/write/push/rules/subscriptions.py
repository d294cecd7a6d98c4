"""Subscriptions: their items are compared one by one, because Stripe adds the items that it is sent to
those that are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ....api.forms import path_to
from ....errors import InvalidParameter, RequestRefused
from ...lookup.find import Lookup, Object, decode
from ...parameters import Params
from ...unchanged import changed, equal
from ..decision import FieldChange, Update, field_changes
from ..definition import Definition
from ..log import LoggedRow, PushStep
from ..mapping import Wanted, keep_entries, update_params

ENDED = ("canceled", "incomplete_expired")
ITEMS_PATH = "/v1/subscription_items"
PREVIEW_PATH = "/v1/invoices/create_preview"
BEHAVIOR = ("proration_behavior", "payment_behavior", "off_session", "proration_date")
"""Parameters that say how a change is made; no subscription shows them."""
BILLS = "A new subscription bills its customer at once, or after its trial."

Item = Mapping[str, Any]


def update_subscription(
    lookup: Lookup, push: Definition, wanted: Wanted, held: Object, logged: LoggedRow | None
) -> Update:
    """Send what differs, of the items too. Raises `InvalidParameter` for one that has ended."""
    if held["status"] in ENDED:
        raise InvalidParameter(f"The subscription {held['id']} has ended and cannot be changed.")
    params = update_params(push, wanted, held)
    items = params.pop("items", None)
    before = read_items(lookup, held) if items is not None else []
    shown = [*field_changes(held, {k: v for k, v in params.items() if k not in BEHAVIOR})]
    if items is not None and (difference := diff_items(items, before)):
        swapped = any("id" in item and "price" in item for item in difference)
        deleted = any("deleted" in item for item in difference)
        if swapped or deleted:
            keep_entries(push, wanted, "items", len(items), deleted)
        params["items"] = difference
        shown += _item_changes(difference, before)
    if not params.keys() - {*BEHAVIOR}:
        return (), (), ()
    params.setdefault("proration_behavior", push.proration_behavior)
    path = path_to(push.row.verbs["update"].path, held["id"])
    return (PushStep("update", "post", path, params),), shown, ()


def read_items(lookup: Lookup, held: Object) -> list[Object]:
    """All items of a subscription; the object has the first ten."""
    embedded = held["items"]
    if not embedded.get("has_more"):
        return list(embedded["data"])
    params = {"subscription": held["id"], "limit": 100}  # it has 20 at most
    page = lookup.api.get(ITEMS_PATH, params, decode, is_action=True).value
    return list(page["data"])


def diff_items(wanted: Iterable[Item], held: Iterable[Item]) -> list[Params]:
    """What makes the items what they should be: changed, swapped, added and deleted ones."""
    left = {str(item["id"]): item for item in held}
    wanted = [item for item in wanted if not item.get("deleted") or item.get("id") in left]
    named = _named(wanted, left)
    pairs: list[tuple[Item, Item | None]] = []
    for item in wanted:
        same = item.get("id") or next(
            (id for id, one in left.items() if id not in named and _is_same(item, one)), None
        )
        pairs.append((item, left.pop(same) if same else None))
    difference: list[Params] = []
    for item, before in pairs:
        if before is None and left:  # another price takes the place of an item that is not wanted
            before = left.pop(next(iter(left)))
            quantity = {"quantity": before["quantity"]} if before.get("quantity") else {}
            difference.append({"id": before["id"], **quantity, **item})
        elif before is None:
            difference.append(dict(item))
        elif rest := {k: v for k, v in item.items() if k != "id" and not equal(k, before.get(k), v)}:  # fmt: skip
            if "price" in rest and before.get("quantity"):  # Stripe makes it 1 for another price
                rest = {"quantity": item.get("quantity", before["quantity"]), **rest}
            difference.append({"id": before["id"], **rest})
    return difference + [{"id": id, "deleted": True} for id in left]


def _named(wanted: Iterable[Item], held: Mapping[str, Item]) -> set[str]:
    """The ids that items are given with. Raises `InvalidParameter` for an item that has neither an id
    of the subscription's items nor a price.
    """
    named: set[str] = set()
    for item in wanted:
        if "id" not in item and "price" not in item:
            raise InvalidParameter(
                "Each of the items names its price; what price_data describes cannot be compared.",
                "items",
            )
        if "id" in item and (item["id"] not in held or item["id"] in named):
            raise InvalidParameter(
                "An id of the items is no item of this subscription, or is given twice.", "items"
            )
        named |= {item["id"]} if "id" in item else set()
    return named


def _is_same(wanted: Item, held: Item) -> bool:
    return bool(wanted["price"] == held["price"]["id"])


def _item_changes(difference: Iterable[Params], held: Iterable[Item]) -> list[FieldChange]:
    by_id = {item["id"]: item for item in held}
    found = []
    for item in difference:
        before = by_id.get(item.get("id"))
        old = None if before is None else {"price": before["price"]["id"], "quantity": before.get("quantity")}  # fmt: skip
        new = None if item.get("deleted") else {**(old or {}), **{k: v for k, v in item.items() if k != "id"}}  # fmt: skip
        found.append(FieldChange(f"items.{item.get('id', '(new)')}", old, new))
    return found


def is_in_effect(lookup: Lookup, params: Params, held: Object) -> bool:
    """Whether a subscription shows that an update was carried out."""
    plain = {name: value for name, value in params.items() if name not in (*BEHAVIOR, "items")}
    items = read_items(lookup, held) if "items" in params else []
    by_id = {item["id"]: item for item in items}
    prices = {item["price"]["id"] for item in by_id.values()}
    for item in params.get("items", ()):
        before = by_id.get(item.get("id"))
        if item.get("deleted") in (True, "true"):
            done = before is None
        elif "id" not in item:
            done = item["price"] in prices
        else:
            done = before is not None and item.get("price") in (None, before["price"]["id"])
            done = done and item.get("quantity") in (None, before.get("quantity") if before else 0)
        if not done:
            return False
    return not changed(plain, held)


def preview_invoice(lookup: Lookup, step: PushStep, held_id: str) -> str:
    """What the next invoice would be after an update; empty if Stripe does not say."""
    if "items" not in step.params:
        return ""
    details = {
        "items": step.params["items"],
        "proration_behavior": step.params["proration_behavior"],
    }
    form = {"subscription": held_id, "subscription_details": details}
    try:
        found = lookup.api.post(PREVIEW_PATH, form, decode).value
    except RequestRefused:
        return ""
    return f"The next invoice would be {found['total']} {found['currency']} (smallest unit)."
