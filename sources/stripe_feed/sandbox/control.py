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


def answer(box: Simulation, request: Request) -> Answer:
    path = request.target.partition("?")[0].removeprefix("/_sandbox/")
    try:
        if request.method == "GET" and path.startswith("deleted/"):
            return Answer(200, msgspec.json.encode(box.deleted(path.removeprefix("deleted/"))), {})
        if request.method == "GET" and path.startswith("truth/"):
            return Answer(200, truth(box, path.removeprefix("truth/")), {})
        call = CALLS.get((request.method, path))
        if call is None:
            return Answer(404, _error(f"no such control: {request.method} /_sandbox/{path}"), {})
        given = msgspec.json.decode(request.body or b"{}", type=Given)
        with box.account.lock:
            return Answer(200, msgspec.json.encode(call(box, given)), {})
    except (KeyError, TypeError, ValueError) as error:
        return Answer(400, _error(f"{type(error).__name__}: {error}"), {})


def _error(message: str) -> bytes:
    return msgspec.json.encode({"error": {"message": message, "type": "sandbox_error"}})


def truth(box: Simulation, table: str) -> bytes:
    """All objects of a table by id, joined from their bytes."""
    if table not in KINDS and table not in PARENTS:
        raise ValueError(f"no such table: {table}")

    def pairs() -> Iterator[bytes]:
        for id, raw in box.account.objects(table):
            yield msgspec.json.encode(id) + b":" + raw

    with box.account.lock:
        return b"{" + b",".join(pairs()) + b"}"


def set_faults(box: Simulation, given: Given) -> Given:
    """Change what is named, leave the rest."""
    known = {field.name for field in fields(Faults)} - {"clock"}
    if strange := sorted(set(given) - known):
        raise ValueError(
            f"no such fault: {', '.join(strange)}; there are {', '.join(sorted(known))}"
        )
    for name, value in given.items():
        setattr(box.faults, name, value)
    return {name: value for name, value in asdict(box.faults).items() if name in known}


def live(box: Simulation, given: Given) -> Any:
    return box.live(given["seconds"], given.get("changes", 50))


def advance(box: Simulation, given: Given) -> Given:
    box.advance(given["seconds"])
    return {"now": box.now}


def create(box: Simulation, given: Given) -> Any:
    return box.create(given.pop("table"), **given)


def update(box: Simulation, given: Given) -> Any:
    return box.update(given.pop("table"), given.pop("id"), **given)


def delete(box: Simulation, given: Given) -> Any:
    return box.delete(given["table"], given["id"])


def put(box: Simulation, given: Given) -> Any:
    return box.put(given["table"], given["object"])


def cancel(box: Simulation, given: Given) -> Any:
    return box.cancel(given["id"])


def burst(box: Simulation, given: Given) -> Any:
    return box.burst(given["count"], given.get("seconds", 1))


def preview(box: Simulation, given: Given) -> Any:
    return box.preview(given["id"])


def noise(box: Simulation, given: Given) -> Given:
    box.noise(given["count"])
    return {}


def settings(box: Simulation, given: Given) -> Given:
    """Change what is named of the account's `api_version` and `stub_deletes`."""
    if strange := sorted(set(given) - {"api_version", "stub_deletes"}):
        raise ValueError(f"no such setting: {', '.join(strange)}")
    for name, value in given.items():
        setattr(box, name, value)
    return {"api_version": box.api_version, "stub_deletes": box.stub_deletes}


def events(box: Simulation, given: Given) -> Any:
    """All events ever, in the order in which they happened."""
    return [event._asdict() | {"body": msgspec.Raw(event.body)} for event in box.events]


def restrict(box: Simulation, given: Given) -> Given:
    return {"key": box.restrict(given.get("key"), given.get("permissions", ()))}


def expire(box: Simulation, given: Given) -> Given:
    box.expire(given["key"])
    return {}


def stats(box: Simulation, given: Given) -> Given:
    counts = [
        {"template": template, "status": status, "count": n}
        for (template, status), n in box.counts.items()
    ]
    return {"counts": counts, "cpu_seconds": box.cpu_seconds, "requests": sum(box.counts.values())}


def account(box: Simulation, given: Given) -> Given:
    return {
        "id": box.account_id,
        "key": box.key,
        "now": box.now,
        "pid": os.getpid(),
        "start": box.account.start,
    }


def resend(box: Simulation, given: Given) -> Given:
    return {"resent": box.resend()}


def webhooks(box: Simulation, given: Given) -> Given:
    """How many webhooks are due, and which have failed, why."""
    named = ({"event": event, "url": url, "why": why} for event, url, why in box.failed_webhooks)
    return {"due": box.account.webhooks.sender.left, "failed": list(named)}


def reset_counts(box: Simulation, given: Given) -> Given:
    box.reset_counts()
    return {}


def oddities(box: Simulation, given: Given) -> Given:
    return dict(box.oddities())


CALLS: dict[tuple[str, str], Callable[[Simulation, Given], Any]] = {
    ("POST", "faults"): set_faults,
    ("POST", "live"): live,
    ("POST", "advance"): advance,
    ("POST", "create"): create,
    ("POST", "update"): update,
    ("POST", "delete"): delete,
    ("POST", "cancel"): cancel,
    ("POST", "put"): put,
    ("POST", "burst"): burst,
    ("POST", "preview"): preview,
    ("POST", "noise"): noise,
    ("POST", "settings"): settings,
    ("POST", "restrict"): restrict,
    ("POST", "expire"): expire,
    ("POST", "reset_counts"): reset_counts,
    ("POST", "resend"): resend,
    ("GET", "stats"): stats,
    ("GET", "account"): account,
    ("GET", "oddities"): oddities,
    ("GET", "events"): events,
    ("GET", "webhooks"): webhooks,
}
