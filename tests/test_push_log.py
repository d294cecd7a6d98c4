"""The log of a push: versions, keys, and what is there after a process died at any point."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from stripe_feed.errors import SetupError, WrongAccount
from stripe_feed.write.push.log import (
    ADDED_LATER,
    KEPT,
    MARKER,
    Operation,
    PushLog,
    PushStep,
    log_beside,
)

CREATE = PushStep("create", "post", "/v1/customers", {"email": "jane.canary@example.com"})
NEXT = PushStep("update", "post", "/v1/customers/{0}", {"default_source": "src_1"})


class Times:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def times() -> Times:
    return Times()


@pytest.fixture
def log(times: Times) -> Iterator[PushLog]:
    with opened(times) as found:
        yield found


def opened(times: Times, account: str = "acct_1", live: bool = False) -> PushLog:
    log = PushLog("push.sqlite", times)
    log.stamp(account, live)
    return log


def finish(log: PushLog, operation: Operation, object_id: str = "cus_1", last: bool = True) -> None:
    log.mark_done(operation, object_id, "req_1", last)


@pytest.mark.parametrize("database", ["", ".", "/", "md:copy"])
def test_a_log_is_beside_no_file_that_cannot_be(database: str) -> None:
    with pytest.raises(SetupError, match="--database"):
        log_beside(database)


def test_an_intent_is_there_before_it_is_sent(log: PushLog, times: Times) -> None:
    log.begin("crm", "1", "A", [CREATE, NEXT])

    first, second = opened(times).open_steps("crm", "1")  # as after a kill
    assert (first.state, first.first_sent_at, second.state) == ("sent", times.now, "planned")
    assert first.params == {**CREATE.params, "metadata": {MARKER: first.idempotency_key}}
    assert log.rows("crm")["1"].state == "open"


def test_a_version_ends_with_its_last_step(log: PushLog) -> None:
    first, second = log.begin("crm", "1", "A", [CREATE, NEXT])
    finish(log, first, last=False)
    row = log.rows("crm")["1"]
    assert (row.state, row.object_id, row.sent_content) == ("open", "cus_1", None)
    finish(log, second)
    row = log.rows("crm")["1"]
    assert (row.state, row.sent_content) == ("done", "A")
    assert log.open_steps("crm", "1") == []


def test_no_two_requests_share_a_key(times: Times) -> None:
    keys = []
    for account, live in (("acct_1", False), ("acct_1", True), ("acct_2", False)):
        Path("push.sqlite").unlink(missing_ok=True)
        with opened(times, account, live) as log:
            for push in ("crm", "erp"):
                for content in ("A", "B", "A"):
                    steps = log.begin(push, "1", content, [CREATE, NEXT])
                    keys += [step.idempotency_key for step in steps]
                    for n, step in enumerate(steps):
                        finish(log, step, last=n == 1)

    assert len(keys) == len(set(keys)) == 36
    assert all(key.startswith("sf-") and "canary" not in key for key in keys)


def test_a_version_after_a_refusal_has_another_key(log: PushLog) -> None:
    (first, _) = log.begin("crm", "1", "A", [CREATE, NEXT])
    log.mark_rejected(first, "Stripe refuses it.", "req_1")
    assert (log.rows("crm")["1"].state, log.open_steps("crm", "1")) == ("rejected", [])
    (again,) = log.begin("crm", "1", "A", [CREATE])
    assert again.idempotency_key != first.idempotency_key


def test_an_open_version_is_never_replaced(log: PushLog) -> None:
    (operation,) = log.begin("crm", "1", "A", [CREATE])
    log.mark_unknown(operation, "no whole answer came", None)
    with pytest.raises(ValueError, match="no definite outcome"):
        log.begin("crm", "1", "B", [CREATE])
    with pytest.raises(SetupError, match="not known yet"):
        log.reset("crm")
    (same,) = log.open_steps("crm", "1")
    assert (same.params, same.idempotency_key, same.state) == (
        operation.params, operation.idempotency_key, "unknown",
    )  # fmt: skip


def test_the_first_time_of_sending_stays(log: PushLog, times: Times) -> None:
    (operation,) = log.begin("crm", "1", "A", [CREATE])
    times.now += 60
    log.mark_sent(operation)
    (again,) = log.open_steps("crm", "1")
    assert (again.first_sent_at, again.last_sent_at) == (times.now - 60, times.now)


def test_parameters_do_not_outlive_their_outcome(log: PushLog) -> None:
    for key, end in (("1", finish), ("2", lambda *a: log.mark_rejected(a[1], "no", None))):
        (operation,) = log.begin("crm", key, "A", [CREATE])
        end(log, operation)
    log.close()

    assert b"canary" not in b"".join(path.read_bytes() for path in Path().glob("push.sqlite*"))


def test_only_the_owner_reads_the_file(log: PushLog) -> None:
    log.begin("crm", "1", "A", [CREATE])
    assert {path.stat().st_mode & 0o777 for path in Path().glob("push.sqlite*")} == {0o600}


@pytest.mark.parametrize(("account", "live"), [("acct_2", False), ("acct_1", True)])
def test_another_account_or_mode_is_refused(
    log: PushLog, times: Times, account: str, live: bool
) -> None:
    with pytest.raises(WrongAccount, match=r"acct_1 \(test mode\)"):
        opened(times, account, live)


def test_a_reset_forgets_objects_but_not_versions(log: PushLog) -> None:
    (operation,) = log.begin("crm", "1", "A", [CREATE])
    finish(log, operation)
    assert log.reset("crm") == 1
    row = log.rows("crm")["1"]
    assert (row.state, row.object_id, row.sent_content, row.version) == ("forgotten", None, None, 1)
    assert log.begin("crm", "1", "A", [CREATE])[0].version == 2


def test_what_takes_the_place_of_an_object_is_remembered_until_it_is_archived(log: PushLog) -> None:
    price = PushStep("create", "post", "/v1/prices", {"currency": "usd"})
    archive = PushStep("archive", "post", "/v1/prices/price_1", {"active": False})
    (operation,) = log.begin("prices", "1", "A", [price])
    finish(log, operation, "price_1")
    create, archived = log.begin("prices", "1", "B", [price, archive])
    finish(log, create, "price_2", last=False)
    assert (log.rows("prices")["1"].object_id, log.rows("prices")["1"].replaced) == (
        "price_2", ("price_1",),
    )  # fmt: skip
    finish(log, archived, "price_1")
    row = log.rows("prices")["1"]
    assert (row.object_id, row.replaced, row.sent_content) == ("price_2", (), "B")


@pytest.mark.checklist("H16")
def test_a_run_shows_its_requests_for_a_week(log: PushLog, times: Times) -> None:
    run = log.begin_run("crm")
    (operation,) = log.begin("crm", "1", "A", [CREATE])
    finish(log, operation)
    (waiting,) = log.begin("crm", "2", "A", [CREATE])
    log.mark_unknown(waiting, "no whole answer came", None)
    log.end_run({"created": 1})

    assert [one.state for one in log.operations(run)] == ["done", "unknown"]
    assert log.runs("crm")[0]["counts"] == {"created": 1}
    assert log.runs("erp") == []
    times.now += KEPT + 1
    log.begin_run("crm")
    assert [one.row_key for one in log.operations(run)] == ["2"]
    assert log.rows("crm")["1"].sent_content == "A"


def test_the_number_of_a_run_never_comes_again(log: PushLog, times: Times) -> None:
    first = log.begin_run("crm")
    log.end_run({})
    times.now += KEPT + 1
    assert log.begin_run("crm") == first + 1
    assert [run["run"] for run in log.runs()] == [first + 1, first]


def test_a_file_of_the_first_format_gets_what_it_lacks(times: Times) -> None:
    with opened(times) as log:
        log.begin_run("crm")
        finish(log, log.begin("crm", "1", "A", [CREATE])[0])
        log.end_run({"created": 1})
    with sqlite3.connect("push.sqlite") as db:
        db.execute("drop table failed")
        db.execute("delete from meta where name = 'log_id'")
        for table, column, _ in ADDED_LATER:
            db.execute(f"alter table {table} drop column {column}")
        db.execute("pragma user_version = 1")
    with opened(times) as log:
        assert (log.runs()[0]["counts"], log.failed(1)) == ({"created": 1}, [])
        assert log.rows("crm")["1"].object_id == "cus_1"
        log.begin_run("crm", is_retry=True)
        assert (len(log.log_id), log.runs()[0]["is_retry"]) == (12, 1)


def test_a_number_is_kept_as_its_digits(log: PushLog) -> None:
    (operation,) = log.begin(
        "c", "1", "A", [PushStep("create", "post", "/v1/coupons", {"p": Decimal("12.50")})]
    )
    assert operation.params["p"] == "12.50"


@pytest.mark.parametrize("content", [b"no database at all, but text " * 50, b""])
def test_a_file_of_another_kind_is_reported(times: Times, content: bytes) -> None:
    path = Path("other.sqlite")
    path.write_bytes(content)
    if not content:
        with sqlite3.connect(path) as db:
            db.execute("pragma user_version = 99")
    with pytest.raises(SetupError, match=r"Choose another --log|newer stripe-feed"):
        PushLog(path, times)


def test_what_an_object_is_already_needs_no_request(log: PushLog) -> None:
    log.adopt("crm", "1", "A", "cus_9")
    row: Any = log.row("crm", "1")
    assert (row.object_id, row.sent_content, row.version) == ("cus_9", "A", 0)
    log.reject("crm", "1", "email is no e-mail address.")
    row = log.row("crm", "1")
    assert (row.state, row.object_id, row.sent_content) == ("rejected", "cus_9", "A")
