"""`stripe-feed mcp`: one client on stdin and stdout, or clients of this machine over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ..destination.pipeline import resolve_place, state_root
from ..destination.place import FEED_STORE_SUFFIX, companion_path
from ..errors import SetupError, UsageError
from ..write.actions import open_actions
from .place import AgentContext


def serve_agents(
    places: Mapping[str, Any],
    triggers: str,
    allow_writes: bool,
    port: int | None,
    token: str | None,
    api_key: str | None,
    options: Mapping[str, Any],
    stopped: threading.Event,
    ready: Callable[[str, str | None], object],
) -> None:
    """Serve on stdin and stdout, or on a port if there is one (0: any free port).

    `places` are arguments of `open_pipeline`, `options` those of the client. `ready` gets the URL, and
    the file with the token if none was given. Raises `SetupError` without the extra, and `UsageError`
    for a bad token.
    """
    try:
        from ..server.auth import check_token, load_or_create_token
        from .server import make_server, make_toolbox, serve_http, serve_stdio
    except ModuleNotFoundError as fault:
        raise SetupError(
            f"{fault.name} is not installed. Run: pip install 'stripe-feed[mcp]'"
        ) from None
    copy = {name: places[name] for name in ("database", "destination", "dataset")}
    place = AgentContext(
        partial(open_actions, api_key, **copy, **options),
        **copy,
        state_dir=places["state_dir"],
        triggers=triggers,
    )
    server = make_server(make_toolbox(place, allow_writes))
    try:
        if port is None:
            serve_stdio(server)
            return
        file = None
        if token is None:
            store = companion_path(
                resolve_place(**copy), state_root(places["state_dir"]), FEED_STORE_SUFFIX
            )
            store.parent.mkdir(parents=True, exist_ok=True)
            file = store.with_suffix(".token")
            token, _ = load_or_create_token(file)
        try:
            check_token(token)
        except UsageError as fault:
            raise UsageError(f"{fault} The command takes it from STRIPE_FEED_TOKEN.") from None
        serve_http(
            server, port, token, stopped, lambda url: ready(url, file.name if file else None)
        )
    finally:
        place.close()
