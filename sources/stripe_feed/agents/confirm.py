"""A person confirms what cannot be undone: in the client's own dialog if it has one, else by a second
call with the code of the first.
"""

from __future__ import annotations

import hmac
import json
import secrets
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import mcp_types as types
from mcp.server.context import ServerRequestContext
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from .tool import Answer, Arguments, Tool

QUESTION = "confirm"
_FORM: dict[str, Any] = {
    "type": "object",
    "properties": {"confirm": {"type": "boolean", "title": "Do it", "default": False}},
    "required": ["confirm"],
}


@dataclass(frozen=True, slots=True)
class Confirmations:
    """Codes that hold for one server, one tool, one set of arguments and one effect."""

    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)

    def code(self, tool: Tool, arguments: Arguments, effect: str) -> str:
        """The code for a call and what it does."""
        asked = {name: value for name, value in arguments.items() if name != "confirm"}
        text = json.dumps([tool.name, asked, effect], sort_keys=True, default=str)
        return hmac.new(self.secret, text.encode(), sha256).hexdigest()[:16]


async def confirm(
    codes: Confirmations,
    context: ServerRequestContext[Any],
    params: types.CallToolRequestParams,
    tool: Tool,
    effect: str,
) -> Answer | types.InputRequiredResult | None:
    """Ask for a confirmation; None once it is given. If the client can ask a person, nothing that
    the model sends counts.
    """
    arguments = params.arguments or {}
    code = codes.code(tool, arguments, effect)
    if not _can_ask(context):
        if hmac.compare_digest(str(arguments.get("confirm", "")).encode(), code.encode()):
            return None
        return Answer(
            {
                "status": "unconfirmed",
                "message": f"Nothing was done. {effect} Ask a person; if they agree, call again with the same arguments and confirm.",
                "confirm": code,
            }
        )
    question = types.ElicitRequestFormParams(message=effect, requested_schema=_FORM)
    if context.protocol_version in MODERN_PROTOCOL_VERSIONS:
        given = (params.input_responses or {}).get(QUESTION)
        if given is None or params.request_state != code:  # the first call, or another effect now
            asked = types.ElicitRequest(params=question)
            return types.InputRequiredResult(input_requests={QUESTION: asked}, request_state=code)
    else:
        given = await context.session.elicit_form(
            question.message, _FORM, related_request_id=context.request_id
        )
    if _agrees(given):
        return None
    return Answer(
        {"status": "declined", "message": "Nothing was done: it was not confirmed."}, True
    )


def _can_ask(context: ServerRequestContext[Any]) -> bool:
    """Whether the client has a dialog for forms; early ones declare no kind of dialog."""
    capabilities = context.session.client_capabilities
    dialog = capabilities.elicitation if capabilities else None
    return dialog is not None and (dialog.form is not None or dialog.url is None)


def _agrees(answer: Any) -> bool:
    if not isinstance(answer, types.ElicitResult) or answer.action != "accept":
        return False
    return (answer.content or {}).get("confirm") is True
