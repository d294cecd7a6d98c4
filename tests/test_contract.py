"""What every destination has to do, on each that a machine can have: loads, updates, deletes,
children, newer versions, kills, comparisons, the sample and the feed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import dlt
import pyarrow as pa
import pytest

from stripe_feed import open_feed, sync, verify
from stripe_feed.destination.pipeline import dlt_settings
from stripe_feed.extract.tables.hints import newer_wins, replace_children, table_names
from stripe_feed.resources.model import Child
from stripe_feed.sandbox import Sandbox
from tests.copies import FAST
from tests.stores import ENGINES, LIVE, STORES, Store, delta_store, live_store
from tests.test_crash import Runner
from tests.test_destinations import change, young
from tests.truth import SLOW, assert_true

SOME = ("customers", "products", "prices", "subscriptions", "invoices")


PARAMETERS: list[Any] = [
    pytest.param(opened, id=name, marks=[pytest.mark.engines] if name in ENGINES else [])
    for name, (_, opened) in STORES.items()
]
if LIVE:
    PARAMETERS.append(pytest.param(live_store, id="live", marks=pytest.mark.engines))


@pytest.fixture(scope="module", params=PARAMETERS)
def store(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("store")
    with request.param(folder) as found, found.configured():
        yield found


def test_a_life_of_a_copy(store: Store, tmp_path: Path) -> None:
    """A first load; updates, deletes and children that vanish and come; a killed run and the one after
    it; what no event told; a sample; and the feed: after each, tables and changes equal the account.
    """
    box = Sandbox(seed=11, customers=12, oddities=False)
    made = young(box)
    pipeline = store.pipeline(tmp_path)
    with box.serve() as url:
        options: dict[str, Any] = {
            "api_key": box.key, "api_base": url, "state_dir": str(tmp_path), "resources": SOME,
        } | store.options() | FAST  # fmt: skip

        def synced(**more: Any) -> Any:
            result = sync(**options | more)
            with dlt_settings():
                assert_true(pipeline, box, SOME, exact=store.exact, found_later=True)
            return result

        box.advance(600)
        synced()
        box.advance(SLOW)
        change(box, *made)
        doomed = [next(iter(box.objects("customers"))), box.create("customers")["id"]]
        box.advance(60)
        for id in doomed:
            box.delete("customers", id)
        box.advance(600)
        assert synced().rows["changes"] > 10
        assert sync(**options).rows == {}

        box.advance(SLOW)
        box.update("customers", made[0], name="Killed", metadata={"again": "yes"})
        box.advance(600)
        with closing(Runner()) as runner:
            point = "merged in a lake" if store.is_lake else "merged"
            assert runner.sync(point, 1, **options) == -9
        synced()

        box.advance(SLOW)
        box.faults.lost_events = 1.0
        box.update("customers", made[0], name="Silent")
        box.faults.lost_events = 0.0
        box.advance(600)
        assert synced(reconcile=True).healed["customers"] == 1

        checked = verify(sample=20, **{k: v for k, v in options.items() if k != "state_dir"})
        assert (set(checked.compared), checked.differences) == (set(SOME), [])

        with dlt_settings(), open_feed(pipeline, tmp_path / "other.sqlite") as feed:
            told = list(feed.read())
        with dlt_settings(), open_feed(pipeline) as feed:
            assert [one.change_id for one in feed.read()] == [one.change_id for one in told]
        assert {one.object_id for one in told} >= {made[0], *doomed}
        assert [one.op for one in told if one.object_id == doomed[1]] == ["c", "d"]


def test_a_short_life_of_a_copy_in_a_lake(tmp_path: Path) -> None:
    """The same with two resources and a run for all at once that changes and that no event told, and
    that a killed one precedes.
    """
    few = ("customers", "subscriptions")
    box = Sandbox(seed=11, customers=4, oddities=False)
    made = young(box)
    with (
        delta_store(tmp_path) as store,
        store.configured(),
        box.serve() as url,
        closing(Runner()) as runner,
    ):
        pipeline = store.pipeline(tmp_path)
        options: dict[str, Any] = {
            "api_key": box.key, "api_base": url, "state_dir": str(tmp_path), "resources": few,
        } | store.options() | FAST  # fmt: skip
        box.advance(600)
        sync(**options)
        box.advance(SLOW)
        change(box, *made)
        doomed = box.create("customers")["id"]
        box.advance(60)
        box.delete("customers", doomed)
        box.faults.lost_events = 1.0
        silent = next(iter(box.objects("customers")))
        box.update("customers", silent, name="Silent")
        box.faults.lost_events = 0.0
        box.advance(600)
        assert runner.sync("merged in a lake", 1, **options) == -9
        assert sync(**options, reconcile=True).healed["customers"] == 1

        checked = verify(sample=20, **{k: v for k, v in options.items() if k != "state_dir"})
        assert (set(checked.compared), checked.differences) == (set(few), [])
        with dlt_settings():
            assert_true(pipeline, box, few, exact=store.exact, found_later=True)
        with dlt_settings(), open_feed(pipeline, tmp_path / "other.sqlite") as feed:
            told = list(feed.read())
        assert len({one.change_id for one in told}) == len(told)
        assert {one.object_id for one in told} >= {*made[:2], doomed, silent}
        assert [one.op for one in told if one.object_id == doomed] == ["c", "d"]


PARENTS, LINES = "contract_parents", "contract_lines"
LINE = Child(table=LINES, field="lines", parent="parent", object="line", path="", columns=())
Rows = list[tuple[str, int]]
TEXT, NUMBER = {"data_type": "text"}, {"data_type": "bigint", "nullable": False}


def observed(versions: dict[str, tuple[int, list[str]]]) -> tuple[pa.Table, pa.Table]:
    """The rows of parents at a version with these lines, and a tombstone for each parent."""
    lines = [(line, parent, v) for parent, (v, ids) in versions.items() for line in (*ids, parent)]
    parents = [(parent, v) for parent, (v, _) in versions.items()]
    return _table(parents, "id", "_version"), _table(lines, "id", "parent", "_version")


def _table(rows: list[Any], *names: str) -> pa.Table:
    types = {"_version": pa.int64()}
    schema = pa.schema([pa.field(n, types.get(n, pa.string()), nullable=False) for n in names])
    return pa.Table.from_pylist([dict(zip(names, row, strict=True)) for row in rows], schema)


STEPS: list[tuple[str, list[dict[str, tuple[int, list[str]]]], Rows, list[tuple[str, str]]]] = [
    ("first", [{"a": (5, ["a1", "a2"]), "b": (5, ["b1"])}], [("a", 5), ("b", 5)],
     [("a1", "a"), ("a2", "a"), ("b1", "b")]),
    ("stale", [{"a": (4, ["a9"]), "b": (6, ["b1", "b2"])}], [("a", 5), ("b", 6)],
     [("a1", "a"), ("a2", "a"), ("b1", "b"), ("b2", "b")]),
    ("tie", [{"a": (5, ["a2", "a3"])}], [("a", 5), ("b", 6)],
     [("a2", "a"), ("a3", "a"), ("b1", "b"), ("b2", "b")]),
    ("several versions in one package, the newest in between",
     [{"a": (7, ["a7"])}, {"a": (9, ["a8", "a9"])}, {"a": (8, ["a7"])}], [("a", 9), ("b", 6)],
     [("a8", "a"), ("a9", "a"), ("b1", "b"), ("b2", "b")]),
    ("none left", [{"b": (7, [])}], [("a", 9), ("b", 7)], [("a8", "a"), ("a9", "a")]),
    ("stale after none were left", [{"b": (6, ["b1"])}], [("a", 9), ("b", 7)],
     [("a8", "a"), ("a9", "a")]),
    ("grown back", [{"b": (8, ["b1"])}], [("a", 9), ("b", 8)],
     [("a8", "a"), ("a9", "a"), ("b1", "b")]),
]  # fmt: skip


def test_the_newest_version_wins_and_children_are_complete(store: Store, tmp_path: Path) -> None:
    """Packages with versions in any order: each merge leaves what the newest observation holds."""
    pipeline = store.pipeline(tmp_path, "_contract")

    @dlt.source(name="contract", max_table_nesting=0)
    def source(packages: list[dict[str, tuple[int, list[str]]]]) -> Any:
        @dlt.resource(name=PARENTS)
        def parents() -> Iterator[Any]:
            client = dlt.current.pipeline().sql_client()
            names = {table: table_names(client, table) for table in (PARENTS, LINES)}
            merges = {
                PARENTS: newer_wins(names[PARENTS]),
                LINES: replace_children(LINE, names[PARENTS], names[LINES]),
            }
            for package in packages:
                for table, rows in zip(merges, observed(package), strict=True):
                    columns = {c: TEXT | {"nullable": False} for c in rows.column_names} | {
                        "_version": NUMBER | {"dedup_sort": "desc"}
                    }
                    hints: Any = {
                        "table_name": table,
                        "primary_key": "id",
                        "file_format": "parquet",
                        "write_disposition": merges[table],
                        "columns": columns,
                    }
                    made = dlt.mark.make_hints(**hints)
                    yield dlt.mark.with_hints(rows, made, create_table_variant=True)

        return parents

    for step, packages, parents, lines in STEPS:
        with dlt_settings():
            pipeline.run(source(packages))
        with pipeline.sql_client() as client:
            held = [
                sorted(
                    client.execute_sql(
                        f"select {columns} from {client.make_qualified_table_name(t)}"
                    )
                )
                for t, columns in ((PARENTS, "id, _version"), (LINES, "id, parent"))
            ]
        assert (step, *held) == (step, parents, lines)
