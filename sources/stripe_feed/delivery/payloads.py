"""Payloads: turn a change, or an object's net change, into JSON in one of several formats or a
user's template.

Templates are data: names are looked up, and Python never runs or formats anything in them.
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

from ..currencies import in_major_units
from ..errors import StripeFeedError, UsageError
from ..extract.tables.diff import Image, significant_difference
from ..feed.change import EPOCH, Change, iso
from ..feed.lookups import RELATED_TABLES
from ..feed.net import NetChange, previous_values
from ..feed.paths import QUOTED, normalize_path, split_prefix, value_at
from ..resources import RESOURCES

FORMATS = ("standard", "stripe", "change", "record", "cloudevents")
_VERBS = {"c": "created", "u": "updated", "d": "deleted", "r": "read"}
_MAX_DEPTH = 50
_MAX_INTEGER = 10**4_000  # whole numbers with more digits are not written out by Python
PLACEHOLDER = re.compile(
    rf"\{{\{{|\}}\}}|\{{((?:\[\s*(?:{QUOTED})\s*\]|[^{{}}\[]|\[(?!\s*[\"']))*)\}}|[{{}}]"
)

TemplateScope = Mapping[str, Any]
Render = Callable[[TemplateScope], Any]


class NotRenderable(StripeFeedError):
    """This message has no payload in this format: it was not a Stripe event, or its object was
    forgotten.
    """


@dataclass(frozen=True, slots=True)
class PayloadContext:
    """What a message is about, its trigger, and its id; `skipped`: changes with its ordering key
    that were never delivered; `beside`: related objects for its template.
    """

    about: Change | NetChange
    trigger: str
    message_id: str
    skipped: tuple[str, ...] = ()
    beside: Mapping[str, Image | None] = field(default_factory=dict, repr=False)

    @property
    def last(self) -> Change:
        """The change, or the last one of the net change."""
        return self.about.last if isinstance(self.about, NetChange) else self.about


@dataclass(frozen=True, slots=True)
class Payload:
    """The bytes to send, and their content type."""

    content: bytes = field(repr=False)
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled template, and the paths that it reads."""

    fill: Render = field(repr=False)
    paths: tuple[str, ...] = ()

    @property
    def related_tables(self) -> frozenset[str]:
        """The related objects that the template reads."""
        return frozenset(path.partition(".")[0] for path in self.paths) & {*RELATED_TABLES}


def render(form: str | Template, telling: PayloadContext, synthetic: bool = False) -> Payload:
    """Return the payload of a message: the same bytes every time.

    `form` is one of `FORMATS` or a template; raises `UsageError` for others. In the format
    `stripe`, a change without a Stripe event raises `NotRenderable`, unless `synthetic` allows
    made-up events.
    """
    match form:
        case Template():
            return Payload(_json(form.fill(_scope(telling))))
        case "standard":
            return Payload(_json(_standard(telling)))
        case "stripe":
            return Payload(_json(_event(telling, synthetic)))
        case "change":
            return Payload(_json(telling.about.as_dict()))
        case "record":
            return Payload(_json(_record(telling)))
        case "cloudevents":
            return Payload(_json(_cloudevent(telling)), "application/cloudevents+json")
    raise UsageError(
        f"There is no format {form!r}. Choose from: {', '.join(FORMATS)}; or give a template."
    )


