"""`POST /actions/...` of the server: off by default, behind the token, and what each outcome is answered
with.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stripe_feed import open_actions
from stripe_feed.cli.serve import serve as serve_command
from stripe_feed.sandbox import Sandbox
from stripe_feed.server import service
from tests.scripted import Answer as Scripture
from tests.scripted import scripted
from tests.web import TOKEN, Answer, Web, a_feed, served

FAST: dict[str, Any] = {"max_rps": 5_000, "endpoint_rps": 5_000, "threads": 2}
NAME = "Canary O'Shea"


@pytest.fixture(scope="module")
def box() -> Sandbox:
    return Sandbox(seed=5, customers=3)


@pytest.fixture(scope="module")
def web(box: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("served")
    with (
        box.serve() as url,
        open_actions(box.key, base=url, **FAST) as actions,
        a_feed(folder) as feed,
        served(feed, actions=actions) as running,
    ):
        yield running


def post(web: Web, path: str, body: Any = None, **headers: str) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
    return web.post(path, content, **headers)


def test_actions_are_off_by_default(tmp_path: Path) -> None:
    with a_feed(tmp_path) as feed, served(feed) as web:
        answer = post(web, "/actions/customers/create", {"set": {"name": NAME}})
    assert answer.status == 404
    assert "--allow-actions" in answer.error


@pytest.mark.checklist("C2")
def test_a_customer_is_created_changed_and_found(
    web: Web, box: Sandbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    created = post(web, "/actions/customers/create", {"set": {"name": NAME}})
    assert created.status == 200
    found = created.json
    assert (found["status"], found["object"]["name"]) == ("success", NAME)
    customer = found["id"]
    changed = post(
        web, "/actions/customers/update", {"id": customer, "set": {"metadata.plan": "pro"}}
    )
    assert changed.json["object"]["metadata"] == {"plan": "pro"}
    assert box.objects("customers")[customer]["metadata"] == {"plan": "pro"}
    flat = post(web, "/actions/customers/get?flat=true", {"id": customer}).json
    assert {*flat} == {"customer", "customer_id", "status", "message"}
    listed = post(web, "/actions/customers/list", {"limit": 2}).json
    assert (len(listed["objects"]), listed["has_more"]) == (2, True)
    lines = [record.getMessage() for record in caplog.records if record.name == "stripe_feed"]
    assert f"customers.create: success ({customer})" in lines
    assert NAME not in caplog.text


def test_the_key_of_the_caller_makes_a_repetition_harmless(web: Web, box: Sandbox) -> None:
    before = len(box.objects("customers"))
    answers = [
        post(web, "/actions/customers/create", {"set": {"name": "Twice"}}, Idempotency_Key="run-7")
        for _ in range(2)
    ]
    assert len({answer.json["id"] for answer in answers}) == 1
    assert len(box.objects("customers")) == before + 1
    assert {answer.json["idempotency_key"] for answer in answers} == {"sf-run-7"}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/actions/customers/merge", {}, 404),
        ("/actions/charges/create", {}, 404),
        ("/actions/customers/get", {"id": "cus_none"}, 404),
        ("/actions/customers/create", {"set": {"emial": "x"}}, 400),
        ("/actions/customers/create", {"wrong": 1}, 400),
        ("/actions/customers/create", b"{", 400),
        ("/actions/customers/create", b"[1]", 400),
        ("/actions/customers/create", b"[" * 100_000, 400),
        ("/actions/customers/create", b"\xff", 400),
        ("/actions/products/create", {"set": {"id": "prod_taken", "name": "x"}}, 422),
    ],
)
def test_what_goes_wrong_has_its_status(web: Web, path: str, body: Any, status: int) -> None:
    post(web, "/actions/products/create", {"set": {"id": "prod_taken", "name": "x"}})
    answer = post(web, path, body)
    assert answer.status == status
    assert answer.json.get("error") or answer.json["status"] == "error"


def test_a_body_that_says_it_is_too_long_is_not_read(web: Web) -> None:
    """It is answered by its head: who sends on is hung up on."""
    answer = post(web, "/actions/customers/create", b"", Content_Length="1000001")
    assert answer.status == 413
    assert "1,000,000 bytes" in answer.json["error"]


@pytest.mark.parametrize(
    ("answered", "status", "said"),
    [(500, 502, "unknown"), (429, 429, "error"), (403, 403, "error")],
)
def test_what_stripe_answers_has_its_status(
    tmp_path: Path, answered: int, status: int, said: str
) -> None:
    body = json.dumps({"error": {"type": "api_error", "message": "no"}}).encode()
    with (
        scripted(Scripture(answered, body)) as stripe,
        open_actions("rk_test_x", base=stripe.url, give_up_after=0.5, **FAST) as actions,
        a_feed(tmp_path) as feed,
        served(feed, actions=actions) as web,
    ):
        answer = post(web, "/actions/customers/create", {"set": {"name": NAME}})
    assert (answer.status, answer.json["status"]) == (status, said)
    assert ("retry-after" in answer.headers) is (status == 429)


def test_only_posts_with_the_token_act(web: Web, box: Sandbox) -> None:
    events = len(box.events)
    assert post(web, "/actions/customers/create", {}, Authorization="").status == 401
    assert post(web, "/actions/customers/create", {}, Authorization="Bearer x").status == 401
    assert web.get("/actions/customers/create").status == 405
    for headers in ({"Origin": "https://evil.example"}, {"Sec_Fetch_Site": "cross-site"}):
        assert post(web, "/actions/customers/create", {}, **headers).status == 403
    assert len(box.events) == events
    assert TOKEN not in post(web, "/actions/customers/create", {}, Authorization="").body.decode()


def test_the_service_opens_them_with_the_key_and_the_limits_of_its_syncs() -> None:
    places = {"database": "copy.duckdb", "destination": None, "dataset": "stripe", "state_dir": "."}
    reading = {"api_key": "rk_test_abc", "max_rps": 7.0, "resources": None, "give_up_after": 9.0}
    with service._open_actions(places, reading) as actions:
        assert actions.lookup.copy is not None
        assert actions.lookup.copy.database == "copy.duckdb"
        assert not actions.api.live
    defaults = serve_command.__kwdefaults__ or {}
    assert defaults["allow_actions"] is False
