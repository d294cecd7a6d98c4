"""Where messages go, and how: parse a `deliver` table into a configuration."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import chain
from typing import Any, Literal, Protocol
from urllib.parse import urlsplit

from ..errors import UsageError
from .addresses import check_url, may_call
from .payloads import FORMATS, Payload, PayloadContext, Template, compile_template, render

_KINDS = ("url", "command", "python", "file")
DELIVER_KEYS = (
    *_KINDS,
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
MAX_SECONDS = 120.0
RESERVED_HEADERS = ("host", "content-length", "transfer-encoding", "connection")


class Route(Protocol):
    """A trigger as delivery sees it: its name, and its endpoint."""

    @property
    def name(self) -> str: ...

    @property
    def deliver(self) -> EndpointConfig: ...


class ConfigError(UsageError):
    """A fault in a trigger's configuration, and the key it is at."""

    def __init__(self, message: str, *keys: str) -> None:
        super().__init__(message)
        self.keys = keys
        self.others: tuple[ConfigError, ...] = ()  # what else is wrong with the trigger


def reject_unknown(table: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    """Raise `ConfigError` for a key that is not one of these; `where` is the table's own key."""
    for name in table:
        if name not in names:
            near = get_close_matches(str(name), names, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f". Known are: {', '.join(names)}"
            keys = (where, str(name)) if where else (str(name),)
            raise ConfigError(f"unknown key {'.'.join(keys)}{hint}", *keys)


def read_bool(table: Mapping[str, Any], key: str) -> bool:
    """Return a key that is true or false; false if it is absent."""
    value = table.get(key, False)
    if not isinstance(value, bool):
        raise ConfigError(f"{key} must be true or false", key)
    return value


def parse_endpoint(table: Any) -> EndpointConfig:
    """Parse a `deliver` table. Raises `ConfigError`."""
    if not isinstance(table, Mapping):
        raise ConfigError(
            'say where messages go, such as deliver = { url = "https://…" }', "deliver"
        )
    reject_unknown(table, DELIVER_KEYS, "deliver")
    kinds: list[Any] = [kind for kind in _KINDS if kind in table]
    if len(kinds) != 1:
        raise ConfigError(f"deliver takes one of {', '.join(_KINDS)}", "deliver")
    target = table[kinds[0]]
    if not (isinstance(target, str) and target.strip() and "\0" not in target) and not (
        kinds[0] == "python" and callable(target)
    ):
        raise ConfigError(f"deliver.{kinds[0]} must be a string", "deliver", kinds[0])
    endpoint = EndpointConfig(
        kind=kinds[0],
        to=target,
        format=_format(table),
        template=table.get("template"),
        secrets=_references(table.get("secrets", [])),
        auth=_auth(table.get("auth", {})),
        headers=_headers(table.get("headers", {})),
        allow_private=read_bool(table, "allow_private"),
        timeout=_timeout(table.get("timeout", 15)),
        on_exhausted=_on_exhausted(table.get("on_exhausted", "skip")),
        synthetic=read_bool(table, "synthetic"),
    )
    _check(
        lambda: compile_template(endpoint.template) if endpoint.template is not None else None,
        "template",
    )
    _check(
        lambda: (
            check_endpoint_url(str(target), endpoint.allow_private)
            if endpoint.kind == "url" and not is_reference(target)
            else None
        ),
        "url",
    )
    if endpoint.format == "stripe" and endpoint.kind == "url" and not endpoint.secrets:
        raise ConfigError("the format stripe is signed: set deliver.secrets", "deliver", "format")
    return endpoint


def _check(check: Callable[[], object], key: str) -> None:
    try:
        check()
    except UsageError as fault:
        raise ConfigError(f"deliver.{key}: {fault}", "deliver", key) from None


def check_endpoint_url(url: str, allow_private: bool) -> None:
    """Check a URL as far as possible without the network; the addresses of a name are checked when
    something is sent.
    """
    host = check_url(url, allow_private).host
    try:
        is_fine = may_call("127.0.0.1" if host == "localhost" else host, allow_private)
    except ValueError:
        return
    if not is_fine:
        raise UsageError(
            f"{host} is not public; allow_private = true is for tools on this machine or network."
        )


def _format(table: Mapping[str, Any]) -> str:
    if "format" in table and "template" in table:
        raise ConfigError("deliver takes a format or a template, not both", "deliver", "template")
    if (name := table.get("format", "standard")) not in FORMATS:
        raise ConfigError(
            f"there is no format {name!r}. Choose from: {', '.join(FORMATS)}", "deliver", "format"
        )
    return str(name)


def _references(values: Any) -> tuple[str, ...]:
    references = [values] if isinstance(values, str) else values
    if not isinstance(references, list | tuple):
        raise ConfigError(
            'deliver.secrets is a list, such as ["env:HOOK_SECRET"]', "deliver", "secrets"
        )
    return tuple(_reference(reference, "secrets") for reference in references)


def _reference(value: Any, key: str) -> str:
    if not isinstance(value, str) or not REFERENCE.fullmatch(value):
        raise ConfigError(
            f"deliver.{key} takes references such as env:HOOK_SECRET or dlt:my_section.hook_secret, not the secret itself",
            "deliver",
            key,
        )
    return value


def _auth(table: Any) -> dict[str, tuple[str, ...]]:
    if not isinstance(table, Mapping) or len(table) > 1:
        raise ConfigError(
            'deliver.auth is one of { bearer = "env:T" }, { basic = ["env:USER", "env:PASSWORD"] }, '
            '{ header = ["X-Api-Key", "env:KEY"] }',
            "deliver",
            "auth",
        )
    reject_unknown(table, tuple(AUTH), "auth")
    credentials = {}
    for kind, values in table.items():
        parts = [values] if isinstance(values, str) else values
        if not isinstance(parts, list | tuple) or len(parts) != AUTH[kind]:
            raise ConfigError(f"deliver.auth.{kind} takes {AUTH[kind]} values", "deliver", "auth")
        plain = [str(part) for part in parts[:1]] if kind == "header" else []
        credentials[kind] = (*plain, *(_reference(part, "auth") for part in parts[len(plain) :]))
    return credentials


def _headers(headers: Any) -> dict[str, str]:
    if not isinstance(headers, Mapping) or not all(
        isinstance(value, str) for value in headers.values()
    ):
        raise ConfigError("deliver.headers must be a table of strings", "deliver", "headers")
    if wrong := header_fault(headers):
        raise ConfigError(f"deliver.headers: {wrong}", "deliver", "headers")
    if any(name.lower() in ("authorization", "proxy-authorization", "cookie") for name in headers):
        raise ConfigError(
            "deliver.headers holds no secrets: give deliver.auth, by reference",
            "deliver",
            "headers",
        )
    return {str(name): value for name, value in headers.items()}


def _timeout(value: Any) -> float:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 < value <= MAX_SECONDS
    ):
        raise ConfigError(
            f"deliver.timeout is in seconds, at most {MAX_SECONDS:.0f}", "deliver", "timeout"
        )
    return float(value)


def _on_exhausted(value: Any) -> Any:
    if value not in ("skip", "block"):
        raise ConfigError('deliver.on_exhausted is "skip" or "block"', "deliver", "on_exhausted")
    return value


def payload_for(deliver: EndpointConfig) -> Callable[[PayloadContext], Payload]:
    """Return a function that builds payloads; it raises `NotRenderable` for messages without a
    payload in this format.
    """
    form: str | Template = (
        deliver.format if deliver.template is None else compile_template(deliver.template)
    )
    return lambda telling: render(form, telling, deliver.synthetic)


def lookups_of(deliver: EndpointConfig) -> frozenset[str]:
    """Return the related objects that an endpoint's template reads."""
    return (
        frozenset()
        if deliver.template is None
        else compile_template(deliver.template).related_tables
    )


def is_reference(value: Any) -> bool:
    """Whether a string refers to a secret instead of being one."""
    return isinstance(value, str) and REFERENCE.fullmatch(value) is not None


def secret_variables(delivers: Iterable[EndpointConfig]) -> set[str]:
    """Return the names of environment variables that hold secrets of these endpoints."""
    values = [
        part
        for deliver in delivers
        for part in (str(deliver.to), *deliver.secrets, *chain.from_iterable(deliver.auth.values()))
    ]
    references = [part.partition(":") for part in values if is_reference(part)]
    return {
        name if kind == "env" else name.upper().replace(".", "__") for kind, _, name in references
    }


def header_fault(headers: Mapping[str, str]) -> str:
    """Return why headers cannot be sent, without their values; empty if they can."""
    for name, value in headers.items():
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name):
            return "a name has a character not allowed in headers"
        if name.lower() in RESERVED_HEADERS:
            return f"{name} is set by stripe-feed"
        if re.search(r"[^\t\x20-\x7e\xa0-\xff]", value):
            return (
                f"the value of {name} has a line break or another character not allowed in headers"
            )
    return ""


@dataclass(frozen=True, slots=True)
class EndpointConfig:
    """Where messages go, and how. `to` is a URL, a shell command, `module:function`, a callable or
    a file, by `kind`.

    `secrets` and the values of `auth` are references (`env:NAME`, `dlt:section.key`), resolved when
    something is sent; a URL may be one too.
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
        """A short description without anything that may be secret: of a URL only the host, of a
        command only its name.
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
