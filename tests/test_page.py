"""The page, as a parser sees it: nothing that strangers wrote is markup, and only its own form can
retry.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode

import pytest

from stripe_feed.delivery import outbox
from stripe_feed.delivery.outbox import Attempt
from stripe_feed.errors import Locked, SetupError
from stripe_feed.feed.feed import Feed
from stripe_feed.feed.storage.push_states import note_runs
from stripe_feed.markup import escape_text, tag
from stripe_feed.report.headline import HeadlineCache
from stripe_feed.report.reading import CurrencyHeadline, Headline, read_headline
from stripe_feed.server import webhook_inbox
from stripe_feed.server.page import read_overview, render_page
from stripe_feed.triggers.engine import run_triggers
from stripe_feed.write.push.history.states import PUSH_STATES
from stripe_feed.write.push.log import PushLog
from tests.feed_kills import a_change
from tests.pushing import note_end, note_ends
from tests.web import NOW, Web, a_feed, a_trigger, add, basic, served

SCRIPT = "<script>alert('x')</script>\"'><img src=x onerror=alert(1)>"
VOID = ("meta", "link", "input")
KEY = "the-key"


class Tree(HTMLParser):
    """Elements as (name, attributes, text inside); fails where the nesting is wrong."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str], list[str]]] = []
        self.found: list[tuple[str, dict[str, str], list[str]]] = []
        self.feed(markup)
        self.close()
        assert self.open == []

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        assert len(dict(attributes)) == len(attributes)
        element = (name, {key: value or "" for key, value in attributes}, list[str]())
        self.found.append(element)
        self.open += [] if name in VOID else [element]

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop()[0] == name

    def handle_data(self, data: str) -> None:
        for _, _, inside in self.open:
            inside.append(data)

    def all(self, name: str, /, **wanted: str) -> list[dict[str, str]]:
        return [
            attributes
            for found, attributes, _ in self.found
            if found == name and wanted.items() <= attributes.items()
        ]

    def texts(self, name: str, /, **wanted: str) -> list[str]:
        return [
            "".join(inside)
            for found, attributes, inside in self.found
            if found == name and wanted.items() <= attributes.items()
        ]


def shown(feed: Feed, triggers: Any = (), **health: Any) -> Tree:
    return Tree(render_page(read_overview(feed.store), triggers, health, KEY, NOW))


@pytest.fixture
def feed(tmp_path: Path) -> Iterator[Feed]:
    with a_feed(tmp_path) as opened:
        yield opened


def give_up(feed: Feed, *names: str, note: str = "") -> list[str]:
    """Let triggers fire for a change, and give their messages up; return the messages' ids."""
    triggers = [a_trigger(name) for name in names]
    run_triggers(feed.store, triggers, NOW - 60)
    n = feed.head + 1
    add(feed, a_change(n))
    run_triggers(feed.store, triggers, NOW - 60)
    waiting = outbox.find(feed.store, states=("waiting",), change_id=f"evt_{n}")
    with feed.store.transaction() as db:
        for one in waiting:
            outbox.record_attempt(db, one, Attempt(NOW - 30, 0.1, "500", note), "dead")
    return [one.message_id for one in waiting]


def test_an_empty_feed_has_a_page(feed: Feed) -> None:
    found = shown(feed)
    assert found.texts("h2") == ["Deliveries", "Triggers", "Last changes"]
    assert found.texts("p", **{"class": "empty"}) == [
        "Nothing failed.",
        "There are none: see triggers.toml.",
        "There are none yet.",
    ]
    assert found.texts("span", **{"class": "badge calm"}) == ["not synced yet"]


def test_how_fresh_the_feed_is(feed: Feed) -> None:
    add(feed, *(a_change(n) for n in range(1, 4)))
    webhook_inbox.record(feed.store, "evt_x", NOW)
    found = shown(feed, synced_at=NOW - 90, error=None)
    facts = dict(zip(found.texts("dt"), found.texts("dd"), strict=True))

    assert facts == {
        "Synced": "1 minute ago",
        "Newest change": "59 minutes ago",
        "Changes in the feed": "3",
        "Events to read": "1",
    }
    assert found.all("time")[0] == {
        "datetime": "2026-01-01T00:58:30Z",
        "title": "2026-01-01 00:58:30 UTC",
    }
    assert found.texts("span", **{"class": "badge good"}) == ["up to date"]
    assert shown(feed, synced_at=NOW, error="RateLimited").texts(
        "span", **{"class": "badge bad"}
    ) == ["failing: RateLimited"]


