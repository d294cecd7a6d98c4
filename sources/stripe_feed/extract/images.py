"""Images of an object before and after a change, in the form of Stripe's `previous_attributes`. Pure: parsed JSON in and out.

Nested hashes hold only the keys that changed, arrays the whole old value; inside `metadata`, whose keys come and go, null means
that the key was absent (https://docs.stripe.com/api/events/object#event_object-data-previous_attributes).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MAPS = frozenset({"metadata"})      # hashes with keys of the account's own

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
    """The old values of what changed; null for keys that appeared. `revert(after, difference(before, after))` gives `before`."""
    return dict(_differences(before, after))


def _differences(before: Image, after: Image) -> Iterator[tuple[str, Any]]:
    for name in {**before, **after}:
        old, new = before.get(name), after.get(name)
        if old == new and type(old) is type(new):
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            yield name, difference(old, new)
        else:
            yield name, old


def paths(previous: Image, prefix: str = "") -> list[str]:
    """The dotted paths of what changed: `["status", "metadata.plan"]`."""
    found: list[str] = []
    for name, old in previous.items():
        if isinstance(old, dict) and old:
            found += paths(old, f"{prefix}{name}.")
        else:
            found.append(f"{prefix}{name}")
    return found
