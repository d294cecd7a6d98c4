"""Discounts and their coupons. No endpoint has a discount: it is part of what it discounts."""

from __future__ import annotations

from ..samples import catalog
from ..samples.customers import discount_of
from ..samples.values import Object, Random, decode
from .account import Account


def discount_content(account: Account, id: str, holder: Object) -> Object:
    """The discount with this id on an object: the one that was given, or one that follows from its
    id.
    """
    given = account.opt_in_values.get(id, {}).get("discount")
    return given or discount_of(account.id, id, holder)


def coupon_content(account: Account, id: str) -> Object:
    """The coupon of a discount. One that was deleted lives on in it, and one that never was in the
    account's list follows from its id.
    """
    row = account.tables["coupons"].rows.get(id)
    if row is not None:
        return row.content()
    if id in account.deleted["coupons"]:
        return decode(account.deleted["coupons"][id])
    rng = Random(f"coupon {id}")
    rng.livemode = account.livemode
    return catalog.coupon(rng, account.start) | {"id": id}


def coupon_id(account: Account, discount: Object) -> str:
    """The coupon that a discount stands for, also through a promotion code."""
    coupon = (discount.get("source") or {}).get("coupon")
    if isinstance(coupon, str):
        return coupon
    row = account.tables["promotion_codes"].rows.get(discount.get("promotion_code") or "")
    return str(row.content()["promotion"]["coupon"]) if row else ""
