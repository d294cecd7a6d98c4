"""Run the demo: load a simulated Stripe account twice into DuckDB, show its changes and how its MRR
moved, and let triggers fire.
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
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ..destination.pipeline import open_pipeline
from ..destination.place import DEFAULT_DATASET, models_schema
from ..destination.read import TableStats, open_reader, read_state, run_query, table_stats
from ..errors import SetupError, StripeFeedError, UsageError
from ..extract.options import SETTLE, resource_names
from ..feed.change import OP_WORDS, Change
from ..feed.feed import Feed, open_feed
from ..models.copies import build_copy_models
from ..sync_run import Synced, sync
from ..triggers.config import parse_any_trigger, parse_trigger
from ..triggers.models.model_trigger import AnyTrigger
from ..triggers.run import deliver
from ..wording import counted
from ..write.actions import open_actions
from .feed import format_change
from .output import command_name, console_out, make_table

SEED = 7
_DAY = 86_400
START_OF_DAY = 73_600  # seconds after midnight, UTC; fixed, so that each demo shows the same
CLOCK_DELAY = (
    55  # seconds a sandbox's clock starts behind ours; the suggested calls put it as much ahead
)
_HOURS_TO_PAY = 2  # before midnight, as an invoice is overdue from the next day on
MODEL = "overdue_invoices"
RESOURCES_OF_MRR = ["core", "coupons", "discounts"]
LIVE_SECONDS, ADVANCE_SECONDS = (
    20,
    90,
)  # of the suggested calls: changes, then time until events are read
MAX_LINE_WIDTH = 110
SANDBOX_COMMAND = [sys.executable, "-m", "stripe_feed.sandbox"]
_SAMPLE = """\
select strftime(created, '%Y-%m') as month, currency, count(*) as paid_invoices, sum(amount_paid) as minor_units
from invoices
where status = 'paid'
group by month, currency
order by month desc, paid_invoices desc, currency
limit 6"""


_MOVED = """\
select currency, strftime(month, '%Y-%m') as month, opening_mrr as opening, new_mrr as new, reactivation_mrr as reactivation,
    expansion_mrr as expansion, -contraction_mrr as contraction, -churn_mrr as churn, closing_mrr as closing
