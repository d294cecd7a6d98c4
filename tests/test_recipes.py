"""The recipes, each delivered to a receiver: what another tool gets is what its recipe says."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import stripe
from standardwebhooks import Webhook

from stripe_feed import deliver, open_feed, read_triggers
from stripe_feed.sandbox import Sandbox
from tests.copies import copy_of
from tests.receiver import Received, receiving

TEXT = (Path(__file__).resolve().parents[1] / "docs" / "recipes.md").read_text(encoding="utf-8")
BLOCKS = {
    block.partition('name = "')[2].partition('"')[0]: block
    for block in re.findall(r"```toml\n(.*?)```", TEXT, re.S)
    if "[[trigger]]" in block
}
SECRET = "whsec_" + base64.b64encode(b"a secret of thirty-two bytes 123").decode()
SETTLED = 400


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[Received]]]:
    """What the receiver of each recipe got for a day in which everything happened that a recipe
    waits for, and the events.
    """
    box, folder = Sandbox(seed=6, customers=25), tmp_path_factory.mktemp("recipes")
    with (
        pytest.MonkeyPatch.context() as patch,
        copy_of(box, folder, hold=True) as copy,
        receiving() as receiver,
    ):
        for variable in re.findall(r"env:(\w+)", TEXT):
            patch.setenv(variable, SECRET)
        patch.chdir(folder)
        Path("triggers.toml").write_text(
            "\n".join(local(name, receiver.url) for name in BLOCKS), encoding="utf-8"
        )
        triggers = read_triggers()
        box.advance(SETTLED)
        copy.sync()
        with open_feed(copy.pipeline) as feed:
            deliver(feed, triggers)
        box.advance(60)  # what is read while it changes does not tell what was before
        happen(box)
        box.advance(SETTLED)
        copy.sync()
        with open_feed(copy.pipeline) as feed:
            fired, done = deliver(feed, triggers)
        assert (done.failed, done.dead, done.sent) == (0, 0, sum(one.fired for one in fired))
        EVENTS.update({event.id: json.loads(event.body) for event in box.events})
        LINES.extend(
            file.read_text(encoding="utf-8") for file in sorted(Path().glob("canceled-msg_*.json"))
        )
        yield {
            name: [one for one in receiver.accepted if one.path.endswith(f"/{name}")]
            for name in BLOCKS
        }


EVENTS: dict[str, Any] = {}
LINES: list[str] = []


def local(name: str, url: str) -> str:
    """A recipe whose receiver is on this machine."""
    block = re.sub(r'url = "https?://[^"]+"', f'url = "{url}/{name}"', BLOCKS[name])
    if "allow_private" in block or "url = " not in block:
        return block
    return re.sub(r'(url = "[^"]+")(, |\n| \})', r"\1\2allow_private = true\2", block, count=1)


def happen(box: Sandbox) -> None:
    box.create("customers", name="Åsa <b>", email="asa@example.com")
    active = [id for id, one in box.objects("subscriptions").items() if one["status"] == "active"]
    box.update("subscriptions", active[0], status="past_due")
    box.cancel(active[1])
    due = next(
        id
        for id, one in box.objects("invoices").items()
        if one["status"] == "open" and one["currency"] in ("eur", "usd")
    )
    box.update("invoices", due, attempt_count=1, attempted=True, amount_remaining=123_456)
    box.live(86_400, 120)


def bodies(found: list[Received]) -> list[Any]:
    return [json.loads(one.body) for one in found]


def test_customerio_finds_the_person_by_its_email(sent: dict[str, list[Received]]) -> None:
    """`data.email` and `data.id`, literally."""
    found = sent["customerio_new_customer"]
    (body,) = [one for one in bodies(found) if one["data"]["email"] == "asa@example.com"]
    assert body["type"] == "customer.created" and body["data"]["id"].startswith("cus_")
    assert Webhook(SECRET).verify(found[0].body, dict(found[0].headers))


@pytest.mark.checklist("N23")
def test_customerio_identifies_a_person(sent: dict[str, list[Received]]) -> None:
    found = sent["customerio_identify"]
    (body,) = [one for one in bodies(found) if one["identifiers"]["email"] == "asa@example.com"]
    assert body["action"] == "identify" and isinstance(body["attributes"]["created_at"], int)
    user, _, password = (
        base64.b64decode(found[0].headers["authorization"].removeprefix("Basic "))
        .decode()
        .partition(":")
    )
    assert (user, password) == (SECRET, SECRET)


def test_n8n_gets_stripes_own_events(sent: dict[str, list[Received]]) -> None:
    found = sent["n8n_subscriptions"]
    assert len(found) >= 2
    for one in found:
        event: Any = stripe.Webhook.construct_event(
            one.body, one.headers["stripe-signature"], SECRET
        )
        assert json.loads(one.body)["data"] == EVENTS[event.id]["data"]


@pytest.mark.checklist("N22")
def test_n8n_gets_a_flat_record(sent: dict[str, list[Received]]) -> None:
    found = sent["n8n_past_due"]
    assert found and {one["status"] for one in bodies(found)} == {"past_due"}
    assert found[0].headers["x-api-key"] == SECRET


def test_dunning_gets_the_address_of_the_customer(sent: dict[str, list[Received]]) -> None:
    found = bodies(sent["dunning_mail"])
    assert found and all(
        "@" in one["to"] and one["name"] and one["subscription"].startswith("sub_") for one in found
    )


def test_zapier_gets_an_id_and_the_amount_in_major_units(sent: dict[str, list[Received]]) -> None:
    found = bodies(sent["zapier_paid"])
    assert found and len({one["id"] for one in found}) == len(found)
    for one in found:
        assert one["invoice"].startswith("in_") and re.fullmatch(
            r"-?\d+(\.\d{2,3})?", one["amount"]
        ), one


@pytest.mark.checklist("N25")
def test_slack_gets_a_text(sent: dict[str, list[Received]]) -> None:
    found = bodies(sent["slack_payment_failed"])
    assert any("Payment of 1234.56 " in one["text"] for one in found)
    for one in found:
        assert re.fullmatch(
            r"Payment of \d+\.\d\d (eur|usd) failed: in_\w+, customer cus_\w+", one["text"]
        )


def test_a_script_gets_the_change(sent: dict[str, list[Received]]) -> None:
    found = [json.loads(line) for line in LINES]
    assert found and all(
        (one["before"]["status"], one["after"]["status"]) == ("active", "canceled")
        for one in found[:1]
    )


def test_every_recipe_is_tested() -> None:
    assert set(BLOCKS) == {
        "customerio_new_customer",
        "customerio_identify",
        "n8n_subscriptions",
        "n8n_past_due",
        "zapier_paid",
        "slack_payment_failed",
        "dunning_mail",
        "script",
    }