def test_the_last_changes_with_before_and_after_of_what_changed(feed: Feed) -> None:
    image = {
        "id": "sub_1",
        "status": "past_due",
        "plan": {"name": "pro", "seats": 3},
        "email": "not changed",
        "trial": None,
    }
    add(
        feed,
        a_change(
            1,
            after=image,
            previous={"status": "active", "plan": {"seats": 2}, "trial": 5},
            changed=["status", "plan.seats", "trial"],
        ),
        a_change(
            2,
            "cus_2",
            "c",
            resource="customers",
            after={
                "id": "cus_2",
                "object": "customer",
                "name": "Zoë",
                "phone": None,
                "address": {},
            },
            event_type=None,
            previous=None,
            before_quality="none",
        ),
        a_change(
            3,
            "cus_2",
            "d",
            resource="customers",
            previous={"id": "cus_2", "object": "customer", "name": "Zoë"},
            event_type="customer.deleted",
            late=True,
        ),
        a_change(
            4, before_quality="none", after={"id": "sub_1", "status": "s"}, changed=["status"]
        ),
        a_change(5, after=None, previous=None, changed=["status"]),
    )
    found = shown(feed)

    assert [one["data-offset"] for one in found.all("article")] == ["5", "4", "3", "2", "1"]
    titles = [
        "customer.subscription.updated",
        "customer.subscription.updated",
        "customer.deleted",
        "customers added",
        "customer.subscription.updated",
    ]
    assert found.texts("h3") == titles
    cells = list(
        zip(
            found.texts("th", scope="row"),
            found.texts("td")[::2],
            found.texts("td")[1::2],
            strict=True,
        )
    )
    assert cells == [
        ("status", "unknown", "s"), ("id", "cus_2", "nothing"), ("name", "Zoë", "nothing"), ("id", "nothing", "cus_2"), ("name", "nothing", "Zoë"),
        ("status", "active", "past_due"), ("plan.seats", "2", "3"), ("trial", "5", "nothing"),
    ]  # fmt: skip
    assert "not changed" not in "".join(found.texts("body"))
    assert found.texts("span", **{"class": "badge warn"}) == ["late"]
    assert "The object was forgotten." in found.texts("p", **{"class": "empty"})


def test_only_the_last_changes_and_not_too_much_of_each(feed: Feed) -> None:
    add(feed, *(a_change(n) for n in range(1, 71)))
    wide = {"id": "sub_1", **{f"f{n}": "x" * 5_000 for n in range(60)}}
    add(
        feed, a_change(71, after=wide, previous={}, changed=[name for name in wide if name != "id"])
    )
    found = shown(feed)

    assert len(found.all("article")) == 50
    assert len(found.texts("th", scope="row")) == 49 + 40
    assert "20 more paths changed." in found.texts("p", **{"class": "empty"})
    assert max(map(len, found.texts("td"))) < 450


def test_what_triggers_do(feed: Feed) -> None:
    crm = a_trigger("crm", "https://user:hidden@hooks.example.com/T00/hidden")
    run_triggers(feed.store, [crm, a_trigger("gone")], NOW - 200)
    add(feed, a_change(1), a_change(2))
    run_triggers(feed.store, [crm], NOW - 120)
    found = shown(feed, [crm, a_trigger("new")])

    assert found.texts("h3")[:3] == ["crm", "new", "gone"]
    assert "Fired2Last2 minutes agoMessages2 waitingTohttps://hooks.example.com/…" in found.texts(
        "dl"
    )
    assert "Fired0LastneverMessagesnoneTonot in the file any more" in found.texts("dl")
    assert "hidden" not in str(found.found)
    for column, why, state in (
        ("held", "it would fire 9,999 times", "held"),
        ("disabled", "it answers 410 Gone", "disabled"),
    ):
        feed.store.query(f"update triggers set {column} = ? where name = 'crm'", why)
        found = shown(feed, [crm])
        assert [state in found.texts("span"), why in found.texts("p")] == [True, True]


