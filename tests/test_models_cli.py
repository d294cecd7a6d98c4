"""`stripe-feed models ...` over a small copy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner, Result

from stripe_feed.cli.main import app
from stripe_feed.cli.models.printing import MODEL_GROUPS, print_counts
from stripe_feed.extract.options import resource_names
from stripe_feed.models.explain import column_lineage
from stripe_feed.models.render import PROJECT_FOLDER, ModelTarget, load_project, render_models
from stripe_feed.models.run import ModelResult
from stripe_feed.resources import CHANGES
from stripe_feed.resources.groups import tables_filled_by
from tests.raw_tables import empty_tables, one_subscription

FILE = "stripe_feed.duckdb"
AS_OF = ("--var", "as_of=2026-11-20 12:00:00")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders with a copy of one subscription: `raw`, and `built` with models. Views name the
    database after its file.
    """
    folder = tmp_path_factory.mktemp("models")
    for name in ("raw", "built"):
        (folder / name).mkdir()
    with duckdb.connect(str(folder / "raw" / FILE)) as connection:
        empty_tables(connection)
        one_subscription(connection)
    shutil.copy(folder / "raw" / FILE, folder / "built" / FILE)
    done = models("build", *AS_OF, "--json", "--database", str(folder / "built" / FILE))
    assert done.exit_code == 0, done.stderr
    assert {json.loads(line)["status"] for line in done.stdout.splitlines()} <= {
        "built",
        "left out",
    }
    return folder


@pytest.fixture
def copy(own_folder: Path, files: Path) -> None:
    """A copy without models in the current folder."""
    shutil.copy(files / "raw" / FILE, FILE)


@pytest.fixture
def built(own_folder: Path, files: Path) -> None:
    """A copy with models in the current folder."""
    shutil.copy(files / "built" / FILE, FILE)


def models(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["models", *arguments])


def rows(*arguments: str) -> list[Any]:
    done = models(*arguments, "--json")
    assert done.exit_code == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_sync_says_in_one_line_what_became_of_the_models(
    capsys: pytest.CaptureFixture[str],
) -> None:
    reason = "the table coupons is not loaded"
    results = [
        ModelResult("mrr_items", "table", "built"),
        ModelResult("customers_360", "view", "unchanged"),
        ModelResult("mrr_discounts", "table", "left out", reason, missing="coupons"),
    ]
    print_counts(results, names_what_is_left_out=False)

    counts = "1 model built, 1 unchanged"
    assert capsys.readouterr().err == f"{counts}, 1 left out: `stripe-feed models list` says why.\n"
    print_counts(results)
    assert capsys.readouterr().err.startswith(f"{counts}.\nmrr_discounts: {reason}.\n")


@pytest.mark.usefixtures("built")
def test_build_list_test_and_explain() -> None:
    again = rows("build", *AS_OF)

    assert {row["status"] for row in again} <= {"unchanged", "left out"}

    listed = {row["name"]: row for row in rows("list")}
    assert (listed["mrr_items"]["rows"], listed["mrr_items"]["state"]) == (2, "current")
    assert listed["mrr_items"]["grain"] == "subscription item and span"

    assert not any(row["failures"] for row in rows("test"))

    (explained,) = rows("explain", "mrr", "cus_1", "2026-10")
    assert explained["totals"] == {"usd": 3000}
    (part,) = explained["parts"]
    assert (part["price_id"], part["billed_amount"], part["mrr"]) == ("price_1", 3000, 3000)
    assert "3,000 = 3,000 x 1: 2 x price_1" in models("explain", "mrr", "cus_1", "2026-10").stdout


@pytest.mark.usefixtures("built")
def test_a_model_is_stale_after_a_load() -> None:
    with duckdb.connect(FILE) as connection:
        connection.execute("insert into stripe._dlt_loads (load_id, status) values ('2.5', 0)")

    listed = {row["name"]: row["state"] for row in rows("list")}

    assert (listed["mrr_items"], listed["stg_stripe__prices"]) == ("stale", "current")


@pytest.mark.usefixtures("built")
def test_a_planted_fault_ends_with_4_and_names_the_rows() -> None:
    with duckdb.connect(FILE) as connection:
        connection.execute(
            "update stripe_models.mrr_movements set amount = amount + 1, kind = 'knew'"
        )

    done = models("test", "--json")

    broken = {
        row["name"]: row for row in map(json.loads, done.stdout.splitlines()) if row.get("failures")
    }
    assert done.exit_code == 4
    assert set(broken) == {"accepted_values_mrr_movements_kind"}
    (row,) = broken["accepted_values_mrr_movements_kind"]["rows"]
    assert (row["customer_id"], row["currency"], row["kind"]) == ("cus_1", "usd", "knew")


