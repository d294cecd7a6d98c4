"""The objects beside the one that changed, for rules and templates: its customer, subscription and
invoice, as the copy has them.

They are read for many changes at once, and the destination is closed again. Where it cannot be
opened, that is an error and no null: who asks tries later. What was forgotten is null.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from ..destination.duckdb_file import duckdb_file
from ..destination.locks import patiently
from ..destination.pipeline import lock
from ..destination.state import source_state
from ..errors import SetupError, StripeFeedError
from ..extract.tables.diff import Image
from ..resources import RESOURCES, TABLES
from .change import Change
from .paths import value_at
from .relay import with_client
from .storage.store import FeedStore, marks

BESIDE = {"customer": "customers", "subscription": "subscriptions", "invoice": "invoices"}
"""What can be looked up beside a change, and its table."""

PATHS = {
    "customer": ("customer",),
    "subscription": ("subscription", "parent.subscription_details.subscription"),
    "invoice": ("invoice", "latest_invoice"),
}
FRESH = 60.0  # seconds that an object counts as it was read
MOST = 5_000  # objects in memory
WAIT = 5.0  # seconds for whoever loads
LEFT_ALONE = 1.0  # seconds after a fault, which all who ask meanwhile share

Read = Callable[[str, Sequence[str]], Mapping[str, Image]]
"""A table and ids -> the objects that are there, by id."""


class NotNow(SetupError):
    """The copy cannot be read now, or has not what it should have yet."""


class Lookups:
    """Objects of the copy by id, kept for a minute. It may be shared between threads."""

    def __init__(
        self, store: FeedStore | None, read: Read, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.store, self.read, self.now = store, read, now
        self._turn = threading.Lock()
        self._known: dict[tuple[str, str], tuple[float, Image | None]] = {}
        self._fault: tuple[float, str] | None = None

    def fetch(self, changes: Iterable[Change], roots: Collection[str]) -> None:
        """Read what these changes will be asked for, all at once. Raises `NotNow`."""
        wanted = {
            (BESIDE[root], id)
            for one in changes
            for root in roots
            if not is_own(one, root) and (id := id_of(one, root))
        }
        with self._turn:
            self._read(wanted)

    def of(self, change: Change, roots: Collection[str]) -> dict[str, Image | None]:
        """What is beside a change, by root; null where there is none, or it was forgotten. Raises
        as `fetch`.
        """
        found: dict[str, Image | None] = {
            root: image_of(change) for root in roots if is_own(change, root)
        }
        ids = {root: id_of(change, root) for root in roots if root not in found}
        keys = {root: (BESIDE[root], id) for root, id in ids.items() if id is not None}
        with self._turn:
            self._read(set(keys.values()))
            found |= {root: self._known[keys[root]][1] if root in keys else None for root in ids}
        return {
            root: None if image is not None and self._is_forgotten(image) else image
            for root, image in found.items()
        }

    def one(self, table: str, id: str) -> Image | None:
        """An object as the copy has it now. Raises `SetupError` where it cannot be read."""
        found = self.read(table, [id]).get(id)
        return None if found is None or self._is_forgotten(found) else found

    def _read(self, wanted: Collection[tuple[str, str]]) -> None:
        now = self.now()
        missing = [
            key for key in wanted if key not in self._known or self._known[key][0] < now - FRESH
        ]
        if not missing:
            return
        if self._fault is not None and now < self._fault[0] + LEFT_ALONE:
            raise NotNow(self._fault[1])
        if len(self._known) + len(missing) > MOST:
            self._known = {key: self._known[key] for key in wanted if key in self._known}
        try:
            for table in {table for table, _ in missing}:
                ids = [id for of, id in missing if of == table]
                images = self.read(table, ids)
                self._known |= {(table, id): (now, images.get(id)) for id in ids}
        except StripeFeedError as fault:
            self._fault = self.now(), str(fault)
            raise NotNow(str(fault)) from None

    def _is_forgotten(self, image: Image) -> bool:
        ids = [id for id in (image.get("id"), _id(image.get("customer"))) if isinstance(id, str)]
        query = f"select 1 from forgotten where object_id in ({marks(ids)})"
        return self.store is not None and bool(ids) and bool(self.store.ask(query, *ids))


def _nowhere(table: str, ids: Sequence[str]) -> Mapping[str, Image]:
    raise SetupError(
        f"There is no copy here to look up {table} in. Use a feed that `open_feed` opened."
    )


NOWHERE = Lookups(None, _nowhere)


def is_own(change: Change, root: str) -> bool:
    """Whether the change is of the object itself."""
    return change.resource == BESIDE[root]


def image_of(change: Change) -> Image | None:
    """The object as it is after a change, or was before it went."""
    return change.after if change.op != "d" else change.before


def id_of(change: Change, root: str) -> str | None:
    """The id of what is beside a change."""
    if root == "customer" and change.customer_id is not None:
        return change.customer_id
    image = image_of(change)
    return next(
        (id for path in PATHS[root] if (id := _id(value_at(image, path))) is not None), None
    )


def _id(value: Any) -> str | None:
    """An id, of an object that is shown whole, too."""
    found = value.get("id") if isinstance(value, dict) else value
    return found if isinstance(found, str) else None


def reader(pipeline: Any) -> Read:
    """What reads objects from the destination of a pipeline, as Stripe writes them but for the
    lists inside, and what became of them: `deleted_at` in Unix seconds, and `_version`.

    It raises `SetupError` where there is no copy, where the first copy of the table is not
    complete, and where another process is loading or has the DuckDB file open for longer than a
    moment.
    """

    def read(table: str, ids: Sequence[str]) -> dict[str, Image]:
        file = duckdb_file(pipeline)
        if file is not None and not file.exists():  # dlt would make it
            raise SetupError(f"There is no copy of {table} yet. Run `stripe-feed sync` first.")
        from ..extract import existing  # they bring Arrow along
        from ..extract.tables.codec import Shape

        shape = Shape(TABLES[table])
        owner = next(
            name
            for name, row in RESOURCES.items()
            if table in (name, *(child.table for child in row.children))
        )

        def asked(client: Any) -> dict[str, Image]:
            require_complete(client, [owner])
            found = existing.rows(client, shape, ids)
            own = {
                id: {
                    "deleted_at": existing.as_json("timestamp", row["deleted_at"]),
                    "_version": row["_version"],
                }
                for id, row in found.items()
            }
            return {id: {**existing.image(shape, row), **own[id]} for id, row in found.items()}

        with lock(pipeline, "stripe-feed feed", WAIT):
            return patiently(partial(with_client, pipeline, asked), WAIT)

    return read


def require_complete(client: Any, tables: Iterable[str]) -> None:
    """Raise `SetupError` while the first copy of one of these tables is not complete."""
    states = source_state(client).get("resources", {})
    if wanting := [
        name for name in tables if "t0" not in states.get(name, {}) or any(states[name]["left"])
    ]:
        raise SetupError(
            f"The first copy of {', '.join(wanting)} is not complete yet. Run `stripe-feed sync` to its end."
        )
