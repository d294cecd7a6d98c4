"""JSON bytes to Arrow: types of every kind, what is unknown or odd, what the digest sees, children
and tombstones.
"""

from __future__ import annotations

import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any
from unittest.mock import Mock

import msgspec
import pyarrow as pa
import pytest

from stripe_feed.api.client import InvalidBody
from stripe_feed.extract.existing import object_from_row
from stripe_feed.extract.tables.arrow import LoadStamp, child_table, parent_table, to_array
from stripe_feed.extract.tables.codec import ARROW_TYPES, NEVER_NULL, Record, TableCodec
from stripe_feed.extract.tables.rejected import Rejected
from stripe_feed.extract.tables.values import value_of
from stripe_feed.resources.column_files import DETAILS
from stripe_feed.resources.model import Column, ColumnKind, Resource
from tests.core import CORE, CORE_TABLES

STAMP = LoadStamp("acct_1", "load_1")
VERSION = 1_780_000_000_000_000


def page(*objects: bytes, has_more: bool = False) -> bytes:
    more = b"true" if has_more else b"false"
    return (
        b'{"object": "list", "url": "/v1/x", "has_more": '
        + more
        + b', "data": ['
        + b", ".join(objects)
        + b"]}"
    )


def obj(fields: dict[str, Any] | None = None, **more: Any) -> bytes:
    """An object as bytes; `id` first."""
    return json.dumps({"id": "x_1"} | (fields or {}) | more).encode()


def taken(shape: TableCodec, *objects: bytes) -> list[Record]:
    """The records that these objects become; fails where one cannot be taken."""
    found, _ = shape.decode_page(page(*objects))
    return [one for one in found if isinstance(one, Record) or pytest.fail(str(one))]


def rows(
    table: str, *objects: bytes, shape: TableCodec | None = None, expand: tuple[str, ...] = ()
) -> list[dict[str, Any]]:
    """The rows that these objects become."""
    shape = shape or TableCodec(CORE[table], expand)
    records = taken(shape, *objects)
    found: list[dict[str, Any]] = parent_table(
        shape, records, [VERSION] * len(records), STAMP
    ).to_pylist()
    return found


