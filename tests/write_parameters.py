"""The parameters of Stripe's writes as the SDK's annotations have them; run as a script, it renews the sandbox's table."""

from __future__ import annotations

import importlib
import types
import typing
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import stripe._request_options as options
import typing_extensions

TABLE = Path(__file__).parents[1] / "sources/stripe_feed/sandbox/protocol/write_parameters.tsv"
VERBS = (
    "customer_create", "customer_update", "customer_delete", "customer_delete_discount",
    "customer_tax_id_create", "customer_tax_id_delete",
    "product_create", "product_update", "product_delete", "price_create", "price_update",
    "plan_create", "plan_update", "plan_delete", "coupon_create", "coupon_update", "coupon_delete",
    "subscription_create", "subscription_update", "subscription_cancel", "subscription_pause", "subscription_resume",
    "subscription_delete_discount", "subscription_migrate", "subscription_item_create", "subscription_item_update", "subscription_item_delete",
    "invoice_create", "invoice_update", "invoice_delete", "invoice_finalize_invoice", "invoice_pay", "invoice_send_invoice",
    "invoice_void_invoice", "invoice_mark_uncollectible", "invoice_create_preview",
    "invoice_item_create", "invoice_item_update", "invoice_item_delete",
    "quote_create", "quote_update", "quote_finalize_quote", "quote_accept", "quote_cancel",
)  # fmt: skip
SCALARS = {str: "string", int: "integer", float: "number", bool: "boolean", Decimal: "decimal"}
FREE = (
    "payment_settings.payment_method_options",
    "schedule_details",
    "shipping_cost.shipping_rate_data",
)
"""Hashes that the sandbox takes with anything in them."""
MOST_CHOICES = 30  # of more than these, the sandbox takes any


def table() -> str:
    """All lines: verb, path, kinds, and whether it is required and takes the empty string."""
    rows = (f"{verb}\t{line}" for verb in VERBS for line in lines(verb))
    return "\n".join(("verb\tpath\tkinds\tflags", *rows)) + "\n"


def lines(verb: str) -> Iterator[str]:
    module = importlib.import_module(f"stripe.params._{verb}_params")
    name = "".join(map(str.title, verb.split("_"))) + "Params"
    own = list(fields(getattr(module, name), module, ""))
    yield from own or ["\t\t"]


def fields(hash: Any, module: Any, above: str) -> Iterator[str]:
    scope = {**vars(options), **vars(module), "StripeContext": object}
    for name, annotation in typing_extensions.get_type_hints(hash, scope).items():
        if name in options.RequestOptions.__annotations__ or (name == "expand" and not above):
            continue
        yield from described(annotation, module, above + name, name in hash.__required_keys__)


def described(annotation: Any, module: Any, path: str, required: bool) -> Iterator[str]:
    """A parameter and all below it."""
    parts = list(members(annotation))
    literals = [
        set(typing.get_args(part)) for part in parts if typing.get_origin(part) is typing.Literal
    ]
    choices = sorted(set().union(*literals) - {""})
    kinds = {kind(part) for part in parts} - {""}
    if choices:  # enums are open in the SDK, but not at Stripe
        kinds -= {"string"}
        kinds |= {f"={'|'.join(choices)}"} if len(choices) <= MOST_CHOICES else {"string"}
    if path.endswith(FREE):
        kinds = {"any"}
    flags = ["required"] * required + ["unset"] * ({""} in literals)
    yield f"{path}\t{' '.join(sorted(kinds))}\t{' '.join(flags)}"
    for inner, below in () if path.endswith(FREE) else insides(parts, path):
        if hasattr(inner, "__required_keys__") and below.endswith("."):
            yield from fields(inner, module, below)
        else:
            yield from described(inner, module, below, False)


def members(annotation: Any) -> Iterator[Any]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        for part in typing.get_args(annotation):
            yield from members(part)
    elif annotation is not type(None):
        yield annotation


def kind(part: Any) -> str:
    if hasattr(part, "__required_keys__"):
        return "hash"
    origin = typing.get_origin(part)
    if origin in (list, dict):
        return "list" if origin is list else "map"
    return SCALARS.get(part, "")


def insides(parts: list[Any], path: str) -> Iterator[tuple[Any, str]]:
    for part in parts:
        origin = typing.get_origin(part)
        if hasattr(part, "__required_keys__"):
            yield part, f"{path}."
        elif origin is list:
            yield typing.get_args(part)[0], f"{path}[]"
        elif origin is dict:
            yield typing.get_args(part)[1], f"{path}.*"


if __name__ == "__main__":
    TABLE.write_text(table(), encoding="utf-8")
