"""The commands `stripe-feed serve` and `webhook …`. Data goes to stdout, messages to stderr."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..destination.place import DEFAULT_DATASET
from ..errors import PartlyDone, SetupError, UsageError
from ..wording import counted
from .command import command
from .models.commands import require_built_in_models
from .options import (
    AtOnce,
    InteractiveClientOptions,
    LocalCopyOptions,
    RequestOptions,
    Resources,
    Rps,
    Shared,
    require_all_accounts,
    split_names,
)

if TYPE_CHECKING:
    from ..server.service import Listening

webhook_app = typer.Typer(
    name="webhook",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Create and test the Stripe webhook endpoint that notifies `stripe-feed serve`.",
)
SECRET_VARIABLE = "STRIPE_WEBHOOK_SECRET"
TOKEN_VARIABLE = "STRIPE_FEED_TOKEN"
LOCAL_URL = "http://127.0.0.1:8787/stripe"


def serve(
    *,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int,
        typer.Option(
            "--port",
            metavar="N",
            min=0,
            max=65535,
            help="Port to listen on; 0 takes any free port.",
        ),
    ] = 8787,
    every: Annotated[
        str | None,
        typer.Option(
            "--every",
            metavar="TIME",
            help="Interval of syncs without a webhook; 0s turns them off. 5m by default, 1d with --all-accounts.",
        ),
    ] = None,
    all_accounts: Annotated[
        bool,
        typer.Option(
            "--all-accounts",
            help="Keep the copy of each connected account fresh; take webhooks of an endpoint for connected accounts.",
        ),
    ] = False,
    shared: Shared = False,
    at_once: AtOnce = None,
    triggers: Annotated[
        str | None,
        typer.Option(
            "--triggers",
            metavar="FILE",
            help="The file with the trigger rules; triggers.toml if it exists.",
        ),
    ] = None,
    allow_actions: Annotated[
        bool,
        typer.Option(
            "--allow-actions",
            help="Answer POST /actions/..., which changes the account; needs a key that may write.",
        ),
    ] = False,
    models: Annotated[
        bool, typer.Option("--models", help="After a load build the models that are stale.")
    ] = False,
    copy: LocalCopyOptions,
    resources: Resources = None,
    requests: RequestOptions,
) -> None:
    """Keep the copy fresh: receive Stripe's webhooks, sync, run triggers and serve changes over HTTP.

    STRIPE_WEBHOOK_SECRET holds the signing secret of the Stripe webhook endpoint (while you rotate
    it, several secrets separated by commas). Every route except /stripe and /health requires a
    token: the one in STRIPE_FEED_TOKEN, or one that is created at the first start.
    """
    if all_accounts:
        names_dataset = copy.dataset != DEFAULT_DATASET
        for_one = copy.account or (names_dataset and not shared) or triggers or allow_actions
        if for_one or models:
            raise UsageError(ONE_ACCOUNT_SERVED)
        return _serve_accounts(
            host=host,
            port=port,
            every=every or "1d",
            database=copy.database,
            destination=copy.destination,
            state_dir=copy.state_dir,
            resources=split_names(resources),
            shared=shared,
            dataset=copy.dataset if names_dataset else None,
            **({} if at_once is None else {"at_once": at_once}),
            **requests.arguments(),
        )
    require_all_accounts(at_once, shared)
    if models:
        require_built_in_models(copy)
    from ..feed.consumers import parse_duration
    from ..server.service import run_service
    from ..triggers.config import DEFAULT_FILE, read_triggers
    from ..triggers.config_watcher import ConfigWatcher
    from .trigger_output import stop_on_signals

    rules = ConfigWatcher(
        read_triggers(triggers or DEFAULT_FILE) if triggers or Path(DEFAULT_FILE).exists() else [],
        Path(triggers or DEFAULT_FILE),
    )
    secrets = read_secrets(SECRET_VARIABLE)
    with stop_on_signals() as stopped:
        run_service(
            host=host,
            port=port,
            token=os.environ.get(TOKEN_VARIABLE) or None,
            secrets=secrets,
            rules=rules,
            every=float(parse_duration(every or "5m")),
            stopped=stopped,
            ready=lambda opened: announce(opened, bool(secrets)),
            allow_actions=allow_actions,
            builds_models=models,
            places=copy.arguments(),
            account=copy.account,
            resources=split_names(resources),
            **requests.arguments(),
        )


ONE_ACCOUNT_SERVED = (
    "--all-accounts goes with neither --account (STRIPE_ACCOUNT) nor --dataset, --triggers, --models or --allow-actions: "
    "serve one account with those, or run `stripe-feed deliver --account acct_...` beside it."
)


def _serve_accounts(*, every: str, **options: Any) -> None:
    from ..feed.consumers import parse_duration
    from ..server.connected.service import serve_accounts
    from .output import echo_err
    from .trigger_output import stop_on_signals

    secrets = read_secrets(SECRET_VARIABLE)
    no_secret = "" if secrets else f" No webhooks: set {SECRET_VARIABLE}."
    with stop_on_signals() as stopped:
        serve_accounts(
            secrets=secrets,
            every=float(parse_duration(every)),
            stopped=stopped,
            ready=lambda url: echo_err(
                f"Serving {url}/stripe and /health for all connected accounts. Press Ctrl-C to stop.{no_secret}"
            ),
            **options,
        )


def mcp(
    *,
    allow_writes: Annotated[
        bool,
        typer.Option(
            "--allow-writes", help="Offer the tools that write to Stripe; without it, none is."
        ),
    ] = False,
    http: Annotated[
        int | None,
        typer.Option(
            "--http",
            metavar="PORT",
            min=0,
            max=65535,
            help="Serve HTTP on this machine's loopback address, with a token, not stdin and stdout.",
        ),
    ] = None,
    triggers: Annotated[
        str, typer.Option("--triggers", metavar="FILE", help="The rules that `explain` explains.")
    ] = "triggers.toml",
    copy: LocalCopyOptions,
    max_rps: Rps = None,
    client: InteractiveClientOptions,
) -> None:
    """Offer tools for agents (Model Context Protocol): SQL, changes and look-ups; writes if allowed.

    What cannot be undone is confirmed by a person. With --http, the token is the one of
    STRIPE_FEED_TOKEN or the one that `serve` created.
    """
    from ..agents.run import serve_agents
    from .output import echo_err
    from .trigger_output import stop_on_signals

    options = {"account": copy.account, "max_rps": max_rps, **client.for_client()}
    key = options.pop("api_key")
    with stop_on_signals() if http is not None else nullcontext(Event()) as stopped:
        serve_agents(
            copy.arguments(),
            triggers,
            allow_writes,
            http,
            os.environ.get(TOKEN_VARIABLE) or None,
            key,
            options,
            stopped,
            lambda url, secret: echo_err(
                f"Serving {url}. It requires the token in {secret or TOKEN_VARIABLE}. Press Ctrl-C to stop."
            ),
        )


def announce(opened: Listening, takes_webhooks: bool) -> None:
    """Print the address and how to log in; the link contains the token only if the token is new."""
    from .output import echo_err

    no_secret = "" if takes_webhooks else f" No webhooks: set {SECRET_VARIABLE}."
    echo_err(
        f"Serving {opened.url}, /changes, /changes/stream, /health and /metrics. Press Ctrl-C to stop.{no_secret}"
    )
    if opened.new_token is not None and opened.token_file is not None:
        file = opened.token_file.name
        echo_err(
            f"The page with its token: {opened.url}/?token={opened.new_token} (kept in {file}, not shown again)."
        )
    else:
        echo_err(
            f"The page and the changes require the token in {opened.token_file or TOKEN_VARIABLE}."
        )


def read_secrets(variable: str) -> list[str]:
    """Read comma-separated secrets from an environment variable."""
    return [part.strip() for part in os.environ.get(variable, "").split(",") if part.strip()]


@partial(command, webhook_app)
def register(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL", help="The public URL of `serve`, such as https://example.com/stripe."
        ),
    ],
    *,
    resources: Resources = None,
    connect: Annotated[
        bool,
        typer.Option(
            "--connect", help="For the events of all connected accounts: `serve --all-accounts`."
        ),
    ] = False,
    is_dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the events; create nothing.")
    ] = False,
    client: InteractiveClientOptions,
) -> None:
    """Create the webhook endpoint in Stripe and print its signing secret (shown only once)."""
    from contextlib import closing

    from ..api.client import Api
    from ..server.webhook_endpoint import events_for
    from ..server.webhook_endpoint import register as create_endpoint
    from .output import echo_err

    names = split_names(resources)
    if is_dry_run:
        sys.stdout.write("".join(f"{event}\n" for event in events_for(names)))
        echo_err(
            f"{counted(len(events_for(names)), 'event type')} would be sent to this URL. Nothing was created."
        )
        return
    with closing(Api(**client.for_client())) as api:
        endpoint = create_endpoint(api, url, names, connect=connect)
    echo_err(
        f"Created {endpoint.id} for {counted(len(endpoint.enabled_events), 'event type')}. Put its signing secret, shown only once, into {SECRET_VARIABLE}:"
    )
    sys.stdout.write(f"{endpoint.secret}\n")


@partial(command, webhook_app)
def test(
    url: Annotated[
        str,
        typer.Argument(
            metavar="[URL]", help="The webhook URL of `serve`; on this machine by default."
        ),
    ] = LOCAL_URL,
    wait: Annotated[
        float,
        typer.Option(
            "--wait", metavar="SECONDS", min=0, help="How long to wait until the server listens."
        ),
    ] = 0.0,
) -> None:
    """Send a signed test event to a webhook URL, as Stripe does. It changes nothing."""
    import time

    from ..server.webhook_endpoint import send_test_event
    from .output import echo_err

    secrets = read_secrets(SECRET_VARIABLE)
    if not secrets:
        raise SetupError(
            f"{SECRET_VARIABLE} is not set. Set it to the secret of the endpoint; for a test, any whsec_… on both sides will do."
        )
    outcome, until = send_test_event(url, secrets[0]), time.monotonic() + wait
    while outcome.code == "refused" and time.monotonic() < until:
        time.sleep(0.2)
        outcome = send_test_event(url, secrets[0])
    if not outcome.ok:
        raise PartlyDone(
            f"The test event was not accepted ({outcome.code}). {outcome.note}".rstrip()
        )
    echo_err("The test event was accepted: the signature is valid.")
