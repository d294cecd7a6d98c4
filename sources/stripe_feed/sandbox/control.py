from __future__ import annotations
from typing import TYPE_CHECKING
from .server import Answer, Request
if TYPE_CHECKING:
    from .box import Sandbox
def answer(box: Sandbox, request: Request) -> Answer:
    return Answer(404, b"{}", {})
