"""Every write that the sandbox knows: its URL, permission, parameters, and what it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from ..http import expansions
from ..http.execution import Prepared
from ..protocol.parameters import Params, expands
from ..samples.values import Object
from ..state.kinds import KINDS
from ..world import World
from . import coupons, customers, prices, products
from .parameters import checked


class Route(NamedTuple):
    """`below` follows the path of the table; `verb` is the SDK's name of the parameters; `act`
    takes account, the id in the path, and the parameters.
    """

    table: str
    method: str
    below: str
    verb: str
    act: Callable[[World, str, Params], Object]

    @property
    def permission(self) -> str:
        return KINDS[self.table].permission.replace("_read", "_write")


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
)  # fmt: skip
ROUTES = {(row.method, KINDS[row.table].path + row.below): row for row in ROWS}
