"""The models in Postgres, over a copy that `sync` keeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stripe_feed.destination.pipeline import dlt_settings, open_pipeline
from stripe_feed.models.copies import build_copy_models
from stripe_feed.models.database import client_database
from stripe_feed.sandbox import Sandbox
from stripe_feed.sync_run import sync
from tests.copies import FAST
from tests.postgres import postgres_server

AS_OF = {"as_of": "2026-11-20 12:00:00"}


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with postgres_server() as url:
        yield url


def rows(state_dir: Path, query: str) -> list[Any]:
    """The rows of a query on the models in Postgres."""
    with dlt_settings():
        pipeline = open_pipeline(None, "postgres", "stripe", str(state_dir))
        with client_database(pipeline.sql_client()) as database:
            return database.execute(query)


def test_a_full_refresh_drops_the_views_and_a_build_brings_them_back(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", postgres)
    box = Sandbox(seed=11, customers=4, invoices=0, subscriptions=6, oddities=False)
    place: dict[str, Any] = {"destination": "postgres", "state_dir": str(tmp_path)}
    with box.serve() as url:
        source = {"api_key": box.key, "api_base": url, **place, **FAST}
        sync(**source)
        first = build_copy_models(**place, variables=AS_OF)
        assert {r.status for r in first if not r.missing} == {"built"}
        assert not {"invoices", "invoice_line_items", "changes"} & {r.missing for r in first}
        again = build_copy_models(**place, variables=AS_OF)
        assert {r.status for r in again if not r.missing} == {"unchanged"}
        before = rows(tmp_path, "select * from stripe_models.mrr_items order by 1, 7")
        rows(tmp_path, "create view public.mine as select * from stripe_models.mrr_summary")

        with caplog.at_level("INFO", "stripe_feed"):
            sync(**source, full_refresh=True)

        dropped = [r for r in caplog.messages if "views of the models" in r]
        assert len(dropped) == 1
        built = build_copy_models(**place, variables=AS_OF)

    assert {r.status for r in built if not r.missing} == {"built"}
    assert rows(tmp_path, "select * from stripe_models.mrr_items order by 1, 7") == before
    assert rows(tmp_path, "select count(*) from public.mine")[0][0] > 0
