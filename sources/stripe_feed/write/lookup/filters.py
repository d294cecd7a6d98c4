"""Which objects somebody looks for: conditions with and/or, as a test on an object, a query of
Stripe's search, filters of a list, or SQL.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

from ...errors import UsageError
from ...resources import TABLES
from ...resources.writable import Writable
from ..parameters import timestamp

FilterOp = Literal["eq", "contains", "gt", "gte", "lt", "lte"]
FILTER_OPS: tuple[FilterOp, ...] = ("eq", "contains", "gt", "gte", "lt", "lte")
SIGNS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
_TIMES = re.compile(r"(?:^|_)(?:created|at|start|date)$|(?:^|(?<!cancel_at_period)_)end$")
DEEP = {
    "subscription": "parent.subscription_details.subscription",
    "last_finalization_error_code": "last_finalization_error.code",
    "last_finalization_error_type": "last_finalization_error.type",
}
"""Fields that Stripe's search knows by another name than the object has them."""
MOST_CLAUSES = 10  # of Stripe's search
SHORTEST_PART = 3  # characters that Stripe's search finds within a text
SQL_KINDS = ("text", "ref", "bigint", "bool", "timestamp", "decimal", "double")
_FORM = "field=value, field~text, or a range such as created>=2026-01-31"


@dataclass(frozen=True, slots=True)
class FilterClause:
    """One condition; a value of None stands for an empty field."""

    field: str
    op: FilterOp
    value: Any


@dataclass(frozen=True, slots=True)
class Group:
    """Conditions that hold all, or one of them (`any`)."""

    any: bool
    members: tuple[FilterClause | Group, ...]


ObjectFilter = FilterClause | Group


# -- reading ---------------------------------------------------------------------------------------


def read(where: Mapping[str, Any]) -> Group:
    """Read `{"email": "a@example.com", "created": {"gte": ...}, "or": [{...}, {...}]}`.

    Raises `UsageError`.
    """
    if not isinstance(where, Mapping):
        raise UsageError('A filter is a hash such as {"status": "active"}.')
    members: list[ObjectFilter] = []
    for field, condition in where.items():
        if field in ("and", "or"):
            if not isinstance(condition, Sequence) or isinstance(condition, str) or not condition:
                raise UsageError(f"{field} takes a list of filters.")
            members.append(Group(field == "or", tuple(read(member) for member in condition)))
        elif isinstance(condition, Mapping):
            members += (_clause(field, op, value) for op, value in condition.items())
        else:
            members.append(_clause(field, "eq", condition))
    return Group(False, tuple(members))


def parse(text: str) -> FilterClause:
    """Read one condition of the command line. Raises `UsageError`."""
    found = re.match(r"([A-Za-z_][^=~<>]*)(>=|<=|=|~|>|<)(.*)$", text.strip(), re.S)
    if not found:
        raise UsageError(f"This is no condition. Give {_FORM}.")
    sign = found[2]
    op = {"=": "eq", "~": "contains"}.get(sign) or next(o for o, s in SIGNS.items() if s == sign)
    return _clause(found[1].strip(), op, found[3].strip() or None)


def _clause(field: object, op: object, value: Any) -> FilterClause:
    if not isinstance(field, str) or not field:
        raise UsageError("A filter names its fields.")
    if op not in FILTER_OPS:
        raise UsageError(f"A condition is one of {', '.join(FILTER_OPS)}.")
    if isinstance(value, Mapping | list | tuple) or (value is None and op != "eq"):
        raise UsageError(f"{field}: compare with one value.")
    if _TIMES.search(field) and not field.startswith("metadata.") and value is not None:
        value = timestamp(field, value)
        if value is None:
            raise UsageError(f"{field}: give a date, a time with its zone, or Unix seconds.")
    return FilterClause(field, op, value)


def clauses(wanted: ObjectFilter) -> list[FilterClause]:
    """Every condition, whatever group it is in."""
    if isinstance(wanted, FilterClause):
        return [wanted]
    return [clause for member in wanted.members for clause in clauses(member)]


