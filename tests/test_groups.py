"""Resources are chosen by name or group, and who asks for nothing gets what there was before."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from stripe_feed import stripe_source
from stripe_feed.errors import UsageError
from stripe_feed.extract.options import resource_names
from stripe_feed.resources import RESOURCES, TABLES
from stripe_feed.resources.groups import DEFAULT_GROUP, GROUPS, tables_filled_by
from stripe_feed.sandbox import Sandbox
from tests.commands import Shell, shell_of
from tests.copies import FAST, Copy, copy_of
from tests.core import CORE, CORE_TABLES


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Copy]:
    with copy_of(Sandbox(customers=3, oddities=False), tmp_path, hold=True) as found:
        yield found


def tables(copy: Copy) -> set[str]:
    """The tables of Stripe's objects in the database."""
    found = copy.select("select table_name from duckdb_tables() where schema_name = 'stripe'")
    return {name for (name,) in found} & TABLES.keys()


def test_every_resource_is_in_one_group() -> None:
    """And no group has the name of a resource."""
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(RESOURCES)
    assert not GROUPS.keys() & RESOURCES.keys()


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        (None, GROUPS[DEFAULT_GROUP]),
        ([], GROUPS[DEFAULT_GROUP]),
        (["core"], GROUPS[DEFAULT_GROUP]),
        (["coupons"], ("coupons",)),
        (["invoices", "customers"], ("customers", "invoices")),
        (["billing", "customers"], ("customers", *GROUPS["billing"])),
        (["payments", " charges"], GROUPS["payments"]),
    ],
)
def test_names_and_groups(chosen: list[str] | None, names: tuple[str, ...]) -> None:
    """In the order of display, each once; the core if nothing is chosen."""
    assert resource_names(chosen) == list(names)


def test_an_unknown_name_is_refused() -> None:
    """The message has the nearest names and the groups."""
    nearest = r"no resource or group 'charge'\. Did you mean charges\? .*core, payments"
    with pytest.raises(UsageError, match=nearest):
        resource_names(["customers", "charge"])


def test_what_a_resource_fills() -> None:
    """Children, and the tables of the objects that these embed, are filled with it."""
    assert tables_filled_by(["subscriptions", "credit_notes"]) == [
        "subscriptions",
        "subscription_items",
        "prices",
        "plans",
        "credit_notes",
        "credit_note_line_items",
    ]


@pytest.mark.parametrize(
    ("given", "selected"),
    [
        (None, list(CORE)),
        ("payments", list(GROUPS["payments"])),
        (["coupons", "customers"], ["customers", "coupons"]),
    ],
)
def test_a_source_selects_what_it_is_told(given: object, selected: list[str]) -> None:
    """All are there, so that `with_resources` works for each; the others are not read."""
    source = stripe_source(api_key="sk_test_x", resources=given, **FAST)

    assert list(source.selected_resources) == [*selected, "changes"]
    assert list(source.with_resources("charges").selected_resources) == ["charges"]


def test_a_run_of_the_core_makes_no_other_table(copy: Copy) -> None:
    """Nor does it ask another list."""
    copy.load()

    paths = {path for path, _ in copy.box.counts}
    assert tables(copy) == CORE_TABLES.keys()
    assert not {row.path for name, row in RESOURCES.items() if name not in CORE} & paths


def test_a_group_joins_and_nothing_else_moves(copy: Copy) -> None:
    """Its tables come beside those of the core, of which no row is written again; a refresh of all
    brings it again.
    """
    copy.box.create("tax_rates")
    copy.load()
    loads = "select distinct _dlt_load_id from stripe.customers"
    before = copy.select(loads)
    copy.box.advance(400)

    done = copy.sync(resources=["core", "billing"])

    assert tables(copy) == CORE_TABLES.keys() | set(tables_filled_by(GROUPS["billing"]))
    assert done.rows.keys() <= set(tables_filled_by(GROUPS["billing"]))
    assert copy.select(loads) == before
    copy.check(*CORE, "tax_rates")
    copy.sync(full_refresh=True)
    copy.check(*CORE, "tax_rates")


