"""The rows of the tables that record pushes, from a push log: ids, states and reasons, no personal
data.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from hashlib import sha256
from typing import Any

from ..log import FailedRow, PushLog
from ..report import STATUSES
from .states import with_states

PushRecord = dict[str, Any]

MEND = "Mend the row or what it names, then `stripe-feed push retry {push}`."
FIND_OUT = "Run `stripe-feed push run {push}`: it finds out what became of the request first."
_SENT = (
    "idempotency_key", "push", "row_key", "version", "step", "verb", "method", "path",
    "state", "object_id", "request_id", "reason", "last_sent_at", "ended_at", "seconds",
)  # fmt: skip


def advise(push: str, row: FailedRow) -> str:
    """What to do about a row that failed."""
    return (FIND_OUT if row.status == "unknown" else MEND).format(push=push)


def failed_rows(log: PushLog, run: Mapping[str, Any]) -> Iterator[PushRecord]:
    """The rows of a run that failed, each with its reason and the next step."""
    for row in log.failed(run["run"]):
        yield {
            "key": row.key,
            "status": row.status,
            "object_id": row.object_id,
            "request_id": row.request_id,
            "reason": row.reason,
            "next_step": advise(run["push"], row),
            "failed_at": row.at,
        }


def run_id(log_id: str, run: int) -> str:
    """The id of a run, unique among all logs."""
    return f"{log_id}-{run}"


def redact_key(key: str) -> str:
    """The key of a row; a digest of it if it holds an e-mail address."""
    return sha256(key.encode()).hexdigest() if "@" in key else key


def run_records(log: PushLog, runs: Sequence[Mapping[str, Any]]) -> Iterator[PushRecord]:
    """The rows of `push_runs` for runs, oldest first; those of a push must be all that are known."""
    for push in dict.fromkeys(run["push"] for run in runs):
        for run, state, _ in with_states(run for run in runs if run["push"] == push):
            began, ended = run["started_at"], run["ended_at"]
            yield {
                "run_id": run_id(log.log_id, run["run"]),
                **{name: run[name] for name in ("run", "push", "object", "mode", "error")},
                "state": state,
                "started_at": _utc(began),
                "ended_at": _utc(ended),
                "seconds": None if ended is None else ended - began,
                **{status: run["counts"].get(status, 0) for status in STATUSES},
            }


def operation_records(log: PushLog, runs: Iterable[int]) -> Iterator[PushRecord]:
    """The rows of `push_operations`: the requests of runs that were sent."""
    for number in runs:
        for values in log.query(
            f"select {', '.join(_SENT)} from operations where run = ? and state <> 'planned' "
            "order by push, row_key, version, step",
            number,
        ):
            row = dict(zip(_SENT, values, strict=True))
            yield {
                **row,
                "run_id": run_id(log.log_id, number),
                "row_key": redact_key(row["row_key"]),
                "status": row.pop("state"),
                "sent_at": _utc(row.pop("last_sent_at")),
                "ended_at": _utc(row["ended_at"]),
            }


def rejected_records(log: PushLog, runs: Iterable[Mapping[str, Any]]) -> Iterator[PushRecord]:
    """The rows of `push_rejected`: the rows of runs that failed."""
    for run in runs:
        for row in failed_rows(log, run):
            yield {
                **row,
                "run_id": run_id(log.log_id, run["run"]),
                "push": run["push"],
                "row_key": redact_key(row["key"]),
                "failed_at": _utc(row["failed_at"]),
            }


def _utc(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)
