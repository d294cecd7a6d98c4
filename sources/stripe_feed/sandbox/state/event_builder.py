"""What Stripe records of a change: which events, of which object, and what that object was before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from ..samples.customers import discount_of
from ..samples.values import Object
from .account import Account
from .api_versions import deleted_stub, is_current, previous_attributes, render
from .kinds import KINDS
from .mutation import Mutation


class EventDraft(NamedTuple):
    """An event before it has an id; `table` names a kind of object, also of those that have no
    table here.
    """

    type: str
    table: str
    id: str
    raw: bytes
    previous_attributes: Object | None = None
    sides: tuple[Object | None, Object] | None = None  # before and after, as they are stored


def drafts_of(
    account: Account, mutation: Mutation, raw: bytes, stubs: bool
) -> Iterator[EventDraft]:
    """The events of a mutation; `raw` is the object after it. An update that changes nothing has
    none.
    """
    now, version, table = (
        mutation.after or mutation.before or {},
        account.api_version,
        mutation.table,
    )
    shown = now if is_current(version) else render(account, table, now, version)
    if not is_current(version):
        raw = msgspec.json.encode(shown)
    if stubs and mutation.operation == "deleted":
        raw = msgspec.json.encode(deleted_stub(now))
    sides = None if stubs and mutation.operation == "deleted" else (mutation.before, now)
    changed: Object | None = None
    if mutation.operation == "updated":
        before = mutation.before or {}
        changed = previous_attributes(
            before if is_current(version) else render(account, table, before, version), shown
        )
        if not changed and not mutation.hidden:
            return
    for type in mutation.events:
        yield EventDraft(
            type, table, mutation.id, raw, changed if type.endswith(".updated") else None, sides
        )
    yield from _discount_drafts(account, mutation)


def _discount_drafts(account: Account, mutation: Mutation) -> Iterator[EventDraft]:
    """What a customer or a subscription gained or lost: Stripe tells of it apart."""
    if not KINDS[mutation.table].discount_events or mutation.after is None:
        return
    before, after = discounts_of(account, mutation.before), discounts_of(account, mutation.after)
    if "discounts" not in mutation.after and before and after:
        yield from _discount_changed(
            account, next(iter(before.values())), next(iter(after.values()))
        )
        return
    for id in before.keys() - after.keys():
        yield _discount(account, "deleted", before[id])
    for id in after.keys() - before.keys():
        yield _discount(account, "created", after[id])


def discounts_of(account: Account, holder: Object | None) -> dict[str, Object]:
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


def _discount_changed(account: Account, before: Object, after: Object) -> Iterator[EventDraft]:
    if before != after:
        was, shown = (
            render(account, "discounts", side, account.api_version) for side in (before, after)
        )
        yield _discount(account, "updated", after)._replace(
            previous_attributes=previous_attributes(was, shown), sides=(before, after)
        )


def _discount(account: Account, what: str, found: Object) -> EventDraft:
    raw = msgspec.json.encode(render(account, "discounts", found, account.api_version))
    return EventDraft(
        f"customer.discount.{what}", "discounts", found.get("id", ""), raw, sides=(None, found)
    )


def render_draft(account: Account, told: EventDraft, version: str) -> EventDraft:
    """The same in the shape of another version than the account's own."""
    if (
        told.sides is None
        or version == account.api_version
        or (is_current(version) and is_current(account.api_version))
    ):
        return told
    table = "invoices" if told.table == "previews" else told.table
    before, after = (render(account, table, side or {}, version) for side in told.sides)
    changed = None if told.previous_attributes is None else previous_attributes(before, after)
    return told._replace(raw=msgspec.json.encode(after), previous_attributes=changed)
