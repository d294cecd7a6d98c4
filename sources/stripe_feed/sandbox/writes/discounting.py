"""What discounts take off the lines of an invoice."""

from __future__ import annotations

from collections.abc import Sequence

from ..samples.values import Object
from ..state.discounts import coupon_content, coupon_id, discount_content
from ..world import World


def discount_lines(account: World, invoice: Object, lines: Sequence[Object]) -> list[Object]:
    """The lines with their discount amounts: first those of a line itself, then those of the invoice.
    Percentages apply one after the other, fixed amounts once per invoice.
    """
    discounted = [dict(line) | {"discount_amounts": []} for line in lines]
    for line in discounted:
        for discount in _active(account, line["discounts"], line):
            _take_off(account, discount, [line])
    for discount in _active(account, invoice["discounts"], invoice):
        _take_off(account, discount, discounted)
    return discounted


def inherited(customer: Object, subscription: Object | None) -> list[str]:
    """The discounts of an invoice that has none of its own: those of its subscription, else that of
    its customer.
    """
    own: list[str] = list((subscription or {}).get("discounts") or ())
    discount = customer.get("discount")
    return own or ([discount["id"]] if discount and "id" in discount else [])


def _active(account: World, ids: Sequence[str], holder: Object) -> list[Object]:
    found = [_with_customer(account, id, holder) for id in ids]
    return [
        discount
        for discount in found
        if discount["start"] <= account.now < (discount["end"] or account.now + 1)
    ]


def _with_customer(account: World, id: str, holder: Object) -> Object:
    """The discount of an id, which may be the customer's own."""
    row = account.tables["customers"].rows.get(holder.get("customer") or "")
    own = (row.content().get("discount") if row else None) or {}
    return (
        {"start": 0, "end": None} | own
        if own.get("id") == id
        else discount_content(account, id, holder)
    )


def _take_off(account: World, discount: Object, lines: Sequence[Object]) -> None:
    """Take a discount off what is left of these lines."""
    coupon = coupon_content(account, coupon_id(account, discount))
    rule = account.opt_in_values.get(coupon["id"], {}).get("applies_to") or {}
    products = rule.get("products")
    eligible = [
        line
        for line in lines
        if line["discountable"]
        and _left(line) > 0
        and (products is None or _product(line) in products)
    ]
    left = [_left(line) for line in eligible]
    if coupon["percent_off"] is not None:
        hundredths = round(coupon["percent_off"] * 100)
        shares = [(amount * hundredths + 5000) // 10_000 for amount in left]
    else:
        eligible = [line for line in eligible if line["currency"] == coupon["currency"]]
        left = [_left(line) for line in eligible]
        shares = split(min(coupon["amount_off"] or 0, sum(left)), left)
    for line, amount in zip(eligible, shares, strict=True):
        line["discount_amounts"] = [
            *line["discount_amounts"],
            {"amount": amount, "discount": discount["id"]},
        ]


def split(amount: int, weights: Sequence[int]) -> list[int]:
    """An amount in parts that are proportional to the weights, to the cent."""
    total, shares, given, reached = sum(weights), [], 0, 0
    for weight in weights:
        reached += weight
        share = amount * reached // total - given
        shares.append(share)
        given += share
    return shares


def _left(line: Object) -> int:
    taken = sum(discount["amount"] for discount in line["discount_amounts"])
    return int(line["amount"]) - int(taken)


def _product(line: Object) -> str | None:
    details: Object = (line["pricing"] or {}).get("price_details") or {}
    return details.get("product")
