"""What pushes did, in a feed store: the last run of each, and a change for each change of state."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from typing import Any

from ...extract.tables.changes import digest_id
from ...resources.push_tables import PUSHES
from ...write.push.history.records import run_id
from ...write.push.history.states import PushState, with_states
from ...write.push.log import PushLog
from ..change import SOURCE_COLUMNS, Entry, entry_from_row
from .store import FeedStore

MOST_REASONS = 3
_ALL = 1_000_000  # runs


@dataclass(frozen=True, slots=True)
class LastRun:
    """The last run of a push, and the state of the push since; times are Unix seconds."""

    push: str
    state: PushState
    run: int
    object: str | None
    mode: str | None
    started_at: float
    ended_at: float | None  # None: it was killed
    counts: Mapping[str, int]
    error: str | None


def note_runs(store: FeedStore, log: PushLog) -> int:
    """Take over the runs that a push log has since the last time; return how many changes of state
    that gave.

    A push is healthy until a run says otherwise; that it stays healthy, or that one was interrupted,
    is no change. The changes and the runs are one transaction, so each change of state is told
    once. The caller holds the lock of the log.
    """
    if not _is_of_same_account(store, log):
        return 0
    entries: list[Entry] = []
    runs = log.runs(last=_ALL)[::-1]
    with store.transaction():
        for push in dict.fromkeys(run["push"] for run in runs):
            entries += _note(store, log, push, [run for run in runs if run["push"] == push])
        return store.append(entries)


def _is_of_same_account(store: FeedStore, log: PushLog) -> bool:
    """Whether the feed may be that of the log's account: several copies can lie in one folder."""
    rows = store.query("select account_id, livemode from log order by position desc limit 1")
    return log.owner is None or all(
        None in row or (row[0], bool(row[1])) == log.owner for row in rows
    )


def _note(
    store: FeedStore, log: PushLog, push: str, runs: Sequence[Mapping[str, Any]]
) -> Iterator[Entry]:
    rows = store.query("select state, log_id, run, started_at from pushes where push = ?", push)
    before, log_id, last, last_at = rows[0] if rows else ("healthy", log.log_id, 0, 0)
    new = [  # an older copy of the log counts its runs from there
        run
        for run in runs
        if run["run"] > last or run["started_at"] > last_at or log_id != log.log_id
    ]
    if not new:
        return
    state: str = before
    for run, found, prior in with_states(new, before):
        if found != "interrupted":
            state = found
        if found not in ("healthy", "interrupted", prior):
            yield _change(log, run, found, prior)
    run = new[-1]
    store.query(
        "insert or replace into pushes values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        push, state, log.log_id, run["run"], run["object"], run["mode"],
        run["started_at"], run["ended_at"], json.dumps(run["counts"]), run["error"],
    )  # fmt: skip


def _change(log: PushLog, run: Mapping[str, Any], state: str, before: str) -> Entry:
    """The change of a push to a state, for the log of the feed."""
    id, ended = run_id(log.log_id, run["run"]), run["ended_at"]
    account_id, livemode = log.owner or (None, None)
    image = {
        "id": run["push"],
        "object": PUSHES.object,
        "state": state,
        "run": run["run"],
        "run_id": id,
        "pushes_to": run["object"],
        "mode": run["mode"],
        "started_at": int(run["started_at"]),
        "ended_at": int(ended),
        "counts": run["counts"],
        "error": run["error"],
        "reasons": _reasons(log, run["run"]),
    }
    values = {
        "change_id": digest_id("push", id, state, str(run["started_at"])),
        "resource": PUSHES.table,
        "object_id": run["push"],
        "op": "u",
        "origin": "event",
        "event_type": f"{PUSHES.object}.{state}",
        "before_quality": "exact",
        "account_id": account_id,
        "livemode": livemode,
        "occurred_at": datetime.fromtimestamp(ended, timezone.utc),
        "observed_at": datetime.fromtimestamp(ended, timezone.utc),
        "_dlt_load_id": "",
        "changed": ["state"],
        "after": image,
        "previous": {"state": before},
    }
    return entry_from_row([values.get(name) for name in SOURCE_COLUMNS])


def _reasons(log: PushLog, run: int) -> list[dict[str, Any]]:
    """The most frequent reasons why rows of a run failed."""
    rows = log.query(
        "select reason, count(*) from failed where run = ? group by reason order by 2 desc, 1 limit ?",
        run,
        MOST_REASONS,
    )
    return [{"reason": reason, "rows": count} for reason, count in rows]


def last_runs(store: FeedStore) -> list[LastRun]:
    """The last run of each push, by name."""
    columns = [one.name for one in fields(LastRun)]
    rows = store.query(f"select {', '.join(columns)} from pushes order by push")
    return [
        LastRun(**{**found, "counts": json.loads(found["counts"])})
        for found in (dict(zip(columns, row, strict=True)) for row in rows)
    ]
