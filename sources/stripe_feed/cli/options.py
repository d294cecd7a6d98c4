"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer

from ..errors import UsageError

ConnectedAccount = Annotated[
    str | None,
    typer.Option(
        "--account",
        metavar="ID",
        envvar="STRIPE_ACCOUNT",
        show_envvar=False,
        help="An account connected to the key's, read in its place; or STRIPE_ACCOUNT.",
    ),
]


@dataclass(frozen=True, slots=True)
class CopyOptions:
    """Which copy a command reads or writes. A connected account has a file and a dataset of its own by
    default.
    """

    database: Annotated[
        str | None,
        typer.Option(
            "--database", metavar="FILE", help="DuckDB file; stripe_feed.duckdb by default."
        ),
    ] = None
    destination: Annotated[
        str | None,
        typer.Option(
            "--destination", metavar="NAME", help="Another dlt destination, such as postgres."
        ),
    ] = None
    dataset: Annotated[
        str,
        typer.Option(
            "--dataset", metavar="NAME", help="Schema that holds the tables; stripe by default."
        ),
    ] = None  # type: ignore[assignment]  # `__post_init__` sets it
    account: ConnectedAccount = None

    def __post_init__(self) -> None:
        from ..destination.pipeline import copy_names

        database, dataset = copy_names(self.account, self.database, self.destination, self.dataset)
        object.__setattr__(self, "database", database)
        object.__setattr__(self, "dataset", dataset)

    def arguments(self) -> dict[str, Any]:
        """The arguments that name the copy; the account goes to the client."""
        arguments = asdict(self)
        del arguments["account"]
        return arguments


StateDir = Annotated[
    str | None,
    typer.Option(
        "--state-dir",
        metavar="DIR",
        help="dlt's working files, in a folder per destination and dataset; below ~/.dlt/pipelines by default.",
    ),
]


@dataclass(frozen=True, slots=True)
class LocalCopyOptions(CopyOptions):
    """Which copy, and where its files on this machine are."""

    state_dir: StateDir = None


def require_all_accounts(at_once: int | None, shared: bool) -> None:
    """Raise `UsageError` for options of all accounts, where there is one."""
    if shared:
        raise UsageError("--shared is the dataset of all accounts: it goes with --all-accounts.")
    if at_once is not None:
        raise UsageError("--at-once is the number of accounts: it goes with --all-accounts.")


Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]
KeyFile = Annotated[
    str | None,
    typer.Option(
        "--api-key-file",
        metavar="FILE",
        help="File with the API key, - for stdin; by default the key comes from dlt's secrets or STRIPE_SECRET_KEY.",
    ),
]
Profile = Annotated[
    str | None,
    typer.Option(
        "--profile",
        metavar="NAME",
        envvar="STRIPE_FEED_PROFILE",
        show_envvar=False,
        help="Use the API key of this name: api_key under [sources.stripe_feed.NAME] in dlt's secrets; or STRIPE_FEED_PROFILE.",
    ),
]
AllowBase = Annotated[
    bool,
    typer.Option(
        "--allow-api-base",
        help="Allow a live key to be sent to a STRIPE_API_BASE that is not Stripe's.",
    ),
]
Version = Annotated[
    str | None,
    typer.Option(
        "--api-version", metavar="VERSION", help="Use this API version, not the pinned one."
    ),
]
RequestTimeout = Annotated[
    float,
    typer.Option("--give-up-after", metavar="SECONDS", help="How long to retry one request."),
]
Resources = Annotated[
    list[str] | None,
    typer.Option(
        metavar="A,B", help="These resources or groups, by default core; may be repeated."
    ),
]
Shared = Annotated[
    bool,
    typer.Option(
        "--shared",
        help="With --all-accounts, one dataset for all, keyed by account_id and id.",
    ),
]
AtOnce = Annotated[
    int | None,
    typer.Option(
        "--at-once",
        metavar="N",
        min=1,
        help="With --all-accounts, sync N at a time; 4 by default, 8 with --shared.",
    ),
]
Wait = Annotated[
    float,
    typer.Option(
        "--wait",
        metavar="SECONDS",
        min=0,
        help="How long to wait while another process writes to the copy or has its file open.",
    ),
]
Rps = Annotated[
    float | None,
    typer.Option("--max-rps", metavar="N", min=0.1, help="Maximum requests per second."),
]


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How a command makes requests to Stripe."""

    give_up_after: RequestTimeout = 120.0
    allow_api_base: AllowBase = False
    api_version: Version = None
    api_key_file: KeyFile = None
    profile: Profile = None

    def arguments(self) -> dict[str, Any]:
        """The arguments that these options stand for, with the key that the file holds."""
        from ..api.client import API_VERSION

        arguments = asdict(self)
        arguments["api_key"] = find_named_key(
            arguments.pop("api_key_file"), arguments.pop("profile")
        )
        arguments["api_version"] = self.api_version or API_VERSION
        return arguments

    def for_client(self) -> dict[str, Any]:
        """The same arguments, as the client names them."""
        arguments = self.arguments()
        return {"version": arguments.pop("api_version"), **arguments}


@dataclass(frozen=True, slots=True)
class InteractiveClientOptions(ClientOptions):
    """How a command makes few requests to Stripe, while somebody waits."""

    give_up_after: RequestTimeout = 60.0


@dataclass(frozen=True, slots=True)
class RequestOptions(ClientOptions):
    """How a command makes many requests to Stripe."""

    max_rps: Rps = None
    endpoint_rps: Annotated[
        float | None,
        typer.Option(
            "--endpoint-rps",
            metavar="N",
            min=0.1,
            help="Maximum requests per second per endpoint.",
        ),
    ] = None


def find_named_key(file: str | None, profile: str | None) -> str | None:
    """The API key in the file of `--api-key-file`, or of `--profile`; None without these options."""
    from ..api.credentials import key_of_profile, read_key

    if file is not None:
        return read_key(file)
    return None if profile is None else key_of_profile(profile)


def split_names(given: Iterable[str] | None, option: str = "--resources") -> list[str] | None:
    """Split `a,b` and repeated options into one list of unique names; None if nothing was given.

    Raises `UsageError` for a list without a name.
    """
    if not given:
        return None
    names = dict.fromkeys(
        name.strip() for part in given for name in part.split(",") if name.strip()
    )
    if not names:
        raise UsageError(f"{option} names nothing. Give it like a,b, or leave it out.")
    return list(names)
