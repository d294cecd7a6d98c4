"""What real tables and real life bring to a push: a log that is lost or is a copy, odd texts, addresses in
several cases, settings of the wrong kind.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from stripe_feed.errors import UsageError
from stripe_feed.write.push.definition import make_definition
from stripe_feed.write.push.log import LOG, PushLog, PushStep
from stripe_feed.write.push.rows import read_rows
from tests.pushing import Pushing, ends, pushing, reasons

MAP = {"email": "email", "name": "name"}
ROW = {"id": 1, "email": "a@example.com", "name": "A"}


@pytest.fixture
def crm() -> Iterator[Pushing]:
    with pushing(object="customers", key="id", match="email", map=MAP) as found:
        yield found


def lose_log(before: Path | None = None) -> None:
    """Remove the log, or put an older one in its place."""
    for file in Path().glob(f"{LOG}*"):
        file.unlink()
    if before is not None:
        shutil.copy(before, LOG)


def names(crm: Pushing) -> list[Any]:
    return [one["name"] for one in crm.held()]


# -- idempotency keys that another log used ----------------------------------------------------------


def test_an_older_log_does_not_take_a_stored_answer_for_an_update(crm: Pushing) -> None:
    crm.run([ROW])
    shutil.copy(LOG, "backup")
    crm.run([{**ROW, "name": "B"}])
    crm.run([{**ROW, "name": "C"}])
    lose_log(Path("backup"))
    assert ends(crm.run([{**ROW, "name": "B"}])) == {"updated": 1}
    assert names(crm) == ["B"]  # C, if Stripe's answer to the first B is believed


def test_a_lost_log_rejects_no_row(crm: Pushing) -> None:
    crm.run([ROW])
    lose_log()
    assert ends(crm.run([{**ROW, "name": "B"}])) == {"updated": 1}
    assert names(crm) == ["B"]


def test_a_lost_log_creates_no_second_object_within_a_day(crm: Pushing) -> None:
    crm.run([ROW], changes={"mode": "insert", "match": None})
    lose_log()
    assert ends(crm.run([ROW], changes={"mode": "insert", "match": None})) == {"created": 1}
    assert names(crm) == ["A"]


def test_who_was_deleted_with_the_log_is_created_anew(crm: Pushing) -> None:
    first = crm.run([ROW]).rows[0].object_id
    crm.box.delete("customers", str(first))
    lose_log()
    second = crm.run([ROW]).rows[0].object_id
    assert second != first
    assert names(crm) == ["A"]


# -- odd values ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["{0}", "{id}", "%s"])
def test_a_text_is_sent_as_it_is(crm: Pushing, name: str) -> None:
    crm.run([{**ROW, "name": name}])
    assert names(crm) == [name]


def test_metadata_is_compared_letter_by_letter_whatever_its_key(crm: Pushing) -> None:
    changes = {"map": {**MAP, "metadata.currency": "currency"}}
    crm.run([{**ROW, "currency": "eur"}], changes=changes)
    assert ends(crm.run([{**ROW, "currency": "EUR"}], changes=changes)) == {"updated": 1}
    assert [one["metadata"]["currency"] for one in crm.held()] == ["EUR"]


def test_half_a_character_in_a_key_of_metadata_rejects_its_row_only(crm: Pushing) -> None:
    rows = [{**ROW, "tags": {"a\ud800": "x"}}, {**ROW, "id": 2, "email": "b@example.com", "tags": {"a": "x"}}]  # fmt: skip
    result = crm.run(rows, changes={"map": {**MAP, "metadata": "tags"}})
    assert ends(result) == {"created": 1, "rejected": 1}
    assert "half a character" in reasons(result)["1"]


def test_a_template_takes_columns_with_odd_names(crm: Pushing) -> None:
    changes = {"map": {**MAP, "name": {"template": "{a.b} {c[0]} {0}"}}}
    assert ends(crm.run([{**ROW, "a.b": "x", "c[0]": "y", "0": "z"}], changes=changes)) == {"created": 1}  # fmt: skip
    assert names(crm) == ["x y z"]


@pytest.mark.parametrize(
    "at", [datetime(2026, 1, 2, 3, 4), datetime(2026, 1, 2, tzinfo=timezone.utc), True]
)
def test_rows_match_on_what_metadata_holds_of_them(crm: Pushing, at: Any) -> None:
    changes = {"match": "metadata.at", "map": {**MAP, "metadata.at": "at"}}
    crm.run([{**ROW, "at": at}], changes=changes)
    lose_log()
    crm.run([{**ROW, "id": 2, "at": at, "name": "B"}], changes=changes)
    assert names(crm) == ["B"]


def test_a_whole_number_is_one_key_in_every_type(crm: Pushing) -> None:
    changes = {"mode": "insert", "match": None}
    crm.run([ROW], changes=changes)
    for key in (1.0, Decimal("1.000"), "1"):
        assert ends(crm.run([{**ROW, "id": key}], changes=changes)) == {"unchanged": 1}


def test_addresses_in_several_cases_create_one_customer() -> None:
    customer = {"column": "email", "find": "customers", "by": "email", "on_missing": "create"}
    fields = {"customer": customer, "amount": "amount", "currency": {"value": "eur"}}
    rows = [
        {"id": n, "email": email, "amount": 5}
        for n, email in enumerate(("Ann@Example.com", "ann@example.com", "ANN@example.com"))
    ]
    with pushing(object="invoice_items", key="id", mode="insert", map=fields) as items:
        result = items.run(rows)
        assert ends(result) == {"created": 3}, reasons(result)
        assert len(items.held()) == 1


class _Plan(str, Enum):
    GOLD = "gold"


@pytest.mark.parametrize(
    ("cell", "read"),
    [
        (_Plan.GOLD, "gold"),
        (np.datetime64("2026-01-02T00:00:00.5", "ns"), datetime(2026, 1, 2, 0, 0, 0, 500_000)),
        (np.datetime64("NaT"), None),
        (np.timedelta64(5, "ns"), timedelta(0)),
    ],
)
def test_a_cell_is_the_value_that_it_stands_for(cell: Any, read: Any) -> None:
    ((found,),) = (row.values() for row in read_rows([{"x": cell}]))
    assert (found, type(found)) == (read, type(read))


def test_a_cell_that_compares_in_its_own_way_stops_no_other_row(crm: Pushing) -> None:
    odd = pd.Categorical(["a"])
    rows = [ROW, {**ROW, "id": 9, "email": "nine@example.com", "name": odd}]
    result = crm.run(rows, changes={"map": {"email": "email", "name": "name"}})
    assert ends(result) == {"created": 1, "rejected": 1}


def test_values_of_pandas_and_numpy_are_those_of_python_wherever_they_are() -> None:
    nested = np.array([{"prices": np.array(["price_1"]), "count": np.int64(2)}])
    frame = pd.DataFrame({"id": [1], "name": pd.Series([pd.NA], dtype="object"), "items": [nested]})
    (row,) = read_rows(frame)
    assert row == {"id": 1, "name": None, "items": [{"prices": ["price_1"], "count": 2}]}


@pytest.mark.parametrize(
    "rows",
    [
        pd.DataFrame([[1, "A", "B"]], columns=["id", "name", "name"]),
        pa.table([[1], ["A"], ["B"]], names=["id", "name", "name"]),
    ],
    ids=["pandas", "arrow"],
)
def test_two_columns_of_one_name_are_refused(rows: Any) -> None:
    with pytest.raises(UsageError, match="named name"):
        list(read_rows(rows))


# -- what a push says ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"max_deletes": "10", "on_delete": "delete"}, {"max_delete_share": "0.5"}, {"max_deletes": True},
        {"object": ["customers"]}, {"map": "email"}, {"key": 5}, {"key": [5]}, {"match": 5}, {"query": 5},
    ],
    ids=str,
)  # fmt: skip
def test_a_setting_of_the_wrong_kind_is_refused_in_words(settings: dict[str, Any]) -> None:
    given = {"object": "customers", "key": "id", "match": "email", **settings}
    with pytest.raises(UsageError, match=next(iter(settings))):
        make_definition("crm", given)


@pytest.mark.parametrize("name", ["address.city", "nmae", "plan"])
def test_only_if_empty_refuses_a_name_that_would_keep_nothing(name: str) -> None:
    given = {"object": "customers", "key": "id", "match": "email", "only_if_empty": [name]}
    with pytest.raises(UsageError, match="only_if_empty names fields"):
        make_definition("crm", given)


# -- forgetting ------------------------------------------------------------------------------------


def test_the_key_of_a_row_that_is_gone_is_erased_with_its_customer(crm: Pushing) -> None:
    changes = {"key": "email", "on_delete": "delete", "max_deletes": 1, "max_delete_share": 1.0}
    gone = {**ROW, "email": "canary@example.com"}
    customer = crm.run([gone], changes=changes).rows[0].object_id
    assert ends(crm.run([], changes=changes)) == {"deleted": 1}
    with PushLog(LOG, lambda: 0.0) as log:
        assert len(log.erase(str(customer))) == 1
    assert b"canary" not in Path(LOG).read_bytes()


def test_the_address_of_a_customer_is_erased_where_it_is_the_key_of_something_else(
    tmp_path: Path,
) -> None:
    addresses = {"crm": "ann.canary@example.com", "plans": "bob.canary@example.com"}
    with PushLog(tmp_path / "log.sqlite", lambda: 0.0) as log:
        log.adopt("crm", addresses["crm"], "digest", "cus_1")
        log.adopt("bills", addresses["crm"], "digest", "in_unknown")
        log.adopt("plans", addresses["plans"], "digest", "sub_1")
        log.adopt("plans", "7", "digest", "sub_2")
        assert len(log.erase("cus_1", ["sub_1", "sub_2"])) == 3
        assert log.rows("plans").keys() == {"7"} and log.rows("bills") == {}
    assert b"canary" not in (tmp_path / "log.sqlite").read_bytes()


@pytest.mark.parametrize("customer", ["gold", "%", "cus%1", "1"])
def test_an_id_that_a_customer_had_elsewhere_is_no_pattern_and_no_other_object(
    tmp_path: Path, customer: str
) -> None:
    with PushLog(tmp_path / "log.sqlite", lambda: 0.0) as log:
        log.stamp("acct_1", False)
        for key, path in (
            ("a", "/v1/customers/cus_1"),
            ("b", "/v1/products/gold"),
            ("c", "/v1/products/1"),
        ):
            log.begin("crm", key, "digest", [PushStep("update", "post", path, {})])
        assert log.erase(customer) == set()
        assert all(log.open_steps("crm", key) for key in "abc")
        assert log.erase("cus_1") == {("crm", "a")}


# -- prices ----------------------------------------------------------------------------------------


def test_a_price_that_changes_keeps_its_amounts_in_other_currencies() -> None:
    fields = {
        "lookup_key": "plan", "unit_amount": "amount", "currency": {"value": "usd"},
        "product_data.name": "plan",
    }  # fmt: skip
    euros = {"currency_options": {"value": {"eur": {"unit_amount": 90}}}}
    with pushing(object="prices", key="plan", match="lookup_key", map=fields) as prices:
        prices.run([{"plan": "pro", "amount": 100}], changes={"map": {**fields, **euros}})
        assert ends(prices.run([{"plan": "pro", "amount": 120}])) == {"updated": 1}
        (new,) = [one["id"] for one in prices.held("prices") if one["active"]]
        with prices.opened() as push:
            held = push.lookup.get(push.definition.row, new, ("currency_options",)).value
        amounts = {code: one["unit_amount"] for code, one in held["currency_options"].items()}
        assert amounts == {"usd": 120, "eur": 90}
