"""Forget a customer: delete it at Stripe, and erase what the copy, the feed and the push log hold."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from .errors import InvalidParameter, NotFound, StripeFeedError, UsageError
from .feed.feed import Feed
from .feed.storage.maintenance import MADE_BY_STRIPE
from .resources.writable import WRITABLE
from .write.actions import Actions
from .write.checks import check_id
from .write.push.history.records import redact_key
from .write.push.log import PushLog, tells_who
from .write.push.references import reference_key

log = logging.getLogger("stripe_feed")

AtStripe = Literal["deleted", "deleted before", "kept"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was erased of a customer, without personal data: rows by table, and how many changes,
    messages to be sent and rows of pushes.
    """

    customer: str
    erased_at: int
    stripe: AtStripe
    rows: dict[str, int]
    changes: int
    messages: int
    push_rows: int


def check_customer(customer: str, asks_stripe: bool) -> None:
    """Raise `UsageError` for what cannot be the id of a customer, or would not be known to be one."""
    try:
        check_id(WRITABLE["customers"], customer)
    except InvalidParameter:
        raise UsageError("forget takes the id of a customer: cus_...") from None
    if not asks_stripe and not customer.startswith(MADE_BY_STRIPE):
        raise UsageError(
            "Only Stripe knows whether this id is a customer's, since it does not begin with cus_: "
            "leave out --only-here. Nothing was done."
        )


def describe_deletion(actions: Actions, customer: str) -> str | None:
    """What the deletion at Stripe drags along, in words; None if Stripe has deleted it before.

    Raises `UsageError` if Stripe never had it, and what another request ended with.
    """
    held = actions.get("customers", customer)
    if isinstance(held.error, NotFound):
        is_certain = customer.startswith(MADE_BY_STRIPE)
        hint = " --only-here erases what is held here." if is_certain else ""
        raise UsageError(
            f"Stripe has no customer {customer}: check the id, and the key's account and mode. "
            f"Nothing was deleted.{hint}"
        )
    if held.ok and held.object and held.object.get("deleted"):
        return None
    would = actions.delete("customers", customer, dry_run=True) if held.ok else held
    if would.error is not None:
        raise would.error
    return would.message


def delete_at_stripe(actions: Actions, customer: str, confirm: bool) -> None:
    """Delete the customer at Stripe. Raises what it ended with."""
    done = actions.delete("customers", customer, confirm=confirm)
    if not done.ok:
        raise done.error or StripeFeedError(done.message)


def erase_here(
    feed: Feed, customer: str, stripe: AtStripe, push_log: str | os.PathLike[str]
) -> Receipt:
    """Erase a customer everywhere here. It can be run again."""
    pushed: set[tuple[str, str]] = set()

    def erase_pushed(ids: Collection[str], addresses: Collection[str]) -> Collection[str]:
        telling = {*addresses, *(reference_key("email", address) for address in addresses)}
        if Path(push_log).exists():
            with PushLog(push_log, time.time) as opened:
                pushed.update(opened.erase(customer, ids, telling))
        keys = {key for push, key in pushed if tells_who(push, key)}
        return {
            redact_key(key) for key in keys | telling | {address.lower() for address in addresses}
        }

    erased = feed.erase(customer, erase_pushed)
    rows = {table: len(ids) for table, ids in erased.ids.items()}
    return Receipt(
        customer, int(time.time()), stripe, rows, erased.changes, erased.messages, len(pushed)
    )
