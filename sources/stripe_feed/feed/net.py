"""Net changes: fold all changes of a span into one per object."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from ..extract.tables.diff import Image, align_lists, changed_paths, significant_difference
from ..write.order import KEY_PREFIX
from .change import Change, iso
from .storage.store import FeedStore, conditions

NOT_OURS = f"total(coalesce(request_idempotency_key, '') not glob '{KEY_PREFIX}*')"


@dataclass(frozen=True, slots=True)
class NetChange:
    """One object's change over a span: from before its first change to after its last.

    `op`, `before` and `after` as in `Change`. `changed`: the paths that differ between the two.
    `changes`: how many changes were folded. `origin_push`: whether all of them are our own.
    """

    resource: str
    object_id: str
    customer_id: str | None
    op: str
    changes: int
    first: Change = field(repr=False)
    last: Change = field(repr=False)
    changed: list[str]
    before: Image | None = field(repr=False)
    after: Image | None = field(repr=False)
    origin_push: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        return {
            "resource": self.resource,
            "object_id": self.object_id,
            "customer_id": self.customer_id,
            "op": self.op,
            "changes": self.changes,
            "first_offset": self.first.offset,
            "last_offset": self.last.offset,
            "first_change_id": self.first.change_id,
            "last_change_id": self.last.change_id,
            "occurred_at": iso(self.last.occurred_at),
            "changed": self.changed,
            "before": self.before,
            "after": self.after,
        }


def net_changes(
    store: FeedStore, after: int, upto: int, resources: Sequence[str] = ()
) -> Iterator[NetChange]:
    """Fold the changes after `after` up to `upto`, per object, in the order of their last changes.

    An object created and deleted within is left out; one deleted and created again is an update;
    fields that end as they began are not in `changed`, and an update that ends where it began is
    left out. Late changes never end a net change, for newer ones stand; they begin it if they lead
    to its first before-state.
    """
    where, values = conditions(resources)
    span = f"from log where position > ? and position <= ?{where}"
    grouped = f"select min(position), max(position), count(*), {NOT_OURS} {span} and not late group by account_id, resource, object_id order by 2"
    with store.transaction("deferred") as db:
        numbers = array(
            "q", map(int, chain.from_iterable(db.execute(grouped, (after, upto, *values))))
        )  # 32 bytes per object
        late: dict[tuple[str | None, str, str], list[int]] = {}
        for position, account, table, id in db.execute(
            f"select position, account_id, resource, object_id {span} and late",
            (after, upto, *values),
        ):
            late.setdefault((account, table, id), []).append(position)
    spans = iter(numbers)
    for low, high, count, others in zip(spans, spans, spans, spans, strict=True):
        first, last = store.at(low), store.at(high)
        if first is not None and last is not None:  # else pruned meanwhile
            object_key = (first.account_id, first.resource, first.object_id)
            first = _first_change(store, first, late.get(object_key, []))
            is_ours = not others and first.origin_push
            folded = _fold(store, first, last, count + first.late, is_ours)
            if folded is not None:
                yield folded


def _first_change(store: FeedStore, first: Change, late: Sequence[int]) -> Change:
    """Return the first change of a span: a late one, if the others continue from it."""
    candidates = [
        one for one in map(store.at, late) if one is not None and one.offset > first.offset
    ]
    while (change := next((one for one in candidates if _leads_to(one, first)), None)) is not None:
        candidates.remove(change)
        first = change
    return first


def _leads_to(earlier: Change, later: Change) -> bool:
    """Whether `later` starts from the state that `earlier` ends in."""
    before = later.before
    if (
        earlier.occurred_at > later.occurred_at
        or earlier.api_version != later.api_version
        or before is None
        or earlier.after is None
    ):
        return False
    return not significant_difference(earlier.after, before) and not significant_difference(
        before, earlier.after
    )


def net_between(store: FeedStore, first: Change, last: Change) -> NetChange | None:
    """Return the net change of one object from `first` to `last`; None if it ends as it began."""
    count, others = store.query(
        f"select count(*), {NOT_OURS} from log where position between ? and ? and not late and account_id is ? and resource = ? and object_id = ?",
        *sorted((first.offset, last.offset)),
        last.account_id,
        last.resource,
        last.object_id,
    )[0]
    return _fold(store, first, last, count + first.late, not others and first.origin_push)


def to_change(net_change: NetChange) -> Change:
    """Return a net change as its last change, with `op`, `changed` and `before` of the whole."""
    if net_change.changes == 1:
        return net_change.last
    before, after, quality = net_change.before, net_change.after, "none"
    if net_change.op == "c":
        quality = "exact"
    elif before is not None:
        quality = (
            "derived"
            if "derived" in (net_change.first.before_quality, net_change.last.before_quality)
            else "exact"
        )
    previous = (
        before
        if net_change.op == "d"
        else _difference(net_change.first, net_change.last, before, after)
    )
    return replace(
        net_change.last,
        op=net_change.op,
        changed=net_change.changed,
        previous=previous,
        before_quality=quality,
        request_idempotency_key=net_change.last.request_idempotency_key
        if net_change.origin_push == net_change.last.origin_push
        else None,  # so that a change of somebody else among them counts
    )


def _fold(
    store: FeedStore, first: Change, last: Change, count: int, is_ours: bool
) -> NetChange | None:
    existed, exists = first.op in ("u", "d"), last.op != "d"
    if not existed and not exists:
        return None
    op = first.op
    if existed:
        op = "u" if exists else "d"
    before = first.before if existed else None
    changed = _changed(store, first, last, before) if op == "u" else []
    if op == "u" and not changed and before is not None:
        return None
    return NetChange(
        last.resource,
        last.object_id,
        last.customer_id,
        op,
        count,
        first,
        last,
        changed,
        before,
        last.after,
        is_ours,
    )


def previous_values(net_change: NetChange) -> Image | None:
    """Return the old values of the paths in `changed`; None if an image is unknown."""
    return _difference(net_change.first, net_change.last, net_change.before, net_change.after)


def _difference(
    first: Change, last: Change, before: Image | None, after: Image | None
) -> Image | None:
    """Return the difference of two images; if only one was made from a row, compare lists item by
    item, for rows store them in another form.
    """
    if before is None or after is None:
        return None
    if {first.origin, last.origin} != {"event"}:
        before = align_lists(
            before,
            after,
            [name for name in after if _is_list(after[name]) and _is_list(before.get(name))],
        )
    return significant_difference(before, after)


def _is_list(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.get("object") == "list"
        and isinstance(value.get("data"), list)
    )


def _changed(store: FeedStore, first: Change, last: Change, before: Image | None) -> list[str]:
    """Return the paths that differ; if the images cannot be compared, all changed paths."""
    if before is not None and last.after is not None and first.api_version == last.api_version:
        return changed_paths(_difference(first, last, before, last.after) or {})
    rows = store.query(
        "select changed from log where account_id is ? and resource = ? and object_id = ? and position between ? and ?",
        last.account_id,
        last.resource,
        last.object_id,
        *sorted((first.offset, last.offset)),
    )
    return list(dict.fromkeys(path for (text,) in rows for path in json.loads(text) or []))
