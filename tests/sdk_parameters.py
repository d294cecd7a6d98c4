"""The parameters that the installed SDK's annotations allow, as the files of `resources/parameters`
hold them.

`python -m tests.sdk_parameters` writes the files again.
"""

from __future__ import annotations

import importlib
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import stripe._request_options as request_options
import typing_extensions

from stripe_feed.resources import writable
from stripe_feed.resources.writable import WRITABLE, Writable

FOLDER = Path(writable.__file__).with_name("parameters")
HEADER = "parameter\ttypes\tverbs\tvalues\n"
OPTIONS = request_options.RequestOptions.__annotations__
ELSEWHERE = {"expand", "limit", "starting_after", "ending_before", "page", "query"}
"""Given in another way than as a parameter."""
SDK_VERBS = {
    ("invoices", "finalize"): "finalize_invoice",
    ("quotes", "finalize"): "finalize_quote",
    ("invoices", "void"): "void_invoice",
    ("invoices", "send"): "send_invoice",
}
SDK_OBJECTS = {"invoice_items": "invoice_item"}
SCALARS = {"str": "text", "int": "int", "bool": "bool", "float": "double", "Decimal": "decimal"}
MOST_VALUES = 24
TIMESTAMPS = {
    "automatically_finalizes_at", "backdate_start_date", "billing_cycle_anchor", "cancel_at",
    "canceled_at", "created", "current_period_end", "current_period_start", "due_date",
    "effective_at", "effective_date", "end_date", "expires_at", "proration_date", "redeem_by", "resumes_at",
    "timestamp", "trial_end", "gt", "gte", "lt", "lte",
}  # fmt: skip
"""The SDK annotates them as `int`; `start` and `end` are those of a `period`."""

Row = tuple[str, str, bool, bool, str]
"""Path, types, required, unsettable, values."""


def tsv(row: Writable) -> str:
    """The file of one table."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for verb in row.verbs:
        for path, kinds, required, unsettable, values in rows_of(row, verb):
            word = verb + "*" * required + "-" * unsettable
            found.setdefault((path, kinds, values), []).append(word)
    lines = (
        f"{path}\t{kinds}\t{' '.join(verbs)}\t{values}\n"
        for (path, kinds, values), verbs in sorted(found.items())
    )
    return HEADER + "".join(lines)


def rows_of(row: Writable, verb: str) -> Iterator[Row]:
    """What one verb takes."""
    if verb in ("get", "search"):
        return
    name = f"{SDK_OBJECTS.get(row.table, row.object)}_{SDK_VERBS.get((row.table, verb), verb)}"
    module = importlib.import_module(f"stripe.params._{name}_params")
    params = getattr(module, "".join(map(str.title, name.split("_"))) + "Params")
    yield from fields(vars(module), params, "")


def fields(scope: dict[str, Any], params: Any, prefix: str) -> Iterator[Row]:
    scope = {**vars(request_options), **scope, "StripeContext": object}
    for name, hint in typing_extensions.get_type_hints(params, scope).items():
        if prefix or name not in {*OPTIONS, *ELSEWHERE}:
            yield from field(scope, f"{prefix}{name}", hint, name in params.__required_keys__)


def field(scope: dict[str, Any], path: str, hint: Any, required: bool) -> Iterator[Row]:
    kinds: dict[str, None] = {}
    values: dict[str, None] = {}
    inner: list[tuple[str, Any]] = []
    for part in parts(hint):
        origin, arguments = typing_extensions.get_origin(part), typing_extensions.get_args(part)
        if origin is typing.Literal:
            values |= dict.fromkeys(arguments)
            kinds |= {"text": None} if arguments != ("",) else {}
        elif hasattr(part, "__required_keys__"):
            kinds["hash"] = None
            inner.append((path, part))
        elif origin in (list, dict):
            kinds["list" if origin is list else "map"] = None
            inner.append((f"{path}[]" if origin is list else f"{path}.*", arguments[-1]))
        elif part.__name__ in SCALARS:
            kinds[scalar(path, part.__name__)] = None
    shown = [value for value in values if value]
    enumeration = "|".join(shown) if len(shown) <= MOST_VALUES else ""
    yield path, "|".join(sorted(kinds)) or "text", required, "" in values, enumeration
    for place, hint in inner:
        if hasattr(hint, "__required_keys__"):
            yield from fields(scope, hint, f"{place}.")
        else:
            yield from field(scope, place, hint, False)


def scalar(path: str, name: str) -> str:
    parent, _, last = path.rpartition(".")
    is_time = last in TIMESTAMPS or (last in ("start", "end") and parent.endswith("period"))
    return "timestamp" if name == "int" and is_time else SCALARS[name]


def parts(hint: Any) -> Iterator[Any]:
    """The members of a union, `NotRequired` and the like taken off."""
    origin = typing_extensions.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        for argument in typing_extensions.get_args(hint):
            yield from parts(argument)
    elif origin in (typing_extensions.NotRequired, typing_extensions.Required):
        yield from parts(typing_extensions.get_args(hint)[0])
    elif hint is not type(None):
        yield hint


if __name__ == "__main__":
    for row in WRITABLE.values():
        (FOLDER / f"{row.table}.tsv").write_text(tsv(row), encoding="utf-8")
