"""Serve changes over HTTP: page by page after a cursor, with a long poll, or as a stream. Waiting
clients do not occupy a thread.
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

from ..errors import OffsetOutOfRange, SetupError
from ..feed.change import Change
from ..feed.lookups import LookupUnavailable
from ..feed.storage.store import FeedStore
from ..resources import TABLES
from . import changes_query
from .auth import error_json
from .changes_query import ChangesPage, ChangesQuery, Cursor
from .context import RETRY_AFTER, ServerContext, context_of, read_body

LOOKUP_RETRY_SECONDS = 2.0  # seconds
STREAM_BATCH = 100  # changes in memory, for each stream
CHANGES_PARAMS = ("after", "limit", *changes_query.FILTERS, "wait", "format", "consumer", "start")
STREAM_PARAMS = ("after", *changes_query.FILTERS)


async def get_changes(request: Request) -> Response:
    """Answer `GET /changes`: a page after a cursor; with `wait`, as soon as there is one."""
    context = context_of(request)
    question = changes_query.parse_query(
        request.query_params.multi_items(),
        CHANGES_PARAMS,
        context.settings.triggers,
        context.settings.feed.lookups,
    )
    if question.form == "zapier":
        content, has_more = await context.in_thread(changes_query.as_records, question)
        return _with_etag(request, content, headers={"X-Has-More": str(has_more).lower()})
    page = await context.in_thread(changes_query.fetch_page, question, context.settings.now())
    for _ in range(ceil(question.wait / context.settings.poll)):
        if (
            page.changes
            or page.has_more
            or context.settings.stopped.is_set()
            or await request.is_disconnected()
        ):
            break
        await anyio.sleep(context.settings.poll)
        if await context.head() != page.cursor.offset:
            page = replace(
                await context.in_thread(changes_query.after_cursor, page.cursor, question),
                epoch=page.epoch,
            )
    if question.form == "cloudevents":
        headers = {"X-Next-Cursor": str(page.cursor), "X-Has-More": str(page.has_more).lower()}
        return _with_etag(
            request,
            changes_query.as_cloudevents(page),
            "application/cloudevents-batch+json",
            headers,
        )
    return _with_etag(request, changes_query.as_json(question, page))


def _with_etag(
    request: Request,
    content: bytes,
    kind: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return the response with its ETag, or 304 if the client has it already."""
    tag = f'"{blake2b(content, digest_size=12).hexdigest()}"'
    all_headers = {**(headers or {}), "ETag": tag}
    known_tags = {
        etag.strip().removeprefix("W/")
        for etag in request.headers.get("if-none-match", "").split(",")
    }
    return (
        Response(None, 304, all_headers)
        if known_tags & {tag, "*"}
        else Response(content, 200, all_headers, kind)
    )


async def row(request: Request) -> Response:
    """Answer `GET /objects/{table}/{id}`: the copy's row as JSON; 404 if there is none, 503 while
    it cannot be read.
    """
    context, table, id = (
        context_of(request),
        request.path_params["table"],
        request.path_params["id"],
    )
    if "\0" in id:  # some databases have no such text
        return error_json(404, f"{table[:40]} has no object of this id.")
    if table not in TABLES:
        return error_json(404, f"There is no table {table[:40]!r}. There are: {', '.join(TABLES)}.")
    try:
        image = await run_sync(context.settings.feed.lookups.get, table, id)
    except SetupError as fault:
        return error_json(503, str(fault), Retry_After=RETRY_AFTER)
    return (
        _with_etag(request, changes_query.to_json(image))
        if image
        else error_json(404, f"{table} has no object of this id.")
    )


async def post_acknowledgement(request: Request) -> Response:
    """Answer `POST /changes/ack`: move a consumer forward."""
    body = await read_body(request)
    if isinstance(body, Response):
        return body
    context = context_of(request)
    return JSONResponse(
        msgspec.to_builtins(
            await context.in_thread(changes_query.acknowledge_request, body, context.settings.now())
        )
    )


async def stream(request: Request) -> Response:
    """Answer `GET /changes/stream`: server-sent events, from the newest change on, or from `after`
    or `Last-Event-ID`.
    """
    context = context_of(request)
    asked = changes_query.parse_query(
        request.query_params.multi_items(),
        STREAM_PARAMS,
        context.settings.triggers,
        context.settings.feed.lookups,
    )
    question = replace(asked, limit=STREAM_BATCH)
    last = request.headers.get("last-event-id")
    after = changes_query.parse_cursor(last, "Last-Event-ID") if last else question.after
    if after is None:
        after = Cursor(await context.in_thread(_head), 0)
    cursor = await context.in_thread(changes_query.cursor_of, after)
    page = await context.in_thread(
        changes_query.after_cursor, cursor, question
    )  # what is lost is told before anything is sent
    headers = {"X-Accel-Buffering": "no"}
    if request.method == "HEAD":
        return Response(None, 200, headers, "text/event-stream")
    return StreamingResponse(
        _events(context, question, cursor, page), 200, headers, "text/event-stream"
    )


def _head(store: FeedStore) -> int:
    return store.head


async def _events(
    context: ServerContext, question: ChangesQuery, cursor: Cursor, page: ChangesPage
) -> AsyncIterator[bytes]:
    """Yield events. Each page is read after the previous one was taken: a slow client costs one
    page of memory.
    """
    settings, quiet = context.settings, 0.0
    # who drops before the first change comes again from here
    yield f"retry: 2000\nid: {cursor}\n\n".encode()
    while not settings.stopped.is_set():
        if page.changes:
            quiet = 0.0
            yield b"".join(
                _event(replace(page.cursor, offset=change.offset), change)
                for change in page.changes
            )
        elif quiet >= settings.heartbeat:
            quiet = 0.0
            yield f": nothing new\nid: {page.cursor}\n\n".encode()
        if not page.has_more:
            page = replace(page, changes=[])
            await anyio.sleep(settings.poll)
            quiet += settings.poll
            if await context.head() == page.cursor.offset:
                continue
        try:
            page = await context.in_thread(changes_query.after_cursor, page.cursor, question)
        except LookupUnavailable:  # what a rule looks up
            page = replace(page, changes=[])
            await anyio.sleep(LOOKUP_RETRY_SECONDS)
        except OffsetOutOfRange as fault:  # the client comes again, and is answered 410
            yield b"event: lost\ndata: " + changes_query.to_json({"error": str(fault)}) + b"\n\n"
            return


def _event(cursor: Cursor, change: Change) -> bytes:
    return (
        f"id: {cursor}\nevent: change\ndata: ".encode()
        + changes_query.to_json(change.as_dict())
        + b"\n\n"
    )
