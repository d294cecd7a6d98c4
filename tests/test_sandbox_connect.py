"""Connected accounts: `Stripe-Account`, revoked access, and the events on a platform's webhooks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from stripe_feed.sandbox import Sandbox
from stripe_feed.sandbox.protocol.messages import Request
from tests.receiver import receiving


def ask(box: Sandbox, target: str, account: str = "", key: str = "") -> tuple[int, Any]:
    headers = {"authorization": f"Bearer {key or box.key}"} | ({"stripe-account": account} if account else {})  # fmt: skip
    answer = box.answer(Request("GET", target, headers, b""))
    return answer.status, json.loads(answer.body)


def listed(box: Sandbox, target: str, account: str = "") -> set[str]:
    status, page = ask(box, f"{target}?limit=100", account)
    assert status == 200, page
    return {content["id"] for content in page["data"]}


@pytest.fixture
def platform() -> Sandbox:
    return Sandbox(customers=4, oddities=False)


def test_each_account_has_its_own_objects_and_events(platform: Sandbox) -> None:
    """The platform's key reaches them all; without the header it reaches its own."""
    one, other = platform.connect(), platform.connect(customers=3)
    made = other.create("customers", name="Theirs")

    assert listed(platform, "/v1/customers") == set(platform.objects("customers"))
    assert listed(platform, "/v1/customers", one.account_id) == set(one.objects("customers"))
    assert listed(platform, "/v1/customers", other.account_id) == set(other.objects("customers"))
    assert len(other.objects("customers")) == 4
    assert listed(platform, "/v1/customers", platform.account_id) == set(platform.objects("customers"))  # fmt: skip
    (event,) = ask(platform, "/v1/events", other.account_id)[1]["data"]
    assert event["data"]["object"] == made
    assert ask(platform, "/v1/events", one.account_id)[1]["data"] == []
    assert ask(platform, "/v1/events")[1]["data"] == []
    assert ask(platform, "/v1/account", one.account_id)[1]["id"] == one.account_id
    status, answer = ask(platform, f"/v1/customers/{made['id']}")
    assert (status, answer["error"]["code"]) == (404, "resource_missing")


def test_the_platform_lists_its_accounts(platform: Sandbox) -> None:
    made = [platform.connect() for _ in range(3)]

    assert listed(platform, "/v1/accounts") == {child.account_id for child in made}
    status, account = ask(platform, f"/v1/accounts/{made[0].account_id}")
    assert (status, account["object"], account["country"]) == (200, "account", "DE")
    own = ask(platform, f"/v1/accounts/{platform.account_id}")
    assert own == ask(platform, "/v1/account")
    person = platform.create("persons", account=made[0].account_id)
    assert listed(platform, f"/v1/accounts/{made[0].account_id}/persons") == {person["id"]}


def test_a_revoked_or_unknown_account_is_refused(platform: Sandbox) -> None:
    gone, stays = platform.connect(), platform.connect()
    platform.revoke(gone.account_id)

    for account in (gone.account_id, "acct_unknown"):
        for answer in (ask(platform, "/v1/customers", account), ask(platform, f"/v1/accounts/{account}")):  # fmt: skip
            assert (answer[0], answer[1]["error"]["code"]) == (403, "account_invalid")
            assert f"does not have access to account '{account}'" in answer[1]["error"]["message"]
        assert ask(platform, f"/v1/accounts/{account}/persons")[0] == 403
    assert listed(platform, "/v1/accounts") == {stays.account_id}
    assert ask(platform, "/v1/customers", stays.account_id)[0] == 200


def test_a_restricted_key_needs_connect_permissions(platform: Sandbox) -> None:
    child = platform.connect().account_id
    plain = platform.restrict(permissions={"rak_customer_read"})
    connect = platform.restrict(permissions={"rak_customer_read", "rak_connected_account_read"})

    status, answer = ask(platform, "/v1/customers", child, plain)
    assert (status, "does not have any Connect permissions" in answer["error"]["message"]) == (403, True)  # fmt: skip
    assert ask(platform, "/v1/customers", child, connect)[0] == 200
    status, answer = ask(platform, "/v1/invoices", child, connect)
    assert (status, "rak_invoice_read" in answer["error"]["message"]) == (403, True)


def test_the_accounts_share_a_clock_and_the_limits(platform: Sandbox) -> None:
    child = platform.connect()
    platform.advance(100)
    child.live(50, 3)

    assert child.now == platform.now == platform.account.now
    platform.faults.clock = lambda: 0.0
    platform.faults.rate = 2
    statuses = [
        ask(platform, "/v1/customers", account)[0] for account in ("", child.account_id, "")
    ]
    assert statuses == [200, 200, 429]


def test_faults_of_one_account_stop_no_other(platform: Sandbox) -> None:
    bad, good = platform.connect(), platform.connect()
    bad.faults.always = {"/v1/customers": 500}

    assert ask(platform, "/v1/customers", bad.account_id)[0] == 500
    assert ask(platform, "/v1/customers", good.account_id)[0] == 200
    assert ask(platform, "/v1/customers")[0] == 200
    assert [request.status for request in bad.log] == [500]
    assert sum(platform.counts.values()) == 3


def test_a_connect_webhook_names_the_account(platform: Sandbox) -> None:
    """It gets the events of connected accounts only; the platform's own endpoint only its own."""
    child = platform.connect()
    with receiving() as theirs, receiving() as own:
        platform.webhook_endpoint(theirs.url, connect="true")
        platform.webhook_endpoint(own.url)
        platform.create("customers", name="Ours")
        child.create("customers", name="Theirs")
        platform.revoke(child.account_id)
        platform.drain_webhooks()
        connected, direct = ([json.loads(one.body) for one in at.received] for at in (theirs, own))  # fmt: skip

    assert sorted((one["type"], one["account"]) for one in connected) == [
        ("account.application.deauthorized", child.account_id),
        ("customer.created", child.account_id),
    ]
    assert [(one["type"], one["data"]["object"]["name"]) for one in direct] == [("customer.created", "Ours")]  # fmt: skip
    assert "account" not in direct[0]


def control(box: Sandbox, method: str, path: str, **arguments: Any) -> Any:
    body = json.dumps(arguments).encode()
    answer = box.answer(Request(method, f"/_sandbox/{path}", {}, body))
    assert answer.status == 200, answer.body
    return json.loads(answer.body)


def test_accounts_are_connected_and_changed_over_http(platform: Sandbox) -> None:
    made = control(platform, "POST", "connect", customers=2)
    customer = control(platform, "POST", "create", account=made["id"], table="customers")

    truth = control(platform, "GET", f"truth/customers?account={made['id']}")
    assert truth[customer["id"]] == customer and len(truth) == 3
    control(platform, "POST", "revoke", id=made["id"])
    assert ask(platform, "/v1/customers", made["id"])[0] == 403
    refused = platform.answer(Request("POST", "/_sandbox/create", {}, b'{"account":"acct_x"}'))
    assert refused.status == 400