# -- a test on an object ---------------------------------------------------------------------------


def matches(wanted: ObjectFilter, held: Mapping[str, Any]) -> bool:
    """Whether an object fulfils the conditions."""
    if isinstance(wanted, Group):
        return (any if wanted.any else all)(matches(member, held) for member in wanted.members)
    return _holds(wanted, field_value(held, wanted.field))


def field_value(held: Mapping[str, Any], field: str) -> Any:
    """The value of a dotted field; the id of an object that is expanded."""
    if field.startswith("metadata."):
        return (held.get("metadata") or {}).get(field.partition(".")[2])
    value: Any = held
    for part in (field if field in held else DEEP.get(field, field)).split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value.get("id", value) if isinstance(value, Mapping) else value


def _holds(clause: FilterClause, actual: Any) -> bool:
    if clause.value is None:
        return actual in (None, "", [], {})
    if actual is None:
        return False
    if clause.op == "contains":
        return str(clause.value).casefold() in str(actual).casefold()
    if clause.op == "eq":
        return same(clause.field, actual, clause.value)
    left, right = _number(actual), _number(clause.value)
    if left is None or right is None:
        return False
    return {"gt": left > right, "gte": left >= right, "lt": left < right, "lte": left <= right}[
        clause.op
    ]


def same(field: str, actual: Any, wanted: Any) -> bool:
    """Whether two values are equal: numbers by value, e-mail addresses in any case."""
    if isinstance(actual, bool) or isinstance(wanted, bool):
        return str(actual).lower() == str(wanted).lower()
    if isinstance(actual, int | float | Decimal):
        return _number(actual) == _number(wanted)
    if field == "email":
        return str(actual).casefold() == str(wanted).casefold()
    return str(actual) == str(wanted)


def _number(value: Any) -> Decimal | None:
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


# -- Stripe's search -------------------------------------------------------------------------------


def search_query(wanted: ObjectFilter, row: Writable) -> str | None:
    """The conditions in the language of Stripe's search; None if it cannot say them.

    It finds more than was asked for (phrases, any case): test each hit.
    """
    group = _only_group(wanted)
    if group is None or not 0 < len(group.members) <= MOST_CLAUSES:
        return None
    parts = [_search_clause(member, row) for member in group.members]
    if any(part is None for part in parts):
        return None
    return (" OR " if group.any else " AND ").join(part for part in parts if part)


def _only_group(wanted: ObjectFilter) -> Group | None:
    """The one group that the conditions form; None if there are groups of groups."""
    if isinstance(wanted, FilterClause):
        return Group(False, (wanted,))
    if len(wanted.members) == 1 and isinstance(wanted.members[0], Group):
        return _only_group(wanted.members[0])
    flat = [
        member.members[0] if isinstance(member, Group) and len(member.members) == 1 else member
        for member in wanted.members
    ]
    if wanted.any or not any(isinstance(member, Group) for member in flat):
        return (
            Group(wanted.any, tuple(flat))
            if all(isinstance(m, FilterClause) for m in flat)
            else None
        )
    return None


def _search_clause(member: ObjectFilter, row: Writable) -> str | None:
    assert isinstance(member, FilterClause)
    top, _, key = member.field.partition(".")
    kind = row.searchable.get(top)
    if kind is None or (key and top != "metadata") or (top == "metadata" and not key):
        return None
    name = f"metadata[{_quoted(key)}]" if key else top
    text = str(member.value).lower() if isinstance(member.value, bool) else str(member.value)
    if "\\" in text or "\\" in key:  # how a backslash is escaped is not documented
        return None
    if member.value is None:
        return f"{name}:null"
    if kind == "number":
        return f"{name}{SIGNS.get(member.op, ':')}{text}" if member.op != "contains" else None
    if member.op == "contains":
        fits = kind == "string" and len(text) >= SHORTEST_PART
        return f"{name}~{_quoted(text)}" if fits else None
    return f"{name}:{_quoted(text)}" if member.op == "eq" else None


