"""A process that runs each job in a fork of its own, which has imported everything."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any


def exit_status(run: Callable[[dict[str, Any]], object], job: dict[str, Any]) -> int:
    """Run a job in a fork: 0, 1 after an error, or the negative number of the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            run(job)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def answer_jobs(run: Callable[[dict[str, Any]], object]) -> None:
    """Run each job, a line of JSON on stdin, and print its exit status."""
    for line in sys.stdin:
        print(json.dumps(exit_status(run, json.loads(line))), flush=True)