def row(table: str, fields: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """The row that one object becomes."""
    (found,) = rows(table, obj(fields, **more))
    return found


def digest(table: str, body: bytes) -> str:
    return TableCodec(CORE[table]).decode_object(body).hash


def families(shape: TableCodec, field: str, *bodies: bytes) -> list[tuple[str, list[Any], int]]:
    records = taken(shape, *bodies)
    return [
        (record.row.id, list(getattr(record.row, field).data), VERSION + n)
        for n, record in enumerate(records)
    ]


def child_rows(table: str, *bodies: bytes) -> list[dict[str, Any]]:
    shape = TableCodec(CORE[table])
    ((child, child_shape),) = shape.children
    laid = child_table(
        child_shape, child, families(shape, child.field, *bodies), STAMP, now=1_700_000_000
    )
    found: list[dict[str, Any]] = laid.to_pylist()
    return found


@pytest.mark.parametrize(
    ("table", "column", "sent", "lands"),
    [
        ("customers", "name", "Zoë 🚲", "Zoë 🚲"),
        ("customers", "name", "", ""),
        ("customers", "default_source", "card_1", "card_1"),
        ("customers", "balance", -12_345, -12_345),
        ("customers", "delinquent", True, True),
        ("customers", "delinquent", False, False),
        (
            "customers",
            "created",
            1_700_000_000,
            datetime(2023, 11, 14, 22, 13, 20, tzinfo=timezone.utc),
        ),
        ("customers", "created", 0, datetime(1970, 1, 1, tzinfo=timezone.utc)),
        ("customers", "created", -86_400, datetime(1969, 12, 31, tzinfo=timezone.utc)),
        ("prices", "unit_amount_decimal", "0.5", Decimal("0.5")),
        ("subscriptions", "application_fee_percent", 12.5, 12.5),
        ("subscriptions", "application_fee_percent", 12, 12.0),
        (
            "customers",
            "address",
            {"city": "Köln", "line2": None},
            '{"city": "K\\u00f6ln", "line2": null}',
        ),
        ("customers", "preferred_locales", ["de", "en"], '["de", "en"]'),
        ("customers", "preferred_locales", [], "[]"),
        ("customers", "metadata", {}, "{}"),
    ],
)
def test_each_kind_lands_as_its_type(table: str, column: str, sent: object, lands: object) -> None:
    """As Stripe sent it, in a column of its own."""
    found = row(table, {column: sent})

    assert found[column] == lands
    assert found["extra"] is None


@pytest.mark.parametrize("table", CORE)
@pytest.mark.parametrize("absent", [True, False], ids=["absent", "null"])
def test_null_and_absent_are_null(table: str, absent: bool) -> None:
    """In every column but the id's, and those of our own."""
    shape = TableCodec(CORE[table])
    fields = (
        {} if absent else {column.name: None for column in shape.columns if column.name != "id"}
    )
    found = row(table, fields)

    held = {name for name, value in found.items() if value is not None}
    assert held == {"id", "account_id", "_version", "_hash", "_dlt_load_id"}


@pytest.mark.parametrize("table", CORE_TABLES)
def test_a_table_has_one_schema(table: str) -> None:
    """Every batch, an empty one too, has the declared columns in their order, with their types and
    what can be null.
    """
    shape = TableCodec(CORE_TABLES[table])
    own = [
        "extra",
        "account_id",
        "deleted_at",
        "_version",
        *(["_hash"] if table in CORE else []),
        "_dlt_load_id",
    ]

    assert shape.schema.names == [column.name for column in CORE_TABLES[table].columns] + own
    assert [field.type for field in shape.schema] == [
        ARROW_TYPES[column.kind] for column in shape.all_columns
    ]
    assert {field.name for field in shape.schema if not field.nullable} == NEVER_NULL & set(
        shape.schema.names
    )
    if table in CORE:
        assert parent_table(shape, [], [], STAMP).schema == shape.schema


def test_batches_of_a_table_can_be_joined() -> None:
    """Whatever was learned between two of them."""
    shape = TableCodec(CORE["customers"])
    batches = []
    for body in (obj(name="a"), obj(new_field=1), obj(name=5), obj()):
        records = taken(shape, body)
        batches.append(parent_table(shape, records, [VERSION], STAMP))

    assert pa.concat_tables(batches).num_rows == 4


def test_our_own_columns() -> None:
    """Whose row, how fresh, by which load; it exists, so it was not deleted."""
    found = row("customers", name="a")

    assert found["account_id"] == "acct_1"
    assert found["_version"] == VERSION
    assert found["_dlt_load_id"] == "load_1"
    assert found["deleted_at"] is None
    assert len(found["_hash"]) == 16


def test_json_columns_keep_the_original_bytes() -> None:
    """White space, escapes, order, numbers as they are written: nothing is decoded and encoded
    again.
    """
    metadata = b'{ "b": "\\u00e9\\/", "a":1.50 , "deep": [1, {"x":12345678901234567890}] }'
    body = b'{"id": "cus_1", "metadata": ' + metadata + b', "address":[ ]}'
    (found,) = rows("customers", body)

    assert found["metadata"].encode() == metadata
    assert found["address"] == "[ ]"


def test_a_sanctioned_secret_is_never_loaded() -> None:
    """An invoice's confirmation secret and a customer's embedded subscriptions are left out,
    `extra` included.
    """
    invoice = row(
        "invoices",
        confirmation_secret={"client_secret": "canary"},
        lines={"data": [], "has_more": False},
    )
    customer = row("customers", subscriptions={"data": [{"id": "canary"}], "has_more": False})

    assert "canary" not in f"{invoice} {customer}"


@pytest.mark.parametrize("number", [2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63)])
def test_integers_beyond_a_double_are_exact(number: int) -> None:
    """Up to 64 bits, on both sides."""
    assert row("customers", balance=number)["balance"] == number


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 2**64, 10**30])
def test_integers_beyond_64_bits_are_kept_in_extra(number: int) -> None:
    """The column cannot hold them; the rest of the row, and the other rows, are as usual."""
    found = rows("customers", obj(balance=number, name="a"), obj(balance=5))

    assert [one["balance"] for one in found] == [None, 5]
    assert [one["extra"] for one in found] == [f'{{"balance":{number}}}', None]
    assert found[0]["name"] == "a"


@pytest.mark.parametrize(
    "text",
    [
        "0.000000000001",
        "123456789012.123456789012",
        "-0.1",
        "1500",
        "99999999999999999999999999.999999999999",
    ],
)
def test_decimals_of_twelve_digits_are_exact(text: str) -> None:
    """Stripe sends them as strings; 26 digits before the point and 12 after it fit."""
    assert row("prices", unit_amount_decimal=text)["unit_amount_decimal"] == Decimal(text)


@pytest.mark.parametrize("text", ["0.0000000000001", "1" + "0" * 27, "many", ""])
def test_decimals_that_do_not_fit_are_kept_in_extra(text: str) -> None:
    """Nothing is rounded."""
    found = rows("prices", obj(unit_amount_decimal=text), obj(unit_amount_decimal="0.25"))

    assert [one["unit_amount_decimal"] for one in found] == [None, Decimal("0.25")]
    assert found[0]["extra"] == f'{{"unit_amount_decimal":"{text}"}}'


