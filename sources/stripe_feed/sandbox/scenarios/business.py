"""A business that lives: customers sign up, try, pay, upgrade, get discounts, fail to pay, and leave.
Its past and its future follow the same rules.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ..money import charges, settlement
from ..samples.subscriptions import ENDED
from ..samples.values import Object
from ..state import mutations
from ..state.event_log import RETENTION
from ..state.table import Row
from ..world import World
from ..writes import items, subscriptions
from ..writes.invoices import DECLINED
from . import renewals
from .tricky_activity import Action, random_object

SECONDS_A_DAY = 86_400
HISTORY = 540 * SECONDS_A_DAY
"""How long the business exists when the sandbox starts."""

PLANS = (("Starter", 1900), ("Team", 4900), ("Business", 14_900))
CURRENCIES_SOLD = ("usd", "usd", "usd", "eur")
COUPONS_SOLD: tuple[Object, ...] = (
    {"id": "WELCOME20", "percent_off": 20.0, "duration": "repeating", "duration_in_months": 3},
    {"id": "FRIENDS10", "percent_off": 10.0, "duration": "forever", "duration_in_months": None},
    {"id": "LAUNCH50", "percent_off": 50.0, "duration": "once", "duration_in_months": None},
    {"id": "TEN", "percent_off": None, "amount_off": 1000, "currency": "usd",
     "duration": "forever", "duration_in_months": None},
)  # fmt: skip
ACTIONS_PER_SUBSCRIPTION = 0.005
"""How many actions a running subscription sees a day."""

Deed = Callable[[World, Row], Action | None]


def found(account: World, customers: int) -> None:
    """Let the business grow from its first day until now, to about this number of signups. Only the
    events of the last thirty days are recorded.
    """
    now = account.now
    account.rewind(HISTORY)
    account.object["created"] = account.start = account.now - SECONDS_A_DAY
    _open_shop(account)
    renewals.start_renewals(account)
    settlement.start_payouts(account)
    account.schedule(now - RETENTION, partial(_record, account))
    _every_day(account, customers / (HISTORY / SECONDS_A_DAY))
    account.advance(now - account.now)


def _record(account: World) -> None:
    account.observers.insert(0, account.event_log.record)


def live_on(account: World, seconds: int, count: int) -> list[Action]:
    """Let time pass, with `count` actions more than the business takes by itself."""
    times = sorted(int(account.rng.random() * seconds) for _ in range(count))
    begin, actions = account.now, list[Action]()
    for time in times:
        account.advance(begin + time - account.now)
        with account.event_log.action():
            actions.append(act_once(account) or sign_up(account))
    account.advance(begin + seconds - account.now)
    return actions


def _open_shop(account: World) -> None:
    for name, amount in PLANS:
        product = mutations.create(account, "products", {"name": name, "active": True})["id"]
        for currency in dict.fromkeys(CURRENCIES_SOLD):
            for interval, price in (("month", amount), ("year", 10 * amount)):
                cycle = {"interval": interval, "usage_type": "licensed", "meter": None}
                fields = {"product": product, "currency": currency, "unit_amount": price, "recurring": cycle, "nickname": f"{name} {interval}ly"}  # fmt: skip
                mutations.create(account, "prices", fields)
    for coupon in COUPONS_SOLD:
        mutations.create(account, "coupons", {"amount_off": None, "currency": None} | coupon)


def _every_day(account: World, signups: float) -> None:
    """Plan the next day at random times: its signups, and what subscribers do."""
    rng = account.rng
    running = sum(row.group not in ENDED for row in account.tables["subscriptions"].rows.values())
    for mean, deed in ((signups, sign_up), (running * ACTIONS_PER_SUBSCRIPTION, act_once)):
        for _ in range(int(mean) + rng.chance(mean % 1)):
            at = account.now + int(rng.random() * SECONDS_A_DAY)
            account.schedule(at, partial(_in_one_request, account, deed))
    account.schedule(account.now + SECONDS_A_DAY, partial(_every_day, account, signups))


def _in_one_request(account: World, deed: Callable[[World], Action | None]) -> None:
    with account.event_log.action():
        deed(account)


def sign_up(account: World) -> Action:
    """A new customer subscribes."""
    rng = account.rng
    currency = rng.pick(CURRENCIES_SOLD)
    settings = {"custom_fields": None, "default_payment_method": renewals.NEW_CARD, "footer": None, "rendering_options": None}  # fmt: skip
    fields = {"balance": 0, "currency": currency, "default_source": None, "delinquent": False, "discount": None, "invoice_settings": settings, "next_invoice_sequence": 1}  # fmt: skip
    customer = mutations.create(account, "customers", fields)["id"]
    return "created", "subscriptions", _subscribe(account, customer, currency)


def _subscribe(account: World, customer: str, currency: str) -> str:
    rng = account.rng
    price = rng.pick(_prices(account, currency, "year" if rng.chance(0.2) else "month"))
    item = {"price": price, "quantity": rng.pick((1, 1, 1, 2, 3, 5, 12))}
    given: Object = {"customer": customer, "default_payment_method": renewals.NEW_CARD, "items": [item]}  # fmt: skip
    if rng.chance(0.25):
        given["trial_period_days"] = 14
    if rng.chance(0.3):
        given["discounts"] = [{"coupon": _coupon(account, currency)}]
    if rng.chance(0.08):
        given |= {"collection_method": "send_invoice", "days_until_due": 30}
    return str(subscriptions.create(account, "", given)["id"])


def _coupon(account: World, currency: str) -> str:
    """A coupon that is good for invoices in a currency."""
    good = [one for one in COUPONS_SOLD if one.get("currency") in (None, currency)]
    return str(account.rng.pick(good)["id"])


def _prices(account: World, currency: str, interval: str) -> list[str]:
    contents = (row.content() for row in account.tables["prices"].rows.values())
    return [
        price["id"]
        for price in contents
        if (price["currency"], price["recurring"]["interval"]) == (currency, interval)
    ]


def act_once(account: World) -> Action | None:
    """Something happens to a random subscription; None if it does not fit."""
    row = account.tables["subscriptions"].random_row(account.rng)
    if row is None:
        return None
    if row.group in ENDED:
        return _come_back(account, row)
    if row.group not in ("active", "past_due"):
        return None
    drawn = account.rng.random() * sum(weight for weight, _ in DEEDS)
    for weight, deed in DEEDS:
        drawn -= weight
        if drawn < 0:
            return deed(account, row)
    return None


def _come_back(account: World, row: Row) -> Action | None:
    """A former customer subscribes again."""
    subscription = row.content()
    customer = subscription["customer"]
    if mutations.running_subscriptions(account, customer) or account.rng.chance(0.7):
        return None
    return "created", "subscriptions", _subscribe(account, customer, subscription["currency"])


def _change(account: World, row: Row, **given: object) -> Action:
    subscriptions.update(account, row.id, given)
    return "updated", "subscriptions", row.id


def _change_plan(account: World, row: Row) -> Action | None:
    item = items.read_items(account, row.id)[0]
    price = item["price"]
    others = _prices(account, price["currency"], price["recurring"]["interval"])
    new = account.rng.pick([other for other in others if other != price["id"]])
    entry = {"id": item["id"], "price": new, "quantity": item["quantity"]}
    return _change(account, row, items=[entry])


def _change_quantity(account: World, row: Row) -> Action | None:
    item = items.read_items(account, row.id)[0]
    quantity = max(1, item["quantity"] + account.rng.pick((-2, -1, 1, 2, 3)))
    return _change(account, row, items=[{"id": item["id"], "quantity": quantity}])


def _leave(account: World, row: Row) -> Action | None:
    return _change(account, row, cancel_at_period_end=not row.content()["cancel_at_period_end"])


def _leave_now(account: World, row: Row) -> Action | None:
    subscriptions.cancel(account, row.id, {})
    return "canceled", "subscriptions", row.id


def _discount_more(account: World, row: Row) -> Action | None:
    coupon = _coupon(account, row.content()["currency"])
    return _change(account, row, discounts=[{"coupon": coupon}])


def _card_breaks(account: World, row: Row) -> Action | None:
    return _change(account, row, default_payment_method=DECLINED)


def _refund(account: World, row: Row) -> Action | None:
    charge = _charge_of(account, row)
    if charge is None:
        return None
    amount = None if account.rng.chance(0.5) else 1 + charge["amount"] // 3
    return "created", "refunds", charges.refund(account, charge["id"], amount)["id"]


def _dispute(account: World, row: Row) -> Action | None:
    charge = _charge_of(account, row)
    if charge is None:
        return None
    disputed = charges.dispute(account, charge["id"])["id"]
    won, at = account.rng.chance(0.4), account.now + 20 * SECONDS_A_DAY
    account.schedule(at, partial(_close_dispute, account, disputed, won))
    return "created", "disputes", disputed


def _close_dispute(account: World, id: str, won: bool) -> None:
    charges.close_dispute(account, id, won)


def _charge_of(account: World, row: Row) -> Object | None:
    """A charge of the subscription's customer that is whole."""
    customer = row.content()["customer"].encode()
    wanted = (customer, b'"status":"succeeded"', b'"refunded":false', b'"disputed":false', b'"amount_refunded":0')  # fmt: skip
    found = random_object(account, "charges", lambda row: all(part in row.raw for part in wanted))
    return found.content() if found else None


DEEDS: tuple[tuple[int, Deed], ...] = (
    (20, _change_plan),
    (20, _change_quantity),
    (14, _leave),
    (8, _leave_now),
    (8, _discount_more),
    (12, _card_breaks),
    (10, _refund),
    (3, _dispute),
)
"""Weight and deed; a deed that does not fit gives None."""
