"""A first look without an account: a Stripe look-alike in a process of its own, loaded twice into
DuckDB, and its changes.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ..destination.pipeline import open_pipeline
from ..destination.place import DATASET
from ..destination.read import Held, held, opened, query, state_of
from ..errors import SetupError, UsageError
from ..extract.options import SETTLE
from ..feed.change import OP_WORDS, Change
from ..feed.feed import open_feed
from ..sync_run import Synced, sync
from ..triggers.config import trigger_of
from ..triggers.run import deliver
from ..triggers.trigger import Trigger
from .feed import words
from .output import data, invoked, table

SEED = 7
A_DAY = 86_400
BEGINS = 73_600  # seconds after midnight, UTC: the same each day, so that the demo shows the same
# seconds that a sandbox's clock begins behind ours: by what is let pass there it is as much ahead
BEHIND = 55
LIVED, PASSED = 20, 90  # seconds: of the changes, and the time after which events are read
WIDE = 110
USAGE = UsageError.exit_code
SANDBOX = [sys.executable, "-m", "stripe_feed.sandbox"]
SAMPLE = """\
select strftime(created, '%Y-%m') as month, currency, count(*) as paid_invoices, sum(amount_paid) as minor_units
from invoices
where status = 'paid'
group by month, currency
order by month desc, paid_invoices desc, currency
limit 6"""


@dataclass(frozen=True, slots=True)
class RunningSandbox:
    """A sandbox in a process of its own."""

    url: str
    key: str
    account: str
    process: subprocess.Popen[str]

    def tell(self, control: str, **given: Any) -> Any:
        """Call one of its controls."""
        body = json.dumps(given).encode()
        with urllib.request.urlopen(
            urllib.request.Request(f"{self.url}/_sandbox/{control}", body), timeout=30
        ) as answer:
            return json.load(answer)


@contextmanager
def run_sandbox(*flags: str) -> Iterator[RunningSandbox]:
    """Run a sandbox with these flags until the block ends. Raises `UsageError` for wrong ones,
    `SetupError` where it fails.
    """
    command = [*SANDBOX, "--exit-with-parent", *flags]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stdout and process.stderr
            first = process.stdout.readline()
            if not first:
                words = process.stderr.read().strip().splitlines() or ["it said nothing"]
                if process.wait() == USAGE:
                    raise UsageError(f"{words[-1]}. See `stripe-feed sandbox --help`.")
                raise SetupError(f"The sandbox did not start: {words[-1]}")
            said = json.loads(first)
            yield RunningSandbox(said["url"], said["key"], said["account"], process)
        finally:
            process.terminate()


def demo(database: str = "demo.duckdb", customers: int = 500) -> None:
    """Load a look-alike's account, let it live for a day, load again, and show what came. Prints to
    stdout.
    """
    file, console = Path(database), data()
    logging.getLogger("stripe_feed").setLevel(logging.WARNING)
    begins = str(evening(time.time()))
    with run_sandbox(
        "--seed", str(SEED), "--customers", str(customers), "--fixed-clock", "--now", begins
    ) as box:
        make_room(file, box.account)
        console.print(
            f"A look-alike of Stripe runs at {box.url}: {customers:,} customers, made up. No account, no network.\n"
        )
        with tempfile.TemporaryDirectory(prefix="stripe-feed-demo-") as folder:
            console.print("First sync: everything", style="bold")
            first, before = load(box, database, folder)
            console.print(table(["table", "rows"], [(t.table, t.rows) for t in before]))
            console.print(
                f"{sum(t.rows for t in before):,} rows with {first.requests:,} requests in {first.seconds:.1f} s.\n"
            )
            with (
                open_feed(open_pipeline(database, state_dir=folder)) as feed,
                receiver() as (url, _),
            ):
                deliver(feed, [welcome(url)])  # it fires for what changes from now on
            happened = len(box.tell("live", seconds=A_DAY, changes=60))
            box.tell("advance", seconds=2 * SETTLE)
            console.print(
                f"A day passes, and {happened} things happen. Second sync: what is new, and what changed",
                style="bold",
            )
            second, after = load(box, database, folder)
            console.print(table(["table", "rows", "new"], grown(before, after)))
            console.print(f"{second.requests:,} requests in {second.seconds:.1f} s.\n")
            console.print("The feed: every change once, with before and after", style="bold")
            with (
                open_feed(open_pipeline(database, state_dir=folder)) as feed,
                receiver() as (url, received),
            ):
                print_changes(list(feed.read(limit=10_000)))
                console.print(
                    "A play: a trigger on new customers posts to another tool, here on this machine",
                    style="bold",
                )
                _, done = deliver(feed, [welcome(url)], at_once=1)
                console.print(f"{done.sent:,} messages sent. The first:")
                console.print(f"  {received[0]}\n")
    console.print("One query", style="bold")
    console.print(SAMPLE)
    with opened(database) as copy:
        found = query(copy, SAMPLE)
    console.print(table(found.columns, found.rows))
    console.print(NEXT.format(database=database, command=invoked()))


def evening(now: float) -> int:
    """The evening of the day before yesterday: the day that passes in the demo is over by now."""
    return int(now) // A_DAY * A_DAY - 2 * A_DAY + BEGINS


def welcome(url: str) -> Trigger:
    """A trigger whose messages find or make a person by e-mail, and give it the customer's id."""
    body = {"email": "{after.email}", "attributes": {"id": "{after.id}"}}
    place = {"url": url, "allow_private": True, "template": body}
    return trigger_of({"name": "welcome", "preset": "customer_created", "deliver": place})


