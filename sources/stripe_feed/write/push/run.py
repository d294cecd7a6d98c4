"""Plan and run a push: every row is compared with what was sent of it before, and only what changed is
looked up and sent.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

from ...api.client import Api
from ...destination.locks import lock_file
from ...errors import (
    InvalidParameter,
    RequestRefused,
    SetupError,
    StripeFeedError,
    TryLater,
    UsageError,
)
from ..lookup.find import Lookup
from .decide import decide
from .decision import OPEN, Decision
from .definition import NOTHING, Definition, make_definition
from .log import LoggedRow, PushLog
from .mapping import Wanted, fields_of, wanted_of
from .matching import Matcher
from .references import References
from .rows import Row, columns_of, read_rows
from .rules.removals import decide_removal
from .rules.subscriptions import preview
from .send import NOT_DONE, Outcome, Sender

LOG = "stripe_feed.push.sqlite"
THREADS = 8
MOST_UNKNOWN = 10  # outcomes without an answer, then Stripe is left alone

Status = Literal[
    "created", "updated", "deleted", "unchanged", "skipped", "rejected", "unknown", "not_sent"
]
STATUSES: tuple[Status, ...] = (
    "created", "updated", "deleted", "unchanged", "skipped", "rejected", "unknown", "not_sent",
)  # fmt: skip
DONE: dict[str, Status] = {"create": "created", "update": "updated", "delete": "deleted"}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RowResult:
    """What became of a row that was not as it was before."""

    key: str
    status: Status
    object_id: str | None = None
    reason: str = ""
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run would do; `unchanged` rows are only counted."""

    push: Definition
    decisions: tuple[Decision, ...]
    unchanged: int
    refusal: str = ""  # why a run would stop before it sends anything
    creations: int = 0  # of other objects that rows name

    def counts(self) -> dict[str, int]:
        """How many rows need what."""
        found = Counter(decision.action for decision in self.decisions)
        return {
            "create": found["create"],
            "update": found["update"],
            "delete": found["delete"],
            "settle": found["settle"],
            "unchanged": self.unchanged + found["none"],
            "skip": found["skip"] + found["drop"],
            "reject": found["reject"],
        }

    @property
    def writes(self) -> int:
        """How many requests a run would send, look-ups aside."""
        return self.creations + sum(len(decision.steps) for decision in self.decisions)


@dataclass(frozen=True, slots=True)
class Result:
    """What a run did; `error` is what stopped it."""

    push: Definition
    run: int
    rows: tuple[RowResult, ...]
    unchanged: int
    error: StripeFeedError | None = None

    def counts(self) -> dict[str, int]:
        """How many rows ended how."""
        found = Counter(row.status for row in self.rows)
        found["unchanged"] += self.unchanged
        return {status: found[status] for status in STATUSES}

    @property
    def exit_code(self) -> int:
        """What the command line ends with."""
        if self.error is not None:
            return self.error.exit_code
        counts = self.counts()
        return 4 if counts["rejected"] or counts["unknown"] else 0


@dataclass(slots=True)
class _Table:
    """The rows of a push, compared with the log."""

    pending: list[tuple[Wanted, LoggedRow | None]] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)
    gone: list[LoggedRow] = field(default_factory=list)  # their objects are to be removed
    vanished: list[str] = field(default_factory=list)  # rejected before, and gone
    unchanged: int = 0
    known: int = 0  # rows whose object is known


