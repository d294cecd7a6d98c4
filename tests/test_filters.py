"""Filters: read, tested on objects, and said in the languages of Stripe's search, of its lists and of
SQL, which all mean the same.
"""

from __future__ import annotations

import json
import re
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stripe_feed.errors import UsageError
from stripe_feed.resources.writable import WRITABLE
from stripe_feed.write.lookup.filters import (
    FilterClause,
    Group,
    list_filters,
    matches,
    parse,
    read,
    search_query,
    to_sql,
)

CUSTOMERS, INVOICES = WRITABLE["customers"], WRITABLE["invoices"]
TEXT = st.text(st.characters(exclude_characters="\\", exclude_categories=["Cs"]), min_size=1)


@pytest.mark.parametrize(
    ("text", "clause"),
    [
        ("status=active", FilterClause("status", "eq", "active")),
        ("name~O'Shea", FilterClause("name", "contains", "O'Shea")),
        ("total>=100", FilterClause("total", "gte", "100")),
        ("created<2026-01-01", FilterClause("created", "lt", 1767225600)),
        ("metadata.a b=1=2", FilterClause("metadata.a b", "eq", "1=2")),
        ("email=", FilterClause("email", "eq", None)),
        ("cancel_at_period_end=true", FilterClause("cancel_at_period_end", "eq", "true")),
        ("current_period_end<1970-01-02", FilterClause("current_period_end", "lt", 86_400)),
    ],
)
def test_a_condition_of_the_command_line(text: str, clause: FilterClause) -> None:
    assert parse(text) == clause


@pytest.mark.parametrize("text", ["", "status", "=x", "created>soon", "total>"])
def test_what_is_no_condition(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)


@pytest.mark.parametrize(
    "where",
    [[], {"a": {"near": 1}}, {"a": [1]}, {"or": {}}, {"or": []}, {"and": "x"}, {"a": {"gt": None}}],
    ids=str,
)
def test_what_is_no_filter(where: Any) -> None:
    with pytest.raises(UsageError):
        read(where)


NESTED = {"status": "open", "or": [{"total": {"gt": 5}}, {"customer": "cus_1", "paid": False}]}


@pytest.mark.parametrize(
    ("held", "is_match"),
    [
        ({"status": "open", "total": 6}, True),
        ({"status": "open", "total": 5, "customer": "cus_1", "paid": False}, True),
        ({"status": "open", "total": 5, "customer": {"id": "cus_1"}, "paid": False}, True),
        ({"status": "open", "total": 5, "customer": "cus_1", "paid": True}, False),
        ({"status": "draft", "total": 6}, False),
        ({}, False),
    ],
)
def test_a_filter_on_an_object(held: dict[str, Any], is_match: bool) -> None:
    assert matches(read(NESTED), held) is is_match


@pytest.mark.parametrize(
    ("where", "query"),
    [
        ({"email": "a@x.org"}, 'email:"a@x.org"'),
        ({"name": {"contains": "jane"}, "created": {"gte": 5, "lt": 9}}, 'name~"jane" AND created>=5 AND created<9'),
        ({"or": [{"email": "a"}, {"phone": "b"}]}, 'email:"a" OR phone:"b"'),
        ({"metadata.a.b": 'x"y'}, 'metadata["a.b"]:"x\\"y"'),
        ({"metadata.a": None}, 'metadata["a"]:null'),
        ({"name": {"contains": "ab"}}, None),  # search needs three characters
        ({"email": {"gt": "a"}}, None),
        ({"description": "x"}, None),  # cannot be searched
        ({"name": "a\\b"}, None),  # how it is escaped is not documented
        ({"email": "a", "or": [{"phone": "b"}, {"phone": "c"}]}, None),  # both kinds
        ({"or": [{"email": "a", "phone": "b"}, {"phone": "c"}]}, None),
        ({f"metadata.k{n}": "v" for n in range(11)}, None),  # ten clauses at most
        ({}, None),
    ],
)  # fmt: skip
def test_what_stripes_search_can_say(where: dict[str, Any], query: str | None) -> None:
    assert search_query(read(where), CUSTOMERS) == query


def test_a_boolean_is_searched_as_a_word() -> None:
    assert search_query(read({"active": True}), WRITABLE["products"]) == 'active:"true"'


@given(TEXT, TEXT)
def test_no_value_gets_out_of_its_quotes(key: str, value: str) -> None:
    """Read as the grammar says, the query is one clause on this key with this value."""
    query = search_query(FilterClause(f"metadata.{key}", "eq", value), CUSTOMERS)

    assert query is not None
    quoted = r'"((?:[^"\\]|\\.)*)"'
    found = re.fullmatch(rf"metadata\[{quoted}\]:{quoted}", query, re.DOTALL)
    assert found and [part.replace('\\"', '"') for part in found.groups()] == [key, value]


