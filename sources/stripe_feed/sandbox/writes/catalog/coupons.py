"""`/v1/coupons`: create, update, delete."""

from __future__ import annotations

from ...protocol.errors import Refusal, required
from ...protocol.parameters import Params
from ...samples.values import Object
from ...state import mutations
from ...state.api_versions import deleted_stub
from ...world import World
from ..records import (
    add,
    change,
    check_currency,
    check_id_is_free,
    check_minimum,
    object_in_path,
    to_fields,
)

FIVE_YEARS = 5 * 366 * 86_400
_EMPTY: Object = {
    "amount_off": None,
    "applies_to": None,
    "currency_options": {},
    "currency": None,
    "duration": "once",
    "duration_in_months": None,
    "max_redemptions": None,
    "metadata": {},
    "name": None,
    "percent_off": None,
    "redeem_by": None,
    "times_redeemed": 0,
    "valid": True,
}


def create(account: World, id: str, given: Params) -> Object:
    _check(account, given)
    id = given.get("id") or account.rng.word(8)
    check_id_is_free(account, "coupons", id)
    fields = to_fields(_EMPTY, given, {})
    if given.get("currency"):
        fields["currency"] = check_currency(given["currency"])
    return add(account, "coupons", _EMPTY | fields | {"id": id})


def _check(account: World, given: Params) -> None:
    amount, percent = given.get("amount_off"), given.get("percent_off")
    if amount is not None and percent is not None:
        raise Refusal(
            400, "Received both percent_off and amount_off parameters. Please pass in only one."
        )
    if amount is None and percent is None:
        raise required("percent_off")
    if percent is not None and not 0 < percent <= 100:
        raise Refusal(
            400,
            f"Invalid percent_off: {percent}. It must be between 0 and 100.",
            param="percent_off",
        )
    check_minimum(1, amount, "amount_off")
    if amount is not None and not given.get("currency"):
        raise required("currency")
    if given.get("duration") == "repeating" and given.get("duration_in_months") is None:
        raise required("duration_in_months")
    redeem_by = given.get("redeem_by")
    if redeem_by is not None and not account.now < redeem_by <= account.now + FIVE_YEARS:
        raise Refusal(
            400, "redeem_by must be in the future, and within five years.", param="redeem_by"
        )


def update(account: World, id: str, given: Params) -> Object:
    before = object_in_path(account, "coupons", id)
    return change(account, "coupons", id, to_fields(before, given, {}))


def delete(account: World, id: str, given: Params) -> Object:
    """Delete a coupon. Its discounts stay."""
    object_in_path(account, "coupons", id)
    mutations.delete(account, "coupons", id)
    return deleted_stub("coupon", id)
