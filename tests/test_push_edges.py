"""Situations that no other test of pushes has: what a breaker tried, and what did not hold."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import pytest

from stripe_feed.errors import StripeFeedError, UsageError
from stripe_feed.write.push.log import LOG, PushLog
from tests.pushing import Pushing, ends, pushing, reasons


@pytest.fixture
def crm() -> Iterator[Pushing]:
    with pushing(object="customers", key="id", match="email") as found:
        yield found


def test_a_run_that_could_not_begin_has_stripes_time_too(crm: Pushing) -> None:
    """Stripe was out of reach, and this machine's clock is wrong: alerts keep their order."""
    crm.box.advance(7_200)
    rows = [{"id": 1, "email": "ann@example.com"}]
    assert ends(crm.run(rows)) == {"created": 1}
    with pytest.raises(StripeFeedError):
        crm.run([{"id": 1}, {"id": 1}])  # it answers, and the rows are refused
    crm.box.faults.always["GET /v1/account"] = "reset"
    with pytest.raises(StripeFeedError):
        crm.run(rows)
    crm.box.faults.always.clear()
    assert ends(crm.run(rows)) == {"unchanged": 1}
    with PushLog(LOG, lambda: 0.0) as log:
        times = [run["started_at"] for run in log.runs()]
    assert len(times) == 4 and max(times) - min(times) < 60, times


def test_who_was_deleted_behind_our_back_and_came_again_can_be_removed(crm: Pushing) -> None:
    """Twice removed if another row had taken its place: one removal is planned and sent."""
    crm.run([{"id": 1, "email": "ann@example.com"}])
    (first,) = crm.held()
    crm.box.delete("customers", first["id"])
    crm.run([{"id": 1, "email": "ann@example.com", "name": "Ann"}])
    crm.run([{"uid": "u1", "email": "ann@example.com", "name": "An"}], changes={"key": "uid"})
    crm.writes()
    removing = {"on_delete": "delete", "max_deletes": 9, "max_delete_share": 1}
    plan = crm.plan([], changes=removing)
    assert sorted(one.action for one in plan.decisions) == ["delete", "drop"]
    assert ends(crm.run([], changes=removing)) == {"deleted": 1, "skipped": 1}
    assert crm.writes() == ["DELETE /v1/customers/:id"]


def test_a_part_of_a_hash_is_sent_with_what_the_hash_needs(crm: Pushing) -> None:
    place = {"line1": "Main 1", "country": "DE"}
    made = crm.box.create("customers", email="ann@example.com", shipping={"name": "Ann", "address": place, "phone": None})  # fmt: skip
    assert ends(crm.run([{"id": 1, "email": "ann@example.com", "shipping.phone": "555"}])) == {"updated": 1}  # fmt: skip
    held = crm.box.objects("customers")[made["id"]]["shipping"]
    assert (held["phone"], held["name"], held["address"]["line1"]) == ("555", "Ann", "Main 1")


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ({"metadata": {"sf_key": "mine"}}, "metadata.sf_key is what a push marks its objects with."),
        ({"email": "\ufeffann@example.com"}, "email is no e-mail address."),
        ({"email": "ann\u200b@example.com"}, "email is no e-mail address."),
    ],
)  # fmt: skip
def test_what_would_be_a_twin_or_lose_its_mark_is_refused(
    crm: Pushing, cell: dict[str, object], why: str
) -> None:
    assert reasons(crm.run([{"id": 1, "email": "ann@example.com", **cell}])) == {"1": why}
    assert crm.writes() == []


@pytest.mark.checklist("H21")
def test_the_time_of_the_run_goes_with_a_change_and_is_none_by_itself() -> None:
    fields = {"email": "email", "name": "name", "seen": {"time_of": "run"}}
    with pushing(object="customers", key="id", match="email", map=fields) as crm:
        row = {"id": 1, "email": "ann@example.com", "name": "Ann"}
        seen = []
        for name, resync, end in (("Ann", False, "created"), ("Ann", False, "unchanged"), ("Ann", True, "unchanged"), ("An", False, "updated")):  # fmt: skip
            assert ends(crm.run([row | {"name": name}], full_resync=resync)) == {end: 1}
            seen.append(datetime.fromisoformat(crm.held()[0]["metadata"]["seen"]).timestamp())
            crm.box.advance(3_600)
        assert seen[0] == seen[1] == seen[2] < seen[3] - 10_000
        for refused in ({"name": {"time_of": "run"}}, {"metadata.a": {"time_of": "day"}}):
            with pytest.raises(UsageError, match="time_of"):
                crm.plan([row], changes={"map": fields | refused})


@pytest.mark.parametrize("field", ["customer", "currency"])
def test_who_an_invoice_item_bills_does_not_change_in_silence(field: str) -> None:
    with pushing(object="invoice_items", key="k", match="metadata.k") as items:
        first, other = list(items.box.objects("customers"))[:2]
        row = {"k": "a", "metadata.k": "a", "customer": first, "amount": 100, "currency": "EUR"}
        assert ends(items.run([row])) == {"created": 1}
        assert ends(items.run([row | {"amount": 200}])) == {"updated": 1}
        items.writes()
        changed = row | {field: {"customer": other, "currency": "usd"}[field]}
        assert (
            f"The {field} of the invoice item cannot change" in reasons(items.run([changed]))["a"]
        )
        assert items.writes() == []
