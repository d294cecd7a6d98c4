"""The status page: how fresh the feed is, what changed, what triggers do, and which deliveries failed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import Any

from ..currencies import in_major_units
from ..delivery.outbox import COLUMNS, Attempt, Message, attempts, counts
from ..delivery.payloads import as_iso
from ..feed.change import OP_WORDS, Change, iso
from ..feed.paths import value_at
from ..feed.storage.push_states import LastRun, last_runs
from ..feed.storage.schema import UNFINISHED
from ..feed.storage.store import FeedStore
from ..markup import Html, join_elements, tag
from ..report.page import format_money
from ..report.reading import CurrencyHeadline, Headline
from ..resources import RESOURCES
from ..triggers.models.evaluate import watched_rows
from ..triggers.models.model_trigger import AnyTrigger
from ..wording import counted
from .webhook_inbox import unread

_MAX_CHANGES = 50
MAX_MESSAGES = 50  # of each kind
MAX_PATHS = 40  # of one change
MAX_VALUE_LENGTH = 400
MAX_UNREAD = 1_000
COLUMNS_BY_TABLE = {
    name: {column.name: column for column in row.columns} for name, row in RESOURCES.items()
}
SAFE_ID = re.compile(r"[A-Za-z0-9_]{1,255}")  # of ids in links
TIME_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


@dataclass(frozen=True, slots=True)
class Overview:
    """What the page shows, from one transaction of the store."""

    head: int
    unread_events: int
    changes: list[Change]
    trigger_states: Mapping[
        str, Sequence[Any]
    ]  # by trigger: fired, fired_at, held, disabled, failing_since
    watched: Mapping[str, tuple[int, float]]  # by trigger on a model: rows, when evaluated
    counts: Mapping[str, Mapping[str, int]]
    dead: list[tuple[Message, Attempt | None]]
    failing: list[
        tuple[Message, Attempt | None, int]
    ]  # of each trigger, the one due next; how many
    pushes: list[LastRun]


def read_overview(store: FeedStore) -> Overview:
    """Read what the page shows."""
    with store.transaction("deferred"):
        rows = store.query(
            "select name, fired, fired_at, held, disabled, failing_since from triggers order by name"
        )
        return Overview(
            store.head,
            len(unread(store, MAX_UNREAD)),
            store.newest(_MAX_CHANGES)[::-1],
            {row[0]: row[1:] for row in rows},
            watched_rows(store),
            counts(store),
            _messages(store, "state = 'dead'", "ended_at desc"),
            _failing_messages(store),
            last_runs(store),
        )


def _messages(store: FeedStore, where: str, order: str) -> list[tuple[Message, Attempt | None]]:
    messages_query = f"messages indexed by messages_lanes where state in ({UNFINISHED})"  # fast, however many were sent
    rows = store.query(
        f"select {COLUMNS} from {messages_query} and {where} order by {order} limit ?", MAX_MESSAGES
    )
    messages = [Message(*row) for row in rows]
    return [(one, next(reversed(attempts(store, one.message_id)), None)) for one in messages]


def _failing_messages(store: FeedStore) -> list[tuple[Message, Attempt | None, int]]:
    """One message per trigger that is being retried: an endpoint that is down has thousands."""
    # the first condition matches a partial index without the sent messages
    where = f"state in ({UNFINISHED}) and state = 'waiting' and tries > 0"
    rows = store.query(
        f"select trigger, count(*) from messages where {where} group by trigger order by trigger limit ?",
        MAX_MESSAGES,
    )
    failing = []
    for trigger, count in rows:
        next_due = f"select {COLUMNS} from messages where {where} and trigger = ? order by due_at, number limit 1"
        (row,) = store.query(next_due, trigger)
        one = Message(*row)
        failing.append((one, next(reversed(attempts(store, one.message_id)), None), int(count)))
    return failing


def render_page(
    shown: Overview,
    triggers: Sequence[AnyTrigger],
    health: Mapping[str, Any],
    key: str,
    now: float,
    headline: Headline | None = None,
) -> str:
    """Render the page. `key` is part of every form, so that only this page can send one; `headline`:
    the figures of the models, if they are built.
    """
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", "stripe-feed"),
        tag("link", rel="icon", href="/icon.svg", type="image/svg+xml"),
        tag("link", rel="stylesheet", href="/page.css"),
        tag("script", src="/page.js", defer=""),
    )
    sections = (
        *([_headline_section(headline, now)] if headline and headline.currencies else []),
        _deliveries(shown, key, now),
        _trigger_section(shown, triggers, now),
        *([_push_section(shown, now)] if shown.pushes else []),
        _change_section(shown, now),
    )
    body = tag(
        "body",
        tag("a", "Skip to the changes", href="#changes", class_="skip"),
        _header(shown, health, now),
        tag("p", role="status", aria_live="polite", id="said"),
        tag("main", *sections),
        tag("footer", "This page reads the feed on this machine; it sends nothing anywhere else."),
    )
    return "<!doctype html>" + tag("html", head, body, lang="en")


def _header(shown: Overview, health: Mapping[str, Any], now: float) -> Html:
    error, synced = health.get("error"), health.get("synced_at")
    newest = shown.changes[0].occurred_at.timestamp() if shown.changes else None
    more = "+" if shown.unread_events == MAX_UNREAD else ""
    facts = {
        "Synced": _relative_time(synced, now),
        "Newest change": _relative_time(newest, now),
        "Changes in the feed": f"{shown.head:,}",
        "Events to read": f"{shown.unread_events:,}{more}",
    }
    if error:
        state = _badge(f"failing: {error}", "bad")
    elif synced:
        state = _badge("up to date", "good")
    else:
        state = _badge("not synced yet", "calm")
    listed = join_elements(
        tag("div", tag("dt", name), tag("dd", value)) for name, value in facts.items()
    )
    return tag(
        "header",
        tag("div", tag("h1", "stripe-feed"), state, class_="name"),
        tag("dl", listed, class_="facts"),
    )


def _headline_section(headline: Headline, now: float) -> Html:
    cards = join_elements(map(_currency_card, headline.currencies))
    active = headline.active_subscribers
    people = "" if active is None else f"{active:,} active subscribers in all currencies. "
    as_of = headline.as_of.replace(tzinfo=timezone.utc).timestamp() if headline.as_of else None
    about = tag("p", people, "MRR was computed ", _relative_time(as_of, now), ".")
    return _section("figures", "Figures", about, tag("ul", cards, class_="cards"))


def _currency_card(one: CurrencyHeadline) -> Html:
    """What a currency's models say; figures whose model is not built are left out."""
    money = partial(format_money, currency=one.currency)
    facts = {
        "MRR": None if one.mrr is None else money(one.mrr),
        "This month": None if one.mrr_change is None else money(one.mrr_change),
        "Subscribers": None if one.subscribers is None else f"{one.subscribers:,}",
        "Overdue": None
        if one.overdue_amount is None
        else f"{money(one.overdue_amount)} ({counted(one.overdue_invoices or 0, 'invoice')})",
    }
    listed = join_elements(
        tag("div", tag("dt", name), tag("dd", value))
        for name, value in facts.items()
        if value is not None
    )
    return tag("li", tag("h3", one.currency.upper()), tag("dl", listed), class_="card")


