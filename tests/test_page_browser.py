"""The page in a real browser, where one is installed: a person retries a dead letter and sees it
gone.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stripe_feed.delivery import outbox
from stripe_feed.delivery.outbox import Attempt
from stripe_feed.feed.feed import Feed
from stripe_feed.triggers.engine import run_triggers
from tests.feed_kills import a_change
from tests.pushing import note_ends
from tests.web import NOW, TOKEN, Web, a_feed, a_trigger, add, served

pytestmark = pytest.mark.browser

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SECONDS = 15_000  # milliseconds: nothing here waits longer
SCRIPT = "<script>document.title = 'taken over'</script><img src=x onerror=\"document.title = 'taken over'\">"
IMAGE = {
    "id": "sub_1", "object": "subscription", "status": "past_due", "cancel_at_period_end": False, "quantity": 12,
    "metadata": {"plan": "pro", "note": SCRIPT},
}  # fmt: skip
CUSTOMER = {
    "id": "cus_9", "object": "customer", "name": SCRIPT, "email": "zoe@example.com", "currency": "eur", "balance": 0, "delinquent": False,
    "description": "A text that is rather long, so that it is seen whether the cells break where they should and stay next to each other.",
}  # fmt: skip
CREDENTIALS = {"username": "someone", "password": TOKEN}
SIZES = {"desktop": (1280, 900), "phone": (375, 812)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium: the one that playwright brings, or one on the PATH."""
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    with sync_api.sync_playwright() as playwright:
        own = next(filter(None, map(shutil.which, BROWSERS)), None)
        try:
            opened = playwright.chromium.launch(executable_path=own, args=["--no-sandbox"])
        except sync_api.Error:
            pytest.skip("no browser is installed: playwright install chromium")
        yield opened
        opened.close()


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[Feed]:
    """Changes of every kind, three triggers, and a dead letter and a failing message of the first."""
    with a_feed(tmp_path) as opened:
        triggers = [a_trigger(name) for name in TRIGGERS]
        run_triggers(opened.store, triggers, NOW - 3_600)
        quiet: Any = {"previous": None, "before_quality": "none", "changed": []}
        add(
            opened,
            a_change(
                3_400,
                after=IMAGE,
                previous={"status": "active", "metadata": {"plan": "basic"}},
                changed=["status", "metadata.plan"],
            ),
            a_change(
                3_500,
                "cus_9",
                "c",
                resource="customers",
                after=CUSTOMER,
                event_type="customer.created",
                **quiet,
            ),
            a_change(
                3_560,
                "sub_1",
                after=IMAGE,
                previous={"metadata": {"note": "a note"}, "quantity": 11},
                changed=["metadata.note", "quantity"],
            ),
            a_change(
                3_590,
                "cus_8",
                "d",
                resource="customers",
                previous={**CUSTOMER, "id": "cus_8", "name": "Zoë"},
                event_type="customer.deleted",
            ),
        )
        run_triggers(opened.store, triggers, NOW - 30)
        dead, failing, *rest = outbox.find(
            opened.store, states=("waiting",), trigger="welcome_message"
        )
        with opened.store.transaction() as db:
            outbox.record_attempt(
                db, dead, Attempt(NOW - 20, 0.1, "500", "upstream connect error"), "dead"
            )
            outbox.record_attempt(
                db, failing, Attempt(NOW - 10, 5, "timeout", ""), "waiting", NOW + 290
            )
            for one in rest:
                outbox.record_attempt(db, one, Attempt(NOW - 9, 0.1, "200", ""), "sent")
            db.execute(
                "update triggers set held = 'it would fire 12,345 times in one run, more than 1,000' where name = 'crm_sync'"
            )
        note_ends(
            opened.store, lambda: NOW - 130, contracts="warning", crm="failed", price_list="healthy"
        )
        yield opened


TRIGGERS = {
    "welcome_message": "https://hooks.example.com/x",
    "crm_sync": "https://crm.example.com/x",
    "slack": "https://hooks.slack.com/x",
}


@pytest.fixture
def web(feed: Feed) -> Iterator[Web]:
    triggers = [a_trigger(name, url) for name, url in TRIGGERS.items()]
    with served(
        feed, triggers=triggers, health=lambda: {"synced_at": NOW - 12, "error": None}
    ) as web:
        yield web


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_person_retries_a_dead_letter_and_sees_it_gone(
    browser: Any, web: Web, feed: Feed, tmp_path: Path, size: str, scheme: str
) -> None:
    width, height = SIZES[size]
    trouble: list[str] = []
    with browser.new_context(
        http_credentials=CREDENTIALS,
        viewport={"width": width, "height": height},
        color_scheme=scheme,
    ) as context:
        page = context.new_page()
        page.set_default_timeout(SECONDS)
        page.on(
            "console",
            lambda said: trouble.append(said.text) if said.type in ("error", "warning") else None,
        )
        page.on("pageerror", lambda fault: trouble.append(str(fault)))
        page.goto(f"http://127.0.0.1:{web.port}/")
        page.screenshot(path=tmp_path / f"{size}-{scheme}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.locator("#dead li").count() == 1

        page.get_by_role("button", name="Retry welcome_message").click()
        page.locator("#dead").wait_for(state="detached")
        page.screenshot(path=tmp_path / f"{size}-{scheme}-after.png")
        assert "Put back into its lane" in page.locator("#said").inner_text()
        assert page.title() == "stripe-feed"
    assert [one.state for one in outbox.find(feed.store, trigger="welcome_message")] == [
        "waiting",
        "waiting",
        "sent",
        "sent",
    ]
    assert trouble == []


def test_without_scripts_the_button_works_too(browser: Any, web: Web) -> None:
    with browser.new_context(http_credentials=CREDENTIALS, java_script_enabled=False) as context:
        page = context.new_page()
        page.set_default_timeout(SECONDS)
        page.goto(f"http://127.0.0.1:{web.port}/")
        page.get_by_role("button", name="Retry welcome_message").click()
        page.wait_for_url(f"http://127.0.0.1:{web.port}/")
        page.locator("#dead").wait_for(state="detached")


def test_the_page_shows_what_comes_by_itself(browser: Any, web: Web, feed: Feed) -> None:
    with browser.new_context(http_credentials=CREDENTIALS) as context:
        page = context.new_page()
        page.set_default_timeout(SECONDS)
        page.clock.install()
        page.goto(f"http://127.0.0.1:{web.port}/")
        add(feed, a_change(3_599, "sub_new"))
        page.clock.run_for(6_000)
        page.get_by_text("sub_new").first.wait_for()


def test_the_page_says_that_the_server_is_gone_and_a_failed_retry(browser: Any, feed: Feed) -> None:
    with browser.new_context(http_credentials=CREDENTIALS) as context:
        page = context.new_page()
        page.set_default_timeout(SECONDS)
        page.clock.install()
        with served(feed) as web:
            page.goto(f"http://127.0.0.1:{web.port}/")
            outbox.retry(feed.store, NOW)
            page.get_by_role("button", name="Retry welcome_message").click()
            page.get_by_text("Not done.").wait_for()
        page.locator("h1").click()
        page.evaluate("document.activeElement.blur()")
        page.clock.run_for(6_000)
        page.get_by_text("The server does not answer.").wait_for()
