"""Pushes of customers into the sandbox: modes, matching, deletes and their guards, and that nothing is
done twice whatever fails.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from stripe_feed.api.client import Api
from stripe_feed.errors import TryLater, UsageError, WrongAccount
from stripe_feed.write.push.log import REPEATABLE, PushLog
from stripe_feed.write.push.run import THREADS
from tests.pushing import Pushing, Row, ends, killed_at, pushing, reasons

CREATE, UPDATE = "POST /v1/customers", "POST /v1/customers/:id"
A = {"user_id": 1, "email": "a@example.com", "name": "A"}
B = {"user_id": 1, "email": "a@example.com", "name": "B"}
MAP = {"email": "email", "name": "name"}


@pytest.fixture
def crm() -> Iterator[Pushing]:
    with pushing(object="customers", key="user_id", match="email", map=MAP) as found:
        yield found


def people(count: int, **fields: Any) -> list[Row]:
    return [
        {"user_id": n, "email": f"p{n}@example.com", "name": f"P {n}", **fields}
        for n in range(count)
    ]


def names(crm: Pushing) -> list[str]:
    return sorted(one["name"] for one in crm.held())


# -- modes -----------------------------------------------------------------------------------------


@pytest.mark.checklist("H19 H23 N30")
def test_a_second_run_sends_nothing(crm: Pushing) -> None:
    assert ends(crm.run(people(12))) == {"created": 12}
    assert len(crm.writes()) == 12
    assert ends(crm.run(people(12))) == {"unchanged": 12}
    assert crm.writes() == []
    assert crm.box.counts["/v1/customers", 200] == 0  # nor does it look anything up


@pytest.mark.checklist("H19 S34")
def test_only_rows_that_changed_are_sent_and_of_them_only_what_differs(crm: Pushing) -> None:
    crm.run(people(5))
    rows = people(5)
    rows[2]["name"] = "New"
    rows[3]["other"] = "not mapped"
    crm.writes()
    assert ends(crm.run(rows)) == {"updated": 1, "unchanged": 4}
    assert crm.writes() == [UPDATE]
    assert names(crm) == ["New", "P 0", "P 1", "P 3", "P 4"]


@pytest.mark.checklist("H5")
def test_upsert_updates_who_matches(crm: Pushing) -> None:
    old = crm.box.create("customers", email="a@example.com", name="Old")
    assert ends(crm.run([A])) == {"updated": 1}
    assert crm.box.objects("customers")[old["id"]]["name"] == "A"
    assert crm.held() == []


@pytest.mark.checklist("C20 C21")
@pytest.mark.parametrize(
    ("fields", "name", "plan"),
    [(True, "Old", "pro"), (["metadata.plan"], "A", "pro"), (["name"], "Old", "new")],
    ids=str,
)
def test_values_that_are_there_stay_if_that_is_asked_for(
    crm: Pushing, fields: Any, name: str, plan: str
) -> None:
    given = {"email": "a@example.com", "name": "Old", "metadata": {"plan": "pro"}}
    old = crm.box.create("customers", **given)
    changes = {"only_if_empty": fields, "map": MAP | {"phone": "phone", "metadata.plan": "plan"}}
    rows = [{**A, "phone": "+1", "plan": "new"}]
    assert ends(crm.run(rows, changes=changes)) == {"updated": 1}
    held = crm.box.objects("customers")[old["id"]]
    assert (held["name"], held["phone"], held["metadata"]["plan"]) == (name, "+1", plan)
    crm.writes()
    assert ends(crm.run(rows, changes=changes, full_resync=True)) == {"unchanged": 1}
    assert crm.writes() == []


def test_an_object_that_is_so_already_gets_no_request(crm: Pushing) -> None:
    crm.box.create("customers", email="a@example.com", name="A")
    assert ends(crm.run([A])) == {"unchanged": 1}
    assert crm.writes() == []


def test_update_leaves_alone_who_does_not_match(crm: Pushing) -> None:
    result = crm.run([A], changes={"mode": "update"})
    assert (ends(result), crm.writes()) == ({"skipped": 1}, [])


@pytest.mark.checklist("H5")
def test_update_finds_by_id(crm: Pushing) -> None:
    old = crm.box.create("customers", email="x@example.com", name="Old")
    by_id = {"mode": "update", "match": "id", "map": MAP | {"id": "cus"}}
    rows = [{**A, "cus": old["id"]}, {**B, "user_id": 2, "email": "b@example.com", "cus": "cus_nobody"}]  # fmt: skip
    assert ends(crm.run(rows, changes=by_id)) == {"updated": 1, "skipped": 1}
    assert crm.box.objects("customers")[old["id"]]["email"] == "a@example.com"


@pytest.mark.checklist("H20")
def test_insert_sends_each_row_once(crm: Pushing) -> None:
    insert = {"mode": "insert", "match": None}
    assert ends(crm.run([A], changes=insert)) == {"created": 1}
    assert ends(crm.run([B], changes=insert)) == {"unchanged": 1}
    assert names(crm) == ["A"]


def test_insert_with_a_match_leaves_alone_who_is_there(crm: Pushing) -> None:
    crm.box.create("customers", email="a@example.com", name="Old")
    assert ends(crm.run([A], changes={"mode": "insert"})) == {"unchanged": 1}
    assert crm.writes() == []


def test_a_row_stays_its_object_when_what_it_matched_on_changes(crm: Pushing) -> None:
    crm.run([A])
    assert ends(crm.run([{**A, "email": "new@example.com"}])) == {"updated": 1}
    assert [one["email"] for one in crm.held()] == ["new@example.com"]


@pytest.mark.checklist("H5")
def test_metadata_finds_an_object(crm: Pushing) -> None:
    by_metadata = {"match": "metadata.user", "map": MAP | {"metadata.user": "user_id"}}
    old = crm.box.create("customers", email="x@example.com", metadata={"user": "1"})
    assert ends(crm.run([A], changes=by_metadata)) == {"updated": 1}
    assert crm.box.objects("customers")[old["id"]]["email"] == "a@example.com"


def test_a_deleted_object_is_created_again(crm: Pushing) -> None:
    crm.run([A])
    crm.box.delete("customers", crm.held()[0]["id"])
    assert ends(crm.run([B])) == {"created": 1}
    assert names(crm) == ["B"]


# -- rows that are refused -------------------------------------------------------------------------


@pytest.mark.checklist("H15 N28")
def test_a_bad_row_stops_no_other(crm: Pushing) -> None:
    rows = people(4)
    rows[0]["email"] = "nobody"
    rows[1]["user_id"] = None
    rows[2]["name"] = 5
    result = crm.run(rows)
    assert (ends(result), result.exit_code) == ({"created": 1, "rejected": 3}, 4)
    assert reasons(result) == {
        "0": "email is no e-mail address.",
        "(row 2)": "The key column user_id is empty.",
        "2": "name takes text; this is a value of type int.",
    }


def test_several_that_match_are_no_match(crm: Pushing) -> None:
    old = [crm.box.create("customers", email="a@example.com", name="x")["id"] for _ in range(2)]
    result = crm.run([A])
    assert ends(result) == {"rejected": 1}
    assert all(id in reasons(result)["1"] for id in old)
    assert ends(crm.run([A], changes={"if_several": "newest"})) == {"updated": 1}


def test_two_rows_never_are_one_object(crm: Pushing) -> None:
    result = crm.run([A, {**B, "user_id": 2, "email": "A@example.com"}])
    assert ends(result) == {"rejected": 2}
    assert "Another row has the same email" in reasons(result)["1"]
    crm.run([A])
    result = crm.run([A, {"user_id": 2, "email": "b@example.com", "name": "x"}])
    crm.box.update("customers", crm.held()[0]["id"], email="c@example.com")
    result = crm.run([A, {"user_id": 3, "email": "c@example.com", "name": "x"}])
    assert "Another row is the customer" in reasons(result)["3"]


def test_two_rows_with_one_key_stop_the_run(crm: Pushing) -> None:
    with pytest.raises(UsageError, match="rows 1 and 2 have one key"):
        crm.run([A, {**B, "email": "b@example.com"}])
    assert crm.writes() == []


def test_a_row_that_stripe_refused_is_sent_again_and_passes_once_mended(crm: Pushing) -> None:
    """With the key of its first try, Stripe would repeat the refusal for a day."""
    crm.box.faults.once["POST /v1/customers"] = ["refused"]
    assert ends(crm.run([A])) == {"rejected": 1}
    assert ends(crm.run([A])) == {"created": 1}
    crm.box.faults.once["POST /v1/customers/:id"] = ["refused"]
    assert ends(crm.run([B])) == {"rejected": 1}
    assert ends(crm.run([{**B, "name": "C"}])) == {"updated": 1}
    assert names(crm) == ["C"]


def test_only_what_failed_is_tried_again(crm: Pushing) -> None:
    rows = people(3)
    crm.box.faults.once["POST /v1/customers"] = ["refused"]
    crm.run(rows)
    rows = [{**row, "name": "new"} for row in rows]
    assert ends(crm.run(rows, only_failed=True)) == {"created": 1}


@pytest.mark.checklist("H3")
def test_a_key_that_may_not_write_stops_the_run(crm: Pushing) -> None:
    key = crm.box.restrict(permissions=["rak_customer_read"])
    crm.box.account.key = key
    result = crm.run(people(20))
    assert (ends(result)["not_sent"], result.exit_code) == (20, 3)
    assert "rak_customer_write" in str(result.error)


# -- empty values ----------------------------------------------------------------------------------


def test_null_never_unsets_unless_it_is_asked_for(crm: Pushing) -> None:
    crm.run([A])
    empty = {**A, "name": None}
    assert ends(crm.run([empty])) == {"unchanged": 1}
    assert names(crm) == ["A"]
    assert ends(crm.run([{**A, "name": " "}], changes={"nulls": "unset"})) == {"updated": 1}
    assert [one["name"] for one in crm.held()] == [None]
    assert ends(crm.run([empty], changes={"nulls": "error"})) == {"rejected": 1}


# -- deletes ---------------------------------------------------------------------------------------

DELETES = {"on_delete": "delete", "max_deletes": 5, "max_delete_share": 0.5}


@pytest.mark.checklist("H11a")
def test_a_row_that_is_gone_takes_its_object_along(crm: Pushing) -> None:
    crm.run(people(4), changes=DELETES)
    crm.writes()
    assert ends(crm.run(people(3), changes=DELETES)) == {"deleted": 1, "unchanged": 3}
    assert crm.writes() == ["DELETE /v1/customers/:id"]
    assert names(crm) == ["P 0", "P 1", "P 2"]
    assert ends(crm.run(people(3), changes=DELETES)) == {"unchanged": 3}
    assert ends(crm.run(people(4), changes=DELETES)) == {"created": 1, "unchanged": 3}


@pytest.mark.checklist("H10")
def test_a_row_that_is_gone_is_kept_unless_it_is_asked_for(crm: Pushing) -> None:
    crm.run(people(4))
    assert ends(crm.run(people(3))) == {"unchanged": 3}
    assert len(crm.held()) == 4


@pytest.mark.parametrize(
    ("changes", "left", "says"),
    [
        ({"max_deletes": 1}, 8, "max_deletes = 1"),
        ({"max_delete_share": 0.1}, 8, "max_delete_share = 0.1 of 10"),
        ({"max_delete_share": 0.01}, 9, "crm: 1 row is gone"),
        ({"max_deletes": 100}, 0, "max_delete_share = 0.5 of 10"),
    ],
)
def test_more_deletes_than_allowed_stop_the_run_before_it_sends_anything(
    crm: Pushing, changes: Row, left: int, says: str
) -> None:
    crm.run(people(10))
    crm.writes()
    rows = people(left, phone="1")
    with pytest.raises(UsageError, match=says):
        crm.run(rows, changes=DELETES | changes)
    assert says in crm.plan(rows, changes=DELETES | changes).refusal
    assert (crm.writes(), len(crm.held())) == ([], 10)


def test_rows_without_a_known_outcome_are_among_those_that_can_be_gone(crm: Pushing) -> None:
    crm.box.faults.always[CREATE] = 500
    crm.run(people(2), changes=DELETES)
    crm.box.faults.always.clear()
    result = crm.run([], changes=DELETES | {"max_delete_share": 1})
    assert (ends(result), crm.held()) == ({"deleted": 2}, [])


def test_a_full_resync_removes_nothing(crm: Pushing) -> None:
    crm.run(people(4), changes=DELETES)
    assert ends(crm.run(people(3), changes=DELETES, full_resync=True)) == {"unchanged": 3}
    assert len(crm.held()) == 4


def test_who_was_deleted_already_is_gone(crm: Pushing) -> None:
    crm.run(people(2), changes=DELETES)
    gone = next(one for one in crm.held() if one["name"] == "P 1")
    crm.box.delete("customers", gone["id"])
    assert ends(crm.run(people(1), changes=DELETES)) == {"skipped": 1, "unchanged": 1}
    assert ends(crm.run(people(1), changes=DELETES)) == {"unchanged": 1}


# -- whatever fails --------------------------------------------------------------------------------


def test_what_was_before_is_sent_again(crm: Pushing) -> None:
    """Within a day, Stripe would answer the third one with the outcome of the first."""
    for row in (A, B, A):
        assert crm.run([row]).exit_code == 0
    assert names(crm) == ["A"]
    assert len(crm.writes()) == 3


@pytest.mark.checklist("H23")
@pytest.mark.parametrize("fault", ["500_after", "reset", "truncate", "malformed", 500])
def test_a_request_without_an_answer_takes_effect_once(crm: Pushing, fault: Any) -> None:
    for row, place in ((A, CREATE), (B, UPDATE)):
        crm.box.faults.always[place] = fault
        first = crm.run([row])
        crm.box.faults.always.clear()
        assert first.counts()["rejected"] == 0
        assert first.counts()["unknown"] == (fault == 500)  # it was not done: nothing shows that
        assert crm.run([row]).exit_code == 0
        assert names(crm) == [row["name"]]
    assert ends(crm.run([B])) == {"unchanged": 1}


def test_an_unknown_outcome_is_settled_before_a_row_that_changed_is_sent(crm: Pushing) -> None:
    crm.box.faults.always[CREATE] = "reset"
    crm.box.faults.once["GET /v1/customers"] = [None, 400]  # nor can it be looked up afterwards
    assert ends(crm.run([A])) == {"unknown": 1}
    crm.box.faults.always.clear()
    assert ends(crm.run([B])) == {"updated": 1}
    assert names(crm) == ["B"]


@pytest.mark.parametrize("options", [{}, {"only_failed": True}, {"full_resync": True}], ids=str)
def test_a_row_that_is_gone_is_settled_though_its_object_stays(crm: Pushing, options: Any) -> None:
    crm.box.faults.always[CREATE] = "reset"
    crm.box.faults.once["GET /v1/customers"] = [None, 400]
    assert ends(crm.run([A])) == {"unknown": 1}
    crm.box.faults.always.clear()
    other = {"user_id": 2, "email": "b@example.com", "name": "B"}
    assert [one.action for one in crm.plan([other]).decisions] == ["create", "settle"]
    assert ends(crm.run([other], **options))["created"] == (1 if options.get("only_failed") else 2)
    assert "A" in names(crm)
    with crm.opened() as push:
        assert push.reset() > 0


@pytest.mark.parametrize("executed", [True, False])
def test_after_a_day_the_marker_tells_whether_it_was_done(crm: Pushing, executed: bool) -> None:
    crm.box.faults.always[CREATE] = "reset" if executed else 500
    with killed_at_doubt(crm):
        crm.run([A])
    crm.box.faults.always.clear()
    assert len(crm.held()) == executed
    crm.box.advance(REPEATABLE + 3_600 * 2)
    assert ends(crm.run([A])) == {"created": 1}
    assert names(crm) == ["A"]
    assert ends(crm.run([A])) == {"unchanged": 1}


def killed_at_doubt(crm: Pushing) -> Any:
    patch = pytest.MonkeyPatch()
    return killed_at(patch, PushLog, "mark_unknown", "before")


@pytest.mark.parametrize(
    ("place", "name", "when"),
    [
        (PushLog, "begin", "before"),
        (PushLog, "begin", "after"),
        (Api, "post", "after"),
        (PushLog, "mark_done", "before"),
        (PushLog, "mark_done", "after"),
    ],
)
def test_a_run_that_dies_at_any_point_goes_on(
    crm: Pushing, monkeypatch: pytest.MonkeyPatch, place: Any, name: str, when: str
) -> None:
    for rows in (people(3), people(3, name="x")):
        with killed_at(monkeypatch, place, name, when):
            crm.run(rows)
        assert crm.run(rows).exit_code == 0
        assert names(crm) == sorted(row["name"] for row in rows)
        crm.writes()
        assert ends(crm.run(rows)) == {"unchanged": 3}
        assert crm.writes() == []


CHILD = """
import os, signal, sys
from stripe_feed.write.push.definition import make_definition
from stripe_feed.write.push.log import PushLog
from stripe_feed.write.push.run import open_push

