"""One scheduled run: lock, drain, take the destination's state, load in packages until Stripe has
nothing new.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from .destination.duckdb_file import duckdb_file, give_back_memory, patient
from .destination.lease import leased
from .destination.load import explaining, restore, run, settle
from .destination.locks import PATIENCE, patiently
from .destination.pipeline import PIPELINE, check, lock, open_pipeline, require_merge, settings
from .destination.place import DATASET
from .destination.preflight import require_no_views, require_place
from .destination.state import check_owner, owner_in
from .errors import Locked, NotReadable, UsageError
from .extract import existing
from .extract.events.webhook import WebhookEvent
from .extract.lists import plan
from .extract.next_step import span, standing
from .extract.options import Reading
from .extract.run import Session, session_of
from .extract.source import source_of
from .feed.relay import relay_pipeline, store_path
from .feed.storage.store import FeedStore
from .resources import CHANGES, RESOURCES, TABLES

if TYPE_CHECKING:
    from typing_extensions import Unpack

log = logging.getLogger("stripe_feed")

REFRESH_ALL = "--full-refresh drops all tables and loads all; leave out --resources."
CHECKPOINT_ROWS = 40_000  # objects, their children aside


@dataclass(frozen=True, slots=True)
class Synced:
    """What one run did. `refused`: resources that cannot be read, each with the reason; `changes`
    among them where the key may not read events. `healed`: differences that a comparison with the
    whole list found, by resource; `restored`: rows that it found wrong although nothing had
    happened at Stripe, which nobody is told. `relayed`: changes that are new in the feed. `unread`:
    rung events that are still to be read; `failed`: those that could not be, with the errors'
    classes. `left_out`: objects that cannot be taken, by table and name, each with the reason.
    """

    rows: dict[str, int]
    requests: int
    seconds: float
    packages: int
    account_id: str
    livemode: bool
    refused: dict[str, str] = field(default_factory=dict)
    healed: dict[str, int] = field(default_factory=dict)
    restored: dict[str, int] = field(default_factory=dict)
    relayed: int = 0
    unread: tuple[str, ...] = ()
    left_out: dict[str, dict[str, str]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Planned:
    """What a run would read of one resource, in Unix seconds; a first listing has no lower bound."""

    resource: str
    kind: str  # "everything", "the rest", "new", "range", "events"
    since: int
    until: int


def sync(
    *,
    database: str | None = None,
    destination: str | None = None,
    dataset: str = DATASET,
    state_dir: str | None = None,
    pipeline_name: str = PIPELINE,
    resources: Sequence[str] | None = None,
    full_refresh: bool = False,
    checkpoint_rows: int | None = None,
    wait: float = PATIENCE,
    watch: Callable[[Session], None] | None = None,
    reconcile: bool = False,
    rung: Sequence[WebhookEvent] = (),
    polls: bool = True,
    **reading: Unpack[Reading],
) -> Synced:
    """Bring the copy up to date and return what was loaded: rows, and the changes that led there.

    A crash or an interrupt costs at most the package under way (`checkpoint_rows` objects); the
    next run goes on from there. The destination is the only truth: dlt's local state is replaced by
    the one stored with the data. A resource that the key may not read is left out and named in the
    result. `reconcile`: compare the whole lists with the copy, heal what no event told, and tell it
    as changes of origin `diff`. `rung`: events that webhooks told of, read at once, with all that
    happened until then; without `polls`, nothing else is read. `wait`: seconds to wait for another
    command's lock, and for another process that has the DuckDB file open. `watch` is called once,
    with the session whose listings show the progress. The other arguments are those of
    `stripe_source` and of `open_pipeline`.

    Raises the errors of `stripe_feed.errors`: nothing is written where the key or the destination
    is at fault.
    """
    names = chosen(resources)
    compared = frozenset(names if reconcile else ())
    session = session_of(reading, checkpoint_rows or CHECKPOINT_ROWS, kept=True, reconcile=compared)
    session.rung, session.polls, session.tables, session.wait = rung, polls, names, wait
    began = time.monotonic()
    with settings():
        pipeline = open_pipeline(database, destination, dataset, state_dir, pipeline_name)
        _ = session.api
        what = f"stripe-feed {'reconcile' if reconcile else 'sync'}"
        require_merge(pipeline.destination)
        with lock(pipeline, what, wait), leased(pipeline, what, wait) as holds, closing(session):
            patiently(partial(check, pipeline), wait)
            account = session.account
            pipeline, left = settle(pipeline, account, wait, holds)
            session.rows.update(left)
            with explaining(pipeline):
                require_place(pipeline, _source_state(pipeline))
                if full_refresh:
                    check_owner(account, _owner(pipeline))
                    check_refresh(pipeline, session, names, resources)
                    require_no_views(pipeline)
            if watch is not None:
                watch(session)
            try:
                packages = bool(left) + _load(pipeline, session, names, full_refresh, wait, holds)
                requests = session.api.requests
                relayed = _relay(pipeline, wait)
            except BaseException:
                if not pipeline.has_pending_data:
                    # dlt keeps the rows of a package that was not extracted to its end
                    pipeline.drop()
                raise
    refused = {
        table: str(session.refused[table])
        for table in (*RESOURCES, CHANGES)
        if table in session.refused
    }
    rows = {table: session.rows[table] for table in (*TABLES, CHANGES) if table in session.rows}
    return Synced(
        rows,
        requests,
        time.monotonic() - began,
        packages,
        account.id,
        account.livemode,
        refused,
        dict(session.healed),
        dict(session.restored),
        relayed,
        tuple(one.event_id for one in session.rung),
        session.left_out.why,
        dict(session.failed),
    )


def dry_run(
    *,
    database: str | None = None,
    destination: str | None = None,
    dataset: str = DATASET,
    pipeline_name: str = PIPELINE,
    resources: Sequence[str] | None = None,
    full_refresh: bool = False,
    **reading: Unpack[Reading],
) -> list[Planned]:
    """What `sync` would list with these arguments, after the same checks; one request, nothing
    written.
    """
    names = chosen(resources)
    if full_refresh and resources:
        raise UsageError(REFRESH_ALL)
    session = session_of(reading, kept=True)
    with looking(session, database, destination, dataset, pipeline_name) as pipeline:
        return plan_sync(pipeline.drop() if full_refresh else pipeline, session, names)


@contextmanager
def looking(
    session: Session,
    database: str | None,
    destination: str | None,
    dataset: str,
    pipeline_name: str,
    wait: float = PATIENCE,
) -> Iterator[Any]:
    """The pipeline of a copy with the destination's state, checked to be of the key's account;
    nothing is written.

    A DuckDB file stays open meanwhile. At the end the session is closed. Raises the errors of
    `stripe_feed.errors`.
    """
    with (
        ExitStack() as held,
        tempfile.TemporaryDirectory(prefix="stripe-feed-") as folder,
        closing(session),
    ):
        held.enter_context(settings())
        _ = session.api
        pipeline = open_pipeline(
            database, destination, dataset, folder, pipeline_name
        )  # dlt's copy of the state
        patiently(partial(check, pipeline), wait)
        file = duckdb_file(pipeline)
        if file is None or file.exists():  # dlt would create it
            if file is not None:
                client = pipeline.sql_client()
                patient(client, file, wait)
                held.enter_context(client)
            restore(pipeline)
            with explaining(pipeline):
                require_place(pipeline, _source_state(pipeline))
                check_owner(session.account, _owner(pipeline))
        yield pipeline


def _owner(pipeline: Any) -> tuple[str, bool] | None:
    """The account whose rows the dataset holds, and whether they are live."""
    return owner_in(_source_state(pipeline), pipeline.sql_client(), list(RESOURCES))


def plan_sync(
    pipeline: Any, session: Session, resources: Sequence[str] | None = None
) -> list[Planned]:
    """What a run would read, from the destination's state; nothing written."""
    states = states_of(pipeline)
    account, found, cursors = session.account, [], states.get(CHANGES, {})
    for name in chosen(resources):
        state, row = states.get(name, {}), RESOURCES[name]
        follows = (
            "t0" in state
            and session.options.end is None
            and (name in cursors or session.may_follow())
        )
        where = standing(state, cursors.get(name), session.api.now(), follows)
        if where in ("again", "gap"):
            state = {}  # a list that no events go on from is read again
        planned = plan(state, session.options, len(row.walks), session.api.now(), account.created)
        ranges = [r for walk in planned.left for r in walk]
        kind = (
            "range"
            if planned.keeps_cursor
            else "everything"
            if planned.first
            else "the rest"
            if any(state["left"])
            else "new"
        )
        found.append(Planned(name, kind, min(lo for lo, _ in ranges), max(hi for _, hi in ranges)))
    return [*found, *_planned_events(cursors, session)]


