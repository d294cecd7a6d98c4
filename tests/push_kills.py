"""A push that is killed again and again: `push_kills.py URL KEY LOG ROWS KILLS SEED`.

New rows come first, then all of them are changed, as often as it takes; then one in ten goes, and the
others are changed again. Each run is a process of its own, forked from this one, which has imported
everything; it kills itself at a point that is drawn. Printed is how many were killed where, and how
often rows were changed.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from collections import Counter
from random import Random
from typing import Any

from stripe_feed.api.client import Api, Clock
from stripe_feed.write.push.definition import make_definition
from stripe_feed.write.push.log import PushLog
from stripe_feed.write.push.run import open_push

Row = dict[str, Any]

PUSH = {
    "object": "customers", "key": "n", "match": "email", "map": {"email": "email", "name": "name"},
    "on_delete": "delete", "max_deletes": 1_000, "max_delete_share": 0.5,
}  # fmt: skip
POINTS: tuple[tuple[Any, str], ...] = (
    (PushLog, "begin"), (PushLog, "mark_done"), (PushLog, "mark_sent"),
    (PushLog, "_key"), (PushLog, "_replace_object"),  # within a transaction
    (Api, "post"), (Api, "delete"), (Api, "_send"),
)  # fmt: skip


def table(count: int, version: int, is_thinned: bool = False) -> list[Row]:
    """Rows of a version; one in ten is missing if it is thinned."""
    return [
        {"n": n, "email": f"p{n}@example.com", "name": f"P {n} {version}"}
        for n in range(count)
        if n % 10 or not is_thinned
    ]


def _die(place: Any, name: str, when: str, nth: int) -> None:
    """Make the process kill itself before or after the nth call of a function."""
    real, calls = getattr(place, name), itertools.count()

    def dying(*args: Any, **options: Any) -> Any:
        due = next(calls) >= nth
        if due and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **options)
        if due:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(place, name, dying)


def _run(url: str, key: str, log: str, rows: list[Row], deaths: tuple[Any, ...]) -> int:
    """One run in a process of its own; return its exit code, negative if it was killed."""
    process = os.fork()
    if process == 0:
        for death in deaths:
            _die(*death)
        no_wait = Clock(wait=lambda stopped, seconds: stopped.is_set())
        with open_push(
            make_definition("crm", PUSH), key, base=url, log=log,
            max_rps=5_000, endpoint_rps=5_000, threads=8, clock=no_wait,
        ) as push:  # fmt: skip
            os._exit(push.run(rows).exit_code)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


class _Killing:
    """Pushes of tables, and how often they were killed where."""

    def __init__(self, url: str, key: str, log: str, seed: int) -> None:
        self.place = (url, key, log)
        self.rng = Random(seed)
        self.killed = Counter[str]()

    def push(self, rows: list[Row], most: int, stride: int) -> None:
        """Push a table to its end, killed until so many were killed in all."""
        code = -1
        while code != 0 and self.killed.total() < most:
            (place, name), when = self.rng.choice(POINTS), self.rng.choice(("before", "after"))
            nth = self.rng.randrange(stride)
            code = _run(
                *self.place, rows, ((place, name, when, nth), (PushLog, "begin", "after", stride))
            )
            self.killed[f"{when} {name}"] += code == -signal.SIGKILL
        codes = [_run(*self.place, rows, ()) for _ in range(2)]
        if codes[-1] != 0:
            raise SystemExit(f"the table ended with {codes}")


def main(url: str, key: str, log: str, count: int, kills: int, seed: int) -> None:
    killing, version, stride = _Killing(url, key, log, seed), 0, max(1, 2 * count // kills)
    while version < 2 or killing.killed.total() < kills * 8 // 10:
        most = kills * (4 + 4 * version) // 10
        killing.push(table(count, version), min(most, kills * 8 // 10), stride)
        version += 1
    killing.push(table(count, version - 1, True), kills * 9 // 10, 1)
    thinned = 0
    while thinned < 1 or killing.killed.total() < kills:
        thinned += 1
        killing.push(table(count, version - 1 + thinned, True), kills, stride)
    told = {"killed": killing.killed, "changes": version - 1, "changes_of_thinned": thinned}
    print(json.dumps(told))


if __name__ == "__main__":
    given = sys.argv[1:]
    main(given[0], given[1], given[2], int(given[3]), int(given[4]), int(given[5]))
