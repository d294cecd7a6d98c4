"""Speed and memory against targets, as ratios within one run. `python tests/bench/run.py [--long]
[--rows N]`.

Every figure comes from whole processes: user + system CPU of the process as the operating system
counted it, and the sandbox's own CPU beside it. Absolute seconds depend on the machine; compare the
ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CLI = [sys.executable, "-m", "stripe_feed.cli.main"]


@dataclass(frozen=True)
class Cost:
    """What one process took."""

    cpu: float
    wall: float
    rss: int  # MB
    out: str


@dataclass(frozen=True)
class Box:
    """A sandbox in a process of its own."""

    url: str
    key: str

    def call(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = json.dumps(body).encode() if body is not None else None
        with urllib.request.urlopen(f"{self.url}/_sandbox/{path}", data=data) as answer:
            return json.loads(answer.read() or b"null")

    def requests(self, by: str = "status") -> dict[str, int]:
        """Requests by status, or by endpoint (`template`)."""
        found: dict[str, int] = {}
        for row in self.call("stats")["counts"]:
            found[str(row[by])] = found.get(str(row[by]), 0) + row["count"]
        return found

    def cpu(self) -> float:
        return float(self.call("stats")["cpu_seconds"])


@contextmanager
def sandbox(rows: int, **flags: Any) -> Iterator[Box]:
    """An account of about `rows` objects: 40 % customers, 40 % invoices, 20 % subscriptions, with
    children.
    """
    sizes = {
        "customers": rows * 4 // 10,
        "invoices": rows * 4 // 10,
        "subscriptions": rows * 2 // 10,
    }
    given = [(f"--{name.replace('_', '-')}", value) for name, value in {**sizes, **flags}.items()]
    options = [name if value is True else f"{name}={value}" for name, value in given]
    command = [
        sys.executable,
        "-m",
        "stripe_feed.sandbox",
        "--port=0",
        "--seed=1",
        "--exit-with-parent",
        *options,
    ]
    with started(command) as box:
        yield box


@contextmanager
def started(command: Sequence[str]) -> Iterator[Box]:
    """A look-alike in a process of its own, which prints its address and key in a line of JSON."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        yield Box(said["url"], said["key"])
    finally:
        process.terminate()
        process.wait()


