"""`stripe-feed serve` and `webhook …`: HTTP in and out. stdout is data, stderr is talk."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import PartlyDone, SetupError
from .command import command
from .options import (
    AllowBase,
    Database,
    Dataset,
    Destination,
    EndpointRps,
    GiveUp,
    KeyFile,
    Resources,
    Rps,
    StateDir,
    Version,
    key_in,
    listed,
)

if TYPE_CHECKING:
    from ..server.service import Opened

webhook_app = typer.Typer(
    name="webhook",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="The webhook endpoint at Stripe that tells `stripe-feed serve` of changes.",
)
SECRET = "STRIPE_WEBHOOK_SECRET"
TOKEN = "STRIPE_FEED_TOKEN"
HERE = "http://127.0.0.1:8787/stripe"


def serve(
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Where to listen.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="N", min=0, max=65535, help="0 is any that is free.")
    ] = 8787,
    every: Annotated[
        str,
        typer.Option(
            "--every", metavar="TIME", help="Sync so often without a webhook, such as 5m; 0s never."
        ),
    ] = "5m",
    triggers: Annotated[
        str | None,
        typer.Option("--triggers", metavar="FILE", help="Rules; triggers.toml where there is one."),
    ] = None,
    database: Database = None,
    destination: Destination = None,
    dataset: Dataset = "stripe",
    state_dir: StateDir = None,
    resources: Resources = None,
    max_rps: Rps = None,
    endpoint_rps: EndpointRps = None,
    allow_api_base: AllowBase = False,
    api_version: Version = None,
    api_key_file: KeyFile = None,
    give_up_after: GiveUp = 120.0,
) -> None:
    """Keep the copy fresh: Stripe's webhooks in, syncs, triggers, and the changes out over HTTP.

    STRIPE_WEBHOOK_SECRET holds the secret of the endpoint at Stripe (several while one is replaced:
    separated by commas). Every route but /stripe and /health asks for a token: that of
    STRIPE_FEED_TOKEN, or one that is made at the first start.
    """
    from ..api.client import API_VERSION
    from ..feed.consumers import age
    from ..server.service import keep_fresh
    from ..triggers.config import FILE, read_triggers
    from ..triggers.config_watcher import Watched
    from .trigger_output import stopping

    rules = Watched(
        read_triggers(triggers or FILE) if triggers or Path(FILE).exists() else [],
        Path(triggers or FILE),
    )
    secrets = secrets_in(SECRET)
    with stopping() as stopped:
        keep_fresh(
            host=host,
            port=port,
            token=os.environ.get(TOKEN) or None,
            secrets=secrets,
            rules=rules,
            every=float(age(every)),
            stopped=stopped,
            ready=lambda opened: tell_opened(opened, bool(secrets)),
            places={
                "database": database,
                "destination": destination,
                "dataset": dataset,
                "state_dir": state_dir,
            },
            api_key=key_in(api_key_file),
            resources=listed(resources),
            max_rps=max_rps,
            endpoint_rps=endpoint_rps,
            allow_api_base=allow_api_base,
            api_version=api_version or API_VERSION,
            give_up_after=give_up_after,
        )


def tell_opened(opened: Opened, takes_webhooks: bool) -> None:
    """Say where it is served, and how to get in; the link with the token only when the token is
    new.
    """
    from .output import say

    no_secret = "" if takes_webhooks else f" No webhooks: set {SECRET}."
    say(
        f"Serving {opened.url}, /changes, /changes/stream, /health and /metrics. Ctrl-C ends it.{no_secret}"
    )
    if opened.new_token is not None and opened.token_file is not None:
        file = opened.token_file.name
        say(
            f"The page, with its token: {opened.url}/?token={opened.new_token} (kept in {file}, not shown again)."
        )
    else:
        say(f"The page and the changes ask for the token in {opened.token_file or TOKEN}.")


def secrets_in(variable: str) -> list[str]:
    """The secrets in an environment variable, separated by commas."""
    return [one.strip() for one in os.environ.get(variable, "").split(",") if one.strip()]


@partial(command, webhook_app)
def register(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL", help="Where Stripe reaches `serve`, such as https://example.com/stripe."
        ),
    ],
    resources: Resources = None,
    is_dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be made; make nothing.")
    ] = False,
    allow_api_base: AllowBase = False,
    api_version: Version = None,
    api_key_file: KeyFile = None,
    give_up_after: GiveUp = 60.0,
) -> None:
    """Make the endpoint at Stripe, for exactly the events that the copy is kept by, and show its
    secret, this once.
    """
    from contextlib import closing

    from ..api.client import API_VERSION, Api
    from ..server.webhook_endpoint import events_for
    from ..server.webhook_endpoint import register as make
    from .output import say

    names = listed(resources)
    if is_dry_run:
        sys.stdout.write("".join(f"{event}\n" for event in events_for(names)))
        say(f"{len(events_for(names))} events would be sent to this URL; nothing was made.")
        return
    key = key_in(api_key_file)
    with closing(
        Api(
            key,
            allow_api_base=allow_api_base,
            version=api_version or API_VERSION,
            give_up_after=give_up_after,
        )
    ) as api:
        made = make(api, url, names)
    say(
        f"{made.id} sends {len(made.enabled_events)} kinds of events. Its secret, shown this once, goes into {SECRET}:"
    )
    sys.stdout.write(f"{made.secret}\n")


@partial(command, webhook_app)
def test(
    url: Annotated[
        str, typer.Argument(metavar="[URL]", help="Of `serve`; one on this machine by default.")
    ] = HERE,
    wait: Annotated[
        float,
        typer.Option("--wait", metavar="SECONDS", min=0, help="While nobody listens there yet."),
    ] = 0.0,
) -> None:
    """Send a signed sample to a webhook URL, as Stripe would; nothing changes by it."""
    import time

    from ..server.webhook_endpoint import ring
    from .output import say

    secrets = secrets_in(SECRET)
    if not secrets:
        raise SetupError(
            f"{SECRET} is not set. Put the secret of the endpoint there, or any whsec_… on both sides for a test."
        )
    outcome, until = ring(url, secrets[0]), time.monotonic() + wait
    while outcome.code == "refused" and time.monotonic() < until:
        time.sleep(0.2)
        outcome = ring(url, secrets[0])
    if not outcome.ok:
        raise PartlyDone(f"The sample was not taken ({outcome.code}). {outcome.note}".rstrip())
    say("The sample was taken: the signature is right.")
