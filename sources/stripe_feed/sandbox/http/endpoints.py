"""Route a request: authenticate it, check its permission, and answer it."""

from __future__ import annotations

import base64
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import unquote

import msgspec

from ..protocol.errors import (
    Refusal,
    bad_key,
    forbidden,
    missing,
    no_access,
    no_connect_permissions,
    no_key,
    publishable,
    unknown_parameters,
    unknown_url,
)
from ..protocol.messages import Answer, Request
from ..protocol.parameters import Params, expands, nested, parse, query
from ..protocol.versions import KNOWN_VERSIONS
from ..state.account import Account
from ..state.api_versions import deleted_stub, is_current, render_answer
from ..state.kinds import KIND_OF_PATH, KINDS, Kind, paths_of
from ..state.mutation import LoggedRequest
from ..world import World
from . import expansions, sublists
from .execution import Prepared, Write, perform
from .lists import envelope, page_of_rows
from .routes import ROUTES, prepare
from .search import PATHS, search_objects

if TYPE_CHECKING:
    from ..protocol.faults import Fate


def answer_request(platform: World, request: Request) -> Answer:
    """Answer a request as Stripe would, for the account or for one that is connected to it."""
    named = request.headers.get("stripe-account", "")
    account = platform.connected.get(named, platform)
    path, _, search = request.target.partition("?")
    template, id = path_template(path)
    request_id = f"req_{platform.faults.rng().getrandbits(70):014x}"
    version = request.headers.get("stripe-version", account.api_version)
    headers = {"Request-Id": request_id, "Stripe-Version": version}
    if named:
        headers["Stripe-Account"] = named
    fate: Fate = ""
    params: Params = {}
    write: Write | None = None
    account.advance(0)
    try:
        key = authenticate(platform, request)
        _check_version(request)
        platform.faults.limit(template)
        _check_account(platform, key, named)
        params = parse(search if request.method == "GET" else _form(request, search))
        for world in dict.fromkeys((platform, account)):
            world.faults.refuse_path(request.method, path)
            fate = fate or world.faults.inject(request.method, template)
            if world.on_request:
                world.on_request(template, params)
        if request.method == "GET":
            body = get(account, key, template, path, id, params)
        else:
            write = Write(request, path, params, headers, fate)
            body = perform_write(account, key, write, template, id)
        status = 200
        if not is_current(version):
            body = render_answer(account, body, version)
    except Refusal as refusal:
        mode = "" if account.livemode else "/test"
        status, body = refusal.status, refusal.body(request_id, account.now, mode)
        headers |= refusal.headers
    for world in dict.fromkeys((platform, account)):
        world.log.append(LoggedRequest(request.method, template, params, status))
        world.counts[template, status] += 1
    body = _sent_body(platform, body, status, fate)
    delay = platform.faults.delay() + (write.seconds if write else 0.0)
    return Answer(status, body, headers, delay, fate)


def _sent_body(account: World, body: bytes, status: int, fate: Fate) -> bytes:
    if account.indent and status == 200:
        body = msgspec.json.format(body, indent=2)
    return account.faults.corrupt(body) if fate == "malformed" else body


def path_template(path: str) -> tuple[str, str]:
    """`/v1/invoices/in_1/lines` becomes `/v1/invoices/:id/lines` and `in_1`. Stripe limits and
    counts requests by template. A second id follows the first behind a slash.
    """
    parts = path.strip("/").split("/")
    if f"/{'/'.join(parts)}" in (*PATHS, PREVIEW):
        return path, ""
    first_id = 3 if parts[1:2] and parts[1] in NAMESPACES else 2
    if len(parts) <= first_id or parts[:2] == ["v1", "account"]:
        return path, ""
    ids = parts[first_id::2]
    parts[first_id::2] = [":id"] * len(ids)
    return "/" + "/".join(parts), "/".join(map(unquote, ids))


PREVIEW = "/v1/invoices/create_preview"
NAMESPACES = {"test_helpers"} | {
    path.split("/")[2]
    for path in KIND_OF_PATH
    if path.count("/") > 2 and path.split("/")[3] != ":id"
}
"""First parts of paths that have the resource in the second part."""


def authenticate(account: Account, request: Request) -> str:
    given = request.headers.get("authorization", "")
    kind, _, key = given.partition(" ")
    if kind.lower() == "basic":
        key = base64.b64decode(key + "==").decode("latin-1").partition(":")[0]
    key = key.strip()
    if not key:
        raise no_key()
    if key.startswith("pk_"):
        raise publishable()
    if key in account.expired or key not in account.permissions:
        raise bad_key(key, expired=key in account.expired)
    return key


