"""`stripe-feed push`: the file of the pushes, plans and results on stdout, exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import duckdb
import pytest

from stripe_feed.sandbox import Sandbox
from tests.commands import Said, Shell, shell_of

FILE = """
[push.crm]
object = "customers"
key = "user_id"
match = "email"
query = "select * from people order by user_id"
on_delete = "delete"
max_deletes = 2
max_delete_share = 0.5

[push.crm.map]
email = "email"
name = "name"
"metadata.plan" = { value = "pro" }
"""


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with shell_of(Sandbox(seed=5, customers=2), tmp_path) as shell:
        (tmp_path / "pushes.toml").write_text(FILE)
        people(tmp_path, "Ann", "Bob", "Cid", "<b>Dan</b>")
        yield shell


def people(folder: Path, *names: str) -> None:
    """The rows of the copy."""
    with duckdb.connect(str(folder / "stripe_feed.duckdb")) as db:
        db.execute("create schema if not exists stripe")
        db.execute("create or replace table stripe.people (user_id int, email text, name text)")
        for n, name in enumerate(names):
            db.execute("insert into stripe.people values (?, ?, ?)", [n, f"p{n}@example.com", name])


def result(said: Said) -> dict[str, Any]:
    (line,) = said.out.splitlines()
    found: dict[str, Any] = json.loads(line)
    return found


@pytest.mark.checklist("H4")
def test_a_push_is_planned_run_and_then_has_nothing_to_do(shell: Shell) -> None:
    plan = shell.run("push", "plan", "--json")
    assert (plan.code, result(plan)["counts"]["create"], result(plan)["writes"]) == (0, 4, 4)
    assert result(plan)["rows"][0]["changes"][0] == {
        "field": "email", "before": None, "after": "p0@example.com",
    }  # fmt: skip
    ran = shell.run("push", "run", "--json")
    assert (ran.code, result(ran)["counts"]["created"]) == (0, 4)
    assert {row["status"] for row in result(ran)["rows"]} == {"created"}
    again = shell.run("push", "run", "crm")
    assert (again.code, again.out) == (0, "")
    assert "crm, run 2: 4 unchanged." in again.err


def test_without_json_a_table_shows_fields_before_and_after(shell: Shell) -> None:
    shell.run("push", "run")
    people(shell.folder, "Ann", "Bob", "Cid!")
    plan = shell.run("push", "plan")
    assert "Cid!" in plan.out and "Deletes the customer for good" in " ".join(plan.out.split())
    assert "crm: 1 update, 1 delete, 2 unchanged; 2 writes" in plan.err
    ran = shell.run("push", "run")
    assert (ran.code, "1 updated, 1 deleted, 2 unchanged" in ran.err) == (0, True)


PRICES = """
[push.prices]
object = "prices"
key = "lookup_key"
match = "lookup_key"
file = "prices.csv"
"""


def test_a_plan_shows_amounts_in_major_units(shell: Shell) -> None:
    """Who has 19.99 in the table sees that 19 would be 0.19."""
    (shell.folder / "pushes.toml").write_text(PRICES)
    (shell.folder / "prices.csv").write_text(
        "lookup_key;unit_amount;currency;product\nbasic;19;EUR;prod_1\ngold;500;jpy;prod_1\n"
    )
    plan = shell.run("push", "plan", "--html", "plan.html")
    assert "unit_amount:  null  ->  19  (0.19 EUR)" in plan.out
    assert "(500 JPY)" in plan.out
    assert "(0.19 EUR)" in (shell.folder / "plan.html").read_text()


CONTACTS = """
[push.contacts]
object = "customers"
key = "User ID"
match = "email"
file = "contacts.csv"
"""


@pytest.mark.checklist("H21")
def test_a_map_is_suggested_by_the_names_of_columns_and_does(shell: Shell) -> None:
    (shell.folder / "pushes.toml").write_text(CONTACTS)
    (shell.folder / "contacts.csv").write_text(
        "User ID,E-Mail,Full Name,ZIP,address city,Tax-exempt,Plan (2026),Telefone,phone\n"
        "1,x@example.com,X,101,Y,none,pro,+49,+1\n"
    )
    suggested = shell.run("push", "suggest", "contacts")
    assert suggested.out.splitlines() == [
        "[push.contacts.map]",
        '"email" = "E-Mail"',
        '"name" = "Full Name"',
        '"address.postal_code" = "ZIP"',
        '"address.city" = "address city"',
        '"tax_exempt" = "Tax-exempt"',
        '"metadata.Plan_2026_" = "Plan (2026)"',
        '"metadata.Telefone" = "Telefone"',
        '"phone" = "phone"',
    ]
    (shell.folder / "pushes.toml").write_text(CONTACTS + suggested.out)
    assert shell.run("push", "plan").code == 0
    assert [call for call in shell.box.log if call.method != "GET"] == []


def test_a_plan_as_a_page_escapes_what_rows_hold(shell: Shell) -> None:
    assert shell.run("push", "plan", "crm", "--html", "plan.html").code == 0
    page = (shell.folder / "plan.html").read_text()
    assert (shell.folder / "plan.html").stat().st_mode & 0o777 == 0o600
    assert "&lt;b&gt;Dan&lt;/b&gt;" in page and "<b>Dan" not in page
    parser = HTMLParser()
    parser.feed(page)
    parser.close()


@pytest.mark.checklist("H16")
def test_rejected_rows_end_with_4_and_can_be_seen_and_retried(shell: Shell) -> None:
    people(shell.folder, "Ann", "4242 4242 4242 4242")
    ran = shell.run("push", "run", "--json")
    assert (ran.code, result(ran)["counts"]["rejected"]) == (4, 1)
    shown = result(shell.run("push", "show", "--json"))
    assert [row["key"] for row in shown["rows"]] == ["1"]
    assert "looks like a card number" in shown["rows"][0]["reason"]
    assert shown["runs"][0]["counts"]["rejected"] == 1
    assert "looks like a card number" in " ".join(shell.run("push", "show").out.split())
    people(shell.folder, "Ann", "Bob")
    ran = shell.run("push", "retry", "--json")
    assert (ran.code, result(ran)["counts"]["created"]) == (0, 1)
    requests = shell.run("push", "show", "--run", "1", "--json").out.splitlines()
    assert [json.loads(line)["state"] for line in requests] == ["done"]


def test_too_many_deletes_stop_the_run(shell: Shell) -> None:
    shell.run("push", "run")
    people(shell.folder)
    plan = shell.run("push", "plan")
    assert (plan.code, "It would be refused" in plan.err) == (2, True)
    ran = shell.run("push", "run", "--json")
    assert ran.code == 2
    assert "max_deletes = 2" in result(ran)["error"]["message"]
    assert len(shell.box.objects("customers")) >= 4


def test_a_reset_makes_the_next_run_find_each_object_anew(shell: Shell) -> None:
    shell.run("push", "run")
    assert result(shell.run("push", "reset", "crm", "--json")) == {"push": "crm", "rows": 4}
    assert result(shell.run("push", "run", "--json"))["counts"]["unchanged"] == 4


def test_the_log_lies_beside_the_database(shell: Shell) -> None:
    (shell.folder / "stripe_feed.duckdb").rename(shell.folder / "copy.duckdb")
    assert shell.run("push", "run", "--database", "copy.duckdb").code == 0
    assert (shell.folder / "copy.push.sqlite").exists()
    assert shell.run("push", "show", "--log", "none.sqlite").code == 3


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("run", "erp"), 2, "There is no push 'erp'. Choose from: crm."),
        (("run", "--file", "none.toml"), 3, "cannot be read"),
        (("plan", "--html", "no/such/folder/plan.html"), 3, "cannot be written"),
    ],
)
def test_what_cannot_work_is_reported(
    shell: Shell, arguments: tuple[str, ...], code: int, says: str
) -> None:
    said = shell.run("push", *arguments)
    assert (said.code, says in said.err) == (code, True), said.err


def test_a_push_without_a_query_needs_python(shell: Shell) -> None:
    text = "\n".join(line for line in FILE.splitlines() if not line.startswith("query"))
    (shell.folder / "pushes.toml").write_text(text)
    said = shell.run("push", "run")
    assert (said.code, "the rows are missing" in said.err) == (2, True)
