"""Plan and run a push: every row is compared with what was sent of it before, and only what changed is
looked up and sent.
"""

from __future__ import annotations

import gc
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ...api.client import Api
from ...api.forms import encode
from ...destination.locks import lock_file
from ...destination.place import DEFAULT_DATASET
from ...errors import (
    InvalidParameter,
    RequestRefused,
    SetupError,
    StripeFeedError,
    TryLater,
    UsageError,
)
from ..lookup.copy import CopyPlace
from ..lookup.find import Lookup
from .compare import Table, compare, match_text, part_of, queue_of, refusal
from .compare import only_failed as only_failed_of
from .decide import decide
from .decision import OPEN, Decision
from .definition import Definition, make_definition
from .log import LOG, FailedRow, LoggedRow, Operation, PushLog, log_lock
from .mapping import Reference, Wanted
from .matching import make_matcher
from .references import References
from .report import Plan, PushStatus, Result, RowResult
from .rows import Row, read_rows
from .rules.removals import decide_removal
from .rules.subscriptions import preview_invoice
from .send import NOT_DONE, Outcome, Sender

NO_ROWS = "The rows cannot be read. `stripe-feed push plan` says why."
THREADS_OF_COPY = 4  # few rows ask Stripe, and threads that compute hold each other up
THREADS = 24  # an answer takes up to a second, and 20 a second are allowed
IN_DOUBT = "A request of a row that is gone may have created what this row matches on. Run again."
MOST_UNKNOWN = 10  # outcomes without an answer, then Stripe is left alone