def measure(command: Sequence[str], box: Box | None = None, cwd: Path | None = None) -> Cost:
    """Run a command to its end and ask the operating system what it took."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    env["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(HERE.parents[1]), env.get("PYTHONPATH"))))
    if box is not None:
        env |= {"STRIPE_API_BASE": box.url, "STRIPE_SECRET_KEY": box.key}
    with tempfile.TemporaryFile() as out:
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, env=env, cwd=cwd)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        text = out.read().decode()
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return Cost(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss // 1024, text)


def sync(folder: Path, box: Box, *options: str) -> Cost:
    """One whole `stripe-feed sync`."""
    places = ["--database", str(folder / "copy.duckdb"), "--state-dir", str(folder / "state")]
    return measure([*CLI, "sync", "--json", "--quiet", *places, *options], box)


def show(name: str, value: str, target: str, good: bool, more: str = "") -> None:
    """One line of the report."""
    print(
        f"{'ok  ' if good else 'MISS'}  {name:<44} {value:>12}   target {target:<14} {more}",
        flush=True,
    )


def script(name: str, box: Box, file: Path, *more: str) -> Cost:
    return measure([sys.executable, str(HERE / f"{name}.py"), box.url, box.key, str(file), *more])


UNPACED = ("--max-rps", "100000", "--endpoint-rps", "100000")


def cpu(rows: int, repeat: int) -> None:
    """CPU of a whole first sync against the floor and the rival, and the requests it takes."""
    ours: list[Cost] = []
    floors: list[Cost] = []
    with sandbox(rows) as box:
        for n in range(repeat):
            with tempfile.TemporaryDirectory() as folder:
                box.call("reset_counts", {})
                before = box.cpu()
                floors.append(script("floor", box, Path(folder) / "floor.duckdb"))
                least = sum(box.requests().values())
                box.call("reset_counts", {})
                middle = box.cpu()
                ours.append(sync(Path(folder), box, *UNPACED))
                made = sum(box.requests().values())
                served = (middle - before, box.cpu() - middle)
                if n == repeat - 1:
                    idle(Path(folder), box)
    ratio = sorted(a.cpu / b.cpu for a, b in zip(ours, floors, strict=True))[repeat // 2]
    a, b = ours[-1], floors[-1]
    show(
        "CPU of sync / hand-written floor",
        f"{ratio:.2f}x",
        "<= 2.0x",
        ratio <= 2.0,
        f"{a.cpu:.1f} s / {b.cpu:.1f} s; sandbox {served[1]:.1f} s / {served[0]:.1f} s; wall {a.wall:.1f} s; {a.rss} MB",
    )
    show(
        "requests without pacing / least number",
        f"{made / least:.3f}x",
        "(no target)",
        True,
        f"{made} / {least}",
    )
    with sandbox(rows // 10) as box, tempfile.TemporaryDirectory() as folder:
        rival = script("rival", box, Path(folder) / "rival.duckdb")
    share = a.cpu / rows / (rival.cpu / (rows // 10))
    show(
        "CPU per row / SDK + dlt defaults",
        f"1/{1 / share:.1f}",
        "<= 1/8",
        share <= 1 / 8,
        f"{a.cpu / rows * 1e6:.0f} us / {rival.cpu / rows * 1e7:.0f} us; rival {rival.rss} MB at {rows // 10} rows",
    )


def idle(folder: Path, box: Box) -> None:
    """A run with nothing new, and the time to print the help."""
    box.call("reset_counts", {})
    cost = sync(folder, box)
    count = sum(box.requests().values())
    show("idle run: requests", str(count), "<= 12", count <= 12)
    show("idle run: wall", f"{cost.wall:.2f} s", "< 3 s", cost.wall < 3, f"CPU {cost.cpu:.2f} s")
    walls = sorted(measure([*CLI, "--help"]).wall for _ in range(5))
    show("stripe-feed --help", f"{walls[2]:.2f} s", "< 0.3 s", walls[2] < 0.3)


def limit(rows: int) -> None:
    """Extraction at Stripe's limits: 100 requests/s, 25 per endpoint, 80 ms +- 20 ms."""
    with tempfile.TemporaryDirectory() as folder:
        with sandbox(rows) as box:
            script("floor", box, Path(folder) / "floor.duckdb")
            pages = box.requests("template")
        least = max(sum(pages.values()) / 100, max(pages.values()) / 25)
        with sandbox(rows, latency=0.08, jitter=0.02, rate=100, endpoint_rate=25) as box:
            cost = script("extraction", box, Path(folder) / "copy.duckdb", "100", "25")
            seconds = float(cost.out)
            by_status = box.requests()
            share = by_status.get("429", 0) / sum(by_status.values())
            served = box.cpu()
        show(
            "extraction at the limit / theoretical least",
            f"{seconds / least:.3f}x",
            "<= 1.10x",
            seconds <= 1.10 * least,
            f"{seconds:.1f} s / {least:.1f} s; CPU {cost.cpu:.1f} s, sandbox {served:.1f} s",
        )
        made, fewest = sum(by_status.values()), sum(pages.values())
        share_made = made / fewest
        show(
            "requests / least number of requests",
            f"{share_made:.3f}x",
            "<= 1.05x",
            share_made <= 1.05,
            f"{made} / {fewest}",
        )
        show(
            "answered 429",
            f"{share:.2%}",
            "< 1 %",
            share < 0.01,
            f"of {sum(by_status.values())} requests",
        )
        with sandbox(rows, latency=0.08, jitter=0.02, rate=100, endpoint_rate=25) as box:
            whole = sync(Path(folder), box, "--max-rps", "100", "--endpoint-rps", "25")
        show(
            "whole sync at the limit / least",
            f"{whole.wall / least:.2f}x",
            "(no target)",
            True,
            f"{whole.wall:.0f} s",
        )


@contextmanager
def stub(rows: int) -> Iterator[Box]:
    """An account of any size whose pages are made as they are asked for."""
    command = [sys.executable, str(HERE / "stub.py"), str(rows)]
    with started(command) as box:
        yield box


def growth(sizes: Sequence[int]) -> None:
    """Requests, CPU, memory and wall of a first sync of larger and larger accounts, each as a ratio to
    the smallest; requests, CPU and wall per object.
    """
    costs: list[tuple[int, Cost, int]] = []
    for rows in sizes:
        with stub(rows) as box, tempfile.TemporaryDirectory() as folder:
            cost = sync(Path(folder), box, *UNPACED)
            costs.append((rows, cost, json.loads(cost.out)["requests"]))
        (first, least, fewest), (_, _, made) = costs[0], costs[-1]
        times = rows / first
        print(
            f"      {rows:>10,} objects: requests {made:,} ({made / fewest / times:.2f}x), "
            f"CPU {cost.cpu:.0f} s ({cost.cpu / least.cpu / times:.2f}x), "
            f"wall {cost.wall:.0f} s ({cost.wall / least.wall / times:.2f}x), "
            f"peak {cost.rss} MB ({cost.rss / least.rss:.2f}x)",
            flush=True,
        )
    peaks = {rows: cost.rss for rows, cost, _ in costs}
    million = peaks.get(1_000_000)
    if million is not None:
        show("peak memory, 1M objects", f"{million} MB", "<= 600 MB", million <= 600)
    if million is not None and max(sizes) > 1_000_000:
        share = peaks[max(sizes)] / million
        show(f"peak memory, {max(sizes):,} / 1M", f"{share:.2f}x", "<= 1.15x", share <= 1.15)


