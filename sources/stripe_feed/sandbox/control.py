"""`/_sandbox/...`: the same control over HTTP, for a sandbox in a process of its own. Loopback
only, no key.
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
from .state.kinds import KINDS, PARENTS

Given = dict[str, Any]


def answer_control(sandbox: Simulation, request: Request) -> Answer:
    path = request.target.partition("?")[0].removeprefix("/_sandbox/")
    try:
        if request.method == "GET" and path.startswith("deleted/"):
            return Answer(
                200, msgspec.json.encode(sandbox.deleted(path.removeprefix("deleted/"))), {}
            )
        if request.method == "GET" and path.startswith("truth/"):
            return Answer(200, _truth(sandbox, path.removeprefix("truth/")), {})
        call = CALLS.get((request.method, path))
        if call is None:
            return Answer(404, _error(f"no such control: {request.method} /_sandbox/{path}"), {})
        given = msgspec.json.decode(request.body or b"{}", type=Given)
        with sandbox.account.lock:
            return Answer(200, msgspec.json.encode(call(sandbox, given)), {})
    except (KeyError, TypeError, ValueError) as error:
        return Answer(400, _error(f"{type(error).__name__}: {error}"), {})


def _error(message: str) -> bytes:
    return msgspec.json.encode({"error": {"message": message, "type": "sandbox_error"}})


def _truth(sandbox: Simulation, table: str) -> bytes:
    """All objects of a table by id, joined from their bytes."""
    if table not in KINDS and table not in PARENTS:
        raise ValueError(f"no such table: {table}")

    def pairs() -> Iterator[bytes]:
        for id, raw in sandbox.account.objects(table):
            yield msgspec.json.encode(id) + b":" + raw

    with sandbox.account.lock:
        return b"{" + b",".join(pairs()) + b"}"


def _set_faults(sandbox: Simulation, given: Given) -> Given:
    """Change what is named, leave the rest."""
    known = {field.name for field in fields(Faults)} - {"clock"}
    if strange := sorted(set(given) - known):
        raise ValueError(
            f"no such fault: {', '.join(strange)}; there are {', '.join(sorted(known))}"
        )
    for name, value in given.items():
        setattr(sandbox.faults, name, value)
    return {name: value for name, value in asdict(sandbox.faults).items() if name in known}


def _live(sandbox: Simulation, given: Given) -> Any:
    return sandbox.live(given["seconds"], given.get("changes", 50))


def _advance(sandbox: Simulation, given: Given) -> Given:
    sandbox.advance(given["seconds"])
    return {"now": sandbox.now}


def _create(sandbox: Simulation, given: Given) -> Any:
    return sandbox.create(given.pop("table"), **given)


def _update(sandbox: Simulation, given: Given) -> Any:
    return sandbox.update(given.pop("table"), given.pop("id"), **given)


def _delete(sandbox: Simulation, given: Given) -> Any:
    return sandbox.delete(given["table"], given["id"])


def _put(sandbox: Simulation, given: Given) -> Any:
    return sandbox.put(given["table"], given["object"])


def _cancel(sandbox: Simulation, given: Given) -> Any:
    return sandbox.cancel(given["id"])


def _burst(sandbox: Simulation, given: Given) -> Any:
    return sandbox.burst(given["count"], given.get("seconds", 1))


def _preview(sandbox: Simulation, given: Given) -> Any:
    return sandbox.preview(given["id"])


def _noise(sandbox: Simulation, given: Given) -> Given:
    sandbox.noise(given["count"])
    return {}


def _settings(sandbox: Simulation, given: Given) -> Given:
    """Change what is named of the account's `api_version` and `stub_deletes`."""
    if strange := sorted(set(given) - {"api_version", "stub_deletes"}):
        raise ValueError(f"no such setting: {', '.join(strange)}")
    for name, value in given.items():
        setattr(sandbox, name, value)
    return {"api_version": sandbox.api_version, "stub_deletes": sandbox.stub_deletes}


def _events(sandbox: Simulation, given: Given) -> Any:
    """All events ever, in the order in which they happened."""
    return [event._asdict() | {"body": msgspec.Raw(event.body)} for event in sandbox.events]


def _restrict(sandbox: Simulation, given: Given) -> Given:
    return {"key": sandbox.restrict(given.get("key"), given.get("permissions", ()))}


def _expire(sandbox: Simulation, given: Given) -> Given:
    sandbox.expire(given["key"])
    return {}


def _stats(sandbox: Simulation, given: Given) -> Given:
    counts = [
        {"template": template, "status": status, "count": n}
        for (template, status), n in sandbox.counts.items()
    ]
    return {
        "counts": counts,
        "cpu_seconds": sandbox.cpu_seconds,
        "requests": sum(sandbox.counts.values()),
    }


def _account(sandbox: Simulation, given: Given) -> Given:
    return {
        "id": sandbox.account_id,
        "key": sandbox.key,
        "now": sandbox.now,
        "pid": os.getpid(),
        "start": sandbox.account.start,
    }


def _resend(sandbox: Simulation, given: Given) -> Given:
    return {"resent": sandbox.resend()}


def _webhooks(sandbox: Simulation, given: Given) -> Given:
    """How many webhooks are due, and which have failed, why."""
    named = (
        {"event": event, "url": url, "why": why} for event, url, why in sandbox.failed_webhooks
    )
    return {"due": sandbox.account.webhooks.sender.outstanding, "failed": list(named)}


def _reset_counts(sandbox: Simulation, given: Given) -> Given:
    sandbox.reset_counts()
    return {}


def _oddities(sandbox: Simulation, given: Given) -> Given:
    return dict(sandbox.oddities())


CALLS: dict[tuple[str, str], Callable[[Simulation, Given], Any]] = {
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
    ("GET", "stats"): _stats,
    ("GET", "account"): _account,
    ("GET", "oddities"): _oddities,
    ("GET", "events"): _events,
    ("GET", "webhooks"): _webhooks,
}
