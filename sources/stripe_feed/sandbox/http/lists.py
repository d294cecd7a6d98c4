"""Lists with Stripe's rules: newest first, cursors that must exist, windows of `created`, filters,
`has_more`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import msgspec

from ..protocol.errors import Refusal, bad_choice, missing
from ..protocol.parameters import Params, Query, Span, boolean, span
from ..samples.customers import Object
from ..state.account import NAMES, Account
from ..state.table import Row, Table, naming

Match = Callable[[Row], bool]

SUBSCRIPTION_STATUSES = (
    "active", "canceled", "incomplete", "incomplete_expired", "past_due", "paused", "trialing", "unpaid",
)  # fmt: skip
INVOICE_STATUSES = ("draft", "open", "paid", "uncollectible", "void")


@dataclass(frozen=True, slots=True)
class Listing:
    """What one list endpoint filters by, beside the common parameters."""

    filters: frozenset[str]
    permission: str


def _listing(permission: str, *filters: str) -> Listing:
    return Listing(frozenset({"created", *filters}), permission)


LISTINGS = {
    "customers": _listing("rak_customer_read", "email", "test_clock"),
    "invoices": _listing(
        "rak_invoice_read", "status", "subscription", "customer", "customer_account", "collection_method", "due_date"
    ),
    "subscriptions": _listing(
        "rak_subscription_read", "status", "price", "plan", "customer", "customer_account", "collection_method",
        "current_period_start", "current_period_end", "automatic_tax", "test_clock",
    ),
    "products": _listing("rak_product_read", "active", "ids", "shippable", "type", "url"),
    "plans": _listing("rak_plan_read", "active", "product"),
    "prices": _listing("rak_plan_read", "active", "currency", "product", "type", "lookup_keys", "recurring"),
}  # fmt: skip


def envelope(url: str, rows: Iterable[bytes], has_more: bool) -> bytes:
    more = b"true" if has_more else b"false"
    return (
        b'{"object":"list","data":['
        + b",".join(rows)
        + b'],"has_more":'
        + more
        + b',"url":"'
        + url.encode()
        + b'"}'
    )


def page(account: Account, table: str, query: Query) -> tuple[list[Row], bool]:
    """The rows of one page, newest first, and whether there are more."""
    rows, match = account.tables[table], matcher(table, query.filters)
    first, last = rows.span(query.created.lo, query.created.hi)
    if query.before:
        first = max(
            first, rows.above(cursor(account, table, rows, query.before, "ending_before", match))
        )
        found = taken(rows.newer(first, last), match, query.limit + 1)
        return found[: query.limit][::-1], len(found) > query.limit
    if query.after:
        last = min(
            last, rows.below(cursor(account, table, rows, query.after, "starting_after", match))
        )
    found = taken(rows.older(first, last), match, query.limit + 1)
    return found[: query.limit], len(found) > query.limit


def taken(rows: Iterator[Row], match: Match | None, count: int) -> list[Row]:
    return list(islice(rows if match is None else filter(match, rows), count))


def cursor(
    account: Account, table: str, rows: Table, id: str, param: str, match: Match | None
) -> Row:
    """The row a page starts from. One that is gone, or no longer matches the filters, is refused."""
    row = rows.rows.get(id)
    if row is None or (match and not match(row)):
        raise missing(NAMES[table], id, param, 400)
    return row


def slice_of(rows: Sequence[bytes], query: Query, object: str) -> tuple[list[bytes], bool]:
    """One page of a short list that has an order of its own."""
    ids = [msgspec.json.decode(row, type=Id).id for row in rows]
    first, last = 0, len(rows)
    if query.after:
        first = _place(ids, query.after, object, "starting_after") + 1
    if query.before:
        last = _place(ids, query.before, object, "ending_before")
        first = max(0, last - query.limit)
        return list(rows[first:last]), first > 0
    return list(rows[first : first + query.limit]), first + query.limit < last


def _place(ids: Sequence[str], id: str, object: str, param: str) -> int:
    if id not in ids:
        raise missing(object, id, param, 400)
    return ids.index(id)


class Id(msgspec.Struct):
    id: str


def matcher(table: str, filters: Params) -> Match | None:
    """One condition per filter, and those that hold without any."""
    own = {
        name: value
        for name, value in filters.items()
        if name not in ("status", "active") or table == "products"
    }
    conditions = [
        *_always(table, filters),
        *(_condition(name, value) for name, value in own.items()),
    ]
    if not conditions:
        return None
    return (
        conditions[0]
        if len(conditions) == 1
        else lambda row: all(condition(row) for condition in conditions)
    )


def _always(table: str, filters: Params) -> Iterator[Match]:
    """What a list hides unless it is asked: objects on a test clock, canceled subscriptions,
    archived prices.
    """
    if (
        table in ("customers", "subscriptions")
        and "test_clock" not in filters
        and "customer" not in filters
    ):
        yield lambda row: row.clock is None
    if table == "subscriptions":
        yield from _by_status(filters.get("status"))
    if table == "invoices" and "status" in filters:
        yield _equal("status", _choice("status", filters["status"], INVOICE_STATUSES))
    if table in ("prices", "plans"):
        yield _by_activity(table, filters.get("active"))


def _by_status(status: Any) -> Iterator[Match]:
    match status:
        case "all":
            return
        case None:
            yield lambda row: row.group != "canceled"
        case "ended":
            yield lambda row: row.group in ("canceled", "incomplete_expired")
        case _:
            _choice("status", status, (*SUBSCRIPTION_STATUSES, "all", "ended"))
            yield lambda row: row.group == status


def _by_activity(table: str, active: Any) -> Match:
    """Prices are the active ones unless asked otherwise, plans are both; made from `price_data`:
    never.
    """
    if active is None:
        return (
            (lambda row: row.group != "inline")
            if table == "plans"
            else (lambda row: row.group == "active")
        )
    wanted = "active" if boolean("active", active) else "archived"
    return lambda row: row.group == wanted


def _choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise bad_choice(name, choices)
    return str(value)


def _condition(name: str, value: Any) -> Match:
    match name:
        case "test_clock":
            return lambda row: row.clock == value
        case "active" | "shippable":
            return _content(name, boolean(name, value))
        case "ids" | "lookup_keys":
            return _one_of(name, value)
        case "due_date":
            return _within(span({name: value}, name), lambda found: [found.get("due_date")])
        case "current_period_start" | "current_period_end":
            return _within(
                span({name: value}, name),
                lambda found: [item[name] for item in found["items"]["data"]],
            )
        case "recurring" | "automatic_tax":
            return _inside(name, value)
        case "price" | "plan":
            return _item_has(name, value)
        case "subscription":
            return _of_subscription(value)
        case _:
            return _equal(name, value)


def _equal(name: str, value: Any) -> Match:
    if not isinstance(value, str):
        raise Refusal(400, f"Invalid string: {value}", param=name)
    return naming(name, value)


def _content(name: str, value: Any) -> Match:
    return lambda row: bool(row.content().get(name) == value)


def _one_of(name: str, values: Any) -> Match:
    if not isinstance(values, list):
        raise Refusal(400, "Invalid array", param=name)
    if name == "lookup_keys" and len(values) > 10:
        raise Refusal(400, "Array too long: lookup_keys takes at most 10.", param=name)
    wanted = set(values)
    return (
        (lambda row: row.id in wanted)
        if name == "ids"
        else (lambda row: row.content().get("lookup_key") in wanted)
    )


def _within(bounds: Span, values: Callable[[Object], list[int | None]]) -> Match:
    return lambda row: any(
        value is not None and bounds.has(value) for value in values(row.content())
    )


def _inside(name: str, wanted: Any) -> Match:
    if not isinstance(wanted, dict):
        raise Refusal(400, "Invalid object", param=name)
    wanted = {key: value == "true" if key == "enabled" else value for key, value in wanted.items()}

    def match(row: Row) -> bool:
        held = row.content().get(name) or {}
        return all(held.get(key) == value for key, value in wanted.items())

    return match


def _item_has(name: str, value: Any) -> Match:
    quoted = msgspec.json.encode(value)

    def match(row: Row) -> bool:
        if quoted not in row.raw:
            return False
        return any((item[name] or {}).get("id") == value for item in row.content()["items"]["data"])

    return match


def _of_subscription(value: Any) -> Match:
    quoted = msgspec.json.encode(value)

    def match(row: Row) -> bool:
        details = ((row.content().get("parent") or {}) if quoted in row.raw else {}).get(
            "subscription_details"
        ) or {}
        return bool(details.get("subscription") == value)

    return match