def _quoted(text: str) -> str:
    escaped = text.replace('"', '\\"')
    return f'"{escaped}"'


# -- a list ----------------------------------------------------------------------------------------


def list_filters(wanted: ObjectFilter, row: Writable) -> tuple[dict[str, Any], bool]:
    """The filters of the list endpoint that narrow it down, and whether they say all."""
    filters: dict[str, Any] = {}
    known = row.parameters.get("list", {})
    if not isinstance(wanted, Group) or wanted.any:
        wanted = Group(False, (wanted,))
    complete = True
    for member in wanted.members:
        narrowing = _list_filter(member, known) if isinstance(member, FilterClause) else None
        if narrowing is None or not _joined(filters, *narrowing):
            complete = False
    return filters, complete


def _list_filter(clause: FilterClause, known: Mapping[str, Any]) -> tuple[str, Any] | None:
    if clause.value is None or "." in clause.field:
        return None
    if clause.op == "eq" and clause.field in known:
        return clause.field, clause.value
    if clause.op == "eq" and clause.field == "lookup_key" and "lookup_keys" in known:
        return "lookup_keys", [clause.value]
    if f"{clause.field}.{clause.op}" in known:
        return clause.field, {clause.op: clause.value}
    return None


def _joined(filters: dict[str, Any], name: str, value: Any) -> bool:
    held = filters.get(name)
    if held is None:
        filters[name] = value
        return True
    if isinstance(held, dict) and isinstance(value, dict) and not held.keys() & value.keys():
        held |= value
        return True
    return False


# -- SQL -------------------------------------------------------------------------------------------


def to_sql(wanted: ObjectFilter, table: str) -> str | None:
    """The conditions as SQL for DuckDB and Postgres; None if the table cannot answer them."""
    if isinstance(wanted, FilterClause):
        return _sql_clause(wanted, table)
    parts = [to_sql(member, table) for member in wanted.members]
    if any(part is None for part in parts):
        return None
    joined = (" or " if wanted.any else " and ").join(f"({part})" for part in parts)
    return joined or "true"


def _sql_clause(clause: FilterClause, table: str) -> str | None:
    top, _, key = clause.field.partition(".")
    kinds = (
        {column.name: column.kind for column in TABLES[table].columns} if table in TABLES else {}
    )
    if top == "metadata" and key and "metadata" in kinds:
        if key[0] in "$/":  # DuckDB takes it for a path
            return None
        name, kind = f"(metadata ->> {literal(key)})", "text"
    elif clause.field in kinds and kinds[clause.field] in SQL_KINDS:
        name, kind = f'"{clause.field}"', kinds[clause.field]
    else:
        return None
    if clause.value is None:
        return f"{name} is null or {name} = ''" if kind in ("text", "ref") else f"{name} is null"
    if clause.op == "contains":
        text = literal(str(clause.value).lower())
        return f"position({text} in lower({name})) > 0" if kind in ("text", "ref") else None
    if clause.op == "eq" and clause.field == "email":
        return f"lower({name}) = {literal(str(clause.value).lower())}"
    if kind in ("text", "ref") and clause.op != "eq":
        return None
    value = _sql_value(kind, clause.value)
    return f"{name} {SIGNS.get(clause.op, '=')} {value}" if value else None


def _sql_value(kind: str, value: Any) -> str | None:
    if kind == "timestamp":
        moment = datetime.fromtimestamp(int(value), timezone.utc)
        return f"timestamptz {literal(moment.isoformat())}"
    if kind in ("text", "ref"):
        return literal(str(value).lower() if isinstance(value, bool) else str(value))
    text = str(value).lower()
    if kind == "bool":
        return text if text in ("true", "false") else None
    number = _number(value)
    return format(number, "f") if number is not None and number.is_finite() else None


def literal(text: str) -> str:
    """Text as SQL writes it."""
    quoted = text.replace("'", "''")
    return f"'{quoted}'"
