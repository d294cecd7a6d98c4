"""What a push makes of a row: fields, conversions, empty values; and what a definition may say."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import pandas
import pyarrow
import pytest

from stripe_feed.api.forms import encode
from stripe_feed.errors import InvalidParameter, UsageError
from stripe_feed.resources.writable import WRITABLE
from stripe_feed.write.parameters import convert
from stripe_feed.write.push.compare import compare
from stripe_feed.write.push.definition import Definition, make_definition, read_definitions
from stripe_feed.write.push.mapping import (
    params_for,
    push_fields,
    row_key,
    update_only,
    wanted_of,
)
from stripe_feed.write.push.rows import columns_of, query_rows, read_rows

EMAIL = {"email": "email"}


def push(**given: Any) -> Definition:
    return make_definition("crm", {"object": "customers", "key": "id_", "match": "email", **given})


def mapped(record: dict[str, Any], verb: str = "create", **given: Any) -> dict[str, Any]:
    record = {"id_": 1, "email": "a@example.com", **record}
    definition = push(**given)
    wanted = wanted_of(definition, push_fields(definition, record), record)
    params = params_for(definition, wanted, verb)
    assert params.pop("email") == "a@example.com"
    return params


def test_a_negative_quantity_is_rejected_before_it_is_sent() -> None:
    definition = push(object="invoice_items", match=None, mode="insert")
    row = {"id_": 1, "customer": "cus_1", "pricing.price": "price_1", "quantity": -1}
    with pytest.raises(InvalidParameter, match="quantity is not negative"):
        params_for(definition, wanted_of(definition, push_fields(definition, row), row), "create")


PRICE = {"currency": "eur", "product": "prod_1"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"unit_amount": -5}, "unit_amount is not negative"),
        ({"unit_amount_decimal": "-0.5"}, "unit_amount_decimal is not negative"),
        ({"unit_amount_decimal": Decimal("0.1234567890123")}, "takes a decimal number as text"),
        ({"unit_amount": 5, "currency": "euro"}, "currency is a code of three letters"),
        ({"unit_amount": 5, "currency": "eur "}, "currency is a code of three letters"),
        ({"unit_amount_decimal": Decimal("0.50000000000000000000")}, ""),
    ],
)
def test_a_price_that_stripe_would_refuse_is_rejected_before_it_is_sent(
    given: dict[str, Any], says: str
) -> None:
    row = {"id_": 1, **PRICE, **given}
    definition = push(object="prices", match=None, mode="insert")
    wanted = wanted_of(definition, push_fields(definition, row), row)
    if not says:
        assert params_for(definition, wanted, "create")["unit_amount_decimal"] == "0.5"
        return
    with pytest.raises(InvalidParameter, match=says):
        params_for(definition, wanted, "create")


@pytest.mark.checklist("H7 H21 N36")
@pytest.mark.parametrize(
    ("fields", "record", "sent"),
    [
        ({"name": "n"}, {"n": "Jane"}, {"name": "Jane"}),
        ({"address.city": "c", "address.line1": "l"}, {"c": "Bonn", "l": "T 1"},
         {"address": {"city": "Bonn", "line1": "T 1"}}),
        ({"description": {"value": "from the CRM"}}, {}, {"description": "from the CRM"}),
        ({"name": {"template": "{first} {last}"}}, {"first": "J", "last": "D"}, {"name": "J D"}),
        ({"name": {"template": "{first} {last}"}}, {"first": "J", "last": " "}, {}),
        ({"name": {"template": "{first|trim|title} {last|upper}"}}, {"first": " jo ", "last": "d"}, {"name": "Jo D"}),
        ({"name": {"template": "Dear {nick|default:friend: you}"}}, {"nick": None}, {"name": "Dear friend: you"}),
        ({"preferred_locales": {"column": "l", "as": "json"}}, {"l": '["de"]'}, {"preferred_locales": ["de"]}),
        ({"metadata.l": {"column": "l", "as": "json"}}, {"l": {"b": ["ü"], "a": 1}}, {"metadata": {"l": '{"a": 1, "b": ["ü"]}'}}),
        ({"phone": {"template": "+{p|digits}"}}, {"p": "(49) 30-1"}, {"phone": "+49301"}),
        ({"name": lambda row: f"{row['a']} of {row['b']}"}, {"a": 1, "b": 2}, {"name": "1 of 2"}),
        ({"name": lambda row: " "}, {}, {}),
        ({"score": "s", "metadata.plan": "p"}, {"s": 12, "p": "pro"},
         {"metadata": {"score": "12", "plan": "pro"}}),
        ({"metadata.since": "d"}, {"d": datetime(2026, 1, 2, tzinfo=timezone.utc)},
         {"metadata": {"since": "2026-01-02T00:00:00+00:00"}}),
        ({"balance": "b"}, {"b": Decimal("-500")}, {"balance": -500}),
        ({"balance": {"column": "b", "as": "integer"}}, {"b": 500.0}, {"balance": 500}),
        ({"metadata.k": "d"}, {"d": Decimal("1E+3")}, {"metadata": {"k": "1000"}}),
        ({"validate": {"column": "v", "as": "boolean"}}, {"v": "No"}, {"validate": False}),
        ({"validate": {"column": "v", "as": "boolean"}}, {"v": 0}, {"validate": False}),
        ({"phone": {"column": "p", "as": "text"}}, {"p": 49123}, {"phone": "49123"}),
    ],
)  # fmt: skip
def test_fields_come_from_columns_constants_and_templates(
    fields: dict[str, Any], record: dict[str, Any], sent: dict[str, Any]
) -> None:
    assert mapped(record, map=EMAIL | fields) == sent


@pytest.mark.parametrize("empty", [None, "", "  ", float("nan"), Decimal("NaN")], ids=repr)
def test_an_empty_cell_has_three_meanings(empty: Any) -> None:
    fields, record = {"map": EMAIL | {"phone": "p", "name": "n"}}, {"p": empty, "n": "x"}

    assert mapped(record, "update", **fields) == {"name": "x"}
    assert mapped(record, "update", **fields, nulls="unset") == {"name": "x", "phone": ""}
    assert mapped(record, "create", **fields, nulls="unset") == {"name": "x"}
    with pytest.raises(InvalidParameter, match="phone is empty"):
        mapped(record, "update", **fields, nulls="error")


def test_a_column_that_a_row_lacks_says_nothing() -> None:
    definition = push(map=EMAIL | {"phone": "p"}, nulls="unset")
    rows = [{"id_": 1, "email": "a@example.com", "p": None}, {"id_": 2, "email": "b@example.com"}]
    fields = push_fields(definition, columns_of(rows))
    sent = [params_for(definition, wanted_of(definition, fields, row), "update") for row in rows]
    assert [one.get("phone", "unmapped") for one in sent] == ["", "unmapped"]


@pytest.mark.parametrize(
    ("fields", "record", "says"),
    [
        ({"balance": "b"}, {"b": 19.99}, "balance takes a whole number"),
        ({"balance": "b"}, {"b": 20.0}, "balance takes a whole number"),
        ({"balance": {"column": "b", "as": "integer"}}, {"b": 19.99}, "does not convert as integer"),
        ({"balance": {"column": "b", "as": "integer"}}, {"b": True}, "does not convert as integer"),
        ({"validate": {"column": "v", "as": "boolean"}}, {"v": "maybe"}, "does not convert as boolean"),
        ({"phone": "p"}, {"p": 49123}, "phone takes text"),
        ({"address": {"column": "a", "as": "json"}}, {"a": "{x"}, "does not convert as json"),
        ({"name": "n"}, {"n": "a\0b"}, "name holds a character that no text has"),
        ({"address.country": "c"}, {"c": "Germany"}, "address.country is a code of two letters, such as DE"),
        ({"name": "n"}, {"n": "4242 4242 4242 4242"}, "looks like a card number"),
        ({"metadata.k": "v"}, {"v": "x" * 501}, "at most 500 characters"),
        ({"metadata.k": "v"}, {"v": ["x"]}, r"metadata.k takes text"),
        ({"address.town": "t"}, {"t": "x"}, "no parameter address.town"),
        ({"name": lambda row: row["4242"]}, {}, "name: its function raises KeyError for this row"),
    ],
)  # fmt: skip
def test_what_cannot_be_sent_is_reported_without_its_value(
    fields: dict[str, Any], record: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidParameter, match=says) as caught:
        mapped(record, map=EMAIL | fields)
    assert not [v for v in record.values() if isinstance(v, str) and v in str(caught.value) and len(v) > 3 and v != "maybe"]  # fmt: skip


@pytest.mark.parametrize(
    ("convert", "value", "seconds"),
    [
        ("milliseconds", 1767225600000, 1767225600),
        ("milliseconds", "1767225600000", 1767225600),
        ("utc", datetime(2026, 1, 1), 1767225600),
        ("utc", "2026-01-01 00:00:00", 1767225600),
        ("utc", datetime(2026, 1, 1, tzinfo=timezone.utc), 1767225600),
    ],
)
def test_times_are_declared_or_refused(convert: str, value: Any, seconds: int) -> None:
    fields = {"metadata.t": {"column": "t", "as": convert}}
    record = {"id_": 1, "email": "a@example.com", "t": value}
    definition = push(map=EMAIL | fields)
    given = wanted_of(definition, push_fields(definition, record), record).given["metadata.t"]
    assert (given.timestamp() if isinstance(given, datetime) else given) == seconds
    with pytest.raises(InvalidParameter, match="does not convert as"):
        wanted_of(definition, push_fields(definition, record), record | {"t": "soon"})


@pytest.mark.checklist("H7 H8")
def test_without_a_map_each_column_is_the_parameter_of_its_name() -> None:
    assert mapped({"name": "J", "tier": "gold"}) == {"name": "J", "metadata": {"tier": "gold"}}


@pytest.mark.checklist("H8")
@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("coupon", "Stripe took coupon off customers"),
        ("delinquent", "read-only"),
        ("adress.city", "Do you mean address"),
        ("metadata.sf_key", "marks its objects"),
        ("sf_key", "marks its objects"),
    ],
)
def test_a_name_that_stripe_would_not_take_is_no_metadata(name: str, says: str) -> None:
    with pytest.raises(InvalidParameter, match=says):
        mapped({"x": 1}, map=EMAIL | {name: "x"})


def test_what_is_only_taken_at_one_time_is_sent_at_that_time() -> None:
    definition = push(map=EMAIL | {"payment_method": "pm", "default_source": "src"})
    record = {"id_": 1, "email": "a@example.com", "pm": "pm_12345", "src": "src_12345"}
    wanted = wanted_of(definition, push_fields(definition, record), record)
    assert params_for(definition, wanted, "create").keys() == {"email", "payment_method"}
    assert params_for(definition, wanted, "update").keys() == {"email", "default_source"}
    assert update_only(definition, wanted) == {"default_source": "src_12345"}


def test_keys_of_several_columns_cannot_be_mixed_up() -> None:
    definition = push(key=["a", "b"])
    pairs = [("x|y", "z"), ("x", "y|z"), ("x\\", "y|z"), (1, 2), ("1", "22")]
    assert len({row_key(definition, {"a": a, "b": b}) for a, b in pairs}) == len(pairs)
    with pytest.raises(InvalidParameter, match="key column b is empty"):
        row_key(definition, {"a": 1, "b": " "})


def test_a_float_is_no_text() -> None:
    """A column of a DataFrame with one blank cell makes 3.0 of 3."""
    with pytest.raises(InvalidParameter, match="name: the column n holds a float"):
        mapped({"n": 3.0}, map=EMAIL | {"name": {"template": "Team {n}"}})
    as_text = {"phone": {"column": "p", "as": "text"}}
    assert mapped({"p": 49123.0}, map=EMAIL | as_text) == {"phone": "49123"}
    with pytest.raises(InvalidParameter, match="phone: a value of type float"):
        mapped({"p": 4.5}, map=EMAIL | as_text)


@pytest.mark.parametrize("value", [b"x", ["x"], {"a": 1}], ids=repr)
def test_a_template_takes_what_has_one_text(value: Any) -> None:
    with pytest.raises(InvalidParameter, match="a template takes no value of type"):
        mapped({"n": value}, map=EMAIL | {"name": {"template": "Team {n}"}})


def test_a_uuid_is_text() -> None:
    """DuckDB and Postgres have a type for it."""
    known = UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
    record = next(read_rows([{"id_": known, "email": "a@example.com", "n": known}]))
    assert mapped(record, map=EMAIL | {"name": "n", "score": "n"}) == {
        "name": str(known), "metadata": {"score": str(known)},
    }  # fmt: skip
    assert row_key(push(), record) == str(known)


def cyclic() -> list[Any]:
    found: list[Any] = []
    found.append(found)
    return found


POISON = (10**5_000, Decimal("sNaN"), {1: "a", "b": 2}, cyclic(), {"a": 10**5_000}, {("a",): 1},
          Decimal("1E+900000"), [Decimal("sNaN")], {"a": cyclic()})  # fmt: skip


@pytest.mark.parametrize("value", POISON, ids=[str(n) for n in range(len(POISON))])
@pytest.mark.parametrize(
    "fields",
    [{"metadata.k": "v"}, {"name": {"template": "{v}"}}, {"balance": "v"}, {"metadata": "v"},
     {"balance": {"column": "v", "as": "integer"}}, {"name": {"column": "v", "as": "text"}},
     {"validate": {"column": "v", "as": "boolean"}},
     {"source": {"column": "v", "find": "customers", "by": "email"}}],
    ids=str,
)  # fmt: skip
def test_a_value_that_has_no_text_rejects_its_row_only(value: Any, fields: dict[str, Any]) -> None:
    definition = push(map=EMAIL | fields)
    good = {"id_": 2, "email": "b@example.com", "v": None}
    bad = {"id_": 1, "email": "a@example.com", "v": value}
    table = compare(definition, list(read_rows([bad, good])), {}, False)
    assert [wanted.key for wanted, _ in table.pending if wanted.key != "1"] == ["2"]
    for wanted, _ in table.pending:  # what has a text at all is refused by name, if at all
        with suppress(InvalidParameter):
            encode(params_for(definition, wanted, "create"))


@pytest.mark.parametrize("value", POISON[:2], ids=["integer", "sNaN"])
def test_a_key_that_has_no_text_rejects_its_row_only(value: Any) -> None:
    rows = [{"id_": value, "email": "a@example.com"}, {"id_": 2, "email": "b@example.com"}]
    table = compare(push(map=EMAIL), list(read_rows(rows)), {}, False)
    assert ([wanted.key for wanted, _ in table.pending], table.nameless) == (["2"], 1)
    assert "key column id_" in table.rejected["(row 1)"]


@pytest.mark.parametrize(
    "number", [10**18, 10**5_000, Decimal("1E+900000")], ids=["18", "5000", "E"]
)
@pytest.mark.parametrize(
    ("table", "name"),
    [("customers", "balance"), ("coupons", "percent_off"), ("prices", "unit_amount_decimal")],
)
def test_a_number_that_no_amount_has_is_refused(table: str, name: str, number: Any) -> None:
    with pytest.raises(InvalidParameter, match=f"{name} takes"):
        convert(WRITABLE[table], "create", {name: number})


def test_a_float_finds_nothing_so_it_is_refused() -> None:
    """A column of a DataFrame with one blank cell makes 3.0 of 3."""
    frame = pandas.DataFrame({"crm": [3, None], "email": ["a@example.com", "b@example.com"]})
    record = next(iter(read_rows(frame)))
    plain: dict[str, Any] = {"key": "crm", "match": "metadata.crm", "map": {"metadata.crm": "crm"}}
    declared = plain | {"map": {"metadata.crm": {"column": "crm", "as": "integer"}}}
    with pytest.raises(InvalidParameter, match=r'metadata.crm is a float.*as = "integer"'):
        wanted_of(push(**plain), push_fields(push(**plain), record), record)
    wanted = wanted_of(push(**declared), push_fields(push(**declared), record), record)
    assert (wanted.key, wanted.given["metadata.crm"]) == ("3", 3)

    named = push(
        map=EMAIL | {"source": {"column": "crm", "find": "customers", "by": "metadata.crm"}}
    )
    with pytest.raises(InvalidParameter, match="source: a float names no customers"):
        wanted_of(named, push_fields(named, record | {"id_": 1}), record | {"id_": 1})


@pytest.mark.parametrize("number", [1.5, float("inf")])
def test_a_key_that_is_no_whole_number_is_refused(number: float) -> None:
    with pytest.raises(InvalidParameter, match="key column id_ holds a float"):
        row_key(push(), {"id_": number})


def test_the_content_is_that_of_the_mapped_columns() -> None:
    definition = push(map=EMAIL | {"name": "n"})
    record = {"id_": 1, "email": "a@example.com", "n": "x", "other": 1}

    def content(**more: Any) -> str:
        return wanted_of(definition, push_fields(definition, record), record | more).content

    assert content() == content(other=2) != content(n="y")


# -- rows ------------------------------------------------------------------------------------------

RECORDS = [{"id": 1, "name": "x"}, {"id": 2, "name": None}]


def test_rows_come_from_whatever_holds_them() -> None:
    table = pyarrow.Table.from_pylist(RECORDS)
    for source in (RECORDS, iter(RECORDS), table, table.to_batches(), [table], pandas.DataFrame(RECORDS)):  # fmt: skip
        assert list(read_rows(source)) == RECORDS


def test_a_number_that_is_none_is_null() -> None:
    frame = pandas.DataFrame({"a": [1.0, None], "t": [pandas.Timestamp("2026-01-01"), pandas.NaT]})
    assert list(read_rows(frame))[1] == {"a": None, "t": None}


def test_rows_come_from_a_dlt_resource() -> None:
    import dlt

    @dlt.resource  # type: ignore[untyped-decorator, unused-ignore]
    def people() -> Any:
        yield RECORDS

    assert list(read_rows(people())) == RECORDS


@pytest.mark.parametrize("nothing", [5, "text", None])
def test_what_holds_no_rows_is_refused(nothing: Any) -> None:
    with pytest.raises(UsageError, match="holds no rows"):
        list(read_rows(nothing))


def test_rows_come_from_a_query_on_the_copy() -> None:
    with duckdb.connect("copy.duckdb") as db:
        db.execute("create schema stripe")
        db.execute(
            "create table stripe.people as select 1 as id, 'x' as name, '{\"city\": \"Bonn\"}'::json as address"
        )
    assert query_rows("select * from people", "copy.duckdb") == [
        {"id": 1, "name": "x", "address": {"city": "Bonn"}}
    ]
    long = query_rows(f"select '[{'9' * 5000}]'::json as x", "copy.duckdb")[0]["x"]
    assert len(long) == 5_002  # it has no number of Python's
    with pytest.raises(UsageError, match="one name"):
        query_rows("select id, id from people", "copy.duckdb")


# -- definitions -----------------------------------------------------------------------------------


@pytest.mark.checklist("H4")
def test_a_file_holds_pushes() -> None:
    Path("pushes.toml").write_text(
        """
        [push.crm]
        object = "customers"
        key = "user_id"
        match = "metadata.user_id"
        query = "select 1"
        on_delete = "delete"
        max_deletes = 5

        [push.crm.map]
        email = "email"
        metadata.user_id = "user_id"
        "address.city" = { column = "city", as = "text" }
        """
    )
    (crm,) = read_definitions(Path("pushes.toml").read_text()).values()
    assert (crm.name, crm.key, crm.mode, crm.max_deletes) == ("crm", ("user_id",), "upsert", 5)
    assert crm.columns == ["user_id", "email", "city"]
    assert set(crm.map or {}) == {"email", "metadata.user_id", "address.city"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"object": "charges"}, "Choose from: customers"),
        ({"mode": "mirror"}, "insert, update, upsert"),
        ({"only_if_empty": 1}, "only_if_empty is true, false or a list of fields"),
        (
            {"object": "prices", "match": "metadata.k", "only_if_empty": True},
            "only_if_empty is for customers, products",
        ),
        ({"match": None}, "upsert needs match"),
        ({"match": "phone"}, "match on id, email or metadata.NAME"),
        ({"match": "id"}, "Stripe chooses the id"),
        ({"map": {"name": "n"}}, "says nothing of email"),
        ({"key": []}, "key names the columns"),
        ({"nulls": "clear"}, "skip, unset, error"),
        ({"on_delete": "archive"}, "nothing, delete"),
        ({"on_delete": "delete"}, "needs max_deletes"),
        ({"on_delete": "delete", "max_deletes": 1, "mode": "update"}, "needs the mode upsert"),
        ({"max_delete_share": 0}, "at most 1"),
        ({"keys": "x"}, "no setting keys"),
        ({"map": {"email": {"column": "e", "as": "number"}}}, "as is one of"),
        ({"map": {"email": {"template": "no column"}}}, "text with {column}"),
        ({"map": {"email": {"template": "{a:>5}"}}}, "can be followed by |trim"),
        ({"map": {"email": {"template": "{a"}}}, "text with {column}"),
        ({"map": {"email": 5}}, "is a column, or one of"),
    ],
)
def test_a_definition_that_makes_no_sense_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        push(**given)


@pytest.mark.parametrize(
    ("text", "says"),
    [("push = 1", "tables named"), ("[x]", "tables named"), ("[push", "no TOML"), ("[push.x]\nkey = 'k'", "object is missing")],
)  # fmt: skip
def test_a_file_that_holds_no_pushes_is_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_definitions(text)


def test_a_column_that_no_row_has_is_reported() -> None:
    with pytest.raises(UsageError, match=r"no column mail. They have: id_, email"):
        push_fields(push(map={"email": "mail"}), ["id_", "email"])
    with pytest.raises(UsageError, match="given twice"):
        push_fields(push(map=EMAIL | {"metadata.a": "id_", "a": "id_"}), ["id_", "email"])


@pytest.mark.parametrize("value", [float("inf"), Decimal("Infinity"), {"a": float("nan")}])
def test_what_is_no_number_is_no_text_either(value: Any) -> None:
    with pytest.raises(InvalidParameter, match="metadata"):
        mapped(
            {"x": value}, map=EMAIL | {("metadata" if isinstance(value, dict) else "score"): "x"}
        )
    with pytest.raises(InvalidParameter, match="does not convert"):
        mapped({"x": value}, map=EMAIL | {"balance": {"column": "x", "as": "integer"}})
