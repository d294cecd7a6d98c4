"""Every write that the sandbox knows: its URL, permission, parameters, and what it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from ..protocol.parameters import Params, expands
from ..protocol.write_parameters import checked
from ..samples.values import Object
from ..state.kinds import KINDS
from ..world import World
from ..writes import (
    coupons,
    customers,
    invoice_items,
    invoices,
    prices,
    products,
    quotes,
    subscriptions,
)
from . import expansions
from .execution import Prepared


class Route(NamedTuple):
    """`path` is that of the table if it begins with nothing or `/:id`; `verb` is the SDK's name of
    the parameters; `act` takes account, the id in the path, and the parameters.
    """

    table: str
    method: str
    path: str
    verb: str
    act: Callable[[World, str, Params], Object]

    @property
    def permission(self) -> str:
        return KINDS[self.table].permission.replace("_read", "_write")

    @property
    def place(self) -> tuple[str, str]:
        whole = self.path.startswith("/v1/")
        return self.method, self.path if whole else KINDS[self.table].path + self.path


def prepare(
    account: World, key: str, route: Route, id: str, given: Params, params: Params
) -> Prepared:
    """Refuses parameters that Stripe does not take; `params` is `given` with arrays as lists."""
    values = checked(route.verb, given)
    paths = expansions.check_paths(account, key, route.table, expands(params), in_list=False)

    def act() -> bytes:
        raw = msgspec.json.encode(route.act(account, id, values))
        return expansions.expand(account, route.table, raw, paths) if paths else raw

    return Prepared(sorted(locked(account, route.table, id, values)), act)


def locked(account: World, table: str, id: str, values: Params) -> set[str]:
    """The object, what it belongs to, and what the parameters name: Stripe locks them all."""
    row = account.tables[table].rows.get(id)
    held = row.content() if row else {}
    owners = (
        of.get(name) for of in (held, values) for name in ("customer", "subscription", "invoice")
    )
    return {id, *(owner for owner in owners if isinstance(owner, str))} - {""}


ITEMS = "/v1/subscription_items"
ROWS = (
    Route("customers", "POST", "", "customer_create", customers.created),
    Route("customers", "POST", "/:id", "customer_update", customers.updated),
    Route("customers", "DELETE", "/:id", "customer_delete", customers.deleted),
    Route("customers", "DELETE", "/:id/discount", "customer_delete_discount", customers.discount_deleted),
    Route("customers", "POST", "/:id/tax_ids", "customer_tax_id_create", customers.tax_id_created),
    Route("customers", "DELETE", "/:id/tax_ids/:id", "customer_tax_id_delete", customers.tax_id_deleted),
    Route("products", "POST", "", "product_create", products.created),
    Route("products", "POST", "/:id", "product_update", products.updated),
    Route("products", "DELETE", "/:id", "product_delete", products.deleted),
    Route("prices", "POST", "", "price_create", prices.created),
    Route("prices", "POST", "/:id", "price_update", prices.updated),
    Route("plans", "POST", "", "plan_create", prices.plan_created),
    Route("plans", "POST", "/:id", "plan_update", prices.plan_updated),
    Route("plans", "DELETE", "/:id", "plan_delete", prices.plan_deleted),
    Route("coupons", "POST", "", "coupon_create", coupons.created),
    Route("coupons", "POST", "/:id", "coupon_update", coupons.updated),
    Route("coupons", "DELETE", "/:id", "coupon_delete", coupons.deleted),
    Route("subscriptions", "POST", "", "subscription_create", subscriptions.created),
    Route("subscriptions", "POST", "/:id", "subscription_update", subscriptions.updated),
    Route("subscriptions", "DELETE", "/:id", "subscription_cancel", subscriptions.canceled),
    Route("subscriptions", "POST", "/:id/pause", "subscription_pause", subscriptions.paused),
    Route("subscriptions", "POST", "/:id/resume", "subscription_resume", subscriptions.resumed),
    Route("subscriptions", "DELETE", "/:id/discount", "subscription_delete_discount", subscriptions.discount_deleted),
    Route("subscriptions", "POST", ITEMS, "subscription_item_create", subscriptions.item_created),
    Route("subscriptions", "POST", f"{ITEMS}/:id", "subscription_item_update", subscriptions.item_updated),
    Route("subscriptions", "DELETE", f"{ITEMS}/:id", "subscription_item_delete", subscriptions.item_deleted),
    Route("invoices", "POST", "", "invoice_create", invoices.created),
    Route("invoices", "POST", "/:id", "invoice_update", invoices.updated),
    Route("invoices", "DELETE", "/:id", "invoice_delete", invoices.deleted),
    Route("invoices", "POST", "/:id/finalize", "invoice_finalize_invoice", invoices.finalized),
    Route("invoices", "POST", "/:id/pay", "invoice_pay", invoices.paid),
    Route("invoices", "POST", "/:id/send", "invoice_send_invoice", invoices.sent),
    Route("invoices", "POST", "/:id/void", "invoice_void_invoice", invoices.voided),
    Route("invoices", "POST", "/:id/mark_uncollectible", "invoice_mark_uncollectible", invoices.marked_uncollectible),
    Route("invoiceitems", "POST", "", "invoice_item_create", invoice_items.created),
    Route("invoiceitems", "POST", "/:id", "invoice_item_update", invoice_items.updated),
    Route("invoiceitems", "DELETE", "/:id", "invoice_item_delete", invoice_items.deleted),
    Route("quotes", "POST", "", "quote_create", quotes.created),
    Route("quotes", "POST", "/:id", "quote_update", quotes.updated),
    Route("quotes", "POST", "/:id/finalize", "quote_finalize_quote", quotes.finalized),
    Route("quotes", "POST", "/:id/accept", "quote_accept", quotes.accepted),
    Route("quotes", "POST", "/:id/cancel", "quote_cancel", quotes.canceled),
)  # fmt: skip
ROUTES = {row.place: row for row in ROWS}