from mrr_summary
where month = (select max(month) from months)
order by closing desc"""


@dataclass(frozen=True, slots=True)
class RunningSandbox:
    """A sandbox that runs in its own process."""

    url: str
    key: str
    account: str
    process: subprocess.Popen[str]

    def tell(self, control: str, **given: Any) -> Any:
        """Call one of its controls."""
        body = json.dumps(given).encode()
        with urllib.request.urlopen(
            urllib.request.Request(f"{self.url}/_sandbox/{control}", body), timeout=30
        ) as response:
            return json.load(response)


@contextmanager
def run_sandbox(*flags: str) -> Iterator[RunningSandbox]:
    """Run a sandbox with these flags until the block ends. Raises `UsageError` for wrong flags,
    `SetupError` if it does not start.
    """
    command = [*SANDBOX_COMMAND, "--exit-with-parent", *flags]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stdout and process.stderr
            ready = process.stdout.readline()
            if not ready:
                errors = process.stderr.read().strip().splitlines() or ["no message"]
                if process.wait() == UsageError.exit_code:
                    raise UsageError(f"{errors[-1]}. See `stripe-feed sandbox --help`.")
                raise SetupError(f"The sandbox did not start: {errors[-1]}")
            info = json.loads(ready)
            yield RunningSandbox(info["url"], info["key"], info["account"], process)
        finally:
            process.terminate()


def run_demo(database: str = "demo.duckdb", customers: int = 150) -> None:
    """Load a simulated account, simulate a day, load again; print to stdout what changed, what the
    triggers sent and how MRR moved.
    """
    file, console = Path(database), console_out()
    logging.getLogger("stripe_feed").setLevel(logging.WARNING)
    start = demo_start(time.time())
    flags = ("--business", "--seed", str(SEED), "--customers", str(customers))
    with run_sandbox(*flags, "--fixed-clock", "--now", str(start)) as sandbox:
        remove_earlier_demo(file, sandbox.account)
        console.print(
            f"A local simulation of Stripe runs at {sandbox.url} with {customers:,} generated customers. No account and no network are needed.\n"
        )
        with tempfile.TemporaryDirectory(prefix="stripe-feed-demo-") as folder:
            send_invoices(sandbox, due=start + _HOURS_TO_PAY * 3600)
            console.print("First sync: everything", style="bold")
            first, before = load(sandbox, database, folder)
            console.print(make_table(["table", "rows"], [(t.table, t.rows) for t in before]))
            console.print(
                f"{counted(sum(t.rows for t in before), 'row')} with {counted(first.requests, 'request')} in {first.seconds:.1f} s.\n"
            )
            build(database, folder, start, [f"+{MODEL}"])
            with (
                open_feed(open_pipeline(database, state_dir=folder)) as feed,
                receive_posts() as (url, _),
            ):  # they fire for what happens from now on
                deliver(feed, [welcome_trigger(url), overdue_trigger(url)])
            activity = len(sandbox.tell("live", seconds=_DAY, changes=60))
            delete_newest_customer(sandbox)
            sandbox.tell("advance", seconds=2 * SETTLE)
            console.print(
                f"A day passes with {activity + 1} actions. Second sync: new and changed objects",
                style="bold",
            )
            second, after = load(sandbox, database, folder)
            console.print(make_table(["table", "rows", "new"], new_rows(before, after)))
            console.print(f"{counted(second.requests, 'request')} in {second.seconds:.1f} s.\n")
            console.print(
                "The feed: every change once, with its before and after state", style="bold"
            )
            with (
                open_feed(open_pipeline(database, state_dir=folder)) as feed,
                receive_posts() as (url, bodies),
            ):
                print_changes(list(feed.read(limit=10_000)))
                title = "A trigger on new customers posts to another tool, here on this machine"
                show_delivery(feed, title, welcome_trigger(url), bodies)
                build(database, folder, start + _DAY + 2 * SETTLE)
                title = "A trigger on a model: no event tells that an invoice is overdue now"
                show_delivery(feed, title, overdue_trigger(url), bodies)
    console.print("How MRR moved this month, in minor units, by the models", style="bold")
    with open_reader(database) as copy:
        moved = run_query(copy, _MOVED)
    heading, months, *amounts = zip(moved.columns, *moved.rows, strict=True)
    console.print(make_table([str(months[1]), *map(str, heading[1:])], amounts))
    console.print("One query", style="bold")
    console.print(_SAMPLE)
    with open_reader(database) as copy:
        result = run_query(copy, _SAMPLE)
    console.print(make_table(result.columns, result.rows))
    console.print(NEXT.format(database=database, command=command_name()))


def send_invoices(sandbox: RunningSandbox, due: int) -> None:
    """Let the account send three customers invoices, most of which nobody pays in time."""
    with open_actions(sandbox.key, base=sandbox.url) as actions:
        for customer in (actions.list("customers", limit=9).objects or ())[3::2]:
            bill = {"customer": customer["id"], "currency": customer["currency"]}
            terms = {"collection_method": "send_invoice", "due_date": due}
            invoice = actions.create("invoices", bill | terms)
            actions.create("invoice_items", bill | {"invoice": invoice.id, "amount": 25_000})
            actions.run("invoices", "finalize", id=invoice.id)


def delete_newest_customer(sandbox: RunningSandbox) -> None:
    """Delete the customer that came last, and with it the subscription."""
    with open_actions(sandbox.key, base=sandbox.url) as actions:
        customer, *_ = actions.list("customers", limit=1).objects or ()
        actions.delete("customers", customer["id"])


def build(database: str, folder: str, as_of: int, selection: Sequence[str] | None = None) -> None:
    """Build the models as of a moment of the sandbox."""
    moment = datetime.fromtimestamp(as_of, timezone.utc)
    results = build_copy_models(
        database=database,
        state_dir=folder,
        selection=selection,
        variables={"as_of": f"{moment:%Y-%m-%d %H:%M:%S}"},
    )
    if failed := [result.name for result in results if result.status == "failed"]:
        raise StripeFeedError(f"Models failed: {', '.join(failed)}.")


def demo_start(now: float) -> int:
    """The evening of the day before yesterday, so that the demo's day is already over."""
    return int(now) // _DAY * _DAY - 2 * _DAY + START_OF_DAY


def welcome_trigger(url: str) -> AnyTrigger:
    """A trigger that posts the e-mail and the id of each new customer."""
    body = {"email": "{after.email}", "attributes": {"id": "{after.id}"}}
    receiver = {"url": url, "allow_private": True, "template": body}
    return parse_trigger({"name": "welcome", "preset": "customer_created", "deliver": receiver})


def overdue_trigger(url: str) -> AnyTrigger:
    """A trigger that posts each invoice that becomes overdue."""
    text = "{after.customer_id} owes {after.amount_remaining|money:after.currency} {after.currency}"
    return parse_any_trigger(
        {
            "name": "overdue",
            "model": MODEL,
            "key": "invoice_id",
            "on": "entered",
            "deliver": {"url": url, "allow_private": True, "template": {"text": text}},
        }
    )


def show_delivery(feed: Feed, title: str, trigger: AnyTrigger, bodies: Sequence[str]) -> None:
    """Deliver what a trigger fires, and print how much it was and the last body that came."""
    console = console_out()
    console.print(title, style="bold")
    _, report = deliver(feed, [trigger], at_once=1)
    console.print(f"{counted(report.sent, 'message')} sent. The last:")
    console.print(f"  {bodies[-1] if report.sent else ''}\n")


@contextmanager
def receive_posts() -> Iterator[tuple[str, list[str]]]:
    """Run a local HTTP server that collects posted bodies; yield its URL and the bodies."""
    bodies: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Log nothing: it would disturb the output of the demo."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/hook", bodies
        finally:
            server.shutdown()


