"""One row per kind of object: name, path, permission, events, list rules and values. A new object of
Stripe needs only its row in one of these modules.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...samples.annotations import fields_of
from .billing import BILLING
from .connect import CONNECT
from .core import CORE
from .issuing import ISSUING, OTHER_PRODUCTS
from .model import Filter, Kind, Operation, Sublist
from .payments import PAYMENTS
from .settings import ACCOUNT_SETTINGS
from .usage import USAGE

__all__ = ["Filter", "Kind", "Operation", "Sublist"]

_ROWS = (*CORE, *PAYMENTS, *BILLING, *USAGE, *CONNECT, *ACCOUNT_SETTINGS, *ISSUING, *OTHER_PRODUCTS)
KINDS = {kind.name: kind for kind in _ROWS}
KIND_OF_OBJECT: dict[str, Kind] = {}
"""Object name -> the first kind whose objects have it."""
for _kind in _ROWS:
    for _object in (_kind.object, *_kind.variants):
        KIND_OF_OBJECT.setdefault(_object, _kind)


def paths_of(kind: Kind) -> Iterator[str]:
    """The paths of its lists: of all its objects, and of those below another object."""
    yield kind.path
    if kind.under:
        yield kind.under


KIND_OF_PATH = {path: kind for kind in _ROWS for path in paths_of(kind)}
EMBEDDED = {kind.name: embedded for kind in KINDS.values() if (embedded := kind.embedded)}
PARENTS = {sublist.children: KINDS[name] for name, sublist in EMBEDDED.items()}
"""Name of embedded objects -> the kind that embeds them."""

OWNED = {
    owners: [kind for kind in _ROWS if kind.owners == owners]
    for owners in dict.fromkeys(kind.owners for kind in _ROWS)
    if owners
}
"""Name of a kind -> the kinds whose objects belong to its objects."""

GROUPS = tuple(dict.fromkeys(kind.group for kind in _ROWS))


def objects_of(kind: Kind, name: str) -> tuple[str, ...]:
    """The names of the objects that the id in a field may stand for; none if it is no such id."""
    if not kind.plain:
        return (kind.expandable[name],) if name in kind.expandable else ()
    field = fields_of(kind.object).get(name)
    if field is None or "id" not in (field.nature, field.element):
        return ()
    return field.objects