@dataclass(frozen=True, slots=True)
class Push:
    """A push into one account; its log remembers what was sent."""

    definition: Definition
    lookup: Lookup
    log: PushLog

    def plan(self, rows: Any, *, full_resync: bool = False) -> Plan:
        """Say what a run would do, without a write.

        `full_resync`: compare every row with Stripe, not only those that changed since they were
        sent; rows that are gone stay.
        """
        self._stamp()
        table = self._compare(rows, full_resync, None)
        decider = _Decider(self, None)
        decided = self._each(
            table.pending, lambda pair: decider.decide(*pair), lambda pair: _queue_of(pair[0])
        )
        removals = [decide_removal(self.lookup, self.definition, row, True) for row in table.gone]
        rejected = [Decision(key, "reject", reason=why) for key, why in table.rejected.items()]
        return Plan(
            self.definition,
            (*decided, *rejected, *removals),
            table.unchanged,
            self._refusal(table),
            len(decider.references.planned),
        )

    def run(self, rows: Any, *, full_resync: bool = False, only_failed: bool = False) -> Result:
        """Send what changed. Every row has a result, and none stops the others.

        `only_failed`: only rows that were rejected, or whose outcome is unknown. Raises
        `UsageError` if more objects would be deleted than the push allows, before anything is sent.
        """
        with self._locked("push run"):
            self._stamp()
            failed = self._failed() if only_failed else None
            table = self._compare(rows, full_resync, failed)
            if refusal := self._refusal(table):
                raise UsageError(refusal)
            for key in table.vanished:
                self.log.drop(self.definition.name, key)
            run = self.log.begin_run(self.definition.name)
            execution = _Execution(self)
            results = list(self._rejections(table))
            results += self._each(
                table.pending, lambda pair: execution.row(*pair), lambda pair: _queue_of(pair[0])
            )
            results += self._each(table.gone, execution.removal, lambda row: row.row_key)
            result = Result(self.definition, run, tuple(results), table.unchanged, execution.error)
            self.log.end_run(result.counts())
        return result

    def reset(self) -> int:
        """Forget what was sent: the next run looks every row up. Return how many rows that are."""
        with self._locked("push reset"):
            self._stamp()
            return self.log.reset(self.definition.name)

    @contextmanager
    def _locked(self, what: str) -> Iterator[None]:
        path = self.log.path.with_name(f"{self.log.path.name}.lock")
        activity = "pushes with this log. Run again when it is done."
        with lock_file(path, what, activity=activity, advice="Choose another --log."):
            yield

    def _stamp(self) -> None:
        account = self.lookup.api.account()
        self.log.stamp(account.id, self.lookup.api.live)

    def _failed(self) -> set[str]:
        rows = self.log.rows(self.definition.name).values()
        return {row.row_key for row in rows if row.state in ("open", "rejected")}

    def _refusal(self, table: _Table) -> str:
        push, count = self.definition, len(table.gone)
        if not count:
            return ""
        share = count / max(1, table.known)
        if count > push.max_deletes:
            limit = f"max_deletes = {push.max_deletes}"
        elif share > push.max_delete_share:
            limit = f"max_delete_share = {push.max_delete_share:g} of {table.known}"
        else:
            return ""
        return (
            f"{push.name}: {count} rows are gone, and on_delete = {push.on_delete!r} would reach more objects than "
            f"{limit} allows. Nothing was sent. Check the query, or raise the limit."
        )

    def _compare(self, source: Any, full_resync: bool, only: set[str] | None) -> _Table:
        """Compare the rows with what was sent of them."""
        push, table = self.definition, _Table()
        records: list[Row] = list(read_rows(source))
        logged = self.log.rows(push.name)
        table.known = sum(row.object_id is not None for row in logged.values())
        fields = fields_of(push, columns_of(records) if records else push.columns)
        wanted: dict[str, Wanted] = {}
        for number, record in enumerate(records, 1):
            try:
                one = wanted_of(push, fields, record)
            except InvalidParameter as error:
                table.rejected[_key_of(push, record, number)] = str(error)
                continue
            if one.key in wanted or one.key in table.rejected:
                raise UsageError(
                    f"{push.name}: two rows have one key ({', '.join(push.key)}). Nothing was sent: make it unique."
                )
            wanted[one.key] = one
        twins = _twins(push, wanted.values())
        for key, one in wanted.items():
            before = logged.get(key)
            if only is not None and key not in only:
                continue
            if _is_unchanged(push, one, before) and not full_resync:
                table.unchanged += 1
            elif key in twins and not (before and before.state == "open"):
                table.rejected[key] = (
                    f"Another row has the same {push.match}, and rows match on it."
                )
            else:
                table.pending.append((one, before))
        if only is not None:
            table.rejected = {k: why for k, why in table.rejected.items() if k in only}
        present = wanted.keys() | table.rejected.keys()
        absent = [row for key, row in logged.items() if key not in present] if only is None else []
        if push.on_delete != NOTHING and not full_resync:
            table.gone = [row for row in absent if row.object_id or row.state == "open"]
        table.vanished = [row.row_key for row in absent if _never_was(row)]
        return table

    def _rejections(self, table: _Table) -> Iterator[RowResult]:
        for key, reason in table.rejected.items():
            before = self.log.row(self.definition.name, key)
            if before is None or before.state != "open":
                self.log.reject(self.definition.name, key, reason)
            yield RowResult(key, "rejected", reason=reason)

    def _each(
        self, items: Sequence[Any], work: Callable[[Any], T], queue_of: Callable[[Any], str]
    ) -> list[T]:
        """Work on items in parallel, and in order where they have one queue."""
        queues: dict[Any, list[tuple[int, Any]]] = {}
        for number, item in enumerate(items):
            queues.setdefault(queue_of(item) or number, []).append((number, item))
        found: dict[int, T] = {}

        def drain(queue: list[tuple[int, Any]]) -> None:
            for number, item in queue:
                found[number] = work(item)

        with ThreadPoolExecutor(THREADS, "push") as pool:
            jobs = [pool.submit(drain, queue) for queue in queues.values()]
            try:
                for job in jobs:
                    job.result()
            except BaseException:  # interrupted: what is being sent ends, nothing else begins
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [found[number] for number in sorted(found)]