@pytest.mark.parametrize("second", [10**15, -(10**15), 2**63 - 1])
def test_times_that_do_not_fit_are_kept_in_extra(second: int) -> None:
    """No calendar holds them."""
    found = row("customers", created=second)

    assert found["created"] is None
    assert found["extra"] == f'{{"created":{second}}}'


@pytest.mark.parametrize(
    "text",
    [
        "e\u0301te\u0301",
        "株式会社",
        "שלום",
        "\u202edesrever\u202c",
        "👩🏽‍🔧",
        "\u2028",
        "\x01\x1f\x7f",
        "\ufffe",
        "a" * 100_000,
    ],
)
def test_text_is_what_was_typed(text: str) -> None:
    """No normal form, no trimming."""
    assert row("customers", name=text)["name"] == text
    assert json.loads(row("customers", metadata={text: text})["metadata"]) == {text: text}


def test_a_nul_character_is_left_out_of_text_and_written_out_in_extra() -> None:
    """PostgreSQL can hold it neither in text nor in JSON. The text that was sent can still be told."""
    found = rows("customers", obj(name="a\0b\0", email="c"), obj(name="d"))

    assert [one["name"] for one in found] == ["ab", "d"]
    assert [one["extra"] for one in found] == ['{"name":"a\\\\u0000b\\\\u0000"}', None]


@pytest.mark.parametrize(
    ("sent", "lands"),
    [
        (rb'{"a\u0000": "\u0000b"}', rb'{"a\\u0000": "\\u0000b"}'),
        (rb'{"a": "\\\u0000"}', rb'{"a": "\\\\u0000"}'),
        (rb'{"a": "\\u0000"}', rb'{"a": "\\u0000"}'),
        (rb'{"a": "\\\\\u0000\u0000"}', rb'{"a": "\\\\\\u0000\\u0000"}'),
    ],
)
def test_a_nul_character_in_json_is_written_out(sent: bytes, lands: bytes) -> None:
    """A backslash before it may be part of the text, or its escape."""
    (found,) = rows("customers", b'{"id": "x_1", "metadata": ' + sent + b"}")

    assert "\0" not in str(json.loads(found["metadata"]))
    assert found["metadata"].encode() == lands


@pytest.mark.parametrize(
    "metadata",
    [
        {"": "empty key", "empty": ""},
        {"a.b.c": "dots", 'quo"te': "q", "back\\slash": "b"},
        {"id": "other", "object": "other"},
        {"__proto__": "p", "$ref": "r"},
        {f"key_{n}": str(n) for n in range(50)},
        {"json": '{"a": [1]}'},
        {"🔑": "é"},
    ],
)
def test_metadata_is_any_object(metadata: dict[str, str]) -> None:
    """Keys are the account's own; they become no columns."""
    found = row("customers", metadata=metadata)

    assert json.loads(found["metadata"]) == metadata
    assert (found["id"], found["object"], found["extra"]) == ("x_1", None, None)


def test_an_expanded_object_lands_as_its_id() -> None:
    """Whoever expanded it: the column is the same."""
    card = {"id": "card_1", "object": "card", "customer": "cus_1", "extra": [1]}
    found = rows(
        "customers",
        obj(default_source=card),
        obj(default_source="card_2"),
        obj(default_source=None),
    )

    assert [one["default_source"] for one in found] == ["card_1", "card_2", None]
    assert {one["extra"] for one in found} == {None}


def test_unknown_fields_are_kept_in_extra_as_they_came() -> None:
    """Scalars, nested ones and null, under Stripe's names, with the original bytes; rows without
    them have no `extra`.
    """
    unknown = b'"new_flag":true,"n\\u00e9w name":  {"a": [ 1.50 ]} ,"new_null":null,"new_big":12345678901234567890'
    found = rows(
        "customers",
        obj(name="a"),
        b'{"id": "x_2", ' + unknown + b', "name": "b"}',
        obj(new_flag=False),
    )

    assert [one["extra"] for one in found] == [
        None,
        '{"new_flag":true,"néw name":{"a": [ 1.50 ]},"new_null":null,"new_big":12345678901234567890}',
        '{"new_flag":false}',
    ]
    assert [one["name"] for one in found] == ["a", "b", None]


