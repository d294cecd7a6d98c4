"""`expand[]`: replace ids by objects, and add the fields that only come when expanded."""

from __future__ import annotations

from typing import Any

import msgspec

from ..protocol.errors import Refusal, forbidden, not_expandable
from ..samples.values import Object, Random
from ..state.account import SHOWN, Account
from ..state.api_versions import deleted_stub
from ..state.kinds import KIND_OF_OBJECT, KINDS, Kind
from ..state.table import has_text

Path = tuple[str, ...]

DEPTH = 4
OBJECT_OF_INNER_FIELD = {
    "coupon": "coupon", "customer": "customer", "discounts": "discount", "invoice": "invoice", "price": "price",
    "product": "product", "promotion_code": "promotion_code", "subscription": "subscription",
}  # fmt: skip
"""Field -> object name, for fields of objects that have no row: lines, items, discounts, hashes."""

FIELDS_WITH_INNER = frozenset(
    {"items", "lines", "parent", "discount", "test_clock", "from_invoice", "transfer_data"}
)
"""Fields that are not ids, but that a path may lead through."""

OBJECT_OF_FIELD = {
    name: object for kind in KINDS.values() for name, object in kind.expandable.items()
} | OBJECT_OF_INNER_FIELD
"""All expandable fields -> object name."""
OPT_IN_FIELDS = frozenset(name for kind in KINDS.values() for name in kind.opt_in)


def check_paths(
    account: Account, key: str, table: str, requested: tuple[str, ...], in_list: bool
) -> list[Path]:
    """The paths below an object. Refuses those that cannot be expanded or that the key may not
    read.
    """
    paths = []
    for dotted in requested:
        path = tuple(dotted.split("."))
        if in_list:
            if path[0] != "data" or len(path) < 2:
                raise not_expandable(dotted, f"data.{dotted}")
            path = path[1:]
        if len(path) > DEPTH:
            raise Refusal(
                400, f"You cannot expand more than {DEPTH} levels of a property.", param="expand"
            )
        _check_path(table, path, dotted)
        _check_permissions(account, key, path)
        paths.append(path)
    return paths


def _check_path(table: str, path: Path, dotted: str) -> None:
    """Refuse a path unless it begins with a field of the object and ends with an expandable field."""
    last, first, kind = path[-1], path[0], KINDS[table]
    begins = first in kind.opt_in or first in OBJECT_OF_FIELD or first in FIELDS_WITH_INNER
    ends = last in OBJECT_OF_FIELD or last in OPT_IN_FIELDS
    own = len(path) > 1 or first in kind.opt_in or first in kind.expandable
    if not (begins and ends and own):
        raise not_expandable(dotted)


def _check_permissions(account: Account, key: str, path: Path) -> None:
    """Refuse a path if the key lacks the permission of an object on it."""
    for name in path:
        kind = KIND_OF_OBJECT.get(OBJECT_OF_FIELD.get(name, ""))
        if kind and not account.is_allowed(key, kind.permission):
            raise forbidden(key, account.id, [kind.permission])


def expand(account: Account, table: str, raw: bytes, paths: list[Path]) -> bytes:
    """The object with these paths expanded. Other fields keep their exact bytes."""
    raw_fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    fields: dict[str, Any] = dict(raw_fields)
    content: Object | None = None
    for path in paths:
        name = path[0]
        if name in KINDS[table].opt_in and name not in fields:
            content = content or msgspec.json.decode(raw)
            fields[name] = opt_in_value(account, table, content, name)
        elif isinstance(fields.get(name), msgspec.Raw):
            fields[name] = msgspec.json.decode(fields[name])
        if name in fields:
            _walk(account, fields, path)
    return msgspec.json.encode(fields)


def _walk(account: Account, holder: Any, path: Path) -> None:
    if isinstance(holder, list):
        for element in holder:
            _walk(account, element, path)
        return
    if not isinstance(holder, dict) or path[0] not in holder:
        return
    name, rest = path[0], path[1:]
    value, object_name = holder[name], _expanded_object_name(holder, name)
    holder[name] = value = (
        [_object(account, object_name, element) for element in value]
        if isinstance(value, list)
        else _object(account, object_name, value)
    )
    if rest:
        _walk(account, value, rest)


def _expanded_object_name(holder: Object, name: str) -> str:
    """The name of the object that a field's id stands for."""
    kind = KIND_OF_OBJECT.get(_decoded_text(holder.get("object")))
    return (kind.expandable if kind else {}).get(name) or OBJECT_OF_INNER_FIELD.get(name, "")


def _decoded_text(value: Any) -> str:
    return bytes(value).decode().strip('"') if isinstance(value, msgspec.Raw) else str(value)


def _object(account: Account, object_name: str, value: Any) -> Any:
    """The object that an id stands for. An object of a kind without a row becomes a stub."""
    if not isinstance(value, str) or not object_name:
        return value
    if object_name == "test_clock":
        return account.clocks.get(value, value)
    kind = KIND_OF_OBJECT.get(object_name)
    if kind is None:
        return {"id": value, "object": object_name}
    row = account.tables[kind.name].rows.get(value)
    if row is not None:
        return row.content()
    if value in account.deleted[kind.name]:
        return deleted_stub(object_name, value)
    return value


def opt_in_value(account: Account, table: str, content: Object, field: str) -> Any:
    """A field that only comes when expanded, as the object shows it."""
    value = full_value(account, table, content, field)
    for sublist in KINDS[table].sublists:
        if sublist.field == field:
            url = sublist.url(content["id"])
            more = len(value) > SHOWN
            return {"object": "list", "data": value[:SHOWN], "has_more": more, "url": url}
    return value


def full_value(account: Account, table: str, content: Object, field: str) -> Any:
    """The complete value of such a field: the given one, or one that follows from the object's id."""
    given = account.opt_in_values.get(content["id"], {})
    if field in given and not isinstance(given[field], int):
        return given[field]
    kind = KINDS[table]
    for sublist in kind.sublists:
        if sublist.field == field and sublist.object in KIND_OF_OBJECT:
            return _children_of_kind(
                account, KIND_OF_OBJECT[sublist.object], kind.object, content["id"]
            )
    sample = kind.opt_in.get(field)
    if sample is None:
        raise not_expandable(field)
    rng = Random(f"{account.seed} {content['id']} {field}")
    rng.account, rng.livemode = account.id, account.livemode
    return sample(rng, content, given.get(field))


def _children_of_kind(account: Account, kind: Kind, field: str, parent: str) -> list[Object]:
    """The objects of a kind whose field names the parent, newest first, without hidden groups."""
    table = account.tables[kind.name]
    rows = (row for row in table.older(*table.span(None, None)) if row.group not in kind.hidden)
    return [row.content() for row in filter(has_text(field, parent), rows)]
