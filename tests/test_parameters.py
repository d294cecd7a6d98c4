"""The allow-lists of the actions against the installed SDK, and what is made of a caller's values."""

from __future__ import annotations

import importlib
import re
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stripe_feed.api.forms import encode
from stripe_feed.errors import InvalidParameter, UsageError
from stripe_feed.resources import RESOURCES
from stripe_feed.resources.writable import REMOVED, WRITABLE, Writable
from stripe_feed.write.checks import check
from stripe_feed.write.parameters import Nulls, convert
from tests.sdk_parameters import FOLDER, OPTIONS, tsv

CUSTOMERS = WRITABLE["customers"]
NAMES = st.sampled_from(
    ["metadata", "metadata.a", "items", "name", "email", "a", "", "address.city"]
)


@pytest.mark.checklist("N35 S36")
@pytest.mark.parametrize("row", WRITABLE.values(), ids=list(WRITABLE))
def test_the_allow_lists_are_the_sdks(row: Writable) -> None:
    """A new SDK fails here, not at a user: `python -m tests.sdk_parameters` writes them again."""
    assert (FOLDER / f"{row.table}.tsv").read_text(encoding="utf-8") == tsv(row)


@pytest.mark.parametrize("row", WRITABLE.values(), ids=list(WRITABLE))
def test_no_option_of_the_client_is_a_parameter(row: Writable) -> None:
    assert all(OPTIONS.keys().isdisjoint(known) for known in row.parameters.values())


@pytest.mark.parametrize("table", [table for table in WRITABLE if table in RESOURCES])
def test_what_is_written_is_what_is_read(table: str) -> None:
    read, written = RESOURCES[table], WRITABLE[table]

    assert (written.path, written.object) == (read.path, read.object)
    assert written.permission == read.permission.replace("_read", "_write")
    assert not (read.client_ids and written.prefix)
    assert {name for walk in written.walks for name in walk} == {
        name for walk in read.list_filters for name, _ in walk
    }


def test_there_is_a_file_for_each_object_and_no_other() -> None:
    assert {path.stem for path in FOLDER.glob("*.tsv")} == WRITABLE.keys()


@pytest.mark.parametrize(("table", "name"), REMOVED, ids=".".join)
def test_what_is_said_to_be_gone_is_no_parameter(table: str, name: str) -> None:
    row = WRITABLE[table]
    for verb in ("create", "update"):
        if name in row.parameters[verb]:
            pytest.fail(f"{table}.{name} is a parameter of {verb}")
        with pytest.raises(InvalidParameter) as caught:
            convert(row, verb, {name: "x"})
        assert str(caught.value) == REMOVED[table, name]


@pytest.mark.parametrize("row", WRITABLE.values(), ids=list(WRITABLE))
def test_the_paths_are_those_of_the_sdks_services(row: Writable) -> None:
    """Each verb is a method of the service, and its source has the path."""
    name = {"invoice_items": "invoice_item"}.get(row.table, row.object)
    services = [name, *(["customer_tax_id"] if row.table == "customers" else [])]
    modules = [importlib.import_module(f"stripe._{name}_service") for name in services]
    source = "".join(Path(str(one.__file__)).read_text(encoding="utf-8") for one in modules)
    paths = set(re.findall(r'"(/v1/[^"]+)"', re.sub(r"\{\w+\}", "{id}", source)))

    assert {re.sub(r"\{\w+\}", "{id}", verb.path) for verb in row.verbs.values()} <= paths


# -- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "values", "sent"),
    [
        ("create", {"metadata.plan.name": "pro"}, {"metadata": {"plan.name": "pro"}}),
        ("create", {"metadata": {"n": 12, "b": True, "d": Decimal("1.50")}},
         {"metadata": {"n": "12", "b": "true", "d": "1.50"}}),
        ("create", {"address.city": "Berlin", "address.line1": "T 1"},
         {"address": {"city": "Berlin", "line1": "T 1"}}),
        ("create", {"balance": "-5"}, {"balance": -5}),
        ("create", {"validate": "false"}, {"validate": False}),
        ("create", {"preferred_locales": ["de", "en"]}, {"preferred_locales": ["de", "en"]}),
        ("create", {"tax_id_data": [{"type": "eu_vat", "value": "DE1"}]},
         {"tax_id_data": [{"type": "eu_vat", "value": "DE1"}]}),
        ("list", {"created": {"gte": date(2026, 1, 1)}}, {"created": {"gte": 1767225600}}),
        ("list", {"created": "2026-01-01T00:00:00Z"}, {"created": 1767225600}),
        ("list", {"created": datetime(2026, 1, 1, tzinfo=timezone.utc)}, {"created": 1767225600}),
    ],
)  # fmt: skip
def test_values_become_what_stripe_documents(verb: str, values: Any, sent: Any) -> None:
    assert convert(CUSTOMERS, verb, values) == sent