def print_changes(changes: Sequence[Change]) -> None:
    """Print the number of changes of each kind, and one example of each, to stdout."""
    kinds: dict[str, list[Change]] = {
        name: [] for name in ("added", "updated", "cancelled", "removed")
    }
    for change in changes:
        kinds[kind_of(change)].append(change)
    console = console_out()
    for name, of_kind in kinds.items():
        console.print(f"{len(of_kind):>4} {name}")
        if of_kind:
            example = min(of_kind, key=lambda change: len(change.changed) or 99)
            console.print(f"     {shorten(format_change(example))}")
    console.print()


def shorten(line: str) -> str:
    """Cut a line that is too wide at a comma."""
    if len(line) <= MAX_LINE_WIDTH:
        return line
    start = line[:MAX_LINE_WIDTH]
    return f"{start.rpartition(', ')[0] or start}, ..."


def kind_of(change: Change) -> str:
    """The kind of a change in plain words; a cancelled subscription is an update of its row."""
    if change.op == "u" and change.event_type == "customer.subscription.deleted":
        return "cancelled"
    return OP_WORDS[change.op]


NEXT = """\
Everything is in {database}. Try:
  {command} status --database {database}
  {command} query --database {database} "select * from mrr_summary order by currency, month"
  {command} feed tail --database {database}
  {command} feed consume mine --start earliest --max 3 --database {database}
  {command} triggers --help
With your own account:
  export STRIPE_SECRET_KEY=rk_test_...      a restricted key: https://dashboard.stripe.com/apikeys
  {command} doctor
  {command} sync"""


def load(sandbox: RunningSandbox, database: str, folder: str) -> tuple[Synced, list[TableStats]]:
    """Sync once; return the result and the row counts of the tables."""
    result = sync(
        api_key=sandbox.key,
        api_base=sandbox.url,
        database=database,
        state_dir=folder,
        max_rps=1000,
        endpoint_rps=1000,
        resources=RESOURCES_OF_MRR,
    )
    with open_reader(database) as copy:
        return result, table_stats(copy, resource_names(RESOURCES_OF_MRR))


def new_rows(
    before: Sequence[TableStats], after: Sequence[TableStats]
) -> list[tuple[str, int, int]]:
    """Per table: its name, its rows, and how many of them are new."""
    counts = {t.table: t.rows for t in before}
    return [(t.table, t.rows, t.rows - counts.get(t.table, 0)) for t in after]


def remove_earlier_demo(file: Path, account: str) -> None:
    """Delete the files of an earlier demo. Raises `SetupError` if the file holds other data."""
    if not file.exists():
        return
    with open_reader(str(file)) as copy:
        schemas = copy.query("select distinct table_schema from information_schema.tables").rows
        own = {DEFAULT_DATASET, f"{DEFAULT_DATASET}_staging", models_schema(DEFAULT_DATASET)}
        foreign = {name for (name,) in schemas} - own
        if foreign or read_state(copy).get("account") not in (None, account):
            raise SetupError(
                f"{file.name} holds data that is not from a demo. Choose another --database."
            )
    file.unlink()
    for name in (
        f"{file.name}.wal",
        *(f"{file.stem}.feed.sqlite{end}" for end in ("", "-wal", "-shm", ".deliver.lock")),
    ):
        file.with_name(name).unlink(missing_ok=True)


def serve_sandbox(flags: Sequence[str]) -> None:
    """Run a sandbox in the foreground until Ctrl-C, and print its address; with `--help`, its help."""
    if {"-h", "--help"} & set(flags):
        sys.stdout.write(
            subprocess.run(
                [*SANDBOX_COMMAND, "--help"], check=True, stdout=subprocess.PIPE, text=True
            ).stdout
        )
        return
    with run_sandbox(
        "--now", str(int(time.time()) - CLOCK_DELAY), *flags
    ) as sandbox:  # a --now of the user comes later and wins
        console = console_out()
        console.print(
            f"A local simulation of Stripe runs at {sandbox.url} (account {sandbox.account}). In another shell:"
        )
        console.print(f"  export STRIPE_API_BASE={sandbox.url} STRIPE_SECRET_KEY={sandbox.key}")
        console.print(
            f"  {command_name()} sync --database sandbox.duckdb{' --allow-api-base' if '_live_' in sandbox.key else ''}"
        )
        console.print(
            "To make forty changes there, and to advance its clock until their events are read:"
        )
        console.print(
            f"""  curl -d '{{"seconds": {LIVE_SECONDS}, "changes": 40}}' {sandbox.url}/_sandbox/live"""
        )
        console.print(
            f"""  curl -d '{{"seconds": {ADVANCE_SECONDS}}}' {sandbox.url}/_sandbox/advance"""
        )
        console.print("Press Ctrl-C to stop.")
        with suppress(KeyboardInterrupt):
            sandbox.process.wait()