@pytest.mark.parametrize(
    "name",
    [
        "extra",
        "account_id",
        "deleted_at",
        "_version",
        "_hash",
        "_dlt_load_id",
        "x0_",
        "deleted",
        "data",
        "größe 1",
    ],
)
def test_unknown_fields_may_have_any_name(name: str) -> None:
    """Also those of our own columns."""
    found = row("customers", {name: "theirs", "another": 1})

    assert json.loads(found["extra"]) == {name: "theirs", "another": 1}
    assert (found["account_id"], found["_version"]) == ("acct_1", VERSION)


def test_unknown_fields_of_children_are_kept_in_their_extra() -> None:
    """Also those that only some have, and nested ones with their bytes."""
    body = b'{"id": "in_1", "lines": {"has_more": false, "data": [{"id": "il_1"}, {"id": "il_2", "new": { "a":1}}]}}'
    found = child_rows("invoices", body)

    assert [one["extra"] for one in found] == [None, '{"new":{ "a":1}}']


def test_unknown_fields_of_a_sub_list_do_not_disturb_the_list() -> None:
    """The rest of a long list is decoded apart from its parents, and may learn first."""
    shape = TableCodec(CORE["invoices"])
    ((child, child_shape),) = shape.children
    (line,), _ = child_shape.decode_rows(page(obj({"id": "il_1"}, new=1)))
    records = taken(
        shape, obj({"id": "in_1"}, lines={"has_more": False, "data": [{"id": "il_2", "new": 2}]})
    )
    lines = [line, *records[0].row.lines.data]
    found = child_table(child_shape, child, [("in_1", lines, VERSION)], STAMP, 0).to_pylist()

    assert [one["extra"] for one in found] == ['{"new":1}', '{"new":2}']


@pytest.mark.parametrize(
    ("table", "column", "sent"),
    [
        ("customers", "name", {"first": "Canary"}),
        ("customers", "name", 5),
        ("customers", "balance", "canary"),
        ("customers", "balance", 1.5),
        ("customers", "delinquent", "canary"),
        ("customers", "created", "2026-01-01"),
        ("customers", "default_source", ["canary"]),
        ("customers", "default_source", {"object": "canary"}),
        ("prices", "unit_amount_decimal", 0.5),
        ("subscriptions", "application_fee_percent", "canary"),
        ("customers", "test_clock", 7),
        ("invoices", "created", "canary"),
    ],
)
def test_a_changed_type_goes_to_extra_with_a_warning_that_names_the_field_only(
    caplog: pytest.LogCaptureFixture, table: str, column: str, sent: object
) -> None:
    """The column is null there; other rows, before and after, keep their value. One warning,
    without the value.
    """
    shape = TableCodec(CORE[table])
    good = {
        "name": "b",
        "balance": 5,
        "delinquent": True,
        "created": 60,
        "default_source": "c",
        "unit_amount_decimal": "1.5",
        "application_fee_percent": 2.5,
        "test_clock": "clock_1",
    }[column]
    with caplog.at_level(logging.WARNING, logger="stripe_feed"):
        first = rows(table, obj({column: good}), shape=shape)
        found = rows(
            table, obj({column: sent}), obj({column: good}), obj({column: None}), shape=shape
        )
        rows(table, obj({column: sent}), shape=shape)

    assert [one[column] for one in found] == [None, first[0][column], None]
    assert [one["extra"] for one in found] == [f'{{"{column}":{json.dumps(sent)}}}', None, None]
    assert caplog.messages == [
        f"{table}.{column} does not have its documented type; such values are kept in `extra`"
    ]


def test_what_was_decoded_before_a_type_changed_is_laid_out_with_what_came_after() -> None:
    """A batch can hold both."""
    shape = TableCodec(CORE["customers"])
    before = taken(shape, obj(balance=1))
    after = taken(shape, obj(balance="x"), obj(balance=2))
    found = parent_table(shape, [*before, *after], [VERSION] * 3, STAMP).to_pylist()

    assert [one["balance"] for one in found] == [1, None, 2]


