"""A copy as DuckDB relations, pandas, polars and Arrow: `stripe_feed.open_copy`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from stripe_feed import open_copy
from stripe_feed.errors import Locked, SetupError, UsageError
from stripe_feed.models.copies import build_copy_models
from stripe_feed.sandbox import Sandbox
from tests.raw_tables import empty_tables, one_subscription

AS_OF = {"as_of": "2026-11-20 12:00:00"}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A copy with one subscription, and some models over it."""
    path = str(tmp_path_factory.mktemp("copy") / "stripe_feed.duckdb")
    with duckdb.connect(path) as connection:
        empty_tables(connection)
        one_subscription(connection)
        connection.execute("drop table stripe.quotes")
    built = build_copy_models(database=path, selection=["+mrr_summary"], variables=AS_OF)
    assert {result.status for result in built if not result.missing} == {"built"}
    return path


def is_free(file: str) -> bool:
    """Whether another process can write to a DuckDB file."""
    code = "import duckdb, sys; duckdb.connect(sys.argv[1]).close()"
    return subprocess.run([sys.executable, "-c", code, file], capture_output=True).returncode == 0


def has_not_ended(process: subprocess.Popen[str], within: float) -> bool:
    """Whether a process runs on for so many seconds."""
    try:
        process.wait(within)
    except subprocess.TimeoutExpired:
        return True
    return False


