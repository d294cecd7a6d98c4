"""What subscriptions, invoices, invoice items and quotes share: the customer who pays, prices, periods,
discounts.
"""

from __future__ import annotations

import calendar
from datetime import datetime, timedelta, timezone

from ..protocol.errors import Refusal, exclusive, missing, required
from ..protocol.parameters import Params
from ..samples import subscriptions
from ..samples.values import Object, Random
from ..state import mutations
from ..state.discounts import coupon_content, coupon_id
from ..world import World
from .catalog.price_fields import EMPTY_PRICE, read_price
from .records import change, object_in_param

PLURALS = {"day": "days", "week": "weeks"}
NO_PAYMENT_METHOD = (
    "This customer has no attached payment source or default payment method. Please consider adding a default payment "
    "method. For more information, visit "
    "https://stripe.com/docs/billing/subscriptions/payment-methods-setting#payment-method-hierarchy."
)


def customer_of(account: World, given: Params) -> Object:
    """Return the customer who pays, or raise the error of a missing one."""
    if not given.get("customer"):
        raise required("customer")
    return object_in_param(account, "customers", given["customer"], "customer")


def use_currency(account: World, customer: Object, currency: str, explicit: bool) -> None:
    """Set the currency of a customer without one. Raise an error for another currency unless the
    request names it."""
    if customer["currency"] is None:
        change(account, "customers", customer["id"], {"currency": currency})
    elif customer["currency"] != currency and not explicit:
        raise Refusal(
            400,
            "You cannot combine currencies on a single customer. This customer has an active subscription, subscription "
            f"schedule, discount, quote, or invoice item with currency {customer['currency']}",
            param="currency",
        )


def check_collection(given: Params, before: Object, *dues: str) -> None:
    """Require a due date for invoices by mail and forbid it for others."""
    by_mail = given.get("collection_method", before["collection_method"]) == "send_invoice"
    if by_mail and not any(given.get(due) or before.get(due) for due in dues):
        raise required(dues[0])
    for due in dues:
        if not by_mail and given.get(due) is not None:
            raise Refusal(
                400,
                f"You can only set `{due}` if `collection_method` is `send_invoice`.",
                param=due,
            )


def can_pay(customer: Object, given: Params) -> bool:
    """Say whether the customer or the request has a payment method."""
    default = customer["invoice_settings"]["default_payment_method"]
    own = given.get("default_payment_method") or given.get("default_source")
    return bool(own or default or customer["default_source"])


def sold_price(account: World, entry: Params, name: str, recurring: bool | None = True) -> Object:
    """The price that an item names, or the fields of the one that `price_data` describes; it must
    recur, or not, or None: either.
    """
    kinds = [kind for kind in ("price", "plan", "price_data") if entry.get(kind) is not None]
    if len(kinds) > 1:
        raise exclusive(*(f"{name}[{kind}]" if name else kind for kind in kinds))
    if not kinds:
        raise required(f"{name}[price]" if name else "price")
    param = f"{name}[{kinds[0]}]" if name else kinds[0]
    if kinds[0] == "price_data":
        data = {key: value for key, value in entry["price_data"].items() if key != "product"}
        object_in_param(account, "products", entry["price_data"]["product"], f"{param}[product]")
        return EMPTY_PRICE | read_price(data, param) | {"product": entry["price_data"]["product"]}
    price = object_in_param(account, "prices", entry[kinds[0]], param)
    if not price["active"] and price["id"] not in account.inline_prices:
        raise Refusal(
            400,
            "The price specified is inactive. This field only accepts active prices.",
            param=param,
        )
    if recurring is not None and recurring != (price["type"] == "recurring"):
        found, wanted = price["type"], "recurring" if recurring else "one_time"
        raise Refusal(
            400,
            f"The price specified is set to `type={found}` but this field only accepts prices with `type={wanted}`.",
            param=param,
        )
    return price


def price_id(account: World, price: Object) -> str:
    """Return the id of a price. Create the inline price that `price_data` describes."""
    if "id" in price:
        return str(price["id"])
    own = {"object": "price", "created": account.now, "livemode": account.livemode, "active": False}
    fields = price | own | {"id": account.rng.id("price"), "inline": True}
    return str(mutations.create(account, "prices", fields)["id"])


def amount_of(price: Object, quantity: int | None) -> int:
    """Multiply the price by the quantity. Tiered prices count as zero."""
    decimal = price.get("unit_amount_decimal")
    return 0 if decimal is None else round(float(decimal) * (1 if quantity is None else quantity))


def after(start: int, interval: str, count: int) -> int:
    """Return the end of a period. The 31st becomes the last day of a shorter month."""
    begin = datetime.fromtimestamp(start, timezone.utc)
    if interval in PLURALS:
        return int((begin + timedelta(**{PLURALS[interval]: count})).timestamp())
    months = begin.month - 1 + count * (12 if interval == "year" else 1)
    year, month = begin.year + months // 12, months % 12 + 1
    day = min(begin.day, calendar.monthrange(year, month)[1])
    return int(begin.replace(year=year, month=month, day=day).timestamp())


def tax_rates(account: World, ids: list[str] | None) -> list[Object]:
    """Make a tax rate for each id, because the sandbox stores none."""
    return [
        subscriptions.tax_rate(Random(f"tax rate {id}"), account.start)
        | {"id": id, "livemode": account.livemode}
        for id in ids or ()
    ]


def discounts(
    account: World, given: list[Params] | None, before: list[str], **holder: str
) -> list[str]:
    """Return the ids of the new discounts. A list replaces the previous ones, None removes all."""
    return [
        _discount(account, entry, place, before, holder) for place, entry in enumerate(given or ())
    ]


def _discount(
    account: World, entry: Params, place: int, before: list[str], holder: dict[str, str]
) -> str:
    kinds = [kind for kind in ("coupon", "discount", "promotion_code") if entry.get(kind)]
    if len(kinds) != 1:
        raise exclusive(
            *(f"discounts[{place}][{kind}]" for kind in ("coupon", "discount", "promotion_code"))
        )
    value, param = entry[kinds[0]], f"discounts[{place}][{kinds[0]}]"
    if kinds[0] == "discount":
        if value not in before:
            raise missing("discount", value, param, 400)
        return str(value)
    if kinds[0] == "coupon":
        coupon = object_in_param(account, "coupons", value, param)
        if not coupon["valid"] or (coupon["redeem_by"] or account.now) < account.now:
            raise Refusal(400, f"Coupon expired: {value}", "coupon_expired", param)
        used = coupon["times_redeemed"] + 1
        account.store("coupons", coupon | {"times_redeemed": used})  # no event tells of it
    return _new_discount(account, kinds[0], value, holder)


def _new_discount(account: World, kind: str, value: str, holder: dict[str, str]) -> str:
    id = account.rng.id("di")
    whole: Object = dict.fromkeys(
        ("checkout_session", "customer", "customer_account", "end", "invoice", "invoice_item", "promotion_code",
         "subscription", "subscription_item")
    )  # fmt: skip
    coupon = value if kind == "coupon" else None
    whole |= {"id": id, "object": "discount", "start": account.now} | holder
    whole |= {"source": {"coupon": coupon, "type": "coupon"}}
    terms = coupon_content(account, coupon_id(account, whole | {kind: value}))
    if terms["duration"] == "repeating":
        whole["end"] = after(account.now, "month", terms["duration_in_months"])
    account.set_opt_in(
        id, {"discount": whole | ({"promotion_code": value} if coupon is None else {})}
    )
    return id
