"""Check the setup and name a fix for each problem; cheap checks run first."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from .api.account import Account
from .api.client import API_VERSION, Api
from .api.credentials import KEYS_PAGE, STRIPE_BASE, key_form
from .api.stripe_time import CLOCK_TOLERANCE
from .destination.duckdb_file import duckdb_path
from .destination.load import translate_errors
from .destination.pipeline import check_destination, dlt_settings, open_pipeline
from .destination.place import DEFAULT_DATASET
from .destination.preflight import require_usable_dataset
from .destination.read import open_reader, read_state
from .destination.state import check_owner
from .errors import NotSetUp, PermissionMissing, StripeFeedError
from .extract.events.reader import EVENTS_PATH
from .extract.options import resource_names
from .extract.paging.fetch import decode_raw_rows, sublist_query
from .resources import CHANGES, RESOURCES
from .resources.groups import DEFAULT_GROUP, GROUPS
from .resources.model import Resource

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
    """The result of one check. `fix` is empty if the check passed; `exit_code` is the exit code that
    it demands.
    """

    check: str
    ok: bool
    text: str
    fix: str = ""
    exit_code: int = 0


def examine(
    *,
    api_key: str | None = None,
    account: str | None = None,
    database: str | None = None,
    destination: str | None = None,
    dataset: str = DEFAULT_DATASET,
    api_base: str | None = None,
    allow_api_base: bool = False,
    api_version: str = API_VERSION,
    give_up_after: float = 20.0,
    resources: Sequence[str] | None = None,
) -> Iterator[Finding]:
    """Check the dependencies, key, clock, permissions and destination; yield one finding per check.
    Writes nothing.

    `resources`: the resources and groups to read, by default the group `core`. `account`: a connected
    account that is read in place of the key's. Raises `UsageError`
    for unknown names.
    """
    names = resource_names(resources)
    broken = [finding for finding in dependencies() if not finding.ok]
    yield from broken
    if broken:
        return  # the other checks need the dependencies
    yield Finding("dependencies", True, "dlt, duckdb, sqlglot and stripe are compatible")
    found = None
    try:
        api = Api(
            api_key,
            account=account,
            base=api_base,
            version=api_version,
            allow_api_base=allow_api_base,
            give_up_after=give_up_after,
        )
    except StripeFeedError as error:
        yield problem("key", error)
    else:
        yield Finding("key", True, f"a {api.key_kind} key in {_mode(api.live)} mode")
        try:
            found = api.account()
            yield Finding("account", True, f"{found.id}{_at(api)}")
            yield clock(api.skew() if api.has_date else None)
            yield from permissions(api, names)
        except StripeFeedError as error:
            yield problem("account", error)
        finally:
            api.close()
    with dlt_settings():
        yield from _check_destination(database, destination, dataset, found)


def exit_code(findings: Iterable[Finding]) -> int:
    """The exit code: 0 if every check passed, 5 if Stripe was unreachable, else 3."""
    return max((finding.exit_code for finding in findings), default=0)


def problem(check: str, error: StripeFeedError) -> Finding:
    """Make a finding of an error: its first sentence is the problem, the rest is the fix."""
    text, _, fix = str(error).partition(". ")
    return Finding(check, False, text, fix, 5 if error.exit_code == 5 else 3)


def dependencies() -> Iterator[Finding]:
    """Check whether the installed packages have the required versions."""
    from packaging.requirements import Requirement

    required = [Requirement(line) for line in metadata.requires("stripe-feed") or ()]
    base = [one for one in required if one.marker is None or one.marker.evaluate({"extra": ""})]
    base_names = {one.name for one in base}
    # An extra can bound a package of the base more narrowly: that is for what the extra brings.
    extra = [one for one in required if one.name not in base_names]
    for requirement in base + extra:
        is_base = requirement.name in base_names
        pip = f'pip install "{requirement.name}{requirement.specifier}"'
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            if is_base:
                text = f"{requirement.name} is not installed"
                yield Finding(requirement.name, False, text, pip, 3)
            continue
        fits = requirement.specifier.contains(version, prereleases=True)
        if not is_base and (fits or requirement.name not in BREAKS):
            continue  # of an extra's packages, only one that is known to break something counts
        why = BREAKS.get(requirement.name, "is not a compatible version")
        yield Finding(
            requirement.name,
            fits,
            f"{version}{'' if fits else f' {why}'}",
            "" if fits else pip,
            0 if fits else 3,
        )


def clock(skew: float | None) -> Finding:
    """Check whether this machine's clock agrees with Stripe's; without Stripe's time, it is used as it
    is.
    """
    if skew is None:
        return Finding(
            "clock",
            True,
            "Stripe's answers have no usable `Date` header (a proxy?); this machine's clock is used",
        )
    if abs(skew) <= CLOCK_TOLERANCE:
        return Finding("clock", True, f"within {max(1, round(abs(skew)))} s of Stripe's")
    text = f"this machine's clock is {abs(skew):,.0f} s {'ahead of' if skew > 0 else 'behind'} Stripe's"
    return Finding(
        "clock",
        False,
        text,
        "Turn on time synchronisation (NTP) here, or on the proxy in between.",
        3,
    )


def permissions(api: Api, names: Sequence[str]) -> Iterator[Finding]:
    """Check whether the key may read each of these resources, and the events for `changes`; with a
    form for a new key if it may not. A product that the account does not use is no problem.
    """
    rows = [RESOURCES[name] for name in names]
    needed = dict.fromkeys((*(row.permission for row in rows), EVENTS[2]))
    guessed = {row.table for row in rows if row.permission_guessed}
    missing: dict[str, None] = {}
    for table, path, permission, label in (*map(_list_to_try, rows), EVENTS):
        try:
            tried, params = _first_list(api, table, path)
            if tried:
                api.get(tried, {"limit": 1, **params}, decode_raw_rows)
            doubt = "" if tried else ", as far as can be told: there is no list to try it with"
            yield Finding(table, True, f"may be read ({permission}){doubt}")
        except PermissionMissing:
            doubt = "probably " if table in guessed else ""
            fix = f"Give the key read permission for {label} ({doubt}{permission}) at {KEYS_PAGE}."
            yield Finding(table, False, f"the key may not read {path}", fix, 3)
            missing[permission] = None
        except NotSetUp as error:
            if table in GROUPS[DEFAULT_GROUP]:
                yield problem(table, error)
            else:
                reason = str(error).partition(". ")[0]
                yield Finding(table, True, f"is left out: {reason}")
        except StripeFeedError as error:
            yield problem(table, error)
            if error.exit_code == 5:
                return
    if missing:
        text = f"the key lacks {', '.join(missing)}"
        yield Finding("permissions", False, text, f"Or make a new key: {key_form(needed)}", 3)


def _list_to_try(row: Resource) -> tuple[str, str, str, str]:
    """The list that needs the permission of a resource: its own, or of objects without an endpoint
    that of what is embedded in them.
    """
    path = row.path or RESOURCES[row.embedded_tables[0]].path
    return row.table, path, row.permission, row.label


def _first_list(api: Api, table: str, path: str) -> tuple[str, dict[str, Any]]:
    """Return path and parameters of a list of a resource: of one with a list per parent, that of the
    newest parent; "" if there is none, or it cannot be read, which its own line says.
    """
    parent = RESOURCES[table].parent if table in RESOURCES else None
    if parent is None:
        return path, {}
    try:
        found, _ = api.get(RESOURCES[parent.table].path, {"limit": 1}, decode_raw_rows).value
    except (PermissionMissing, NotSetUp):
        return "", {}
    return sublist_query(path, parent.params, found[0][0]) if found else ("", {})


def _check_destination(
    database: str | None, destination: str | None, dataset: str, account: Account | None
) -> Iterator[Finding]:
    """Check whether the destination can be loaded, and holds no other account."""
    try:
        with tempfile.TemporaryDirectory(
            prefix="stripe-feed-"
        ) as folder:  # dlt makes a working folder
            pipeline = open_pipeline(database, destination, dataset, folder)
            check_destination(pipeline)
            file, state = duckdb_path(pipeline), {}
            if file is None or file.exists():
                with open_reader(database, destination, dataset) as copy:
                    state = read_state(copy)
                with translate_errors(pipeline):
                    require_usable_dataset(pipeline, state)
    except StripeFeedError as error:
        yield problem("destination", error)
        return
    label = pipeline.destination.destination_name if file is None else file.name
    if file is not None and not file.exists():
        yield Finding("destination", True, f"{label} does not exist yet; the first sync creates it")
        return
    yield Finding(
        "destination",
        True,
        f"{label} can merge" if file is None else f"{label} can be opened and written",
    )
    yield owner(account, state, dataset)


def owner(account: Account | None, state: Mapping[str, Any], dataset: str) -> Finding:
    """Check whether the dataset holds the account of the key."""
    stored: Any = (state["account"], state["livemode"]) if "account" in state else None
    try:
        if account is not None:
            check_owner(account, stored)
    except StripeFeedError as error:
        return problem("dataset", error)
    return Finding(
        "dataset",
        True,
        f"{dataset} holds {stored[0]} in {_mode(stored[1])} mode"
        if stored
        else f"{dataset} is empty",
    )


def _mode(livemode: bool) -> str:
    return "live" if livemode else "test"


def _at(api: Api) -> str:
    return "" if api.base == STRIPE_BASE else f" at {api.base}"