@pytest.mark.checklist("H18")
def test_what_pushes_did(feed: Feed) -> None:
    assert not shown(feed).all("section", id="pushes")
    note_ends(
        feed.store,
        lambda: NOW - 120,
        crm="failed",
        erp="healthy",
        legacy="killed",
        people="warning",
    )
    found = shown(feed)
    assert found.texts("h2")[2] == "Pushes"
    names = ["crm", "erp", "legacy", "people"]
    assert [text for text in found.texts("h3") if text in names] == names
    badges = [text for text in found.texts("span") if text in (*PUSH_STATES, "did not end")]
    assert badges == ["failed", "healthy", "healthy", "did not end", "warning"]
    facts = list(zip(found.texts("dt"), found.texts("dd"), strict=True))
    assert [value for name, value in facts if name == "Rejected"] == ["0", "0", "0", "1"]
    assert [value for name, value in facts if name == "Rows"] == [
        "3 not sent", "3 created, 12,345 unchanged", "none", "2 created",
    ]  # fmt: skip
    assert [value for name, value in facts if name == "Last run"] == ["2 minutes ago"] * 4
    assert "stripe-feed push show 4 --rejected" in found.texts("code")
    assert "Stripe cannot be reached: name is too long." in found.texts("p")


def test_a_script_in_the_words_of_a_push_is_text(feed: Feed) -> None:
    with PushLog("noted.sqlite", lambda: NOW) as log:
        note_end(log, "failed", reason="<script>x</script>")
        note_runs(feed.store, log)
    page = render_page(read_overview(feed.store), (), {}, KEY, NOW)
    assert "<script>x" not in page and "&lt;script&gt;x" in page


def test_dead_letters_have_a_button_each_and_others_that_fail_have_none(feed: Feed) -> None:
    (dead,) = give_up(feed, "crm", note="no such route")
    add(feed, a_change(2, "sub_2"))
    run_triggers(feed.store, [a_trigger("crm")], NOW)
    (failing,) = outbox.find(feed.store, states=("waiting",))
    with feed.store.transaction() as db:
        outbox.record_attempt(db, failing, Attempt(NOW, 0.1, "timeout", ""), "waiting", NOW + 300)
    found = shown(feed)

    assert found.all("form") == [{"method": "post", "action": "/retry"}]
    assert [(one["name"], one["value"]) for one in found.all("input")] == [
        ("key", KEY),
        ("message_id", dead),
    ]
    assert found.all("button") == [{"type": "submit", "aria-label": "Retry crm for sub_1"}]
    letters = [words for words in found.texts("li") if "sub_" in words]
    assert ["500: no such route" in words for words in letters] == [True, False]
    assert "Last answertimeoutAttempts1Next tryin 5 minutes" in letters[1]


def test_a_receiver_that_is_down_is_one_line(feed: Feed) -> None:
    run_triggers(feed.store, [a_trigger("crm"), a_trigger("other")], NOW)
    add(feed, *(a_change(n, f"sub_{n}") for n in range(1, 101)))
    run_triggers(feed.store, [a_trigger("crm")], NOW)
    with feed.store.transaction() as db:
        for one in outbox.find(feed.store, states=("waiting",)):
            outbox.record_attempt(
                db, one, Attempt(NOW, 0.1, "503", ""), "waiting", NOW + 300 + one.number
            )
    (card,) = [words for words in shown(feed, [a_trigger("crm")]).texts("li") if "503" in words]

    assert card.startswith("crmsub_1 ") and " and 99 more" in card


def test_a_trigger_that_is_in_no_file_any_more_says_so(feed: Feed) -> None:
    run_triggers(feed.store, [a_trigger("gone")], NOW)
    assert shown(feed, [a_trigger("crm")]).texts("span", **{"class": "badge calm"})[1:] == [
        "new",
        "deleted",
    ]