def test_a_changed_type_in_a_child_is_warned_about_under_the_childs_name(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """And kept in its `extra`."""
    found = child_rows(
        "invoices",
        obj(
            {"id": "in_1"}, lines={"has_more": False, "data": [{"id": "il_1", "amount": "canary"}]}
        ),
    )

    assert (found[0]["amount"], found[0]["extra"]) == (None, '{"amount":"canary"}')
    assert caplog.messages == [
        "invoice_line_items.amount does not have its documented type; such values are kept in `extra`"
    ]


def test_a_new_field_is_logged_without_its_name_or_value(caplog: pytest.LogCaptureFixture) -> None:
    """Once; names can be personal data where an object is used as a map."""
    shape = TableCodec(CORE["customers"])
    with caplog.at_level(logging.INFO, logger="stripe_feed"):
        for _ in range(3):
            rows("customers", obj({"jane@example.com": "canary"}), shape=shape)

    assert caplog.messages == [
        "customers: Stripe sends a field that this version does not know; it is kept in `extra`"
    ]


def test_threads_may_learn_at_the_same_time() -> None:
    """Every page finds the names of its own, whoever learned them."""
    shape = TableCodec(CORE["invoices"])
    start = threading.Barrier(8)

    def work(n: int) -> list[str]:
        start.wait(20)
        found = []
        for k in range(20):
            line = {"id": f"il_{n}", f"line_{n}_{k}": k}
            body = obj(
                {f"field_{n}_{k}": k, "total": "odd" if k == 10 else k},
                lines={"data": [line], "has_more": False},
            )
            records = taken(shape, body)
            found += [
                one["extra"] for one in parent_table(shape, records, [VERSION], STAMP).to_pylist()
            ]
        return found

    with ThreadPoolExecutor(8) as pool:
        extras = list(pool.map(work, range(8)))

    for n, found in enumerate(extras):
        assert [json.loads(extra)[f"field_{n}_{k}"] for k, extra in enumerate(found)] == list(
            range(20)
        )


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"5",
        b'"x"',
        b"null",
        b"{}",
        b'{"data": []}',
        b'{"has_more": false}',
        b'{"data": {}, "has_more": false}',
        b'{"data": null, "has_more": false}',
        b'{"data": [], "has_more": "no"}',
    ],
)
def test_a_body_that_is_no_list_is_malformed(body: bytes) -> None:
    """It is asked for again; it must not end as an empty page."""
    with pytest.raises(InvalidBody):
        TableCodec(CORE["invoices"]).decode_page(body)


@pytest.mark.parametrize(
    ("sent", "id", "created", "why"),
    [
        (b"5", None, None, "it is not an object"),
        (b"null", None, None, "it is not an object"),
        (b"{}", None, None, "it has no id"),
        (b'{"id": null, "created": 7}', None, 7, "it has no id"),
        (b'{"id": 5, "created": "x"}', None, None, "it has no id"),
        (b'{"id": "", "created": 7}', None, 7, "it has no id"),
        (b'{"id": "in_\\u0000"}', None, None, "it has no id"),
        (
            b'{"id": "card_1", "object": "card", "created": 7}',
            "card_1",
            7,
            "it is not of type invoice",
        ),
        (
            b'{"id": "in_1", "lines": {"data": [{"id": 5, "x": "canary"}], "has_more": false}}',
            "in_1",
            None,
            "its lines.data[0].id is not as documented",
        ),
        (
            b'{"id": "in_1", "lines": {"data": ["canary"], "has_more": false}}',
            "in_1",
            None,
            "its lines.data[0] is not as documented",
        ),
    ],
)
def test_an_object_that_cannot_be_taken_is_in_its_place_with_the_reason(
    sent: bytes, id: str | None, created: int | None, why: str
) -> None:
    """The others of its page are taken, in their order; the reason holds nothing of it."""
    one, odd, two = TableCodec(CORE["invoices"]).decode_page(
        page(obj(id="in_0"), sent, obj(id="in_2", new=1))
    )[0]

    assert isinstance(one, Record) and isinstance(two, Record) and isinstance(odd, Rejected)
    assert (one.row.id, two.row.id) == ("in_0", "in_2")
    assert (odd.table, odd.id, odd.created, odd.reason) == ("invoices", id, created, why)


def test_a_field_whose_name_fits_no_struct_is_kept_under_a_name_that_does() -> None:
    """Names of fields are Stripe's, so this is no more than not to stumble."""
    assert [one["extra"] for one in rows("customers", obj({'a"\\b': 1}), obj())] == [
        '{"a__b":1}',
        None,
    ]


@pytest.mark.parametrize(
    "body", [b"", b'{"data": [{"id": "x"', b"<html>", b'{"data": [], "has_more": false} x']
)
def test_a_body_that_is_no_json_is_a_decode_error(body: bytes) -> None:
    """Which the transport asks again, too."""
    with pytest.raises(msgspec.DecodeError):
        TableCodec(CORE["customers"]).decode_page(body)


