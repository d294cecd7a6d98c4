"""The tables of a feed store, and the columns that an older file lacks."""

from __future__ import annotations

from ...resources import CHANGE_COLUMNS
from ..change import LOG_COLUMNS

FORMAT = 7  # of the file: a newer one is refused, an older one gets what it lacks
REBUILD_NEEDED = "mending"  # counter that is set while the log has holes
REBUILD_SUFFIX = "_next"  # suffix of the tables that a rebuild fills
# states of messages that may still be delivered
UNFINISHED = "'waiting', 'held', 'dead'"

_TYPES = {"text": "text", "json": "text", "body": "blob"}  # all others are integers
_CONSTRAINTS = {
    "change_id": " not null unique",
    "resource": " not null",
    "object_id": " not null",
    "op": " not null",
}


def _log_columns() -> str:
    kinds = {column.name: str(column.kind) for column in CHANGE_COLUMNS}
    kinds |= {"load_id": "text", "body": "body"}
    return ", ".join(
        f"{name} {_TYPES.get(kinds[name], 'integer')}{_CONSTRAINTS.get(name, '')}"
        for name in LOG_COLUMNS
    )


LOG_TABLE = f"""
create table if not exists log{{0}} (
    position integer primary key, object_version integer not null, {_log_columns()}
);
create table if not exists objects{{0}} (
    object_id text, resource text, versions integer not null, primary key (object_id, resource)
) without rowid;
create table if not exists loads{{0}} (load_id text primary key) without rowid;
insert or ignore into meta values ('head{{0}}', 0);
"""
SCHEMA = f"""
create table if not exists meta (name text primary key, value integer not null) without rowid;
insert or ignore into meta values ('horizon', 0), ('pruned_until', 0);
{LOG_TABLE.format("")}
create table if not exists pruned (change_id text primary key, position integer not null) without rowid;
create table if not exists forgotten (object_id text primary key) without rowid;
create table if not exists erased (object_id text primary key, erased_at real not null) without rowid;
create table if not exists consumers (
    name text primary key, position integer not null, change_id text, epoch integer not null default 0,
    accepted integer not null default 0, acknowledged_at real
) without rowid;
create table if not exists totals (resource text primary key, objects integer not null) without rowid;
create table if not exists triggers (
    name text primary key, rule text not null, started_at real not null, held text, disabled text, failing_since real,
    fired integer not null default 0, fired_at real
) without rowid;
create table if not exists enrolled (trigger text, key text, at real not null, primary key (trigger, key)) without rowid;
create table if not exists messages (
    number integer primary key, message_id text not null unique, trigger text not null, change_id text not null,
    first_change_id text not null, resource text not null, object_id text not null, lane text not null,
    state text not null, tries integer not null default 0, due_at real not null, made_at real not null, ended_at real
);
drop index if exists messages_left;
create index if not exists messages_lanes on messages (trigger, lane, number, state) where state in ({UNFINISHED});
create index if not exists messages_dropped on messages (trigger) where state = 'dropped';
create index if not exists messages_of on messages (change_id);
create index if not exists messages_made on messages (trigger, made_at);
create table if not exists model_changes (
    position integer primary key, object_version integer not null, {_log_columns()}, trigger text not null
);
create index if not exists model_changes_rows on model_changes (trigger, object_id, object_version);
create table if not exists model_states (
    trigger text primary key, fingerprints text not null, rows integer not null, evaluation integer not null,
    started_at real not null, evaluated_at real not null
) without rowid;
create table if not exists model_rows (
    trigger text, key text, bucket integer not null, digest text not null, customer_id text, row text,
    primary key (trigger, key)
) without rowid;
create index if not exists model_rows_buckets on model_rows (trigger, bucket, key);
create table if not exists attempts (
    message_id text, number integer, at real not null, seconds real not null, code text not null, note text not null,
    primary key (message_id, number)
) without rowid;
create table if not exists pushes (
    push text primary key, state text not null, log_id text not null, run integer not null, object text, mode text,
    started_at real not null, ended_at real, counts text not null, error text
) without rowid;
create table if not exists rung (event_id text primary key, rung_at real not null, body blob, read_at real) without rowid;
create index if not exists rung_left on rung (rung_at, event_id) where read_at is null
"""
ADDED = (  # to tables of an older file
    ("triggers", "released_at", "real not null default 0"),
    ("triggers", "held_for", "text"),  # 'replay': only what a replay made waits for a release
    ("triggers", "paused_until", "real"),  # as the receiver asked
    ("triggers", "failed_at", "real"),  # the last time
    ("messages", "begun_at", "real"),  # its last attempt, or the one under way
    ("messages", "replayed", "text"),  # the state that a replay found it in: 'new' where it made it
    (
        "messages",
        "told",
        "integer not null default 0",
    ),  # of a dead one: a later message of its lane named it
    ("rung", "head", "blob"),  # what the webhook's body said of the event
    ("rung", "account", "text"),  # a connected one, where one inbox serves many
    ("rung", "tries", "integer not null default 0"),
    ("rung", "due_at", "real not null default 0"),  # of the next try
    (
        "rung",
        "fault",
        "text",
    ),  # the error of the last try; with `read_at`, of one that was given up
)
