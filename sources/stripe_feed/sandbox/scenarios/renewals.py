"""What Stripe does by itself when a period ends: it renews subscriptions, collects, and tries again."""

from __future__ import annotations

from functools import partial

from ..money import charges
from ..protocol.errors import Refusal
from ..samples.subscriptions import ENDED, embedded_list, items_url
from ..samples.values import Object
from ..state import mutations
from ..state.mutation import Mutation
from ..world import World
from ..writes import billing, invoices, items, records, subscription_invoices

RETRY_AFTER = 3 * 86_400
MOST_ATTEMPTS = 3
NEW_CARD = "pm_card_visa"
CARD_RENEWED = 0.55
"""The share of customers who give a new card before the next attempt."""


def start_renewals(account: World) -> None:
    """Renew each subscription that begins from now on, and let its payments move money."""
    due: set[tuple[str, int]] = set()

    def watch(mutation: Mutation) -> None:
        if mutation.after and mutation.table == "subscriptions":
            _plan(account, due, mutation.after)
        if mutation.after and mutation.table == "invoices":
            _move_money(account, mutation.before or {}, mutation.after)

    account.observers.append(watch)


def _plan(account: World, due: set[tuple[str, int]], subscription: Object) -> None:
    """Schedule the end of the present period, once."""
    id, first = subscription["id"], next(iter(subscription["items"]["data"]), None)
    if first is None or subscription["status"] not in ("active", "past_due"):
        return
    end = first["current_period_end"]
    if (id, end) in due:
        return
    due.add((id, end))
    records.schedule(account, end, partial(_renew, account, id, end))


def _renew(account: World, id: str, end: int) -> None:
    """Begin the next period and bill it, unless the subscription ends or has changed since."""
    subscription = records.object_in_path(account, "subscriptions", id)
    held = items.read_items(account, id)
    if subscription["status"] not in ("active", "past_due") or held[0]["current_period_end"] != end:
        return
    if subscription["cancel_at_period_end"]:
        _cancel(account, subscription, "cancellation_requested")
        return
    planned = items.plan_items(account, held, [])
    cycle = planned[0].price["recurring"]
    next_end = billing.after(account.now, cycle["interval"], cycle["interval_count"])
    built = items.build_items(account, id, planned, account.now, next_end)
    after = subscription | {"items": embedded_list(items_url(id), built)}
    renewed = mutations.replace(account, "subscriptions", after, children=True)
    if renewed["pause_collection"] is None:
        billed = subscription_invoices.bill_period(
            account, renewed, "subscription_cycle", collect=False
        )
        if billed["collection_method"] == "charge_automatically":
            _collect(account, billed["latest_invoice"])


def _collect(account: World, invoice: str) -> None:
    """Charge an open invoice. If the card is declined, the subscription is past due, and the next
    attempt follows in three days.
    """
    before = records.object_in_path(account, "invoices", invoice)
    if before["status"] != "open":
        return
    try:
        invoices.pay(account, invoice, {})
    except Refusal:
        subscription = _subscription_of(account, before)
        if subscription and subscription["status"] == "active":
            past_due = subscription | {"status": "past_due"}
            mutations.replace(account, "subscriptions", past_due, children=False)
        records.schedule(account, account.now + RETRY_AFTER, partial(_retry, account, invoice))


def _retry(account: World, invoice: str) -> None:
    """Try again, maybe with a new card; after the last attempt the subscription ends."""
    open_one = records.object_in_path(account, "invoices", invoice)
    subscription = _subscription_of(account, open_one)
    if open_one["status"] != "open" or subscription is None or subscription["status"] in ENDED:
        return
    if account.rng.chance(CARD_RENEWED):
        new_card = {"default_payment_method": NEW_CARD}
        mutations.update(account, "subscriptions", subscription["id"], new_card)
        mutations.update(account, "invoices", invoice, new_card)
    if open_one["attempt_count"] < MOST_ATTEMPTS:
        _collect(account, invoice)
        return
    _cancel(account, subscription, "payment_failed")
    invoices.mark_uncollectible(account, invoice, {})


def _subscription_of(account: World, invoice: Object) -> Object | None:
    details = (invoice["parent"] or {}).get("subscription_details") or {}
    row = account.tables["subscriptions"].rows.get(details.get("subscription") or "")
    return row.content() if row else None


def _cancel(account: World, subscription: Object, reason: str) -> None:
    details = subscription["cancellation_details"] | {"reason": reason}
    ended = {
        "canceled_at": subscription["canceled_at"] or account.now,
        "cancellation_details": details,
        "ended_at": account.now,
        "status": "canceled",
    }
    mutations.replace(account, "subscriptions", subscription | ended, children=False)


def _move_money(account: World, before: Object, after: Object) -> None:
    """An invoice that is paid has a charge and a payment; an attempt that failed a failed charge.
    One that was sent by mail is paid some time, or never, and overdue if that is too late.
    """
    if after["status"] == "open" != before.get("status") and after["due_date"]:
        _expect_payment(account, after)
    if after["status"] == "paid" != before.get("status") and after["amount_paid"] > 0:
        _pay_invoice(account, after)
    tried = (after["attempt_count"] or 0) > (before.get("attempt_count") or 0)
    if tried and after["status"] == "open":
        charges.decline(account, after["amount_due"], after["currency"], after["customer"])


def _expect_payment(account: World, invoice: Object) -> None:
    if account.rng.chance(0.85):
        at = account.now + int(account.rng.random() * 45) * 86_400
        records.schedule(account, at, partial(_pay_by_bank, account, invoice["id"]))
    records.schedule(account, invoice["due_date"], partial(_overdue, account, invoice["id"]))


def _pay_by_bank(account: World, id: str) -> None:
    if records.object_in_path(account, "invoices", id)["status"] == "open":
        invoices.pay(account, id, {"payment_method": NEW_CARD})


def _overdue(account: World, id: str) -> None:
    invoice = records.object_in_path(account, "invoices", id)
    if invoice["status"] == "open":
        mutations.replace(account, "invoices", invoice, children=False, more=("overdue",))


def _pay_invoice(account: World, invoice: Object) -> None:
    amount, currency = invoice["amount_paid"], invoice["currency"]
    charged = charges.charge_customer(account, amount, currency, invoice["customer"])
    fields = {
        "amount_paid": amount,
        "amount_requested": amount,
        "currency": currency,
        "invoice": invoice["id"],
        "payment": {"payment_intent": charged["payment_intent"], "type": "payment_intent"},
        "status": "paid",
        "status_transitions": {"canceled_at": None, "paid_at": account.now},
    }
    mutations.create(account, "invoice_payments", fields)
