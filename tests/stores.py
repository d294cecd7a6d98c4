"""The destinations that a machine can have, each with the settings that lead dlt to it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import pytest

from stripe_feed.destination.error_messages import LAKE_PACKAGES
from stripe_feed.destination.pipeline import open_pipeline
from tests.postgres import postgres_server


@dataclass
class Store:
    """A destination by name, and its settings as environment variables."""

    destination: str
    settings: dict[str, str] = field(default_factory=dict)
    exact: bool = True  # decimals keep all their digits
    database: str | None = None
    dataset: str = "stripe"

    @property
    def is_lake(self) -> bool:
        return self.destination in LAKE_PACKAGES

    def options(self) -> dict[str, Any]:
        """The arguments that lead `sync`, `verify` and `open_pipeline` there."""
        return {
            "destination": self.destination,
            "database": self.database,
            "dataset": self.dataset,
        }

    def pipeline(self, state: Path, suffix: str = "") -> Any:
        options = self.options() | {"dataset": f"{self.dataset}{suffix}"}
        return open_pipeline(**options, state_dir=str(state))

    @contextmanager
    def configured(self) -> Iterator[None]:
        """Set the settings in this process and those that it starts."""
        before = {name: os.environ.get(name) for name in self.settings}
        os.environ.update(self.settings)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


@contextmanager
def duckdb_store(folder: Path) -> Iterator[Store]:
    yield Store("duckdb", database=str(folder / "copy.duckdb"))


@contextmanager
def sqlite_store(folder: Path) -> Iterator[Store]:
    file = folder / "copy.db"
    yield Store(
        "sqlalchemy", {"DESTINATION__SQLALCHEMY__CREDENTIALS": f"sqlite:///{file}"}, exact=False
    )


@contextmanager
def postgres_store(folder: Path) -> Iterator[Store]:
    with postgres_server() as url:
        yield Store("postgres", {"DESTINATION__POSTGRES__CREDENTIALS": url})


@contextmanager
def delta_store(folder: Path) -> Iterator[Store]:
    yield Store("delta", {"DESTINATION__FILESYSTEM__BUCKET_URL": (folder / "lake").as_uri()})


@contextmanager
def iceberg_store(folder: Path) -> Iterator[Store]:
    yield Store("iceberg", {"DESTINATION__FILESYSTEM__BUCKET_URL": (folder / "lake").as_uri()})


@contextmanager
def bucket() -> Iterator[dict[str, str]]:
    """An S3 look-alike on this machine with an empty bucket; yields the settings that lead there."""
    boto3, server = pytest.importorskip("boto3"), pytest.importorskip("moto.server")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    try:
        host, port = running.get_host_and_port()
        url = f"http://{host}:{port}"
        client = boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        name = f"lake-{uuid4().hex}"  # the look-alike's buckets outlive it
        client.create_bucket(Bucket=name)
        section = "DESTINATION__FILESYSTEM__"
        yield {
            f"{section}BUCKET_URL": f"s3://{name}/stripe",
            f"{section}CREDENTIALS__ENDPOINT_URL": url,
            f"{section}CREDENTIALS__REGION_NAME": "us-east-1",
            f"{section}CREDENTIALS__AWS_ACCESS_KEY_ID": "test",
            f"{section}CREDENTIALS__AWS_SECRET_ACCESS_KEY": "test",
        }
    finally:
        running.stop()


@contextmanager
def delta_s3_store(folder: Path) -> Iterator[Store]:
    with bucket() as settings:
        yield Store("delta", settings)


@contextmanager
def iceberg_s3_store(folder: Path) -> Iterator[Store]:
    with bucket() as settings:
        yield Store("iceberg", settings | catalog_settings(folder))


def catalog_settings(folder: Path) -> dict[str, str]:
    """A catalog of Iceberg in SQLite, for tables in a bucket."""
    catalog = {"type": "sql", "uri": f"sqlite:///{folder / 'catalog.sqlite'}", "warehouse": "s3://"}
    return {"ICEBERG_CATALOG__ICEBERG_CATALOG_CONFIG": json.dumps(catalog)}


@contextmanager
def ducklake_store(folder: Path) -> Iterator[Store]:
    """With its catalog in a DuckDB file; the extension is the wheel's, where DuckDB looks for it."""
    extension = pytest.importorskip("duckdb_extension_ducklake")
    (platform,) = duckdb.sql("pragma platform").fetchall()[0]
    place = Path(os.environ["HOME"], ".duckdb", "extensions", f"v{duckdb.__version__}", platform)
    (file,) = Path(extension.__file__).parent.glob(f"extensions/v{duckdb.__version__}/*")
    place.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, place)
    section = "DESTINATION__DUCKLAKE__CREDENTIALS__"
    yield Store(
        "ducklake",
        {
            f"{section}CATALOG": f"duckdb:///{folder / 'catalog.duckdb'}",
            f"{section}STORAGE__BUCKET_URL": (folder / "files").as_uri(),
        },
    )


@contextmanager
def live_store(folder: Path) -> Iterator[Store]:
    """A warehouse that the environment names, with dlt's credentials for it there too."""
    pipeline = (found := Store(LIVE, dataset=f"stripe_feed_{uuid4().hex[:8]}")).pipeline(folder)
    try:
        yield found
    finally:
        with pipeline.destination_client() as client:
            client.drop_storage()


LIVE = os.environ.get("STRIPE_FEED_LIVE", "")
STORES: dict[str, tuple[str, Callable[[Path], AbstractContextManager[Store]]]] = {
    "duckdb": ("DuckDB (`duckdb`)", duckdb_store),
    "postgres": ("Postgres (`postgres`)", postgres_store),
    "sqlite": ("SQLite (`sqlalchemy`)", sqlite_store),
    "delta": ("Delta in a folder (`delta`)", delta_store),
    "iceberg": ("Iceberg in a folder (`iceberg`)", iceberg_store),
    "delta-on-s3": ("Delta in a bucket of an S3 look-alike (`delta`)", delta_s3_store),
    "iceberg-on-s3": ("Iceberg in a bucket of an S3 look-alike (`iceberg`)", iceberg_s3_store),
    "ducklake": ("DuckLake (`ducklake`)", ducklake_store),
}
"""Each destination that tests run on: how the docs name it, and where it is."""

ENGINES = {"ducklake"}  # only in the environment of `make test-engines`
PARSED = (
    "bigquery",
    "clickhouse",
    "databricks",
    "motherduck",
    "mssql",
    "redshift",
    "snowflake",
    "synapse",
)
"""Warehouses whose merges are written and read in their dialect, and never run here."""

REFUSED = ("filesystem", "lance", "lancedb", "qdrant", "weaviate")
"""Destinations of dlt that cannot merge with `delete-insert`."""


def documented() -> list[list[str]]:
    """The table of destinations in the docs: each, and what tests show of it."""
    return [
        *([label, "ran"] for label, _ in STORES.values()),
        *([f"`{name}`", "parsed"] for name in PARSED),
        *([f"`{name}`", "refused"] for name in REFUSED),
    ]
