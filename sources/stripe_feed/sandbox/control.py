"""`/_sandbox/...`: control a sandbox over HTTP if it runs in another process. Loopback only,
without a key.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, fields
from typing import Any

import msgspec

from .protocol.faults import Faults
from .protocol.messages import Answer, Request
from .simulation import Simulation
from .state.event_log import Event
from .state.kinds import KINDS, PARENTS

Arguments = dict[str, Any]
SETTINGS_OF_AN_ACCOUNT = ("api_version", "stub_deletes", "silent_changes")


def answer_control(sandbox: Simulation, request: Request) -> Answer:
    path = request.target.partition("?")[0].removeprefix("/_sandbox/")
    try:
        if request.method == "GET" and path.startswith("deleted/"):
            return Answer(
                200, msgspec.json.encode(sandbox.deleted(path.removeprefix("deleted/"))), {}
            )
        if request.method == "GET" and path.startswith("truth/"):
            account = request.target.partition("?account=")[2]
            return Answer(200, _truth(_acting(sandbox, account), path.removeprefix("truth/")), {})
        call = CALLS.get((request.method, path))
        if call is None:
            return Answer(404, _error(f"unknown control: {request.method} /_sandbox/{path}"), {})
        arguments = msgspec.json.decode(request.body or b"{}", type=Arguments)
        sandbox = _acting(sandbox, arguments.pop("account", ""))
        with sandbox.account.lock:
            return Answer(200, msgspec.json.encode(call(sandbox, arguments)), {})
    except (KeyError, TypeError, ValueError) as error:
        return Answer(400, _error(f"{type(error).__name__}: {error}"), {})


def _acting(sandbox: Simulation, account: str) -> Simulation:
    """The account that a control is about: the given one if it is connected."""
    if account and account not in sandbox.connected:
        raise ValueError(f"no such connected account: {account}")
    return sandbox.connected[account] if account else sandbox


def _error(message: str) -> bytes:
    return msgspec.json.encode({"error": {"message": message, "type": "sandbox_error"}})


def _truth(sandbox: Simulation, table: str) -> bytes:
    """All objects of a table by id, joined from their stored bytes."""
    if table not in KINDS and table not in PARENTS:
        raise ValueError(f"no such table: {table}")

    def pairs() -> Iterator[bytes]:
        for id, raw in sandbox.account.objects(table):
            yield msgspec.json.encode(id) + b":" + raw

    with sandbox.account.lock:
        return b"{" + b",".join(pairs()) + b"}"


def _set_faults(sandbox: Simulation, arguments: Arguments) -> Arguments:
    """Change the named faults and leave the others."""
    known = {field.name for field in fields(Faults)} - {"clock"}
    if strange := sorted(set(arguments) - known):
        raise ValueError(
            f"unknown faults: {', '.join(strange)}; known are {', '.join(sorted(known))}"
        )
    for name, value in arguments.items():
        setattr(sandbox.faults, name, value)
    return {name: value for name, value in asdict(sandbox.faults).items() if name in known}


def _live(sandbox: Simulation, arguments: Arguments) -> Any:
    return sandbox.live(arguments["seconds"], arguments.get("changes", 50))


def _advance(sandbox: Simulation, arguments: Arguments) -> Arguments:
    sandbox.advance(arguments["seconds"])
    return {"now": sandbox.now}


def _create(sandbox: Simulation, arguments: Arguments) -> Any:
    return sandbox.create(arguments.pop("table"), **arguments)


def _update(sandbox: Simulation, arguments: Arguments) -> Any:
    return sandbox.update(arguments.pop("table"), arguments.pop("id"), **arguments)


def _delete(sandbox: Simulation, arguments: Arguments) -> Any:
    return sandbox.delete(arguments["table"], arguments["id"])


def _put(sandbox: Simulation, arguments: Arguments) -> Any:
    return sandbox.put(arguments["table"], arguments["object"])


def _cancel(sandbox: Simulation, arguments: Arguments) -> Any:
    return sandbox.cancel(arguments["id"])


def _burst(sandbox: Simulation, arguments: Arguments) -> Any:
    return sandbox.burst(arguments["count"], arguments.get("seconds", 1))


def _preview(sandbox: Simulation, arguments: Arguments) -> Any:
    return sandbox.preview(arguments["id"])


def _noise(sandbox: Simulation, arguments: Arguments) -> Arguments:
    sandbox.noise(arguments["count"])
    return {}


def _settings(sandbox: Simulation, arguments: Arguments) -> Arguments:
    """Change the named settings: `api_version`, `stub_deletes`, `silent_changes`."""
    if strange := sorted(set(arguments) - set(SETTINGS_OF_AN_ACCOUNT)):
        raise ValueError(f"unknown settings: {', '.join(strange)}")
    for name, value in arguments.items():
        setattr(sandbox, name, value)
    return {name: getattr(sandbox, name) for name in SETTINGS_OF_AN_ACCOUNT}


def _events(sandbox: Simulation, arguments: Arguments) -> Any:
    """All events ever recorded, in the order in which they happened."""
    return [_event(event) for event in sandbox.events]


def _event(event: Event) -> Arguments:
    return {
        "twin_of" if name == "duplicate_of" else name: value
        for name, value in event._asdict().items()
    } | {"body": msgspec.Raw(event.body)}


def _restrict(sandbox: Simulation, arguments: Arguments) -> Arguments:
    return {"key": sandbox.restrict(arguments.get("key"), arguments.get("permissions", ()))}


def _expire(sandbox: Simulation, arguments: Arguments) -> Arguments:
    sandbox.expire(arguments["key"])
    return {}


def _stats(sandbox: Simulation, arguments: Arguments) -> Arguments:
    counts = [
        {"template": template, "status": status, "count": n}
        for (template, status), n in sandbox.counts.items()
    ]
    return {
        "counts": counts,
        "cpu_seconds": sandbox.cpu_seconds,
        "requests": sum(sandbox.counts.values()),
    }


def _account(sandbox: Simulation, arguments: Arguments) -> Arguments:
    return {
        "id": sandbox.account_id,
        "key": sandbox.key,
        "now": sandbox.now,
        "pid": os.getpid(),
        "start": sandbox.account.start,
    }


def _announce(sandbox: Simulation, arguments: Arguments) -> Arguments:
    sandbox.announce(arguments["table"], arguments["id"], arguments["type"])
    return {}


def _connect(sandbox: Simulation, arguments: Arguments) -> Arguments:
    made = sandbox.connect(**arguments)
    return {"id": made.account_id, "key": made.key}


def _revoke(sandbox: Simulation, arguments: Arguments) -> Arguments:
    sandbox.revoke(arguments["id"])
    return {}


def _resend(sandbox: Simulation, arguments: Arguments) -> Arguments:
    return {"resent": sandbox.resend()}


def _webhooks(sandbox: Simulation, arguments: Arguments) -> Arguments:
    """How many webhooks are still due, and which failed and why."""
    named = (
        {"event": event, "url": url, "why": why} for event, url, why in sandbox.failed_webhooks
    )
    return {"due": sandbox.account.webhooks.sender.outstanding, "failed": list(named)}


def _reset_counts(sandbox: Simulation, arguments: Arguments) -> Arguments:
    sandbox.reset_counts()
    return {}


def _oddities(sandbox: Simulation, arguments: Arguments) -> Arguments:
    return dict(sandbox.oddities())


CALLS: dict[tuple[str, str], Callable[[Simulation, Arguments], Any]] = {
    ("POST", "faults"): _set_faults,
    ("POST", "live"): _live,
    ("POST", "advance"): _advance,
    ("POST", "create"): _create,
    ("POST", "update"): _update,
    ("POST", "delete"): _delete,
    ("POST", "cancel"): _cancel,
    ("POST", "put"): _put,
    ("POST", "burst"): _burst,
    ("POST", "preview"): _preview,
    ("POST", "noise"): _noise,
    ("POST", "settings"): _settings,
    ("POST", "restrict"): _restrict,
    ("POST", "expire"): _expire,
    ("POST", "reset_counts"): _reset_counts,
    ("POST", "resend"): _resend,
    ("POST", "announce"): _announce,
    ("POST", "connect"): _connect,
    ("POST", "revoke"): _revoke,
    ("GET", "stats"): _stats,
    ("GET", "account"): _account,
    ("GET", "oddities"): _oddities,
    ("GET", "events"): _events,
    ("GET", "webhooks"): _webhooks,
}