PushLog.mark_done = lambda *args: os.kill(os.getpid(), signal.SIGKILL)
push = make_definition("crm", {"object": "customers", "key": "user_id", "match": "email"})
with open_push(push, sys.argv[1], base=sys.argv[2]) as opened:
    opened.run([{"user_id": 1, "email": "a@example.com", "name": "A"}])
"""


def test_a_process_that_is_killed_between_the_call_and_its_record(crm: Pushing) -> None:
    child = subprocess.run([sys.executable, "-c", CHILD, crm.box.key, crm.url], check=False)
    assert child.returncode == -9
    assert names(crm) == ["A"]
    assert ends(crm.run([A], changes={"map": None})) == {"created": 1}
    assert names(crm) == ["A"]


def test_many_requests_without_an_answer_stop_the_run(crm: Pushing) -> None:
    crm.box.faults.always[CREATE] = 500
    result = crm.run(people(60))
    assert isinstance(result.error, TryLater)
    assert ends(result)["not_sent"] > 20
    crm.box.faults.always.clear()
    assert ends(crm.run(people(60))) == {"created": 60}
    assert len(crm.held()) == 60


def test_a_log_of_another_account_is_refused_before_anything_is_sent(crm: Pushing) -> None:
    crm.run([A])
    with (
        pushing(object="customers", key="user_id", match="email", map=MAP) as other,
        pytest.raises(WrongAccount),
    ):
        other.box.account.id = "acct_other"
        other.box.account.object["id"] = "acct_other"
        other.run([A])
    assert other.writes() == []


# -- the rest --------------------------------------------------------------------------------------


@pytest.mark.checklist("H19")
def test_a_full_resync_mends_what_somebody_changed(crm: Pushing) -> None:
    crm.run(people(3))
    crm.box.update("customers", crm.held()[0]["id"], name="changed by hand")
    assert ends(crm.run(people(3))) == {"unchanged": 3}
    crm.writes()
    assert ends(crm.run(people(3), full_resync=True)) == {"updated": 1, "unchanged": 2}
    assert crm.writes() == [UPDATE]
    assert names(crm) == ["P 0", "P 1", "P 2"]


@pytest.mark.checklist("H19")
def test_after_a_reset_rows_find_their_objects_again(crm: Pushing) -> None:
    crm.run(people(3))
    with crm.opened() as push:
        assert push.reset() == 3
    crm.writes()
    assert ends(crm.run(people(3))) == {"unchanged": 3}
    assert crm.writes() == []


def test_a_plan_writes_nothing_and_shows_what_a_run_does(crm: Pushing) -> None:
    crm.run(people(4), changes=DELETES)
    crm.box.create("subscriptions", customer=crm.held()[3]["id"], status="active")
    rows = people(3)
    rows[0]["name"] = "New"
    rows.append({"user_id": 9, "email": "nine@example.com", "name": "Nine"})
    rows.append({"user_id": 10, "email": "nobody", "name": "Ten"})
    crm.writes()
    plan = crm.plan(rows, changes=DELETES)
    assert crm.writes() == []
    assert {k: n for k, n in plan.counts().items() if n} == {
        "create": 1, "update": 1, "delete": 1, "unchanged": 2, "reject": 1,
    }  # fmt: skip
    by_key = {one.key: one for one in plan.decisions}
    assert [(c.field, c.before, c.after) for c in by_key["0"].changes] == [("name", "P 0", "New")]
    assert [c.field for c in by_key["9"].changes] == ["email", "name"]
    assert "no e-mail address" in by_key["10"].reason
    assert plan.writes == 3
    result = crm.run(rows, changes=DELETES)
    assert ends(result) == {"created": 1, "updated": 1, "deleted": 1, "unchanged": 2, "rejected": 1}
    assert len(crm.writes()) == plan.writes


def test_own_writes_are_recognized_in_the_feed(crm: Pushing) -> None:
    crm.run([A])
    (event,) = crm.box.events
    assert json.loads(event.body)["request"]["idempotency_key"].startswith("sf-")


# -- what is known in spite of an error ------------------------------------------------------------


def test_a_request_without_an_answer_stays_open_when_the_next_key_may_not_write(
    crm: Pushing,
) -> None:
    """Its outcome is not known by a refusal of its repetition: a new version would create a twin."""
    insert = {"mode": "insert", "match": None}
    key = crm.box.account.key
    crm.box.faults.always.update({CREATE: "reset", "GET /v1/customers": "reset"})
    assert ends(crm.run([A], changes=insert)) == {"unknown": 1}
    crm.box.faults.always.clear()
    crm.box.account.key = crm.box.restrict(permissions=["rak_customer_read"])
    result = crm.run([A], changes=insert)
    assert (ends(result), result.exit_code) == ({"unknown": 1}, 3)
    crm.box.account.key = key
    assert ends(crm.run([A], changes=insert)) == {"created": 1}
    assert names(crm) == ["A"]


@pytest.mark.parametrize(
    "bad",
    [
        {"name": "half \ud800"},
        {"user_id": "half \ud800"},
        {"email": ["a@example.com"]},
        {"email": {"a": 1}},
    ],
)
def test_a_row_that_no_request_can_hold_stops_no_other(crm: Pushing, bad: Row) -> None:
    good = {"user_id": 2, "email": "b@example.com", "name": "B"}
    for _ in range(2):
        assert ends(crm.run([A | bad, good]))["rejected"] == 1
        assert names(crm) == ["B"]
    assert ends(crm.run([A, good])) == {"created": 1, "unchanged": 1}


def test_a_key_is_the_same_when_a_table_makes_a_float_of_it(crm: Pushing) -> None:
    crm.run([A])
    assert ends(crm.run([{**A, "user_id": 1.0}])) == {"unchanged": 1}


@pytest.mark.checklist("N32")
def test_nothing_that_is_logged_holds_what_rows_hold(
    crm: Pushing, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    canary = {"user_id": 1, "email": "jane.canary@example.com", "name": "Canary O'Shea"}
    crm.box.faults.once[CREATE] = ["refused", "reset", 500, 500, 500]
    told = [str(reasons(crm.run([canary]))) for _ in range(3)]
    told.append(str(reasons(crm.run([{**canary, "email": "jane.canary"}]))))
    with crm.opened() as push:
        told += [str(one) for run in push.log.runs() for one in push.log.operations(run["run"])]
    assert len(told) > 5
    assert "canary" not in (caplog.text + "".join(told)).lower()


def test_an_answer_in_another_mode_stops_the_run(crm: Pushing) -> None:
    crm.box.account.livemode = True
    result = crm.run(people(60))
    assert "another mode" in str(result.error)
    assert len(crm.writes()) <= THREADS  # those that were under way


# -- rows that lose their key, or get another one --------------------------------------------------


def test_a_row_without_a_key_may_be_any_that_is_missing_so_nothing_is_deleted(
    crm: Pushing,
) -> None:
    crm.run(people(4), changes=DELETES)
    rows = people(4)
    rows[0]["user_id"] = None
    crm.writes()
    assert crm.plan(rows, changes=DELETES).counts()["delete"] == 0
    assert ends(crm.run(rows, changes=DELETES)) == {"rejected": 1, "unchanged": 3}
    assert (crm.writes(), len(crm.held())) == ([], 4)


@pytest.mark.parametrize("changes", [{}, DELETES])
def test_a_row_with_another_key_takes_over_the_object(crm: Pushing, changes: Row) -> None:
    crm.run(people(4), changes=changes)
    rows = people(4)
    rows[0] |= {"user_id": 99, "name": "new"}
    crm.writes()
    assert crm.plan(rows, changes=changes).counts()["delete"] == 0
    assert ends(crm.run(rows, changes=changes))["updated"] == 1
    assert crm.writes() == [UPDATE]
    assert names(crm) == ["P 1", "P 2", "P 3", "new"]
    assert ends(crm.run(rows, changes=changes)) == {"unchanged": 4}


def test_what_was_created_is_found_among_however_many(
    crm: Pushing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stripe_feed.write.lookup.find.MOST_READ", 1)
    crm.box.faults.always[CREATE] = "reset"
    assert ends(crm.run(people(3), changes={"mode": "insert", "match": None})) == {"created": 3}
    assert len(crm.held()) == 3


def test_the_marker_counts_among_the_keys_of_metadata(crm: Pushing) -> None:
    rows = [{**A, "more": {f"key{n}": "x" for n in range(count)}} for count in (50, 49)]
    changes = {"map": MAP | {"metadata": "more"}}
    assert "these would be 51" in reasons(crm.run(rows[:1], changes=changes))["1"]
    assert crm.writes() == []
    assert ends(crm.run(rows[1:], changes=changes)) == {"created": 1}
