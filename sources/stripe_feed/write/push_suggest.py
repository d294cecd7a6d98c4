"""Which parameter the columns of a table are, by their names: a first map of a push."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches

from ..resources.writable import Writable
from .push.definition import Definition

CLOSE = 0.85  # share of equal letters from which names count as one
DEEPEST = 2  # names in a dotted path
UNSUITABLE = frozenset(("hash", "list", "map"))
ALIASES: dict[str, str] = {
    "mail": "email", "emailaddress": "email", "useremail": "email", "customeremail": "email",
    "fullname": "name", "displayname": "name", "customername": "name", "productname": "name",
    "title": "name", "company": "business_name", "companyname": "business_name",
    "phonenumber": "phone", "telephone": "phone", "tel": "phone", "mobile": "phone",
    "notes": "description", "comment": "description", "language": "preferred_locales",
    "street": "address.line1", "address1": "address.line1", "address2": "address.line2",
    "town": "address.city", "zip": "address.postal_code", "zipcode": "address.postal_code",
    "postcode": "address.postal_code", "countrycode": "address.country",
    "cents": "unit_amount", "amountcents": "unit_amount", "currencycode": "currency",
    "customerid": "customer", "productid": "product", "isactive": "active",
}  # fmt: skip
"""Names of columns, without anything but letters and digits, that stand for a parameter."""


def suggest(push: Definition, columns: Iterable[str]) -> dict[str, str]:
    """Suggest a parameter for each column; each takes one, and what is like none becomes metadata."""
    row, found = push.row, dict[str, str]()
    by_name = dict(_named(row))
    for column in columns:
        name = _plain(column)
        close = get_close_matches(name, by_name, 1, CLOSE) if len(name) > 3 else []
        alias = ALIASES.get(name)
        path = by_name.get(name) or (alias if alias in by_name.values() else None)
        path = path or (by_name[close[0]] if close else None)
        if path in (None, *found):
            if column in push.key and push.match != f"metadata.{column}":
                continue  # it tells rows apart, and says nothing of their objects
            path = f"metadata.{re.sub(r'[^A-Za-z0-9_-]+', '_', column)[:40]}"
        found.setdefault(str(path), column)
    return found


def map_in_toml(push: Definition, found: dict[str, str]) -> str:
    """The map of a push, as its file has it."""
    lines = (f"{_quoted(path)} = {_quoted(column)}\n" for path, column in found.items())
    return f"[push.{push.name}.map]\n{''.join(lines)}"


def _quoted(text: str) -> str:
    escaped = re.sub(
        r'[\\"\x00-\x1f\x7f]',
        lambda one: f"\\{one[0]}" if one[0] in '\\"' else f"\\u{ord(one[0]):04x}",
        text,
    )
    return f'"{escaped}"'


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())


def _named(row: Writable) -> Iterator[tuple[str, str]]:
    """The parameters that a cell can hold, by their whole path and by its last part; the shorter path
    comes last, and so wins.
    """
    parameters = {**row.parameters["update"], **row.parameters["create"]}
    paths = [
        path
        for path, parameter in parameters.items()
        if "[" not in path and path.count(".") < DEEPEST and not UNSUITABLE & {*parameter.types}
    ]
    for path in sorted(paths, key=lambda one: (-one.count("."), one != "id")):
        if not path.startswith(("metadata", "shipping.")):
            yield _plain(path.rpartition(".")[2]), path
    for path in paths:
        yield _plain(path), path
