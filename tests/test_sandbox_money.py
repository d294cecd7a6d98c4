"""The money of the sandbox adds up, and its activity reaches every group."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from stripe_feed.sandbox import Sandbox
from stripe_feed.sandbox.__main__ import main
from stripe_feed.sandbox.money import charges, settlement
from stripe_feed.sandbox.protocol.messages import Request
from stripe_feed.sandbox.scenarios import plain_activity
from stripe_feed.sandbox.scenarios.plain_activity import kinds_of
from stripe_feed.sandbox.state.kinds import GROUPS, KINDS, OWNED

DAY = 86_400


def get(box: Sandbox, target: str) -> tuple[int, Any]:
    answer = box.answer(Request("GET", target, {"authorization": f"Bearer {box.key}"}, b""))
    return answer.status, json.loads(answer.body)


def inside(box: Sandbox, payout: str) -> list[dict[str, Any]]:
    """The balance transactions of a payout, as the API lists them."""
    found: list[dict[str, Any]] = []
    while True:
        after = f"&starting_after={found[-1]['id']}" if found else ""
        _, page = get(box, f"/v1/balance_transactions?limit=100&payout={payout}{after}")
        found += page["data"]
        if not page["has_more"]:
            return found


@pytest.fixture(scope="module", params=(1, 2, 3), ids="seed{}".format)
def busy(request: pytest.FixtureRequest) -> Sandbox:
    """An account with a few weeks of payments."""
    box = Sandbox(seed=request.param, customers=30, oddities=False, groups=("payments",))
    box.live(20 * DAY, 300)
    return box


def test_a_payout_is_the_sum_of_what_it_takes(busy: Sandbox) -> None:
    """To the cent, with fees, refunds, disputes, transfers, top-ups and failed payouts."""
    kinds: set[str] = set()
    for payout in busy.objects("payouts").values():
        taken = inside(busy, payout["id"])
        kinds |= {one["type"] for one in taken}
        assert sum(one["net"] for one in taken if one["type"] != "payout") == payout["amount"] > 0
        assert sum(one["net"] for one in taken) == 0
        assert {one["currency"] for one in taken} == {payout["currency"]}
        assert all(one["available_on"] <= payout["created"] for one in taken if one["type"] != "payout")  # fmt: skip
    assert kinds >= {"charge", "refund", "adjustment", "payout", "transfer", "stripe_fee"}


def test_no_balance_transaction_is_paid_out_twice(busy: Sandbox) -> None:
    times = Counter(one["id"] for payout in busy.objects("payouts") for one in inside(busy, payout))
    assert set(times.values()) == {1}
    left = set(busy.objects("balance_transactions")) - set(times)
    now = busy.now
    assert all(busy.objects("balance_transactions")[id]["available_on"] > now - DAY * 40 for id in left)  # fmt: skip


def test_the_balance_is_what_its_sources_did_to_it(busy: Sandbox) -> None:
    """Each source names its balance transactions, and each amount is that of its source."""
    movements = busy.objects("balance_transactions")
    for one in movements.values():
        assert one["net"] == one["amount"] - one["fee"]
        assert one["fee"] == sum(detail["amount"] for detail in one["fee_details"])
    for charge in busy.objects("charges").values():
        if charge["status"] == "succeeded":
            own = movements[charge["balance_transaction"]]
            assert (own["source"], own["amount"], own["type"]) == (charge["id"], charge["amount"], "charge")  # fmt: skip
            assert own["fee"] == charges.processing_fee(charge["amount"])
        refunds = [one for one in busy.objects("refunds").values() if one["charge"] == charge["id"]]
        assert charge["amount_refunded"] == sum(one["amount"] for one in refunds)
        assert charge["refunded"] == (charge["amount_refunded"] == charge["amount"])
        _, shown = get(busy, f"/v1/charges/{charge['id']}?expand[]=refunds")
        assert {one["id"] for one in shown["refunds"]["data"]} <= {one["id"] for one in refunds}
        assert shown["refunds"]["has_more"] == (len(refunds) > 10)
    for dispute in busy.objects("disputes").values():
        amounts = [movement["amount"] for movement in dispute["balance_transactions"]]
        reversed = [dispute["amount"]] if dispute["status"] == "won" else []
        assert amounts == [-dispute["amount"], *reversed]


def test_what_becomes_available_has_no_event(busy: Sandbox) -> None:
    """But a payout has those of its way to the bank."""
    assert not [event for event in busy.events if event.table == "balance_transactions"]
    by_payout = {
        payout: [event.type for event in busy.events if event.object_id == payout]
        for payout in busy.objects("payouts")
    }
    whole = ["payout.created", "payout.updated", "payout.paid", "payout.reconciliation_completed"]
    assert whole in by_payout.values()


def test_a_payment_has_the_events_of_stripe() -> None:
    box = Sandbox(customers=2, oddities=False)
    customer = next(iter(box.objects("customers")))
    charged = charges.charge_customer(box.account, 1000, "usd", customer)
    charges.decline(box.account, 1000, "usd", customer)
    charges.refund(box.account, charged["id"], 400)
    disputed = charges.dispute(box.account, charged["id"])
    charges.close_dispute(box.account, disputed["id"], won=True)

    assert [event.type for event in box.events] == [
        "payment_intent.created", "charge.succeeded", "payment_intent.succeeded",
        "payment_intent.created", "charge.failed", "payment_intent.payment_failed",
        "refund.created", "charge.refunded",
        "charge.dispute.created", "charge.dispute.funds_withdrawn", "charge.updated",
        "charge.dispute.updated", "charge.dispute.closed", "charge.dispute.funds_reinstated",
    ]  # fmt: skip
    _, held = get(box, f"/v1/balance_transactions?source={charged['id']}")
    assert [(one["amount"], one["fee"], one["net"]) for one in held["data"]] == [(1000, 59, 941)]
    box.advance(3 * DAY)
    assert settlement.pay_out(box.account) == []  # the refund and the fees took all of it


def test_the_activity_reaches_every_kind() -> None:
    """It creates, changes with and without events, deletes, and creates again under an old id."""
    box, kinds = Sandbox(customers=5, oddities=False), kinds_of(GROUPS)
    only_by_others = {("created", "payouts")} | {
        ("updated", table) for table in ("payouts", "active_entitlements", "product_features")
    }
    for kind in kinds:
        due = {("created", kind.name)}
        due |= {("updated", kind.name)} if not kind.immutable else set()
        due |= {("deleted", kind.name)} if kind.deletable else set()
        for number in range(200):
            if number >= 25 and {(one.operation, one.table) for one in box.history} >= (
                due - only_by_others
            ):
                break
            plain_activity.act(box.account, [kind])
        else:
            pytest.fail(f"{kind.name}: 200 steps do not do all of {due}")

    assert {kind.name for kind in kinds} == {
        one.name for one in KINDS.values() if one.group != "core"
    }
    gone = {one.id for one in box.history if one.operation == "deleted" and one.table == "coupons"}
    again = {one.id for one in box.history if one.operation == "created" and one.table == "coupons"}
    assert gone & again
    silent = {one.table for one in box.history if one.operation == "updated" and not one.events}
    assert silent >= {"payment_intents", "setup_intents", "invoice_payments", "file_links"}


def test_an_account_with_groups_lives_in_all_of_them() -> None:
    box = Sandbox(customers=20, oddities=False, groups=("usage", "connect"))
    acted = {table for _, table, _ in box.live(DAY, 200)}
    assert acted >= {"meters", "credit_grants", "persons", "capabilities", "customers", "invoices"}
    assert box.objects("features") and not box.objects("charges")


def test_groups_change_nothing_else() -> None:
    """The same customers, invoices and so on; and the same again from the same seed."""
    plain, more = Sandbox(seed=3, customers=12), Sandbox(seed=3, customers=12, groups=("usage",))
    core = ("products", "prices", "plans", "invoices", "subscriptions")
    assert [more.objects(table) for table in core] == [plain.objects(table) for table in core]
    assert more.objects("customers").items() >= plain.objects("customers").items()
    assert len(more.objects("meters")) >= 1 and not plain.objects("meters")
    twin = Sandbox(seed=3, customers=12, groups=("usage",))
    assert more.live(DAY, 50) == twin.live(DAY, 50)
    assert more.now == plain.now + DAY


def test_what_belongs_to_a_deleted_customer_goes_with_it() -> None:
    box = Sandbox(customers=2, oddities=False)
    customer = box.create("customers")["id"]
    tax_id = box.create("tax_ids", customer=customer)["id"]
    method = box.create("payment_methods", customer=customer)["id"]
    box.delete("customers", customer)

    assert get(box, f"/v1/customers/{customer}/tax_ids")[0] == 404
    assert tax_id in box.deleted("tax_ids")
    assert get(box, f"/v1/payment_methods/{method}")[1]["customer"] is None
    assert [event.type for event in box.events[-2:]] == [
        "customer.deleted",
        "payment_method.detached",
    ]


def test_an_unknown_group_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="no such group: dreams"):
        Sandbox(customers=1, groups=("dreams",))
    with pytest.raises(SystemExit):
        main(["--groups", "dreams"])
    assert "there is no group 'dreams'" in capsys.readouterr().err


def test_without_silent_changes_each_change_has_an_event() -> None:
    """Only what time makes available stays silent."""
    box = Sandbox(customers=8, oddities=False, groups=GROUPS)
    box.silent_changes = False
    box.live(5 * DAY, 500)

    silent = {
        (one.operation, one.table)
        for one in box.history
        if not one.events and one.operation in ("updated", "deleted")
    }
    below = {kind.name for kinds in OWNED.values() for kind in kinds}
    assert silent - {("deleted", table) for table in below} <= {("updated", "balance_transactions")}
