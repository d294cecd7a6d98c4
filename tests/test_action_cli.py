"""`stripe-feed action`: results on stdout, exit codes, JSON in and out, and the schema of it all."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from stripe_feed.resources.writable import WRITABLE
from stripe_feed.sandbox import Sandbox
from stripe_feed.write.order import FIELDS
from stripe_feed.write.schema import schemas
from stripe_feed.write.verbs import verbs_of
from tests.commands import Said, Shell, shell_of
from tests.scripted import Answer, scripted

EMAIL = "jane@example.com"
CUSTOMER = ("action", "customers")
UPSERT = (*CUSTOMER, "upsert", "--match", f"email={EMAIL}")


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with shell_of(Sandbox(seed=5, customers=4), tmp_path) as shell:
        yield shell


def result(said: Said) -> dict[str, Any]:
    """The one JSON object on stdout."""
    (line,) = said.out.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


@pytest.mark.checklist("N2")
def test_an_upsert_is_planned_done_and_then_skipped(shell: Shell) -> None:
    name = ("--set", "name=Jane", "--set", "metadata.plan=pro")

    plan = result(shell.run(*UPSERT, *name, "--dry-run", "--json"))
    assert (plan["status"], plan["requests"]) == (
        "dry_run",
        [{"method": "POST", "path": "/v1/customers", "params": {
            "email": EMAIL, "name": "Jane", "metadata": {"plan": "pro"},
        }}],
    )  # fmt: skip
    created = result(shell.run(*UPSERT, *name, "--json"))
    again = result(shell.run(*UPSERT, *name, "--json"))
    assert (created["status"], again["status"]) == ("success", "skipped")
    assert created["object"]["metadata"] == {"plan": "pro"} and again["id"] == created["id"]


@pytest.mark.checklist("N3")
@pytest.mark.parametrize(
    "command",
    [("action", "customers", "list"), ("push", "reset", "crm"), ("sync", "--dry-run")],
)  # fmt: skip
def test_a_key_has_a_name_by_which_a_command_takes_it(
    shell: Shell, command: tuple[str, ...]
) -> None:
    (shell.folder / "pushes.toml").write_text(
        '[push.crm]\nobject = "customers"\nkey = "id"\nmatch = "email"\n'
    )
    keys = {"SOURCES__STRIPE_FEED__ACME__API_KEY": shell.box.key, "STRIPE_SECRET_KEY": "rk_test_x"}
    assert shell.run(*command, "--profile", "acme", **keys).code == 0
    assert shell.run(*command, STRIPE_FEED_PROFILE="acme", **keys).code == 0
    assert shell.run(*command, **keys).code == 3
    unknown = shell.run(*command, "--profile", "none", **keys)
    assert (unknown.code, "no key of the profile none" in unknown.err) == (3, True)
    assert shell.run(*command, "--profile", "a b", **keys).code == 2


@pytest.mark.checklist("SP20")
def test_a_tax_id_is_created_shown_and_deleted(shell: Shell) -> None:
    customer = result(shell.run(*CUSTOMER, "create", "--set", f"email={EMAIL}", "--json"))["id"]
    tax_id = ("--set", "type=eu_vat", "--set", "value=DE123456789")
    by_email = ("--match", f"email={EMAIL}")
    made = result(shell.run(*CUSTOMER, "create_tax_id", *by_email, *tax_id, "--json"))
    listed = shell.run(*CUSTOMER, "list_tax_ids", customer)
    assert all(word in listed.out for word in (made["id"], "eu_vat", "DE123456789"))
    assert "1 tax id found via list." in listed.err

    lacking = shell.run(*CUSTOMER, "delete_tax_id", customer)
    gone = shell.run(*CUSTOMER, "delete_tax_id", customer, "--tax-id", made["id"])
    assert (lacking.code, "begins with txi_" in lacking.err) == (2, True)
    assert (gone.code, gone.out) == (
        0,
        f"success  {made['id']}  Customer tax id deleted successfully\n",
    )
    assert "0 tax ids found" in shell.run(*CUSTOMER, "list_tax_ids", customer).err


def test_the_flat_form_has_four_keys(shell: Shell) -> None:
    made = result(shell.run(*CUSTOMER, "create", "--set", "name=Jane", "--flat"))

    assert [*made] == ["customer", "customer_id", "status", "message"]
    assert made["customer"]["name"] == "Jane" and made["customer_id"].startswith("cus_")


def test_without_json_a_line_says_what_came_of_it(shell: Shell) -> None:
    made = shell.run(*CUSTOMER, "create", "--set", "name=Jane", "--set", f"email={EMAIL}")
    status, customer, *words = made.out.split()
    assert (made.code, status, " ".join(words)) == (0, "success", "Customer created successfully")

    shown = shell.run(*CUSTOMER, "get", customer).out
    assert all(word in shown for word in ("retrieved successfully", "Jane", EMAIL))
    plan = shell.run(*CUSTOMER, "update", customer, "--set", "name=B", "--dry-run")
    assert plan.out.splitlines()[1:] == [f"POST /v1/customers/{customer}", '  name="B"']
    found = shell.run(*CUSTOMER, "search", "--where", f"email={EMAIL}")
    assert customer in found.out and EMAIL in found.out
    assert "1 customer found via list." in found.err
    gone = shell.run(*CUSTOMER, "delete", customer)
    assert gone.out == f"success  {customer}  Customer deleted successfully\n"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("charges", "get", "ch_1"), 2, "There are no actions on 'charges'"),
        (("customers",), 2, "Give a verb for customers: search, get, list"),
        (("customers", "refund", "cus_1"), 2, "There is no action 'refund' on customers"),
        (("customers", "get", "sub_1"), 2, "begins with cus_"),
        (("customers", "get", "cus_nope"), 1, "No such customer"),
        (("customers", "create", "--set", "name"), 2, "--set takes NAME=VALUE"),
        (("customers", "create", "--set", "name=a", "--set", "name=b"), 2, "given twice"),
        (("customers", "create", "--set", "coupon=x"), 2, "Stripe took coupon off customers"),
        (("customers", "create", "--set", "address={city"), 2, "is no JSON"),
        (("customers", "get", "cus_1", "--match", "a=b"), 2, "get takes no match"),
        (("customers", "search", "--where", "name"), 2, "This is no condition"),
        (("customers", "create", "--input", "none.json"), 2, "--input cannot be read"),
        (("customers", "create", "--nulls", "drop"), 2, "nulls is one of"),
    ],
)
def test_what_went_wrong_is_one_line_and_an_exit_code(
    shell: Shell, arguments: tuple[str, ...], code: int, says: str
) -> None:
    said = shell.run("action", *arguments)

    assert said.code == code and says in said.error and said.out == ""


def test_an_error_is_json_too(shell: Shell) -> None:
    said = shell.run(*CUSTOMER, "get", "cus_nope", "--json")

    assert (said.code, result(said)["status"], result(said)["code"]) == (
        1,
        "error",
        "resource_missing",
    )


def test_an_unknown_outcome_has_an_exit_code_and_a_key(shell: Shell) -> None:
    shell.box.faults.error_500_after = 1.0
    said = shell.run(*CUSTOMER, "create", "--set", "name=x", "--idempotency-key", "sf-7", "--json")

    assert (said.code, result(said)["status"]) == (5, "unknown") and "sf-7" in said.error


def test_the_help_names_every_resource(shell: Shell) -> None:
    said = re.sub(r"\s+", " ", shell.run("action", "--help").out)

    assert f"One of {', '.join(WRITABLE)}; or schema" in said


def test_json_goes_in(shell: Shell) -> None:
    order = {"match": {"email": EMAIL}, "set": {"address": {"city": "Bonn"}, "balance": -5}}
    made = result(shell.run(*CUSTOMER, "upsert", "--input", "-", "--json", stdin=json.dumps(order)))
    assert (made["object"]["address"]["city"], made["object"]["balance"]) == ("Bonn", -5)

    (shell.folder / "order.json").write_text('{"where": {"email": "jane@example.com"}, "limit": 1}')
    found = result(shell.run(*CUSTOMER, "list", "--input", "order.json", "--json"))
    assert [one["id"] for one in found["objects"]] == [made["id"]]
    assert (
        "--input is a JSON object" in shell.run(*CUSTOMER, "list", "--input", "-", stdin="[]").error
    )


def test_nested_values_are_json(shell: Shell) -> None:
    price = next(iter(shell.box.objects("prices")))
    customer = next(iter(shell.box.objects("customers")))
    plan = result(shell.run(
        "action", "subscriptions", "create", "--set", f"customer={customer}",
        "--set", f'items=[{{"price": "{price}", "quantity": 2}}]',
        "--set", "trial_end=2030-01-01", "--set", "off_session=true", "--dry-run", "--json",
    ))  # fmt: skip

    assert plan["requests"][0]["params"] == {
        "customer": customer, "items": [{"price": price, "quantity": 2}],
        "trial_end": 1893456000, "off_session": True,
    }  # fmt: skip


def test_a_live_key_needs_yes(shell: Shell) -> None:
    answers = [Answer(body=b'{"object": "list", "data": []}')] * 2
    with scripted(*answers, Answer(body=b'{"object": "customer", "deleted": true}')) as server:
        live = {"STRIPE_SECRET_KEY": "sk_live_canary", "STRIPE_API_BASE": server.url}
        command = (*CUSTOMER, "delete", "cus_1", "--allow-api-base")
        asked = shell.run(*command, **live)
        assert asked.code == 2 and "Deletes the customer for good" in asked.error
        done = shell.run(*command, "--yes", **live)

    assert done.code == 0 and "Subscriptions that end with it at once: 0" in done.err
    assert [request.method for request in server.seen] == ["GET", "GET", "DELETE"]


def test_or_is_an_option(shell: Shell) -> None:
    for name in ("Ann", "Ben", "Cem"):
        shell.run(*CUSTOMER, "create", "--set", f"name={name}")
    both = ("--where", "name=Ann", "--where", "name~be")

    found = result(shell.run(*CUSTOMER, "list", *both, "--any", "--json"))
    assert {one["name"] for one in found["objects"]} == {"Ann", "Ben"}
    assert result(shell.run(*CUSTOMER, "list", *both, "--json"))["objects"] == []


# -- the schema ------------------------------------------------------------------------------------

ALL = schemas()


@pytest.mark.checklist("C2")
def test_the_schema_is_one_and_has_every_action(shell: Shell) -> None:
    Draft202012Validator.check_schema(schemas("customers"))

    assert result(shell.run("action", "schema")) == json.loads(json.dumps(ALL))
    assert {*ALL["$defs"]} == {
        f"{row.table}.{v}" for row in WRITABLE.values() for v in verbs_of(row)
    }
    one = result(shell.run("action", "schema", "invoices", "void"))
    assert one["title"] == "invoices.void" and one["properties"]["set"]["properties"] == {}


@pytest.mark.parametrize(
    ("action", "order", "is_valid"),
    [
        ("customers.upsert", {"match": {"email": EMAIL}, "set": {"metadata.plan": "pro"}}, True),
        ("customers.upsert", {"set": {}}, False),
        ("customers.create", {"set": {"address": {"city": "Bonn"}, "phone": None}}, True),
        ("customers.create", {"set": {"address": {"town": "Bonn"}}}, False),
        ("customers.create", {"set": {"balance": 1.5}}, False),
        ("customers.get", {"id": "cus_1"}, True),
        ("customers.get", {"id": "sub_1"}, False),
        ("customers.get", {}, False),
        ("subscriptions.create", {"set": {"items": [{"price": "p", "quantity": 1}]}}, True),
        ("subscriptions.create", {"set": {"items": [{"prize": "p"}]}}, False),
        ("subscriptions.cancel", {"id": "sub_1", "reason": "unused"}, True),
        ("subscriptions.cancel", {"id": "sub_1", "reason": "bored"}, False),
        ("invoices.void", {"id": "in_1", "nope": 1}, False),
    ],
)
def test_the_schema_says_what_an_action_takes(
    action: str, order: dict[str, Any], is_valid: bool
) -> None:
    assert Draft202012Validator(ALL["$defs"][action]).is_valid(order) is is_valid


def test_every_field_of_an_order_is_in_some_schema() -> None:
    named = {name for schema in ALL["$defs"].values() for name in schema["properties"]}

    assert named == {name for fields in FIELDS.values() for name in fields.split()}