def _badge(words: str, kind: str) -> Html:
    return tag("span", words, class_=f"badge {kind}")


def _relative_time(at: float | None, now: float) -> object:
    """A time relative to now."""
    if at is None:
        return "never"
    when = datetime.fromtimestamp(at, timezone.utc)
    return tag(
        "time", _format_span(now - at), datetime=iso(when), title=f"{when:%Y-%m-%d %H:%M:%S} UTC"
    )


def _format_span(seconds: float) -> str:
    size, unit = next(
        ((size, unit) for size, unit in TIME_UNITS if abs(seconds) >= size), (1, "second")
    )
    count = int(abs(seconds) // size)
    if not count:
        return "now"
    words = counted(count, unit)
    return f"in {words}" if seconds < 0 else f"{words} ago"


def _section(name: str, title: str, *inside: object) -> Html:
    return tag(
        "section",
        tag("h2", title, id=f"{name}-title"),
        *inside,
        id=name,
        aria_labelledby=f"{name}-title",
    )


def _deliveries(shown: Overview, key: str, now: float) -> Html:
    if not shown.dead and not shown.failing:
        return _section("troubles", "Deliveries", tag("p", "Nothing failed.", class_="empty"))
    parts = []
    if shown.dead:
        total = sum(one.get("dead", 0) for one in shown.counts.values())
        cards = join_elements(_message_card(one, last, now, key) for one, last in shown.dead)
        parts += [tag("h3", f"Given up ({total:,})"), tag("ul", cards, class_="cards", id="dead")]
    if shown.failing:
        cards = join_elements(
            _message_card(one, last, now, None, count) for one, last, count in shown.failing
        )
        parts += [tag("h3", "Tried again later"), tag("ul", cards, class_="cards", id="failing")]
    return _section("troubles", "Failing deliveries", *parts)


def _message_card(
    one: Message, last: Attempt | None, now: float, key: str | None, count: int = 1
) -> Html:
    """A failed message, with a button if no more attempts follow. `count`: how many fail like it."""
    why = f"{last.code}{f': {last.note}' if last.note else ''}" if last else "no attempt"
    when = (
        ("given up", _relative_time(one.ended_at, now))
        if key
        else ("next try", _relative_time(one.due_at, now))
    )
    facts = {"Last answer": why, "Attempts": one.tries, when[0].capitalize(): when[1]}
    listed = join_elements(
        tag("div", tag("dt", name), tag("dd", value)) for name, value in facts.items()
    )
    others = f" and {count - 1:,} more" if count > 1 else ""
    return tag(
        "li",
        tag("h4", one.trigger),
        tag("p", tag("code", one.object_id), " ", tag("small", one.message_id), others),
        tag("dl", listed),
        _retry_form(one, key) if key else "",
        class_="card bad" if key else "card",
    )


def _retry_form(one: Message, key: str) -> Html:
    return tag(
        "form",
        tag("input", type="hidden", name="key", value=key),
        tag("input", type="hidden", name="message_id", value=one.message_id),
        tag(
            "button", "Retry", type="submit", aria_label=f"Retry {one.trigger} for {one.object_id}"
        ),
        method="post",
        action="/retry",
    )


def _trigger_section(shown: Overview, triggers: Sequence[AnyTrigger], now: float) -> Html:
    receivers = {one.name: one.deliver.shown for one in triggers}
    names = [*receivers, *(name for name in shown.trigger_states if name not in receivers)]
    if not names:
        return _section(
            "triggers", "Triggers", tag("p", "There are none: see triggers.toml.", class_="empty")
        )
    cards = join_elements(_trigger_card(shown, name, receivers.get(name), now) for name in names)
    return _section("triggers", "Triggers", tag("ul", cards, class_="cards"))


def _trigger_card(shown: Overview, name: str, receiver: str | None, now: float) -> Html:
    state_row = shown.trigger_states.get(name)
    fired, fired_at, held, disabled, failing = state_row or (0, None, None, None, None)
    states = (
        (receiver is None, "deleted", "calm", None),
        (disabled, "disabled", "bad", disabled),
        (held, "held", "warn", held),
        (failing, "failing", "warn", None),
        (state_row, "on", "good", None),
        (True, "new", "calm", None),
    )
    state, kind, why = next((state, kind, why) for holds, state, kind, why in states if holds)
    message_counts = ", ".join(
        f"{count:,} {state}" for state, count in sorted(shown.counts.get(name, {}).items())
    )
    watched = shown.watched.get(name)
    facts: dict[str, object] = {
        "Fired": f"{fired:,}",
        "Last": _relative_time(fired_at, now),
        **({"Watches": counted(watched[0], "row")} if watched else {}),
        **({"Evaluated": _relative_time(watched[1], now)} if watched else {}),
        "Messages": message_counts or "none",
        "To": "not in the file any more" if receiver is None else receiver,
    }
    listed = join_elements(
        tag("div", tag("dt", key), tag("dd", value)) for key, value in facts.items()
    )
    return tag(
        "li",
        tag("div", tag("h3", name), _badge(state, kind), class_="name"),
        tag("p", why) if why else "",
        tag("dl", listed),
        class_="card",
    )


def _push_section(shown: Overview, now: float) -> Html:
    cards = join_elements(_push_card(one, now) for one in shown.pushes)
    return _section("pushes", "Pushes", tag("ul", cards, class_="cards"))


def _push_card(one: LastRun, now: float) -> Html:
    """The last run of a push. What stopped it comes first."""
    failed = sum(one.counts.get(name, 0) for name in ("rejected", "unknown"))
    ended = {name: count for name, count in one.counts.items() if count and name != "rejected"}
    facts = {
        "Last run": _relative_time(one.ended_at or one.started_at, now),
        "Rows": ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in ended.items())
        or "none",
        "Rejected": f"{one.counts.get('rejected', 0):,}",
        "To": f"{one.object or 'unknown'}, {one.mode or 'unknown'}",
    }
    listed = join_elements(
        tag("div", tag("dt", key), tag("dd", value)) for key, value in facts.items()
    )
    command = f"stripe-feed push show {one.run} --rejected"
    return tag(
        "li",
        tag("div", tag("h3", one.push), *_push_badges(one), class_="name"),
        tag("p", one.error) if one.error else "",
        tag("dl", listed),
        tag("p", tag("code", command)) if failed else "",
        class_="card bad" if one.state == "failed" else "card",
    )


