"""Turn a function into a command of the command line."""

from __future__ import annotations

import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache, wraps
from typing import Any, get_type_hints

import typer

from ..destination.error_messages import causes_of, translate_error
from ..errors import PartlyDone, UsageError

LARGEST_NUMBER = 10**9  # no count of seconds, rows or offsets needs more


def describe_unexpected(error: BaseException) -> str:
    """Describe a defect by its type alone: its own message may hold keys or data."""
    cause = causes_of(error)[-1]
    name = f"{type(cause).__module__}.{type(cause).__qualname__}"
    return f"unexpected {name}. Run again with --debug for the traceback, and please report it."


def print_traceback(error: BaseException) -> None:
    """Print the traceback with every cause, for `--debug`. Messages of databases and libraries can
    hold data.
    """
    for cause in causes_of(error):
        cause.__suppress_context__ = False
    traceback.print_exception(type(error), error, error.__traceback__)


def command(
    app: typer.Typer, function: Callable[..., int | None], **settings: Any
) -> Callable[..., None]:
    """Make a command of a function that returns its exit code or None.

    A parameter whose type is a dataclass stands for one option per field. An error becomes one
    line on stderr.
    """
    hints = get_type_hints(function, include_extras=True)
    groups = option_groups(hints)

    @wraps(function)
    def guarded(**arguments: Any) -> None:
        from .output import echo_err, is_pipe_closed, log_to_stderr, print_failure, silence

        code = 1
        try:
            with log_to_stderr(bool(arguments.get("quiet"))):
                check_values(arguments.values())
                code = function(**grouped(arguments, groups)) or 0
            sys.stdout.flush()
        except KeyboardInterrupt:
            echo_err("Interrupted. Run again to continue.")
            code = 130
        except typer.Exit:
            raise
        except Exception as error:
            if isinstance(error, BrokenPipeError) and is_pipe_closed(
                sys.stdout
            ):  # as `| head` does
                silence(sys.stdout)
                return
            if os.environ.get("STRIPE_FEED_DEBUG"):
                print_traceback(error)
            try:
                sys.stdout.flush()
            except OSError:
                silence(sys.stdout)  # Python would flush once more at exit
            known = translate_error(error)
            message = str(known or describe_unexpected(error))
            echo_err(f"error: {message}")
            code = 1 if known is None else known.exit_code
            if (
                arguments.get("json") and code != PartlyDone.exit_code
            ):  # that one follows the answer
                print_failure(type(known or error).__name__, message, code)
        if code:
            raise typer.Exit(code)

    signature = expanded_signature(function, hints, groups)
    guarded.__signature__ = signature  # type: ignore[attr-defined]
    guarded.__annotations__ = {
        name: parameter.annotation for name, parameter in signature.parameters.items()
    }
    app.command(**settings)(guarded)
    return guarded


def option_groups(hints: Mapping[str, Any]) -> dict[str, type]:
    """The parameters whose type is a dataclass of options."""
    return {
        name: hint for name, hint in hints.items() if isinstance(hint, type) and is_dataclass(hint)
    }


def expanded_signature(
    function: Callable[..., Any], hints: Mapping[str, Any], groups: Mapping[str, type]
) -> inspect.Signature:
    """The signature for typer: each option group is replaced by its fields."""
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name in groups:
            parameters += _options_of(groups[name])
        else:
            parameters.append(
                parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
            )
    return inspect.Signature(parameters)


@cache
def _options_of(group: type) -> list[inspect.Parameter]:
    """One parameter per field; many commands share a group, and its types are slow to read."""
    types = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=types[field.name],
        )
        for field in fields(group)
    ]


def grouped(arguments: dict[str, Any], groups: dict[str, type]) -> dict[str, Any]:
    """The arguments of the function: the fields of each option group become one object again."""
    remaining = dict(arguments)
    objects = {
        name: group(**{field.name: remaining.pop(field.name) for field in fields(group)})
        for name, group in groups.items()
    }
    return remaining | objects


def check_values(values: Iterable[Any]) -> None:
    """Raise `UsageError` for a number out of range (NaN too) and for text that is not UTF-8."""
    for value in values:
        if isinstance(value, list | tuple):
            check_values(value)
        elif isinstance(value, int | float) and not -LARGEST_NUMBER <= value <= LARGEST_NUMBER:
            raise UsageError("A number is out of range: give one of at most a thousand million.")
        elif isinstance(value, str) and any("\ud800" <= sign <= "\udfff" for sign in value):
            raise UsageError("An argument holds bytes that are not UTF-8. Write it in UTF-8.")