def test_times_and_money_are_for_people_and_ids_lead_to_stripe(feed: Feed) -> None:
    image = {
        "id": "in_1",
        "currency": "jpy",
        "total": 1250,
        "due_date": 1_767_225_600,
        "amount_due": None,
        "attempt_count": 3,
    }
    old = {"currency": "eur", "total": 1250}
    paths = ["total", "due_date", "amount_due", "attempt_count"]
    ids: dict[str, Any] = {"account_id": "acct_1", "livemode": False}
    add(
        feed,
        a_change(1, "in_1", resource="invoices", after=image, previous=old, changed=paths, **ids),
        a_change(2, "sub_1", **{**ids, "livemode": True}),
        a_change(3, "sub_2", op="d", **ids),
        a_change(4, "a/../b", **ids),
    )
    found = shown(feed)

    assert found.texts("td")[-8:-4] == [
        "12.50 EUR",
        "1250 JPY",
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:00:00Z",
    ]
    assert found.texts("td")[-2:] == ["3", "3"]
    places = [one["href"] for one in found.all("a") if "class" not in one]
    assert places == [
        "https://dashboard.stripe.com/acct_1/subscriptions/sub_1",
        "https://dashboard.stripe.com/acct_1/test/invoices/in_1",
    ]


HOSTILE: dict[str, Any] = {
    "object_id": SCRIPT, "customer_id": SCRIPT, "event_type": SCRIPT, "event_id": SCRIPT, "api_version": SCRIPT, "request_id": SCRIPT,
    "request_idempotency_key": SCRIPT, "context": SCRIPT, "account_id": SCRIPT, "change_id": SCRIPT,
}  # fmt: skip


def test_a_script_in_every_text_is_text(feed: Feed) -> None:
    image = {
        SCRIPT: SCRIPT,
        "id": SCRIPT,
        "name": SCRIPT,
        "metadata": {SCRIPT: SCRIPT},
        "tags": [SCRIPT],
    }
    changed = [SCRIPT, "name", f"metadata.{SCRIPT}", "tags"]
    run_triggers(feed.store, [a_trigger("crm")], NOW)
    add(
        feed,
        a_change(
            1, **HOSTILE, after=image, previous={**image, "name": SCRIPT + SCRIPT}, changed=changed
        ),
        a_change(
            2,
            **HOSTILE | {"change_id": SCRIPT + "2"},
            op="c",
            after=image,
            previous=None,
            before_quality="none",
        ),
        a_change(
            3, **HOSTILE | {"change_id": SCRIPT + "3"}, op="d", previous=image, resource="customers"
        ),
    )
    run_triggers(feed.store, [a_trigger("crm")], NOW)
    feed.store.query("update triggers set name = ?", SCRIPT)
    feed.store.query("update messages set trigger = ?", SCRIPT)
    feed.store.query(
        "update messages set lane = ?, object_id = ?, resource = ?, tries = 1",
        SCRIPT,
        SCRIPT,
        SCRIPT,
    )
    feed.store.query("update messages set state = 'dead', message_id = ? where number = 1", SCRIPT)
    for one in outbox.find(feed.store):
        feed.store.query(
            "insert into attempts values (?, 1, ?, 1, ?, ?)", one.message_id, NOW, SCRIPT, SCRIPT
        )
    feed.store.query("update triggers set held = ?, disabled = ?", SCRIPT, SCRIPT)
    found = shown(feed, [a_trigger(SCRIPT, f"https://{SCRIPT}/")], synced_at=NOW, error=SCRIPT)

    assert found.all("script") == [{"src": "/page.js", "defer": ""}]
    assert found.all("img") == []
    assert not [
        name
        for _, attributes, _ in found.found
        for name in attributes
        if name.startswith("on") or name == "style"
    ]
    everything = "".join(found.texts("html"))
    assert everything.count(SCRIPT) > 25
    assert [one["value"] for one in found.all("input", name="message_id")] == [SCRIPT]