@pytest.mark.parametrize(
    "sent",
    [
        5,
        "canary",
        {"data": 5, "has_more": False},
        {"has_more": True},
        {"data": [], "has_more": "x"},
    ],
)
def test_an_embedded_list_that_is_none_does_not_fail_the_page(
    caplog: pytest.LogCaptureFixture, sent: object
) -> None:
    """It is read from its own endpoint then; lists that are as documented are still found beside
    it.
    """
    shape = TableCodec(CORE["invoices"])
    ((_, child_shape),) = shape.children
    good = {"data": [{"id": "il_1"}], "has_more": False}
    records = taken(shape, obj(lines=sent), obj(lines=good), obj(lines=None), obj())
    found = [child_shape.decode_list(record.row.lines) for record in records]

    assert [None if one is None else [line.id for line in one.data] for one in found] == [
        None,
        ["il_1"],
        None,
        None,
    ]
    assert caplog.messages == [
        "invoices.lines does not have its documented type; such values are kept in `extra`"
    ]
    assert "canary" not in caplog.text


@pytest.mark.parametrize(
    ("sent", "kind", "value"),
    [
        (b"60", "timestamp", 60),
        (b'"x"', "timestamp", None),
        (b"null", "timestamp", None),
        (b'"clock_1"', "ref", "clock_1"),
        (b'{"id":"clock_1"}', "ref", "clock_1"),
        (b"null", "ref", None),
        (b"[]", "ref", None),
    ],
)
def test_a_field_of_a_changed_type_can_still_be_asked(
    sent: bytes, kind: ColumnKind, value: object
) -> None:
    """`created` leads the pager and `test_clock` the filter, whatever other rows sent there."""
    assert value_of(msgspec.Raw(sent), kind) == value
    assert value_of(value, kind) == value


INVOICE: dict[str, Any] = {
    "id": "in_1",
    "object": "invoice",
    "total": 1500,
    "number": "A-1",
    "customer": "cus_1",
    "livemode": False,
    "metadata": {"a": "1", "b": "2"},
    "status_transitions": {"paid_at": 5, "voided_at": None},
    "lines": {
        "object": "list",
        "has_more": False,
        "url": "/v1/invoices/in_1/lines",
        "data": [
            {"id": "il_1", "amount": 1000, "metadata": {"x": "1", "y": "2"}},
            {"id": "il_2", "amount": 500},
        ],
    },
}
SUBSCRIPTION: dict[str, Any] = {
    "id": "sub_1",
    "status": "active",
    "metadata": {},
    "items": {
        "has_more": False,
        "data": [
            {"id": "si_1", "quantity": 1, "price": {"id": "price_1", "nickname": "a"}, "plan": None}
        ],
    },
}


def changed(base: dict[str, Any], *path: str | int, to: Any = None, drop: bool = False) -> bytes:
    """An object with one value changed, added or dropped."""
    copy = json.loads(json.dumps(base))
    place = copy
    for step in path[:-1]:
        place = place[step]
    if drop:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return json.dumps(copy).encode()


SAME = {
    "white space": json.dumps(INVOICE, indent=3).encode(),
    "order of fields": json.dumps(dict(reversed(INVOICE.items()))).encode(),
    "order of metadata": changed(INVOICE, "metadata", to={"b": "2", "a": "1"}),
    "order of a line's metadata": changed(
        INVOICE, "lines", "data", 0, "metadata", to={"y": "2", "x": "1"}
    ),
    "order of lines": changed(INVOICE, "lines", "data", to=INVOICE["lines"]["data"][::-1]),
    "null for absent": changed(INVOICE, "footer", to=None),
    "absent for null": changed(INVOICE, "status_transitions", to={"paid_at": 5, "voided_at": None}),
    "webhooks_delivered_at": changed(INVOICE, "webhooks_delivered_at", to=99),
    "signed link": changed(INVOICE, "hosted_invoice_url", to="https://invoice.stripe.com/i/x?s=1"),
    "signed file": changed(INVOICE, "invoice_pdf", to="https://pay.stripe.com/invoice/x/pdf?s=1"),
    "secret": changed(INVOICE, "confirmation_secret", to={"client_secret": "x"}),
    "unknown field": changed(INVOICE, "new_field", to={"a": 1}),
    "unknown field of a line": changed(INVOICE, "lines", "data", 0, "new_field", to=1),
    "link of the list": changed(INVOICE, "lines", "url", to="/v2/x"),
    "size of the list": changed(INVOICE, "lines", "total_count", to=2),
    "lines that name their invoice": changed(
        INVOICE, "lines", "data", 0, "invoice", to=INVOICE["id"]
    ),
    "lines that name none": changed(INVOICE, "lines", "data", 0, "invoice", to=None),
}
OTHER = {
    "number": changed(INVOICE, "total", to=1501),
    "null": changed(INVOICE, "total"),
    "absent": changed(INVOICE, "total", drop=True),
    "text": changed(INVOICE, "number", to="A-1 "),
    "bool": changed(INVOICE, "livemode", to=True),
    "reference": changed(INVOICE, "customer", to="cus_2"),
    "id": changed(INVOICE, "id", to="in_2"),
    "metadata value": changed(INVOICE, "metadata", "a", to="2"),
    "metadata key": changed(INVOICE, "metadata", "c", to=""),
    "metadata null": changed(INVOICE, "metadata"),
    "nested value": changed(INVOICE, "status_transitions", "paid_at", to=6),
    "nested key": changed(INVOICE, "status_transitions", "voided_at", drop=True),
    "a value in another field": changed(INVOICE | {"number": None}, "receipt_number", to="A-1"),
    "line's amount": changed(INVOICE, "lines", "data", 0, "amount", to=1),
    "a line less": changed(INVOICE, "lines", "data", 1, drop=True),
    "no lines": changed(INVOICE, "lines", "data", to=[]),
    "line's id": changed(INVOICE, "lines", "data", 0, "id", to="il_3"),
    "line's metadata": changed(INVOICE, "lines", "data", 0, "metadata", "x", to="2"),
    "changed type": changed(INVOICE, "total", to="1500"),
}


