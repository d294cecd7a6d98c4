"""Read the customer, subscription and invoice of a changed object from the copy, for rules and
templates.

Objects are read for many changes at once, and the destination is closed again. If it cannot be
opened, that is an error, not null: the caller retries later. A forgotten object is null.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from ..destination.duckdb_file import duckdb_path
from ..destination.locks import retry_while_locked
from ..destination.pipeline import lock_copy
from ..destination.state import read_source_state, refuse_many
from ..errors import SetupError, StripeFeedError
from ..extract.tables.diff import Image
from ..resources import RESOURCES, TABLES
from ..resources.groups import DEFAULT_GROUP
from .change import Change
from .paths import value_at
from .relay import with_client
from .storage.store import FeedStore, placeholders

RELATED_TABLES = {"customer": "customers", "subscription": "subscriptions", "invoice": "invoices"}
"""Objects that can be looked up for a change, and their tables."""

ID_PATHS = {
    "customer": ("customer",),
    "subscription": ("subscription", "parent.subscription_details.subscription"),
    "invoice": ("invoice", "latest_invoice"),
}
CACHE_SECONDS = 60.0
CACHE_SIZE = 5_000  # objects
WAIT_SECONDS = 5.0  # for a process that is loading
_RETRY_SECONDS = 1.0  # after an error, which all callers get meanwhile

ReadObjects = Callable[[str, Sequence[str]], Mapping[str, Image]]
"""A table and ids -> the existing objects, by id."""


class LookupUnavailable(SetupError):
    """The copy cannot be read now, or is not complete yet."""


class Lookups:
    """Objects of the copy by id, cached for a minute. Several threads may share it."""

    def __init__(
        self, store: FeedStore | None, read: ReadObjects, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.store, self.read, self.now = store, read, now
        self._lock = threading.Lock()
        self._cache: dict[tuple[str, str], tuple[float, Image | None]] = {}
        self._last_error: tuple[float, str] | None = None

    def prefetch(self, changes: Iterable[Change], roots: Collection[str]) -> None:
        """Read all related objects of these changes at once. Raises `LookupUnavailable`."""
        wanted = {
            (RELATED_TABLES[root], id)
            for change in changes
            for root in roots
            if not is_same_object(change, root) and (id := related_id(change, root))
        }
        with self._lock:
            self._read(wanted)

    def related(self, change: Change, roots: Collection[str]) -> dict[str, Image | None]:
        """Return the related objects of a change, by root; null if there is none or it was
        forgotten. Raises as `prefetch`.
        """
        images: dict[str, Image | None] = {
            root: image_of(change) for root in roots if is_same_object(change, root)
        }
        ids = {root: related_id(change, root) for root in roots if root not in images}
        keys = {root: (RELATED_TABLES[root], id) for root, id in ids.items() if id is not None}
        with self._lock:
            self._read(set(keys.values()))
            images |= {root: self._cache[keys[root]][1] if root in keys else None for root in ids}
        return {
            root: None if image is not None and self._is_forgotten(image) else image
            for root, image in images.items()
        }

    def get(self, table: str, id: str) -> Image | None:
        """Return an object as the copy has it now. Raises `SetupError` if it cannot be read."""
        image = self.read(table, [id]).get(id)
        return None if image is None or self._is_forgotten(image) else image

    def _read(self, wanted: Collection[tuple[str, str]]) -> None:
        now = self.now()
        missing = [
            key
            for key in wanted
            if key not in self._cache or self._cache[key][0] < now - CACHE_SECONDS
        ]
        if not missing:
            return
        if self._last_error is not None and now < self._last_error[0] + _RETRY_SECONDS:
            raise LookupUnavailable(self._last_error[1])
        if len(self._cache) + len(missing) > CACHE_SIZE:
            self._cache = {key: self._cache[key] for key in wanted if key in self._cache}
        try:
            for table in {table for table, _ in missing}:
                ids = [id for of, id in missing if of == table]
                images = self.read(table, ids)
                self._cache |= {(table, id): (now, images.get(id)) for id in ids}
        except StripeFeedError as fault:
            self._last_error = self.now(), str(fault)
            raise LookupUnavailable(str(fault)) from None

    def _is_forgotten(self, image: Image) -> bool:
        ids = [id for id in (image.get("id"), _id(image.get("customer"))) if isinstance(id, str)]
        query = f"select 1 from forgotten where object_id in ({placeholders(ids)})"
        return self.store is not None and bool(ids) and bool(self.store.query(query, *ids))


def _nowhere(table: str, ids: Sequence[str]) -> Mapping[str, Image]:
    raise SetupError(f"There is no copy to look up {table} in. Use a feed opened with `open_feed`.")


NO_LOOKUPS = Lookups(None, _nowhere)


def is_same_object(change: Change, root: str) -> bool:
    """Whether the changed object itself is of this kind."""
    return change.resource == RELATED_TABLES[root]


def image_of(change: Change) -> Image | None:
    """Return the object after a change, or before its deletion."""
    return change.after if change.op != "d" else change.before


def related_id(change: Change, root: str) -> str | None:
    """Return the id of a change's related object."""
    if root == "customer" and change.customer_id is not None:
        return change.customer_id
    image = image_of(change)
    return next(
        (id for path in ID_PATHS[root] if (id := _id(value_at(image, path))) is not None), None
    )


