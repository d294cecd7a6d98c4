"""What can be done to Stripe's objects: per object its verbs, and per verb the parameters that it
takes.

The rows are written by people; `parameters/<table>.tsv` comes from the SDK's annotations, and a test
compares the two (`python -m tests.sdk_parameters` writes the files again).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Literal

Type = Literal["text", "int", "bool", "double", "decimal", "timestamp", "hash", "list", "map"]
"""How a parameter is written: `timestamp` Unix seconds, `decimal` a string without an exponent,
`map` a hash whose keys the account chooses.
"""
SearchKind = Literal["string", "token", "number"]
"""What Stripe's search does with a field: `string` finds phrases, `token` is exact, `number` has
ranges.
"""


@dataclass(frozen=True, slots=True)
class Verb:
    """One request that Stripe takes; `{id}` in the path stands for the object's id, `{tax_id}` for that
    of a customer's tax id.
    """

    name: str
    method: Literal["get", "post", "delete"]
    path: str

    @property
    def needs_id(self) -> bool:
        """Whether it is about one object that exists."""
        return "{id}" in self.path


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter, nested ones by path (`items[].price`, `metadata.*`)."""

    path: str
    types: tuple[Type, ...]
    required: bool
    unsettable: bool  # an empty string unsets it
    values: tuple[str, ...]  # those that Stripe documents; it may take others


@dataclass(frozen=True)
class Writable:
    """One kind of object that Stripe lets an account write."""

    table: str
    object: str  # Stripe's name for one: "invoiceitem"
    noun: str  # in sentences: "invoice item"
    path: str
    prefix: str  # of its ids; empty where the account can choose them, or where a plan's can appear
    permission: str  # what a restricted key needs to write it
    verbs: dict[str, Verb]
    searchable: dict[str, SearchKind]
    own_ids: bool  # the account can choose the id when it creates one
    walks: tuple[dict[str, str], ...]  # list filters that together show every object

    @cached_property
    def parameters(self) -> dict[str, dict[str, Parameter]]:
        """The parameters of each verb by path."""
        return _read_parameters(self.table)

    @cached_property
    def hashes(self) -> dict[str, frozenset[str]]:
        """Per verb the paths that have parameters below: those in lists and maps are no parameters."""
        return {
            verb: frozenset(path.rpartition(".")[0] for path in known)
            for verb, known in self.parameters.items()
        }

    @cached_property
    def tops(self) -> dict[str, frozenset[str]]:
        """Per verb the parameters without what is below them."""
        return {
            verb: frozenset(re.split(r"[.\[]", path, maxsplit=1)[0] for path in known)
            for verb, known in self.parameters.items()
        }

    @cached_property
    def required(self) -> dict[str, dict[str, tuple[str, ...]]]:
        """Per verb and hash what the hash needs."""
        found: dict[str, dict[str, tuple[str, ...]]] = {}
        for verb, known in self.parameters.items():
            needed = found.setdefault(verb, {})
            for path, parameter in known.items():
                parent, _, last = path.rpartition(".")
                if parameter.required:
                    needed[parent] = (*needed.get(parent, ()), last)
        return found


@cache
def _read_parameters(table: str) -> dict[str, dict[str, Parameter]]:
    text = files(__package__).joinpath("parameters", f"{table}.tsv").read_text(encoding="utf-8")
    found: dict[str, dict[str, Parameter]] = {}
    for line in text.splitlines()[1:]:
        path, types, verbs, values = line.split("\t")
        for word in verbs.split():
            verb = word.rstrip("*-")
            found.setdefault(verb, {})[path] = Parameter(
                path,
                tuple(types.split("|")),  # type: ignore[arg-type]
                "*" in word,
                "-" in word,
                tuple(values.split("|")) if values else (),
            )
    return found


ROWS = """
customers     customer     customer      /v1/customers     cus_   rak_customer_write
products      product      product       /v1/products      own    rak_product_write
prices        price        price         /v1/prices        -      rak_plan_write
plans         plan         plan          /v1/plans         own    rak_plan_write
coupons       coupon       coupon        /v1/coupons       own    rak_coupon_write
subscriptions subscription subscription  /v1/subscriptions sub_   rak_subscription_write
invoices      invoice      invoice       /v1/invoices      in_    rak_invoice_write
invoice_items invoiceitem  invoice_item  /v1/invoiceitems  ii_    rak_invoice_item_write
quotes        quote        quote         /v1/quotes        qt_    rak_quote_write
"""
"""Table, object, noun, path, prefix of ids (`own`: the account can choose them), permission."""

_VERBS = """
customers     search get list create update delete delete_discount:delete:/discount create_tax_id:post:/tax_ids list_tax_ids:get:/tax_ids delete_tax_id:delete:/tax_ids/{tax_id}
products      search get list create update delete
prices        search get list create update
plans         get list create update delete
coupons       get list create update delete
subscriptions search get list create update cancel:delete pause:post resume:post migrate:post delete_discount:delete:/discount
invoices      search get list create update delete finalize:post void:post pay:post mark_uncollectible:post send:post
invoice_items get list create update delete
quotes        get list create update finalize:post accept:post cancel:post
"""
"""Per table what Stripe takes. Behind verbs that are not the usual ones stands the method, and what
follows the object's path if that is not the verb.
"""

