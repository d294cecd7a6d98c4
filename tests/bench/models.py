"""What the models cost: from nothing, after 1 % changed, after nothing did, and on the demo's size.

`python -m tests.bench.models build FILE` builds in a process of its own and prints how many models
it built; `floor FILE` writes the raw tables once more, which no build can undercut.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb

from stripe_feed.models.copies import DUCKDB_SETTINGS
from stripe_feed.models.database import duckdb_database
from stripe_feed.models.run import build_models
from tests.bench.large_copy import LARGE, load_last_copy, write_copy
from tests.timelines import AS_OF, utc_time

NOTHING, CHANGED, IDLE, SMALL, MEMORY = 40.0, 0.25, 0.1, 1.5, 1300  # s, share, s, s, MB
REPORT = 3.0  # s, the start of what draws its charts included


def figures(tools: Any, copies: int = LARGE) -> None:
    """Print the figures of the large copy."""

    def run(verb: str, file: Path) -> Any:
        return tools.measure([sys.executable, "-m", "tests.bench.models", verb, str(file)])

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "copy.duckdb"
        write_copy(file, copies)
        floor = run("floor", file)
        start = run("start", file).cpu
        first = run("build", file)
        load_last_copy(file, copies)
        second = run("build", file)
        third = run("build", file)
    cpus = [cost.cpu - start for cost in (first, second, third)]
    share, limit = cpus[1] / cpus[0], NOTHING * copies / LARGE
    tools.show(
        "models from nothing: CPU", f"{cpus[0]:.1f} s", f"<= {limit:.0f} s", cpus[0] <= limit,
        f"{cpus[0] / (floor.cpu - start):.1f} times writing the raw tables once; built {first.out}",
    )  # fmt: skip
    tools.show(
        "models from nothing: peak memory", f"{first.rss} MB", f"<= {MEMORY} MB", first.rss <= MEMORY
    )  # fmt: skip
    tools.show(
        "models after 1 % changed / from nothing", f"{share:.1%}", f"<= {CHANGED:.0%}", share <= CHANGED,
        f"CPU {cpus[1]:.1f} s; {second.rss} MB; built {second.out}",
    )  # fmt: skip
    tools.show(
        "models after nothing changed: CPU", f"{cpus[2]:.2f} s", f"<= {IDLE} s", cpus[2] <= IDLE,
        f"beyond the start of {start:.2f} s; built {third.out}",
    )  # fmt: skip


def small(tools: Any) -> None:
    """Print what `models build` costs on a copy of the demo's size, and what an idle sync does."""
    with tools.sandbox(1_250) as box, tempfile.TemporaryDirectory() as folder:
        places = ["--database", f"{folder}/copy.duckdb", "--state-dir", f"{folder}/state"]
        command = [*tools.CLI, "models", "build", "--json", *places]
        tools.sync(Path(folder), box)
        first, again = tools.measure(command), tools.measure(command)
        plain, built = (
            min(tools.sync(Path(folder), box, *more).cpu for _ in range(3))
            for more in ((), ("--models",))
        )
    cost, idle = first.cpu - again.cpu, built - plain
    tools.show(
        "models of the demo: CPU", f"{cost:.2f} s", f"<= {SMALL} s", cost <= SMALL,
        f"beyond the start of {again.cpu:.2f} s",
    )  # fmt: skip
    tools.show(
        "idle sync with --models: CPU", f"{idle:.2f} s", f"<= {IDLE} s", idle <= IDLE,
        f"beyond the {plain:.2f} s without",
    )  # fmt: skip


def main(verb: str, file: Path) -> None:
    """Do one step in this process."""
    with duckdb.connect(str(file)) as connection:
        for setting in DUCKDB_SETTINGS:
            connection.execute(setting)
        if verb == "build":
            as_of = {"as_of": str(utc_time(AS_OF))}
            results = build_models(duckdb_database(connection, "stripe"), variables=as_of)
            print(json.dumps(Counter(result.status for result in results)), end="")
        elif verb == "floor":
            tables = connection.execute(
                "select table_name from information_schema.tables where table_schema = 'stripe'"
            ).fetchall()
            for (table,) in tables:
                connection.execute(f"create temp table {table} as from stripe.{table}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