@contextmanager
def receiver() -> Iterator[tuple[str, list[str]]]:
    """Another tool: a URL on this machine that takes what is posted there, and the bodies so far."""
    bodies: list[str] = []

    class Hook(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet: it would be in between what is shown."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hook", bodies
        finally:
            server.shutdown()


def print_changes(changes: Sequence[Change]) -> None:
    """How many changes of each kind, and one of each with what it changed; prints to stdout."""
    kinds: dict[str, list[Change]] = {
        name: [] for name in ("added", "updated", "cancelled", "removed")
    }
    for change in changes:
        kinds[kind_of(change)].append(change)
    console = data()
    for name, some in kinds.items():
        console.print(f"{len(some):>4} {name}")
        if some:
            console.print(f"     {cut(words(min(some, key=lambda one: len(one.changed) or 99)))}")
    console.print()


def cut(line: str) -> str:
    """A line that is too wide, up to a comma."""
    return line if len(line) <= WIDE else f"{line[:WIDE].rpartition(', ')[0] or line[:WIDE]}, ..."


def kind_of(change: Change) -> str:
    """What happened, in plain words; a cancelled subscription is updated, and stays."""
    if change.op == "u" and change.event_type == "customer.subscription.deleted":
        return "cancelled"
    return OP_WORDS[change.op]


NEXT = """\
All of it is in {database}. Try:
  {command} status --database {database}
  {command} query --database {database} "select * from customers limit 5"
  {command} feed tail --database {database}
  {command} feed consume mine --start earliest --max 3 --database {database}
  {command} triggers --help
With your own account:
  export STRIPE_SECRET_KEY=rk_test_...      a restricted key: https://dashboard.stripe.com/apikeys
  {command} doctor
  {command} sync"""


def load(box: RunningSandbox, database: str, folder: str) -> tuple[Synced, list[Held]]:
    """One sync, and what the tables hold after it."""
    done = sync(
        api_key=box.key,
        api_base=box.url,
        database=database,
        state_dir=folder,
        max_rps=1000,
        endpoint_rps=1000,
    )
    with opened(database) as copy:
        return done, held(copy)


def grown(before: Sequence[Held], after: Sequence[Held]) -> list[tuple[str, int, int]]:
    """Table, rows now, and how many more than before."""
    then = {t.table: t.rows for t in before}
    return [(t.table, t.rows, t.rows - then.get(t.table, 0)) for t in after]


def make_room(file: Path, account: str) -> None:
    """Remove what an earlier demo left. Raises `SetupError` for a file that is not the demo's."""
    if not file.exists():
        return
    with opened(str(file)) as copy:
        schemas = copy.ask("select distinct table_schema from information_schema.tables").rows
        foreign = {name for (name,) in schemas} - {DATASET, f"{DATASET}_staging"}
        if foreign or state_of(copy).get("account") not in (None, account):
            raise SetupError(
                f"{file.name} holds something else than a demo. Choose another --database."
            )
    file.unlink()
    for name in (
        f"{file.name}.wal",
        *(f"{file.stem}.feed.sqlite{end}" for end in ("", "-wal", "-shm", ".deliver.lock")),
    ):
        file.with_name(name).unlink(missing_ok=True)


def serve(flags: Sequence[str]) -> None:
    """Run a sandbox in the foreground until Ctrl-C; prints to stdout where it is, or its help."""
    if {"-h", "--help"} & set(flags):
        sys.stdout.write(
            subprocess.run(
                [*SANDBOX, "--help"], check=True, stdout=subprocess.PIPE, text=True
            ).stdout
        )
        return
    with run_sandbox(
        "--now", str(int(time.time()) - BEHIND), *flags
    ) as box:  # of two the last one counts
        console = data()
        console.print(
            f"A look-alike of Stripe runs at {box.url} (account {box.account}). In another shell:"
        )
        console.print(f"  export STRIPE_API_BASE={box.url} STRIPE_SECRET_KEY={box.key}")
        console.print(
            f"  {invoked()} sync --database sandbox.duckdb{' --allow-api-base' if '_live_' in box.key else ''}"
        )
        console.print(
            "For something to happen there: forty changes, and the time after which events are read"
        )
        console.print(
            f"""  curl -d '{{"seconds": {LIVED}, "changes": 40}}' {box.url}/_sandbox/live"""
        )
        console.print(f"""  curl -d '{{"seconds": {PASSED}}}' {box.url}/_sandbox/advance""")
        console.print("Ctrl-C ends it.")
        with suppress(KeyboardInterrupt):
            box.process.wait()