@pytest.mark.parametrize(
    ("given", "shown"),
    [("a\u202eb", "a\ufffdb"), ("a\x00b\x1b[2J", "a\ufffdb\ufffd[2J"), ("\ud800", "\ufffd"), ("\u2066x\u2069", "\ufffdx\ufffd"), ("tab\tline\n", "tab\tline\n"), ("Zoë 名前 שלום", "Zoë 名前 שלום")],
)  # fmt: skip
def test_characters_that_would_change_others_are_not_shown(given: str, shown: str) -> None:
    assert escape_text(given) == shown
    assert tag("p", given, title=given) == f'<p title="{shown}">{shown}</p>'


def test_the_page_can_be_read_without_eyes(feed: Feed) -> None:
    give_up(feed, "crm")
    found = shown(feed, [a_trigger("crm")])

    assert found.all("html") == [{"lang": "en"}]
    assert [len(found.all(name)) for name in ("main", "h1", "title", "footer")] == [1, 1, 1, 1]
    ids = [attributes["id"] for _, attributes, _ in found.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(one["aria-labelledby"] in ids for one in found.all("section"))
    assert all(one.get("aria-label") for name in ("table", "button") for one in found.all(name))
    assert {one.get("scope") for one in found.all("th")} == {"row", "col"}
    levels = [int(name[1]) for name, _, _ in found.found if re.fullmatch("h[1-6]", name)]
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    assert found.all("a", **{"class": "skip"})[0]["href"].removeprefix("#") in ids


def test_everything_comes_from_here(feed: Feed) -> None:
    found = shown(feed)
    loaded = [
        attributes.get("src") or attributes.get("href")
        for name, attributes, _ in found.found
        if name in ("script", "link")
    ]
    assert loaded == ["/icon.svg", "/page.css", "/page.js"]
    for name in ("page.css", "page.js", "icon.svg"):
        words = (
            Path(render_page.__globals__["__file__"]).with_name(name).read_text(encoding="utf-8")
        )
        assert not re.search(
            r"https?:|//[a-z]|innerHTML|eval\(|@import",
            words.replace("http://www.w3.org/2000/svg", ""),
        )


# Over HTTP


@pytest.fixture
def web(feed: Feed) -> Iterator[Web]:
    with served(feed, triggers=[a_trigger("crm")]) as web:
        yield web


def key_in(web: Web, **headers: str) -> str:
    return Tree(web.get("/", **headers).body.decode()).all("input", name="key")[0]["value"]


def pressed(web: Web, key: str, message_id: str, **headers: str) -> Any:
    form = urlencode({"key": key, "message_id": message_id})
    return web.post(
        "/retry", form, **{"Content_Type": "application/x-www-form-urlencoded", **headers}
    )


def states(feed: Feed) -> list[str]:
    return [one.state for one in outbox.find(feed.store)]


def test_the_page_and_what_it_loads_over_http(web: Web) -> None:
    answer = web.get("/")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.headers["content-security-policy"].startswith("default-src 'self'; ")
    for path, kind in (
        ("/page.css", "text/css"),
        ("/page.js", "text/javascript"),
        ("/icon.svg", "image/svg+xml"),
    ):
        loaded = web.get(path)
        assert (
            loaded.status,
            loaded.headers["content-type"].partition(";")[0],
            bool(loaded.body),
        ) == (200, kind, True)


def test_the_button_puts_a_dead_letter_back(web: Web, feed: Feed) -> None:
    (dead,) = give_up(feed, "crm")
    here = {"Origin": f"http://127.0.0.1:{web.port}", "Sec_Fetch_Site": "same-origin"}
    answer = pressed(web, key_in(web), dead, **here)

    assert (answer.status, answer.headers["location"]) == (303, "/")
    (message,) = outbox.next_due(feed.store, "crm", NOW, NOW, False, 9)
    assert (message.message_id, message.tries) == (dead, 0)
    assert Tree(web.get("/").body.decode()).all("form") == []


def test_a_script_that_presses_it_gets_what_was_done(web: Web, feed: Feed) -> None:
    (dead,) = give_up(feed, "crm")
    key = key_in(web)
    assert pressed(web, key, dead, Accept="application/json").json == {"retried": dead}
    again = pressed(web, key, dead, Accept="application/json")
    assert (again.status, "not a dead message" in again.error) == (400, True)


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}],
)
def test_no_page_of_another_origin_presses_it(
    web: Web, feed: Feed, headers: dict[str, str]
) -> None:
    (dead,) = give_up(feed, "crm")
    assert pressed(web, key_in(web), dead, **headers).status == 403
    assert states(feed) == ["dead"]


