"""Stripe as a destination of a dlt pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlt
import pytest
from dlt.pipeline.exceptions import PipelineStepFailed

from stripe_feed.errors import UsageError
from stripe_feed.write.push_destination import stripe_objects
from tests.pushing import FAST, Pushing, pushing

CRM: dict[str, Any] = {
    "name": "crm", "object": "customers", "key": "user_id", "match": "email", "nulls": "unset",
    "map": {"email": "email", "name": "name", "phone": "phone"},
}  # fmt: skip
PEOPLE = [
    {"user_id": n, "email": f"p{n}@example.com", "name": f"P {n}", "phone": None} for n in range(7)
]


@pytest.fixture
def crm() -> Iterator[Pushing]:
    with pushing(**CRM) as found:
        yield found


def load(crm: Pushing, rows: list[dict[str, Any]], key: str | None = None) -> None:
    destination = stripe_objects(CRM, key or crm.box.key, base=crm.url, **FAST)
    pipeline = dlt.pipeline(
        "into_stripe", destination=destination, pipelines_dir=str(Path("pipelines").absolute())
    )
    pipeline.run(rows, table_name="people")


def test_a_pipeline_pushes_its_rows_once(crm: Pushing) -> None:
    load(crm, PEOPLE)
    assert sorted(one["name"] for one in crm.held()) == [row["name"] for row in PEOPLE]
    crm.writes()
    load(crm, PEOPLE)
    assert crm.writes() == []
    load(crm, [{**PEOPLE[0], "name": None, "phone": "+1"}, *PEOPLE[1:]])
    assert crm.writes() == ["POST /v1/customers/:id"]
    assert [(one["name"], one["phone"]) for one in crm.held() if one["phone"]] == [(None, "+1")]


def test_a_row_that_is_rejected_stops_no_pipeline(crm: Pushing) -> None:
    load(crm, [{**PEOPLE[0], "email": "nobody"}, *PEOPLE[1:]])
    assert len(crm.held()) == 6


def test_a_key_that_may_not_write_ends_the_load(crm: Pushing) -> None:
    key = crm.box.restrict(permissions=["rak_customer_read"])
    with pytest.raises(PipelineStepFailed, match="rak_customer_write"):
        load(crm, PEOPLE, key)


def test_a_batch_is_no_table_so_nothing_is_deleted() -> None:
    with pytest.raises(UsageError, match="leave out on_delete"):
        stripe_objects({**CRM, "on_delete": "delete", "max_deletes": 5})


def test_a_batch_takes_nothing_from_the_rows_of_another(crm: Pushing) -> None:
    load(crm, [PEOPLE[0], {**PEOPLE[1], "email": "nobody"}])
    load(crm, [{**PEOPLE[2], "email": PEOPLE[0]["email"]}])
    assert [one["name"] for one in crm.held()] == ["P 0"]
    with crm.opened() as push:
        states = {key: row.state for key, row in push.log.rows("crm").items()}
    assert states == {"0": "done", "1": "rejected", "2": "rejected"}  # each is still shown