def _check_account(platform: World, key: str, named: str) -> None:
    """Refuse an account that the platform may not act for."""
    if not named or named == platform.id:
        return
    granted = platform.permissions[key]
    if granted is not None and not any("connected_account" in name for name in granted):
        raise no_connect_permissions(key)
    if named not in platform.connected or named in platform.revoked:
        raise no_access(key, named)


def _check_version(request: Request) -> None:
    version = request.headers.get("stripe-version")
    if version and version not in KNOWN_VERSIONS:
        raise Refusal(400, f"Invalid Stripe API version: {version}")


def get(account: World, key: str, template: str, path: str, id: str, params: Params) -> bytes:
    if template in PATHS:
        check_permission(account, key, KINDS[PATHS[template]].permission)
        return search_objects(account, key, PATHS[template], params)
    kind = KIND_OF_PATH.get(template.removesuffix("/:id"))
    if kind and not sublists.is_sampled(account, template, kind, params):
        check_permission(account, key, kind.permission)
        owner, _, own_id = (
            id.rpartition("/") if ":id" in template.removesuffix("/:id") else ("", "", id)
        )
        if template in paths_of(kind):
            return list_objects(account, key, kind, path, own_id, params)
        if not kind.retrievable:
            raise unknown_url("GET", path)
        return retrieve_object(account, key, kind, own_id, params, owner)
    if template == "/v1/account":
        if account.needs_permission:
            check_permission(account, key, "rak_accounts_kyc_basic_read")
        check_only_expand(params)
        return msgspec.json.encode(account.object)
    endpoint = sublists.ENDPOINTS.get(template)
    if endpoint is None:
        raise unknown_url("GET", path)
    check_permission(account, key, endpoint.permission)
    return endpoint.answer(account, path, id, params)


def perform_write(account: World, key: str, write: Write, template: str, id: str) -> bytes:
    """Execute a write of an object or of a webhook endpoint."""
    route_key = write.request.method, template
    if route_key in sublists.WRITES:
        endpoint = sublists.WRITES[route_key]
        check_permission(account, key, endpoint.permission)

        def whole() -> Prepared:
            """Refusals of webhook endpoints are all about parameters: none is stored."""
            body = endpoint.answer(account, write.path, id, write.params)
            return Prepared((), lambda: body)

        return perform(account, write, whole)
    route = ROUTES.get(route_key)
    if route is None:
        raise unknown_url(write.request.method, write.path)
    check_permission(account, key, route.permission)
    search = write.request.target.partition("?")[2]
    given = nested(_form(write.request, search))
    return perform(account, write, partial(prepare, account, key, route, id, given, write.params))


def _form(request: Request, search: str) -> str:
    return "&".join(part for part in (search, request.body.decode(errors="replace")) if part)


def check_permission(account: Account, key: str, permission: str) -> None:
    if not account.is_allowed(key, permission):
        raise forbidden(key, account.id, [permission])


def list_objects(
    account: Account, key: str, kind: Kind, path: str, owner: str, params: Params
) -> bytes:
    """A page of all objects of a kind, or of those that belong to the one in the path."""
    _check_owner(account, key, kind, owner)
    for name in kind.required:
        sublists.required_text(params, name)
    request = query(params, {"created", *kind.filters} if kind.windowed else kind.filters)
    paths = expansions.check_paths(account, key, kind.name, request.expand, in_list=True)
    rows, has_more = page_of_rows(account, kind.name, request, owner)
    bodies = [row.raw for row in account.faults.shorten_page(rows, has_more)]
    if paths:
        bodies = [expansions.expand(account, kind.name, raw, paths) for raw in bodies]
    return envelope(path, bodies, has_more)


def retrieve_object(
    account: Account, key: str, kind: Kind, id: str, params: Params, owner: str = ""
) -> bytes:
    check_only_expand(params)
    _check_owner(account, key, kind, owner)
    table = kind.name
    paths = expansions.check_paths(account, key, table, expands(params), in_list=False)
    row = account.tables[table].rows.get(id)
    if row is not None and owner in ("", row.group):
        return expansions.expand(account, table, row.raw, paths) if paths else row.raw
    if kind.keeps_stub and id in account.deleted[table]:
        return msgspec.json.encode(deleted_stub(kind.object, id))
    if kind.object == "account":
        if id == account.id:
            return msgspec.json.encode(account.object)
        raise no_access(key, id)
    raise missing(kind.object, id, other_mode=account.other_mode_of(table, id))


def _check_owner(account: Account, key: str, kind: Kind, owner: str) -> None:
    """Refuse a list below an object that does not exist, or an account that is not connected."""
    if kind.owners == "accounts" and owner and owner not in account.tables["accounts"].rows:
        raise no_access(key, owner)
    if owner:
        sublists.find_parent(account, KINDS[kind.owners], owner)


def check_only_expand(params: Params) -> None:
    if unknown := [name for name in params if name != "expand"]:
        raise unknown_parameters(unknown)
