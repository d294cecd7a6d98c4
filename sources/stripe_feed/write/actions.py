"""Actions on one Stripe object at a time: look up, create, change, cancel, delete.

The verbs, paths and parameters are the rows of `resources.writable`; a bad row ends in a result, never
in an exception.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..api.client import Api
from ..destination.place import DEFAULT_DATASET
from ..errors import NotReadable, SetupError, StripeFeedError
from .lookup.copy import CopyPlace
from .lookup.find import Lookup, writable
from .order import make_order
from .result import ActionResult, failed
from .verbs import runner_of


@dataclass(frozen=True, slots=True)
class Actions:
    """Actions on one Stripe account; threads can share it."""

    lookup: Lookup

    @property
    def api(self) -> Api:
        """The client that sends the requests."""
        return self.lookup.api

    def __enter__(self) -> Actions:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to Stripe."""
        self.api.close()

    def get(self, resource: str, id: str, **order: Any) -> ActionResult:
        """Retrieve one object."""
        return self.run(resource, "get", id=id, **order)

    def list(self, resource: str, where: Any = None, **order: Any) -> ActionResult:
        """List objects, newest first."""
        return self.run(resource, "list", where=where, **order)

    def search(self, resource: str, where: Any = None, **order: Any) -> ActionResult:
        """Find objects by conditions; the result says what answered (`via`)."""
        return self.run(resource, "search", where=where, **order)

    def create(self, resource: str, set: Mapping[str, Any], **order: Any) -> ActionResult:
        """Create an object."""
        return self.run(resource, "create", set=set, **order)

    def insert(self, resource: str, set: Mapping[str, Any], **order: Any) -> ActionResult:
        """Create an object unless one matches."""
        return self.run(resource, "insert", set=set, **order)

    def update(self, resource: str, id: str | None = None, **order: Any) -> ActionResult:
        """Update an object, by its id or by `match`."""
        return self.run(resource, "update", id=id, **order)

    def upsert(self, resource: str, match: Mapping[str, Any], **order: Any) -> ActionResult:
        """Update the object that matches, or create it."""
        return self.run(resource, "upsert", match=match, **order)

    def delete(self, resource: str, id: str | None = None, **order: Any) -> ActionResult:
        """Delete an object, by its id or by `match`."""
        return self.run(resource, "delete", id=id, **order)

    def cancel(self, resource: str, id: str | None = None, **order: Any) -> ActionResult:
        """Cancel a subscription (now, or `at_period_end`) or a quote."""
        return self.run(resource, "cancel", id=id, **order)

    def run(self, resource: str, verb: str, **order: Any) -> ActionResult:
        """Run any action, such as `run("invoices", "finalize", id="in_...")`.

        Raises `UsageError` for an action that does not exist, and `SetupError` if nothing can
        work (no key, another account's copy).
        """
        row = writable(resource)
        run = runner_of(row, verb)
        wanted = make_order(row.table, verb, {k: v for k, v in order.items() if v is not None})
        try:
            return run(self.lookup, row, verb, wanted)
        except SetupError as error:
            if isinstance(error, NotReadable):
                return failed(row, verb, error)
            raise
        except StripeFeedError as error:
            return failed(row, verb, error)


def open_actions(
    api_key: str | None = None,
    *,
    database: str | None = None,
    destination: str | None = None,
    dataset: str = DEFAULT_DATASET,
    **options: Any,
) -> Actions:
    """Open actions on the account of a key.

    `database` or `destination` names a copy that answers look-ups while it is fresh; `options` are
    those of the client, such as `max_rps`.
    """
    copy = None
    if database or destination:
        copy = CopyPlace(database, destination, dataset)
    return Actions(Lookup(Api(api_key, **options), copy))