@contextmanager
def open_push(
    definition: Definition | Mapping[str, Any],
    api_key: str | None = None,
    *,
    log: str | os.PathLike[str] = LOG,
    **options: Any,
) -> Iterator[Push]:
    """Open a push on the account of a key, as a file of pushes has it: `{"name": "crm", "object":
    "customers", "key": "user_id", "match": "email"}`.

    `log` is the file that remembers what was sent: keep it. `options` are those of the client, such
    as `max_rps`.
    """
    if not isinstance(definition, Definition):
        settings = dict(definition)
        definition = make_definition(str(settings.pop("name", "push")), settings)
    api = Api(api_key, **options)
    try:
        with PushLog(log, lambda: float(api.now())) as opened:
            yield Push(definition, Lookup(api), opened)
    finally:
        api.close()


class _Decider:
    """Decides what rows need, and to which row an object belongs: two rows never write to one."""

    def __init__(self, push: Push, sender: Sender | None) -> None:
        self.push = push.definition
        self.references = References(push.definition, Matcher(push.lookup), sender)
        logged = push.log.rows(self.push.name).values()
        self._lock = threading.Lock()
        self._owners = {row.object_id: row.row_key for row in logged if row.object_id}

    def decide(self, wanted: Wanted, logged: LoggedRow | None) -> Decision:
        """Decide what a row needs."""
        if logged is not None and logged.state == "open":
            return Decision(wanted.key, "settle", logged.object_id, reason=OPEN)
        try:
            decision = decide(self.push, self.references, wanted, logged)
            self._claim(decision)
            if self.references.sender is None:
                decision = self._with_effect(decision)
        except (InvalidParameter, RequestRefused) as error:
            return Decision(wanted.key, "reject", reason=str(error))
        return decision

    def _with_effect(self, decision: Decision) -> Decision:
        """Add what a changed subscription costs to a plan."""
        if self.push.object != "subscriptions" or decision.action != "update":
            return decision
        lookup = self.references.matcher.lookup
        note = preview(lookup, decision.steps[0], str(decision.object_id))
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


class _Execution:
    """One run over the rows of a push."""

    def __init__(self, push: Push) -> None:
        self.push = push
        self.sender = Sender(push.lookup, push.log)
        self.decider = _Decider(push, self.sender)
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

    def removal(self, logged: LoggedRow) -> RowResult:
        """Settle what is open of a row that is gone, then remove its object."""

        def work() -> RowResult:
            settled = self._settle(logged.row_key)
            if settled is not None and settled.status == "unknown":
                return self._result(logged.row_key, "settle", settled)
            now = self.push.log.row(self.push.definition.name, logged.row_key)
            if now is None or now.object_id is None:
                return RowResult(logged.row_key, "deleted", reason="It was gone already.")
            return self._send(decide_removal(self.push.lookup, self.push.definition, now, False))

        return self._guarded(logged.row_key, work)

    def _guarded(self, key: str, work: Callable[[], RowResult]) -> RowResult:
        if self.error is not None:
            return RowResult(key, "not_sent", reason="The run was stopped.")
        try:
            return work()
        except (InvalidParameter, RequestRefused) as error:
            self.push.log.reject(self.push.definition.name, key, str(error))
            return RowResult(key, "rejected", reason=str(error))
        except (SetupError, TryLater) as error:
            self.error = self.error or error
            return RowResult(key, "not_sent", reason=str(error))

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
        steps = log.begin(name, decision.key, decision.content, decision.steps)
        result = self._result(decision.key, decision.action, self.sender.carry_out(steps, True))
        return replace(result, reason=result.reason or " ".join(decision.notes))

    def _result(self, key: str, action: str, outcome: Outcome) -> RowResult:
        status: Status = "rejected"
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


def _queue_of(wanted: Wanted) -> str:
    """Rows that Stripe locks together are sent one after the other."""
    owners = (wanted.given.get(name) for name in ("customer", "product"))
    return next((f"{owner}" for owner in owners if owner), "")


def _key_of(push: Definition, record: Row, number: int) -> str:
    from .mapping import row_key

    try:
        return row_key(push, record)
    except InvalidParameter:
        return f"(row {number})"


def _is_unchanged(push: Definition, wanted: Wanted, logged: LoggedRow | None) -> bool:
    if logged is None or logged.state != "done":
        return False
    return push.mode == "insert" or logged.sent_content == wanted.content


def _twins(push: Definition, rows: Iterable[Wanted]) -> set[str]:
    """Rows that match on the same value as another one."""
    if push.match is None:
        return set()
    by_value: dict[str, list[str]] = {}
    for row in rows:
        value = row.given.get(push.match)
        if value not in (None, ""):
            text = str(value).casefold() if push.match == "email" else str(value)
            by_value.setdefault(text, []).append(row.key)
    return {key for keys in by_value.values() if len(keys) > 1 for key in keys}


def _never_was(row: LoggedRow) -> bool:
    return row.state == "rejected" and row.object_id is None
