"""`/v1/subscriptions` and `/v1/subscription_items`: create, update, pause, resume, cancel."""

from __future__ import annotations

from functools import partial

from ..protocol.errors import Refusal, exclusive, missing, required
from ..protocol.parameters import Params
from ..samples.subscriptions import ENDED, embedded_list, items_url
from ..samples.values import Object
from ..state import mutations
from ..state.api_versions import deleted_stub
from ..world import World
from . import billing, items, subscription_invoices
from .invoice_items import Proration
from .records import (
    add,
    check_exclusive,
    merge_hash,
    object_in_param,
    object_in_path,
    schedule,
    to_fields,
)

MOST_ACTIVE = 500
_DAY = 86_400
EXPIRY = 23 * 3600
DETAILS = dict.fromkeys(("comment", "feedback", "feedback_option", "reason"))
_INVOICE_SETTINGS: Object = {
    "account_tax_ids": None, "custom_fields": None, "description": None, "footer": None, "issuer": {"type": "self"},
}  # fmt: skip
_PAYMENT_SETTINGS: Object = {
    "payment_method_options": None, "payment_method_types": None, "save_default_payment_method": "off",
}  # fmt: skip
_ANCHOR_CONFIG: Object = dict.fromkeys(("day_of_month", "hour", "minute", "month", "second"))
_AUTOMATIC_TAX: Object = {"disabled_reason": None, "enabled": False, "liability": None}
_EMPTY: Object = {
    "application": None,
    "application_fee_percent": None,
    "automatic_tax": _AUTOMATIC_TAX,
    "billing_cycle_anchor_config": None,
    "billing_mode": {"flexible": {"proration_discounts": "included"}, "type": "flexible"},
    "billing_schedules": [],
    "billing_thresholds": None,
    "cancel_at": None,
    "cancel_at_period_end": False,
    "canceled_at": None,
    "cancellation_details": DETAILS,
    "collection_method": "charge_automatically",
    "customer_account": None,
    "days_until_due": None,
    "default_payment_method": None,
    "default_source": None,
    "default_tax_rates": [],
    "description": None,
    "discounts": [],
    "ended_at": None,
    "invoice_settings": _INVOICE_SETTINGS,
    "latest_invoice": None,
    "managed_payments": {"enabled": False},
    "metadata": {},
    "next_pending_invoice_item_invoice": None,
    "on_behalf_of": None,
    "pause_collection": None,
    "payment_settings": _PAYMENT_SETTINGS,
    "pending_invoice_item_interval": None,
    "pending_setup_intent": None,
    "pending_update": None,
    "presentment_details": None,
    "schedule": None,
    "status_details": None,
    "test_clock": None,
    "transfer_data": None,
    "trial_settings": {"end_behavior": {"missing_payment_method": "create_invoice"}},
}
_UNSET: Object = {"default_tax_rates": [], "discounts": [], "billing_schedules": []}
_PLAIN = frozenset(
    [
        "application_fee_percent",
        "billing_schedules",
        "billing_thresholds",
        "cancel_at_period_end",
        "collection_method",
        "days_until_due",
        "default_payment_method",
        "default_source",
        "description",
        "metadata",
        "on_behalf_of",
        "pending_invoice_item_interval",
        "transfer_data",
        "trial_settings",
    ]
)
"""Parameters that are fields of the same name."""


def create(account: World, id: str, given: Params) -> Object:
    customer = billing.customer_of(account, given)
    if not given.get("items"):
        raise required("items")
    _check_exclusive(given)
    billing.check_collection(given, _EMPTY, "days_until_due")
    plan = items.plan_items(account, [], given["items"])
    extra = _extra_items(account, given)
    _check_room(account, customer["id"])
    start, end, trial_end = _first_period(account, given, plan)
    id = account.rng.id("sub")
    whole = _EMPTY | {
        "id": id,
        "billing_cycle_anchor": given.get("billing_cycle_anchor") or trial_end or account.now,
        "currency": plan[0].price["currency"],
        "customer": customer["id"],
        "items": {"data": [{"current_period_end": end}]},
        "start_date": given.get("backdate_start_date", account.now),
        "status": _first_status(customer, given, plan, trial_end),
        "test_clock": customer["test_clock"],
        "trial_end": trial_end,
        "trial_start": account.now if trial_end else None,
    }
    whole |= _fields(account, whole, given) | _only_at_first(given)
    billing.use_currency(account, customer, whole["currency"], explicit="currency" in given)
    whole["items"] = embedded_list(items_url(id), items.build_items(account, id, plan, start, end))
    made = add(account, "subscriptions", whole)
    _schedule(account, made)
    return subscription_invoices.create_first_invoice(account, made, extra)