@pytest.mark.parametrize(
    ("table", "verb", "values", "says"),
    [
        ("customers", "create", {"balance": 19.99}, "balance takes a whole number"),
        ("customers", "create", {"balance": 20.0}, "balance takes a whole number"),
        ("customers", "create", {"balance": True}, "balance takes a whole number"),
        ("customers", "create", {"validate": 1}, "validate takes true or false"),
        ("customers", "create", {"phone": 49123}, "phone takes text"),
        ("customers", "create", {"name": ["x"]}, "name takes text"),
        ("customers", "create", {"address": "Berlin"}, "address takes a hash"),
        ("customers", "create", {"preferred_locales": "de"}, "preferred_locales takes a list"),
        ("customers", "create", {"shipping": {"phone": "1"}}, "shipping.name is missing|shipping.address"),
        ("customers", "create", {"address.town": "x"}, "no parameter address.town"),
        ("customers", "create", {"metadata": {"a[b": "x"}}, "1 to 40 characters and no brackets"),
        ("customers", "create", {"metadata": {"a" * 41: "x"}}, "1 to 40 characters"),
        ("customers", "create", {"adress.city": "x"}, "no parameter adress. Do you mean address"),
        ("customers", "create", {"api_key": "x"}, "no parameter api_key"),
        ("customers", "create", {"delinquent": True}, "delinquent is read-only"),
        ("customers", "create", {"nme": "x"}, "Do you mean name"),
        ("customers", "update", {"tax_id_data": []}, "can only be set when a customer is created"),
        ("customers", "create", {"default_source": "x"}, "can only be set when a customer is updated"),
        ("prices", "update", {"unit_amount": 5}, "can only be set when a price is created"),
        ("prices", "create", {"unit_amount_decimal": 0.1}, "takes a decimal number as text"),
        ("invoices", "update", {"due_date": datetime(2026, 1, 1)}, "no time zone"),
        ("invoices", "update", {"due_date": 1767225600000}, "milliseconds"),
        ("invoices", "void", {"reason": "x"}, "It takes no parameters"),
    ],
)  # fmt: skip
def test_values_that_are_wrong_are_reported_before_the_call(
    table: str, verb: str, values: Any, says: str
) -> None:
    with pytest.raises(InvalidParameter, match=says) as caught:
        convert(WRITABLE[table], verb, values)

    assert caught.value.param


@pytest.mark.parametrize(("key", "named"), [("plan", "metadata.plan"), ("a@b.c", "metadata.*")])
def test_a_key_of_the_metadata_is_named_unless_it_is_somebodys_data(key: str, named: str) -> None:
    with pytest.raises(InvalidParameter, match=re.escape(f"{named} is empty")) as caught:
        convert(WRITABLE["customers"], "update", {"metadata": {key: None}}, "error")
    assert caught.value.param == named


@pytest.mark.parametrize("empty", [None, "", {}, []], ids=repr)
def test_an_empty_value_has_three_meanings(empty: Any) -> None:
    values = {"phone": empty, "name": "x"}

    assert convert(CUSTOMERS, "update", values) == {"name": "x"}
    assert convert(CUSTOMERS, "update", values, "unset") == {"name": "x", "phone": ""}
    with pytest.raises(InvalidParameter, match="phone is empty"):
        convert(CUSTOMERS, "update", values, "error")


@pytest.mark.parametrize(
    ("field", "sent"),
    [
        ("email", {"email": ""}),
        ("address", {"address": ""}),
        ("metadata", {"metadata": ""}),
        ("metadata.a.b", {"metadata": {"a.b": ""}}),
        ("shipping", {"shipping": ""}),
        ("address.line2", {"address": {"line2": ""}}),
        (
            "invoice_settings.default_payment_method",
            {"invoice_settings": {"default_payment_method": ""}},
        ),
    ],
)
def test_a_field_is_cleared_by_an_empty_string(field: str, sent: Any) -> None:
    assert convert(CUSTOMERS, "update", {}, unset=(field,)) == sent


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ("customers", "default_source"),
        ("customers", "balance"),
        ("customers", "preferred_locales"),
        ("customers", "shipping.name"),
        ("customers", "nope"),
        ("products", "name"),
        ("subscriptions", "cancel_at_period_end"),
    ],
)
def test_what_cannot_be_cleared_is_reported_before_the_call(table: str, field: str) -> None:
    with pytest.raises(InvalidParameter, match=r"cannot unset|no parameter"):
        convert(WRITABLE[table], "update", {}, unset=(field,))


SCALARS = [
    None, True, 0, -5, 2**70, 1.5, float("nan"), Decimal("NaN"), "", "x", "5", "true", "2026-01-01",
    "4242424242424242", "a@x.org", b"x", datetime(2026, 1, 1), date(2026, 1, 1), "\ud800", "now",
]  # fmt: skip
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from(SCALARS),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=2),
    max_leaves=4,
)
PLACES = [
    (row, verb, name)
    for row in WRITABLE.values()
    for verb in ("create", "update", "list")
    for name in row.parameters[verb]
]


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.sampled_from(PLACES), VALUES, NAMES, VALUES, st.sampled_from(["skip", "unset"]))
def test_whatever_is_given_is_sent_or_reported(
    place: tuple[Writable, str, str], value: Any, other: str, other_value: Any, nulls: Nulls
) -> None:
    """Never an exception of another kind."""
    row, verb, name = place
    try:
        params = convert(row, verb, {name: value, other: other_value}, nulls)
        check(row, verb, params)
        encode(params)
    except UsageError as error:
        assert str(error)


def test_a_field_given_whole_and_in_parts_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="given twice"):
        convert(CUSTOMERS, "create", {"name": "x", "name.first": "y"})
    assert convert(CUSTOMERS, "create", {"address": {"city": "A"}, "address.line1": "B"}) == {
        "address": {"city": "A", "line1": "B"}
    }