DONE: dict[str, PushStatus] = {"create": "created", "update": "updated", "delete": "deleted"}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Push:
    """A push into one account; its log remembers what was sent."""

    definition: Definition
    lookup: Lookup
    log: PushLog
    copy: CopyPlace | None = None

    def plan(self, rows: Any, *, full_resync: bool = False) -> Plan:
        """Say what a run would do, without a write.

        `full_resync`: compare every row with Stripe, not only those that changed since they were
        sent; rows that are gone stay.
        """
        self._stamp()
        self.log.tie(self.definition.name, self.definition.object)
        with _without_collector():  # it would look through all that was decided, again and again
            now = self.lookup.api.now()
            table = compare(
                self.definition, list(read_rows(rows)), self._logged(), full_resync, now
            )
            decider = _Decider(self, None, table)
            threads = THREADS_OF_COPY if decider.references.matcher.known else THREADS
            decided = self._each(
                table.pending,
                lambda pair: decider.decide(*pair),
                lambda pair: queue_of(pair[0]),
                threads,
            )
        removals = [decider.removal(row) for row in (*table.unsettled, *table.gone)]
        rejected = [Decision(key, "reject", reason=why) for key, why in table.rejected.items()]
        return Plan(
            self.definition,
            (*decided, *rejected, *removals),
            table.unchanged,
            refusal(self.definition, table),
            len(decider.creations),
        )

    def run(
        self,
        rows: Any,
        *,
        full_resync: bool = False,
        only_failed: bool = False,
        is_part: bool = False,
    ) -> Result:
        """Send what changed. Every row has a result, and none stops the others.

        `only_failed`: only rows that were rejected, or whose outcome is unknown. `is_part`: the
        rows are a part of the table, and those that are missing are not gone. Raises `UsageError`
        if more objects would be deleted than the push allows, before anything is sent.
        """
        push = self.definition
        with self._locked("push run"):
            with self._noted():
                self._stamp()
                self.log.tie(push.name, push.object)
            with self._noted(NO_ROWS):
                records = list(read_rows(rows))
            with self._noted():
                table = self._compared(records, full_resync, only_failed)
                if is_part:
                    table = part_of(table)
                run = self.log.begin_run(push.name, push.object, push.mode, is_retry=only_failed)
                execution = _Execution(self)
                results = self._send(table, execution)
                result = Result(push, run, tuple(results), table.unchanged, execution.error)
                stopped = None if result.error is None else str(result.error)
                self.log.end_run(result.counts(), stopped)
        return result

    def _send(self, table: Table, execution: _Execution) -> list[RowResult]:
        """Send what is to be sent, and settle what is open."""
        for key in table.vanished:
            self.log.drop(self.definition.name, key)
        results = list(self._rejections(table))
        results += self._each(table.unsettled, execution.settling, lambda row: row.row_key)
        open_and_gone = [row for row in table.gone if row.state == "open"]
        self._each(open_and_gone, execution.settling, lambda row: row.row_key)
        execution.decider = _Decider(self, execution.sender, table)
        results += self._each(
            table.pending, lambda pair: execution.row(*pair), lambda pair: queue_of(pair[0])
        )
        results += self._each(table.gone, execution.removal, lambda row: row.row_key)
        return results

    @contextmanager
    def _noted(self, instead: str = "") -> Iterator[None]:
        """Note what keeps a run from beginning, or from going on. `instead`: of the error's words,
        which can hold data.
        """
        try:
            yield
        except Exception as error:
            known = isinstance(error, StripeFeedError)
            why = instead or (str(error) if known else f"unexpected {type(error).__name__}")
            if self.log.run is not None:
                self.log.end_run({}, why)
            else:
                api = self.lookup.api  # Stripe may be out of reach
                now = api.now() if api.has_date else api.clock.time() - self.log.skew
                push = self.definition
                self.log.note_refused_run(push.name, push.object, push.mode, why, now)
            raise

    def _compared(self, records: list[Row], full_resync: bool, only_failed: bool) -> Table:
        """What of the rows is to be sent. Raises `UsageError` if a run must not begin."""
        logged = self._logged()
        table = compare(self.definition, records, logged, full_resync, self.lookup.api.now())
        if only_failed:
            table = only_failed_of(table, logged)
        if reason := refusal(self.definition, table):
            raise UsageError(reason)
        return table

    def reset(self) -> int:
        """Forget what was sent: the next run looks every row up. Return how many rows that are."""
        with self._locked("push reset"):
            self._stamp()
            return self.log.reset(self.definition.name)

    @contextmanager
    def _locked(self, what: str) -> Iterator[None]:
        path = log_lock(self.log.path)
        activity = "pushes with this log. Run again when it is done."
        with lock_file(path, what, activity=activity, advice=PushLog.advice):
            yield

    def _stamp(self) -> None:
        account = self.lookup.api.account()
        self.log.stamp(account.id, self.lookup.api.live, self.lookup.api.skew())

    def _logged(self) -> dict[str, LoggedRow]:
        return self.log.rows(self.definition.name)

    def _rejections(self, table: Table) -> Iterator[RowResult]:
        self.log.note_failed(
            FailedRow(key, "rejected", None, None, reason) for key, reason in table.rejected.items()
        )
        for key, reason in table.rejected.items():
            before = self.log.row(self.definition.name, key)
            if before is None or before.state != "open":
                self.log.reject(self.definition.name, key, reason)
            yield RowResult(key, "rejected", reason=reason)

    def _each(
        self,
        items: Sequence[Any],
        work: Callable[[Any], T],
        queue_of: Callable[[Any], str],
        threads: int = THREADS,
    ) -> list[T]:
        """Work on items in parallel, and in order where they have one queue."""
        queues: dict[Any, list[tuple[int, Any]]] = {}
        for number, item in enumerate(items):
            queues.setdefault(queue_of(item) or number, []).append((number, item))
        left = deque(queues.values())
        found: dict[int, T] = {}

        def drain() -> None:
            while True:
                try:
                    queue = left.popleft()
                except IndexError:
                    return
                for number, item in queue:
                    found[number] = work(item)

        with ThreadPoolExecutor(threads, "push") as pool:
            jobs = [pool.submit(drain) for _ in range(min(threads, len(queues)))]
            try:
                for job in as_completed(jobs):
                    job.result()
            except BaseException:  # interrupted: what is being sent ends, nothing else begins
                left.clear()
                raise
        return [found[number] for number in range(len(found))]