def update(account: World, id: str, given: Params) -> Object:
    before = object_in_path(account, "subscriptions", id)
    _check_ended(before, given)
    _check_exclusive(given)
    billing.check_collection(given, before, "days_until_due")
    held = items.read_items(account, id)
    start, end = held[0]["current_period_start"], held[0]["current_period_end"]
    plan = items.plan_items(account, held, given.get("items", []))
    extra = _extra_items(account, given)
    after = before | _fields(account, before, given) | _timing(account, before, given)
    restarts = given.get("billing_cycle_anchor", {}).get("type") == "now"
    ends_trial = given.get("trial_end") == "now" and before["status"] == "trialing"
    if restarts or ends_trial:
        start, end = account.now, _period_end(plan, account.now)
        after["billing_cycle_anchor"] = account.now
    elif isinstance(given.get("trial_end"), int):
        end = given["trial_end"]
    prorated = _prorated(account, before, given, held, plan)
    after["items"] = embedded_list(items_url(id), items.build_items(account, id, plan, start, end))
    done = mutations.replace(account, "subscriptions", after, children=True)
    _schedule(account, done)
    subscription_invoices.add_items(account, done, extra)
    behavior = given.get("proration_behavior", "create_prorations")
    subscription_invoices.prorate(account, done, prorated, behavior)
    if restarts or ends_trial:
        subscription_invoices.bill_period(account, done, "subscription_cycle")
    return object_in_path(account, "subscriptions", id)


def _only_at_first(given: Params) -> Object:
    """Return the fields that only a new subscription takes."""
    fields: Object = {}
    if "billing_mode" in given:
        fields["billing_mode"] = _billing_mode(given["billing_mode"])
    if "billing_cycle_anchor_config" in given:
        config = given["billing_cycle_anchor_config"]
        fields["billing_cycle_anchor_config"] = merge_hash(None, config, _ANCHOR_CONFIG)
    return fields


def _billing_mode(given: Params) -> Object:
    if given["type"] == "classic":
        return {"flexible": None, "type": "classic"}
    flexible = {"proration_discounts": "included"} | given.get("flexible", {})
    return {"flexible": flexible, "type": "flexible"}


def _extra_items(account: World, given: Params) -> list[Params]:
    """Return `add_invoice_items` after checking that their prices are one-time."""
    extra: list[Params] = given.get("add_invoice_items", [])
    for place, entry in enumerate(extra):
        billing.sold_price(account, entry, f"add_invoice_items[{place}]", recurring=False)
    return extra


def _schedule(account: World, subscription: Object) -> None:
    """Schedule what Stripe does by itself later. Each action checks that it is still due."""
    id, at, trial_end = subscription["id"], subscription["cancel_at"], subscription["trial_end"]
    if at:
        schedule(account, at, partial(_end, account, id, at))
    if trial_end and subscription["status"] == "trialing":
        schedule(account, trial_end, partial(_end_trial, account, id, trial_end))
    if subscription["status"] == "incomplete":
        schedule(account, subscription["created"] + EXPIRY, partial(_expire, account, id))


def _end(account: World, id: str, at: int) -> None:
    subscription = object_in_path(account, "subscriptions", id)
    if subscription["status"] not in ENDED and subscription["cancel_at"] == at:
        ended = {"status": "canceled", "ended_at": account.now}
        mutations.replace(account, "subscriptions", subscription | ended, children=False)


def _end_trial(account: World, id: str, at: int) -> None:
    """Start the first paid period. Without a payment method the subscription is past due."""
    subscription = object_in_path(account, "subscriptions", id)
    if subscription["status"] != "trialing" or subscription["trial_end"] != at:
        return
    customer = object_in_path(account, "customers", subscription["customer"])
    pays = subscription["collection_method"] == "send_invoice"
    pays = pays or billing.can_pay(customer, subscription)
    held = items.read_items(account, id)
    plan = items.plan_items(account, held, [])
    built = items.build_items(account, id, plan, account.now, _period_end(plan, account.now))
    after = subscription | {
        "items": embedded_list(items_url(id), built),
        "status": "active" if pays else "past_due",
    }
    done = mutations.replace(account, "subscriptions", after, children=True)
    subscription_invoices.bill_period(account, done, "subscription_cycle")


def _expire(account: World, id: str) -> None:
    subscription = object_in_path(account, "subscriptions", id)
    if subscription["status"] == "incomplete":
        ended = {"status": "incomplete_expired", "ended_at": account.now}
        mutations.replace(account, "subscriptions", subscription | ended, children=False)


def _prorated(
    account: World, before: Object, given: Params, held: list[Object], plan: list[items.Planned]
) -> list[Proration]:
    """Return the prorations of a change. A trial has none."""
    if before["status"] not in ("active", "past_due"):
        return []
    at = given.get("proration_date", account.now)
    start, end = held[0]["current_period_start"], held[0]["current_period_end"]
    return list(items.prorations(held, plan, start, end, at))


