"""Stripe's API without a socket: what is asked goes straight to a sandbox, so that a decision takes a
moment.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlencode

from stripe_feed.api.client import Api, Reply
from stripe_feed.api.forms import encode
from stripe_feed.errors import NotFound, RequestRefused
from stripe_feed.sandbox import Sandbox
from stripe_feed.sandbox.protocol.messages import Request
from stripe_feed.write.lookup.find import Lookup

T = TypeVar("T")


class DirectApi(Api):
    """Sends each request once, and knows two ends: an answer and a refusal."""

    def __init__(self, box: Sandbox) -> None:
        self.box = box
        self.base, self.version, self.live = "direct", "", False

    def _ask(
        self, method: str, path: str, params: Mapping[str, Any], decode: Callable[[bytes], T]
    ) -> Reply[T]:
        form = urlencode(encode(params))
        is_post = method == "POST"
        target = path if is_post or not form else f"{path}?{form}"
        headers = {"authorization": f"Bearer {self.box.key}"}
        answer = self.box.answer(Request(method, target, headers, form.encode() * is_post))
        if answer.status != 200:
            error = json.loads(answer.body)["error"]
            refused = NotFound if answer.status == 404 else RequestRefused
            raise refused(error["message"], error.get("code"), error.get("param"))
        return Reply(decode(answer.body), 0)

    def get(
        self, path: str, params: Mapping[str, Any], decode: Callable[[bytes], T], **_: Any
    ) -> Reply[T]:
        return self._ask("GET", path, params, decode)

    def post(
        self, path: str, params: Mapping[str, Any], decode: Callable[[bytes], T], **_: Any
    ) -> Reply[T]:
        return self._ask("POST", path, params, decode)

    def delete(
        self, path: str, params: Mapping[str, Any], decode: Callable[[bytes], T]
    ) -> Reply[T]:
        return self._ask("DELETE", path, params, decode)


def direct_lookup(box: Sandbox) -> Lookup:
    """Look-ups in a sandbox."""
    return Lookup(DirectApi(box))
