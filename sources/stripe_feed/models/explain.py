"""Explain a number: the items, prices, changes and invoice lines that make it. And columns: what each
is computed from.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from ..errors import SetupError, UsageError
from .copies import built_relation
from .database import ModelDatabase
from .render import ModelTarget, load_project, render_models
from .run import select_models

if TYPE_CHECKING:
    from sqlglot.lineage import Node

_FACTORS = {"day": "365/12", "week": "52/12", "month": "1", "year": "1/12"}


@dataclass(frozen=True, slots=True)
class MrrPart:
    """One item's share of a customer's MRR, in minor units. `source`: the change or invoice line that
    told it, "" if it is assumed from a neighbouring state.
    """

    subscription_id: str
    subscription_item_id: str
    price_id: str
    currency: str
    quantity: int | None
    unit_amount: Any
    billed_amount: int
    factor: str
    gross_mrr: int
    discount: int
    mrr: int
    basis: str
    source: str
    valid_from: datetime
    valid_to: datetime | None


@dataclass(frozen=True, slots=True)
class MrrExplanation:
    """A customer's MRR at the end of a month (of the running month: at the build), by currency, and
    the parts that add up to it.
    """

    customer_id: str
    month: date
    closes_at: datetime
    totals: dict[str, int]
    parts: tuple[MrrPart, ...]


def explain_mrr(database: ModelDatabase, customer_id: str, month: str) -> MrrExplanation:
    """Explain the MRR of a customer in a month, such as `2026-11`. Raises `UsageError` for a month that
    the models do not know, `SetupError` for a customer that the copy does not have.
    """
    first_day = _parse_month(month)
    months = built_relation(database, "months")
    found = database.execute(f"select closes_at from {months} where month = date '{first_day}'")
    if not found:
        raise UsageError(f"The models have no month {month}: nothing is known of it.")
    closes_at: datetime = found[0][0]
    customer = customer_id.replace("'", "''")
    customers = built_relation(database, "stg_stripe__customers")
    if not database.execute(f"select 1 from {customers} where customer_id = '{customer}'"):
        raise SetupError(
            "The copy has no customer of this id. Check the id, or run `stripe-feed sync`."
        )
    parts = _parts(database, customer, closes_at)
    monthly = built_relation(database, "mrr_monthly_customer")
    totals = database.execute(
        f"select currency, mrr from {monthly} where customer_id = '{customer}' and month = date '{first_day}' order by 1"
    )
    return MrrExplanation(customer_id, first_day, closes_at, dict(totals), tuple(parts))


def _parse_month(month: str) -> date:
    try:
        return date.fromisoformat(f"{month}-01")
    except ValueError:
        raise UsageError(f"A month looks like 2026-11, not {month!r}.") from None


def _parts(database: ModelDatabase, customer: str, closes_at: datetime) -> list[MrrPart]:
    items, net = (built_relation(database, name) for name in ("mrr_items", "int_stripe__net_mrr"))
    in_force = "{0}.valid_from < timestamp '{1}' and ({0}.valid_to is null or {0}.valid_to >= timestamp '{1}')"
    rows = database.execute(
        "select items.subscription_id, items.subscription_item_id, items.price_id, items.currency, items.quantity, "
        "items.unit_amount, items.billed_amount, items.billing_interval, items.billing_interval_count, "
        "net.gross_mrr, net.discount, net.mrr, items.basis, coalesce(items.change_id, items.line_item_id, ''), "
        f"items.valid_from, items.valid_to from {items} as items "
        f"inner join {net} as net on net.subscription_item_id = items.subscription_item_id "
        f"where items.customer_id = '{customer}' and {in_force.format('items', closes_at)} "
        f"and {in_force.format('net', closes_at)} order by 1, 2"
    )
    return [
        MrrPart(*(*row[:7], _factor(row[7], row[8]), *row[9:]))  # the interval becomes the factor
        for row in rows
    ]


def _factor(interval: str, count: int) -> str:
    return _FACTORS[interval] if count == 1 else f"{_FACTORS[interval]} / {count}"


def column_lineage(name: str, column: str) -> list[str]:
    """The columns of raw tables that a model's column is computed from, as `table.column`. Raises
    `UsageError` for an unknown model or column.
    """
    from sqlglot.errors import SqlglotError
    from sqlglot.lineage import lineage

    target = ModelTarget("postgres", "", "stripe", "models")  # its SQL is the quickest to parse
    models = render_models(load_project(), target)
    read = select_models(models, [f"+{name}"])
    sources = {f"{target.schema}.{model}": models[model].sql for model in read}
    try:
        root = lineage(
            column, models[name].sql, sources=sources, dialect=target.type, trim_selects=False
        )
    except (SqlglotError, ValueError) as fault:
        raise UsageError(
            f"No lineage of {name}.{column}: {str(fault).splitlines()[0]} "
            f"`stripe-feed models show {name}` lists the columns."
        ) from None
    return sorted({_raw_column(node) for node in root.walk() if _is_raw(node)})


def _is_raw(node: Node) -> bool:
    return not node.downstream and type(node.source).__name__ == "Table"


def _raw_column(node: Node) -> str:
    table = getattr(node.source, "name", "")
    return f"{table}.{node.name.rpartition('.')[2]}".replace('"', "")