def test_another_tools_table_of_a_new_group_stays_as_it_is(copy: Copy) -> None:
    """Also if the copy is not new: its tables are looked at when they are asked for first."""
    copy.sync(resources=["customers"])
    copy.select("create table stripe.charges as select 'theirs' as id")

    with pytest.raises(Exception, match=r"in the way: stripe\.charges"):
        copy.sync(resources=["customers", "charges"])
    with pytest.raises(Exception, match=r"in the way: stripe\.charges"):
        copy.run(copy.source(resources="charges"))
    copy.sync(resources=["customers"])
    assert copy.select("from stripe.charges") == [("theirs",)]


# -- what cannot be read
# -------------------------------------------------------------------------------------------------


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """An account that does not use Issuing, and its command line."""
    box = Sandbox(customers=3, oddities=False)
    box.create("charges")
    box.advance(100)
    box.faults.not_set_up = ("/v1/issuing/",)
    with shell_of(box, tmp_path) as found:
        yield found


def permissions(*groups: str) -> set[str]:
    """Of a key for these groups."""
    rows = [RESOURCES[name] for name in resource_names(groups)]
    more = {"rak_accounts_kyc_basic_read", "rak_event_read"}
    return {row.permission for row in rows} | more


def test_a_group_is_read_as_far_as_it_can_be(shell: Shell) -> None:
    """Products that are off, and a missing permission: one line each, and no failure, for nobody
    asked for these by name.
    """
    shell.box.faults.not_set_up += ("/v1/topups",)
    left_out = {"topups", "disputes", *GROUPS["issuing"]}
    key = shell.box.restrict(
        permissions=permissions("payments", "issuing") - {RESOURCES["disputes"].permission}
    )

    said = shell.sync("--resources", "payments,issuing", STRIPE_SECRET_KEY=key)

    lines = re.findall(r"^warning: (\w+) is left out: /v1/.*$", said.err, re.M)
    assert (said.code, sorted(lines)) == (0, sorted(left_out))
    assert "warning: topups is left out: /v1/topups: the account is not set up" in said.err
    assert "warning: disputes is left out: /v1/disputes: this key may not read it" in said.err
    read = shell.run("query", "--json", "select count(*) as n from charges")
    assert json.loads(read.out) == {"n": 1}


def test_what_was_asked_for_by_name_is_missed(shell: Shell) -> None:
    """By its name, as the parent of what was, or as part of the core, which is what a run reads that
    is told nothing.
    """
    key = shell.box.restrict(permissions=permissions("charges"))

    named = shell.sync("--resources", "charges,coupons,issuing", STRIPE_SECRET_KEY=key)
    core = shell.sync("--resources", "core,charges", STRIPE_SECRET_KEY=key)

    assert (named.code, named.error) == (
        4,
        "Left out: coupons; the warnings say why. Everything else is loaded.",
    )
    nothing_asked = shell.sync(
        STRIPE_SECRET_KEY=shell.box.restrict(permissions=permissions("core") - {"rak_invoice_read"})
    )
    below = shell.sync(
        "--resources",
        "payout_balance_transactions",
        STRIPE_SECRET_KEY=shell.box.restrict(
            permissions=permissions("payout_balance_transactions") - {"rak_payout_read"}
        ),
    )
    for said, name in ((nothing_asked, "invoices"), (below, "payouts")):
        assert (said.code, said.error.partition(";")[0]) == (4, f"Left out: {name}")
    assert core.code == 4
    assert core.error.startswith("Left out: customers, products, prices, plans, subscriptions,")


def test_doctor_says_what_the_account_does_not_use(shell: Shell) -> None:
    """Which is no problem; a missing permission is one."""
    key = shell.box.restrict(
        permissions=permissions("payments", "issuing") - {RESOURCES["disputes"].permission}
    )

    said = shell.run("doctor", "--resources", "payments,issuing", "--json", STRIPE_SECRET_KEY=key)

    found = {line["check"]: line for line in map(json.loads, said.out.splitlines())}
    assert found["issuing_cards"]["text"] == (
        "is left out: /v1/issuing/cards: the account is not set up for it (400, no code, param None, request "
        + found["issuing_cards"]["text"].partition("request ")[2]
    )
    wrong = {check: line["fix"] for check, line in found.items() if not line["ok"]}
    assert said.code == 3
    assert wrong.keys() - {"clock"} == {"disputes", "permissions"}
    assert RESOURCES["disputes"].permission in wrong["disputes"]
