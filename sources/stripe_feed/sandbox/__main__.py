"""`python -m stripe_feed.sandbox`: a sandbox in a process of its own. One line of JSON says where
it is.
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


def main(arguments: list[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    sandbox = make_sandbox(given)
    gc.collect()
    gc.freeze()  # what is there stays there: nothing to look through again
    asyncio.run(run(sandbox, given.port, given.exit_with_parent))
    return 0


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{message}\n")


def parser() -> Parser:
    parser = Parser(
        "stripe-feed sandbox",
        description="Run a look-alike of Stripe over HTTP, with an account made up.",
    )
    parser.add_argument("--port", type=port, default=0, help="0, the default, takes a free one")
    parser.add_argument(
        "--seed", type=int, default=1, help="another seed, another account; 1 by default"
    )
    parser.add_argument(
        "--customers", type=natural_number, default=200, help="how many; 200 by default"
    )
    for name in ("--invoices", "--subscriptions", "--products"):
        parser.add_argument(
            name,
            type=natural_number,
            default=None,
            help="how many; by default a share of the customers",
        )
    parser.add_argument(
        "--shape", choices=SHAPES, default="growth", help="how the objects lie in time"
    )
    parser.add_argument(
        "--now",
        type=natural_number,
        default=None,
        help="Unix seconds at which the sandbox's clock starts",
    )
    parser.add_argument(
        "--start",
        type=natural_number,
        default=None,
        help="Unix seconds at which the account was created",
    )
    parser.add_argument(
        "--fixed-clock", action="store_true", help="the clock only moves when it is told to"
    )
    parser.add_argument(
        "--livemode", action="store_true", help="an account in live mode, with a live key"
    )
    parser.add_argument(
        "--no-oddities", action="store_true", help="without the odd objects that real accounts have"
    )
    parser.add_argument(
        "--latency", type=non_negative, default=0.0, help="seconds that each answer takes"
    )
    parser.add_argument("--jitter", type=non_negative, default=0.0, help="seconds, more or less")
    parser.add_argument(
        "--rate",
        type=non_negative,
        default=None,
        help="requests per second, all together; more are answered 429",
    )
    parser.add_argument(
        "--endpoint-rate", type=non_negative, default=None, help="requests per second, per endpoint"
    )
    parser.add_argument("--gzip", action="store_true", help="compress for clients that ask for it")
    parser.add_argument(
        "--indent", action="store_true", help="bodies with line breaks, as Stripe sends them"
    )
    parser.add_argument(
        "--api-version",
        default=API_VERSION,
        help="the account's default version: that of its events",
    )
    parser.add_argument("--exit-with-parent", action="store_true", help="stop when stdin closes")
    return parser


def natural_number(text: str) -> int:
    """A count, or Unix seconds."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 on")
    return int(text)


def port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 0 to 65535")
    return int(text)


def non_negative(text: str) -> float:
    """Seconds, or a rate."""
    try:
        parser = float(text)
    except ValueError:
        parser = -1.0
    if not 0 <= parser < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 on")
    return parser


def make_sandbox(given: argparse.Namespace) -> Sandbox:
    sandbox = Sandbox(
        seed=given.seed,
        customers=given.customers,
        invoices=given.invoices,
        subscriptions=given.subscriptions,
        products=given.products,
        now=given.now,
        start=given.start,
        oddities=not given.no_oddities,
        livemode=given.livemode,
        shape=given.shape,
        real_time=not given.fixed_clock,
        gzip=given.gzip,
        indent=given.indent,
        api_version=given.api_version,
    )
    sandbox.faults.latency, sandbox.faults.jitter = given.latency, given.jitter
    sandbox.faults.rate, sandbox.faults.endpoint_rate = given.rate, given.endpoint_rate
    return sandbox


async def run(sandbox: Sandbox, port: int, exit_with_parent: bool) -> None:
    """Serve until a signal, or until the parent is gone."""
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
