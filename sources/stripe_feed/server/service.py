"""One process that keeps a copy fresh: webhooks ring, one thread reads, another delivers, and HTTP
answers meanwhile.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..api.credentials import find_key
from ..delivery.worker import Worker, open_worker
from ..destination.pipeline import open_pipeline, settings
from ..errors import SetupError, StripeFeedError, UsageError
from ..extract.events.webhook import WebhookEvent, decode_head
from ..extract.options import LOOK_BACK
from ..extract.run import Session
from ..extract.tables.rejected import words
from ..feed.feed import Feed, open_feed
from ..resources import CHANGES
from ..sync_run import Synced, sync
from ..triggers.config_watcher import Watched
from ..triggers.run import ticking
from ..triggers.trigger import Trigger
from . import webhook_inbox

log = logging.getLogger("stripe_feed")

DEBOUNCE = 0.3  # seconds without a ring before a reading begins
MOST_DEBOUNCE = 4.0  # seconds that a reading waits for quiet
MOST_BACK_OFF = 300.0
WAIT_FOR_LOCK = 60.0
LOOK = 1.0  # seconds between looks for a file of rules
IDS = 10_000  # rung events in one reading
BODIES = 500  # the same, where their bodies are kept
REMEMBERED = 30 * 86_400


@dataclass
class State:
    """How reading and delivery go; `keeps_bodies` until it is known that the key may read events.
    `left_out`: objects that cannot be taken, by table and name, each with the reason.
    """

    synced_at: float | None = None
    error: str | None = None
    failures: int = 0
    delivery: str | None = None
    keeps_bodies: bool = True
    left_out: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    session: Session | None = None
    stopped: threading.Event = field(default_factory=threading.Event)
    rung: threading.Event = field(default_factory=threading.Event)

    def health(self) -> Mapping[str, Any]:
        """Freshness for `/health`: `synced_at` in Unix seconds, the classes of the last errors of
        reading and delivery, and how many objects are left out.
        """
        return {
            "synced_at": self.synced_at,
            "error": self.error or self.delivery,
            "failures": self.failures,
            "delivery": self.delivery,
            "left_out": sum(map(len, self.left_out.values())),
        }

    def leave_out(self, found: Mapping[str, Mapping[str, str]], polls: bool) -> None:
        """Say what is left out that was not before; a reading that polls tried all again."""
        known, self.left_out = words(self.left_out), found if polls else {**self.left_out, **found}
        for sentence in words(self.left_out):
            if sentence not in known:
                log.warning("%s", sentence)

    def watch(self, session: Session) -> None:
        """Know the reading under way, to stop it."""
        self.session = session
        if self.stopped.is_set():
            session.api.close()

    def stop(self) -> None:
        """End everything; a reading under way goes on in another run."""
        self.stopped.set()
        self.rung.set()
        if self.session is not None:
            self.session.api.close()


@dataclass(frozen=True, slots=True)
class Opened:
    """Where requests are answered; the file that holds the token, where none was given, and the
    token if it was made just now.
    """

    url: str
    token_file: Path | None
    new_token: str | None = field(repr=False)


def read_on(
    feed: Feed,
    state: State,
    every: float,
    run: Callable[..., Synced] = sync,
    now: Callable[[], float] = time.time,
    clock: Callable[[], float] = time.monotonic,
    **arguments: Any,
) -> None:
    """Sync at once, when a webhook rings, and every so many seconds (0: only on rings), until
    stopped.

    A ring has only its events read, and what happened until then; all the rest when it is time for
    it. Rung events are noted as read when what they brought is in the feed. A run that fails is
    tried again, after a growing pause; every second time without the rung events, so that none of
    them can stop the rest. Those are tried again soon, after a growing pause of their own.
    """
    synced: float | None = None
    without = 0  # runs without the rung events, since they were read last
    while not state.stopped.is_set():
        state.rung.clear()
        rests, more = every, False
        try:
            leaves_out = state.failures % 2 == 1
            waiting = (
                []
                if leaves_out
                else webhook_inbox.waiting(feed.store, BODIES if state.keeps_bodies else IDS, now())
            )
            rung = [
                WebhookEvent(one.event_id, one.body, decode_head(one.head), by_id=one.tries > 0)
                for one in waiting
            ]
            due = synced is None or clock() >= synced + (every or LOOK_BACK) or not rung
            began, polls = clock(), due or state.keeps_bodies or state.failures > 0
            done = run(rung=rung, polls=polls, wait=WAIT_FOR_LOCK, watch=state.watch, **arguments)
            more = _answered(feed, [one.event_id for one in waiting], done, now())
            state.synced_at, state.error, state.failures = now(), None, 0
            state.leave_out(done.left_out, polls)
            state.keeps_bodies = CHANGES in done.refused
            if polls or synced is None:
                synced = began
            without = without + 1 if leaves_out else 0
            if due:  # it looks at all that are remembered
                webhook_inbox.prune(feed.store, now() - REMEMBERED)
            soon = _pause(without) if leaves_out else webhook_inbox.next_due(feed.store, now())
            rests = _rests(every and synced + every - clock(), soon)
        except StripeFeedError as fault:
            _failed(state, type(fault).__name__, str(fault))
        except Exception as fault:  # its words may hold data; the service goes on
            _failed(
                state,
                type(fault).__name__,
                "it is tried again; `stripe-feed sync --debug` shows more",
            )
        _rest(state, rests, more)


def _rests(until_sync: float, until_due: float | None) -> float:
    """Seconds until something is due without a ring; 0: never."""
    found = [max(rest, 0.1) for rest in (until_sync or None, until_due) if rest is not None]
    return min(found, default=0.0)


def _answered(feed: Feed, waiting: Sequence[str], done: Synced, now: float) -> bool:
    """Note what became of rung events; return whether others may be read at once."""
    left = {*done.unread, *done.failed}
    given_up = webhook_inbox.failed(feed.store, done.failed, now)
    if given_up:
        log.warning(
            "%d events that webhooks told of could not be read in %d tries and are given up (%s: %s). Polling tells the rest.",
            len(given_up),
            webhook_inbox.MOST_TRIES,
            given_up[0],
            done.failed[given_up[0]],
        )
    read = [one for one in waiting if one not in left]
    webhook_inbox.read(feed.store, read, now)
    return bool(read) and (bool(done.unread) or len(waiting) in (BODIES, IDS))


def _failed(state: State, kind: str, words: str) -> None:
    if state.stopped.is_set():
        return
    state.error, state.failures = kind, state.failures + 1
    log.warning("The copy could not be brought up to date (%s): %s", kind, words)


def _pause(failures: int) -> float:
    """Seconds until the next try, after so many that failed."""
    return min(2.0 ** min(failures, 10), MOST_BACK_OFF)


def _rest(state: State, every: float, more: bool) -> None:
    """Wait for a ring and for quiet after it, for the next turn, or for a fault to pass."""
    if state.failures:
        state.stopped.wait(_pause(state.failures))
        return
    if more or state.stopped.is_set() or not state.rung.wait(every or None):
        return
    until = time.monotonic() + MOST_DEBOUNCE
    while time.monotonic() < until and not state.stopped.is_set():
        state.rung.clear()
        if not state.rung.wait(DEBOUNCE):
            return


class Turn(threading.Event):
    """Set when the service stops, or by whoever delivers in this turn."""

    def __init__(self, stopped: threading.Event) -> None:
        super().__init__()
        self.stopped = stopped

    def is_set(self) -> bool:
        return super().is_set() or self.stopped.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        return self.stopped.wait(timeout) or self.is_set()


def deliver_by(
    rules: Watched, feed: Feed, state: State, current: ExitStack, delivery: Worker | None
) -> None:
    """Fire and deliver until stopped; where the file of the rules changed, begin anew with them.
    `current` holds the delivery.
    """
    while not state.stopped.is_set():
        over, run = Turn(state.stopped), _ticking(feed, rules.triggers, state)
        if delivery is None:
            while not over.wait(LOOK) and not rules.changed():
                pass
        else:
            deliver_on(delivery, partial(_tick, rules, over, run), state, over)
        current.close()
        delivery = _begun(rules, feed, state, current)


def _tick(rules: Watched, over: Turn, run: Callable[[], object]) -> None:
    if rules.changed():
        over.set()
    elif not over.is_set():
        run()


def _begun(rules: Watched, feed: Feed, state: State, current: ExitStack) -> Worker | None:
    while rules.triggers and not state.stopped.is_set():
        try:
            return current.enter_context(
                open_worker(feed.store, rules.triggers, lookups=feed.lookups)
            )
        except StripeFeedError as fault:
            state.delivery = type(fault).__name__
            log.warning("Delivery cannot begin: %s", fault)
            state.stopped.wait(MOST_DEBOUNCE)
    return None


def deliver_on(
    delivery: Worker,
    tick: Callable[[], object],
    state: State,
    over: threading.Event | None = None,
) -> None:
    """Fire triggers and deliver messages until stopped, or `over`; what is under way then is
    finished. A fault is logged, and passes.
    """
    failures, over = 0, over or state.stopped
    while not over.is_set():
        began = time.monotonic()
        try:
            delivery.follow(over, tick)
        except Exception as fault:  # its words may hold data; the service goes on
            failures = 1 if time.monotonic() > began + MOST_BACK_OFF else failures + 1
            state.delivery = type(fault).__name__
            log.warning("Delivery stumbled (%s), and begins anew.", state.delivery)
            state.stopped.wait(_pause(failures))


def _ticking(feed: Feed, triggers: Sequence[Trigger], state: State) -> Callable[[], None]:
    """Runs the triggers, and notes in the state how it goes."""
    run = ticking(feed, triggers)

    def tick() -> None:
        errors = [one.error for one in run() if one.error is not None]
        state.delivery = "a trigger does not run" if errors else None

    return tick


def keep_fresh(
    *,
    host: str,
    port: int,
    token: str | None,
    secrets: Sequence[str],
    rules: Watched,
    every: float,
    stopped: threading.Event,
    ready: Callable[[Opened], object],
    places: Mapping[str, Any],
    **reading: Any,
) -> None:
    """Read, deliver and answer HTTP until SIGTERM, SIGINT or `stopped`; then finish what is under
    way.

    Without a `token` it makes one, and keeps it in a private file beside the feed store. `secrets`:
    of the webhook endpoint at Stripe; none, no webhooks. `rules` are followed. `every`: seconds
    between readings without a webhook. `ready` is told where once requests are answered; port 0 is
    any that is free. `places` are arguments of `open_pipeline`, the others those of `sync`. Raises
    `UsageError` and `SetupError` before it starts.
    """
    try:
        from .app import Serving, app_of
        from .auth import check_token, kept_token
        from .listener import listening, serve
    except ModuleNotFoundError as fault:
        raise SetupError(
            f"{fault.name} is not installed. Run: pip install 'stripe-feed[serve]'"
        ) from None
    if token is not None:
        try:
            check_token(token)
        except UsageError as fault:
            raise UsageError(f"{fault} The command takes it from STRIPE_FEED_TOKEN.") from None
    reading["api_key"] = find_key(reading.get("api_key"))
    with ExitStack() as held:
        door = held.enter_context(listening(host, port))
        held.enter_context(settings())
        feed = held.enter_context(open_feed(open_pipeline(**places)))
        file = None if token is not None else feed.store.path.with_suffix(".token")
        is_new = False
        if file is not None:
            token, is_new = kept_token(file)
        state = State(stopped=stopped)
        serving = Serving(
            feed=feed,
            token=token or "",
            secrets=secrets,
            triggers=rules.triggers,
            keep_bodies=lambda: state.keeps_bodies,
            rung=state.rung.set,
            health=state.health,
            stopped=stopped,
        )
        threads = [
            threading.Thread(
                target=read_on,
                args=(feed, state, every),
                kwargs={**places, **reading},
                name="reader",
            )
        ]
        current, delivery = held.enter_context(ExitStack()), None
        if rules.triggers:
            delivery = current.enter_context(
                open_worker(feed.store, rules.triggers, lookups=feed.lookups)
            )
        threads.append(
            threading.Thread(
                target=deliver_by, args=(rules, feed, state, current, delivery), name="delivery"
            )
        )
        for thread in threads:
            thread.start()
        try:
            shown = serving.token if is_new else None
            serve(
                app_of(serving),
                host,
                door,
                stopped,
                lambda url: ready(Opened(url, file, shown)),
                serving.counts,
            )
        finally:
            state.stop()
            for thread in threads:
                thread.join()