@pytest.mark.parametrize("body", SAME.values(), ids=list(SAME))
def test_the_digest_does_not_see_what_means_nothing(body: bytes) -> None:
    """White space, order where it means nothing, volatile fields, and what this version does not
    know.
    """
    assert digest("invoices", body) == digest("invoices", json.dumps(INVOICE).encode())


@pytest.mark.parametrize("body", OTHER.values(), ids=list(OTHER))
def test_the_digest_sees_every_other_change(body: bytes) -> None:
    """Of the object and of its children."""
    assert digest("invoices", body) != digest("invoices", json.dumps(INVOICE).encode())


@pytest.mark.parametrize("table", CORE)
def test_the_digest_sees_every_column_but_the_volatile_ones(table: str) -> None:
    """Whatever the resource table declares."""
    resource = CORE[table]
    values: dict[ColumnKind, Any] = {
        "text": "a",
        "ref": "a",
        "bigint": 1,
        "bool": True,
        "timestamp": 1,
        "decimal": "1",
        "double": 0.5,
        "json": {"a": 1},
    }
    empty = digest(table, obj())
    sent = {
        column.name: resource.object if column.name == "object" else values[column.kind]
        for column in resource.columns
    }
    seen = {name for name, value in sent.items() if digest(table, obj({name: value})) != empty}

    assert {column.name for column in resource.columns} - seen == {"id", *resource.volatile} - (
        {"id"} if "id" in seen else set()
    )
    assert digest(table, obj({"id": "x_2"})) != empty


def test_the_digest_knows_an_embedded_price_by_its_id_only() -> None:
    """Prices change without their subscriptions, and have rows of their own; another price is
    another item.
    """
    base = digest("subscriptions", json.dumps(SUBSCRIPTION).encode())
    renamed = changed(SUBSCRIPTION, "items", "data", 0, "price", "nickname", to="b")
    another = changed(SUBSCRIPTION, "items", "data", 0, "price", "id", to="price_2")

    assert digest("subscriptions", renamed) == base
    assert digest("subscriptions", another) != base
    assert (
        digest("subscriptions", changed(SUBSCRIPTION, "items", "data", 0, "price", to="price_1"))
        == base
    )
    assert digest("subscriptions", changed(SUBSCRIPTION, "items", "data", 0, "price")) != base


def test_the_digest_does_not_depend_on_what_was_learned_before() -> None:
    """Another row's odd value or new field must not rewrite all the others."""
    shape = TableCodec(CORE["invoices"])
    body = json.dumps(INVOICE | {"number": "Ä/1", "footer": None}).encode()
    before = shape.decode_object(body).hash
    odd = {"data": [{"id": "il", "amount": "odd", "description": 5}], "has_more": False}
    shape.decode_page(
        page(obj(total="odd", new=1, customer=5, number=5, footer=5, livemode="odd", lines=odd))
    )

    assert shape.decode_object(body).hash == before


def test_an_expanded_field_counts() -> None:
    """What was asked for is content."""
    shape = TableCodec(CORE["customers"], ["tax_ids"])
    one, two = (
        shape.decode_object(obj(tax_ids={"data": data, "has_more": False})).hash
        for data in ([], [{"id": "txi_1"}])
    )

    assert one != two
    assert "tax_ids" in shape.schema.names
    assert "tax_ids" not in TableCodec(CORE["customers"]).schema.names


