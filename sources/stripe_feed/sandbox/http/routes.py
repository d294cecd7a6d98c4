"""One row per write: method, path, parameters and function."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from ..protocol.parameters import Params, expands
from ..protocol.write_parameters import checked
from ..samples.values import Object
from ..state.kinds import KINDS
from ..world import World
from ..writes import customers, invoice_items, invoices, previews, quotes, subscriptions
from ..writes.catalog import coupons, prices, products
from . import expansions
from .execution import Prepared


class Route(NamedTuple):
    """`path` is whole (`/v1/...`) or follows the path of the table; `verb` is the SDK's name of the
    parameters; `act` takes account, the id in the path, and the parameters.
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
    """Check the parameters. `params` is `given` with arrays as lists."""
    values = checked(route.verb, given)
    paths = expansions.check_paths(account, key, route.table, expands(params), in_list=False)

    def act() -> bytes:
        raw = msgspec.json.encode(route.act(account, id, values))
        return expansions.expand(account, route.table, raw, paths) if paths else raw

    return Prepared(sorted(locked(account, route, id, values)), act)


def locked(account: World, route: Route, id: str, values: Params) -> set[str]:
    """Return the ids to lock: the object, its owners, and the objects that the parameters name."""
    id = id.partition("/")[0]
    if route.path.startswith(ITEMS) and id:
        id = subscriptions.find_subscription(account, id)
    row = account.tables[route.table].rows.get(id)
    held = row.content() if row else {}
    owners = (
        of.get(name) for of in (held, values) for name in ("customer", "subscription", "invoice")
    )
    return {id, *(owner for owner in owners if isinstance(owner, str))} - {""}


ITEMS = "/v1/subscription_items"
ROWS = (
    Route("customers", "POST", "", "customer_create", customers.create),
    Route("customers", "POST", "/:id", "customer_update", customers.update),
    Route("customers", "DELETE", "/:id", "customer_delete", customers.delete),
    Route("customers", "DELETE", "/:id/discount", "customer_delete_discount", customers.delete_discount),
    Route("customers", "POST", "/:id/tax_ids", "customer_tax_id_create", customers.create_tax_id),
    Route("customers", "DELETE", "/:id/tax_ids/:id", "customer_tax_id_delete", customers.delete_tax_id),
    Route("products", "POST", "", "product_create", products.create),
    Route("products", "POST", "/:id", "product_update", products.update),
    Route("products", "DELETE", "/:id", "product_delete", products.delete),
    Route("prices", "POST", "", "price_create", prices.create),
    Route("prices", "POST", "/:id", "price_update", prices.update),
    Route("plans", "POST", "", "plan_create", prices.create_plan),
    Route("plans", "POST", "/:id", "plan_update", prices.update_plan),
    Route("plans", "DELETE", "/:id", "plan_delete", prices.delete_plan),
    Route("coupons", "POST", "", "coupon_create", coupons.create),
    Route("coupons", "POST", "/:id", "coupon_update", coupons.update),
    Route("coupons", "DELETE", "/:id", "coupon_delete", coupons.delete),
    Route("subscriptions", "POST", "", "subscription_create", subscriptions.create),
    Route("subscriptions", "POST", "/:id", "subscription_update", subscriptions.update),
    Route("subscriptions", "DELETE", "/:id", "subscription_cancel", subscriptions.cancel),
    Route("subscriptions", "POST", "/:id/pause", "subscription_pause", subscriptions.pause),
    Route("subscriptions", "POST", "/:id/resume", "subscription_resume", subscriptions.resume),
    Route("subscriptions", "POST", "/:id/migrate", "subscription_migrate", subscriptions.migrate),
    Route("subscriptions", "DELETE", "/:id/discount", "subscription_delete_discount", subscriptions.delete_discount),
    Route("subscriptions", "POST", ITEMS, "subscription_item_create", subscriptions.create_item),
    Route("subscriptions", "POST", f"{ITEMS}/:id", "subscription_item_update", subscriptions.update_item),
    Route("subscriptions", "DELETE", f"{ITEMS}/:id", "subscription_item_delete", subscriptions.delete_item),
    Route("invoices", "POST", "", "invoice_create", invoices.create),
    Route("invoices", "POST", "/create_preview", "invoice_create_preview", previews.create),
    Route("invoices", "POST", "/:id", "invoice_update", invoices.update),
    Route("invoices", "DELETE", "/:id", "invoice_delete", invoices.delete),
    Route("invoices", "POST", "/:id/finalize", "invoice_finalize_invoice", invoices.finalize),
    Route("invoices", "POST", "/:id/pay", "invoice_pay", invoices.pay),
    Route("invoices", "POST", "/:id/send", "invoice_send_invoice", invoices.send),
    Route("invoices", "POST", "/:id/void", "invoice_void_invoice", invoices.void),
    Route("invoices", "POST", "/:id/mark_uncollectible", "invoice_mark_uncollectible", invoices.mark_uncollectible),
    Route("invoiceitems", "POST", "", "invoice_item_create", invoice_items.create),
    Route("invoiceitems", "POST", "/:id", "invoice_item_update", invoice_items.update),
    Route("invoiceitems", "DELETE", "/:id", "invoice_item_delete", invoice_items.delete),
    Route("quotes", "POST", "", "quote_create", quotes.create),
    Route("quotes", "POST", "/:id", "quote_update", quotes.update),
    Route("quotes", "POST", "/:id/finalize", "quote_finalize_quote", quotes.finalize),
    Route("quotes", "POST", "/:id/accept", "quote_accept", quotes.accept),
    Route("quotes", "POST", "/:id/cancel", "quote_cancel", quotes.cancel),
)  # fmt: skip
ROUTES = {row.place: row for row in ROWS}
