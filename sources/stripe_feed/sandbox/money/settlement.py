"""Balance transactions, and the payouts that take those which are available."""

from __future__ import annotations

from collections import defaultdict
from functools import partial

from ..samples.values import Object
from ..state import mutations
from ..state.account import Account

DAYS_PENDING = 2
DAYS_IN_TRANSIT = 2
SECONDS_PER_DAY = 86_400


def settle(
    account: Account,
    source: str | None,
    type: str,
    amount: int,
    currency: str,
    fee: int = 0,
    category: str = "",
) -> Object:
    """Record what a source does to the balance. `amount` is gross and has a sign."""
    details = {
        "amount": fee,
        "application": None,
        "currency": currency,
        "description": "Stripe processing fees" if type == "charge" else "Dispute fee",
        "type": "stripe_fee",
    }
    fields: Object = {
        "amount": amount,
        "available_on": account.now + DAYS_PENDING * SECONDS_PER_DAY,
        "currency": currency,
        "fee": fee,
        "fee_details": [details] if fee else [],
        "net": amount - fee,
        "reporting_category": category or type,
        "source": source,
        "status": "pending",
        "type": type,
    }
    return mutations.create(account, "balance_transactions", fields)


def start_payouts(account: Account) -> None:
    """Pay out what is available once a day from now on."""
    account.schedule(account.now + SECONDS_PER_DAY, partial(_every_day, account))


def _every_day(account: Account) -> None:
    pay_out(account)
    start_payouts(account)


def pay_out(account: Account) -> list[Object]:
    """Make what is due available, which no event tells, and pay out what is positive, one payout per
    currency. A payout's balance transactions are its own and all that it takes.
    """
    by_currency: dict[str, list[Object]] = defaultdict(list)
    for row in list(account.tables["balance_transactions"].rows.values()):
        if row.group:
            continue
        content = row.content()
        if content["available_on"] > account.now:
            continue
        if content["status"] == "pending":
            content = mutations.update(
                account, "balance_transactions", row.id, {"status": "available"}
            )
        by_currency[content["currency"]].append(content)
    totals = {
        currency: sum(taken["net"] for taken in available)
        for currency, available in by_currency.items()
    }
    return [
        _new_payout(account, currency, total, by_currency[currency])
        for currency, total in totals.items()
        if total > 0
    ]


def _new_payout(account: Account, currency: str, amount: int, taken: list[Object]) -> Object:
    arrival = account.now + DAYS_IN_TRANSIT * SECONDS_PER_DAY
    id = account.rng.id("po")
    own = settle(account, id, "payout", -amount, currency)
    fields = {
        "id": id,
        "amount": amount,
        "arrival_date": arrival,
        "automatic": True,
        "balance_transaction": own["id"],
        "currency": currency,
        "reconciliation_status": "in_progress",
        "status": "in_transit",
    }
    payout = mutations.create(account, "payouts", fields)
    mutations.update(account, "balance_transactions", own["id"], {"status": "available"})
    for balance_transaction in (*taken, own):
        account.assign("balance_transactions", balance_transaction["id"], id)
    account.schedule(arrival, partial(_arrive, account, id))
    return payout


def _arrive(account: Account, id: str) -> None:
    """The bank has the money. One in thirty payouts fails, and its amount is in the balance again."""
    payout = account.tables["payouts"].rows[id].content()
    if payout["status"] != "in_transit":
        return
    done = {"reconciliation_status": "completed"}
    if account.rng.chance(1 / 30):
        back = settle(account, id, "payout_failure", payout["amount"], payout["currency"])
        fields = {
            "failure_balance_transaction": back["id"],
            "failure_code": "account_closed",
            "failure_message": "The bank account has been closed.",
            "status": "failed",
        }
        mutations.update(account, "payouts", id, fields)
        return
    mutations.update(account, "payouts", id, {"status": "paid"})
    mutations.update(account, "payouts", id, done)
