"""One process that keeps a copy fresh: webhooks trigger syncs, one thread syncs, another delivers,
and HTTP requests are answered.
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
from ..destination.pipeline import dlt_settings, open_pipeline
from ..errors import SetupError, StripeFeedError, UsageError
from ..extract.events.webhook import WebhookEvent, decode_head
from ..extract.options import LOOK_BACK
from ..extract.run import RunContext
from ..extract.tables.rejected import describe_rejected
from ..feed.feed import Feed, open_feed
from ..feed.storage.store import FeedStore
from ..models.copies import build_copy_models
from ..models.run import ModelResult
from ..report.headline import HeadlineCache
from ..resources import CHANGES
from ..sync_run import Synced, sync
from ..triggers.config_watcher import ConfigWatcher
from ..triggers.models.model_trigger import AnyTrigger
from ..triggers.run import trigger_loop
from ..wording import counted
from ..write.actions import Actions, open_actions
from . import webhook_inbox

log = logging.getLogger("stripe_feed")

DEBOUNCE = 0.3  # seconds without a webhook before a reading begins
MAX_DEBOUNCE = 4.0  # seconds that a reading waits for quiet
MAX_BACK_OFF = 300.0
WAIT_FOR_LOCK = 60.0
BUILD_EVERY = 3_600.0  # seconds between builds of the models without a load
RULES_POLL_SECONDS = 1.0  # seconds between looks for a file of rules
MAX_EVENTS = 10_000  # announced events in one reading
MAX_BODIES = 500  # the same, where their bodies are kept
KEEP_SECONDS = 30 * 86_400


@dataclass
class ServiceState:
    """The state of syncing and delivery; `keeps_bodies` until it is known that the key may read
    events. `left_out`: objects that cannot be loaded, by table and name, each with the reason.
    """

    synced_at: float | None = None
    error: str | None = None
    failures: int = 0
    delivery: str | None = None
    keeps_bodies: bool = True
    left_out: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    context: RunContext | None = None
    stopped: threading.Event = field(default_factory=threading.Event)
    woken: threading.Event = field(default_factory=threading.Event)

    def health(self) -> Mapping[str, Any]:
        """Return the data of `/health`: `synced_at` in Unix seconds, the classes of the last errors
        of syncing and delivery, and how many objects are left out.
        """
        return {
            "synced_at": self.synced_at,
            "error": self.error or self.delivery,
            "failures": self.failures,
            "delivery": self.delivery,
            "left_out": sum(map(len, self.left_out.values())),
        }

    def leave_out(self, left_out: Mapping[str, Mapping[str, str]], polls: bool) -> None:
        """Log objects that are newly left out; a sync that polls tried all again."""
        logged, self.left_out = (
            describe_rejected(self.left_out),
            left_out if polls else {**self.left_out, **left_out},
        )
        for sentence in describe_rejected(self.left_out):
            if sentence not in logged:
                log.warning("%s", sentence)

    def watch(self, context: RunContext) -> None:
        """Keep the running sync, to stop it."""
        self.context = context
        if self.stopped.is_set():
            context.api.close()

    def stop(self) -> None:
        """Stop everything; another run continues an interrupted sync."""
        self.stopped.set()
        self.woken.set()
        if self.context is not None:
            self.context.api.close()


@dataclass(frozen=True, slots=True)
class Listening:
    """Where requests are answered; the file of the token, if none was given, and the token if it
    was created now.
    """

    url: str
    token_file: Path | None
    new_token: str | None = field(repr=False)


def sync_loop(
    feed: Feed,
    state: ServiceState,
    every: float,
    run: Callable[..., Synced] = sync,
    now: Callable[[], float] = time.time,
    clock: Callable[[], float] = time.monotonic,
    **arguments: Any,
) -> None:
    """Sync at once, after a webhook, and every `every` seconds (0: only after webhooks), until
    stopped.

    After a webhook only its events are read, and what happened until then; everything else when it
    is due. Received events are marked read once their changes are in the feed. A failed run is
    retried after a growing pause; every second time without the received events, so that none of
    them can stop the rest. Those are retried soon, after a growing pause of their own.
    """
    synced: float | None = None
    without = 0  # runs without the announced events, since they were read last
    while not state.stopped.is_set():
        state.woken.clear()
        rests, more = every, False
        try:
            leaves_out = state.failures % 2 == 1
            waiting = (
                []
                if leaves_out
                else webhook_inbox.unread(
                    feed.store, MAX_BODIES if state.keeps_bodies else MAX_EVENTS, now()
                )
            )
            announced = events_to_read(waiting)
            due = synced is None or clock() >= synced + (every or LOOK_BACK) or not announced
            began, polls = clock(), due or state.keeps_bodies or state.failures > 0
            done = run(
                webhook_events=announced,
                polls=polls,
                wait=WAIT_FOR_LOCK,
                watch=state.watch,
                **arguments,
            )
            more = mark_events(feed.store, [one.event_id for one in waiting], done, now())
            state.synced_at, state.error, state.failures = now(), None, 0
            state.leave_out(done.left_out, polls)
            state.keeps_bodies = CHANGES in done.refused
            if polls or synced is None:
                synced = began
            without = without + 1 if leaves_out else 0
            if due:  # it looks at all that are remembered
                webhook_inbox.prune_read_events(feed.store, now() - KEEP_SECONDS)
            soon = (
                pause_after(without)
                if leaves_out
                else webhook_inbox.seconds_until_due(feed.store, now())
            )
            rests = _wait_seconds(every and synced + every - clock(), soon)
        except StripeFeedError as fault:
            _failed(state, type(fault).__name__, str(fault))
        except Exception as fault:  # its words may hold data; the service goes on
            _failed(
                state,
                type(fault).__name__,
                "it is tried again; `stripe-feed sync --debug` shows more",
            )
        _wait(state, rests, more)


def _wait_seconds(until_sync: float, until_due: float | None) -> float:
    """Return the seconds until something is due without a webhook; 0: never."""
    waits = [max(rest, 0.1) for rest in (until_sync or None, until_due) if rest is not None]
    return min(waits, default=0.0)


def events_to_read(waiting: Sequence[webhook_inbox.ReceivedEvent]) -> list[WebhookEvent]:
    """Return received events as a sync takes them."""
    return [
        WebhookEvent(one.event_id, one.body, decode_head(one.head), by_id=one.tries > 0)
        for one in waiting
    ]


def mark_events(store: FeedStore, waiting: Sequence[str], done: Synced, now: float) -> bool:
    """Record which received events were read or failed; return whether more can be read at once."""
    left = {*done.unread, *done.failed}
    given_up = webhook_inbox.mark_failed(store, done.failed, now)
    if given_up:
        log.warning(
            "%s announced by webhooks could not be read in %d tries: given up (%s: %s). Polling catches the rest.",
            counted(len(given_up), "event"),
            webhook_inbox.MAX_TRIES,
            given_up[0],
            done.failed[given_up[0]],
        )
    read = [one for one in waiting if one not in left]
    webhook_inbox.mark_read(store, read, now)
    return bool(read) and (bool(done.unread) or len(waiting) in (MAX_BODIES, MAX_EVENTS))


def _failed(state: ServiceState, kind: str, words: str) -> None:
    if state.stopped.is_set():
        return
    state.error, state.failures = kind, state.failures + 1
    log.warning("The copy could not be updated (%s): %s", kind, words)


def pause_after(failures: int) -> float:
    """Return the seconds until the next try after so many failures."""
    return min(2.0 ** min(failures, 10), MAX_BACK_OFF)


def _wait(state: ServiceState, every: float, more: bool) -> None:
    """Wait for a webhook and for quiet after it, for the next turn, or for a fault to pass."""
    if state.failures:
        state.stopped.wait(pause_after(state.failures))
        return
    if more or state.stopped.is_set() or not state.woken.wait(every or None):
        return
    until = time.monotonic() + MAX_DEBOUNCE
    while time.monotonic() < until and not state.stopped.is_set():
        state.woken.clear()
        if not state.woken.wait(DEBOUNCE):
            return


class WorkerStop(threading.Event):
    """Set when the service stops, or when this worker has to end."""

    def __init__(self, stopped: threading.Event) -> None:
        super().__init__()
        self.stopped = stopped

    def is_set(self) -> bool:
        return super().is_set() or self.stopped.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        return self.stopped.wait(timeout) or self.is_set()


def delivery_loop(
    rules: ConfigWatcher,
    feed: Feed,
    state: ServiceState,
    current: ExitStack,
    delivery: Worker | None,
) -> None:
    """Fire and deliver until stopped; if the triggers file changed, restart with it. `current`
    holds the worker.
    """
    while not state.stopped.is_set():
        over, run = WorkerStop(state.stopped), _ticking(feed, rules.triggers, state)
        if delivery is None:
            while not over.wait(RULES_POLL_SECONDS) and not rules.reload():
                pass
        else:
            run_worker(delivery, partial(_tick, rules, over, run), state, over)
        current.close()
        delivery = _open_worker(rules, feed, state, current)


def _tick(rules: ConfigWatcher, over: WorkerStop, run: Callable[[], object]) -> None:
    if rules.reload():
        over.set()
    elif not over.is_set():
        run()


def _open_worker(
    rules: ConfigWatcher, feed: Feed, state: ServiceState, current: ExitStack
) -> Worker | None:
    while rules.triggers and not state.stopped.is_set():
        try:
            return current.enter_context(
                open_worker(feed.store, rules.triggers, lookups=feed.lookups)
            )
        except StripeFeedError as fault:
            state.delivery = type(fault).__name__
            log.warning("Delivery cannot start: %s", fault)
            state.stopped.wait(MAX_DEBOUNCE)
    return None


def run_worker(
    delivery: Worker,
    tick: Callable[[], object],
    state: ServiceState,
    over: threading.Event | None = None,
) -> None:
    """Fire triggers and deliver messages until stopped, or `over`; messages in flight are finished.
    Errors are logged, and delivery restarts.
    """
    failures, over = 0, over or state.stopped
    while not over.is_set():
        began = time.monotonic()
        try:
            delivery.follow(over, tick)
        except Exception as fault:  # its words may hold data; the service goes on
            failures = 1 if time.monotonic() > began + MAX_BACK_OFF else failures + 1
            state.delivery = type(fault).__name__
            log.warning("Delivery failed (%s) and restarts.", state.delivery)
            state.stopped.wait(pause_after(failures))


def _ticking(feed: Feed, triggers: Sequence[AnyTrigger], state: ServiceState) -> Callable[[], None]:
    """Return a function that runs the triggers and records the result in the state."""
    run = trigger_loop(feed, triggers)

    def tick() -> None:
        errors = [one.error for one in run() if one.error is not None]
        state.delivery = "a trigger does not run" if errors else None

    return tick


def sync_and_build(
    feed: Feed,
    places: Mapping[str, Any],
    run: Callable[..., Synced] = sync,
    build: Callable[..., Sequence[ModelResult]] = build_copy_models,
    clock: Callable[[], float] = time.monotonic,
) -> Callable[..., Synced]:
    """Return a sync that afterwards builds the models that are stale: after a load, and every hour,
    since the day is part of some. A build that fails is logged once and fails no sync.
    """
    built_at: float | None = None
    logged = ""

    def run_and_build(**arguments: Any) -> Synced:
        nonlocal built_at, logged
        done = run(**arguments)
        if not done.packages and built_at is not None and clock() < built_at + BUILD_EVERY:
            return done
        try:
            failed = [
                f"{one.name}: {one.reason}"
                for one in build(**places, wait=WAIT_FOR_LOCK)
                if one.status == "failed"
            ]
            words, built_at = "; ".join(failed), clock()
            feed.store.note_models_built()
        except StripeFeedError as fault:
            words = str(fault)
        if words and words != logged:
            log.warning("Models are not built: %s", words)
        logged = words
        return done

    return run_and_build


def _open_actions(places: Mapping[str, Any], reading: Mapping[str, Any]) -> Actions:
    """Actions with the key and the limits of the syncs; the copy answers look-ups while it is fresh."""
    copy = {name: places[name] for name in ("database", "destination", "dataset")}
    names = ("account", "max_rps", "endpoint_rps", "allow_api_base", "give_up_after")
    options = {name: reading[name] for name in names if name in reading}
    if "api_version" in reading:
        options["version"] = reading["api_version"]
    return open_actions(reading["api_key"], **copy, **options)


def run_service(
    *,
    host: str,
    port: int,
    token: str | None,
    secrets: Sequence[str],
    rules: ConfigWatcher,
    every: float,
    stopped: threading.Event,
    ready: Callable[[Listening], object],
    places: Mapping[str, Any],
    allow_actions: bool = False,
    builds_models: bool = False,
    **reading: Any,
) -> None:
    """Sync, deliver and answer HTTP until SIGTERM, SIGINT or `stopped`; then finish running work.

    Without a `token` it creates one, and keeps it in a private file next to the feed store.
    `secrets`: of the webhook endpoint in Stripe; if empty, webhooks are refused. `rules` are
    followed. `every`: seconds between syncs without a webhook. `ready` gets the address once
    requests are answered; port 0 means any free port. `allow_actions`: answer `POST /actions/...`.
    `builds_models`: after a sync, build the models that are stale. `places` are arguments of
    `open_pipeline`, the others those of `sync`. Raises `UsageError` and `SetupError` before it
    starts.
    """
    try:
        from .app import ServerConfig, create_app
        from .auth import check_token, load_or_create_token
        from .listener import listen, run_listener
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
        bound = held.enter_context(listen(host, port))
        held.enter_context(dlt_settings())
        feed = held.enter_context(open_feed(open_pipeline(**places)))
        file = None if token is not None else feed.store.path.with_suffix(".token")
        is_new = False
        if file is not None:
            token, is_new = load_or_create_token(file)
        state = ServiceState(stopped=stopped)
        serving = ServerConfig(
            feed=feed,
            token=token or "",
            secrets=secrets,
            triggers=rules.triggers,
            keep_bodies=lambda: state.keeps_bodies,
            wake_up=state.woken.set,
            health=state.health,
            headline=HeadlineCache(feed.read_models, feed.store.models_mark, time.time).get,
            stopped=stopped,
            actions=held.enter_context(_open_actions(places, reading)) if allow_actions else None,
        )
        threads = [
            threading.Thread(
                target=sync_loop,
                args=(feed, state, every),
                kwargs={
                    **places,
                    **reading,
                    "run": sync_and_build(feed, places) if builds_models else sync,
                },
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
                target=delivery_loop, args=(rules, feed, state, current, delivery), name="delivery"
            )
        )
        for thread in threads:
            thread.start()
        try:
            shown = serving.token if is_new else None
            run_listener(
                create_app(serving),
                host,
                bound,
                stopped,
                lambda url: ready(Listening(url, file, shown)),
                serving.counts,
            )
        finally:
            state.stop()
            for thread in threads:
                thread.join()
