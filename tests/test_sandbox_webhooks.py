"""The sandbox's webhook endpoints and what it sends to them, as Stripe does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import stripe
import urllib3

from stripe_feed.sandbox import Sandbox
from stripe_feed.sandbox.protocol.event_types import TYPES
from stripe_feed.sandbox.protocol.messages import Request
from stripe_feed.sandbox.webhooks import post
from stripe_feed.sandbox.webhooks import sender as webhooks_sender
from tests.receiver import (
    CUT,
    ENDLESS,
    ERROR,
    GARBAGE,
    HANG,
    OK,
    RESET,
    THROTTLED,
    TRICKLE_HEAD,
    Behaviour,
    Received,
    Receiver,
    receiving,
    redirect,
)

CERTIFICATE = Path(__file__).with_name("loopback.pem")
HOOKS = "/v1/webhook_endpoints"
LOCAL = "http://127.0.0.1:9/hook"
Object = dict[str, Any]


@pytest.fixture
def box() -> Sandbox:
    return Sandbox(seed=5, customers=20, oddities=False)


def ask(
    box: Sandbox, method: str, path: str, form: Any = (), key: str = "", **headers: str
) -> tuple[int, Any]:
    body = urlencode(form).encode()
    sent = {"authorization": f"Bearer {key or box.key}"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    answer = box.answer(Request(method, path, sent, body))
    assert box.account.failures == []
    return answer.status, json.loads(answer.body)


def form(url: str = LOCAL, *types: str, **more: str) -> list[tuple[str, str]]:
    return [("url", url), *(("enabled_events[]", type) for type in types or ("*",)), *more.items()]


def bodies(receiver: Receiver) -> list[Object]:
    return [json.loads(one.body) for one in receiver.received]


def ids(receiver: Receiver) -> list[str]:
    return [event["id"] for event in bodies(receiver)]


def recorded(box: Sandbox) -> list[str]:
    return [event.id for event in box.events]


def verified(one: Received, secret: str) -> stripe.Event:
    event = stripe.Webhook.construct_event(one.body, one.headers["stripe-signature"], secret)
    assert isinstance(event, stripe.Event)
    return event


# Endpoints


def test_the_types_are_those_of_the_sdk() -> None:
    from stripe.params import WebhookEndpointCreateParams

    assert len(TYPES) == len(set(TYPES)) == 275
    text = str(WebhookEndpointCreateParams.__annotations__["enabled_events"])
    assert [type for type in TYPES if f"'{type}'" not in text and f'"{type}"' not in text] == []


def test_an_endpoint_lives_and_ends_over_the_sdk(box: Sandbox) -> None:
    with box.serve() as url:
        hooks = stripe.StripeClient(box.key, base_addresses={"api": url}).v1.webhook_endpoints
        made = hooks.create({
            "url": LOCAL, "enabled_events": ["customer.created", "invoice.paid"], "description": "ours", "connect": False,
            "metadata": {"a": "1", "b": "2"}, "api_version": "2025-03-31.basil", "expand": ["nothing"],
        })  # fmt: skip
        found = made.to_dict(for_json=True)
        assert set(found) == set(stripe.WebhookEndpoint.__annotations__) - {
            "OBJECT_NAME",
            "deleted",
        }
        secret = found.pop("secret")
        assert (made.id[:3], secret[:6], len(secret)) == ("we_", "whsec_", 38)
        assert found | {"id": ""} == {
            "id": "", "object": "webhook_endpoint", "api_version": "2025-03-31.basil", "application": None, "created": box.now,
            "description": "ours", "enabled_events": ["customer.created", "invoice.paid"], "livemode": False,
            "metadata": {"a": "1", "b": "2"}, "status": "enabled", "url": LOCAL,
        }  # fmt: skip
        assert hooks.retrieve(made.id).to_dict(for_json=True) == found

        second = hooks.create({"url": "http://localhost:9", "enabled_events": ["*"]})
        assert (second.api_version, second.description, second.metadata.to_dict()) == (
            None,
            None,
            {},
        )
        assert [one.id for one in hooks.list({"limit": 1}).auto_paging_iter()] == [
            second.id,
            made.id,
        ]

        changed = hooks.update(made.id, {
            "url": LOCAL + "2", "enabled_events": ["*"], "disabled": True, "metadata": {"b": "", "c": "3"}, "description": "",
        }).to_dict(for_json=True)  # fmt: skip
        assert changed == found | {
            "url": LOCAL + "2", "enabled_events": ["*"], "status": "disabled", "metadata": {"a": "1", "c": "3"}, "description": None,
        }  # fmt: skip
        assert hooks.update(made.id, {"disabled": False, "metadata": ""}).to_dict(for_json=True) == changed | {
            "status": "enabled", "metadata": {}
        }  # fmt: skip
        assert hooks.delete(made.id).to_dict(for_json=True) == {
            "id": made.id,
            "object": "webhook_endpoint",
            "deleted": True,
        }
        with pytest.raises(
            stripe.InvalidRequestError, match=f"No such webhook endpoint: '{made.id}'"
        ) as refused:
            hooks.retrieve(made.id)
        assert (refused.value.http_status, refused.value.code) == (404, "resource_missing")


@pytest.mark.parametrize(
    ("given", "said", "param"),
    [
        ([], "Missing required param: url.", "url"),
        ([("url", LOCAL)], "Missing required param: enabled_events.", "enabled_events"),
        ([("url", LOCAL), ("enabled_events", "*")], "Invalid array", "enabled_events"),
        (
            form(LOCAL, "*", "customer.invented"),
            "Invalid enabled_events[1]: must be one of account.app",
            "enabled_events[1]",
        ),
        (form("nonsense"), "Invalid URL: nonsense", "url"),
        (form("http://127.0.0.1:x/"), "Invalid URL: ", "url"),
        (form("http://127.0.0.1/a b"), "Invalid URL: ", "url"),
        (
            form("https://example.com/hook"),
            "Invalid URL: https://example.com/hook. The sandbox sends",
            "url",
        ),
        (form("http://127.0.0.1.example.com/"), "Invalid URL: ", "url"),
        (form("http://user@192.0.2.1/"), "Invalid URL: ", "url"),
        (form(api_version="yesterday"), "Invalid API version: ", "api_version"),
        (form(metadata="x"), "Invalid object", "metadata"),
        (form(connect="maybe"), "Invalid boolean: maybe", "connect"),
        (form(disabled="true"), "Received unknown parameter: disabled", "disabled"),
        (form(invented="1"), "Received unknown parameter: invented", "invented"),
    ],
)
def test_bad_parameters_are_refused(box: Sandbox, given: Any, said: str, param: str) -> None:
    status, answer = ask(box, "POST", HOOKS, given)

    assert (status, answer["error"]["type"], answer["error"]["param"]) == (
        400,
        "invalid_request_error",
        param,
    )
    assert answer["error"]["message"].startswith(said)
    assert ask(box, "GET", HOOKS)[1]["data"] == []


def test_the_version_of_an_endpoint_does_not_change(box: Sandbox) -> None:
    id = box.webhook_endpoint(LOCAL)["id"]
    assert (
        ask(box, "POST", f"{HOOKS}/{id}", [("api_version", "2025-03-31.basil")])[1]["error"]["code"]
        == "parameter_unknown"
    )


def test_other_writes_are_unknown(box: Sandbox) -> None:
    for method, path in (
        ("POST", "/v1/charges"),
        ("DELETE", HOOKS),
        ("DELETE", "/v1/events/evt_1"),
    ):
        status, answer = ask(box, method, path)
        assert (status, answer["error"]["message"][:40]) == (
            404,
            f"Unrecognized request URL ({method}: {path}"[:40],
        )


def test_live_mode_wants_https() -> None:
    box = Sandbox(seed=5, customers=1, oddities=False, livemode=True)
    assert "URLs in livemode must begin" in ask(box, "POST", HOOKS, form())[1]["error"]["message"]
    assert ask(box, "POST", HOOKS, form("https://127.0.0.1:9/hook"))[1]["livemode"] is True


def test_sixteen_endpoints_are_the_most(box: Sandbox) -> None:
    for _ in range(16):
        assert ask(box, "POST", HOOKS, form())[0] == 200
    status, answer = ask(box, "POST", HOOKS, form())
    assert (status, answer["error"]["message"]) == (
        400,
        "You have reached the maximum of 16 test webhook endpoints.",
    )


def test_permissions(box: Sandbox) -> None:
    def may(key: str) -> list[int]:
        return [ask(box, method, path, given, key=key)[0] for method, path, given in (
            ("GET", HOOKS, ()), ("GET", f"{HOOKS}/{id}", ()), ("POST", f"{HOOKS}/{id}", ()), ("POST", HOOKS, form()),
            ("DELETE", f"{HOOKS}/{id}", ()),
        )]  # fmt: skip

    id = box.webhook_endpoint(LOCAL)["id"]
    assert may(box.restrict(permissions=["rak_customer_read"])) == [403] * 5
    assert may(box.restrict(permissions=["rak_webhook_read"])) == [200, 200, 403, 403, 403]
    assert may(box.restrict(permissions=["rak_webhook_write"])) == [200] * 5
    assert (
        "'rak_webhook_write' permission"
        in ask(box, "POST", HOOKS, form(), key=box.restrict())[1]["error"]["message"]
    )


def test_an_idempotency_key_gives_the_same_answer_for_a_day(box: Sandbox) -> None:
    first = ask(box, "POST", HOOKS, form(), idempotency_key="k")
    again = box.answer(
        Request(
            "POST",
            HOOKS,
            {"authorization": f"Bearer {box.key}", "idempotency-key": "k"},
            urlencode(form()).encode(),
        )
    )
    assert (again.status, json.loads(again.body), again.headers["Idempotent-Replayed"]) == (
        *first,
        "true",
    )
    assert len(ask(box, "GET", HOOKS)[1]["data"]) == 1

    for path, given, said in (
        (HOOKS, form(LOCAL + "2"), "with the same parameters"), (f"{HOOKS}/{first[1]['id']}", form(), "for the same endpoint"),
    ):  # fmt: skip
        status, answer = ask(box, "POST", path, given, idempotency_key="k")
        assert (status, answer["error"]["type"]) == (400, "idempotency_error")
        assert said in answer["error"]["message"]
    assert ask(box, "POST", HOOKS, form("nonsense"), idempotency_key="k2")[0] == 400
    assert (
        ask(box, "POST", HOOKS, form(), idempotency_key="k2")[0] == 200
    )  # what was refused is not kept
    box.advance(86_401)
    assert ask(box, "POST", HOOKS, form(), idempotency_key="k")[1]["id"] != first[1]["id"]


def test_an_answer_that_is_lost_is_asked_for_again_with_its_key(box: Sandbox) -> None:
    with box.serve() as url, urllib3.PoolManager(retries=False) as pool:
        headers = {"Authorization": f"Bearer {box.key}", "Idempotency-Key": "k"}
        box.faults.always[HOOKS] = "reset"
        with pytest.raises(urllib3.exceptions.ProtocolError):
            pool.request("POST", url + HOOKS, headers=headers, body=urlencode(form()))
        box.faults.always.clear()
        made = pool.request("POST", url + HOOKS, headers=headers, body=urlencode(form())).json()
    assert made["secret"].startswith("whsec_")
    assert [one["id"] for one in ask(box, "GET", HOOKS)[1]["data"]] == [made["id"]]


# Sending


@pytest.mark.parametrize("indent", [False, True])
def test_an_event_comes_signed_by_the_wall_clock(indent: bool) -> None:
    box = Sandbox(seed=5, customers=20, oddities=False, indent=indent)
    with receiving() as receiver:
        hook = box.webhook_endpoint(receiver.url + "?a=1")
        made = box.create("customers", discount=None)
        box.drain_webhooks()
        (one,) = receiver.received
        told = verified(one, hook["secret"])

        assert (told.id, told.created, told.type) == (box.events[0].id, box.now, "customer.created")
        assert (
            abs(int(one.headers["stripe-signature"][2:].partition(",")[0]) - time.time())
            < 60
            < time.time() - box.now
        )
        event = json.loads(one.body)
        assert event == json.loads(box.events[0].body) | {"pending_webhooks": 1}
        assert event["data"]["object"] == made
        assert one.body.startswith(b'{\n  "id"' if indent else b'{"id"')
        assert one.path == "/hook?a=1"
        assert one.headers["content-type"] == "application/json; charset=utf-8"
        assert one.headers["user-agent"] == "Stripe/1.0 (+https://stripe.com/docs/webhooks)"
        with pytest.raises(stripe.SignatureVerificationError):
            verified(replace(one, body=one.body + b" "), hook["secret"])


def test_over_tls_too() -> None:
    box = Sandbox(seed=5, customers=5, oddities=False, livemode=True)
    with receiving(certificate=CERTIFICATE) as receiver:
        secret = box.webhook_endpoint(receiver.url)["secret"]
        box.noise(1)
        box.drain_webhooks()
        assert verified(receiver.received[0], secret).livemode is True


def test_each_gets_what_it_wants_while_it_is_enabled(box: Sandbox) -> None:
    with receiving() as all, receiving() as some:
        box.webhook_endpoint(all.url)
        hook = box.webhook_endpoint(some.url, ["customer.deleted", "invoice.created"])["id"]
        box.delete("customers", box.create("customers", discount=None)["id"])
        box.create("invoices")
        box.drain_webhooks()
        assert sorted(event["type"] for event in bodies(some)) == [
            "customer.deleted",
            "invoice.created",
        ]
        assert {event["pending_webhooks"] for event in bodies(some)} == {2}

        ask(box, "POST", f"{HOOKS}/{hook}", [("disabled", "true")])
        box.create("invoices")
        ask(box, "POST", f"{HOOKS}/{hook}", [("disabled", "false")])
        box.create("invoices")
        box.drain_webhooks()
        ask(box, "DELETE", f"{HOOKS}/{hook}")
        box.create("invoices")
        box.drain_webhooks()
        assert len(some.received) == 3
        assert sorted(ids(all)) == sorted(recorded(box))


def test_an_endpoint_gets_the_shape_of_its_version() -> None:
    """The same in an account with that default is the witness."""
    box, twin = (
        Sandbox(seed=5, customers=20, oddities=False, api_version=version)
        for version in ("2026-10-28.endive", "2024-06-20")
    )
    new = Sandbox(seed=5, customers=20, oddities=False, api_version="2024-06-20")

    def act(on: Sandbox) -> None:
        customer = on.create(
            "customers", discount={"id": "di_1", "object": "discount", "source": {"coupon": "A"}}
        )["id"]
        subscription = on.create("subscriptions", customer=customer)["id"]
        on.update("subscriptions", subscription, cancel_at_period_end=True)
        on.update(
            "invoices",
            on.create("invoices", customer=customer, status="draft")["id"],
            status="paid",
        )
        on.preview(subscription)
        on.cancel(subscription)
        on.update(
            "customers",
            customer,
            discount={"id": "di_1", "object": "discount", "source": {"coupon": "B"}},
        )
        on.delete("customers", customer)
        on.noise(2)

    with receiving() as old, receiving() as current:
        box.webhook_endpoint(old.url, api_version="2024-06-20")
        new.webhook_endpoint(current.url, api_version="2026-10-28.endive")
        for on in (box, twin, new):
            act(on)
            on.drain_webhooks()

        def by_id(events: list[Object]) -> dict[str, Object]:
            return {event["id"]: event | {"pending_webhooks": 0} for event in events}

        assert by_id(bodies(old)) == by_id([json.loads(event.body) for event in twin.events])
        assert by_id(bodies(current)) == by_id([json.loads(event.body) for event in box.events])
        assert len(
            {
                json.dumps(event)
                for event in (*by_id(bodies(old)).values(), *by_id(bodies(current)).values())
            }
        ) == 2 * len(box.events)


def test_lost_ones_never_come(box: Sandbox) -> None:
    box.faults.webhooks_lost = 0.5
    with receiving() as receiver:
        box.webhook_endpoint(receiver.url)
        box.noise(60)
        box.drain_webhooks()
        assert 15 < len(receiver.received) < 45
        assert (box.failed_webhooks, box.resend()) == ([], 0)
        assert set(ids(receiver)) < set(recorded(box))


def test_doubled_ones_come_twice(box: Sandbox) -> None:
    box.faults.webhooks_doubled = 0.5
    with receiving() as receiver:
        box.webhook_endpoint(receiver.url)
        box.noise(60)
        box.drain_webhooks()
        times = Counter(ids(receiver))
        assert set(times) == set(recorded(box))
        assert 15 < list(times.values()).count(2) < 45
        assert set(times.values()) == {1, 2}


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_shuffled_ones_come_in_another_order_and_all_of_them(box: Sandbox, share: float) -> None:
    box.faults.webhooks_shuffled = share
    with receiving() as receiver:
        box.webhook_endpoint(receiver.url)
        box.noise(100)
        box.drain_webhooks()
        places = [recorded(box).index(id) for id in ids(receiver)]
        assert sorted(places) == list(range(100))
        assert max(abs(place - at) for at, place in enumerate(places)) > webhooks_sender.THREADS


def test_what_is_held_back_comes_without_any_other(box: Sandbox) -> None:
    box.faults.webhooks_shuffled = 1.0
    with receiving() as receiver:
        box.webhook_endpoint(receiver.url)
        box.noise(1)
        assert receiver.arrived.acquire(timeout=10)


# Failures


def test_what_has_failed_is_sent_again_on_request(box: Sandbox) -> None:
    with receiving(ERROR, ERROR, choose=lambda *_: OK) as receiver:
        hook = box.webhook_endpoint(receiver.url)
        box.noise(2)
        box.drain_webhooks()
        failed = box.failed_webhooks
        assert sorted(failed) == sorted((id, receiver.url, "answered 500") for id in recorded(box))
        listed = ask(box, "GET", "/v1/events?delivery_success=false")[1]["data"]
        assert sorted(event["id"] for event in listed) == sorted(recorded(box))
        assert {event["pending_webhooks"] for event in listed} == {1}
        assert ask(box, "GET", "/v1/events?delivery_success=true")[1]["data"] == []

        assert box.resend() == 2
        box.drain_webhooks()
        assert (box.failed_webhooks, box.resend()) == ([], 0)
        assert ask(box, "GET", "/v1/events?delivery_success=false")[1]["data"] == []
        assert {
            event["pending_webhooks"] for event in ask(box, "GET", "/v1/events")[1]["data"]
        } == {0}
        assert Counter(ids(receiver)) == dict.fromkeys(recorded(box), 2)
        assert {verified(one, hook["secret"]).id for one in receiver.received} == set(recorded(box))


def test_an_endpoint_that_is_disabled_gets_nothing_again(box: Sandbox) -> None:
    with receiving(choose=lambda *_: ERROR) as receiver:
        hook = box.webhook_endpoint(receiver.url)["id"]
        box.noise(3)
        box.drain_webhooks()
        ask(box, "POST", f"{HOOKS}/{hook}", [("disabled", "true")])
        assert (box.failed_webhooks, box.resend()) == ([], 0)
        assert ask(box, "GET", "/v1/events?delivery_success=false")[1]["data"] == []


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        (ERROR, "answered 500"), (THROTTLED, "answered 429"), (redirect("/elsewhere"), "answered 302"), (RESET, "Connection"),
        (CUT, "ConnectionError"), (GARBAGE, "ValueError: the answer is not HTTP"), (HANG, "Timeout"), (TRICKLE_HEAD, "Timeout"),
    ],
)  # fmt: skip
def test_what_counts_as_failed(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch, behaviour: Behaviour, why: str
) -> None:
    monkeypatch.setattr(post, "TIMEOUT", 0.5 if why == "Timeout" else 10.0)
    with receiving(behaviour) as receiver:
        box.webhook_endpoint(receiver.url)
        box.noise(1)
        box.drain_webhooks()
        assert len(receiver.received) == 1
        ((_, _, said),) = box.failed_webhooks
        assert said.startswith(why)
        monkeypatch.undo()
        box.resend()
        box.drain_webhooks()
        assert box.failed_webhooks == []


def test_a_refused_connection_has_failed(box: Sandbox) -> None:
    with receiving() as receiver:
        url = receiver.url
    box.webhook_endpoint(url)
    box.noise(1)
    box.drain_webhooks()
    assert box.failed_webhooks[0][2].startswith("ConnectionRefusedError")


def test_a_status_is_enough(box: Sandbox) -> None:
    with receiving(ENDLESS) as receiver:
        box.webhook_endpoint(receiver.url)
        box.noise(1)
        box.drain_webhooks()
        assert box.failed_webhooks == []


@pytest.mark.parametrize(
    "url", ["http://192.0.2.1/hook", "https://example.com/hook", "http://127.0.0.1.example.com/"]
)
def test_nothing_but_loopback_is_called(url: str) -> None:
    with pytest.raises(ValueError, match="is not a loopback address"):
        post.post(url, "whsec_x", b"{}", set())


# Bounds


def test_changes_do_not_wait_and_all_ends_with_the_sandbox(box: Sandbox) -> None:
    with receiving(choose=lambda *_: HANG) as receiver:
        with box.serve():
            box.webhook_endpoint(receiver.url)
            box.noise(30)
            for _ in range(webhooks_sender.THREADS):
                assert receiver.arrived.acquire(timeout=10)
            sender = box.account.webhooks.sender
            assert (sender.threads, sender.busy, sender.outstanding) == (
                webhooks_sender.THREADS,
                webhooks_sender.THREADS,
                30,
            )
            with pytest.raises(TimeoutError, match="30 webhooks are still due"):
                box.drain_webhooks(timeout=0.01)
        box.drain_webhooks()
        assert len(box.failed_webhooks) == 30
        assert len(receiver.received) == webhooks_sender.THREADS
    with sender.changed:
        assert sender.changed.wait_for(lambda: not sender.threads, 10)


def test_what_the_queue_does_not_hold_has_failed(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks_sender, "MAX_QUEUED", 5)
    with receiving(
        choose=lambda request, _: HANG if not receiver.released.is_set() else OK
    ) as receiver:
        box.webhook_endpoint(receiver.url)
        box.noise(30)
        full = [why for _, _, why in box.failed_webhooks if why == "the queue is full"]
        assert 30 - 5 - webhooks_sender.THREADS <= len(full) <= 25
        receiver.released.set()
        box.drain_webhooks()
        while box.resend():
            box.drain_webhooks()
        assert set(ids(receiver)) == set(recorded(box))


def test_endpoints_do_not_change_what_happens() -> None:
    box, twin = (
        Sandbox(seed=5, customers=20, oddities=False),
        Sandbox(seed=5, customers=20, oddities=False),
    )
    with receiving() as receiver:
        box.webhook_endpoint(receiver.url)
        box.faults.webhooks_lost = box.faults.webhooks_doubled = 0.3
        assert box.live(86_400, 80) == twin.live(86_400, 80)
        box.drain_webhooks()
    assert box.events == twin.events


# A process of its own


def test_a_process_sends_and_sends_again() -> None:
    command = [
        sys.executable,
        "-m",
        "stripe_feed.sandbox",
        "--customers",
        "5",
        "--no-oddities",
        "--fixed-clock",
        "--exit-with-parent",
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with (
        receiving(ERROR) as receiver, urllib3.PoolManager(retries=False) as pool,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as running,
    ):  # fmt: skip
        assert running.stdout is not None
        line = json.loads(running.stdout.readline())

        def control(method: str, path: str, **given: Any) -> Any:
            answer = pool.request(method, f"{line['url']}/_sandbox/{path}", body=json.dumps(given))
            assert answer.status == 200, answer.data
            return answer.json()

        client = stripe.StripeClient(line["key"], base_addresses={"api": line["url"]})
        hook = client.v1.webhook_endpoints.create(
            {"url": receiver.url, "enabled_events": ["charge.succeeded", "customer.created"]}
        )
        now = control("POST", "advance", seconds=86_400)["now"]
        assert control("POST", "faults", webhooks_doubled=0.0)["webhooks_shuffled"] == 0.0
        control("POST", "create", table="customers", discount=None)
        assert receiver.arrived.acquire(timeout=10)
        while control("GET", "webhooks")["due"]:
            pass
        (failed,) = control("GET", "webhooks")["failed"]
        assert (failed["url"], failed["why"]) == (receiver.url, "answered 500")
        assert control("POST", "resend") == {"resent": 1}
        assert receiver.arrived.acquire(timeout=10)
        told = verified(receiver.received[1], hook.secret or "")
        assert (told.id, told.created) == (failed["event"], now)
        assert running.stdin is not None
        running.stdin.close()
        assert running.wait(10) == 0