def cancel(account: World, id: str, given: Params) -> Object:
    """Cancel a subscription now. It stays, but cannot be canceled again."""
    before = object_in_path(account, "subscriptions", id)
    if before["status"] in ENDED:
        raise missing("subscription", id)
    if given.get("invoice_now"):
        subscription_invoices.bill_pending_items(account, before)
    details = before["cancellation_details"] | given.get("cancellation_details", {})
    ended = {
        "status": "canceled",
        "canceled_at": before["canceled_at"] or account.now,
        "ended_at": account.now,
        "cancellation_details": details | {"reason": "cancellation_requested"},
    }
    return mutations.replace(account, "subscriptions", before | ended, children=False)


def pause(account: World, id: str, given: Params) -> Object:
    before = object_in_path(account, "subscriptions", id)
    if before["status"] not in ("active", "trialing", "past_due"):
        raise Refusal(400, f"This subscription cannot be paused because it is {before['status']}.")
    reason = {
        "subscription": {"type": "pause_requested"},
        "transitioned_at": account.now,
        "type": "subscription",
    }
    after = before | {"status": "paused", "status_details": {"paused": reason}}
    return mutations.replace(account, "subscriptions", after, children=False, more=("paused",))


def resume(account: World, id: str, given: Params) -> Object:
    before = object_in_path(account, "subscriptions", id)
    if before["status"] != "paused":
        raise Refusal(400, "Only paused subscriptions can be resumed.")
    if before["collection_method"] != "charge_automatically":
        raise Refusal(
            400, "Only subscriptions with `collection_method=charge_automatically` can be resumed."
        )
    after = before | {"status": "active", "status_details": None}
    return mutations.replace(account, "subscriptions", after, children=False, more=("resumed",))


def migrate(account: World, id: str, given: Params) -> Object:
    """Change the billing mode to flexible. There is no way back."""
    before = object_in_path(account, "subscriptions", id)
    if before["billing_mode"]["type"] == "flexible":
        raise Refusal(400, "This subscription has the billing mode `flexible` already.")
    mode = {"billing_mode": _billing_mode(given["billing_mode"])}
    return mutations.replace(account, "subscriptions", before | mode, children=False)


def delete_discount(account: World, id: str, given: Params) -> Object:
    before = object_in_path(account, "subscriptions", id)
    if not before["discounts"]:
        raise Refusal(404, f"No active discount for subscription: {id}", "resource_missing")
    mutations.replace(account, "subscriptions", before | {"discounts": []}, children=False)
    return {"id": before["discounts"][0], "object": "discount", "subscription": id, "deleted": True}


def create_item(account: World, id: str, given: Params) -> Object:
    subscription = object_in_param(account, "subscriptions", given["subscription"], "subscription")[
        "id"
    ]
    known = {item["id"] for item in items.read_items(account, subscription)}
    _with_item(account, subscription, given)
    return next(item for item in items.read_items(account, subscription) if item["id"] not in known)


def update_item(account: World, id: str, given: Params) -> Object:
    subscription = _subscription_of(account, id)
    _with_item(account, subscription, given | {"id": id})
    return next(item for item in items.read_items(account, subscription) if item["id"] == id)


def delete_item(account: World, id: str, given: Params) -> Object:
    _with_item(account, _subscription_of(account, id), given | {"id": id, "deleted": True})
    return deleted_stub("subscription_item", id)


def _with_item(account: World, subscription: str, given: Params) -> None:
    shared = (
        "proration_behavior",
        "proration_date",
        "payment_behavior",
        "off_session",
        "subscription",
    )
    item = {name: value for name, value in given.items() if name not in shared}
    settings = {name: given[name] for name in shared[:2] if name in given}
    update(account, subscription, settings | {"items": [item]})


def _subscription_of(account: World, item: str) -> str:
    found = find_subscription(account, item)
    if not found:
        raise missing("subscription_item", item)
    return found


def find_subscription(account: World, item: str) -> str:
    """Return the id of the subscription that has this item, or `""`."""
    quoted = f'"{item}"'.encode()
    for row in account.tables["subscriptions"].rows.values():
        bodies = account.all_children.get(row.id) or [row.raw]
        if any(quoted in raw for raw in bodies) and any(
            held["id"] == item for held in items.read_items(account, row.id)
        ):
            return row.id
    return ""


def _check_exclusive(given: Params) -> None:
    check_exclusive(given, "billing_cycle_anchor", "billing_cycle_anchor_config")
    check_exclusive(given, "trial_end", "trial_period_days")
    if given.get("trial_from_plan"):
        check_exclusive(given, "trial_end", "trial_from_plan")
    if given.get("cancel_at_period_end") and given.get("cancel_at") is not None:
        raise exclusive("cancel_at", "cancel_at_period_end")