def test_children_are_rows_of_their_own_and_a_parent_without_any_has_a_tombstone() -> None:
    """Same version as the parent: rows and tombstones tell the merge which parents were seen."""
    found = child_rows(
        "invoices",
        json.dumps(INVOICE).encode(),
        obj({"id": "in_2"}, lines={"data": [], "has_more": False}),
    )

    seen = [
        (one["id"], one["invoice"], one["amount"], one["_version"], one["deleted_at"] is not None)
        for one in found
    ]
    assert seen == [
        ("il_1", "in_1", 1000, VERSION, False),
        ("il_2", "in_1", 500, VERSION, False),
        ("in_2", "in_2", None, VERSION + 1, True),
    ]
    assert {one["account_id"] for one in found} == {"acct_1"}
    assert found[2]["deleted_at"] == datetime.fromtimestamp(1_700_000_000, timezone.utc)


def test_a_child_belongs_to_the_parent_that_it_was_found_in() -> None:
    """Lines name their invoice only in some places; what they say otherwise does not count."""
    lines = {
        "data": [{"id": "il_1", "invoice": "in_other"}, {"id": "il_2", "invoice": None}],
        "has_more": False,
    }
    found = child_rows("invoices", obj({"id": "in_1"}, lines=lines))

    assert [one["invoice"] for one in found] == ["in_1"] * 2


def test_a_childs_embedded_objects_are_json_with_their_bytes() -> None:
    """The whole price, as the subscription showed it then."""
    price = b'{ "id": "price_1", "tiers":[ 1.50 ] }'
    body = (
        b'{"id": "sub_1", "items": {"has_more": false, "data": [{"id": "si_1", "price": '
        + price
        + b', "quantity": 3}]}}'
    )
    found = child_rows("subscriptions", body)

    assert found[0]["price"].encode() == price
    assert (found[0]["subscription"], found[0]["quantity"]) == ("sub_1", 3)


def test_no_parents_make_an_empty_table() -> None:
    """With the schema of the others."""
    shape = TableCodec(CORE["subscriptions"])
    ((child, child_shape),) = shape.children

    empty = child_table(child_shape, child, [], STAMP, 0)
    assert (empty.num_rows, empty.schema) == (0, child_shape.schema)


def test_an_object_alone_is_the_same_record() -> None:
    """As from a list."""
    body = json.dumps(INVOICE).encode()
    shape = TableCodec(CORE["invoices"])
    (listed,), has_more = shape.decode_page(page(body, has_more=True))
    alone = shape.decode_object(body)

    assert isinstance(listed, Record)
    assert (alone.hash, has_more) == (listed.hash, True)
    assert alone.row == listed.row


# -- fields that share a column


def folding() -> TableCodec:
    """Payment methods have a field per type, of which each object has the one that its type names."""
    columns = [Column(name, "text", "X.") for name in ("id", "type", "object")]
    row = Resource("payment_methods", "payment_method", (*columns, DETAILS), created_field="")
    return TableCodec(replace(row, folded=("card", "link")))


def test_fields_of_a_type_share_a_column() -> None:
    """Null and absent ones are left out, and the digest covers what is there."""
    shape = folding()
    body = (
        b'{"id":"pm_1","object":"payment_method","type":"card","card":{"last4":"4242"},"link":null}'
    )
    other = body.replace(b"4242", b"1881")

    record, changed, without = (
        shape.decode_object(one) for one in (body, other, body.replace(b'"link":null', b'"x":1'))
    )
    (row,) = parent_table(shape, [record], [7], STAMP).to_pylist()

    assert json.loads(row["details"]) == {"card": {"last4": "4242"}}
    assert "card" not in row and row["extra"] is None
    assert record.hash == without.hash != changed.hash


def test_an_image_has_the_fields_under_their_names() -> None:
    """As Stripe has it: of the object, and of its stored row."""
    shape = folding()
    record = shape.decode_object(
        b'{"id":"pm_1","object":"payment_method","type":"card","card":{"last4":"4242"}}'
    )
    (row,) = parent_table(shape, [record], [7], STAMP).to_pylist()

    for image in (shape.image(record.row), object_from_row(shape, row)):
        assert image["card"] == {"last4": "4242"}
        assert "details" not in image


@pytest.mark.parametrize(
    "texts",
    [
        [],
        ["null"],
        ["{}"],
        ['{"a": 1,\n "b": null}', "null", '"null"', "[]", '"\u00e9\u2028"', "null"],
        ["null", r'{"a": "\u0000"}', "1"],
    ],
)
def test_json_is_stored_as_it_came_and_its_null_as_null(texts: list[str]) -> None:
    raws = [msgspec.Raw(text.encode()) for text in texts]

    array = to_array("json", raws, Mock(side_effect=AssertionError))

    kept = [text.replace(r"\u0000", r"\\u0000") for text in texts]
    assert array.to_pylist() == [None if text == "null" else text for text in kept]
    assert array.type == pa.string()
