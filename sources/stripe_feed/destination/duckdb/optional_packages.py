"""Spare a process of the command line the packages that others only look for.

stripe imports aiohttp to know of an asynchronous client, and dlt takes SQLAlchemy's URL instead of
its own: a third of a second of CPU, for nothing that a copy in DuckDB uses. Without these packages,
both do the same. And where pandas is missing, spare DuckDB the search for it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any

_owned = [False]  # of another process: its other code may use these packages


def own_process() -> None:
    """Say that this process runs a single command."""
    _owned[0] = True


def spare_packages(destination: str | None) -> None:
    """Let those who look for optional packages find none; imports by others work as before. Does
    nothing for other destinations than DuckDB, whose drivers may need them.
    """
    if not _owned[0] or destination not in (None, "duckdb"):
        return
    import dlt  # looks for others, and keeps what it finds

    with _hidden("aiohttp", "httpx"):
        import stripe  # noqa: F401
    with _hidden("sqlalchemy"), suppress(ImportError):  # of another version of dlt
        import dlt.common.libs.sql_alchemy_compat  # noqa: F401
    _answer_if_missing("pandas")


def _answer_if_missing(name: str) -> None:
    """Answer at once that a package is not installed. DuckDB asks for pandas with each value that a
    query binds, and to search all folders takes 0.1 ms.
    """
    if find_spec(name) is None:
        sys.meta_path.insert(0, _NoFinder([name]))


@contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """Inside the block these packages cannot be found, except if they were imported before."""
    finder = _NoFinder(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _NoFinder:
    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def find_spec(self, name: str, path: Any, target: Any = None) -> None:
        if name in self._names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
