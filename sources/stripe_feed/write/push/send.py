"""Carry out the steps of a version, and find out what became of requests without an answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal
from urllib.parse import unquote

from ...api.client import Reply
from ...api.forms import path_to
from ...api.responses import KEY_REUSED
from ...errors import NotFound, OutcomeUnknown, RequestRefused, SetupError
from ...resources.writable import WRITABLE, Writable
from ..lookup.find import Lookup, Object, Pages, check_mode, decode
from ..unchanged import changed
from .decision import get
from .log import MARKER, REPEATABLE, Operation, PushLog, PushStep
from .rules.invoices import as_sent
from .rules.subscriptions import is_in_effect

BEFORE, AFTER = 60, 300  # seconds around a time of sending in which an object can have been created
FIXED = ("customer", "customer_account", "test_clock", "product")
"""What a new object is given for good, and its list can be asked for."""
ALIKE = {"customers": {"email": "email"}, "prices": {"lookup_key": "lookup_keys"}}
"""What few objects share, and the filter of their list; somebody may have changed it since."""
REMOVALS = ("delete",)  # steps after which the object is gone
ALL_GONE = (
    *REMOVALS,
    "deactivate",
    "archive",
)  # steps with nothing to do if the object is not there
ENDS = {"cancel": "canceled", "void": "void"}  # steps that lead to a status
GONE = "It was gone already."
NOT_DONE = "Stripe did not carry it out."
KEY_TAKEN = "Its idempotency key was used before, by a push log that is lost, or is a copy of this one. Run again."

SendStatus = Literal["done", "rejected", "unknown"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a version ended, or that its outcome is unknown."""

    status: SendStatus
    object_id: str | None = None
    reason: str = ""
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class _Request:
    """A step with the object of step 0 in its path and parameters."""

    operation: Operation
    path: str
    params: dict[str, Any]
    is_last: bool

    @property
    def row(self) -> Writable:
        return row_of(self.path)

    @property
    def object_id(self) -> str:
        """The id in the path."""
        parts = self.path.split("/")
        return unquote(parts[3]) if len(parts) > 3 else ""

    @property
    def removes(self) -> bool:
        return self.operation.verb in REMOVALS