@pytest.mark.usefixtures("built")
def test_a_summary_that_does_not_add_up_breaks_the_identity() -> None:
    with duckdb.connect(FILE) as connection:
        connection.execute(
            "update stripe_models.mrr_summary set closing_mrr = 2999 where month = '2026-05-01'"
        )

    done = models("test", "mrr_summary", "--json")

    broken = {r["name"] for r in map(json.loads, done.stdout.splitlines()) if r.get("failures")}
    assert {"mrr_identity", "mrr_adds_up_by_product"} == broken
    assert done.exit_code == 4


@pytest.mark.usefixtures("copy")
def test_a_core_table_that_is_not_loaded_ends_with_4() -> None:
    with duckdb.connect(FILE) as connection:
        connection.execute("drop table stripe.invoices")

    done = models("build")

    assert done.exit_code == 4
    assert "not loaded: invoices" in done.stderr
    assert "mrr_summary" in done.stderr
    listed = {row["name"]: row for row in rows("list")}
    assert listed["mrr_summary"]["state"] == "left out"
    assert listed["mrr_summary"]["reason"] == "the table invoices is not loaded"


def test_what_is_left_out_names_the_groups_that_fill_all_tables_of_the_models() -> None:
    filled = tables_filled_by(resource_names(MODEL_GROUPS.split(",")))

    target = ModelTarget("duckdb", "copy", "stripe", "stripe_models")
    rendered = render_models(load_project(), target).values()
    assert {table for model in rendered for table in model.sources} <= {
        *filled,
        CHANGES,
        "_dlt_loads",
    }


@pytest.mark.usefixtures("copy")
def test_list_and_build_say_what_loads_the_tables_that_are_missing() -> None:
    with duckdb.connect(FILE) as connection:
        connection.execute("drop table stripe.coupons")

    said = f"`stripe-feed sync --resources {MODEL_GROUPS}` loads all that the models read."
    assert said in models("build").stderr
    assert said in models("list").stderr


@pytest.mark.parametrize("named", [("list",), ("test",), ("explain", "mrr", "cus_1", "2026-11")])
def test_a_lake_holds_no_built_models(named: tuple[str, ...]) -> None:
    done = models(*named, "--destination", "delta")

    assert done.exit_code == 3
    assert "in duckdb and postgres, not in delta. Use dbt" in done.stderr


@pytest.mark.usefixtures("copy")
def test_show() -> None:
    (shown,) = rows("show", "mrr_items")

    assert shown["columns"][0] == ["subscription_item_id", "Subscription item, `si_...`."]
    assert "subscription_item_history" in shown["reads"]
    assert models("show", "mrr_items", "--sql").stdout.startswith("with unpriced as (")


def test_lineage_leads_through_models_to_raw_columns() -> None:
    assert column_lineage("int_stripe__item_periods", "unit_amount") == [
        "invoice_line_items.extra",
        "invoice_line_items.pricing",
    ]


@pytest.mark.usefixtures("copy")
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("build", "mmr"), 2, "no model 'mmr'"),
        (("build", "--var", "discount=none"), 2, "no variable discount"),
        (("build", "--var", "discounts"), 2, "NAME=VALUE"),
        (("build", "--var", "discounts=coupons"), 2, "forever, recurring, all, none"),
        (("show", "months", "--lineage", "moth"), 2, "`stripe-feed models show months` lists"),
        (("build", "--with", "make"), 2, "built-in or dbt"),
        (("explain", "mrr", "cus_1", "2026-10"), 2, "months is not built"),
        (("explain", "churn", "cus_1", "2026-10"), 2, "explains mrr"),
        (("show", "mrr"), 2, "no model 'mrr'"),
        (("list", "--database", "other.duckdb"), 3, "no file other.duckdb"),
        (("build", "--database", "other.duckdb"), 3, "no file other.duckdb"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    arguments: tuple[str, ...], code: int, words: str
) -> None:
    done = models(*arguments)

    assert done.exit_code == code
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert words in line


def test_the_package(own_folder: Path) -> None:
    assert models("package").stdout == f"{PROJECT_FOLDER}\n"

    done = models("package", "--copy", "project")

    assert done.stdout == f"{own_folder / 'project'}\n"
    assert (own_folder / "project" / "dbt_project.yml").is_file()
    assert models("package", "--copy", "project").exit_code == 2


@pytest.mark.usefixtures("built")
def test_a_customer_that_the_copy_does_not_have_is_no_zero() -> None:
    unknown = models("explain", "mrr", "cus_nobody", "2026-10")

    assert (unknown.exit_code, unknown.stdout) == (3, "")
    assert "The copy has no customer of this id." in unknown.stderr


@pytest.mark.usefixtures("built")
def test_a_list_that_is_piped_is_not_cut() -> None:
    listed = models("list").stdout

    assert " mrr_monthly_customer " in listed and " customer, currency and month " in listed
    assert " built (UTC) " in listed and " int_stripe__subscriber_spans " in listed
