"""Images of an object before and after a change, in the form of Stripe's `previous_attributes`.
Pure: parsed JSON in and out.

Nested hashes hold only the keys that changed, arrays the whole old value; inside `metadata`, whose
keys come and go, null means that the key was absent
(https://docs.stripe.com/api/events/object#event_object-data-previous_attributes).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

MAPS = frozenset({"metadata"})  # hashes with keys of the account's own
COPIES = frozenset(
    {"price", "plan"}
)  # objects that are shown inside others as they are now, and change without these

Image = dict[str, Any]


def revert(after: Image, previous: Image) -> Image:
    """The image before a change: `after` with the old values put back."""
    return _reverted(after, previous, False)


def _reverted(after: Image, previous: Image, is_map: bool) -> Image:
    found = dict(after)
    for name, old in previous.items():
        now = after.get(name)
        if is_map and old is None:
            found.pop(name, None)
        elif isinstance(old, dict) and isinstance(now, dict):
            found[name] = _reverted(now, old, name in MAPS)
        else:
            found[name] = old
    return found


def difference(before: Image, after: Image) -> Image:
    """The old values of what changed; null for keys that appeared. `revert(after,
    difference(before, after))` gives `before`.
    """
    return dict(_differences(before, after))


def difference_that_counts(before: Image, after: Image) -> Image:
    """The same without what differs only in copies of other objects, such as the price inside an
    item.
    """
    names = difference(counted(before), counted(after)).keys()
    return {name: old for name, old in difference(before, after).items() if name in names}


def _differences(before: Image, after: Image) -> Iterator[tuple[str, Any]]:
    for name in {**before, **after}:
        old, new = before.get(name), after.get(name)
        if _is_same(old, new):
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            yield name, difference(old, new)
        else:
            yield name, old


def _is_same(old: Any, new: Any) -> bool:
    """Equal as JSON: Python takes 0 for False, also inside an array."""
    if old != new or type(old) is not type(new):
        return False
    if isinstance(old, list):
        return all(map(_is_same, old, new))
    return not isinstance(old, dict) or all(
        _is_same(value, new[name]) for name, value in old.items()
    )


def paths(previous: Image, prefix: str = "") -> list[str]:
    """The dotted paths of what changed: `["status", "metadata.plan"]`."""
    found: list[str] = []
    for name, old in previous.items():
        if isinstance(old, dict) and old:
            found += paths(old, f"{prefix}{name}.")
        else:
            found.append(f"{prefix}{name}")
    return found


def with_lists_of(held: Image, now: Image, fields: Iterable[str]) -> Image:
    """A held image with its embedded lists in the form and order of the object as it is now: tables
    have no order, and hold them whole. Of a list that is cut, the items count that both show.
    """
    found = dict(held)
    for field in fields:
        listed, shown = held.get(field), now.get(field)
        if isinstance(listed, dict) and isinstance(shown, dict):
            found[field] = {**shown, "data": list(_items_of(listed, shown))}
    return found


def _items_of(listed: Image, shown: Image) -> Iterator[Image]:
    old = {item["id"]: item for item in _named(listed)}
    for item in _named(shown):
        was = old.pop(item["id"], None)
        if was is not None:
            yield item if _is_like(was, item) else was
        elif listed.get("has_more"):
            yield item
    if not shown.get("has_more"):
        yield from old.values()


def _named(listed: Image) -> Iterator[Image]:
    """The items of a list that have an id; others could not be told apart."""
    data = listed.get("data")
    for item in data if isinstance(data, list) else ():
        if isinstance(item, dict) and isinstance(item.get("id"), str):
            yield item


def _is_like(old: Image, new: Image) -> bool:
    one, other = _without_copies(old), _without_copies(new)
    return all(one.get(name) == other.get(name) for name in {**one, **other})


def id_of(value: Any) -> Any:
    """The id of a full object, anything else as it is."""
    return value["id"] if isinstance(value, dict) and "id" in value else value


def counted(image: Image) -> Image:
    """An image as it counts: with the copies of other objects, here and in the items of its lists,
    by their ids.
    """
    found = _without_copies(image)
    for name, value in found.items():
        if isinstance(value, dict) and isinstance(value.get("data"), list):
            found[name] = {
                **value,
                "data": [
                    _without_copies(one) if isinstance(one, dict) else one for one in value["data"]
                ],
            }
    return found


def _without_copies(image: Image) -> Image:
    return {name: id_of(value) if name in COPIES else value for name, value in image.items()}


def in_shape_of(now: Any, old: Any, name: str = "") -> Any:
    """An old value in the shape of another API version: keys that one of them does not have, or has
    null, are as they are now.
    """
    if old is None or now is None or old == now or (name not in MAPS and id_of(old) == id_of(now)):
        return now
    if isinstance(old, dict) and isinstance(now, dict) and name not in MAPS:
        return {key: in_shape_of(value, old.get(key), key) for key, value in now.items()}
    if isinstance(old, list) and isinstance(now, list):
        return _list_in_shape_of(now, old)
    return old


def _list_in_shape_of(now: list[Any], old: list[Any]) -> list[Any]:
    """Items with ids belong together by these, others by their place; as it was where items came or
    went.
    """
    by_id = {
        one["id"]: one for one in old if isinstance(one, dict) and isinstance(one.get("id"), str)
    }
    if len(by_id) == len(old) == len(now) and all(
        isinstance(one, dict) and isinstance(one.get("id"), str) and one["id"] in by_id
        for one in now
    ):
        return [
            {key: in_shape_of(value, by_id[one["id"]].get(key), key) for key, value in one.items()}
            for one in now
        ]
    return (
        [in_shape_of(one, other) for one, other in zip(now, old, strict=True)]
        if len(now) == len(old)
        else old
    )
