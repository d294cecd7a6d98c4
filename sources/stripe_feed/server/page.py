"""One page for a person: how fresh the feed is, what changed, what triggers do, and what could not
be delivered.

Names and texts are written by strangers. Markup is made by `tag` only, which escapes every text
that is put into it.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ..delivery.outbox import COLUMNS, Attempt, Message, attempts, counts
from ..delivery.payloads import as_iso, in_major_units
from ..feed.change import OP_WORDS, Change, iso
from ..feed.paths import value_at
from ..feed.storage.schema import UNFINISHED
from ..feed.storage.store import FeedStore
from ..resources import RESOURCES
from ..triggers.trigger import Trigger
from .webhook_inbox import unread

CHANGES = 50
LETTERS = 50  # of each kind
PATHS = 40  # of one change
LONGEST = 400  # characters of a value
RINGS = 1_000
COLUMNS_OF = {
    name: {column.name: column for column in row.columns} for name, row in RESOURCES.items()
}
PLAIN = re.compile(r"[A-Za-z0-9_]{1,255}")  # of ids that go into a link
ODD = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f\x85\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)  # would change what is beside them
SPANS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


class Html(str):
    """Markup. Any other text is escaped where it is put in."""


def tag(name: str, /, *inside: object, **attributes: object) -> Html:
    """An element. Underscores in the names of attributes stand for hyphens; one that is None is
    left out.
    """
    said = "".join(
        f' {key.strip("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(
        f"<{name}{said}>{''.join(map(text, inside))}{'' if name in ('meta', 'link', 'input') else f'</{name}>'}"
    )


def text(value: object) -> str:
    """Markup as it is, anything else escaped, without the characters that change how others are
    shown.
    """
    return (
        value
        if isinstance(value, Html)
        else html.escape(ODD.sub("\N{REPLACEMENT CHARACTER}", str(value)))
    )


def joined(parts: Iterable[Html]) -> Html:
    """Elements one after the other."""
    return Html("".join(parts))


@dataclass(frozen=True, slots=True)
class Shown:
    """What the page shows, read from a store at one time."""

    head: int
    rung: int
    changes: list[Change]
    standing: Mapping[
        str, Sequence[Any]
    ]  # by trigger: fired, fired_at, held, disabled, failing_since
    counts: Mapping[str, Mapping[str, int]]
    dead: list[tuple[Message, Attempt | None]]
    failing: list[
        tuple[Message, Attempt | None, int]
    ]  # of each trigger, the one due next; how many


def look(store: FeedStore) -> Shown:
    """Read what the page shows."""
    with store.transaction("deferred"):
        rows = store.query(
            "select name, fired, fired_at, held, disabled, failing_since from triggers order by name"
        )
        return Shown(
            store.head,
            len(unread(store, RINGS)),
            store.newest(CHANGES)[::-1],
            {row[0]: row[1:] for row in rows},
            counts(store),
            _letters(store, "state = 'dead'", "ended_at desc"),
            _failing(store),
        )


def _letters(store: FeedStore, where: str, order: str) -> list[tuple[Message, Attempt | None]]:
    few = f"messages indexed by messages_lanes where state in ({UNFINISHED})"  # however many were sent
    rows = store.query(f"select {COLUMNS} from {few} and {where} order by {order} limit ?", LETTERS)
    found = [Message(*row) for row in rows]
    return [(one, next(reversed(attempts(store, one.message_id)), None)) for one in found]


def _failing(store: FeedStore) -> list[tuple[Message, Attempt | None, int]]:
    """Messages that are tried again, as one of each trigger: a receiver that is down has thousands
    of them.
    """
    # so that those that were sent are not looked at
    where = f"state in ({UNFINISHED}) and state = 'waiting' and tries > 0"
    rows = store.query(
        f"select trigger, count(*) from messages where {where} group by trigger order by trigger limit ?",
        LETTERS,
    )
    found = []
    for trigger, count in rows:
        next_due = f"select {COLUMNS} from messages where {where} and trigger = ? order by due_at, number limit 1"
        (row,) = store.query(next_due, trigger)
        one = Message(*row)
        found.append((one, next(reversed(attempts(store, one.message_id)), None), int(count)))
    return found


def page(
    shown: Shown, triggers: Sequence[Trigger], health: Mapping[str, Any], key: str, now: float
) -> str:
    """The page. `key` goes into every form, so that only this page can send one."""
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
    sections = (_troubles(shown, key, now), _triggers(shown, triggers, now), _changes(shown, now))
    body = tag(
        "body",
        tag("a", "Skip to the changes", href="#changes", class_="skip"),
        _top(shown, health, now),
        tag("p", role="status", aria_live="polite", id="said"),
        tag("main", *sections),
        tag(
            "footer", "This page reads the feed on this machine; nothing of it goes anywhere else."
        ),
    )
    return "<!doctype html>" + tag("html", head, body, lang="en")


def _top(shown: Shown, health: Mapping[str, Any], now: float) -> Html:
    error, synced = health.get("error"), health.get("synced_at")
    newest = shown.changes[0].occurred_at.timestamp() if shown.changes else None
    facts = {
        "Synced": _ago(synced, now),
        "Newest change": _ago(newest, now),
        "Changes in the feed": f"{shown.head:,}",
        "Events to read": f"{shown.rung:,}{'+' * (shown.rung == RINGS)}",
    }
    state = _badge(
        f"failing: {error}" if error else "up to date" if synced else "not synced yet",
        "bad" if error else "good" if synced else "calm",
    )
    listed = joined(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts.items())
    return tag(
        "header",
        tag("div", tag("h1", "stripe-feed"), state, class_="name"),
        tag("dl", listed, class_="facts"),
    )


def _badge(words: str, kind: str) -> Html:
    return tag("span", words, class_=f"badge {kind}")


def _ago(at: float | None, now: float) -> object:
    """A time, as how long ago it is; to come: in how long."""
    if at is None:
        return "never"
    when = datetime.fromtimestamp(at, timezone.utc)
    return tag("time", _span(now - at), datetime=iso(when), title=f"{when:%Y-%m-%d %H:%M:%S} UTC")


def _span(seconds: float) -> str:
    size, unit = next(((size, unit) for size, unit in SPANS if abs(seconds) >= size), (1, "second"))
    count = int(abs(seconds) // size)
    words = f"{count} {unit}{'s' * (count != 1)}"
    return "now" if not count else f"in {words}" if seconds < 0 else f"{words} ago"


def _section(name: str, title: str, *inside: object) -> Html:
    return tag(
        "section",
        tag("h2", title, id=f"{name}-title"),
        *inside,
        id=name,
        aria_labelledby=f"{name}-title",
    )


def _troubles(shown: Shown, key: str, now: float) -> Html:
    if not shown.dead and not shown.failing:
        return _section("troubles", "Deliveries", tag("p", "Nothing failed.", class_="empty"))
    parts = []
    if shown.dead:
        total = sum(one.get("dead", 0) for one in shown.counts.values())
        cards = joined(_letter(one, last, now, key) for one, last in shown.dead)
        parts += [tag("h3", f"Given up ({total:,})"), tag("ul", cards, class_="cards", id="dead")]
    if shown.failing:
        cards = joined(_letter(one, last, now, None, count) for one, last, count in shown.failing)
        parts += [tag("h3", "Tried again later"), tag("ul", cards, class_="cards", id="failing")]
    return _section("troubles", "Failing deliveries", *parts)


def _letter(
    one: Message, last: Attempt | None, now: float, key: str | None, count: int = 1
) -> Html:
    """A message that failed; with a button where it was given up. `count`: how many fail like it."""
    why = f"{last.code}{f': {last.note}' if last.note else ''}" if last else "no attempt"
    when = ("given up", _ago(one.ended_at, now)) if key else ("next try", _ago(one.due_at, now))
    facts = {"Last answer": why, "Attempts": one.tries, when[0].capitalize(): when[1]}
    listed = joined(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts.items())
    others = f" and {count - 1:,} more" if count > 1 else ""
    return tag(
        "li",
        tag("h4", one.trigger),
        tag("p", tag("code", one.object_id), " ", tag("small", one.message_id), others),
        tag("dl", listed),
        _retry(one, key) if key else "",
        class_="card bad" if key else "card",
    )


def _retry(one: Message, key: str) -> Html:
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


def _triggers(shown: Shown, triggers: Sequence[Trigger], now: float) -> Html:
    receivers = {one.name: one.deliver.shown for one in triggers}
    names = [*receivers, *(name for name in shown.standing if name not in receivers)]
    if not names:
        return _section(
            "triggers", "Triggers", tag("p", "There are none: see triggers.toml.", class_="empty")
        )
    cards = joined(_trigger(shown, name, receivers.get(name), now) for name in names)
    return _section("triggers", "Triggers", tag("ul", cards, class_="cards"))


def _trigger(shown: Shown, name: str, receiver: str | None, now: float) -> Html:
    stands = shown.standing.get(name)
    fired, fired_at, held, disabled, failing = stands or (0, None, None, None, None)
    state, kind, why = (
        ("deleted", "calm", None)
        if receiver is None
        else ("disabled", "bad", disabled)
        if disabled
        else ("held", "warn", held)
        if held
        else ("failing", "warn", None)
        if failing
        else ("on", "good", None)
        if stands
        else ("new", "calm", None)
    )
    left = ", ".join(
        f"{count:,} {state}" for state, count in sorted(shown.counts.get(name, {}).items())
    )
    facts = {
        "Fired": f"{fired:,}",
        "Last": _ago(fired_at, now),
        "Messages": left or "none",
        "To": "not in the file any more" if receiver is None else receiver,
    }
    listed = joined(tag("div", tag("dt", key), tag("dd", value)) for key, value in facts.items())
    return tag(
        "li",
        tag("div", tag("h3", name), _badge(state, kind), class_="name"),
        tag("p", why) if why else "",
        tag("dl", listed),
        class_="card",
    )


def _changes(shown: Shown, now: float) -> Html:
    if not shown.changes:
        return _section("changes", "Last changes", tag("p", "There are none yet.", class_="empty"))
    return _section("changes", "Last changes", joined(_change(one, now) for one in shown.changes))


def _change(one: Change, now: float) -> Html:
    what = one.event_type or f"{one.resource} {OP_WORDS[one.op]}"
    head = tag(
        "header",
        _badge(OP_WORDS[one.op], {"c": "good", "d": "bad"}.get(one.op, "calm")),
        tag("h3", what),
        _linked(one),
        _badge("late", "warn") if one.late else "",
        tag("span", _ago(one.occurred_at.timestamp(), now), class_="when"),
    )
    return tag("article", head, _difference(one), class_="change", data_offset=one.offset)


def _linked(one: Change) -> Html:
    """The object's id, as a link to Stripe's Dashboard where there is a page for it."""
    shown = tag("code", one.object_id)
    if one.op == "d" or not (
        PLAIN.fullmatch(one.object_id) and PLAIN.fullmatch(one.account_id or "")
    ):
        return shown
    mode = "" if one.livemode else "/test"
    place = f"https://dashboard.stripe.com/{one.account_id}{mode}/{one.resource}/{one.object_id}"
    return tag("a", shown, href=place, rel="noreferrer", aria_label=f"{one.object_id} at Stripe")


def _difference(one: Change) -> Html:
    before, after = one.before, one.after
    if before is None and after is None:
        return tag("p", "The object was forgotten.", class_="empty")
    paths = one.changed or _scalars(before or after or {})
    rows = joined(_row(path, before, after, one) for path in paths[:PATHS])
    more = (
        tag("p", f"{len(paths) - PATHS} more paths changed.", class_="empty")
        if len(paths) > PATHS
        else ""
    )
    if not paths:
        return tag("p", "No field changed.", class_="empty")
    head = tag(
        "thead", tag("tr", *(tag("th", name, scope="col") for name in ("Field", "Before", "After")))
    )
    label = f"What changed of {one.object_id}"
    return joined([tag("table", head, tag("tbody", rows), aria_label=label), Html(more)])


def _row(path: str, before: Any, after: Any, one: Change) -> Html:
    old = "unknown" if before is None and one.op == "u" else _value(one.resource, before, path)
    new = _value(one.resource, after, path)
    return tag("tr", tag("th", path, scope="row"), _cell(old, "old"), _cell(new, "new"))


def _cell(value: str, kind: str) -> Html:
    return tag(
        "td",
        tag("del" if kind == "old" else "ins", value)
        if value
        else tag("span", "nothing", class_="none"),
    )


def _value(resource: str, image: Any, path: str) -> str:
    """What an image has at a path: times and amounts as people write them."""
    found = value_at(image, path)
    column = COLUMNS_OF.get(resource, {}).get(path)
    if column is not None and column.kind == "timestamp" and (when := as_iso(found)):
        return when
    if column is not None and column.kind == "bigint" and "minor units" in column.description:
        currency = image.get("currency") if isinstance(image, Mapping) else None
        if (amount := in_major_units(found, currency)) is not None:
            return f"{amount} {str(currency).upper()}"
    said = (
        found
        if isinstance(found, str)
        else ""
        if found is None
        else json.dumps(found, ensure_ascii=False)
    )
    return said if len(said) <= LONGEST else f"{said[:LONGEST]} … ({len(said):,} characters)"


def _scalars(image: Mapping[str, Any]) -> list[str]:
    """The fields of an object that is new or gone: what is plain and not empty."""
    return [
        name
        for name, value in image.items()
        if name != "object" and value not in (None, "") and not isinstance(value, dict | list)
    ]


def files() -> Iterator[tuple[str, str, bytes]]:
    """What the page loads: path, content type, content."""
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
