"""Prices and plans that were deleted, while items of subscriptions still show a copy: a copy proves
only that they once were.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stripe_feed.extract.options import Deletes
from stripe_feed.sandbox import Sandbox
from tests.copies import Copy, copy_of

DAY = 86_400
PIN = "2026-10-28.endive"
OLD = "2024-06-20"
TABLES = ("subscriptions", "prices", "plans")
VERSIONS = (PIN, OLD, "2025-02-24.acacia", PIN)


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Copy]:
    with copy_of(Sandbox(seed=4, customers=4, oddities=False), tmp_path, hold=True) as found:
        found.sync(resources=TABLES)
        found.box.advance(DAY)
        yield found


def live(copy: Copy) -> dict[str, bool]:
    """Of prices and plans, whether they are held as what there is."""
    union = " union all ".join(
        f"select id, deleted_at from stripe.{table}" for table in ("prices", "plans")
    )
    return {
        id: bool(there)
        for id, there in copy.select(
            f"select id, bool_or(deleted_at is null) from ({union}) group by id"
        )
    }


@pytest.mark.parametrize("stub", [False, True], ids=["whole", "bare"])
def test_what_came_and_went_between_two_runs_does_not_live_on_in_an_item(
    copy: Copy, stub: bool
) -> None:
    """In an account of an older API version, whose events hold no row; with `deletes="hard"` as
    well.
    """
    box = copy.box
    box.api_version, box.stub_deletes = OLD, stub
    price = box.create("prices", recurring={"interval": "month"}, unit_amount=700)["id"]
    subscription = box.create("subscriptions", items=[{"price": price}], status="active")["id"]
    box.delete("plans", price)
    for deletes in ("soft", "hard", "hard"):
        box.advance(3_600)
        box.update(
            "subscriptions", subscription, metadata={"still": deletes}
        )  # the copy comes again
        box.advance(100)
        copy.sync(resources=TABLES, deletes=deletes)
        assert not live(copy).get(price, False)


def test_what_was_deleted_in_a_gap_is_gone_though_an_item_shows_it(copy: Copy) -> None:
    """It is asked for, since lists showed it once; a price that was made for one subscription is
    not, and lives on.
    """
    box = copy.box
    used = {item["price"]["id"] for item in box.children("subscription_items").values()}
    gone = min(used - box.account.inline_prices)
    inline = box.create(
        "subscriptions", items=[{"price_data": {"unit_amount": 42}}], status="active"
    )["items"]["data"][0]["price"]["id"]
    box.update("prices", gone, active=False)
    box.advance(1_000)
    copy.sync(resources=TABLES)  # the row is as the item shows it for ever
    box.advance(45 * DAY)
    box.delete("prices", gone)
    box.advance(45 * DAY)
    copy.sync(resources=TABLES)
    assert (live(copy)[gone], live(copy)[inline]) == (False, True)
    box.reset_counts()
    box.advance(3_600)
    copy.sync(resources=TABLES, reconcile=True)
    assert not [call for call in box.log if call.template in ("/v1/prices/:id", "/v1/plans/:id")]
    copy.check(*TABLES, last=False, found_later=True, volatile=False)


def deed(box: Sandbox, dice: random.Random) -> None:
    drawn, prices = dice.random(), sorted(box.objects("prices"))
    running = [
        id for id, one in box.objects("subscriptions").items() if one["status"] != "canceled"
    ]
    if drawn < 0.2:
        price = box.create("prices", recurring={"interval": "month"}, unit_amount=100)["id"]
        box.create("subscriptions", items=[{"price": price}], status="active")
    elif drawn < 0.3:
        box.create("subscriptions", items=[{"price_data": {"unit_amount": 42}}], status="active")
    elif drawn < 0.6 and prices:
        used = {item["price"]["id"] for item in box.children("subscription_items").values()}
        box.delete("prices", dice.choice(sorted(used & set(prices)) or prices))
    elif drawn < 0.7 and prices:
        box.update("prices", dice.choice(prices), nickname=str(drawn))
    elif drawn < 0.8 and prices:
        price = dice.choice(prices)
        box.update("prices", price, active=not box.objects("prices")[price]["active"])
    elif drawn < 0.95 and running:
        box.update(
            "subscriptions",
            dice.choice(running),
            **dice.choice(({"metadata": {"a": str(drawn)}}, {"items": [{}]})),
        )
    elif running:
        box.cancel(dice.choice(running))


def play(seed: int, deletes: Deletes = "soft") -> None:
    """Gaps, old versions, and deletions of what items show; then two quiet runs."""
    dice, box = random.Random(seed), Sandbox(seed=seed, customers=6, products=5, oddities=False)
    box.advance(DAY)
    with tempfile.TemporaryDirectory() as folder, copy_of(box, Path(folder), hold=True) as copy:
        copy.sync(resources=TABLES, deletes=deletes)
        inline = set(box.account.inline_prices)
        for _ in range(3):
            box.api_version, box.stub_deletes = dice.choice(VERSIONS), dice.random() < 0.3
            for _ in range(6):
                deed(box, dice)
                box.advance(dice.choice((0, 1, 5, 61, 400, 4_000)))
            if dice.random() < 0.3:
                days = dice.choice((31, 45))
                box.advance(
                    DAY * (days if inline <= box.account.inline_prices else 1)
                )  # nobody asks for what no list ever showed
            if dice.random() < 0.8:
                box.advance(61)
                copy.sync(resources=TABLES, deletes=deletes)
                inline = set(box.account.inline_prices)
                box.advance(
                    400
                )  # the account's clock stands still while a run reads, and ours does not
        box.advance(700)
        copy.sync(resources=TABLES, deletes=deletes)
        copy.check(*TABLES, volatile=False, last=False, found_later=True, pruned=deletes == "hard")
        if deletes == "hard":
            for _ in range(2):  # an idle run does not move on
                box.create("prices", recurring={"interval": "month"}, unit_amount=100)
                box.advance(500)
                copy.sync(resources=TABLES, deletes=deletes)
            assert [id for id, is_there in live(copy).items() if not is_there] == []


@pytest.mark.parametrize(("seed", "deletes"), [(4, "soft"), (9, "soft"), (9, "hard")])
def test_a_few_histories_end_as_they_are(seed: int, deletes: Deletes) -> None:
    play(seed, deletes)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(200))
def test_two_hundred_histories_end_as_they_are(seed: int) -> None:
    play(seed, "hard" if seed % 4 == 3 else "soft")