@pytest.mark.parametrize(
    ("where", "filters", "says_all"),
    [
        ({}, {}, True),
        ({"customer": "cus_1", "status": "open"}, {"customer": "cus_1", "status": "open"}, True),
        ({"created": {"gte": 5, "lt": 9}}, {"created": {"gte": 5, "lt": 9}}, True),
        ({"status": "open", "total": {"gt": 5}}, {"status": "open"}, False),
        ({"or": [{"status": "open"}, {"status": "draft"}]}, {}, False),
        ({"customer": None}, {}, False),
        ({"status": {"contains": "op"}}, {}, False),
    ],
)
def test_what_a_list_can_say(where: dict[str, Any], filters: Any, says_all: bool) -> None:
    assert list_filters(read(where), INVOICES) == (filters, says_all)


# -- SQL -------------------------------------------------------------------------------------------

VALUES: dict[str, list[Any]] = {
    "name": ["Jane", "jane", "O'Shea", "", "50%", None],
    "email": ["A@x.org", "a@x.org", None],
    "balance": [-5, 0, 12, None],
    "delinquent": [True, False, None],
    "created": [1_700_000_000, 1_800_000_000],
    "metadata": [{}, {"plan": "pro"}, {"plan": "Pro", "a.b": "it's"}],
}
ROWS = [
    {"id": f"cus_{n}", **{name: values[(n * step) % len(values)] for step, (name, values) in
                          enumerate(VALUES.items(), 1)}}
    for n in range(36)
]  # fmt: skip


@pytest.fixture(scope="module")
def connection() -> duckdb.DuckDBPyConnection:
    made = duckdb.connect()
    made.execute(
        "create table customers(id text, name text, email text, balance bigint, delinquent bool, created timestamptz, metadata json)"
    )
    for row in ROWS:
        held = {**row, "metadata": json.dumps(row["metadata"])}
        made.execute(
            "insert into customers values ($id, $name, $email, $balance, $delinquent, to_timestamp($created), $metadata)",
            held,
        )
    return made


TEXTS = st.sampled_from(["Jane", "jane", "O'Shea", "a@x.org", "pro", "50%", "%", "'", None])
CLAUSES = st.one_of(
    st.builds(FilterClause, st.sampled_from(["name", "email"]), st.just("eq"), TEXTS),
    st.builds(FilterClause, st.sampled_from(["name", "email"]), st.just("contains"), TEXTS.filter(bool)),
    st.builds(FilterClause, st.sampled_from(["metadata.plan", "metadata.a.b"]), st.just("eq"), TEXTS),
    st.builds(FilterClause, st.just("balance"), st.sampled_from(["eq", "gt", "gte", "lt", "lte"]), st.sampled_from([-5, "0", 12])),
    st.builds(FilterClause, st.just("created"), st.sampled_from(["gt", "gte", "lt", "lte"]), st.just(1_700_000_000)),
    st.builds(FilterClause, st.just("delinquent"), st.just("eq"), st.sampled_from([True, "false", None])),
)  # fmt: skip
FILTERS: st.SearchStrategy[Any] = st.recursive(
    CLAUSES, lambda inner: st.builds(Group, st.booleans(), st.lists(inner, min_size=1, max_size=3).map(tuple))
)  # fmt: skip


@settings(deadline=None)
@given(FILTERS)
def test_sql_finds_what_the_filter_means(
    connection: duckdb.DuckDBPyConnection, wanted: Any
) -> None:
    condition = to_sql(wanted, "customers")

    found = connection.execute(f"select id from customers where {condition}").fetchall()
    assert {one for (one,) in found} == {row["id"] for row in ROWS if matches(wanted, row)}


@pytest.mark.parametrize(
    "clause",
    [
        FilterClause("nope", "eq", "x"),
        FilterClause("address.city", "eq", "x"),
        FilterClause("metadata.$x", "eq", "x"),  # DuckDB takes it for a path
        FilterClause("name", "gt", "x"),
        FilterClause("balance", "eq", "x"),
        FilterClause("delinquent", "eq", "maybe"),
    ],
)
def test_what_a_table_cannot_answer(clause: FilterClause) -> None:
    assert to_sql(clause, "customers") is None
    assert to_sql(Group(True, (clause, FilterClause("name", "eq", "x"))), "customers") is None


def test_a_table_that_the_copy_lacks_cannot_answer() -> None:
    assert to_sql(FilterClause("name", "eq", "x"), "nope") is None


def test_what_is_no_number_compares_with_none() -> None:
    for value in ("NaN", "Infinity", float("nan")):
        assert not matches(read({"total": {"gt": value}}), {"total": 1})
