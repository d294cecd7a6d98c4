"""Build the events of a change: their types, the object, and its previous attributes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from ..samples.values import Object
from .account import SHOWN, Account
from .api_versions import deleted_stub, is_current, previous_attributes, render
from .discounts import discount_content
from .kinds import KINDS
from .mutation import Mutation


class EventDraft(NamedTuple):
    """An event before it has an id. `table` may name a kind that has no table here."""

    type: str
    table: str
    id: str
    raw: bytes
    previous_attributes: Object | None = None
    sides: tuple[Object | None, Object] | None = None  # the stored object before and after


def drafts_of(
    account: Account, mutation: Mutation, raw: bytes, stubs: bool
) -> Iterator[EventDraft]:
    """The events of a mutation; `raw` is the object after it. An update that changes nothing
    is no `*.updated`.
    """
    table, version = mutation.table, account.api_version
    content = mutation.after or mutation.before or {}
    rendered = render(account, table, content, version)
    if not is_current(version):
        raw = msgspec.json.encode(rendered)
    is_stub = stubs and mutation.operation == "deleted"
    if is_stub:
        raw = msgspec.json.encode(deleted_stub(content["object"], content["id"]))
    sides = None if is_stub else (mutation.before, content)
    changed: Object | None = None
    if mutation.operation == "updated":
        before = render(account, table, mutation.before or {}, version)
        changed = previous_attributes(before, rendered)
        if not changed and not mutation.hidden:
            acts = [type for type in mutation.events if not type.endswith(".updated")]
            yield from (EventDraft(type, table, mutation.id, raw, None, sides) for type in acts)
            return
    for type in mutation.events:
        yield EventDraft(
            type, table, mutation.id, raw, changed if type.endswith(".updated") else None, sides
        )
    yield from _discount_drafts(account, mutation)
    if KINDS[table].summary:
        yield _summary(account, mutation)


def _summary(account: Account, mutation: Mutation) -> EventDraft:
    """The event that tells a customer's whole list, which has no other."""
    kind, owner = KINDS[mutation.table], account.owners[mutation.table, mutation.id]
    rows = [row for row in account.tables[kind.name].rows.values() if row.group == owner]
    shown = [msgspec.Raw(row.raw) for row in rows[:SHOWN]]
    listed = {
        "object": "list",
        "data": shown,
        "has_more": len(rows) > SHOWN,
        "url": f"/v1/customer/{owner}/entitlements",
    }
    content = {
        "object": kind.summary,
        kind.owner: owner,
        "entitlements": listed,
        "livemode": account.livemode,
    }
    type = f"{kind.summary}.updated"
    return EventDraft(type, kind.name, owner, msgspec.json.encode(content))


def _discount_drafts(account: Account, mutation: Mutation) -> Iterator[EventDraft]:
    """The events of discounts that a customer or a subscription got, changed or lost."""
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
    """The discounts of an object by id; a subscription holds only their ids."""
    if holder is None:
        return {}
    if "discounts" in holder:
        discounts = (
            discount if isinstance(discount, dict) else discount_content(account, discount, holder)
            for discount in holder["discounts"] or ()
        )
        return {discount["id"]: discount for discount in discounts}
    discount = holder.get("discount")
    return {discount.get("id", ""): discount} if discount else {}


def _discount_changed(account: Account, before: Object, after: Object) -> Iterator[EventDraft]:
    if before != after:
        before_shown, shown = (
            render(account, "discounts", side, account.api_version) for side in (before, after)
        )
        yield _discount(account, "updated", after)._replace(
            previous_attributes=previous_attributes(before_shown, shown), sides=(before, after)
        )


def _discount(account: Account, ending: str, discount: Object) -> EventDraft:
    raw = msgspec.json.encode(render(account, "discounts", discount, account.api_version))
    return EventDraft(
        f"customer.discount.{ending}",
        "discounts",
        discount.get("id", ""),
        raw,
        sides=(None, discount),
    )


def render_draft(account: Account, draft: EventDraft, version: str) -> EventDraft:
    """The draft in the shape of another API version than the account's."""
    if (
        draft.sides is None
        or version == account.api_version
        or (is_current(version) and is_current(account.api_version))
    ):
        return draft
    table = "invoices" if draft.table == "previews" else draft.table
    before, after = (render(account, table, side or {}, version) for side in draft.sides)
    changed = None if draft.previous_attributes is None else previous_attributes(before, after)
    return draft._replace(raw=msgspec.json.encode(after), previous_attributes=changed)