def _planned_events(cursors: Mapping[str, Any], session: Session) -> list[Planned]:
    """What a run would read of the events; nothing before the lists are complete."""
    options = session.options
    if options.end is not None or not any(mine["cursor"] for mine in cursors.values()):
        return []
    begun = [mine for mine in cursors.values() if mine["cursor"]]  # the others are compared first
    spans = [span(mine, session.api.now(), options.look_back, options.settle) for mine in begun]
    since, until = min(lo for lo, _ in spans), max(hi for _, hi in spans)
    return [Planned(CHANGES, "events", since, until)] if since < until else []


def chosen(resources: Sequence[str] | None) -> list[str]:
    """The resources asked for; all of them by default. Raises `UsageError` for unknown names."""
    for name in resources or ():
        if name not in RESOURCES:
            raise UsageError(f"There is no resource {name!r}. Choose from: {', '.join(RESOURCES)}.")
    return list(resources or RESOURCES)


def check_refresh(
    pipeline: Any, session: Session, names: Sequence[str], resources: Sequence[str] | None
) -> None:
    """A full refresh drops every table: refuse it where rows would not come back."""
    if resources:
        raise UsageError(REFRESH_ALL)
    for name in names:
        try:
            session.api.get(RESOURCES[name].path, {"limit": 1}, bytes)
        except NotReadable:
            with pipeline.sql_client() as client:
                if not existing.is_empty(client, name):
                    raise