def _check_ended(before: Object, given: Params) -> None:
    if before["status"] in ENDED and set(given) - {"metadata", "cancellation_details"}:
        raise Refusal(
            400, "A canceled subscription can only update its cancellation_details and metadata."
        )


def _check_room(account: World, customer: str) -> None:
    if len(mutations.running_subscriptions(account, customer)) >= MOST_ACTIVE:
        raise Refusal(
            400,
            f"Customer {customer} has the maximum of {MOST_ACTIVE} active subscriptions.",
            "customer_max_subscriptions",
        )


def _first_period(
    account: World, given: Params, plan: list[items.Planned]
) -> tuple[int, int, int | None]:
    """Return start and end of the first period, and the end of its trial or None."""
    trial_end = given.get("trial_end")
    days = given.get("trial_period_days")
    if given.get("trial_from_plan"):
        days = plan[0].price["recurring"]["trial_period_days"]
    if days:
        trial_end = account.now + days * _DAY
    if isinstance(trial_end, int):
        if trial_end <= account.now:
            raise Refusal(
                400,
                "Invalid timestamp: must be an integer Unix timestamp in the future",
                param="trial_end",
            )
        return account.now, trial_end, trial_end
    end = given.get("billing_cycle_anchor") or _period_end(plan, account.now)
    return account.now, end, None


def _period_end(plan: list[items.Planned], start: int) -> int:
    cycle = plan[0].price["recurring"]
    return billing.after(start, cycle["interval"], cycle["interval_count"])


def _first_status(
    customer: Object, given: Params, plan: list[items.Planned], trial_end: int | None
) -> str:
    """Return the first status. Without a payment method the request is refused, unless it asks for
    `default_incomplete`."""
    if trial_end:
        return "trialing"
    due = sum(billing.amount_of(item.price, item.quantity) for item in plan)
    by_mail = given.get("collection_method") == "send_invoice"
    if by_mail or not due or billing.can_pay(customer, given):
        return (
            "active"
            if given.get("payment_behavior") != "default_incomplete" or not due
            else "incomplete"
        )
    if given.get("payment_behavior") == "default_incomplete":
        return "incomplete"
    raise Refusal(400, billing.NO_PAYMENT_METHOD, "resource_missing")


def _fields(account: World, before: Object, given: Params) -> Object:
    fields = to_fields(before, {name: given[name] for name in _PLAIN if name in given}, _UNSET)
    for name, empty in (
        ("automatic_tax", _AUTOMATIC_TAX), ("invoice_settings", _INVOICE_SETTINGS), ("payment_settings", _PAYMENT_SETTINGS),
        ("cancellation_details", DETAILS), ("pause_collection", {"behavior": None, "resumes_at": None}),
    ):  # fmt: skip
        if name in given:
            fields[name] = merge_hash(before[name], given[name], empty)
    if "default_tax_rates" in given:
        fields["default_tax_rates"] = billing.tax_rates(account, given["default_tax_rates"])
    if "discounts" in given:
        holder = {"customer": before["customer"], "subscription": before["id"]}
        fields["discounts"] = billing.discounts(
            account, given["discounts"], before["discounts"], **holder
        )
    return fields | _ends(account, before, given)


def _ends(account: World, before: Object, given: Params) -> Object:
    """Return the fields that set or clear the scheduled cancellation."""
    if "cancel_at" not in given and "cancel_at_period_end" not in given:
        return {}
    period_ends = [item["current_period_end"] for item in before["items"]["data"]]
    at = given.get("cancel_at")
    if given.get("cancel_at_period_end") or at == "min_period_end":
        at = min(period_ends)
    elif at in ("max_period_end", "max_billed_until"):
        at = max(period_ends)
    details = before["cancellation_details"] | given.get("cancellation_details", {})
    return {
        "cancel_at": at,
        "cancel_at_period_end": bool(given.get("cancel_at_period_end")),
        "canceled_at": account.now if at else None,
        "cancellation_details": details | {"reason": "cancellation_requested" if at else None},
    }


def _timing(account: World, before: Object, given: Params) -> Object:
    """Return the fields of a trial that begins or ends."""
    match given.get("trial_end"):
        case None:
            return {}
        case "now":
            status = "active" if before["status"] == "trialing" else before["status"]
            return {"status": status, "trial_end": account.now if before["trial_end"] else None}
        case end if end <= account.now:
            raise Refusal(
                400,
                "Invalid timestamp: must be an integer Unix timestamp in the future",
                param="trial_end",
            )
        case end:
            return {
                "status": "trialing",
                "trial_end": end,
                "trial_start": before["trial_start"] or account.now,
            }
