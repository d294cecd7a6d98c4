"""Receivers of messages: from the words of a `deliver` table to what sends, with secrets looked up
when something is sent.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import chain
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from ..errors import SetupError, UsageError
from .addresses import check_url, may_call
from .payloads import FORMATS, Body, Telling, Template, compile_template, render
from .signatures import standard_headers, stripe_header
from .transports import Command, Function, Lines, Outcome, Sink, Webhook, header_fault

KINDS = ("url", "command", "python", "file")
DELIVER_KEYS = (
    *KINDS,
    "format",
    "template",
    "secrets",
    "auth",
    "headers",
    "allow_private",
    "timeout",
    "on_exhausted",
    "synthetic",
)
AUTH = {"bearer": 1, "basic": 2, "header": 2}
REFERENCE = re.compile(r"(env:\w+|dlt:[\w.]+)")
MOST_SECONDS = 120.0


class Route(Protocol):
    """What has messages to send: its name, and where they go."""

    @property
    def name(self) -> str: ...

    @property
    def deliver(self) -> Deliver: ...


class Wrong(UsageError):
    """What is wrong, and at which key of a trigger."""

    def __init__(self, message: str, *keys: str) -> None:
        super().__init__(message)
        self.keys = keys
        self.others: tuple[Wrong, ...] = ()  # what else is wrong with the trigger


def known(said: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    """Raise `Wrong` for a key that is not one of these; `where` is the table's own key."""
    for name in said:
        if name not in names:
            near = get_close_matches(str(name), names, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f". Known are: {', '.join(names)}"
            raise Wrong(
                f"unknown key {f'{where}.' * bool(where)}{name}{hint}",
                *([where] if where else []),
                str(name),
            )


def flag(said: Mapping[str, Any], key: str) -> bool:
    """A key that is true or false; false where it is not there."""
    value = said.get(key, False)
    if not isinstance(value, bool):
        raise Wrong(f"{key} is true or false", key)
    return value


def deliver_of(said: Any) -> Deliver:
    """Where messages go, from the words of a `deliver` table. Raises `Wrong`."""
    if not isinstance(said, Mapping):
        raise Wrong('say where messages go, such as deliver = { url = "https://…" }', "deliver")
    known(said, DELIVER_KEYS, "deliver")
    kinds: list[Any] = [kind for kind in KINDS if kind in said]
    if len(kinds) != 1:
        raise Wrong(f"deliver takes one of {', '.join(KINDS)}", "deliver")
    to = said[kinds[0]]
    if not (isinstance(to, str) and to.strip() and "\0" not in to) and not (
        kinds[0] == "python" and callable(to)
    ):
        raise Wrong(f"deliver.{kinds[0]} is a text", "deliver", kinds[0])
    found = Deliver(
        kind=kinds[0],
        to=to,
        format=_format(said),
        template=said.get("template"),
        secrets=_references(said.get("secrets", [])),
        auth=_auth(said.get("auth", {})),
        headers=_headers(said.get("headers", {})),
        allow_private=flag(said, "allow_private"),
        timeout=_timeout(said.get("timeout", 15)),
        on_exhausted=_exhausted(said.get("on_exhausted", "skip")),
        synthetic=flag(said, "synthetic"),
    )
    _checked(
        lambda: compile_template(found.template) if found.template is not None else None, "template"
    )
    _checked(
        lambda: (
            _url(str(to), found.allow_private)
            if found.kind == "url" and not is_reference(to)
            else None
        ),
        "url",
    )
    if found.format == "stripe" and found.kind == "url" and not found.secrets:
        raise Wrong("the format stripe is signed: give deliver.secrets", "deliver", "format")
    return found


def _checked(check: Callable[[], object], key: str) -> None:
    try:
        check()
    except UsageError as fault:
        raise Wrong(f"deliver.{key}: {fault}", "deliver", key) from None


def _url(url: str, allow_private: bool) -> None:
    """What can be told without the network; what a name leads to is judged when something is sent."""
    host = check_url(url, allow_private).host
    try:
        is_fine = may_call("127.0.0.1" if host == "localhost" else host, allow_private)
    except ValueError:
        return
    if not is_fine:
        raise UsageError(
            f"{host} is not public; allow_private = true is for tools on this machine or network."
        )


def _format(said: Mapping[str, Any]) -> str:
    if "format" in said and "template" in said:
        raise Wrong("deliver takes a format or a template, not both", "deliver", "template")
    if (found := said.get("format", "standard")) not in FORMATS:
        raise Wrong(
            f"there is no format {found!r}. Choose from: {', '.join(FORMATS)}", "deliver", "format"
        )
    return str(found)


def _references(values: Any) -> tuple[str, ...]:
    found = [values] if isinstance(values, str) else values
    if not isinstance(found, list | tuple):
        raise Wrong('deliver.secrets is a list, such as ["env:HOOK_SECRET"]', "deliver", "secrets")
    return tuple(_reference(one, "secrets") for one in found)


def _reference(value: Any, key: str) -> str:
    if not isinstance(value, str) or not REFERENCE.fullmatch(value):
        raise Wrong(
            f"deliver.{key} takes references such as env:HOOK_SECRET or dlt:my_section.hook_secret, not the secret itself",
            "deliver",
            key,
        )
    return value


def _auth(said: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(said, Mapping) or len(said) > 1:
        raise Wrong(
            'deliver.auth is one of { bearer = "env:T" }, { basic = ["env:USER", "env:PASSWORD"] }, '
            '{ header = ["X-Api-Key", "env:KEY"] }',
            "deliver",
            "auth",
        )
    known(said, tuple(AUTH), "auth")
    found = {}
    for kind, values in said.items():
        parts = [values] if isinstance(values, str) else values
        if not isinstance(parts, list | tuple) or len(parts) != AUTH[kind]:
            raise Wrong(f"deliver.auth.{kind} takes {AUTH[kind]} of them", "deliver", "auth")
        kept = [str(part) for part in parts[:1]] if kind == "header" else []
        found[kind] = (*kept, *(_reference(part, "auth") for part in parts[len(kept) :]))
    return found


def _headers(said: Any) -> dict[str, str]:
    if not isinstance(said, Mapping) or not all(isinstance(value, str) for value in said.values()):
        raise Wrong("deliver.headers is a table of texts", "deliver", "headers")
    if wrong := header_fault(said):
        raise Wrong(f"deliver.headers: {wrong}", "deliver", "headers")
    if any(name.lower() in ("authorization", "proxy-authorization", "cookie") for name in said):
        raise Wrong(
            "deliver.headers holds no secrets: give deliver.auth, by reference",
            "deliver",
            "headers",
        )
    return {str(name): value for name, value in said.items()}


def _timeout(value: Any) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 < value <= MOST_SECONDS
    ):
        raise Wrong(
            f"deliver.timeout is in seconds, at most {MOST_SECONDS:.0f}", "deliver", "timeout"
        )
    return float(value)


def _exhausted(value: Any) -> Any:
    if value not in ("skip", "block"):
        raise Wrong('deliver.on_exhausted is "skip" or "block"', "deliver", "on_exhausted")
    return value


def form_of(deliver: Deliver) -> Callable[[Telling], Body]:
    """What makes the bodies of messages; it raises `NotRenderable` for those that have none in this
    form.
    """
    form: str | Template = (
        deliver.format if deliver.template is None else compile_template(deliver.template)
    )
    return lambda telling: render(form, telling, deliver.synthetic)


def looked_up_by(deliver: Deliver) -> frozenset[str]:
    """What messages to a receiver look up beside their changes."""
    return frozenset() if deliver.template is None else compile_template(deliver.template).looks_up


def is_reference(value: Any) -> bool:
    """Whether a text names a secret instead of being one."""
    return isinstance(value, str) and REFERENCE.fullmatch(value) is not None


def variables(delivers: Iterable[Deliver]) -> set[str]:
    """The names of the environment that hold secrets of these receivers."""
    named = [
        part
        for one in delivers
        for part in (str(one.to), *one.secrets, *chain.from_iterable(one.auth.values()))
    ]
    found = [part.partition(":") for part in named if is_reference(part)]
    return {name if kind == "env" else name.upper().replace(".", "__") for kind, _, name in found}


class Receiver:
    """What sends the messages of one trigger. Raises `SetupError` for secrets that cannot be found,
    before anything is sent.

    `hidden`: names of the environment that no command gets.
    """

    def __init__(
        self,
        trigger: str,
        deliver: Deliver,
        now: Callable[[], float],
        hidden: Collection[str] = (),
        **network: Any,
    ) -> None:
        self.trigger, self.deliver, self.now = trigger, deliver, now
        self.body, self.looks_up = form_of(deliver), looked_up_by(deliver)
        self.secrets = [looked_up(one) for one in deliver.secrets]
        self.headers("msg_0", Body(b""))
        self.sink = _sink(deliver, now, {*hidden, *variables([deliver])}, **network)
        is_secret = deliver.kind == "url" and is_reference(deliver.to)
        self.host = check_url(_address(deliver), deliver.allow_private).host if is_secret else None

    def headers(self, message_id: str, body: Body) -> dict[str, str]:
        """What goes with a body now: its type, the message's id and the time, and signatures where
        there are secrets.
        """
        at = int(self.now())
        found = {
            "content-type": body.content_type,
            "webhook-id": message_id,
            "webhook-timestamp": str(at),
        }
        if self.secrets and self.deliver.format == "stripe":
            return {**found, "stripe-signature": stripe_header(at, body.content, self.secrets)}
        return {
            **found,
            **(
                standard_headers(message_id, at, body.content, self.secrets) if self.secrets else {}
            ),
        }

    def send(self, message_id: str, body: Body) -> Outcome:
        """Try once."""
        outcome = self.sink.send(
            message_id, self.trigger, body.content, self.headers(message_id, body)
        )
        if self.host is None:
            return outcome
        return replace(
            outcome, note=outcome.note.replace(self.host, str(self.deliver.to))
        )  # all of the URL is secret

    def close(self) -> None:
        """Let go of connections and files."""
        self.sink.close()


def _sink(
    deliver: Deliver, now: Callable[[], float], hidden: Collection[str], **network: Any
) -> Sink:
    match deliver.kind:
        case "url":
            headers = {**deliver.headers, **_credentials(deliver.auth)}
            how = {"allow_private": deliver.allow_private, "timeout": deliver.timeout, **network}
            return Webhook(_address(deliver), headers=headers, now=now, **how)
        case "command":
            return Command(str(deliver.to), timeout=deliver.timeout, hidden=hidden)
        case "python":
            return Function(deliver.to)
        case "file":
            return Lines(str(deliver.to))


def _address(deliver: Deliver) -> str:
    """The URL, looked up where it is a secret, too. Raises `SetupError` for a secret that is no
    such URL.
    """
    reference = str(deliver.to)
    if not is_reference(reference):
        return reference
    url = looked_up(reference)
    try:
        _url(url, deliver.allow_private)
    except UsageError:  # its words name the host
        raise SetupError(
            f"The secret {reference} is no URL that can be called: https://… without a user, a fragment or blanks, at a public "
            "host (others with allow_private = true)."
        ) from None
    return url


def _credentials(auth: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    for kind, parts in auth.items():
        if kind == "header":
            return {parts[0]: looked_up(parts[1])}
        values = [looked_up(part) for part in parts]
        if kind == "basic":
            return {
                "Authorization": "Basic " + base64.b64encode(":".join(values).encode()).decode()
            }
        return {"Authorization": f"Bearer {values[0]}"}
    return {}


def looked_up(reference: str) -> str:
    """The secret behind `env:NAME` or `dlt:section.key`. Raises `SetupError` where there is none."""
    kind, _, name = reference.partition(":")
    if kind == "env":
        found = os.environ.get(name)
    else:
        import dlt

        found = dlt.secrets.get(name, str)
    if not found:
        where = "in the environment" if kind == "env" else "in .dlt/secrets.toml"
        raise SetupError(
            f"The secret {reference} is not set. Put it {where}, or take it out of the trigger."
        )
    return str(found).strip()


@dataclass(frozen=True, slots=True)
class Deliver:
    """Where messages go, and how. `to` is a URL, a shell command, `module:function`, a callable or
    a file, by `kind`.

    `secrets`, and the values of `auth`, are references (`env:NAME`, `dlt:section.key`), looked up
    when something is sent; a URL may be one.
    """

    kind: Literal["url", "command", "python", "file"]
    to: str | Callable[[Any, str], object]
    format: str = "standard"
    template: Any = None
    secrets: tuple[str, ...] = ()
    auth: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    allow_private: bool = False
    timeout: float = 15.0
    on_exhausted: Literal["skip", "block"] = "skip"
    synthetic: bool = False

    @property
    def shown(self) -> str:
        """The receiver in a few words, without what may be secret: all of a URL but its host, all
        of a command but its name.
        """
        if not isinstance(self.to, str):
            return getattr(self.to, "__qualname__", "a callable")
        if self.kind == "command":
            first, *more = self.to.split()
            return f"{first} …" if more else first
        if self.kind != "url" or self.to.startswith(("env:", "dlt:")):
            return self.to
        url = urlsplit(self.to)
        return f"{url.scheme}://{url.hostname}{f':{url.port}' if url.port else ''}/…"