@dataclass(frozen=True, slots=True)
class Sender:
    """Sends versions of rows, and records their outcomes."""

    lookup: Lookup
    log: PushLog

    def carry_out_new(
        self, push: str, row_key: str, content: str | None, steps: Sequence[PushStep]
    ) -> Outcome:
        """Begin a version of a row and send it; if another log used its keys, send it with others."""
        outcome = self.carry_out(self.log.begin(push, row_key, content, steps), True)
        if outcome.reason == KEY_TAKEN:
            begun = self.log.begin(push, row_key, content, steps, is_far=True)
            outcome = self.carry_out(begun, True)
        return outcome

    def carry_out(self, operations: Sequence[Operation], is_new: bool) -> Outcome:
        """Send the steps of a version that have no outcome yet, in order. `is_new`: the version was
        begun just now.

        Raises what stops a whole run: `SetupError`, or `TryLater` if Stripe is out of reach. Then
        the version stays open.
        """
        outcome, made = Outcome("done"), ""
        for number, operation in enumerate(operations):
            if operation.state == "done":
                outcome = Outcome("done", operation.object_id, "", operation.request_id)
            else:
                request = _filled(operation, made, number == len(operations) - 1)
                outcome = self._step(request, is_new and number == 0)
            if outcome.status != "done":
                return outcome
            made = made or outcome.object_id or ""
        return Outcome("done", made, outcome.reason, outcome.request_id)

    def _step(self, request: _Request, is_new: bool) -> Outcome:
        is_first = (
            is_new or request.operation.state == "planned"
        )  # else an earlier try may have done it
        if not is_new:
            if self._is_too_old(request.operation):
                return self._settle_old(request)
            self.log.mark_sent(request.operation)
        try:
            reply = self._send(request)
        except OutcomeUnknown as error:
            return self._after_doubt(request, error)
        except RequestRefused as error:
            if isinstance(error, NotFound) and self._is_gone(request):
                return self._done(request, request.object_id, error.request_id, GONE)
            if is_first and error.code == KEY_REUSED:
                return self._key_taken(request, error.request_id)
            self.log.mark_rejected(request.operation, str(error), error.request_id)
            return Outcome("rejected", None, str(error), error.request_id)
        except SetupError as error:
            if is_first:
                self.log.mark_rejected(request.operation, str(error), None)
            raise
        object_id = str(reply.value.get("id") or request.object_id)
        if is_first and reply.replayed and not self._is_still_so(request, object_id):
            return self._key_taken(request, reply.request_id)
        outcome = self._done(request, object_id, reply.request_id)
        check_mode(self.lookup.api, reply.value)
        return outcome

    def _is_gone(self, request: _Request) -> bool:
        """Whether an object that Stripe does not find is as the request asked for. Deletions carry no
        key, so an earlier try may have been carried out; a subscription that ended is not found for
        another cancellation, but can be read.
        """
        ends = request.operation.verb in ENDS and request.operation.method == "delete"
        return request.operation.verb in ALL_GONE or (
            ends and self._find_effect(request) is not None
        )

    def _send(self, request: _Request) -> Reply[Object]:
        api, operation = self.lookup.api, request.operation
        if operation.method == "delete":
            return api.delete(request.path, request.params, decode)
        return api.post(request.path, request.params, decode, key=operation.idempotency_key)

    def _done(
        self, request: _Request, object_id: str, request_id: str | None, reason: str = ""
    ) -> Outcome:
        self.log.mark_done(request.operation, object_id, request_id, request.is_last)
        return Outcome("done", object_id, reason, request_id)

    def _is_still_so(self, request: _Request, object_id: str) -> bool:
        """Whether Stripe has what an earlier request with the same key made."""
        if request.operation.verb != "create":
            return self._find_effect(request) is not None
        return get(self.lookup, request.row, object_id) is not None

    def _key_taken(self, request: _Request, request_id: str | None) -> Outcome:
        self.log.mark_rejected(request.operation, KEY_TAKEN, request_id)
        return Outcome("rejected", None, KEY_TAKEN, request_id)

    def _is_too_old(self, operation: Operation) -> bool:
        """Whether Stripe may have forgotten the key."""
        sent_at = operation.first_sent_at
        return sent_at is not None and self.log.clock() - sent_at >= REPEATABLE

    def _settle_old(self, request: _Request) -> Outcome:
        """Look at Stripe: after so long, what is not there was not carried out."""
        found = self._find_effect(request)
        if found is None:
            self.log.abandon(request.operation)
            return Outcome("rejected", None, NOT_DONE)
        return self._done(request, found, request.operation.request_id)

    def _after_doubt(self, request: _Request, error: OutcomeUnknown) -> Outcome:
        """Look at Stripe: what is there was carried out; what is not may still be."""
        self.log.mark_unknown(request.operation, str(error), error.request_id)
        found = self._find_effect(request)
        if found is None:
            return Outcome("unknown", None, str(error), error.request_id)
        return self._done(request, found, error.request_id)

    def _find_effect(self, request: _Request) -> str | None:
        """The object, if it shows that a step was carried out."""
        if request.operation.verb == "create":
            return self._find_created(request)
        try:
            held = self.lookup.get(request.row, request.object_id).value
        except NotFound:
            held = {"deleted": True}
        if held.get("deleted") or request.removes:
            return request.object_id if request.removes and held.get("deleted") else None
        return request.object_id if _shows(self.lookup, request, held) else None

    def _find_created(self, request: _Request) -> str | None:
        """The object with the marker, from its list: search can be late. Lists hide what is on a test
        clock, and its `created` is the clock's, unless its customer or clock is asked for.
        """
        row, params = request.row, request.params
        key = request.operation.idempotency_key
        known = row.parameters["list"]
        fixed = {name: params[name] for name in FIXED if name in known and params.get(name)}
        for name, filter in ALIKE.get(row.table, {}).items():
            if value := params.get(name):
                like = {filter: [value] if filter.endswith("s") else value}
                if found := self._marked(row, key, {**fixed, **like}):
                    return found
        if fixed.keys() - {"product"}:
            return self._marked(row, key, fixed)
        windows = sending_windows(request.operation, self.log.clock())
        if "created" not in known:  # the newest come first
            return self._marked(row, key, fixed, since=windows[0][0])
        for first, last in windows:
            within = {**fixed, "created": {"gte": first, "lte": last}}
            if found := self._marked(row, key, within):
                return found
        return None

    def _marked(
        self, row: Writable, key: str, filters: Mapping[str, Any], since: int = 0
    ) -> str | None:
        listed = Pages(self.lookup.api).listed(row, filters)  # a large push creates thousands
        recent = takewhile(lambda one: (one.get("created") or since) >= since, listed)
        return next(
            (str(one["id"]) for one in recent if (one.get("metadata") or {}).get(MARKER) == key),
            None,
        )


def sending_windows(operation: Operation, now: float) -> list[tuple[int, int]]:
    """The seconds in which the object of a request can have been created, oldest first."""
    if not operation.sent_times:  # a log of before has the first time and the last one
        first_sent, last_sent = operation.first_sent_at or now, operation.last_sent_at or now
        return [(int(first_sent) - BEFORE, int(last_sent) + AFTER)]
    windows: list[tuple[int, int]] = []
    for time in sorted(operation.sent_times):
        first, last = int(time) - BEFORE, int(time) + AFTER
        if windows and first <= windows[-1][1]:
            windows[-1] = (windows[-1][0], last)
        else:
            windows.append((first, last))
    return windows


def _shows(lookup: Lookup, request: _Request, held: Object) -> bool:
    """Whether an object shows that a step was carried out."""
    if request.operation.verb in ENDS:
        return held.get("status") == ENDS[request.operation.verb]
    if request.row.table == "subscriptions":
        return is_in_effect(lookup, request.params, held)
    held = as_sent(lookup, request.row, held)
    shown = {name: value for name, value in request.params.items() if name in held}
    return bool(shown) and not changed(shown, held)  # what it takes, it took as a whole


def _filled(operation: Operation, made: str, is_last: bool) -> _Request:
    path = operation.path
    if "{0}" in path:
        path = path_to(path.replace("{0}", "{id}"), made)
    params = dict(operation.params)
    if params.get("default_price") == "{0}":  # elsewhere it can be what a row says
        params["default_price"] = made
    return _Request(operation, path, params, is_last)


def row_of(path: str) -> Writable:
    """The kind of object that a path is about."""
    base = "/".join(path.split("/")[:3])
    return next(row for row in WRITABLE.values() if row.path == base)