def changes() -> None:
    """What incremental runs cost."""
    sys.path.insert(0, str(HERE.parents[1]))
    from tests.bench.changes import derive, foreign, incremental

    tools = sys.modules[__name__]
    derive(tools)
    incremental(tools)
    foreign(tools)


def lookback() -> None:
    """Reading again and keeping the newer, on Postgres."""
    sys.path.insert(0, str(HERE.parents[1]))
    from tests.bench.lookback import postgres

    postgres(sys.modules[__name__])


def feed(size: int = 200_000) -> None:
    """The feed store: relay, pages, consumers."""
    sys.path.insert(0, str(HERE.parents[1]))
    from tests.bench.feed import figures

    for name, value, target, good in figures(size):
        show(name, value, target, good)


def burst() -> None:
    """From a burst of webhooks to the feed."""
    sys.path.insert(0, str(HERE.parents[1]))
    from tests.bench.burst import figures

    for events in (1_700, 5_000):
        for name, value, target, good in figures(events):
            show(name, value, target, good)


def plays() -> None:
    """From a change to another tool."""
    sys.path.insert(0, str(HERE.parents[1]))
    from tests.bench.plays import history, latency, rate, slow_lanes

    tools = sys.modules[__name__]
    for figure in (latency, rate, slow_lanes, history):
        figure(tools)


def model_triggers() -> None:
    """Triggers on models."""
    sys.path.insert(0, str(HERE.parents[1]))
    from tests.bench.model_triggers import figures

    for name, value, target, good in figures():
        show(name, value, target, good)


def push() -> None:
    """Pushes and their plans."""
    sys.path.insert(0, str(HERE.parents[1]))
    from tests.bench.push import plan, rate, upsert

    for figure in (rate, upsert, plan):
        figure(sys.modules[__name__])


def models() -> None:
    """The models over a large copy, and over the demo's."""
    sys.path.insert(0, str(HERE.parents[1]))
    from tests.bench.models import figures, small

    for part in (small, figures):
        part(sys.modules[__name__])


def accounts(count: int) -> None:
    """A round over connected accounts with 20 changes each, in files of their own, at the rate of test
    mode.
    """
    with sandbox(10) as box, tempfile.TemporaryDirectory() as folder:
        ids = [box.call("connect", {"customers": 10})["id"] for _ in range(count)]
        round_of = [*CLI, "sync", "--all-accounts", "--quiet", "--state-dir", "state"]
        measure([*round_of, *UNPACED], box, Path(folder))
        for id in ids:
            box.call("live", {"account": id, "seconds": 3600, "changes": 20})
        box.call("advance", {"seconds": 600})
        box.call("reset_counts", {})
        cost = measure(round_of, box, Path(folder))
        requests = sum(box.requests().values())
    least = requests / 20
    each = cost.cpu / count
    more = f"{count} accounts, {requests / count:.1f} requests each"
    show("CPU per connected account", f"{each:.2f} s", "<= 1 s", each <= 1, more)
    show("memory of a round", f"{cost.rss} MB", "<= 1024 MB", cost.rss <= 1024)
    show(
        "wall of a round / requests / rate",
        f"{cost.wall / least:.2f}x",
        "<= 1.15x",
        cost.wall <= 1.15 * least,
        f"{cost.wall:.1f} s / {least:.1f} s",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--long", action="store_true", help="the large sizes instead")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument(
        "--only",
        choices=[
            "cpu",
            "limit",
            "growth",
            "changes",
            "lookback",
            "feed",
            "burst",
            "plays",
            "model_triggers",
            "push",
            "models",
            "accounts",
        ],
    )
    parser.add_argument(
        "--growth",
        type=int,
        nargs="+",
        default=[25_000, 100_000, 400_000, 1_000_000],
        help="sizes of the accounts whose first syncs are compared; 10000000 is the largest",
    )
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if options.long:
        growth(options.growth)
        feed(1_000_000)
        accounts(1_000)
        return
    if options.only in (None, "cpu"):
        cpu(options.rows, options.repeat)
    if options.only in (None, "limit"):
        limit(options.rows)
    if options.only == "growth":
        growth(options.growth)
    if options.only in (None, "changes"):
        changes()
    if options.only in (None, "lookback"):
        lookback()
    if options.only in (None, "feed"):
        feed()
    if options.only in (None, "burst"):
        burst()
    if options.only in (None, "plays"):
        plays()
    if options.only in (None, "model_triggers"):
        model_triggers()
    if options.only in (None, "push"):
        push()
    if options.only in (None, "models"):
        models()
    if options.only in (None, "accounts"):
        accounts(40)


if __name__ == "__main__":
    main()
