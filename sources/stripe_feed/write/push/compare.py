"""Compare the rows of a push with what was sent of them before, without a request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from ...errors import InvalidParameter, UsageError
from ...wording import counted
from .definition import NOTHING, Definition
from .log import LoggedRow
from .mapping import Wanted, push_fields, row_key, wanted_of
from .rows import Row, columns_of

Logged = Mapping[str, LoggedRow]


@dataclass(slots=True)
class Table:
    """The rows of a push, compared with the log."""

    pending: list[tuple[Wanted, LoggedRow | None]] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)
    absent: list[LoggedRow] = field(default_factory=list)  # rows that are gone
    gone: list[LoggedRow] = field(default_factory=list)  # of those, whose objects are to be removed
    unsettled: list[LoggedRow] = field(default_factory=list)  # whose objects stay, outcome unknown
    vanished: list[str] = field(default_factory=list)  # rejected before, and gone
    unchanged: int = 0
    nameless: int = 0  # rows without a key
    known: int = 0  # rows that have an object, or may have one


def compare(
    push: Definition, records: list[Row], logged: Logged, full_resync: bool, now: int = 0
) -> Table:
    """Find the rows that changed since they were sent, those that cannot be sent, and those that are
    gone; `now` is the second of the run. Raises `UsageError` for two rows with one key.
    """
    table = Table(known=sum(_may_have_object(row) for row in logged.values()))
    wanted = _read(push, records, table, now)
    twins = _twins(push, wanted.values())
    for key, row in wanted.items():
        before = logged.get(key)
        if is_unchanged(push, row, before) and not full_resync:
            table.unchanged += 1
        elif key in twins and not (before and before.state == "open"):
            table.rejected[key] = f"Another row has the same {push.match}, and rows match on it."
        else:
            table.pending.append((row, before))
    present = {*wanted, *table.rejected}
    table.absent = [row for key, row in logged.items() if key not in present]
    if push.on_delete != NOTHING and not full_resync and not table.nameless:
        table.gone = [row for row in table.absent if _may_have_object(row)]
    removed = {row.row_key for row in table.gone}
    table.unsettled = [
        row for row in table.absent if row.state == "open" and row.row_key not in removed
    ]
    table.vanished = [row.row_key for row in table.absent if _never_was(row)]
    return table


def _read(push: Definition, records: list[Row], table: Table, now: int) -> dict[str, Wanted]:
    """What each row says, by key; rows that cannot be sent are rejected."""
    fields = push_fields(push, columns_of(records) if records else push.columns, now)
    wanted: dict[str, Wanted] = {}
    numbers: dict[str, int] = {}
    for number, record in enumerate(records, 1):
        key = f"(row {number})"
        try:
            key = row_key(push, record)
            if (twin := numbers.setdefault(key, number)) != number:
                raise UsageError(
                    f"{push.name}: the rows {twin} and {number} have one key ({', '.join(push.key)}). "
                    "Nothing was sent: make it unique."
                )
            wanted[key] = wanted_of(push, fields, record, key)
        except InvalidParameter as error:
            table.rejected[key] = str(error)
            table.nameless += key == f"(row {number})"
    return wanted


def only_failed(table: Table, logged: Logged) -> Table:
    """What of a table was rejected before, or has no known outcome."""
    failed = {row.row_key for row in logged.values() if row.state in ("open", "rejected")}
    return Table(
        [(row, before) for row, before in table.pending if row.key in failed],
        {key: reason for key, reason in table.rejected.items() if key in failed},
        absent=table.absent,
        unsettled=[row for row in table.absent if row.state == "open"],
        known=table.known,
    )


def part_of(table: Table) -> Table:
    """A table that is a part of a larger one: rows that are missing keep their objects."""
    is_open = [row for row in table.absent if row.state == "open"]
    return replace(table, absent=is_open, gone=[], vanished=[])


def refusal(push: Definition, table: Table) -> str:
    """Why a run must not begin; empty if it may."""
    count = len(table.gone)
    share = count / max(1, table.known)
    if count > push.max_deletes:
        limit = f"max_deletes = {push.max_deletes}"
    elif share > push.max_delete_share:
        limit = f"max_delete_share = {push.max_delete_share:g} of {table.known}"
    else:
        return ""
    return (
        f"{push.name}: {counted(count, 'row')} {'is' if count == 1 else 'are'} gone, and on_delete = {push.on_delete!r} would reach more objects than "
        f"{limit} allows. Nothing was sent. Check the query, or raise the limit."
    )


def queue_of(wanted: Wanted) -> str:
    """Rows that Stripe locks together are sent one after the other."""
    owners = (wanted.given.get(name) for name in ("customer", "product"))
    return next((f"{owner}" for owner in owners if owner), "")


def is_unchanged(push: Definition, wanted: Wanted, logged: LoggedRow | None) -> bool:
    """Whether a row says what was sent of it last."""
    if logged is None or logged.state != "done":
        return False
    return push.mode == "insert" or logged.sent_content == wanted.content


def _twins(push: Definition, rows: Iterable[Wanted]) -> set[str]:
    """Rows that match on the same value as another one."""
    if push.match is None:
        return set()
    by_value: dict[str, list[str]] = {}
    for row in rows:
        if text := match_text(push, row.given.get(push.match)):
            by_value.setdefault(text, []).append(row.key)
    return {key for keys in by_value.values() if len(keys) > 1 for key in keys}


def match_text(push: Definition, value: object) -> str:
    """A value that rows match on, as it is told from others; empty for none."""
    text = "" if value is None else str(value)
    return text.casefold() if push.match == "email" else text


def _may_have_object(row: LoggedRow) -> bool:
    return row.object_id is not None or row.state == "open"


def _never_was(row: LoggedRow) -> bool:
    return row.state == "rejected" and row.object_id is None
