"""Runs pytest in forks, with all that the package needs already imported: python mutant_runs.py, a
run per line on stdin, as JSON.

A run is `path` (what goes before everything else on Python's path), `root` (the folder to run in),
`tests` and `output` (a file for what pytest prints). The answer is its exit code. The package
itself is imported in the fork alone, since each has another copy of it.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import Any

import dlt.destinations  # noqa: F401
import duckdb
import hypothesis  # noqa: F401
import pyarrow.parquet  # noqa: F401
import pytest
import rich.console  # noqa: F401
import sqlglot  # noqa: F401
import starlette.applications  # noqa: F401
import stripe  # noqa: F401
import typer.testing  # noqa: F401
import uvicorn  # noqa: F401

OPTIONS = (
    "-x",
    "-q",
    "-p",
    "no:cacheprovider",
    "-m",
    "not long",
    "-W",
    "ignore::pytest.PytestAssertRewriteWarning",
    "-W",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)
"""The last two: plugins are imported already, and pytest itself may leave a folder's iterator open."""


def run(job: dict[str, Any]) -> int:
    """As `python -m pytest` does it, but for the imports; nothing is left behind in the root."""
    output = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    for stream in (1, 2):
        os.dup2(output, stream)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1) for stream in (1, 2))
    os.environ["PYTHONPATH"] = (
        f"{job['path']}{os.pathsep}{job['root']}"  # for processes that the tests start
    )
    sys.path[:0] = [job["path"], job["root"]]
    sys.dont_write_bytecode = True
    os.chdir(job["root"])
    return int(pytest.main([*OPTIONS, *job["tests"]]))


def forked(job: dict[str, Any]) -> int:
    pid = os.fork()
    if pid == 0:
        status = 3
        try:
            status = run(job)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main() -> None:
    assert "stripe_feed" not in sys.modules
    duckdb.connect().close()
    for line in sys.stdin:
        print(json.dumps(forked(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