def _relay(pipeline: Any, wait: float) -> int:
    """Take the changes over into the feed; whoever has the file open puts that off, and no more."""
    with FeedStore(store_path(pipeline)) as store:
        try:
            return patiently(lambda: relay_pipeline(pipeline, store), wait)
        except Locked as fault:
            log.warning("All is loaded, but the feed takes its changes over later: %s", fault)
            return 0


def _load(
    pipeline: Any,
    session: Session,
    names: Sequence[str],
    full_refresh: bool,
    wait: float,
    holds: Callable[[], None],
) -> int:
    refresh: dict[str, Any] = {"refresh": "drop_sources"} if full_refresh else {}
    packages = 0
    while True:
        session.begin_package()
        wanted = [
            name
            for name in (*(names if session.polls else ()), CHANGES)
            if name not in session.refused
        ]
        run(pipeline, source_of(session).with_resources(*wanted), wait, holds, **refresh)
        refresh = {}
        packages += session.package_rows > 0
        give_back_memory()
        if session.finished:
            return packages


def states_of(pipeline: Any) -> dict[str, Any]:
    """The state of each resource: its cursors."""
    found: dict[str, Any] = _source_state(pipeline).get("resources", {})
    return found


def _source_state(pipeline: Any) -> dict[str, Any]:
    state: dict[str, Any] = pipeline.state.get("sources", {}).get("stripe", {})
    return state
