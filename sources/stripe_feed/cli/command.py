"""How a function becomes a verb of the command line."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any

import typer

from ..destination.error_messages import chain, explained
from ..errors import PartlyDone, UsageError

MOST = 10**9  # of any number on the command line; seconds, rows and offsets are fewer


def unexpected(fault: BaseException) -> str:
    """The words for a defect; those of the exception may hold keys or data."""
    first = chain(fault)[-1]
    what = f"{type(first).__module__}.{type(first).__qualname__}"
    return f"unexpected {what}. Run again with --debug for the traceback, and please report it."


def show_causes(fault: BaseException) -> None:
    """The traceback with all that led there, for `--debug`: what databases and libraries say can
    hold data.
    """
    for one in chain(fault):
        one.__suppress_context__ = False
    traceback.print_exception(type(fault), fault, fault.__traceback__)


def command(
    app: typer.Typer, function: Callable[..., int | None], **settings: Any
) -> Callable[..., None]:
    """Make a verb of a function that returns its exit code. Errors become one line on stderr."""

    @wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> None:
        from .output import gone, heard, hush, print_failure, say

        code = 1
        try:
            with heard(bool(kwargs.get("quiet"))):
                check(kwargs.values())
                code = function(*args, **kwargs) or 0
            sys.stdout.flush()
        except KeyboardInterrupt:
            say("Interrupted; run again to go on.")
            code = 130
        except typer.Exit:
            raise
        except Exception as fault:
            if isinstance(fault, BrokenPipeError) and gone(
                sys.stdout
            ):  # `| head`: it has all that it wants
                hush(sys.stdout)
                return
            if os.environ.get("STRIPE_FEED_DEBUG"):
                show_causes(fault)
            try:
                sys.stdout.flush()
            except OSError:
                hush(sys.stdout)  # Python would try it once more when it ends
            known = explained(fault)
            say(f"error: {known or unexpected(fault)}")
            code = 1 if known is None else known.exit_code
            if (
                kwargs.get("json") and code != PartlyDone.exit_code
            ):  # after that one, the answer is there
                print_failure(type(known or fault).__name__, str(known or unexpected(fault)), code)
        if code:
            raise typer.Exit(code)

    app.command(**settings)(guarded)
    return guarded


def check(values: Iterable[Any]) -> None:
    """Raise `UsageError` for a number that nobody means, NaN too, and for a text that is no UTF-8."""
    for value in values:
        if isinstance(value, list | tuple):
            check(value)
        elif isinstance(value, int | float) and not -MOST <= value <= MOST:
            raise UsageError("A number is out of range: give one of at most a thousand million.")
        elif isinstance(value, str) and any("\ud800" <= sign <= "\udfff" for sign in value):
            raise UsageError("An argument holds bytes that are no UTF-8. Write it in UTF-8.")