@contextmanager
def _without_collector() -> Iterator[None]:
    """Leave cycles alone for as long as a plan takes: it makes hundreds of thousands of objects that
    stay, and none. The collector would take a sixth of its CPU.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def open_push(
    definition: Definition | Mapping[str, Any],
    api_key: str | None = None,
    *,
    log: str | os.PathLike[str] = LOG,
    database: str | None = None,
    destination: str | None = None,
    dataset: str = DEFAULT_DATASET,
    **options: Any,
) -> Iterator[Push]:
    """Open a push on the account of a key, as a file of pushes has it: `{"name": "crm", "object":
    "customers", "key": "user_id", "match": "email"}`.

    `log` is the file that remembers what was sent: keep it. `database` (a DuckDB file) or
    `destination` (Postgres) is a copy: while it is fresh, a plan asks it and not Stripe, and a run
    finds e-mail addresses in any case. `options` are those of the client, such as `max_rps`.
    """
    if not isinstance(definition, Definition):
        settings = dict(definition)
        definition = make_definition(str(settings.pop("name", "push")), settings)
    copy = CopyPlace(database, destination, dataset) if database or destination else None
    api = Api(api_key, **options)
    try:
        with PushLog(log, lambda: float(api.now())) as opened:
            yield Push(definition, Lookup(api), opened, copy)
    finally:
        api.close()


class _Decider:
    """Decides what rows need, and to which row an object belongs: two rows never write to one."""

    def __init__(self, push: Push, sender: Sender | None, table: Table) -> None:
        self.push = push.definition
        matcher = make_matcher(
            self.push, push.lookup, push.copy, push.log, table.pending, sender is None
        )
        self.references = References(self.push, matcher, sender, push.log)
        logged = push.log.rows(self.push.name)
        self._lock = threading.Lock()
        self.creations: set[Reference] = set()  # what accepted rows of a plan name
        absent = [logged[row.row_key] for row in table.absent if row.row_key in logged]
        left = {row.row_key for row in absent if row.state != "open"}  # their objects are free
        self._owners = {
            row.object_id: row.row_key
            for row in logged.values()
            if row.object_id and row.row_key not in left
        }
        self._in_doubt = {
            _matched(self.push, operation)
            for row in absent
            if row.state == "open"
            for operation in push.log.open_steps(self.push.name, row.row_key)
            if operation.verb == "create"
        } - {""}

    def removal(self, logged: LoggedRow) -> Decision:
        """Decide what becomes of the object of a row that is gone, after all other rows."""
        with self._lock:  # of two rows that are gone, one is enough
            owner = self._owners.setdefault(logged.object_id or "", logged.row_key)
        if logged.object_id and owner != logged.row_key:
            reason = f"Another row is this {self.push.row.noun} now."
            return Decision(logged.row_key, "drop", logged.object_id, reason=reason)
        is_plan = self.references.sender is None
        return decide_removal(self.references.matcher.lookup, self.push, logged, is_plan)

    def decide(self, wanted: Wanted, logged: LoggedRow | None) -> Decision:
        """Decide what a row needs."""
        if logged is not None and logged.state == "open":
            return Decision(wanted.key, "settle", logged.object_id, reason=OPEN)
        if self._is_in_doubt(wanted, logged):
            return Decision(wanted.key, "reject", reason=IN_DOUBT)
        try:
            decision = self._decided(wanted, logged, False)
            missing = self.references.missing(wanted)
            if self.references.sender is None:
                decision = self._with_effect(decision)
                self.creations |= missing
            elif missing:  # nothing is created for a row that is refused
                decision = self._decided(wanted, logged, True)
        except (UsageError, RequestRefused) as error:
            return Decision(wanted.key, "reject", reason=str(error))
        return decision

    def _decided(self, wanted: Wanted, logged: LoggedRow | None, creates: bool) -> Decision:
        decision = decide(self.push, self.references, wanted, logged, creates)
        for step in decision.steps:
            encode(step.params)  # what cannot be sent must not become an intent
        self._claim(decision)
        return decision

    def _is_in_doubt(self, wanted: Wanted, logged: LoggedRow | None) -> bool:
        """Whether a request of a row that is gone may still create what this row matches on."""
        if not self._in_doubt or (logged is not None and logged.object_id):
            return False
        return match_text(self.push, wanted.given.get(self.push.match or "")) in self._in_doubt

    def _with_effect(self, decision: Decision) -> Decision:
        """Add what a changed subscription costs to a plan."""
        if self.push.object != "subscriptions" or decision.action != "update":
            return decision
        lookup = self.references.matcher.lookup
        note = preview_invoice(lookup, decision.steps[0], str(decision.object_id))
        return replace(decision, notes=(*decision.notes, *([note] if note else [])))

    def _claim(self, decision: Decision) -> None:
        if decision.object_id is None or decision.action in ("skip", "drop", "reject"):
            return
        with self._lock:
            if self._owners.setdefault(decision.object_id, decision.key) != decision.key:
                noun = self.push.row.noun
                raise InvalidParameter(
                    f"Another row is the {noun} {decision.object_id} already. Match on something unique."
                )


def _matched(push: Definition, operation: Operation) -> str:
    """What rows match on, as a request would create it; empty for none."""
    value: Any = operation.params
    for part in (push.match or "").split(".", 1):
        value = value.get(part) if isinstance(value, Mapping) else None
    return match_text(push, value)


class _Execution:
    """One run over the rows of a push; `decider` is there once rows that are gone are settled."""

    decider: _Decider

    def __init__(self, push: Push) -> None:
        self.push = push
        self.sender = Sender(push.lookup, push.log)
        self.error: StripeFeedError | None = None
        self._unknown = 0

    def row(self, wanted: Wanted, logged: LoggedRow | None) -> RowResult:
        """Settle what is open of a row, then send what it needs."""

        def work() -> RowResult:
            settled = self._settle(wanted.key)
            now = self.push.log.row(self.push.definition.name, wanted.key)
            if settled is not None and now is not None and now.content == wanted.content:
                if settled.reason != NOT_DONE:
                    is_new = logged is None or logged.sent_content is None
                    return self._result(wanted.key, "create" if is_new else "update", settled)
            elif settled is not None and settled.status == "unknown":
                return self._result(wanted.key, "settle", settled)
            return self._send(self.decider.decide(wanted, now))

        return self._guarded(wanted.key, work)

    def settling(self, logged: LoggedRow) -> RowResult:
        """Settle what is open of a row that is gone, and leave its object alone."""
        key = logged.row_key

        def work() -> RowResult:
            settled = self._settle(key)
            if settled is None or settled.status == "rejected":
                return RowResult(key, "skipped", reason=settled.reason if settled else "")
            now = self.push.log.row(self.push.definition.name, key)
            if now is not None and now.state == "deleted":
                return self._result(key, "delete", settled)
            return self._result(key, "create" if logged.sent_content is None else "update", settled)

        return self._guarded(key, work)

    def removal(self, logged: LoggedRow) -> RowResult:
        """Settle what is open of a row that is gone, then remove its object."""

        def work() -> RowResult:
            settled = self._settle(logged.row_key)
            if settled is not None and settled.status == "unknown":
                return self._result(logged.row_key, "settle", settled)
            now = self.push.log.row(self.push.definition.name, logged.row_key)
            if now is None or now.object_id is None:
                return RowResult(logged.row_key, "deleted", reason="It was gone already.")
            return self._send(self.decider.removal(now))

        return self._guarded(logged.row_key, work)

    def _guarded(self, key: str, work: Callable[[], RowResult]) -> RowResult:
        if self.error is not None:
            return RowResult(key, "not_sent", reason="The run was stopped.")
        try:
            result = work()
        except (UsageError, RequestRefused) as error:
            self.push.log.reject(self.push.definition.name, key, str(error))
            result = self._not_done(key, "rejected", error)
        except (SetupError, TryLater) as error:
            self.error = self.error or error
            result = self._not_done(key, "not_sent", error)
        if result.status in ("rejected", "unknown"):
            failed = FailedRow(
                key, result.status, result.object_id, result.request_id, result.reason
            )
            self.push.log.note_failed([failed])
        return result

    def _not_done(self, key: str, status: PushStatus, error: StripeFeedError) -> RowResult:
        """The result of a row that an error stopped: unknown if a request of it was sent before."""
        now = self.push.log.row(self.push.definition.name, key)
        is_open = now is not None and now.state == "open"
        return RowResult(key, "unknown" if is_open else status, reason=str(error))

    def _settle(self, key: str) -> Outcome | None:
        """Bring the open version of a row to its end."""
        steps = self.push.log.open_steps(self.push.definition.name, key)
        return self.sender.carry_out(steps, False) if steps else None

    def _send(self, decision: Decision) -> RowResult:
        name, log = self.push.definition.name, self.push.log
        if decision.action == "reject":
            log.reject(name, decision.key, decision.reason)
            return RowResult(decision.key, "rejected", decision.object_id, decision.reason)
        if decision.action == "none":
            if decision.object_id and decision.content:
                log.adopt(name, decision.key, decision.content, decision.object_id)
            return RowResult(decision.key, "unchanged", decision.object_id, decision.reason)
        if decision.action == "drop":
            log.drop(name, decision.key)
        if decision.action in ("skip", "drop"):
            return RowResult(decision.key, "skipped", decision.object_id, decision.reason)
        outcome = self.sender.carry_out_new(name, decision.key, decision.content, decision.steps)
        result = self._result(decision.key, decision.action, outcome)
        return replace(result, reason=result.reason or " ".join(decision.notes))

    def _result(self, key: str, action: str, outcome: Outcome) -> RowResult:
        status: PushStatus = "rejected"
        if outcome.status == "unknown":
            status = "unknown"
            self._unknown += 1
            if self._unknown >= MOST_UNKNOWN:
                self.error = self.error or TryLater(
                    f"{self._unknown} requests came to no answer: the run was stopped. Run again later."
                )
        elif outcome.status == "done":
            status = DONE.get(action, "updated")
        return RowResult(key, status, outcome.object_id, outcome.reason, outcome.request_id)
