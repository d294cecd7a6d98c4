"""`expand[]`: ids become objects, and the fields that only come when asked for come."""

from __future__ import annotations

import zlib
from typing import Any

import msgspec

from ..protocol.errors import Refusal, forbidden, not_expandable
from ..samples import catalog, customers, invoices
from ..samples.values import Object, Random
from ..state.account import SHOWN, Account
from ..state.kinds import KIND_OF_OBJECT, KINDS, Kind
from ..state.table import has_text

Path = tuple[str, ...]

DEPTH = 4
INNER = {
    "coupon": "coupon", "customer": "customer", "discounts": "discount", "invoice": "invoice", "price": "price",
    "product": "product", "promotion_code": "promotion_code", "subscription": "subscription",
}  # fmt: skip
"""What the fields of lines, items, discounts and hashes become, which are no kinds of their own."""

NESTED = frozenset(
    {"items", "lines", "parent", "discount", "test_clock", "from_invoice", "transfer_data"}
)
"""Fields on the way to others."""

BECOMES = {
    name: object for kind in KINDS.values() for name, object in kind.expandable.items()
} | INNER
OPT_IN = frozenset(name for kind in KINDS.values() for name in kind.opt_in)


def check_paths(
    account: Account, key: str, table: str, asked: tuple[str, ...], in_list: bool
) -> list[Path]:
    """The paths below an object; refuses what cannot be expanded, and what the key may not read."""
    found = []
    for dotted in asked:
        parts = tuple(dotted.split("."))
        if in_list:
            if parts[0] != "data" or len(parts) < 2:
                raise not_expandable(dotted, f"data.{dotted}")
            parts = parts[1:]
        if len(parts) > DEPTH:
            raise Refusal(
                400, f"You cannot expand more than {DEPTH} levels of a property.", param="expand"
            )
        _check(table, parts, dotted)
        _permit(account, key, parts)
        found.append(parts)
    return found


def _check(table: str, parts: Path, dotted: str) -> None:
    """Each path must at least begin with a field of the object, and end in one that can be
    expanded.
    """
    last, first, kind = parts[-1], parts[0], KINDS[table]
    begins = first in kind.opt_in or first in BECOMES or first in NESTED
    ends = last in BECOMES or last in OPT_IN
    own = len(parts) > 1 or first in kind.opt_in or first in kind.expandable
    if not (begins and ends and own):
        raise not_expandable(dotted)


def _permit(account: Account, key: str, parts: Path) -> None:
    """What is expanded needs its own permission."""
    for part in parts:
        kind = KIND_OF_OBJECT.get(BECOMES.get(part, ""))
        if kind and not account.is_allowed(key, kind.permission):
            raise forbidden(key, account.id, [kind.permission])


def expand(account: Account, table: str, raw: bytes, check_paths: list[Path]) -> bytes:
    """The same object with these paths filled in; without a path into it, a field keeps its bytes."""
    found = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    whole: dict[str, Any] = dict(found)
    content: Object | None = None
    for path in check_paths:
        first = path[0]
        if first in KINDS[table].opt_in and first not in whole:
            content = content or msgspec.json.decode(raw)
            whole[first] = opt_in_value(account, table, content, first)
        elif isinstance(whole.get(first), msgspec.Raw):
            whole[first] = msgspec.json.decode(whole[first])
        if first in whole:
            _walk(account, whole, path)
    return msgspec.json.encode(whole)


def _walk(account: Account, holder: Any, path: Path) -> None:
    if isinstance(holder, list):
        for one in holder:
            _walk(account, one, path)
        return
    if not isinstance(holder, dict) or path[0] not in holder:
        return
    name, rest = path[0], path[1:]
    held, becomes = holder[name], _becomes(holder, name)
    holder[name] = held = (
        [_object(account, becomes, one) for one in held]
        if isinstance(held, list)
        else _object(account, becomes, held)
    )
    if rest:
        _walk(account, held, rest)


def _becomes(holder: Object, name: str) -> str:
    """The kind of object that a field becomes."""
    kind = KIND_OF_OBJECT.get(_text(holder.get("object")))
    return (kind.expandable if kind else {}).get(name) or INNER.get(name, "")


def _text(value: Any) -> str:
    return bytes(value).decode().strip('"') if isinstance(value, msgspec.Raw) else str(value)


def _object(account: Account, becomes: str, held: Any) -> Any:
    """The object that an id stands for; a stub of those that the sandbox does not hold."""
    if not isinstance(held, str) or not becomes:
        return held
    if becomes == "test_clock":
        return account.clocks.get(held, held)
    kind = KIND_OF_OBJECT.get(becomes)
    if kind is None:
        return {"id": held, "object": becomes}
    row = account.tables[kind.name].rows.get(held)
    if row is not None:
        return row.content()
    if held in account.deleted[kind.name]:
        return {"id": held, "object": becomes, "deleted": True}
    return held


def opt_in_value(account: Account, table: str, content: Object, field: str) -> Any:
    """A field that only comes when expanded, as the object shows it."""
    found = full_value(account, table, content, field)
    for sublist in KINDS[table].sublists:
        if sublist.field == field:
            url = sublist.url(content["id"])
            more = len(found) > SHOWN
            return {"object": "list", "data": found[:SHOWN], "has_more": more, "url": url}
    return found


def full_value(account: Account, table: str, content: Object, field: str) -> Any:
    """All of it: what was given, or what follows from the id."""
    given = account.opt_in_values.get(content["id"], {})
    if field in given and not isinstance(given[field], int):
        return given[field]
    rng = Random(f"{account.seed} {content['id']} {field}")
    rng.account, rng.livemode = account.id, account.livemode
    draw = zlib.crc32(f"{content['id']} {field}".encode())
    kind = KINDS[table]
    for sublist in kind.sublists:
        if sublist.field == field and sublist.object in KIND_OF_OBJECT:
            return _held(account, KIND_OF_OBJECT[sublist.object], kind.object, content["id"])
    match field:
        case "tax_ids":
            return [customers.tax_id(rng, content) for _ in range(given.get(field, draw % 3))]
        case "sources":
            return [customers.card(rng, content["id"]) for _ in range(given.get(field, draw % 2))]
        case "payments":
            return invoices.invoice_payments(rng, content, given.get(field, 1))
        case "tax":
            location = {"country": "DE", "source": "billing_address", "state": None}
            known = {
                "automatic_tax": "supported",
                "ip_address": None,
                "location": location,
                "provider": "stripe",
            }
            return (
                known
                if draw % 3
                else known | {"automatic_tax": "unrecognized_location", "location": None}
            )
        case "cash_balance":
            return customers.cash_balance(rng, content, draw)
        case "invoice_credit_balance":
            return {"eur": -(draw % 5000)} if draw % 4 == 0 else {}
        case "tiers":
            return catalog.tiers(content)
        case "currency_options":
            return catalog.currency_options(content) if content["object"] == "price" else {}
        case "applies_to" | "proration_details":
            return None
        case "line_items":
            return []
    raise not_expandable(field)


def _held(account: Account, kind: Kind, field: str, parent: str) -> list[Object]:
    """The objects of a kind that name their parent in a field, newest first, without hidden ones."""
    table = account.tables[kind.name]
    rows = (row for row in table.older(*table.span(None, None)) if row.group not in kind.hidden)
    return [row.content() for row in filter(has_text(field, parent), rows)]
