"""Compute images of an object before and after a change, and their difference in the form of
Stripe's `previous_attributes`. Pure: parsed JSON in and out.

Nested hashes hold only the keys that changed, arrays the whole old value; inside `metadata`, whose
keys come and go, null means that the key was absent
(https://docs.stripe.com/api/events/object#event_object-data-previous_attributes).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Any

MAP_FIELDS = frozenset({"metadata"})  # hashes whose keys the account chooses
# objects that others show inside as they are now; they change without these
EMBEDDED_OBJECTS = frozenset({"price", "plan"})

Image = dict[str, Any]


def revert(after: Image, previous: Image) -> Image:
    """Return the image before a change: `after` with the old values put back."""
    return _reverted(after, previous, False)


def _reverted(after: Image, previous: Image, is_map: bool) -> Image:
    before = dict(after)
    for name, old in previous.items():
        now = after.get(name)
        if is_map and old is None:
            before.pop(name, None)
        elif isinstance(old, dict) and isinstance(now, dict):
            before[name] = _reverted(now, old, name in MAP_FIELDS)
        else:
            before[name] = old
    return before


def difference(before: Image, after: Image) -> Image:
    """Return the old values of what changed; null for keys that appeared. `revert(after,
    difference(before, after))` gives `before`.
    """
    return dict(_differences(before, after))


def significant_difference(before: Image, after: Image) -> Image:
    """Like `difference`, but ignore fields that differ only in embedded objects, such as the price
    inside an item.
    """
    names = difference(normalized_image(before), normalized_image(after)).keys()
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
    """Whether two values are equal as JSON: for Python, 0 equals False."""
    if old != new or type(old) is not type(new):
        return False
    if isinstance(old, list):
        return all(map(_is_same, old, new))
    return not isinstance(old, dict) or all(
        _is_same(value, new[name]) for name, value in old.items()
    )


def changed_paths(previous: Image, prefix: str = "") -> list[str]:
    """Return the dotted paths of what changed, such as `["status", "metadata.plan"]`."""
    changed: list[str] = []
    for name, old in previous.items():
        if isinstance(old, dict) and old:
            changed += changed_paths(old, f"{prefix}{name}.")
        else:
            changed.append(f"{prefix}{name}")
    return changed


def align_lists(stored: Image, now: Image, fields: Iterable[str]) -> Image:
    """Give the embedded lists of a stored image the form and order of the current object: tables
    have no order, hold lists whole, and name the parent where Stripe's items do not. Of a truncated
    list, only the items that both show count.
    """
    aligned, parent = dict(stored), now.get("id")
    for field in fields:
        old_list, new_list = stored.get(field), now.get(field)
        if isinstance(old_list, dict) and isinstance(new_list, dict):
            items = list(_aligned_items(old_list, new_list, parent))
            aligned[field] = {**new_list, "data": items}
    return aligned


def _aligned_items(old_list: Image, new_list: Image, parent: Any) -> Iterator[Image]:
    items = list(_items_with_id(new_list))
    old_items = {item["id"]: item for item in _items_with_id(old_list)}
    if items and isinstance(parent, str):
        known = {name for item in items for name in item}
        old_items = {id: _without_parent(item, known, parent) for id, item in old_items.items()}
    for item in items:
        old_item = old_items.pop(item["id"], None)
        if old_item is not None:
            yield item if _is_same_item(old_item, item) else old_item
        elif old_list.get("has_more"):
            yield item
    if not new_list.get("has_more"):
        yield from old_items.values()


def _without_parent(item: Image, known: Collection[str], parent: str) -> Image:
    """Drop the field that only names the parent, if Stripe's items do not have it."""
    return {name: value for name, value in item.items() if name in known or value != parent}


def _items_with_id(embedded_list: Image) -> Iterator[Image]:
    """The items of a list that have an id; others cannot be matched."""
    data = embedded_list.get("data")
    for item in data if isinstance(data, list) else ():
        if isinstance(item, dict) and isinstance(item.get("id"), str):
            yield item


def _is_same_item(old: Image, new: Image) -> bool:
    old_fields, new_fields = _embedded_to_ids(old), _embedded_to_ids(new)
    return all(
        old_fields.get(name) == new_fields.get(name) for name in {**old_fields, **new_fields}
    )


def id_of(value: Any) -> Any:
    """Return the id of a full object, anything else unchanged."""
    return value["id"] if isinstance(value, dict) and "id" in value else value


def normalized_image(image: Image) -> Image:
    """Replace the embedded objects of an image, and of the items of its lists, with their ids."""
    normalized = _embedded_to_ids(image)
    for name, value in normalized.items():
        if isinstance(value, dict) and isinstance(value.get("data"), list):
            normalized[name] = {
                **value,
                "data": [
                    _embedded_to_ids(item) if isinstance(item, dict) else item
                    for item in value["data"]
                ],
            }
    return normalized


def _embedded_to_ids(image: Image) -> Image:
    return {
        name: id_of(value) if name in EMBEDDED_OBJECTS else value for name, value in image.items()
    }


def project_onto(now: Any, old: Any, name: str = "") -> Any:
    """Return an old value with the schema of another API version: keys that one of both lacks, or
    has null, get their current value.
    """
    if (
        old is None
        or now is None
        or old == now
        or (name not in MAP_FIELDS and id_of(old) == id_of(now))
    ):
        return now
    if isinstance(old, dict) and isinstance(now, dict) and name not in MAP_FIELDS:
        return {key: project_onto(value, old.get(key), key) for key, value in now.items()}
    if isinstance(old, list) and isinstance(now, list):
        return _project_list(now, old)
    return old


def _project_list(now: list[Any], old: list[Any]) -> list[Any]:
    """Match items by id, else by position; return the old list if items came or went."""
    by_id = {
        item["id"]: item
        for item in old
        if isinstance(item, dict) and isinstance(item.get("id"), str)
    }
    if len(by_id) == len(old) == len(now) and all(
        isinstance(item, dict) and isinstance(item.get("id"), str) and item["id"] in by_id
        for item in now
    ):
        return [
            {
                key: project_onto(value, by_id[item["id"]].get(key), key)
                for key, value in item.items()
            }
            for item in now
        ]
    return (
        [project_onto(item, old_item) for item, old_item in zip(now, old, strict=True)]
        if len(now) == len(old)
        else old
    )
