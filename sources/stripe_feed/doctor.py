"""What is wrong with the set-up, and the fix: a line per check, cheapest first."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from .api.client import API_VERSION, Account, Api
from .api.credentials import KEYS_PAGE, STRIPE_BASE
from .api.stripe_time import DOUBT
from .destination.duckdb_file import duckdb_file
from .destination.load import explaining
from .destination.pipeline import check, open_pipeline, settings
from .destination.place import DATASET
from .destination.preflight import require_place
from .destination.read import opened, state_of
from .destination.state import check_owner
from .errors import PermissionMissing, StripeFeedError
from .extract.events.reader import EVENTS_PATH
from .extract.paging.fetch import raw_rows
from .resources import CHANGES, RESOURCES

if TYPE_CHECKING:
    from packaging.requirements import Requirement

EVENTS = (
    CHANGES,
    EVENTS_PATH,
    "rak_event_read",
    "Core > Events",
)  # table, path, permission and its place in the Dashboard
BREAKS = {
    "adbc-driver-postgresql": "loads wrong decimals into Postgres",
    "duckdb": "breaks dlt's `.arrow()` and ducklake",
    "sqlglot": "breaks dlt's `pipeline.dataset()`",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: `fix` is empty where all is well. `exit_code` is what the command ends with
    because of it.
    """

    check: str
    ok: bool
    text: str
    fix: str = ""
    exit_code: int = 0


def examine(
    *,
    api_key: str | None = None,
    database: str | None = None,
    destination: str | None = None,
    dataset: str = DATASET,
    api_base: str | None = None,
    allow_api_base: bool = False,
    api_version: str = API_VERSION,
    give_up_after: float = 20.0,
) -> Iterator[Finding]:
    """Check dependencies, key, clock, permissions and destination, one finding each. Nothing is
    written.
    """
    broken = [finding for finding in dependencies() if not finding.ok]
    yield from broken
    if broken:
        return  # the other checks would stumble over it
    yield Finding("dependencies", True, "dlt, duckdb, sqlglot and stripe go together")
    account = None
    try:
        api = Api(
            api_key,
            base=api_base,
            version=api_version,
            allow_api_base=allow_api_base,
            give_up_after=give_up_after,
        )
    except StripeFeedError as fault:
        yield problem("key", fault)
    else:
        yield Finding("key", True, f"a {api.kind} key in {_mode(api.live)} mode")
        try:
            account = api.account()
            yield Finding("account", True, f"{account.id}{_at(api)}")
            yield clock(api.skew() if api.has_date else None)
            yield from permissions(api)
        except StripeFeedError as fault:
            yield problem("account", fault)
        finally:
            api.close()
    with settings():
        yield from place(database, destination, dataset, account)


def exit_code(findings: Iterable[Finding]) -> int:
    """0 when all is well, 5 when Stripe could not be reached, else 3."""
    return max((finding.exit_code for finding in findings), default=0)


def problem(check: str, fault: StripeFeedError) -> Finding:
    """Our errors say what is wrong and then what to do."""
    text, _, fix = str(fault).partition(". ")
    return Finding(check, False, text, fix, 5 if fault.exit_code == 5 else 3)


def dependencies() -> Iterator[Finding]:
    """Whether the installed versions are those that this version asks for."""
    from packaging.requirements import Requirement

    for line in metadata.requires("stripe-feed") or ():
        wanted = Requirement(line)
        base = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
        if not base and not _is_too_old(wanted):
            continue
        pip = f'pip install "{wanted.name}{wanted.specifier}"'
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            yield Finding(wanted.name, False, f"{wanted.name} is not installed", pip, 3)
            continue
        fits = wanted.specifier.contains(version, prereleases=True)
        why = BREAKS.get(wanted.name, "is not a version that this one works with")
        yield Finding(
            wanted.name,
            fits,
            f"{version}{'' if fits else f' {why}'}",
            "" if fits else pip,
            0 if fits else 3,
        )


def _is_too_old(wanted: Requirement) -> bool:
    """Whether a driver of an extra is installed in a version that is known to break something."""
    try:
        return wanted.name in BREAKS and not wanted.specifier.contains(
            metadata.version(wanted.name), prereleases=True
        )
    except metadata.PackageNotFoundError:
        return False


def clock(skew: float | None) -> Finding:
    """Whether this machine's clock agrees with Stripe's; it serves where Stripe's answers do not
    say.
    """
    if skew is None:
        return Finding(
            "clock",
            True,
            "Stripe's answers have no `Date` that can be used (a proxy?): this machine's clock serves",
        )
    if abs(skew) <= DOUBT:
        return Finding("clock", True, f"within {max(1, round(abs(skew)))} s of Stripe's")
    words = f"this machine's clock is {abs(skew):,.0f} s {'ahead of' if skew > 0 else 'behind'} Stripe's"
    return Finding(
        "clock",
        False,
        words,
        "Turn on time synchronisation (NTP), here or on the proxy between.",
        3,
    )


def permissions(api: Api) -> Iterator[Finding]:
    """Whether the key may read each resource, and the events that `changes` is made of."""
    lists = [(row.table, row.path, row.permission, row.label) for row in RESOURCES.values()]
    for table, path, permission, label in (*lists, EVENTS):
        try:
            api.get(path, {"limit": 1}, raw_rows)
            yield Finding(table, True, f"may be read ({permission})")
        except PermissionMissing:
            fix = f"Give the key read permission for {label} ({permission}) at {KEYS_PAGE}."
            yield Finding(table, False, f"the key may not read {path}", fix, 3)
        except StripeFeedError as fault:
            yield problem(table, fault)
            if fault.exit_code == 5:
                return


def place(
    database: str | None, destination: str | None, dataset: str, account: Account | None
) -> Iterator[Finding]:
    """Whether the destination can take a load, and of this account."""
    try:
        with tempfile.TemporaryDirectory(
            prefix="stripe-feed-"
        ) as folder:  # dlt makes a working folder
            pipeline = open_pipeline(database, destination, dataset, folder)
            check(pipeline)
            file, state = duckdb_file(pipeline), {}
            if file is None or file.exists():
                with opened(database, destination, dataset) as copy:
                    state = state_of(copy)
                with explaining(pipeline):
                    require_place(pipeline, state)
    except StripeFeedError as fault:
        yield problem("destination", fault)
        return
    where = pipeline.destination.destination_name if file is None else file.name
    if file is not None and not file.exists():
        yield Finding("destination", True, f"{where} does not exist yet; the first sync makes it")
        return
    yield Finding(
        "destination",
        True,
        f"{where} can merge" if file is None else f"{where} can be opened and written",
    )
    yield owner(account, state, dataset)


def owner(account: Account | None, state: Mapping[str, Any], dataset: str) -> Finding:
    """Whether the dataset holds the account of the key."""
    held: Any = (state["account"], state["livemode"]) if "account" in state else None
    try:
        if account is not None:
            check_owner(account, held)
    except StripeFeedError as fault:
        return problem("dataset", fault)
    return Finding(
        "dataset",
        True,
        f"{dataset} holds {held[0]} in {_mode(held[1])} mode" if held else f"{dataset} is empty",
    )


def _mode(livemode: bool) -> str:
    return "live" if livemode else "test"


def _at(api: Api) -> str:
    return "" if api.base == STRIPE_BASE else f" at {api.base}"
