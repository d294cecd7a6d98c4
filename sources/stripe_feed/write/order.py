"""What an action is asked to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal
from uuid import uuid4

from ..api.forms import ADDRESS
from ..errors import UsageError
from .lookup.filters import ObjectFilter
from .parameters import NULLS, Nulls

IfSeveral = Literal["error", "newest", "oldest", "all"]

IF_SEVERAL = ("error", "newest", "oldest", "all")
LIMIT = 10
KEY_PREFIX = "sf-"  # of idempotency keys: events carry them, so our own writes can be told
_SENDS = "set unset nulls expand dry_run idempotency_key"
FINDS = "id match if_several"
FIELDS: dict[str, str] = {
    "get": "id expand",
    "list": "where limit expand",
    "search": "where limit",
    "create": _SENDS,
    "insert": f"match {_SENDS}",
    "update": f"{FINDS} {_SENDS} only_if_empty",
    "upsert": f"match if_several {_SENDS} only_if_empty",
    "delete": f"{FINDS} dry_run confirm",
    "delete_discount": f"{FINDS} dry_run confirm",
    "list_tax_ids": "id limit expand",
    "delete_tax_id": f"{FINDS} tax_id dry_run confirm",
    "subscriptions.cancel": f"{FINDS} {_SENDS} confirm at_period_end reason comment",
}
"""What each verb uses of an order."""
_OTHERS = f"{FINDS} {_SENDS} confirm"  # all other verbs
FLAGS = frozenset(("at_period_end", "confirm", "dry_run"))
_NAMES = frozenset(("expand", "only_if_empty", "unset"))
LONGEST_KEY = 200  # Stripe takes 255; several matches add the object's id


@dataclass(frozen=True, slots=True)
class Order:
    """What an action is asked to do; the fields that a verb does not use stay as they are.

    `match` finds the object by properties, `set` are parameters (dotted names reach into hashes),
    `unset` names fields to clear.
    """

    id: str | None = None
    tax_id: str | None = None
    match: Mapping[str, Any] | None = None
    set: Mapping[str, Any] | None = None
    unset: tuple[str, ...] = ()
    where: Mapping[str, Any] | ObjectFilter | None = None
    limit: int = LIMIT
    expand: tuple[str, ...] = ()
    nulls: Nulls = "skip"
    only_if_empty: bool | tuple[str, ...] = False
    if_several: IfSeveral = "error"
    at_period_end: bool = False
    reason: str | None = None
    comment: str | None = None
    dry_run: bool = False
    confirm: bool = False
    idempotency_key: str | None = None


def order_fields(table: str, verb: str) -> list[str]:
    """The fields of an order that a verb uses."""
    return (FIELDS.get(f"{table}.{verb}") or FIELDS.get(verb, _OTHERS)).split()


def make_order(table: str, verb: str, given: Mapping[str, Any]) -> Order:
    """Make an order of what a caller gives. Raises `UsageError`."""
    known = order_fields(table, verb)
    if unused := sorted(given.keys() - {*known}):
        raise UsageError(f"{verb} takes no {', '.join(unused)}. It takes {', '.join(known)}.")
    for name in FLAGS & given.keys():
        if not isinstance(given[name], bool):
            raise UsageError(f"{name} is true or false.")
    for name in _NAMES & given.keys():
        is_flag = name == "only_if_empty" and isinstance(given[name], bool)
        if not is_flag and not _is_names(given[name]):
            raise UsageError(f"{name} is a list of names.")
    order = Order(**{**given, **{name: _names(given[name]) for name in _NAMES & given.keys()}})
    for name, choices in (("nulls", NULLS), ("if_several", IF_SEVERAL)):
        if getattr(order, name) not in choices:
            raise UsageError(f"{name} is one of {', '.join(choices)}.")
    if isinstance(order.limit, bool) or not isinstance(order.limit, int) or order.limit < 1:
        raise UsageError("limit is a whole number of at least 1.")
    for name in ("match", "set"):
        pairs = getattr(order, name)
        if pairs is None:
            continue
        if not isinstance(pairs, Mapping) or not all(isinstance(key, str) for key in pairs):
            raise UsageError(f"{name} takes names and values.")
    return replace(order, idempotency_key=_key(order.idempotency_key))


def _is_names(given: Any) -> bool:
    return isinstance(given, str) or (
        isinstance(given, list | tuple | set | frozenset)
        and all(isinstance(name, str) for name in given)
    )


def _names(given: Any) -> Any:
    """Several names, or one; true and false stay."""
    if isinstance(given, bool):
        return given
    return (given,) if isinstance(given, str) else tuple(given)


def _key(given: Any) -> str:
    if given is None:
        return f"{KEY_PREFIX}{uuid4()}"
    if (
        not isinstance(given, str)
        or not 0 < len(given) <= LONGEST_KEY
        or not (given.isascii() and given.isprintable())
        or ADDRESS.search(given)
    ):
        raise UsageError(
            f"An idempotency key has 1 to {LONGEST_KEY} printable ASCII characters and holds no e-mail address."
        )
    return KEY_PREFIX + given.removeprefix(KEY_PREFIX)  # so that the change is known as ours
