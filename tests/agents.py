"""An account with a copy, and the official client of the Model Context Protocol on its tools."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mcp import Client
from mcp_types import ElicitRequestParams, ElicitResult

from stripe_feed import open_actions
from stripe_feed.agents.place import AgentContext
from stripe_feed.agents.server import make_server, make_toolbox
from stripe_feed.sandbox import Sandbox

FAST: dict[str, Any] = {"max_rps": 5_000, "endpoint_rps": 5_000, "threads": 2}
T = TypeVar("T")


@dataclass(frozen=True)
class Told:
    """What a tool answered: whether it is an error, and the JSON behind the notice."""

    is_error: bool
    notice: str
    text: str

    @property
    def data(self) -> Any:
        return json.loads(self.text)


@dataclass(frozen=True)
class Agent:
    """Calls tools, each over a connection of its own."""

    place: AgentContext
    box: Sandbox
    allow_writes: bool = False

    def within(self, use: Callable[[Client], Awaitable[T]], **options: Any) -> T:
        """Use a client that is connected in this process."""

        async def run() -> T:
            server = make_server(make_toolbox(self.place, self.allow_writes))
            async with Client(server, **options) as client:
                return await use(client)

        return asyncio.run(run())

    def call(self, tool: str, /, **arguments: Any) -> Told:
        return self.within(lambda client: called(client, tool, arguments))


async def called(client: Client, tool: str, arguments: dict[str, Any]) -> Told:
    """Call a tool with a connected client."""
    found = await client.call_tool(tool, arguments)
    notice, data = found.content
    assert notice.type == data.type == "text"
    return Told(found.is_error, notice.text, data.text)


def place_of(box: Sandbox, url: str, database: Path | str = "copy.duckdb") -> AgentContext:
    return AgentContext(lambda: open_actions(box.key, base=url, **FAST), str(database))


def answering(*answers: ElicitResult) -> tuple[Callable[..., Any], list[str]]:
    """A person at the client, who answers one question after the other; and the questions."""
    left, asked = list(answers), list[str]()

    async def answer(context: Any, params: ElicitRequestParams) -> ElicitResult:
        asked.append(params.message)
        return left.pop(0)

    return answer, asked
