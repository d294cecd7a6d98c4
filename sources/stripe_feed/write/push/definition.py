"""What a push is: which object, which rows, how they find their object, and what each field is."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from string import Formatter
from typing import Any, Literal

from ...errors import UsageError
from ...resources.writable import WRITABLE, Writable
from ..parameters import NULLS, Nulls
from ..unchanged import check_only_if_empty

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Mode = Literal["insert", "update", "upsert"]
PushIfSeveral = Literal["error", "newest", "oldest"]

MODES = ("insert", "update", "upsert")
PUSH_IF_SEVERAL = ("error", "newest", "oldest")
NOTHING = "nothing"
MAX_DELETE_SHARE = 0.1

OBJECTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "customers": (("id", "email"), ("delete",)),
    "products": (("id",), ("delete", "deactivate")),
    "prices": (("id", "lookup_key"), ("deactivate",)),
    "subscriptions": (("id",), ("cancel", "cancel_at_period_end")),
    "invoices": (("id",), ("delete", "void")),
    "invoice_items": (("id",), ("delete",)),
    "quotes": (("id",), ("cancel",)),
}
"""Per object the fields to match on (beside `metadata.NAME`), and what can be done to an object whose
row is gone.
"""
FINDABLE: dict[str, tuple[str, ...]] = {
    "customers": ("id", "email"),
    "products": ("id",),
    "prices": ("id", "lookup_key"),
    "subscriptions": ("id",),
    "invoices": ("id",),
    "coupons": ("id",),
}
"""Objects that a field can name, and the properties that find them (beside `metadata.NAME`)."""
FILLABLE = ("customers", "products")
"""Objects of which only empty fields can be filled; what the others bill is no field to fill."""
PRORATIONS = ("none", "create_prorations", "always_invoice")
ON_MISSING = ("reject", "create", "null")
ASSOCIATION = {"by", "on_missing"}
_METADATA = re.compile(r"metadata\.[^.\[\]]{1,40}")
TEXT_FILTERS: dict[str, Callable[[str], str]] = {
    "trim": str.strip,
    "lower": str.lower,
    "upper": str.upper,
    "title": str.title,
    "digits": lambda text: "".join(filter(str.isdigit, text)),
}
"""What a template can do to the text of a column."""
CONVERSIONS = ("text", "integer", "boolean", "utc", "milliseconds", "json")
"""What a value is made into before it is checked: `utc` gives a time without a zone one, `milliseconds`
become seconds, and `json` makes text of lists and hashes, and the reverse.
"""


@dataclass(frozen=True, slots=True)
class ColumnSource:
    """The value of a column."""

    name: str
    convert: str | None = None


@dataclass(frozen=True, slots=True)
class Constant:
    """The same value for every row."""

    value: Any


@dataclass(frozen=True, slots=True)
class TemplatePart:
    """Text, and a column after it with what is done to its value: `{name|trim|upper}`."""

    text: str
    column: str | None = None
    filters: tuple[str, ...] = ()
    default: str | None = None


@dataclass(frozen=True, slots=True)
class RowTemplate:
    """Text with columns in it: `{first_name} {last_name}`. It is empty if one of them is that has no
    default: `{first_name|default:You}`.
    """

    parts: tuple[TemplatePart, ...]

    @property
    def columns(self) -> list[str]:
        """The columns that it names."""
        return [part.column for part in self.parts if part.column is not None]

    def filled(self, values: Mapping[str, Any]) -> str | None:
        """The text with the values of its columns, whatever characters their names have."""
        texts: list[str] = []
        for part in self.parts:
            texts.append(part.text)
            if part.column is None:
                continue
            value = values[part.column]
            text = part.default if value is None else str(value)
            if text is None:
                return None
            for name in part.filters:
                text = TEXT_FILTERS[name](text)
            texts.append(text)
        return "".join(texts)


@dataclass(frozen=True, slots=True)
class Computed:
    """The value that a Python function makes of the whole row."""

    work: Callable[[Mapping[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class Association:
    """The id of another object, which the value of a column finds. `on_missing`: refuse the row,
    create the object, or leave the field empty.
    """

    column: str
    find: str
    by: str
    on_missing: str = "reject"


@dataclass(frozen=True, slots=True)
class RunTime:
    """When the run began, in Stripe's time, for a key of the metadata. It goes with what else is sent
    of a row, and sends nothing by itself.
    """

    at: int = 0


Source = ColumnSource | Constant | RowTemplate | Association | Computed | RunTime


@dataclass(frozen=True, slots=True)
class Definition:
    """A push. `map` gives for each parameter of Stripe (dotted names reach into hashes) a column, a
    constant, a template, an association or a function of the row; without it, each column is the
    parameter of its name. A name that is no parameter becomes a key of the object's metadata.

    `key` names the columns that tell one row from another. `nulls` says what an empty value means.
    `only_if_empty` keeps the values that an object has already: all, or those of the fields named.
    """

    name: str
    object: str
    key: tuple[str, ...]
    mode: Mode = "upsert"
    match: str | None = None
    map: Mapping[str, Source] | None = None
    query: str | None = None
    file: str | None = None
    encoding: str = "utf-8"
    nulls: Nulls = "skip"
    if_several: PushIfSeveral = "error"
    only_if_empty: bool | tuple[str, ...] = False
    on_delete: str = NOTHING
    max_deletes: int = 0
    max_delete_share: float = MAX_DELETE_SHARE
    proration_behavior: str = "none"
    row: Writable = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.object not in OBJECTS:
            raise UsageError(
                f"{self.name}: rows cannot be pushed to {self.object!r}. Choose from: {', '.join(OBJECTS)}."
            )
        object.__setattr__(self, "row", WRITABLE[self.object])
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,60}", self.name):
            raise UsageError("The name of a push has 1 to 60 letters, digits, _ or -.")
        if not self.key:
            raise UsageError(f"{self.name}: key names the columns that tell one row from another.")
        choices_of = {
            "mode": MODES,
            "nulls": NULLS,
            "if_several": PUSH_IF_SEVERAL,
            "proration_behavior": PRORATIONS,
        }
        for name, choices in choices_of.items():
            if getattr(self, name) not in choices:
                raise UsageError(f"{self.name}: {name} is one of {', '.join(choices)}.")
        if self.query is not None and self.file is not None:
            raise UsageError(f"{self.name}: rows come from a query or from a file, not from both.")
        _check_match(self)
        _check_deletes(self)
        if self.only_if_empty and self.object not in FILLABLE:
            raise UsageError(
                f"{self.name}: only_if_empty is for {', '.join(FILLABLE)}, not for {self.object}."
            )
        check_only_if_empty(self.row, self.only_if_empty)

    @property
    def columns(self) -> list[str]:
        """The columns that the rows must have."""
        named = [*self.key]
        for source in (self.map or {}).values():
            match source:
                case ColumnSource():
                    named.append(source.name)
                case Association():
                    named.append(source.column)
                case RowTemplate():
                    named += source.columns
        return list(dict.fromkeys(named))


def _check_match(push: Definition) -> None:
    names, _ = OBJECTS[push.object]
    if push.match is None:
        if push.mode != "insert":
            raise UsageError(
                f"{push.name}: {push.mode} needs match, one of {', '.join(names)}, metadata.NAME."
            )
        return
    if push.match not in names and not _METADATA.fullmatch(push.match):
        raise UsageError(
            f"{push.name}: {push.object} match on {', '.join(names)} or metadata.NAME."
        )
    if push.map is not None and push.match not in push.map:
        raise UsageError(f"{push.name}: map says nothing of {push.match}, which rows match on.")
    if push.match == "id" and push.mode != "update" and not push.row.own_ids:
        raise UsageError(
            f"{push.name}: Stripe chooses the id of a new {push.row.noun}, so {push.mode} cannot match on it. "
            "Match on something else, or use update."
        )


def _check_deletes(push: Definition) -> None:
    _, ways = OBJECTS[push.object]
    if push.on_delete not in (NOTHING, *ways):
        raise UsageError(
            f"{push.name}: on_delete of {push.object} is one of {', '.join((NOTHING, *ways))}."
        )
    if push.on_delete != NOTHING and push.mode != "upsert":
        raise UsageError(f"{push.name}: on_delete needs the mode upsert.")
    if push.on_delete != NOTHING and push.max_deletes < 1:
        raise UsageError(
            f"{push.name}: on_delete needs max_deletes, the most objects that one run may {push.on_delete}."
        )
    if not 0 < push.max_delete_share <= 1:
        raise UsageError(f"{push.name}: max_delete_share is more than 0 and at most 1.")


def read_definitions(text: str) -> dict[str, Definition]:
    """Read the pushes of a TOML file. Raises `UsageError`."""
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        raise UsageError(f"The file of the pushes is no TOML: {fault}") from None
    pushes = parsed.get("push")
    if set(parsed) != {"push"} or not isinstance(pushes, Mapping) or not pushes:
        raise UsageError("The file of the pushes holds tables named [push.NAME], and nothing else.")
    return {name: make_definition(name, given) for name, given in pushes.items()}


def make_definition(name: str, given: Mapping[str, Any]) -> Definition:
    """Make a push of what a file says, or a call. Raises `UsageError`."""
    known = {one.name for one in fields(Definition)} - {"name", "row"}
    if not isinstance(given, Mapping):
        raise UsageError(f"[push.{name}] is a table.")
    if strange := sorted(given.keys() - known):
        raise UsageError(
            f"{name}: there is no setting {strange[0]}. Choose from: {', '.join(sorted(known))}."
        )
    if missing := [one for one in ("object", "key") if one not in given]:
        raise UsageError(f"{name}: {missing[0]} is missing.")
    settings = dict(given)
    for setting, (kinds, what) in _KINDS.items():
        value = settings.get(setting)
        if value is not None and (isinstance(value, bool) or not isinstance(value, kinds)):
            raise UsageError(f"{name}: {setting} is {what}.")
    key = settings["key"]
    if not all(isinstance(one, str) for one in key):
        raise UsageError(f"{name}: key is the name of a column, or a list of names.")
    settings["key"] = (key,) if isinstance(key, str) else tuple(key)
    if isinstance(named := settings.get("only_if_empty", False), str | list | tuple):
        settings["only_if_empty"] = (named,) if isinstance(named, str) else tuple(named)
    elif not isinstance(named, bool):
        raise UsageError(f"{name}: only_if_empty is true, false or a list of fields.")
    if settings.get("map") is not None:
        settings["map"] = {
            path: _source(name, path, source) for path, source in _flat(settings["map"])
        }
    return Definition(name=name, **settings)


_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "object": ((str,), "a word"),
    "key": ((str, list, tuple), "the name of a column, or a list of names"),
    "match": ((str,), "the name of a field"),
    "map": ((Mapping,), "a table of fields"),
    "query": ((str,), "a select on the copy"),
    "file": ((str,), "the path of a file"),
    "encoding": ((str,), "the name of an encoding"),
    "max_deletes": ((int,), "a whole number"),
    "max_delete_share": ((int, float), "a number"),
}
"""What settings can hold, and in words."""


def _flat(given: Any) -> list[tuple[str, Any]]:
    """The fields of a map; in TOML a dotted name that is not quoted is a table of its own."""
    found: list[tuple[str, Any]] = []
    for name, value in given.items():
        is_source = isinstance(value, Mapping) and value.keys() & {
            "column",
            "value",
            "template",
            "time_of",
        }
        if isinstance(value, Mapping) and not is_source:
            found += [(f"{name}.{inner}", source) for inner, source in _flat(value)]
        else:
            found.append((name, value))
    return found


def _source(push: str, path: str, given: Any) -> Source:
    match given:
        case ColumnSource() | Constant() | RowTemplate() | Association() | Computed():
            return given
        case {"time_of": "run", **rest} if not rest:
            return RunTime()
        case str():
            return ColumnSource(given)
        case _ if callable(given):
            return Computed(given)
        case {"value": value, **rest} if not rest:
            return Constant(value)
        case {"template": str(text), **rest} if not rest:
            return _template(push, path, text)
        case {"column": str(column), "find": str(find), **rest} if not rest.keys() - ASSOCIATION:
            return _association(push, path, column, find, rest)
        case {"column": str(column), **rest} if not rest.keys() - {"as"}:
            convert: Any = rest.get("as")
            if convert not in (None, *CONVERSIONS):
                raise UsageError(f"{push}: {path}: as is one of {', '.join(CONVERSIONS)}.")
            return ColumnSource(column, convert)
    raise UsageError(
        f"{push}: {path} is a column, or one of {{column = ..., as = ...}}, {{column = ..., find = ..., by = ...}}, "
        '{value = ...}, {template = ...}, {time_of = "run"}.'
    )


def _association(
    push: str, path: str, column: str, find: str, rest: Mapping[Any, Any]
) -> Association:
    found = Association(column, find, str(rest.get("by", "id")), rest.get("on_missing", "reject"))
    if find not in FINDABLE:
        raise UsageError(f"{push}: {path}: find is one of {', '.join(FINDABLE)}.")
    if found.by not in FINDABLE[find] and not _METADATA.fullmatch(found.by):
        raise UsageError(
            f"{push}: {path}: by is one of {', '.join(FINDABLE[find])}, metadata.NAME."
        )
    if found.on_missing not in ON_MISSING:
        raise UsageError(f"{push}: {path}: on_missing is one of {', '.join(ON_MISSING)}.")
    if found.on_missing == "create" and (find != "customers" or found.by == "id"):
        raise UsageError(f"{push}: {path}: only a customer can be created, and not by its id.")
    return found


def _template(push: str, path: str, text: str) -> RowTemplate:
    try:
        parsed = list(Formatter().parse(text))
    except ValueError:
        parsed = []
    parts = tuple(
        TemplatePart(before)
        if name is None
        else _template_part(push, path, before, name, spec or "")
        for before, name, spec, _ in parsed
    )
    columns = [part.column for part in parts if part.column is not None]
    if not columns or not all(columns) or any(way for *_, way in parsed):
        raise UsageError(f"{push}: {path}: a template is text with {{column}} in it.")
    return RowTemplate(parts)


def _template_part(push: str, path: str, text: str, name: str, spec: str) -> TemplatePart:
    """The part of `{column|filter|default:TEXT}`, of which Python takes the colon for a format."""
    column, *filters = f"{name}:{spec}".split("|") if spec else name.split("|")
    default = None
    if filters and filters[-1].startswith("default:"):
        default = filters.pop().partition(":")[2]
    if ":" in column or not TEXT_FILTERS.keys() >= {*filters}:
        raise UsageError(
            f"{push}: {path}: in a template, a column can be followed by |{', |'.join(TEXT_FILTERS)}, and at last |default:TEXT."
        )
    return TemplatePart(text, column, tuple(filters), default)
