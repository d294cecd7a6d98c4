"""What a message says: a change, or an object's net change -> JSON in one of several formats, or in
a shape of the user's own.

Templates are data: names are looked up, nothing in them is ever run or formatted by Python.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import blake2b
from typing import Any

from ..errors import StripeFeedError, UsageError
from ..extract.tables.diff import Image, difference_that_counts
from ..feed.change import EPOCH, Change, iso
from ..feed.lookups import RELATED_TABLES
from ..feed.net import NetChange, previous_values
from ..feed.paths import QUOTED, normalize_path, split_prefix, value_at
from ..resources import RESOURCES

FORMATS = ("standard", "stripe", "change", "record", "cloudevents")
VERBS = {"c": "created", "u": "updated", "d": "deleted", "r": "read"}
DEEPEST = 50
BEYOND = 10**4_000  # whole numbers with more digits are not written out by Python
WHOLE = (
    "bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf",
    0,
)  # https://docs.stripe.com/currencies#zero-decimal
THOUSANDTHS = ("bhd jod kwd omr tnd", 3)  # ISK and UGX are sent with two decimals
DECIMALS = {currency: count for names, count in (WHOLE, THOUSANDTHS) for currency in names.split()}
AMOUNT = re.compile(r"(-?)(\d{1,40})(?:\.(\d{1,12}))?", re.ASCII)  # `*_decimal` fields are texts
MARK = re.compile(
    rf"\{{\{{|\}}\}}|\{{((?:\[\s*(?:{QUOTED})\s*\]|[^{{}}\[]|\[(?!\s*[\"']))*)\}}|[{{}}]"
)

Scope = Mapping[str, Any]
Fill = Callable[[Scope], Any]


class NotRenderable(StripeFeedError):
    """This message has no body in this format: it is no event of Stripe's, or its object was
    forgotten.
    """


@dataclass(frozen=True, slots=True)
class Telling:
    """What a message tells, which trigger tells it, and the message's id; `skipped`: changes of its
    lane that never arrived; `beside`: what its template looks up.
    """

    about: Change | NetChange
    trigger: str
    message_id: str
    skipped: tuple[str, ...] = ()
    beside: Mapping[str, Image | None] = field(default_factory=dict, repr=False)

    @property
    def last(self) -> Change:
        """The change, or the last of those that the net change is made of."""
        return self.about.last if isinstance(self.about, NetChange) else self.about


@dataclass(frozen=True, slots=True)
class Body:
    """The bytes to send, and their content type."""

    content: bytes = field(repr=False)
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled shape, and the paths that it reads."""

    fill: Fill = field(repr=False)
    paths: tuple[str, ...] = ()

    @property
    def looks_up(self) -> frozenset[str]:
        """What must be looked up beside a change."""
        return frozenset(path.partition(".")[0] for path in self.paths) & {*RELATED_TABLES}


def render(form: str | Template, telling: Telling, synthetic: bool = False) -> Body:
    """The body of a message: the same bytes every time.

    `form` is one of `FORMATS` or a template; `UsageError` for another. In the format `stripe`, what
    never was an event raises `NotRenderable`, unless `synthetic` allows events that are made up.
    """
    match form:
        case Template():
            return Body(_json(form.fill(_scope(telling))))
        case "standard":
            return Body(_json(_standard(telling)))
        case "stripe":
            return Body(_json(_event(telling, synthetic)))
        case "change":
            return Body(_json(telling.about.as_dict()))
        case "record":
            return Body(_json(_record(telling)))
        case "cloudevents":
            return Body(_json(_cloudevent(telling)), "application/cloudevents+json")
    raise UsageError(
        f"There is no format {form!r}. Choose from: {', '.join(FORMATS)}; or give a template."
    )