SEARCHABLE = """
customers     email:string name:string phone:string metadata:token created:number
products      name:string description:string url:string active:token shippable:token metadata:token
prices        lookup_key:string product:string active:token currency:token type:token metadata:token
subscriptions status:token metadata:token created:number canceled_at:number
invoices      number:string receipt_number:string status:string subscription:string currency:token customer:token last_finalization_error_code:token last_finalization_error_type:token metadata:token created:number total:number
"""
"""https://docs.stripe.com/search#query-fields-for-each-resource"""

REMOVED_TEXT = """
customers      coupon           Stripe took coupon off customers. Set discounts on the subscription, the invoice or the invoice item.
customers      promotion_code   Stripe took promotion_code off customers. Set discounts with a promotion_code on the subscription, the invoice or the invoice item.
customers      tax_info         Stripe took tax_info off customers. Set tax_id_data when the customer is created.
customers      discount         A customer's discount is no parameter any more. Set discounts on the subscription, the invoice or the invoice item.
subscriptions  coupon           Stripe took coupon off subscriptions. Set discounts=[{"coupon": ...}].
subscriptions  promotion_code   Stripe took promotion_code off subscriptions. Set discounts=[{"promotion_code": ...}].
subscriptions  status           The status of a subscription cannot be set. Use cancel or resume, or pause_collection.
subscriptions  plan             A subscription has no plan. Set items=[{"price": ...}].
subscriptions  price            A subscription has no price. Set items=[{"price": ...}].
subscriptions  quantity         A subscription has no quantity. Set items=[{"price": ..., "quantity": ...}].
subscriptions  prorate          Stripe replaced prorate. Set proration_behavior to create_prorations, always_invoice or none.
invoice_items  price            Stripe replaced price. Set pricing.price.
invoice_items  unit_amount      Stripe took unit_amount off invoice items. Set unit_amount_decimal.
invoices       customer_address The address on an invoice is the customer's, copied when the invoice is finalized. Update the customer.
invoices       customer_name    The name on an invoice is the customer's, copied when the invoice is finalized. Update the customer.
invoices       customer_email   The e-mail address on an invoice is the customer's, copied when the invoice is finalized. Update the customer.
invoices       customer_phone   The phone number on an invoice is the customer's, copied when the invoice is finalized. Update the customer.
invoices       lines            The lines of an invoice are no parameter. Create invoice items with the invoice's id.
invoices       status           The status of an invoice cannot be set. Use finalize, pay, void or mark_uncollectible.
invoices       coupon           Stripe took coupon off invoices. Set discounts=[{"coupon": ...}].
quotes         computed         Stripe computes this part of a quote. Set line_items.
quotes         status           The status of a quote cannot be set. Use finalize, accept or cancel.
prices         amount           A price has no amount. Set unit_amount.
"""
"""Table, name, and why it is no parameter: what older API versions took, or what people look for."""

WALKS: dict[str, tuple[dict[str, str], ...]] = {
    "prices": ({"active": "true"}, {"active": "false"}),
    "products": ({},),
    "subscriptions": ({"status": "all"},),
}
REMOVED: dict[tuple[str, str], str] = {
    (table, name): sentence
    for table, name, sentence in (
        line.split(maxsplit=2) for line in REMOVED_TEXT.strip().splitlines()
    )
}
_USUAL = {"search": "get", "get": "get", "list": "get", "create": "post", "update": "post"}


def _rows(text: str) -> dict[str, list[str]]:
    return {table: rest for table, *rest in map(str.split, text.strip().splitlines())}


def _verb(word: str, path: str) -> Verb:
    name, method, suffix = [*word.split(":"), "", ""][:3]
    method = method or _USUAL.get(name, "delete")
    if name in ("list", "create"):
        return Verb(name, method, path)  # type: ignore[arg-type]
    if name == "search":
        return Verb(name, "get", f"{path}/search")
    if not suffix and name not in ("get", "update") and method != "delete":
        suffix = f"/{name}"
    return Verb(name, method, f"{path}/{{id}}{suffix}")  # type: ignore[arg-type]


def _writable(table: str, row: list[str]) -> Writable:
    object, noun, path, prefix, permission = row
    searchable = dict(word.split(":") for word in _rows(SEARCHABLE).get(table, []))
    return Writable(
        table,
        object,
        noun.replace("_", " "),
        path,
        "" if prefix in ("own", "-") else prefix,
        permission,
        {verb.name: verb for verb in (_verb(word, path) for word in _rows(_VERBS)[table])},
        searchable,  # type: ignore[arg-type]
        prefix == "own",
        WALKS.get(table, ({},)),
    )


WRITABLE: dict[str, Writable] = {table: _writable(table, row) for table, row in _rows(ROWS).items()}
"""Every object that can be written, by table."""
