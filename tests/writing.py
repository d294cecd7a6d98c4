"""Writes to a sandbox without a socket, and what comes of them."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from stripe_feed.sandbox import Sandbox
from stripe_feed.sandbox.protocol.messages import Answer, Request

Object = dict[str, Any]


def send(
    box: Sandbox, method: str, path: str, form: Object | None = None, **headers: str
) -> Answer:
    """`form` with the brackets in its names; an underscore in a header's name is a hyphen."""
    sent = {"authorization": f"Bearer {box.key}"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return box.answer(Request(method, path, sent, urlencode(form or {}).encode()))


def done(
    box: Sandbox, method: str, path: str, form: Object | None = None, **headers: str
) -> Object:
    answer = send(box, method, path, form, **headers)
    assert answer.status == 200, answer.body
    found: Object = json.loads(answer.body)
    return found


def refused(
    box: Sandbox, method: str, path: str, form: Object | None = None, **headers: str
) -> tuple[int, str, str, str]:
    """Status, code, parameter, message."""
    answer = send(box, method, path, form, **headers)
    error = json.loads(answer.body)["error"]
    return answer.status, error.get("code", ""), error.get("param", ""), error["message"]


def new_customer(box: Sandbox, **form: Any) -> str:
    return str(done(box, "POST", "/v1/customers", form)["id"])


def event_types(box: Sandbox) -> list[str]:
    return [event.type for event in box.events]
