"""The presets on models, on the life of a business that a copy follows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from stripe_feed.delivery.outbox import find
from stripe_feed.destination.pipeline import dlt_settings
from stripe_feed.feed.change import Change
from stripe_feed.feed.feed import open_feed
from stripe_feed.models.copies import build_copy_models
from stripe_feed.sandbox import Sandbox
from stripe_feed.triggers.models.evaluate import evaluate_models
from stripe_feed.triggers.models.model_trigger import MODEL_PRESETS
from tests.copies import copy_of
from tests.model_triggers import a_model_trigger

DAY = 86_400
RUNNING = ("active", "past_due", "trialing")
MODELS = [f"+{preset['model']}" for preset in MODEL_PRESETS.values()]


def seconds(text: str) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


def is_overdue(box: Sandbox, change: Change) -> bool:
    invoice = box.objects("invoices")[change.object_id]
    due = invoice["due_date"] or invoice["status_transitions"]["finalized_at"]
    return bool(invoice["status"] == "open" and due // DAY < box.now // DAY)


def renews_within(days: int, statuses: tuple[str, ...]) -> Callable[[Sandbox, Change], bool]:
    def check(box: Sandbox, change: Change) -> bool:
        assert change.after is not None
        renews_at = seconds(change.after["renews_at"])
        subscription = box.objects("subscriptions")[change.after["subscription_id"]]
        ends = (
            subscription["trial_end"]
            if "trialing" in statuses
            else subscription["items"]["data"][0]["current_period_end"]
        )
        return (
            subscription["status"] in statuses
            and renews_at == ends
            and 0 <= renews_at // DAY - box.now // DAY <= days
        )

    return check


def has_left(box: Sandbox, change: Change) -> bool:
    assert change.after is not None
    return change.after["mrr_lost"] > 0 and not any(
        one["status"] in ("active", "past_due")
        for one in box.objects("subscriptions").values()
        if one["customer"] == change.customer_id
    )


def fell(box: Sandbox, change: Change) -> bool:
    assert change.before is not None
    return change.after is None or change.after["mrr"] < change.before["mrr"]


TRUE_OF: dict[str, Callable[[Sandbox, Change], bool]] = {
    "invoice_overdue": is_overdue,
    "subscription_renewing_soon": renews_within(7, ("active", "past_due")),
    "trial_ending_soon": renews_within(3, ("trialing",)),
    "customer_churned": has_left,
    "mrr_dropped": fell,
}
"""What the account must show when a preset fires."""


def test_each_preset_fires_for_what_the_account_shows(tmp_path: Path) -> None:
    box = Sandbox(seed=4, customers=40, business=True)
    triggers = [a_model_trigger(name, preset=name) for name in MODEL_PRESETS]
    fired = dict.fromkeys(MODEL_PRESETS, 0)
    with copy_of(box, tmp_path, hold=True) as copy:
        place: Any = {
            "database": str(tmp_path / copy.database),
            "state_dir": str(tmp_path / copy.state),
        }
        for days in (0, 8):
            box.live(days * DAY + 60, 8 * days)
            box.advance(600)
            copy.sync()
            as_of = f"{datetime.fromtimestamp(box.now, timezone.utc):%Y-%m-%d %H:%M:%S}"
            build_copy_models(**place, selection=MODELS, variables={"as_of": as_of})
            with dlt_settings(), open_feed(copy.pipeline) as feed:
                known = {one.message_id for one in find(feed.store)}
                results = evaluate_models(
                    feed.store, triggers, float(box.now), feed.read_models, feed.lookups
                )
                assert [one.error for one in results] == [None] * len(triggers)
                for message in find(feed.store):
                    if message.message_id not in known:
                        change = feed.store.by_id(message.change_id)
                        assert change is not None
                        assert TRUE_OF[message.trigger](box, change), (message, change)
                        fired[message.trigger] += 1
            later = {"trial_start": box.now, "trial_end": box.now + 10 * DAY}
            box.create("subscriptions", status="trialing", items=1, **later)
            box.create("invoices", status="open", due_date=box.now + 2 * DAY, amount_remaining=900)

    assert all(fired.values()), fired
