"""The report: its figures are those of the marts, and names are text in it."""

from __future__ import annotations

import base64
import os
import sys
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner, Result

from stripe_feed.cli.main import app
from stripe_feed.currencies import DECIMALS
from stripe_feed.destination.pipeline import open_pipeline
from stripe_feed.errors import SetupError
from stripe_feed.feed.feed import open_feed
from stripe_feed.report.figures import FigureColumn
from stripe_feed.report.page import format_figure
from stripe_feed.report.reading import read_headline
from stripe_feed.report.run import _check_place, _write
from tests.raw_tables import empty_tables
from tests.reports import SCRIPT, Page, marts, read_page, reported, small_copy
from tests.timelines import CURRENCIES

SINCE = "month >= date '2024-12-01'"


@dataclass(frozen=True)
class Made:
    """A report, and the database that it is about."""

    file: Path
    database: Path
    page: Page
    left_out: dict[str, str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("report")
    file, database = folder / "report.html", folder / "stripe_feed.duckdb"
    small_copy(database)
    written = reported(file, database)
    assert not written.stale and {result.status for result in written.built} <= {"built"}
    return Made(file, database, read_page(file), dict(written.left_out))


def shown(value: Any, currency: str) -> str:
    """How a table shows a month, an amount (an integer), a rate, or a text."""
    if value is None:
        return "–"
    if isinstance(value, date):
        return f"{value:%Y-%m}"
    if isinstance(value, str):
        return value
    decimals = DECIMALS.get(currency, 2)
    return f"{Decimal(int(value)).scaleb(-decimals):,.{decimals}f}"


def columns(made: Made, caption: str, *names: str) -> list[tuple[str, ...]]:
    return [
        tuple(row[name].removesuffix(" so far") for name in names)
        for row in made.page.tables[caption]
    ]


FIGURES = {
    "MRR": (
        ("Month", "MRR", "ARR", "MRR per subscriber"),
        "select month, closing_mrr, arr, arpa from mrr_summary where {currency} and {since} order by month",
    ),
    "MRR movements": (
        ("Month", "Opening", "New", "Reactivation", "Expansion", "Contraction", "Churn", "Closing"),
        "select month, opening_mrr, new_mrr, reactivation_mrr, expansion_mrr, contraction_mrr, churn_mrr, closing_mrr "
        "from mrr_summary where {currency} and {since} order by month",
    ),
    "Collections": (
        ("Days overdue", "Left to pay"),
        "select bucket, sum(amount_remaining) from invoice_aging where {currency} group by bucket "
        "order by bucket = 'uncollectible', min(days_overdue)",
    ),
    "Longest overdue": (
        ("Invoice", "Left to pay"),
        "select invoice_id, amount_remaining from overdue_invoices where {currency} "
        "order by days_overdue desc, amount_remaining desc, invoice_id limit 10",
    ),
    "Fees": (
        ("Month", "Fees"),
        "select month, sum(fee) from fees_by_month where {currency} and {since} group by month order by month",
    ),
    "Refunds and disputes": (
        ("Month", "Charged", "Refunded", "Disputed"),
        "select month, charged_amount, refunded_amount, disputed_amount from disputes_and_refunds "
        "where {currency} and {since} order by month",
    ),
}


@pytest.mark.parametrize("currency", (*CURRENCIES, "kwd"))
@pytest.mark.parametrize("title", FIGURES)
def test_the_cells_are_those_of_the_marts(made: Made, title: str, currency: str) -> None:
    names, sql = FIGURES[title]
    rows = marts(made.database, sql.format(currency=f"currency = '{currency}'", since=SINCE))
    caption = f"{title}, {currency.upper()}"

    assert bool(rows) == (caption in made.page.tables)
    if rows:
        wanted = [tuple(shown(value, currency) for value in row) for row in rows]
        assert columns(made, caption, *names) == wanted


@pytest.mark.parametrize(
    ("title", "column", "sql"),
    [
        ("Invoiced by product", "Invoiced", f"select sum(revenue) from revenue_by_product where currency = 'usd' and {SINCE}"),
        ("Payouts", "Paid out", "select sum(amount) from payout_reconciliation where currency = 'usd'"),
        ("Payouts", "Fees taken before", "select sum(fees) from payout_reconciliation where currency = 'usd'"),
    ],
)  # fmt: skip
def test_what_is_summed_up_sums_up_to_the_mart(
    made: Made, title: str, column: str, sql: str
) -> None:
    cells = columns(made, f"{title}, USD", column)

    ((total,),) = marts(made.database, sql)
    assert sum(Decimal(cell.replace(",", "")) for (cell,) in cells) == Decimal(int(total)) / 100


@pytest.mark.parametrize("currency", CURRENCIES)
def test_an_mrr_is_split_by_how_it_is_known(made: Made, currency: str) -> None:
    rows = columns(made, f"MRR, {currency.upper()}", "MRR", "Observed", "By invoices", "Assumed")

    assert any(Decimal(row[1].replace(",", "")) for row in rows)
    for cells in rows:
        total, *parts = (Decimal(cell.replace(",", "")) for cell in cells)
        assert total == sum(parts)


def test_at_a_glance_each_currency_stands_for_itself(made: Made) -> None:
    rows = columns(made, "Where each currency stands", "Currency", "MRR", "Subscribers", "Overdue")

    wanted = marts(
        made.database,
        "select currency, closing_mrr, closing_subscribers, coalesce((select sum(amount_remaining) from overdue_invoices "
        "where overdue_invoices.currency = mrr_summary.currency), 0) from mrr_summary where month = '2026-11-01'",
    )
    assert set(rows) == {
        (currency.upper(), shown(mrr, currency), f"{subscribers:,}", shown(overdue, currency))
        for currency, mrr, subscribers, overdue in wanted
    } | {("KWD", "–", "–", "0.000")}
    ((active,),) = marts(
        made.database,
        "select active_subscribers from subscriber_metrics_daily order by day desc limit 1",
    )
    assert f"{active:,} active subscribers" in made.page.text


def test_the_page_of_serve_reads_the_same_headline(made: Made) -> None:
    folder = str(made.file.parent / "state")
    with open_feed(open_pipeline(str(made.database), state_dir=folder)) as feed:
        headline = feed.read_models(read_headline, 0.0)

    rows = columns(made, "Where each currency stands", "Currency", "MRR")
    assert rows == [
        (one.currency.upper(), shown(one.mrr, one.currency)) for one in headline.currencies
    ]


def test_it_says_of_what_and_of_when_it_speaks(made: Made) -> None:
    ((as_of,),) = marts(made.database, "select max(as_of) from months")

    for words in (f"{as_of:%Y-%m-%d %H:%M} UTC", "Months and days in", "the last 24 months"):
        assert words in made.page.text
    assert made.left_out == {}


def test_names_are_text_and_the_file_asks_for_nothing(made: Made) -> None:
    allowed = {"html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "h3", "p", "b", "dl", "div", "dt", "dd", "nav", "ul", "li", "a", "main", "section", "img", "table", "caption", "thead", "tbody", "tr", "th", "td", "footer"}  # fmt: skip
    assert SCRIPT in made.page.text
    assert {name for name, _ in made.page.elements} <= allowed
    for name, attributes in made.page.elements:
        assert not [key for key in attributes if key.startswith("on")]
        for key in ("src", "href"):
            assert str(attributes.get(key) or "#").startswith(
                ("#", "data:image/svg+xml;base64,")
            ), name
    assert "url(" not in made.file.read_text(encoding="utf-8")


def test_every_chart_has_words_and_its_table(made: Made) -> None:
    images = [attributes for name, attributes in made.page.elements if name == "img"]

    assert len(images) >= 15
    for image in images:
        words = str(image["alt"])
        caption = words.removeprefix("Chart of ").partition(".")[0]
        assert made.page.tables[caption]
        svg = base64.b64decode(str(image["src"]).partition(",")[2]).decode()
        assert svg.startswith("<svg") and "<script" not in svg


def test_headings_go_down_one_by_one_and_ids_are_unique(made: Made) -> None:
    levels = [level for level, _ in made.page.headings]
    ids = [attributes["id"] for _, attributes in made.page.elements if "id" in attributes]

    assert levels[0] == 1 and levels.count(1) == 1
    assert all(below <= above + 1 for above, below in pairwise(levels))
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize(
    ("kind", "value", "currency", "text"),
    [
        ("money", 123456789, "eur", "1,234,567.89"),
        ("money", -5, "eur", "-0.05"),
        ("money", 1234, "jpy", "1,234"),
        ("money", 1234567, "kwd", "1,234.567"),
        ("money", 9007199254740993, "usd", "90,071,992,547,409.93"),
        ("count", 12345, "", "12,345"),
        ("share", Decimal("0.12345"), "", "12.3%"),
        ("share", Decimal("0.0005"), "", "0.1%"),
        ("share", None, "", "–"),
        ("shade", Decimal("0.995"), "", "100%"),
        ("shade", None, "", ""),
        ("text", "x" * 100, "", "x" * 100),
        ("text", "x" * 101, "", f"{'x' * 99}…"),
    ],
)
def test_numbers_are_for_people(kind: Any, value: Any, currency: str, text: str) -> None:
    assert format_figure(FigureColumn("x", "X", kind), value, currency) == text


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["report", *arguments])


@pytest.mark.usefixtures("own_folder")
def test_an_account_without_anything_has_a_report() -> None:
    with duckdb.connect("stripe_feed.duckdb") as connection:
        empty_tables(connection)

    done = run("--html", "report.html")

    assert done.exit_code == 0, done.stderr
    page = read_page(Path("report.html"))
    assert "No subscriptions and no invoices yet." in page.text
    assert "No subscribers yet." in page.text


@pytest.mark.usefixtures("own_folder")
def test_figures_whose_tables_are_not_loaded_are_left_out_with_the_reason(made: Made) -> None:
    tables = (
        "customers invoices invoice_line_items products prices plans subscriptions subscription_items changes "
        "_dlt_loads"
    )
    with duckdb.connect("stripe_feed.duckdb") as connection:
        connection.execute(f"attach '{made.database}' as whole (read_only); create schema stripe")
        for table in tables.split():
            connection.execute(f"create table stripe.{table} as from whole.stripe.{table}")

    done = run("--html", "report.html", "--no-build")

    assert done.exit_code == 0, done.stderr
    assert "models stale" in done.stderr
    assert "No subscriptions and no invoices yet." in read_page(Path("report.html")).text

    done = run(
        "--html",
        "report.html",
        "--months",
        "2",
        "--currency",
        "EUR",
        "--var",
        "reporting_timezone=Asia/Tokyo",
    )

    assert done.exit_code == 0, done.stderr
    assert "sync --resources core,payments" in done.stderr
    text = read_page(Path("report.html")).text
    assert "Left out" in text and "the table balance_transactions is not loaded" in text
    assert "Asia/Tokyo" in text and "USD" not in text
    assert Path("report.html").stat().st_mode & 0o777 == 0o600

    done = run("--html", "report.html", "--no-build")

    assert "built for another time zone" in read_page(Path("report.html")).text


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--html", "x.html"), 3, "There is no file stripe_feed.duckdb yet"),
        (("--html", "x.html", "--var", "reporting_timezone=Mars"), 2, "reporting_timezone does not take 'Mars'"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("own_folder")
def test_mistakes_take_one_line(arguments: tuple[str, ...], code: int, words: str) -> None:
    if code == 2:
        with duckdb.connect("stripe_feed.duckdb") as connection:
            empty_tables(connection)

    done = run(*arguments)

    assert (done.exit_code, len(done.stderr.splitlines())) == (code, 1)
    assert words in done.stderr


def test_a_currency_that_no_mart_has_and_a_place_that_takes_no_file(made: Made) -> None:
    place = ("--database", str(made.database), "--no-build")

    assert (
        "No mart has the currency 'xyz'" in run("--html", "x", "--currency", "xyz", *place).stderr
    )
    assert "is a folder" in run("--html", str(made.file.parent), *place).stderr
    done = run("--html", str(made.file.parent / "no" / "x.html"), *place)
    assert (done.exit_code, "There is no folder" in done.stderr) == (2, True)


def test_what_is_no_file_is_not_replaced(made: Made, tmp_path: Path) -> None:
    place = ("--database", str(made.database), "--no-build")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    assert "no file that can be replaced" in run("--html", str(pipe), *place).stderr
    assert pipe.is_fifo()
    assert run("--html", "-", *place).stderr.endswith("Name one, such as report.html.\n")


@pytest.mark.parametrize("length", [250, 300])
def test_a_long_name_is_written_or_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / ("x" * length)
    if length <= 255:
        _write(_check_place(str(path)), b"page")
        assert path.read_bytes() == b"page"
    else:
        with pytest.raises(SetupError, match=r"cannot be written .* too long"):
            _write(_check_place(str(path)), b"page")
    assert [*tmp_path.iterdir()] == [path] * (length <= 255)


@pytest.mark.parametrize("package", ["altair", "vl_convert"])
def test_without_the_extra_one_line_names_it(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "stripe_feed.report.charts", raising=False)
    monkeypatch.delattr("stripe_feed.report.charts", raising=False)

    done = run("--html", "x.html")

    assert (done.exit_code, len(done.stderr.splitlines())) == (3, 1)
    assert "pip install 'stripe-feed[report]'" in done.stderr
