"""What changed in the end: the changes of a span, folded per object."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

from ..extract.tables.diff import Image, difference_that_counts, paths, with_lists_of
from .change import Change, iso
from .storage.store import FeedStore


@dataclass(frozen=True, slots=True)
class Net:
    """One object's change over a span: as it was before the first change, and as it is after the
    last.

    `op`, `before` and `after` as in `Change`. `changed`: what differs between the two. `changes`:
    how many there were.
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

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
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


def net(store: FeedStore, after: int, upto: int, resources: Sequence[str] = ()) -> Iterator[Net]:
    """Fold the changes behind `after` up to `upto`, per object, in the order of their last ones.

    Created and deleted within is nothing; deleted and created again is an update; fields that end
    as they began are not among `changed`, and an update that ends where it began is nothing.
    Changes that arrived late never end it, for newer ones stand; it begins with them where they
    lead to what it would begin with.
    """
    where = "".join(f" and resource in ({', '.join('?' * len(resources))})" for _ in resources[:1])
    span = f"from log where position > ? and position <= ?{where}"
    grouped = f"select min(position), max(position), count(*) {span} and not late group by resource, object_id order by 2"
    with store.transaction("deferred") as db:
        numbers = array(
            "q", chain.from_iterable(db.execute(grouped, (after, upto, *resources)))
        )  # 24 bytes per object
        late: dict[tuple[str, str], list[int]] = {}
        for position, *of in db.execute(
            f"select position, resource, object_id {span} and late", (after, upto, *resources)
        ):
            late.setdefault((of[0], of[1]), []).append(position)
    spans = iter(numbers)
    for low, high, count in zip(spans, spans, spans, strict=True):
        first, last = store.at(low), store.at(high)
        if first is not None and last is not None:  # else pruned meanwhile
            first = _begun(store, first, late.get((first.resource, first.object_id), []))
            found = _folded(store, first, last, count + first.late)
            if found is not None:
                yield found


def _begun(store: FeedStore, first: Change, late: Sequence[int]) -> Change:
    """The change that came before all others of a span: one that arrived late, where the others go
    on from it.
    """
    left = [one for one in map(store.at, late) if one is not None and one.offset > first.offset]
    while (one := next((one for one in left if _leads_to(one, first)), None)) is not None:
        left.remove(one)
        first = one
    return first


def _leads_to(one: Change, other: Change) -> bool:
    before = other.before
    if (
        one.occurred_at > other.occurred_at
        or one.api_version != other.api_version
        or before is None
        or one.after is None
    ):
        return False
    return not difference_that_counts(one.after, before) and not difference_that_counts(
        before, one.after
    )


def between(store: FeedStore, first: Change, last: Change) -> Net | None:
    """The net of one object's changes from `first` to `last`; nothing where it ends as it began."""
    (count,) = store.ask(
        "select count(*) from log where position between ? and ? and not late and resource = ? and object_id = ?",
        *sorted((first.offset, last.offset)),
        last.resource,
        last.object_id,
    )[0]
    return _folded(store, first, last, count + first.late)


def as_change(found: Net) -> Change:
    """A net change in the form of its last change: `op`, `changed` and `before` are those of the
    whole.
    """
    if found.changes == 1:
        return found.last
    before, after, quality = found.before, found.after, "none"
    if found.op == "c":
        quality = "exact"
    elif before is not None:
        quality = (
            "derived"
            if "derived" in (found.first.before_quality, found.last.before_quality)
            else "exact"
        )
    previous = before if found.op == "d" else _difference(found.first, found.last, before, after)
    return replace(
        found.last, op=found.op, changed=found.changed, previous=previous, before_quality=quality
    )


def _folded(store: FeedStore, first: Change, last: Change, count: int) -> Net | None:
    existed, exists = first.op in ("u", "d"), last.op != "d"
    if not existed and not exists:
        return None
    op = first.op if not existed else "u" if exists else "d"
    before = first.before if existed else None
    changed = _changed(store, first, last, before) if op == "u" else []
    if op == "u" and not changed and before is not None:
        return None
    return Net(
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
    )


def previous_of(found: Net) -> Image | None:
    """The old values of what `changed` names; nothing where an image is not known."""
    return _difference(found.first, found.last, found.before, found.after)


def _difference(
    first: Change, last: Change, before: Image | None, after: Image | None
) -> Image | None:
    """Where one of two images was made of a row, which holds lists in another form, these count by
    their items.
    """
    if before is None or after is None:
        return None
    if {first.origin, last.origin} != {"event"}:
        before = with_lists_of(
            before,
            after,
            [name for name in after if _is_list(after[name]) and _is_list(before.get(name))],
        )
    return difference_that_counts(before, after)


def _is_list(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.get("object") == "list"
        and isinstance(value.get("data"), list)
    )


def _changed(store: FeedStore, first: Change, last: Change, before: Image | None) -> list[str]:
    """The paths that differ; where the two images cannot be compared, all that were touched."""
    if before is not None and last.after is not None and first.api_version == last.api_version:
        return paths(_difference(first, last, before, last.after) or {})
    rows = store.ask(
        "select changed from log where resource = ? and object_id = ? and position between ? and ?",
        last.resource,
        last.object_id,
        *sorted((first.offset, last.offset)),
    )
    return list(dict.fromkeys(path for (text,) in rows for path in json.loads(text) or []))
