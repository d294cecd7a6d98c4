"""What an action ended with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..errors import StripeFeedError
from ..resources.writable import Writable

ActionStatus = Literal["success", "error", "skipped", "dry_run", "unknown"]
Via = Literal["id", "tables", "search", "list"]


@dataclass(frozen=True, slots=True)
class Request:
    """One request that was sent, or that a dry run would send."""

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ActionResult:
    """What an action ended with.

    `unknown`: Stripe may have done it or not. `raw` is Stripe's answer, `object` the object in it.
    """

    action: str  # "customers.upsert"
    status: ActionStatus
    message: str
    object: Mapping[str, Any] | None = None
    id: str | None = None
    raw: Mapping[str, Any] | None = None
    request_id: str | None = None
    objects: tuple[Mapping[str, Any], ...] | None = None  # of list, search and several matches
    has_more: bool | None = None
    via: Via | None = None  # what answered a look-up
    code: str | None = None  # Stripe's, as are these two
    param: str | None = None
    decline_code: str | None = None
    idempotency_key: str | None = None
    requests: tuple[Request, ...] = ()  # of a dry run
    error: StripeFeedError | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing went wrong."""
        return self.status not in ("error", "unknown")

    @property
    def exit_code(self) -> int:
        """What the command line ends with."""
        if self.ok:
            return 0
        return self.error.exit_code if self.error else 1

    def to_dict(self, flat: bool = False) -> dict[str, Any]:
        """The result as JSON has it. `flat`: object and id under the object's own name, with status
        and message, and nothing else.
        """
        if flat:
            name = self.action.partition(".")[0].removesuffix("s")
            body: Any = self.object if self.objects is None else list(self.objects)
            return {
                name: body,
                f"{name}_id": self.id,
                "status": self.status,
                "message": self.message,
            }
        given: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("status", "message", "action", "id", "request_id", "via")
        }
        optional: dict[str, Any] = {
            name: value
            for name in ("code", "param", "decline_code", "idempotency_key", "has_more")
            if (value := getattr(self, name)) is not None
        }
        if self.requests:
            optional["requests"] = [
                {"method": r.method.upper(), "path": r.path, "params": r.params}
                for r in self.requests
            ]
        if self.objects is not None:
            return {**given, **optional, "objects": list(self.objects)}
        return {**given, **optional, "object": self.object, "raw": self.raw}


def failed(row: Writable, verb: str, error: StripeFeedError, **details: Any) -> ActionResult:
    """The result for an error: unknown if Stripe may have done it."""
    from ..errors import OutcomeUnknown

    return ActionResult(
        f"{row.table}.{verb}",
        "unknown" if isinstance(error, OutcomeUnknown) else "error",
        str(error),
        request_id=getattr(error, "request_id", None),
        code=getattr(error, "code", None),
        param=getattr(error, "param", None),
        decline_code=getattr(error, "decline_code", None),
        idempotency_key=getattr(error, "idempotency_key", None),
        error=error,
        **details,
    )