@pytest.mark.parametrize("key", ["", "x", "é"])
def test_nobody_presses_it_without_having_read_the_page(web: Web, feed: Feed, key: str) -> None:
    (dead,) = give_up(feed, "crm")
    assert pressed(web, key, dead).status == 403
    assert states(feed) == ["dead"]


def test_a_form_without_a_message_retries_nothing(web: Web, feed: Feed) -> None:
    give_up(feed, "crm", "cio")
    key = key_in(web)
    assert [pressed(web, key, "").status, web.post("/retry", urlencode({"key": key})).status] == [
        400,
        400,
    ]
    assert states(feed) == ["dead", "dead"]


def test_the_button_needs_the_token_too(web: Web, feed: Feed) -> None:
    (dead,) = give_up(feed, "crm")
    key = key_in(web)
    assert pressed(web, key, dead, Authorization="").status == 401
    assert pressed(web, key, dead, Authorization=basic(web.serving.token)).status == 303
    assert states(feed) == ["waiting"]


def test_a_key_is_of_one_run(feed: Feed) -> None:
    (dead,) = give_up(feed, "crm")
    with served(feed) as web:
        key = key_in(web)
    with served(feed) as web:
        assert key_in(web) != key
        assert pressed(web, key, dead).status == 403


HEADLINE = Headline(
    datetime(2026, 11, 30, 12, 0),
    date(2026, 11, 1),
    12_345,
    (
        CurrencyHeadline("eur", 123_456_78, -1_00, 9_876, 2, 50_00),
        CurrencyHeadline("jpy", 1_234, 0, 3, 0, 0),
        CurrencyHeadline("kwd", overdue_invoices=1, overdue_amount=1_500),
    ),
)


def test_the_figures_of_the_models_are_shown_currency_by_currency(feed: Feed) -> None:
    page = Tree(render_page(read_overview(feed.store), (), {}, KEY, NOW, HEADLINE))

    facts = list(zip(page.texts("dt"), page.texts("dd"), strict=True))
    assert facts[-9:] == [
        ("MRR", "123,456.78"), ("This month", "-1.00"), ("Subscribers", "9,876"), ("Overdue", "50.00 (2 invoices)"),
        ("MRR", "1,234"), ("This month", "0"), ("Subscribers", "3"), ("Overdue", "0 (0 invoices)"),
        ("Overdue", "1.500 (1 invoice)"),
    ]  # fmt: skip
    assert any(
        text.startswith("12,345 active subscribers in all currencies.") for text in page.texts("p")
    )
    assert "Figures" not in shown(feed).texts("h2")


def test_the_figures_are_read_again_when_they_may_have_changed_and_stand_while_the_copy_is_busy() -> (
    None
):
    said: list[Any] = [
        SetupError("no copy"),
        HEADLINE,
        Locked("busy"),
        replace(HEADLINE, currencies=()),
        HEADLINE,
    ]
    clock, mark = [NOW], [1]

    def read(question: Any, wait: float) -> Headline:
        assert (question, wait) == (read_headline, 0.0)
        answer = said.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return cast(Headline, answer)

    cache = HeadlineCache(read, lambda: mark[0], lambda: clock[0])

    assert cache.get() is None and cache.get() is None
    mark[0] = 2
    assert cache.get() is HEADLINE and cache.get() is HEADLINE
    mark[0] = 3
    assert cache.get() is HEADLINE  # another process loads
    assert cache.get() == replace(HEADLINE, currencies=())
    clock[0] += 61
    assert cache.get() is HEADLINE
    assert said == []
