"""`GET /v1/<kind>/search`: match clauses against a delayed index and page by token."""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import msgspec

from ..protocol.errors import Refusal, required, unknown_parameters
from ..protocol.parameters import Params, expands, page_limit
from ..samples.values import Object
from ..state.kinds import KINDS
from ..state.table import Row, values_at
from ..world import World
from . import expansions

Type = Literal["string", "token", "number", "metadata"]

TABLES = ("customers", "invoices", "subscriptions", "products", "prices")
NAMES: dict[Type, dict[str, str]] = {
    "string": {
        "customers": "email name phone",
        "invoices": "number receipt_number status subscription",
        "products": "name description url",
        "prices": "lookup_key product",
    },
    "token": {
        "invoices": "currency customer last_finalization_error_code last_finalization_error_type",
        "subscriptions": "status",
        "products": "active shippable",
        "prices": "active currency type",
    },
    "number": {
        "customers": "created",
        "invoices": "created total",
        "subscriptions": "created canceled_at",
    },
    "metadata": dict.fromkeys(TABLES, "metadata"),
}
FIELDS = {
    table: {name: type for type, names in NAMES.items() for name in names.get(table, "").split()}
    for table in TABLES
}
PLACES = {
    "subscription": "parent.subscription_details.subscription",
    "last_finalization_error_code": "last_finalization_error.code",
    "last_finalization_error_type": "last_finalization_error.type",
}
"""Field -> where it is in the object."""

OPERATORS = {
    "string": (":", "~"),
    "token": (":",),
    "metadata": (":", "~"),
    "number": (":", ">", "<", ">=", "<="),
}
PATHS = {f"{KINDS[table].path}/search": table for table in TABLES}
MAX_CLAUSES = 10
MIN_SUBSTRING = 3
WORD = re.compile(r"\w+")
CLAUSE = re.compile(
    r"""\s*(?P<not>-?)(?P<field>[A-Za-z_]+)
    (\[\s*(?P<quote>["'])(?P<key>(\\.|(?!(?P=quote)).)*)(?P=quote)\s*\])?
    \s*(?P<operator>:|~|>=|<=|>|<)\s*
    ("(?P<double>(\\.|[^"\\])*)"|'(?P<single>(\\.|[^'\\])*)'|(?P<bare>-?\d+(\.\d+)?|null)(?![\w.]))
    \s*""",
    re.VERBOSE | re.IGNORECASE,
)
JOINER = re.compile(r"(AND|OR)(?=[\s-])", re.IGNORECASE)
Match = Callable[[Object], bool]


class Clause(NamedTuple):
    """One condition of a query. A value of None is `null`."""

    negated: bool
    field: str
    key: str | None
    operator: str
    value: str | None


def unparsable() -> Refusal:
    return Refusal(
        400,
        'We were unable to parse your search query. Try using the format `metadata["key"]:"value"` to query for '
        'metadata or key:"value" to query for other fields.',
        param="query",
    )


def search_objects(account: World, key: str, table: str, params: Params) -> bytes:
    """Return one page of matching objects."""
    if strange := [name for name in params if name not in ("query", "limit", "page", "expand")]:
        raise unknown_parameters(strange)
    if not params.get("query"):
        raise required("query")
    asked = [path for path in expands(params) if path != "total_count"]
    paths = expansions.check_paths(account, key, table, tuple(asked), in_list=True)
    matches = condition(table, params["query"])
    found = [row for row, indexed in index(account, table) if matches(indexed)]
    limit = page_limit(params.get("limit", "10"))
    first = _offset(params.get("page"), params["query"])
    shown = [row.raw for row in found[first : first + limit]]
    if paths:
        shown = [expansions.expand(account, table, raw, paths) for raw in shown]
    more = first + limit < len(found)
    whole: Object = {
        "object": "search_result",
        "data": [msgspec.Raw(raw) for raw in shown],
        "has_more": more,
        "next_page": _token(first + limit, params["query"]) if more else None,
        "url": f"{KINDS[table].path}/search",
    }
    if "total_count" in expands(params):
        whole["total_count"] = min(len(found), 10_000)
    return msgspec.json.encode(whole)


def index(account: World, table: str) -> Iterator[tuple[Row, Object]]:
    """Yield each row, newest first, with its indexed, possibly older content."""
    old = _before(account, table, account.now - account.faults.search_lag)
    rows = account.tables[table]
    for row in rows.older(*rows.span(None, None)):
        indexed = old[row.id] if row.id in old else row.content()
        if indexed is not None and row.group != "inline":
            yield row, indexed


def _before(account: World, table: str, time: float) -> dict[str, Object | None]:
    """Return the older content of objects changed after `time`. None means that it did not exist."""
    found: dict[str, Object | None] = {}
    for stored in reversed(account.event_log.mutations):
        if stored.mutation.at <= time:
            break
        if stored.mutation.table == table:
            found[stored.mutation.id] = msgspec.json.decode(stored.before)
    return found