def _id(value: Any) -> str | None:
    """Return an id, also from an expanded object."""
    id = value.get("id") if isinstance(value, dict) else value
    return id if isinstance(id, str) else None


def object_reader(pipeline: Any) -> ReadObjects:
    """Return a function that reads objects from a pipeline's destination: as Stripe writes them
    except for nested lists, plus `deleted_at` in Unix seconds and `_version`.

    It raises `SetupError` if there is no copy, if the first copy of the table is incomplete, or if
    another process loads or holds the DuckDB file for more than a moment.
    """

    def read(table: str, ids: Sequence[str]) -> dict[str, Image]:
        file = duckdb_path(pipeline)
        if file is not None and not file.exists():  # dlt would make it
            raise SetupError(f"There is no copy of {table} yet. Run `stripe-feed sync` first.")
        from ..extract import existing  # imports Arrow
        from ..extract.tables.codec import TableCodec

        shape = TableCodec(TABLES[table])
        owner = next(
            name
            for name, row in RESOURCES.items()
            if table in (name, *(child.table for child in row.children))
        )

        def read_rows(client: Any) -> dict[str, Image]:
            if RESOURCES[owner].group != DEFAULT_GROUP and not _is_asked_for(client, owner):
                return {}  # the copy holds none of them
            require_complete(client, [owner])
            rows = existing.stored_rows(client, shape, ids)
            deletions = {
                id: {
                    "deleted_at": existing.stripe_value("timestamp", row["deleted_at"]),
                    "_version": row["_version"],
                }
                for id, row in rows.items()
            }
            return {
                id: {**existing.object_from_row(shape, row), **deletions[id]}
                for id, row in rows.items()
            }

        with lock_copy(pipeline, "stripe-feed feed", WAIT_SECONDS):
            return retry_while_locked(partial(with_client, pipeline, read_rows), WAIT_SECONDS)

    return read


def _is_asked_for(client: Any, name: str) -> bool:
    return name in read_source_state(client).get("resources", {})


def require_complete(client: Any, tables: Iterable[str]) -> None:
    """Raise `SetupError` while the first copy of one of these tables is incomplete."""
    state = read_source_state(client)
    refuse_many(state, "Look-ups in the copy need")
    states = state.get("resources", {})
    if incomplete := [
        name for name in tables if "t0" not in states.get(name, {}) or any(states[name]["left"])
    ]:
        raise SetupError(
            f"The first copy of {', '.join(incomplete)} is not complete yet. Run `stripe-feed sync` until it completes."
        )