def _json(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a surrogate pair, which only an escape can write
        return json.dumps(value, separators=(",", ":")).encode()


def _standard(telling: PayloadContext) -> Image:
    return {
        "type": _type(telling),
        "timestamp": iso(telling.last.occurred_at),
        "data": _object(telling),
        "meta": _meta(telling),
    }


def _record(telling: PayloadContext) -> Image:
    """Return the object flat, so with Stripe's own `deleted` mark if it is gone."""
    return {**_object(telling), **({"deleted": True} if telling.about.op == "d" else {})}


def _cloudevent(telling: PayloadContext) -> Image:
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


def _event(telling: PayloadContext, synthetic: bool) -> Image:
    """Rebuild Stripe's event. `pending_webhooks` is 0, an absent `request` a pair of nulls; changes
    hold no bearer links.
    """
    last = telling.last
    alone = not isinstance(telling.about, NetChange) or telling.about.changes == 1
    genuine = alone and last.origin == "event" and last.event_id is not None
    if not genuine and not synthetic:
        raise NotRenderable(
            f"{last.change_id} was not a Stripe event, so it has no payload in the format stripe. Choose the format standard, or "
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
        "id": last.event_id if genuine else _synthetic_id(telling),
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
        else significant_difference(about.before, about.after)
    )


def _synthetic_id(telling: PayloadContext) -> str:
    first = telling.about.first if isinstance(telling.about, NetChange) else telling.last
    return f"evt_syn_{blake2b(f'{first.change_id} {telling.last.change_id}'.encode(), digest_size=12).hexdigest()}"


def _type(telling: PayloadContext) -> str:
    """Return the event's type, or the type Stripe's event of this kind would have:
    `customer.subscription.updated`.
    """
    about = telling.about
    if isinstance(about, Change) and about.event_type:
        return about.event_type
    row = RESOURCES.get(about.resource)
    if row is None:
        prefix = about.resource
    else:
        prefix = row.events[0].rpartition(".")[0] if row.events else row.object
    return f"{prefix}.{_VERBS.get(about.op, about.op)}"


def _object(telling: PayloadContext) -> Image:
    """Return the object after the change, or its last state; if only the id of a deleted object is
    known, what Stripe sends for deleted objects.
    """
    about, last = telling.about, telling.last
    image = about.after if about.op != "d" else last.before or about.before
    if image is not None:
        return image
    row = RESOURCES.get(about.resource)
    kind = {"object": row.object} if row else {}
    return {"id": about.object_id, **kind, **({"deleted": True} if about.op == "d" else {})}


def _meta(telling: PayloadContext) -> Image:
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


def _scope(telling: PayloadContext) -> TemplateScope:
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
    """Compile a JSON template whose strings hold placeholders; a `UsageError` names the place of
    the fault.

    `{after.email}`, `{before.…}`, `{change.type}`, `{trigger}`, `{account_id}`;
    `{after.total|money:after.currency}` is a decimal string in major units, `{after.created|date}`
    a time in UTC; `{customer.…}`, `{subscription.…}` and `{invoice.…}` are looked up. A string that
    is one placeholder becomes the value itself; otherwise the value is inserted, null as nothing.
    `{{` and `}}` are braces.
    """
    paths: list[str] = []
    return Template(_compile_value(value, "template", 0, paths), tuple(dict.fromkeys(paths)))


def _compile_value(value: Any, place: str, depth: int, paths: list[str]) -> Render:
    if depth > _MAX_DEPTH:
        raise UsageError(f"{place} is nested more than {_MAX_DEPTH} deep.")
    if isinstance(value, str):
        return _compile_text(value, place, paths)
    if isinstance(value, list | tuple):
        items = [
            _compile_value(item, f"{place}[{n}]", depth + 1, paths) for n, item in enumerate(value)
        ]
        return lambda scope: [fill(scope) for fill in items]
    if isinstance(value, Mapping):
        if not all(isinstance(name, str) for name in value):
            raise UsageError(f"{place} has a key that is not a string.")
        fields = {
            name: _compile_value(item, f"{place}.{name}", depth + 1, paths)
            for name, item in value.items()
        }
        return lambda scope: {name: fill(scope) for name, fill in fields.items()}
    is_number = (
        abs(value) < _MAX_INTEGER
        if isinstance(value, int)
        else isinstance(value, float) and math.isfinite(value)
    )
    if value is not None and not is_number:
        raise UsageError(
            f"{place} is a {type(value).__name__}, which is not JSON. Write it as a string."
        )
    return lambda scope: value


def _compile_text(text: str, place: str, paths: list[str]) -> Render:
    pieces: list[str | Render] = []
    end = 0
    for mark in PLACEHOLDER.finditer(text):
        pieces.append(text[end : mark.start()])
        end = mark.end()
        pieces.append(
            mark[0][0]
            if mark[0] in ("{{", "}}")
            else _compile_placeholder(mark[1], place, mark.start() + 1, paths)
        )
    pieces = [piece for piece in [*pieces, text[end:]] if piece != ""]
    if len(pieces) == 1 and not isinstance(pieces[0], str):
        return pieces[0]
    return lambda scope: "".join(
        piece if isinstance(piece, str) else _to_text(piece(scope)) for piece in pieces
    )


def _to_text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else _json(value).decode()


def _compile_placeholder(inside: str | None, place: str, column: int, paths: list[str]) -> Render:
    where = f"{place}, character {column}"
    if inside is None:
        raise UsageError(f"{where}: unmatched brace. Write a literal brace twice.")
    path, rest = split_prefix(inside)
    bar, filter = rest[:1], rest[1:]
    read = _compile_path(inside if bar == ":" else path, where, paths)
    name, colon, argument = filter.partition(":")
    match name.strip(), bool(colon):
        case "", False if not bar:
            return read
        case "money", True:
            currency = _compile_path(argument, where, paths)
            return lambda scope: in_major_units(read(scope), currency(scope))
        case "date", False:
            return lambda scope: as_iso(read(scope))
    raise UsageError(
        f"{where}: unknown filter {filter.strip()!r}. Choose from: money:<path of the currency>, date."
    )


def _compile_path(text: str, where: str, paths: list[str]) -> Render:
    try:
        root, _, rest = normalize_path(text).partition(".") if text.strip() else ("", "", "")
    except UsageError as fault:
        raise UsageError(f"{where}: {fault}") from None
    if root not in ROOTS or split_prefix(text)[1]:
        raise UsageError(
            f"{where}: {text.strip()!r} is not a path. Paths begin with {', '.join(ROOTS)}; such as `after.email`."
        )
    if (root in ("trigger", "account_id") and rest) or (
        root == "change" and rest.partition(".")[0] not in META
    ):
        known = f"{', '.join(ROOTS[-2:])}, change.{', change.'.join(META)}"
        raise UsageError(f"{where}: there is no {text.strip()}. There are {known}.")
    paths.append(f"{root}.{rest}" if rest else root)
    return lambda scope: value_at(scope[root], rest) if rest else scope[root]


def as_iso(seconds: Any) -> str | None:
    """Return Unix seconds as ISO 8601 in UTC; null for anything else."""
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        return None
    try:
        return iso(EPOCH + timedelta(seconds=seconds))
    except OverflowError:
        return None
