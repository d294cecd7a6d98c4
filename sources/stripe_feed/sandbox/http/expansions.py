"""`expand[]`: replace ids by objects, and add the fields that only come when expanded."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from ..protocol.errors import Refusal, forbidden, not_expandable
from ..samples.annotations import fields_of
from ..samples.values import Object, Random
from ..state.account import SHOWN, Account
from ..state.api_versions import deleted_stub
from ..state.discounts import coupon_content, discount_content
from ..state.kinds import KIND_OF_OBJECT, KINDS, Kind, objects_of
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
        _check_permissions(account, key, table, path)
        paths.append(path)
    return paths


def _check_path(table: str, path: Path, dotted: str) -> None:
    """Refuse a path unless it begins with a field of the object and ends with an expandable field."""
    last, first, kind = path[-1], path[0], KINDS[table]
    if kind.plain:
        if _objects_on_path(kind, path) is None:
            raise not_expandable(dotted)
        return
    begins = first in kind.opt_in or first in OBJECT_OF_FIELD or first in FIELDS_WITH_INNER
    ends = last in OBJECT_OF_FIELD or last in OPT_IN_FIELDS
    own = len(path) > 1 or first in kind.opt_in or first in kind.expandable
    if not (begins and ends and own):
        raise not_expandable(dotted)


def _objects_on_path(kind: Kind, path: Path) -> list[str] | None:
    """The names of the objects on a path, by the SDK's annotations; None if its end cannot be
    expanded.
    """
    fields, opt_in, on_path, expands = fields_of(kind.object), kind.opt_in, list[str](), False
    for name in path:
        if name == "data" and on_path:
            continue
        field = fields.get(name)
        if field is None:
            return None
        expands = name in opt_in or "id" in (field.nature, field.element)
        opt_in = {}
        if field.objects:
            on_path.append(field.objects[0])
            fields = {
                name: field for object in field.objects for name, field in fields_of(object).items()
            }
        else:
            fields = field.inner
    return on_path if expands else None


def _check_permissions(account: Account, key: str, table: str, path: Path) -> None:
    """Refuse a path if the key lacks the permission of an object on it."""
    if KINDS[table].plain:
        names = _objects_on_path(KINDS[table], path) or []
    else:
        names = [OBJECT_OF_FIELD.get(name, "") for name in path]
    for name in names:
        kind = KIND_OF_OBJECT.get(name)
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


def expand_embedded(account: Account, raw: bytes, dotted: Iterable[str]) -> bytes:
    """An object without a kind of its own, as lines and items, with fields below `data` expanded."""
    holder = msgspec.json.decode(raw)
    for path in dotted:
        names = path.split(".")
        if names[0] != "data" or len(names) < 2 or names[1] not in OBJECT_OF_INNER_FIELD:
            raise not_expandable(path, f"data.{path}")
        _walk(account, holder, tuple(names[1:]))
    return msgspec.json.encode(holder)


def _walk(account: Account, holder: Any, path: Path) -> None:
    if isinstance(holder, list):
        for element in holder:
            _walk(account, element, path)
        return
    if not isinstance(holder, dict) or path[0] not in holder:
        return
    name, rest = path[0], path[1:]
    value, object_names = holder[name], _expanded_object_names(holder, name)
    if object_names == ("discount",):
        content = msgspec.json.decode(msgspec.json.encode(holder))
        value = [_discount(account, element, content) for element in value]
    holder[name] = value = (
        [_first_object(account, object_names, element) for element in value]
        if isinstance(value, list)
        else _first_object(account, object_names, value)
    )
    if rest:
        _walk(account, value, rest)


def _expanded_object_names(holder: Object, name: str) -> tuple[str, ...]:
    """The names of the objects that a field's id may stand for."""
    kind = KIND_OF_OBJECT.get(_decoded_text(holder.get("object")))
    inner = OBJECT_OF_INNER_FIELD.get(name) or (name if name in KIND_OF_OBJECT else "")
    return (objects_of(kind, name) if kind else ()) or (inner,)


def _discount(account: Account, value: Any, holder: Object) -> Any:
    return discount_content(account, value, holder) if isinstance(value, str) else value


def _first_object(account: Account, object_names: tuple[str, ...], value: Any) -> Any:
    """The object that an id stands for, of the first kind that has it."""
    found = value
    for name in object_names:
        found = _object(account, name, value)
        if found is not value and (len(object_names) == 1 or name in KIND_OF_OBJECT):
            break
    return found


def _decoded_text(value: Any) -> str:
    return bytes(value).decode().strip('"') if isinstance(value, msgspec.Raw) else str(value)


def _object(account: Account, object_name: str, value: Any) -> Any:
    """The object that an id stands for. An object of a kind without a row becomes a stub."""
    if not isinstance(value, str) or not object_name:
        return value
    if object_name == "test_clock":
        return account.clocks.get(value, value)
    if object_name == "coupon":
        return coupon_content(account, value)
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
    kind = KINDS[table]
    for sublist in kind.sublists:
        child = KIND_OF_OBJECT.get(sublist.object)
        if (
            child
            and sublist.field == field
            and (kind.opt_in[field] is None or account.has_held(child.name))
        ):
            return _children_of_kind(account, child, kind.object, content["id"])
    given = account.opt_in_values.get(content["id"], {})
    if field in given and not isinstance(given[field], int):
        return given[field]
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
    if kind.owner:
        return [row.content() for row in rows if row.group == parent]
    return [row.content() for row in filter(has_text(field, parent), rows)]
