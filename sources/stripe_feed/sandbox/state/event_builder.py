"""What Stripe records of a change: which events, of which object, and what that object was before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from ..samples.customers import Object, discount_of
from .account import Account
from .api_versions import current, previous, rendered, stub
from .kinds import KINDS
from .mutation import Mutation


class Happening(NamedTuple):
    """An event before it has an id; `table` names a kind of object, also of those that have no
    table here.
    """

    type: str
    table: str
    id: str
    raw: bytes
    previous: Object | None = None
    sides: tuple[Object | None, Object] | None = None  # before and after, as they are stored


def happenings(
    account: Account, mutation: Mutation, raw: bytes, stubs: bool
) -> Iterator[Happening]:
    """The events of a mutation; `raw` is the object after it. An update that changes nothing has
    none.
    """
    now, version, table = (
        mutation.after or mutation.before or {},
        account.api_version,
        mutation.table,
    )
    shown = now if current(version) else rendered(account, table, now, version)
    if not current(version):
        raw = msgspec.json.encode(shown)
    if stubs and mutation.kind == "deleted":
        raw = msgspec.json.encode(stub(now))
    sides = None if stubs and mutation.kind == "deleted" else (mutation.before, now)
    changed: Object | None = None
    if mutation.kind == "updated":
        before = mutation.before or {}
        changed = previous(
            before if current(version) else rendered(account, table, before, version), shown
        )
        if not changed and not mutation.hidden:
            return
    for type in mutation.events:
        yield Happening(
            type, table, mutation.id, raw, changed if type.endswith(".updated") else None, sides
        )
    yield from discounts(account, mutation)


def discounts(account: Account, mutation: Mutation) -> Iterator[Happening]:
    """What a customer or a subscription gained or lost: Stripe tells of it apart."""
    if not KINDS[mutation.table].discount_events or mutation.after is None:
        return
    before, after = held(account, mutation.before), held(account, mutation.after)
    if "discounts" not in mutation.after and before and after:
        yield from _switched(account, next(iter(before.values())), next(iter(after.values())))
        return
    for id in before.keys() - after.keys():
        yield _discount(account, "deleted", before[id])
    for id in after.keys() - before.keys():
        yield _discount(account, "created", after[id])


def held(account: Account, holder: Object | None) -> dict[str, Object]:
    """The discounts of an object by id; a subscription has their ids only."""
    if holder is None:
        return {}
    if "discounts" in holder:
        named = (
            one if isinstance(one, dict) else discount_of(account.id, one, holder)
            for one in holder["discounts"] or ()
        )
        return {one["id"]: one for one in named}
    found = holder.get("discount")
    return {found.get("id", ""): found} if found else {}


def _switched(account: Account, before: Object, after: Object) -> Iterator[Happening]:
    if before != after:
        was, shown = (
            rendered(account, "discounts", side, account.api_version) for side in (before, after)
        )
        yield _discount(account, "updated", after)._replace(
            previous=previous(was, shown), sides=(before, after)
        )


def _discount(account: Account, what: str, found: Object) -> Happening:
    raw = msgspec.json.encode(rendered(account, "discounts", found, account.api_version))
    return Happening(
        f"customer.discount.{what}", "discounts", found.get("id", ""), raw, sides=(None, found)
    )


def shaped(account: Account, told: Happening, version: str) -> Happening:
    """The same in the shape of another version than the account's own."""
    if (
        told.sides is None
        or version == account.api_version
        or (current(version) and current(account.api_version))
    ):
        return told
    table = "invoices" if told.table == "previews" else told.table
    before, after = (rendered(account, table, side or {}, version) for side in told.sides)
    changed = None if told.previous is None else previous(before, after)
    return told._replace(raw=msgspec.json.encode(after), previous=changed)