def _push_badges(one: LastRun) -> list[Html]:
    kind = {"failed": "bad", "warning": "warn"}.get(one.state, "good")
    return [
        _badge(one.state, kind),
        *([_badge("did not end", "warn")] if one.ended_at is None else []),
    ]


def _change_section(shown: Overview, now: float) -> Html:
    if not shown.changes:
        return _section("changes", "Last changes", tag("p", "There are none yet.", class_="empty"))
    return _section(
        "changes", "Last changes", join_elements(_change_card(one, now) for one in shown.changes)
    )


def _change_card(one: Change, now: float) -> Html:
    what = one.event_type or f"{one.resource} {OP_WORDS[one.op]}"
    head = tag(
        "header",
        _badge(OP_WORDS[one.op], {"c": "good", "d": "bad"}.get(one.op, "calm")),
        tag("h3", what),
        _object_link(one),
        _badge("late", "warn") if one.late else "",
        tag("span", _relative_time(one.occurred_at.timestamp(), now), class_="when"),
    )
    return tag("article", head, _difference_table(one), class_="change", data_offset=one.offset)


def _object_link(one: Change) -> Html:
    """The object's id, as a link to Stripe's Dashboard if there is a page for it."""
    code = tag("code", one.object_id)
    if (
        one.op == "d"
        or one.resource not in RESOURCES
        or not (SAFE_ID.fullmatch(one.object_id) and SAFE_ID.fullmatch(one.account_id or ""))
    ):
        return code
    mode = "" if one.livemode else "/test"
    url = f"https://dashboard.stripe.com/{one.account_id}{mode}/{one.resource}/{one.object_id}"
    return tag("a", code, href=url, rel="noreferrer", aria_label=f"{one.object_id} at Stripe")


