"""Stripe's own sample objects, where the environment variable STRIPE_FIXTURES names the file, load
without loss.

It is Stripe's `openapi/spec3` fixtures file (https://github.com/stripe/openapi); nothing of it is
part of this repository.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stripe_feed.sandbox import Sandbox
from tests.copies import Copy, copy_of
from tests.core import CORE, CORE_TABLES
from tests.truth import truth

FILE = os.environ.get("STRIPE_FIXTURES")
pytestmark = pytest.mark.skipif(
    not FILE, reason="STRIPE_FIXTURES does not name Stripe's sample objects"
)


@pytest.fixture(scope="module")
def samples() -> dict[str, Any]:
    """Sample by Stripe's name of the object; a child is in its parent's list."""
    found: dict[str, Any] = json.loads(Path(FILE or "").read_bytes())["resources"]
    for row in CORE.values():
        for child in row.children:
            rows = found[row.object][child.field]["data"]
            rows += (
                [found[child.object]]
                if found[child.object]["id"] not in [one["id"] for one in rows]
                else []
            )
    return found


@pytest.fixture(scope="module")
def copy(samples: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    box = Sandbox(seed=1, customers=0, products=0, oddities=False)
    for row in CORE.values():
        box.put(row.table, samples[row.object])
    box.advance(60)
    with copy_of(box, tmp_path_factory.mktemp("samples")) as found:
        found.sync(test_clocks=True)
        yield found


@pytest.mark.parametrize("table", CORE_TABLES)
def test_a_sample_is_loaded_whole(copy: Copy, samples: dict[str, Any], table: str) -> None:
    """Every field of Stripe's own sample is in its row."""
    sample = samples[CORE_TABLES[table].object]
    (raw,) = [
        raw for id, raw in truth(copy.box, clocks=True)[table].raws.items() if id == sample["id"]
    ]
    assert msgspec.json.decode(raw) == sample
    assert copy.one(f"select count(*) from stripe.{table} where id = '{sample['id']}'") == 1


def test_the_tables_equal_the_samples(copy: Copy) -> None:
    """Every field of every table, and nothing else."""
    copy.check(clocks=True)
