"""What becomes of an object whose row is gone."""

from __future__ import annotations

from collections.abc import Callable

from ....api.forms import path_to
from ....resources.writable import WRITABLE
from ...consequences import consequences
from ...lookup.find import Lookup, Object, Pages
from ..decision import OPEN, Action, Decision, get
from ..definition import Definition
from ..log import LoggedRow, PushStep
from .invoices import DRAFT, is_free
from .prices import succession
from .subscriptions import ENDED

HAS_PRICES = "Stripe does not delete a product that has prices: it is deactivated instead."

Way = tuple[str, str]
"""What is done, and why it is not what was asked for."""


def decide_removal(lookup: Lookup, push: Definition, logged: LoggedRow, explain: bool) -> Decision:
    """What is to be done to the object of a row that is gone. `explain`: look up what goes with it."""
    key, object_id = logged.row_key, logged.object_id
    if logged.state == "open" or object_id is None:
        return Decision(key, "settle", object_id, reason=OPEN)
    held = get(lookup, push.row, object_id)
    if held is None:
        return Decision(key, "drop", object_id, reason="It was gone already.")
    way, reason = WAYS.get(push.object, _as_asked)(lookup, push, held)
    # prices whose place it took, if a run died before it archived them
    replaced = list(logged.replaced) if push.object == "prices" else []
    before = succession(lookup, held.get("product"), object_id, replaced)
    if way == "nothing":
        action: Action = "delete" if before else "drop"
        return Decision(key, action, object_id, tuple(before), reason=reason)
    notes = [reason] if reason else []
    if explain and (note := consequences(lookup, push.row, way, object_id)):
        notes.append(note)
    step = _step(push, way, object_id)
    return Decision(key, "delete", object_id, (*before, step), notes=tuple(notes))


def _as_asked(lookup: Lookup, push: Definition, held: Object) -> Way:
    return push.on_delete, ""


def _product(lookup: Lookup, push: Definition, held: Object) -> Way:
    if push.on_delete == "delete":
        prices = Pages(lookup.api).listed(WRITABLE["prices"], {"product": held["id"]}, 1)
        if next(prices, None) is None:
            return "delete", ""
        if held["active"]:
            return "deactivate", HAS_PRICES
    return _active(lookup, push, held)


def _active(lookup: Lookup, push: Definition, held: Object) -> Way:
    """What is archived already stays as it is."""
    return ("deactivate", "") if held["active"] else ("nothing", "It is inactive already.")


def _subscription(lookup: Lookup, push: Definition, held: Object) -> Way:
    if held["status"] in ENDED:
        return "nothing", "It has ended already."
    if push.on_delete == "cancel_at_period_end" and held["cancel_at_period_end"]:
        return "nothing", "It ends with its period already."
    return push.on_delete, ""


def _invoice(lookup: Lookup, push: Definition, held: Object) -> Way:
    status = held["status"]
    of_subscription = (held.get("parent") or {}).get("subscription_details")
    if status == DRAFT and not of_subscription:
        return "delete", ""
    if push.on_delete == "void" and status in ("open", "uncollectible"):
        return "void", ""
    what = "of a subscription" if status == DRAFT else status
    return "nothing", f"The invoice is {what}: it stays."


def _invoice_item(lookup: Lookup, push: Definition, held: Object) -> Way:
    if is_free(lookup, held):
        return "delete", ""
    return "nothing", "The invoice item is on an invoice that is no draft any more: it stays."


def _quote(lookup: Lookup, push: Definition, held: Object) -> Way:
    if held["status"] in (DRAFT, "open"):
        return "cancel", ""
    return "nothing", f"The quote is {held['status']}: it stays."


WAYS: dict[str, Callable[[Lookup, Definition, Object], Way]] = {
    "products": _product,
    "prices": _active,
    "subscriptions": _subscription,
    "invoices": _invoice,
    "invoice_items": _invoice_item,
    "quotes": _quote,
}


def _step(push: Definition, way: str, object_id: str) -> PushStep:
    if way == "deactivate":
        path = path_to(push.row.verbs["update"].path, object_id)
        return PushStep("deactivate", "post", path, {"active": False})
    if way == "cancel_at_period_end":
        path = path_to(push.row.verbs["update"].path, object_id)
        return PushStep(way, "post", path, {"cancel_at_period_end": True})
    verb = push.row.verbs[way]
    return PushStep(
        way, "delete" if verb.method == "delete" else "post", path_to(verb.path, object_id), {}
    )
