"""`python -m stripe_feed.sandbox`: run a sandbox in a process of its own, and print its address as
one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import math
import os
import signal
import sys
import threading
import time
from typing import NoReturn

import msgspec

from .http.server import listen
from .samples.values import API_VERSION
from .sandbox import Sandbox
from .scenarios.seed_data import SHAPES
from .state.kinds import GROUPS


def main(arguments: list[str] | None = None) -> int:
    options = make_parser().parse_args(arguments)
    sandbox = make_sandbox(options)
    gc.collect()
    gc.freeze()  # the objects stay: later collections need not look at them
    asyncio.run(run(sandbox, options.port, options.exit_with_parent))
    return 0


class Parser(argparse.ArgumentParser):
    """Prints what is wrong with the arguments in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{message}\n")


def make_parser() -> Parser:
    parser = Parser(
        "stripe-feed sandbox",
        description="Run a look-alike of Stripe over HTTP, with a made-up account.",
    )
    parser.add_argument(
        "--port", type=port, default=0, help="port; 0, the default, takes a free one"
    )
    parser.add_argument(
        "--seed", type=int, default=1, help="each seed gives another account; 1 by default"
    )
    parser.add_argument(
        "--customers", type=natural_number, default=200, help="number of customers; 200 by default"
    )
    for name in ("--invoices", "--subscriptions", "--products"):
        parser.add_argument(
            name,
            type=natural_number,
            default=None,
            help="number of objects; by default in proportion to the customers",
        )
    parser.add_argument(
        "--shape", choices=SHAPES, default="growth", help="how creation times are distributed"
    )
    parser.add_argument(
        "--now",
        type=natural_number,
        default=None,
        help="start of the sandbox's clock, in Unix seconds",
    )
    parser.add_argument(
        "--start",
        type=natural_number,
        default=None,
        help="creation of the account, in Unix seconds",
    )
    parser.add_argument(
        "--fixed-clock", action="store_true", help="stop the clock; it moves only on request"
    )
    parser.add_argument(
        "--livemode", action="store_true", help="make an account in live mode, with a live key"
    )
    parser.add_argument(
        "--no-oddities",
        action="store_true",
        help="leave out the edge cases that real accounts have",
    )
    parser.add_argument(
        "--groups",
        type=groups,
        default=(),
        help=f"further objects of the past and of the activity, separated by commas: {', '.join(GROUPS[1:])}",
    )
    parser.add_argument(
        "--business",
        action="store_true",
        help="make a business that lives: subscriptions renew, are paid, discounted and canceled",
    )
    parser.add_argument(
        "--latency", type=non_negative, default=0.0, help="seconds that each answer takes"
    )
    parser.add_argument(
        "--jitter", type=non_negative, default=0.0, help="random change of the latency, in seconds"
    )
    parser.add_argument(
        "--rate",
        type=non_negative,
        default=None,
        help="limit of requests per second in total; others are answered 429",
    )
    parser.add_argument(
        "--endpoint-rate",
        type=non_negative,
        default=None,
        help="limit of requests per second per endpoint",
    )
    parser.add_argument(
        "--search-rate",
        type=non_negative,
        default=None,
        help="limit of searches per second in total",
    )
    parser.add_argument(
        "--gzip", action="store_true", help="compress answers if the client accepts it"
    )
    parser.add_argument("--indent", action="store_true", help="indent bodies as Stripe does")
    parser.add_argument(
        "--api-version",
        default=API_VERSION,
        help="the account's default API version, in which its events are recorded",
    )
    parser.add_argument("--exit-with-parent", action="store_true", help="stop when stdin closes")
    return parser


def natural_number(text: str) -> int:
    """A count, or Unix seconds."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def groups(text: str) -> tuple[str, ...]:
    """Names of groups, separated by commas."""
    names = tuple(text.split(","))
    if unknown := sorted(set(names) - set(GROUPS)):
        raise argparse.ArgumentTypeError(
            f"there is no group {unknown[0]!r}; groups are {', '.join(GROUPS)}"
        )
    return names


def port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65535)")
    return int(text)


def non_negative(text: str) -> float:
    """Seconds, or a rate."""
    try:
        parser = float(text)
    except ValueError:
        parser = -1.0
    if not 0 <= parser < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return parser


def make_sandbox(options: argparse.Namespace) -> Sandbox:
    sandbox = Sandbox(
        seed=options.seed,
        customers=options.customers,
        invoices=options.invoices,
        subscriptions=options.subscriptions,
        products=options.products,
        now=options.now,
        start=options.start,
        oddities=not options.no_oddities,
        livemode=options.livemode,
        shape=options.shape,
        real_time=not options.fixed_clock,
        gzip=options.gzip,
        indent=options.indent,
        api_version=options.api_version,
        groups=options.groups,
        business=options.business,
    )
    sandbox.faults.latency, sandbox.faults.jitter = options.latency, options.jitter
    sandbox.faults.rate, sandbox.faults.endpoint_rate = options.rate, options.endpoint_rate
    sandbox.faults.search_rate = options.search_rate
    return sandbox


async def run(sandbox: Sandbox, port: int, exit_with_parent: bool) -> None:
    """Serve until a signal comes, or until the parent process is gone."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    listening = await listen(sandbox.account, sandbox.answer, port)
    sandbox.account.cpu_seconds = time.thread_time()
    sandbox.account.cpu_before = -sandbox.account.cpu_seconds
    if exit_with_parent:
        threading.Thread(target=_watch_stdin, args=(loop, stop), daemon=True).start()
    line = {
        "url": listening.url,
        "key": sandbox.key,
        "account": sandbox.account_id,
        "pid": os.getpid(),
    }
    sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
    sys.stdout.flush()
    await stop.wait()
    await listening.close()


def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    while os.read(0, 4096):
        pass
    loop.call_soon_threadsafe(stop.set)


if __name__ == "__main__":
    sys.exit(main())
