"""Changes out over HTTP: page by page behind a cursor, with a long poll, or as a stream. Who waits
is no thread.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from hashlib import blake2b
from math import ceil

import anyio
import msgspec
from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from ..errors import PositionLost, SetupError
from ..feed.change import Change
from ..feed.lookups import LookupUnavailable
from ..feed.storage.store import FeedStore
from ..resources import TABLES
from . import changes_query
from .auth import refused
from .changes_query import Asked, Cursor, Pulled
from .context import RETRY_AFTER, Desk, body_of, desk_of

AGAIN = 2.0  # seconds
STREAMED = 100  # changes in memory, for each stream
CHANGES = ("after", "limit", *changes_query.FILTERS, "wait", "format", "consumer", "start")
STREAM = ("after", *changes_query.FILTERS)


async def changes(request: Request) -> Response:
    """`GET /changes`: a page behind a cursor; with `wait`, as soon as there is one."""
    desk = desk_of(request)
    question = changes_query.asked(
        request.query_params.multi_items(),
        CHANGES,
        desk.settings.triggers,
        desk.settings.feed.lookups,
    )
    if question.form == "zapier":
        content, has_more = await desk.ask(changes_query.as_records, question)
        return _tagged(request, content, headers={"X-Has-More": str(has_more).lower()})
    found = await desk.ask(changes_query.pull, question, desk.settings.now())
    for _ in range(ceil(question.wait / desk.settings.poll)):
        if (
            found.changes
            or found.has_more
            or desk.settings.stopped.is_set()
            or await request.is_disconnected()
        ):
            break
        await anyio.sleep(desk.settings.poll)
        if await desk.head() != found.cursor.offset:
            found = replace(
                await desk.ask(changes_query.behind, found.cursor, question), epoch=found.epoch
            )
    if question.form == "cloudevents":
        headers = {"X-Next-Cursor": str(found.cursor), "X-Has-More": str(found.has_more).lower()}
        return _tagged(
            request,
            changes_query.as_cloudevents(found),
            "application/cloudevents-batch+json",
            headers,
        )
    return _tagged(request, changes_query.as_json(question, found))


def _tagged(
    request: Request,
    content: bytes,
    kind: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The answer with its ETag, or 304 where the client has it already."""
    tag = f'"{blake2b(content, digest_size=12).hexdigest()}"'
    said = {**(headers or {}), "ETag": tag}
    held = {
        one.strip().removeprefix("W/")
        for one in request.headers.get("if-none-match", "").split(",")
    }
    return Response(None, 304, said) if held & {tag, "*"} else Response(content, 200, said, kind)


async def row(request: Request) -> Response:
    """`GET /objects/{table}/{id}`: the row of the copy as JSON; 404 where there is none, 503 while
    it cannot be read.
    """
    desk, table, id = desk_of(request), request.path_params["table"], request.path_params["id"]
    if "\0" in id:  # some databases have no such text
        return refused(404, f"{table[:40]} has no object of this id.")
    if table not in TABLES:
        return refused(404, f"There is no table {table[:40]!r}. There are: {', '.join(TABLES)}.")
    try:
        found = await run_sync(desk.settings.feed.lookups.get, table, id)
    except SetupError as fault:
        return refused(503, str(fault), Retry_After=RETRY_AFTER)
    return (
        _tagged(request, changes_query.encoded(found))
        if found
        else refused(404, f"{table} has no object of this id.")
    )


async def acknowledge(request: Request) -> Response:
    """`POST /changes/ack`: move a consumer on."""
    body = await body_of(request)
    if isinstance(body, Response):
        return body
    desk = desk_of(request)
    return JSONResponse(
        msgspec.to_builtins(await desk.ask(changes_query.acknowledge, body, desk.settings.now()))
    )


async def stream(request: Request) -> Response:
    """`GET /changes/stream`: server-sent events, from the newest change on, or from `after` or
    `Last-Event-ID`.
    """
    desk = desk_of(request)
    asked = changes_query.asked(
        request.query_params.multi_items(),
        STREAM,
        desk.settings.triggers,
        desk.settings.feed.lookups,
    )
    question = replace(asked, limit=STREAMED)
    last = request.headers.get("last-event-id")
    after = changes_query.place(last, "Last-Event-ID") if last else question.after
    if after is None:
        after = Cursor(await desk.ask(_head), 0)
    cursor = await desk.ask(changes_query.cursor_of, after)
    found = await desk.ask(
        changes_query.behind, cursor, question
    )  # what is lost is told before anything is sent
    headers = {"X-Accel-Buffering": "no"}
    if request.method == "HEAD":
        return Response(None, 200, headers, "text/event-stream")
    return StreamingResponse(
        _events(desk, question, cursor, found), 200, headers, "text/event-stream"
    )


def _head(store: FeedStore) -> int:
    return store.head


async def _events(
    desk: Desk, question: Asked, cursor: Cursor, found: Pulled
) -> AsyncIterator[bytes]:
    """Pages are read when the one before was taken: a slow client costs one page of memory."""
    settings, quiet = desk.settings, 0.0
    # who drops before the first change comes again from here
    yield f"retry: 2000\nid: {cursor}\n\n".encode()
    while not settings.stopped.is_set():
        if found.changes:
            quiet = 0.0
            yield b"".join(
                _event(replace(found.cursor, offset=one.offset), one) for one in found.changes
            )
        elif quiet >= settings.heartbeat:
            quiet = 0.0
            yield f": nothing new\nid: {found.cursor}\n\n".encode()
        if not found.has_more:
            found = replace(found, changes=[])
            await anyio.sleep(settings.poll)
            quiet += settings.poll
            if await desk.head() == found.cursor.offset:
                continue
        try:
            found = await desk.ask(changes_query.behind, found.cursor, question)
        except LookupUnavailable:  # what a rule looks up
            found = replace(found, changes=[])
            await anyio.sleep(AGAIN)
        except PositionLost as fault:  # the client comes again, and is answered 410
            yield b"event: lost\ndata: " + changes_query.encoded({"error": str(fault)}) + b"\n\n"
            return


def _event(cursor: Cursor, change: Change) -> bytes:
    return (
        f"id: {cursor}\nevent: change\ndata: ".encode()
        + changes_query.encoded(change.as_dict())
        + b"\n\n"
    )