def _token(offset: int, query: str) -> str:
    return base64.urlsafe_b64encode(f"{offset}:{zlib.crc32(query.encode())}".encode()).decode()


def _offset(token: Any, query: str) -> int:
    if token is None:
        return 0
    try:
        offset, check = base64.urlsafe_b64decode(str(token)).decode().split(":")
        if int(check) == zlib.crc32(query.encode()):
            return int(offset)
    except ValueError:
        pass
    raise Refusal(400, f"Invalid page token: {token}", param="page")


# The query


def condition(table: str, query: str) -> Match:
    """Compile a query."""
    clauses, joiner = parse_search(query)
    matches = [_match(table, clause) for clause in clauses]
    some = any if joiner == "OR" else all
    return lambda content: some(match(content) for match in matches)


def parse_search(query: str) -> tuple[list[Clause], str]:
    """Return the clauses and their joiner, AND or OR."""
    clauses, joiners, at = list[Clause](), set[str](), 0
    while at < len(query.rstrip()):
        if clauses:
            joiner = JOINER.match(query, at)
            joiners.add(joiner[1].upper() if joiner else "AND")
            at = joiner.end() if joiner else at
        found = CLAUSE.match(query, at)
        if found is None:
            raise unparsable()
        clauses.append(_clause(found))
        at = found.end()
    if not clauses or len(joiners) > 1:
        raise unparsable()
    if len(clauses) > MAX_CLAUSES:
        raise Refusal(400, f"A search query can have up to {MAX_CLAUSES} clauses.", param="query")
    return clauses, next(iter(joiners), "AND")


def _clause(found: re.Match[str]) -> Clause:
    quoted = found["double"] if found["double"] is not None else found["single"]
    bare = found["bare"]
    value: str | None = bare
    if quoted is not None:
        value = _unescaped(quoted)
    elif bare.lower() == "null":
        value = None
    key = None if found["key"] is None else _unescaped(found["key"])
    return Clause(bool(found["not"]), found["field"].lower(), key, found["operator"], value)


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _match(table: str, clause: Clause) -> Match:
    type = FIELDS[table].get(clause.field)
    if type is None or (clause.key is not None) != (type == "metadata"):
        raise Refusal(
            400,
            f"Field `{clause.field}` is an unsupported search field for resource `{table}`. See "
            f"http://stripe.com/docs/search#query-fields-for-{table} for a list of supported fields.",
            param="query",
        )
    if clause.operator not in OPERATORS[type] or (clause.value is None and clause.operator != ":"):
        raise Refusal(
            400,
            f"Operator `{clause.operator}` is not supported for field `{clause.field}`.",
            param="query",
        )
    compare = _comparison(type, clause)

    def match(content: Object) -> bool:
        held = _held(content, clause)
        present = held is not None and held != ""
        return (
            present and compare(held) if clause.value is not None else not present
        ) != clause.negated

    return match


def _held(content: Object, clause: Clause) -> Any:
    if clause.key is not None:
        return (content.get("metadata") or {}).get(clause.key)
    place = PLACES.get(clause.field, clause.field)
    return next(iter(values_at(content, place.split("."))), None)


def _comparison(type: Type, clause: Clause) -> Callable[[Any], bool]:
    wanted = clause.value or ""
    if type == "number":
        try:
            number = float(wanted)
        except ValueError:
            raise unparsable() from None
        return lambda held: COMPARE[clause.operator](held, number)
    if clause.operator == "~":
        if len(wanted) < MIN_SUBSTRING:
            raise Refusal(
                400,
                f"A substring must have at least {MIN_SUBSTRING} characters.",
                param="query",
            )
        return lambda held: wanted.lower() in str(held).lower()
    if type == "string":
        phrase = _words(wanted)
        return lambda held: _has_phrase(_words(str(held)), phrase)
    return lambda held: _token_text(held) == wanted.lower()


COMPARE: dict[str, Callable[[float, float], bool]] = {
    ":": lambda held, wanted: held == wanted,
    ">": lambda held, wanted: held > wanted,
    "<": lambda held, wanted: held < wanted,
    ">=": lambda held, wanted: held >= wanted,
    "<=": lambda held, wanted: held <= wanted,
}


def _token_text(held: Any) -> str:
    return str(held).lower()


def _words(text: str) -> list[str]:
    return WORD.findall(text.lower())


def _has_phrase(words: list[str], phrase: list[str]) -> bool:
    """Say whether the words contain the phrase."""
    length = len(phrase)
    return bool(phrase) and any(
        words[at : at + length] == phrase for at in range(len(words) - length + 1)
    )