def _json(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a surrogate pair, which only an escape can write
        return json.dumps(value, separators=(",", ":")).encode()


def _standard(telling: Telling) -> Image:
    return {
        "type": _type(telling),
        "timestamp": iso(telling.last.occurred_at),
        "data": _object(telling),
        "meta": _meta(telling),
    }


def _record(telling: Telling) -> Image:
    """Flat, and thus with Stripe's own mark of what is gone."""
    return {**_object(telling), **({"deleted": True} if telling.about.op == "d" else {})}


def _cloudevent(telling: Telling) -> Image:
    """https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md"""
    last = telling.last
    return {
        "specversion": "1.0",
        "id": last.change_id,
        "source": f"/stripe/{last.account_id or ''}",
        "type": f"com.stripe.{_type(telling)}",
        "subject": last.object_id,
        "time": iso(last.occurred_at),
        "datacontenttype": "application/json",
        "sequence": str(last.offset),
        "data": _object(telling),
    }


def _event(telling: Telling, synthetic: bool) -> Image:
    """Stripe's event, rebuilt. `pending_webhooks` is 0, an absent `request` a pair of nulls; bearer
    links are not in changes.
    """
    last = telling.last
    alone = not isinstance(telling.about, NetChange) or telling.about.changes == 1
    genuine = alone and last.origin == "event" and last.event_id is not None
    if not genuine and not synthetic:
        raise NotRenderable(
            f"{last.change_id} was no event of Stripe's, so it has no body in the format stripe. Choose the format standard, or "
            "allow synthetic events."
        )
    if last.after is None and last.op != "d":
        raise NotRenderable(
            f"{last.change_id}: its object was forgotten, so its event cannot be rebuilt."
        )
    type = (last.event_type if genuine else None) or _type(telling)
    data: Image = {"object": _object(telling)}
    previous = last.previous if alone else _previous(telling.about)
    if (
        type.endswith(".updated") and previous is not None
    ):  # of other types, what changed is known but was not told
        data["previous_attributes"] = previous
    return {
        "id": last.event_id if genuine else _made_up_id(telling),
        "object": "event",
        "api_version": last.api_version,
        "context": last.context,
        "created": int(last.occurred_at.timestamp()),
        "data": data,
        "livemode": last.livemode,
        "pending_webhooks": 0,
        "request": {"id": last.request_id, "idempotency_key": last.request_idempotency_key},
        "type": type,
    }


def _previous(about: Change | NetChange) -> Image | None:
    if isinstance(about, NetChange):
        return previous_values(about)
    return (
        None
        if about.before is None or about.after is None
        else difference_that_counts(about.before, about.after)
    )


def _made_up_id(telling: Telling) -> str:
    first = telling.about.first if isinstance(telling.about, NetChange) else telling.last
    return f"evt_syn_{blake2b(f'{first.change_id} {telling.last.change_id}'.encode(), digest_size=12).hexdigest()}"


def _type(telling: Telling) -> str:
    """The event's type, or the one that Stripe's event of this kind would have:
    `customer.subscription.updated`.
    """
    about = telling.about
    if isinstance(about, Change) and about.event_type:
        return about.event_type
    row = RESOURCES.get(about.resource)
    prefix = (
        row.events[0].rpartition(".")[0]
        if row and row.events
        else row.object
        if row
        else about.resource
    )
    return f"{prefix}.{VERBS.get(about.op, about.op)}"


def _object(telling: Telling) -> Image:
    """The object as it is then, or was last; as little as Stripe tells of deleted ones, where that
    is all that is known.
    """
    about, last = telling.about, telling.last
    found = about.after if about.op != "d" else last.before or about.before
    if found is not None:
        return found
    row = RESOURCES.get(about.resource)
    kind = {"object": row.object} if row else {}
    return {"id": about.object_id, **kind, **({"deleted": True} if about.op == "d" else {})}


def _meta(telling: Telling) -> Image:
    about, last = telling.about, telling.last
    first = about.first if isinstance(about, NetChange) else last
    return {
        "change_id": last.change_id,
        "offset": last.offset,
        "object_version": last.object_version,
        "op": about.op,
        "origin": last.origin,
        "resource": about.resource,
        "object_id": about.object_id,
        "customer_id": about.customer_id,
        "before": about.before,
        "changed": about.changed,
        "before_quality": first.before_quality,
        "late": last.late,
        "trigger": telling.trigger,
        "message_id": telling.message_id,
        **({"changes": about.changes} if isinstance(about, NetChange) else {}),
        **({"skipped": list(telling.skipped)} if telling.skipped else {}),
    }


META = (
    "change_id",
    "offset",
    "object_version",
    "op",
    "origin",
    "resource",
    "object_id",
    "customer_id",
    "before",
    "changed",
    "before_quality",
    "late",
    "trigger",
    "message_id",
    "changes",
    "skipped",
    "occurred_at",
    "type",
    "event_id",
    "event_type",
    "livemode",
)
"""What a template finds in `change`: `meta` of the format standard, and more."""

ROOTS = ("after", "before", "change", *RELATED_TABLES, "trigger", "account_id")


def _scope(telling: Telling) -> Scope:
    about, last, meta = telling.about, telling.last, _meta(telling)
    event = (
        {}
        if isinstance(about, NetChange)
        else {"event_id": last.event_id, "event_type": last.event_type}
    )
    more = {
        "occurred_at": iso(last.occurred_at),
        "type": _type(telling),
        "livemode": last.livemode,
        **event,
    }
    return {
        **dict.fromkeys(RELATED_TABLES),
        **telling.beside,
        "after": about.after,
        "before": meta["before"],
        "change": {**meta, **more},
        "trigger": telling.trigger,
        "account_id": last.account_id,
    }


def compile_template(value: Any) -> Template:
    """Compile a shape of JSON whose texts hold placeholders; `UsageError` names the place of what
    is wrong in it.

    `{after.email}`, `{before.…}`, `{change.type}`, `{trigger}`, `{account_id}`;
    `{after.total|money:after.currency}` is a decimal text in major units, `{after.created|date}` a
    time in UTC; `{customer.…}`, `{subscription.…}` and `{invoice.…}` are looked up. A text that is
    one placeholder becomes the value itself, in others it is inserted, null as nothing. `{{` and
    `}}` are braces.
    """
    paths: list[str] = []
    return Template(_compiled(value, "template", 0, paths), tuple(dict.fromkeys(paths)))


def _compiled(value: Any, place: str, depth: int, paths: list[str]) -> Fill:
    if depth > DEEPEST:
        raise UsageError(f"{place} is nested more than {DEEPEST} deep.")
    if isinstance(value, str):
        return _text(value, place, paths)
    if isinstance(value, list | tuple):
        items = [_compiled(one, f"{place}[{n}]", depth + 1, paths) for n, one in enumerate(value)]
        return lambda scope: [fill(scope) for fill in items]
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise UsageError(f"{place} has a key that is no text.")
        fields = {
            name: _compiled(one, f"{place}.{name}", depth + 1, paths) for name, one in value.items()
        }
        return lambda scope: {name: fill(scope) for name, fill in fields.items()}
    is_number = (
        abs(value) < BEYOND
        if isinstance(value, int)
        else isinstance(value, float) and math.isfinite(value)
    )
    if value is not None and not is_number:
        raise UsageError(f"{place} is no JSON but a {type(value).__name__}. Write it as a text.")
    return lambda scope: value


def _text(text: str, place: str, paths: list[str]) -> Fill:
    pieces: list[str | Fill] = []
    end = 0
    for mark in MARK.finditer(text):
        pieces.append(text[end : mark.start()])
        end = mark.end()
        pieces.append(
            mark[0][0]
            if mark[0] in ("{{", "}}")
            else _placeholder(mark[1], place, mark.start() + 1, paths)
        )
    pieces = [piece for piece in [*pieces, text[end:]] if piece != ""]
    if len(pieces) == 1 and not isinstance(pieces[0], str):
        return pieces[0]
    return lambda scope: "".join(
        piece if isinstance(piece, str) else _inserted(piece(scope)) for piece in pieces
    )


def _inserted(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else _json(value).decode()


def _placeholder(inside: str | None, place: str, column: int, paths: list[str]) -> Fill:
    where = f"{place}, character {column}"
    if inside is None:
        raise UsageError(
            f"{where}: a brace without its other one. A brace of the text's own is written twice."
        )
    path, rest = split_prefix(inside)
    bar, filter = rest[:1], rest[1:]
    read = _path(inside if bar == ":" else path, where, paths)
    name, colon, argument = filter.partition(":")
    match name.strip(), bool(colon):
        case "", False if not bar:
            return read
        case "money", True:
            currency = _path(argument, where, paths)
            return lambda scope: in_major_units(read(scope), currency(scope))
        case "date", False:
            return lambda scope: as_iso(read(scope))
    raise UsageError(
        f"{where}: there is no filter {filter.strip()!r}. There are: money:<path of the currency>, date."
    )


def _path(text: str, where: str, paths: list[str]) -> Fill:
    try:
        root, _, rest = normalize_path(text).partition(".") if text.strip() else ("", "", "")
    except UsageError as fault:
        raise UsageError(f"{where}: {fault}") from None
    if root not in ROOTS or split_prefix(text)[1]:
        raise UsageError(
            f"{where}: {text.strip()!r} is no path. Paths begin with {', '.join(ROOTS)}; such as `after.email`."
        )
    if (root in ("trigger", "account_id") and rest) or (
        root == "change" and rest.partition(".")[0] not in META
    ):
        known = f"{', '.join(ROOTS[-2:])}, change.{', change.'.join(META)}"
        raise UsageError(f"{where}: there is no {text.strip()}. There are {known}.")
    paths.append(f"{root}.{rest}" if rest else root)
    return lambda scope: value_at(scope[root], rest) if rest else scope[root]


def in_major_units(amount: Any, currency: Any) -> str | None:
    """An amount in minor units as a decimal in major ones, exact; null where one of the two is
    none.
    """
    found = (
        AMOUNT.fullmatch(str(amount))
        if isinstance(amount, int | str) and not isinstance(amount, bool)
        else None
    )
    if found is None or not isinstance(currency, str):
        return None
    sign, digits, fraction = found[1], found[2], found[3] or ""
    count = DECIMALS.get(currency.lower(), 2)
    padded = digits.zfill(count + 1)
    major, minor = padded[: len(padded) - count], padded[len(padded) - count :] + fraction
    return f"{sign}{major}{'.' if minor else ''}{minor}"


def as_iso(seconds: Any) -> str | None:
    """Unix seconds as ISO 8601 in UTC; null for anything else."""
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        return None
    try:
        return iso(EPOCH + timedelta(seconds=seconds))
    except OverflowError:
        return None