def _difference_table(one: Change) -> Html:
    before, after = one.before, one.after
    if before is None and after is None:
        return tag("p", "The object was forgotten.", class_="empty")
    paths = one.changed or _scalar_fields(before or after or {})
    rows = join_elements(_difference_row(path, before, after, one) for path in paths[:MAX_PATHS])
    more = (
        tag("p", f"{len(paths) - MAX_PATHS} more paths changed.", class_="empty")
        if len(paths) > MAX_PATHS
        else ""
    )
    if not paths:
        return tag("p", "No field changed.", class_="empty")
    head = tag(
        "thead", tag("tr", *(tag("th", name, scope="col") for name in ("Field", "Before", "After")))
    )
    label = f"What changed of {one.object_id}"
    return join_elements([tag("table", head, tag("tbody", rows), aria_label=label), Html(more)])


def _difference_row(path: str, before: Any, after: Any, one: Change) -> Html:
    old = (
        "unknown" if before is None and one.op == "u" else _format_value(one.resource, before, path)
    )
    new = _format_value(one.resource, after, path)
    return tag("tr", tag("th", path, scope="row"), _cell(old, "old"), _cell(new, "new"))


def _cell(value: str, kind: str) -> Html:
    return tag(
        "td",
        tag("del" if kind == "old" else "ins", value)
        if value
        else tag("span", "nothing", class_="none"),
    )


def _format_value(resource: str, image: Any, path: str) -> str:
    """The value of an image at a path, with times and amounts formatted for people."""
    value = value_at(image, path)
    column = COLUMNS_BY_TABLE.get(resource, {}).get(path)
    if column is not None and column.kind == "timestamp" and (when := as_iso(value)):
        return when
    if column is not None and column.kind == "bigint" and "minor units" in column.description:
        currency = image.get("currency") if isinstance(image, Mapping) else None
        if (amount := in_major_units(value, currency)) is not None:
            return f"{amount} {str(currency).upper()}"
    if value is None:
        return ""
    formatted = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return (
        formatted
        if len(formatted) <= MAX_VALUE_LENGTH
        else f"{formatted[:MAX_VALUE_LENGTH]} … ({len(formatted):,} characters)"
    )


def _scalar_fields(image: Mapping[str, Any]) -> list[str]:
    """The non-empty scalar fields of a new or deleted object."""
    return [
        name
        for name, value in image.items()
        if name != "object" and value not in (None, "") and not isinstance(value, dict | list)
    ]


def page_files() -> Iterator[tuple[str, str, bytes]]:
    """Yield the files that the page loads: path, content type, content."""
    from importlib.resources import files as of

    for name, kind in (
        ("page.css", "text/css"),
        ("page.js", "text/javascript"),
        ("icon.svg", "image/svg+xml"),
    ):
        yield (
            f"/{name}",
            f"{kind}; charset=utf-8",
            of("stripe_feed.server").joinpath(name).read_bytes(),
        )
