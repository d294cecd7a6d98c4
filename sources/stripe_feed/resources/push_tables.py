"""The tables with what pushes did: their columns, and the columns that tell one row from another."""

from __future__ import annotations

from dataclasses import dataclass

from .model import Column, Resource, event_types

_OWNER = (
    Column("account_id", "text", "The Stripe account."),
    Column("livemode", "bool", "True in live mode, false in test mode."),
)
_ROW_KEY = Column(
    "row_key",
    "text",
    "Key of the row, parts joined by `|`; the SHA-256 of it in hex where it holds an e-mail address.",
)
_RUN_ID = Column("run_id", "text", "The run: the id of its log and its number there.")
_PUSH = Column("push", "text", "Name of the push.")
_OBJECT_ID = Column("object_id", "text", "Id of the object at Stripe, where it is known.")
_REQUEST_ID = Column("request_id", "text", "Stripe's id of the request, `req_...`.")


@dataclass(frozen=True, slots=True)
class PushTable:
    """One table of pushes; a row replaces the one with the same `key`."""

    name: str
    description: str
    key: tuple[str, ...]
    recency: str  # the column with the time of a row
    columns: tuple[Column, ...]


_RUNS = PushTable(
    "push_runs",
    "One row per run of a push.",
    ("run_id",),
    "started_at",
    (
        _RUN_ID,
        Column("run", "bigint", "Number of the run in its log: `push show --run`."),
        _PUSH,
        Column("object", "text", "What it pushes to, such as `customers`."),
        Column("mode", "text", "insert, update or upsert."),
        Column(
            "state",
            "text",
            "State of the push after it. healthy; warning: some rows failed; failed: an error stopped it; recovered: healthy again; "
            "interrupted: it did not end.",
        ),
        Column("started_at", "timestamp", "When it began, UTC."),
        Column("ended_at", "timestamp", "When it ended, UTC; null if it did not."),
        Column("seconds", "double", "How long it took."),
        Column("created", "bigint", "Rows whose object was created."),
        Column("updated", "bigint", "Rows whose object was changed."),
        Column("deleted", "bigint", "Rows that are gone and whose object was removed."),
        Column("unchanged", "bigint", "Rows that needed no request."),
        Column("skipped", "bigint", "Rows that were left alone."),
        Column("rejected", "bigint", "Rows that were refused, here or by Stripe."),
        Column("unknown", "bigint", "Rows whose outcome is not known yet."),
        Column("not_sent", "bigint", "Rows that came after the error."),
        Column("error", "text", "What stopped the run."),
        *_OWNER,
    ),
)
_OPERATIONS = PushTable(
    "push_operations",
    "One row per request that a push sent, with what became of it last.",
    ("idempotency_key",),
    "sent_at",
    (
        Column(
            "idempotency_key",
            "text",
            "Key of the request; `request_idempotency_key` of the changes that it made.",
        ),
        Column("run_id", "text", "The run that sent it last, or that found out its outcome."),
        _PUSH,
        _ROW_KEY,
        Column("version", "bigint", "Number of the row's change: 1, 2, 3, …"),
        Column("step", "bigint", "Place among the requests of this change: 0, 1, …"),
        Column("verb", "text", "What it asks for, such as create, update, archive, cancel."),
        Column("method", "text", "post or delete."),
        Column("path", "text", "Path of the request; `{0}` is the object of step 0."),
        Column("status", "text", "done, rejected, unknown (no answer) or sent (it was killed)."),
        _OBJECT_ID,
        _REQUEST_ID,
        Column("reason", "text", "Why it was rejected, or what came in place of an answer."),
        Column("sent_at", "timestamp", "When it was sent last, UTC."),
        Column("ended_at", "timestamp", "When its outcome was known, UTC."),
        Column("seconds", "double", "How long it took, from the sending to the answer."),
        *_OWNER,
    ),
)
_REJECTED = PushTable(
    "push_rejected",
    "One row per run and row that was rejected, or whose outcome is unknown.",
    ("run_id", "row_key"),
    "failed_at",
    (
        _RUN_ID,
        _PUSH,
        _ROW_KEY,
        Column("status", "text", "rejected or unknown."),
        _OBJECT_ID,
        _REQUEST_ID,
        Column("reason", "text", "Why; it names columns and fields, never their values."),
        Column("next_step", "text", "What to do about it."),
        Column("failed_at", "timestamp", "When it failed, UTC."),
        *_OWNER,
    ),
)
PUSHES = Resource(
    "pushes",
    "push",
    (
        Column("id", "text", "Name of the push."),
        Column("object", "text", "Always `push`."),
        Column("state", "text", "healthy, warning, failed or recovered."),
        Column("run", "bigint", "Number of the run that changed the state."),
        Column("run_id", "text", "Its id in `push_runs`."),
        Column("pushes_to", "text", "What it pushes to, such as `customers`."),
        Column("mode", "text", "insert, update or upsert."),
        Column("started_at", "timestamp", "When the run began."),
        Column("ended_at", "timestamp", "When the run ended."),
        Column("counts", "json", "How many rows ended how."),
        Column("error", "text", "What stopped the run."),
        Column(
            "reasons", "json", "The most frequent reasons of rows that failed, with their number."
        ),
    ),
    events=event_types("push", "warning failed recovered"),
)
"""What the feed tells of pushes: one change for each change of state, to whoever names `pushes`. It is
in no table of the copy.
"""
PUSH_TABLES: dict[str, PushTable] = {one.name: one for one in (_OPERATIONS, _REJECTED, _RUNS)}
"""Every table of pushes. The runs come last: a run that is there is there whole."""
