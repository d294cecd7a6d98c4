"""Runs several `sync` side by side, each in a process of its own: python workers.py, a list of jobs
per line on stdin, as JSON.

A job is one of `crash.py`, and may say `after` how many seconds its process dies. The answer is, per job, its exit status (-9 or
-14 when it was killed) and what it said.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from typing import Any

import duckdb

from stripe_feed.errors import StripeFeedError
from tests import crash, quick_dlt


def begun(job: dict[str, Any]) -> tuple[int, int]:
    """Fork; the process and where its words come from."""
    words, into = os.pipe()
    pid = os.fork()
    if pid:
        os.close(into)
        return pid, words
    status = 1
    try:
        if job.get("after"):
            signal.setitimer(signal.ITIMER_REAL, job["after"])
        crash.run({"point": None, "at": 1} | job)
        status = 0
    except StripeFeedError as fault:
        status = fault.exit_code
        os.write(into, str(fault).encode())
    except BaseException:
        os.write(into, traceback.format_exc()[-3_000:].encode())
    finally:
        os._exit(status)


def ended(pid: int, words: int) -> tuple[int, str]:
    with open(words, encoding="utf-8") as said:
        text = said.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text


def main() -> None:
    quick_dlt.install()
    duckdb.connect().close()
    for line in sys.stdin:
        workers = [begun(job) for job in json.loads(line)]
        print(json.dumps([ended(*worker) for worker in workers]), flush=True)


if __name__ == "__main__":
    main()
