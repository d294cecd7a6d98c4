"""Charges with their payments, refunds, disputes; transfers and top-ups."""

from __future__ import annotations

from typing import Any

from ..samples.values import Object
from ..state import mutations
from ..state.account import Account
from .settlement import settle

FIXED_FEE = 30
DISPUTE_FEE = 1500


def processing_fee(amount: int) -> int:
    """2.9 % and a fixed part, in minor units."""
    return (amount * 29 + 500) // 1000 + FIXED_FEE


def charge_customer(
    account: Account, amount: int, currency: str, customer: str, **fields: Any
) -> Object:
    """Charge a customer with success; returns the charge."""
    payment = mutations.create(
        account,
        "payment_intents",
        {
            "amount": amount,
            "currency": currency,
            "customer": customer,
            "status": "requires_confirmation",
        }
        | {name: fields[name] for name in ("description", "metadata") if name in fields},
    )
    id = account.rng.id("ch")
    settled = settle(account, id, "charge", amount, currency, processing_fee(amount))
    charged = mutations.create(
        account,
        "charges",
        {
            "id": id,
            "amount": amount,
            "amount_captured": amount,
            "balance_transaction": settled["id"],
            "currency": currency,
            "customer": customer,
            "payment_intent": payment["id"],
            "payment_method": payment["payment_method"],
        }
        | fields,
    )
    mutations.update(
        account,
        "payment_intents",
        payment["id"],
        {"amount_received": amount, "latest_charge": id, "status": "succeeded"},
    )
    return charged


def decline(account: Account, amount: int, currency: str, customer: str) -> Object:
    """Charge a customer without success; returns the failed charge."""
    payment = mutations.create(
        account,
        "payment_intents",
        {
            "amount": amount,
            "currency": currency,
            "customer": customer,
            "status": "requires_confirmation",
        },
    )
    charged = mutations.create(
        account,
        "charges",
        {
            "amount": amount,
            "captured": False,
            "currency": currency,
            "customer": customer,
            "failure_code": "card_declined",
            "failure_message": "Your card was declined.",
            "paid": False,
            "payment_intent": payment["id"],
            "status": "failed",
        },
    )
    failed = {"latest_charge": charged["id"], "status": "requires_payment_method"}
    mutations.update(account, "payment_intents", payment["id"], failed)
    return charged


def refund(account: Account, charge: str, amount: int | None = None) -> Object:
    """Refund a charge, by default what is left of it. The processing fee stays."""
    charged = account.tables["charges"].rows[charge].content()
    left = charged["amount"] - charged["amount_refunded"]
    amount = left if amount is None else min(amount, left)
    id = account.rng.id("re")
    settled = settle(account, id, "refund", -amount, charged["currency"])
    refunded = mutations.create(
        account,
        "refunds",
        {
            "id": id,
            "amount": amount,
            "balance_transaction": settled["id"],
            "charge": charge,
            "currency": charged["currency"],
            "payment_intent": charged["payment_intent"],
        },
    )
    total = charged["amount_refunded"] + amount
    after = {"amount_refunded": total, "refunded": total == charged["amount"]}
    mutations.update(account, "charges", charge, after)
    return refunded


def dispute(account: Account, charge: str) -> Object:
    """A customer's bank takes the amount of a charge back, and Stripe a fee."""
    charged = account.tables["charges"].rows[charge].content()
    amount, currency = charged["amount"] - charged["amount_refunded"], charged["currency"]
    id = account.rng.id("dp")
    withdrawn = settle(account, id, "adjustment", -amount, currency, DISPUTE_FEE, "dispute")
    disputed = mutations.create(
        account,
        "disputes",
        {
            "id": id,
            "amount": amount,
            "balance_transactions": [withdrawn],
            "charge": charge,
            "currency": currency,
            "payment_intent": charged["payment_intent"],
        },
    )
    mutations.update(account, "charges", charge, {"disputed": True})
    return disputed


def close_dispute(account: Account, id: str, won: bool) -> Object:
    """Win a dispute, which brings the amount back, or lose it."""
    disputed = account.tables["disputes"].rows[id].content()
    if not won:
        return mutations.update(account, "disputes", id, {"status": "lost"})
    back = settle(
        account, id, "adjustment", disputed["amount"], disputed["currency"], 0, "dispute_reversal"
    )
    movements = [*disputed["balance_transactions"], back]
    return mutations.update(
        account, "disputes", id, {"balance_transactions": movements, "status": "won"}
    )


def transfer(account: Account, amount: int, currency: str, destination: str) -> Object:
    """Send money to a connected account."""
    id = account.rng.id("tr")
    settled = settle(account, id, "transfer", -amount, currency)
    fields = {"id": id, "amount": amount, "currency": currency, "destination": destination}
    return mutations.create(account, "transfers", fields | {"balance_transaction": settled["id"]})


def reverse_transfer(account: Account, id: str, amount: int) -> Object:
    """Take a part of a transfer back."""
    row = account.tables["transfers"].rows[id]
    sent = row.content()
    amount = min(amount, sent["amount"] - sent["amount_reversed"])
    reversal = account.rng.id("trr")
    back = settle(account, reversal, "transfer_refund", amount, sent["currency"])
    made = {
        "id": reversal,
        "amount": amount,
        "balance_transaction": back["id"],
        "currency": sent["currency"],
    }
    total = sent["amount_reversed"] + amount
    fields = {"amount_reversed": total, "reversed": total == sent["amount"]}
    reversals = [made, *mutations.children_by_id(account, "transfers", id).values()]
    return mutations.update(account, "transfers", id, fields | {"reversals": reversals})


def top_up(account: Account, amount: int, currency: str) -> Object:
    """Add own money to the balance."""
    id = account.rng.id("tu")
    settled = settle(account, id, "topup", amount, currency)
    fields = {"id": id, "amount": amount, "currency": currency, "status": "succeeded"}
    return mutations.create(account, "topups", fields | {"balance_transaction": settled["id"]})