@contextmanager
def writing(file: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that writes to a copy, until a line comes on its stdin, or it is ended."""
    code = (
        "import duckdb, sys; db = duckdb.connect(sys.argv[1]); "
        "db.execute(\"update stripe.customers set name = 'new'\"); print('writing', flush=True); "
        "sys.stdin.readline(); db.close(); print('done', flush=True)"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", code, file], stdin=pipe, stdout=pipe, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "writing\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # DuckDB's, with pandas 3.1
def test_tables_and_models_are_relations_frames_and_arrow(file: str) -> None:
    copy = open_copy(file)

    items, summary = copy.table("subscription_items"), copy.table("mrr_summary")
    ((mrr,),) = summary.filter("month = date '2026-10-01'").project("closing_mrr").fetchall()
    joined = copy.sql(
        "select s.status, m.mrr from subscriptions s join mrr_monthly_customer m on m.customer_id = s.customer "
        "where m.month = date '2026-10-01'"
    )

    assert mrr == 3000 and joined.fetchall() == [("active", 3000)]
    assert items.df()["id"].tolist() == items.pl()["id"].to_list() == ["si_1"]
    assert items.to_arrow_table()["id"].to_pylist() == ["si_1"]
    assert summary.to_arrow_table().schema.field("closing_mrr").type == pa.int64()
    assert items.types[items.columns.index("created")] == "TIMESTAMP WITH TIME ZONE"
    assert items.join(copy.table("subscriptions").set_alias("s"), "subscription = s.id").shape[0]
    assert {"customers", "subscriptions", "changes"} <= {*copy.tables()}
    assert "mrr_summary" in copy.models() and "customers_360" not in copy.models()


def test_nothing_holds_the_file_while_its_rows_are_used(file: str) -> None:
    copy = open_copy(file)
    customers = copy.table("customers")

    assert is_free(file)
    assert customers.shape[0] == 1


def test_a_reading_waits_for_who_writes(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = str(tmp_path / "stripe_feed.duckdb")
    Path(own).write_bytes(Path(file).read_bytes())
    copy = open_copy(own, wait=60)
    with writing(own) as process:
        with pytest.raises(Locked, match=r"^stripe_feed.duckdb is open in process \d+\."):
            open_copy(own, wait=0)

        def let_go() -> None:
            process.communicate("\n")

        monkeypatch.setattr("stripe_feed.destination.locks.pause", let_go)
        assert copy.sql("select name from customers").fetchall() == [("new",)]
    assert is_free(own)


def test_a_file_that_this_process_writes_to_is_not_called_damaged(file: str) -> None:
    with duckdb.connect(file), pytest.raises(Locked, match="being written by this process"):
        open_copy(file, wait=0)


def test_what_is_not_there_is_told(file: str, own_folder: Path) -> None:
    copy = open_copy(file)

    with pytest.raises(
        SetupError, match=r"no file stripe_feed\.duckdb yet\. Run `stripe-feed sync`"
    ):
        open_copy()
    with pytest.raises(UsageError, match=r"no table 'invoics'\. Did you mean invoices or "):
        copy.table("invoics")
    with pytest.raises(SetupError, match=r"quotes is not loaded yet\. .*sync --resources quotes`"):
        copy.table("quotes")
    not_built = r"customers_360 is not built\. Run `stripe-feed models build \+customers_360`"
    with pytest.raises(UsageError, match=not_built):
        copy.table("customers_360")
    with pytest.raises(UsageError, match=not_built):
        copy.sql("select count(*) from customers_360")
    with pytest.raises(UsageError, match="nothing_of_ours does not exist"):
        copy.sql("select * from nothing_of_ours")
    with pytest.raises(UsageError, match="takes one statement"):
        copy.sql("select 1; select 2")
    with pytest.raises(UsageError, match="read-only"):
        copy.sql("delete from customers")
    assert not any(own_folder.iterdir())


@pytest.mark.broad
def test_readings_while_a_sync_runs_see_whole_objects_and_disturb_nothing(tmp_path: Path) -> None:
    """An invoice is there with its lines; the sync ends as if it were alone."""
    own = str(tmp_path / "stripe_feed.duckdb")
    box = Sandbox(seed=3, customers=60, invoices=200, oddities=False)
    with box.serve() as url:
        env = {**os.environ, "STRIPE_API_BASE": url, "STRIPE_SECRET_KEY": box.key}
        options = ("--database", own, "--state-dir", str(tmp_path))
        command = [sys.executable, "-m", "stripe_feed", "sync", *options]
        with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
            seen: list[int] = []
            while has_not_ended(process, within=0.3):
                try:
                    rows = open_copy(own, wait=60).sql(_INVOICES_AND_LINES).fetchall()
                except (SetupError, UsageError):  # not there yet
                    continue
                seen.append(rows[0][0])
                assert rows[0][1] == 0
            assert process.stderr is not None
            assert process.wait() == 0, process.stderr.read()

    assert seen and seen == sorted(seen)
    assert is_free(own)
    assert open_copy(own).table("invoices").shape[0] == len(box.objects("invoices"))


_INVOICES_AND_LINES = """
select count(distinct invoices.id), count(*) filter (where lines.id is null)
from invoices left join invoice_line_items as lines on lines.invoice = invoices.id
"""


def test_the_marimo_app_runs_as_a_script(file: str, tmp_path: Path) -> None:
    """The extra `marimo` is not part of `dev`: 60 MB for one example."""
    pytest.importorskip("marimo")
    app = Path(__file__).parents[1] / "notebooks" / "mrr_app.py"

    def code(database: str) -> int:
        command = [sys.executable, str(app), "--database", database]
        return subprocess.run(command, cwd=tmp_path, capture_output=True).returncode

    assert code(file) == 0
    assert code("none.duckdb") != 0
    assert is_free(file)


def test_columns_of_one_name_are_numbered(file: str) -> None:
    query = "select c.id, c.id as ID_1, s.id from customers as c join subscriptions as s on s.customer = c.id"

    found = open_copy(file).sql(query)

    assert found.columns == ["id", "ID_1", "id_2"]
    assert len(found.to_arrow_table()) == 1


def test_threads_read_at_once(file: str) -> None:
    """In a process of its own: threads that block each other would stop the test too."""
    code = (
        "import sys, stripe_feed; from concurrent.futures import ThreadPoolExecutor; copy = stripe_feed.open_copy(sys.argv[1])\n"
        "def count(number): return copy.table('customers').filter('true').to_arrow_table().num_rows\n"
        "with ThreadPoolExecutor(8) as pool: print(sum(pool.map(count, range(32))))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, file], capture_output=True, text=True, timeout=120
    )

    assert (done.stdout, done.stderr) == ("32\n", "")
