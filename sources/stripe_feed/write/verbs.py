"""How each verb runs: look up, check, send, and say what came of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..api.client import Reply
from ..api.forms import encode, path_to
from ..errors import InvalidParameter, RequestRefused, SetupError, StripeFeedError, UsageError
from ..resources.writable import Writable
from ..wording import counted
from .checks import check, check_id, check_metadata
from .consequences import consequences, side_effects
from .lookup.filters import FilterClause, Group, read
from .lookup.find import Found, Lookup, Object, check_mode, decode
from .order import Order
from .parameters import Params, convert
from .result import ActionResult, Request, failed
from .unchanged import (
    changed,
    check_only_if_empty,
    completed,
    empty_only,
    has_parts,
    with_needed,
    without_fixed,
)

FEEDBACK = (
    "customer_service", "low_quality", "missing_features", "other", "switched_service",
    "too_complex", "too_expensive", "unused",
)  # fmt: skip
_USUAL = ("search", "get", "list", "insert", "create", "update", "upsert", "delete")
COMPOSED = ("search", "insert", "upsert")  # several requests, or a list if Stripe has no search
PAST = {
    "delete": "deleted", "cancel": "canceled", "resume": "resumed", "finalize": "finalized",
    "void": "voided", "pay": "paid", "mark_uncollectible": "marked as uncollectible",
    "send": "sent", "accept": "accepted", "pause": "paused", "migrate": "migrated",
    "delete_discount": "discount deleted", "create_tax_id": "tax id created",
    "delete_tax_id": "tax id deleted",
}  # fmt: skip

log = logging.getLogger("stripe_feed")


def is_reading(row: Writable, verb: str) -> bool:
    """Whether a verb writes nothing."""
    return verb == "search" or (verb in row.verbs and row.verbs[verb].method == "get")


def verbs_of(row: Writable) -> list[str]:
    """Every verb of a resource, composed ones too; the order is that of the help."""
    known = {*row.verbs, *COMPOSED}
    special = [verb for verb in row.verbs if verb not in _USUAL]
    return [*(verb for verb in _USUAL if verb in known), *special]


Run = Callable[[Lookup, Writable, str, Order], ActionResult]


def runner_of(row: Writable, verb: str) -> Run:
    if verb not in verbs_of(row):
        raise UsageError(
            f"There is no action {verb!r} on {row.table}. Choose from: {', '.join(verbs_of(row))}."
        )
    return _RUNS.get(verb, _act)


def _get(lookup: Lookup, row: Writable, verb: str, order: Order) -> ActionResult:
    reply = lookup.get(row, check_id(row, order.id), order.expand)
    word = "is deleted" if reply.value.get("deleted") else "retrieved successfully"
    return _done(row, verb, f"{_name(row)} {word}", reply.value, reply.request_id, via="id")


def _list(lookup: Lookup, row: Writable, verb: str, order: Order) -> ActionResult:
    found = lookup.listing(row, _where(order), order.limit, order.expand)
    return _found(row, verb, found)


def _search(lookup: Lookup, row: Writable, verb: str, order: Order) -> ActionResult:
    return _found(row, verb, lookup.search(row, _where(order), order.limit))


def _list_tax_ids(lookup: Lookup, row: Writable, verb: str, order: Order) -> ActionResult:
    path = path_to(row.verbs[verb].path, check_id(row, order.id))
    return _found(row, verb, lookup.list_below(path, order.limit, order.expand), "tax id")


def _where(order: Order) -> Group:
    if isinstance(order.where, FilterClause):
        return Group(False, (order.where,))
    return order.where if isinstance(order.where, Group) else read(order.where or {})


def _found(row: Writable, verb: str, found: Found, noun: str = "") -> ActionResult:
    count = len(found.objects)
    noun = noun or row.noun
    notes = "".join(f" ({note})" for note in found.notes)
    more = "; there are more" if found.has_more else ""
    return ActionResult(
        f"{row.table}.{verb}",
        "success",
        f"{counted(count, noun)} found via {found.via}{more}{notes}",
        objects=found.objects,
        has_more=found.has_more,
        via=found.via,
        request_id=found.request_id,
    )


def _create(lookup: Lookup, row: Writable, verb: str, order: Order) -> ActionResult:
    params = convert(row, "create", order.set or {}, order.nulls, order.unset)
    check(row, "create", params)
    if order.dry_run:
        request = Request("post", row.path, params)
        message = " ".join((f"Would create a {row.noun}.", *side_effects(row, params)))
        return _would(row, verb, message.removesuffix("."), (request,))
    reply = _post(lookup, row.path, params, order)
    message = f"{_name(row)} created successfully"
    return _done(row, verb, message, reply.value, reply.request_id, key=order.idempotency_key)


def _insert(lookup: Lookup, row: Writable, verb: str, order: Order) -> ActionResult:
    found = _find(lookup, row, order, True) if order.match else None
    if found is not None and found.objects:
        return _skipped(row, verb, f"A {row.noun} matches already", found)
    created = _create(lookup, row, verb, _with_match(order))
    return replace(created, via=found.via if found else None)


def _upsert(lookup: Lookup, row: Writable, verb: str, order: Order) -> ActionResult:
    found = _find(lookup, row, order, True)
    # a key stands for one path: whoever repeats an upsert may find what its first try created
    to_update = replace(order, idempotency_key=f"{order.idempotency_key}-update")
    if found.objects:
        return _each(lookup, row, verb, to_update, found, _change)
    if "id" in (order.match or {}) and not row.own_ids:
        raise InvalidParameter(
            f"There is no such {row.noun}, and Stripe chooses the ids of new ones. Match on something else.",
            "id",
        )
    try:
        created = _create(lookup, row, verb, _with_match(order))
    except RequestRefused as error:
        if error.code != "resource_already_exists":
            raise
        return _each(lookup, row, verb, to_update, _find(lookup, row, order, True), _change)
    return replace(created, via=found.via)


def _with_match(order: Order) -> Order:
    """What was matched on becomes part of a new object, unless it is set otherwise."""
    return replace(order, set={**(order.match or {}), **(order.set or {})})


def _update(lookup: Lookup, row: Writable, verb: str, order: Order) -> ActionResult:
    if order.id is None:
        return _matched(lookup, row, verb, order, _change)
    return _change(lookup, row, verb, order, check_id(row, order.id), None)


def _matched(lookup: Lookup, row: Writable, verb: str, order: Order, act: Act) -> ActionResult:
    found = _find(lookup, row, order, False)
    if not found.objects:
        raise InvalidParameter(f"No {row.noun} matches (asked: {found.via}). Nothing was done.")
    return _each(lookup, row, verb, order, found, act)


def _find(lookup: Lookup, row: Writable, order: Order, decides_create: bool) -> Found:
    if order.id is not None and order.match is None:
        order = replace(order, match={"id": check_id(row, order.id)})
    return lookup.find(row, order.match or {}, decides_create)


Act = Callable[[Lookup, Writable, str, Order, str, "Object | None"], ActionResult]


def _each(
    lookup: Lookup, row: Writable, verb: str, order: Order, found: Found, act: Act
) -> ActionResult:
    """Act on the objects that match, as the policy for several says."""
    chosen = _chosen(row, order, found)
    results = []
    for item in chosen:
        key = order.idempotency_key if len(chosen) == 1 else f"{order.idempotency_key}-{item['id']}"
        try:
            one = replace(order, idempotency_key=key)
            results.append(act(lookup, row, verb, one, str(item["id"]), item))
        except StripeFeedError as error:
            if isinstance(error, SetupError) or len(chosen) == 1:
                raise
            results.append(failed(row, verb, error))
    if len(results) == 1:
        return replace(results[0], via=found.via)
    worst = max(results, key=lambda result: _SEVERITY.index(result.status))
    return replace(
        worst,
        message=f"{len(results)} {row.noun}s match; the gravest result: {worst.message}",
        object=None,
        id=None,
        raw=None,
        objects=tuple(
            result.object or {"id": item["id"]}
            for result, item in zip(results, chosen, strict=True)
        ),
        requests=tuple(request for result in results for request in result.requests),
        via=found.via,
    )


_SEVERITY = ("skipped", "dry_run", "success", "error", "unknown")


def _chosen(row: Writable, order: Order, found: Found) -> tuple[Object, ...]:
    by_age = sorted(found.objects, key=lambda item: (item.get("created") or 0, str(item["id"])))
    if len(by_age) == 1 or order.if_several == "all":
        return tuple(by_age)
    if order.if_several == "error":
        ids = ", ".join(str(item["id"]) for item in by_age[:5])
        raise InvalidParameter(
            f"{len(by_age)} {row.noun}s match ({ids}{', ...' if len(by_age) > 5 else ''}). "
            "Give the id, or choose which: newest, oldest or all."
        )
    return (by_age[-1 if order.if_several == "newest" else 0],)


def _change(
    lookup: Lookup, row: Writable, verb: str, order: Order, object_id: str, held: Object | None
) -> ActionResult:
    """Update one object; `held` is what it is now, if that is known."""
    given = {name: value for name, value in (order.set or {}).items() if name != "id"}
    check_only_if_empty(row, order.only_if_empty)
    if held is None and (order.only_if_empty or has_parts([*given, *order.unset])):
        held = lookup.get(row, object_id).value
    if held is not None and verb == "upsert":
        given = without_fixed(row, given, held, order.nulls)
    if held is not None:
        given = with_needed(row, given, held)
    params = convert(row, "update", given, order.nulls, order.unset)
    if held is not None:
        check_metadata(params.get("metadata"), held.get("metadata"))
        params = completed(params, held, [*given, *order.unset])
        if order.only_if_empty:
            params = empty_only(params, held, order.only_if_empty)
        params = changed(params, held)
    check(row, "update", params)
    if not params:
        reason = "has values there already" if order.only_if_empty else "has these values already"
        found = Found((held,) if held else (), "id")
        return _skipped(row, verb, f"Nothing to change: the {row.noun} {reason}", found)
    path = path_to(row.verbs["update"].path, object_id)
    if order.dry_run:
        change = f"Would update {object_id}: {', '.join(sorted(params))}."
        message = " ".join((change, *side_effects(row, params))).removesuffix(".")
        return _would(row, verb, message, (Request("post", path, params),), object_id)
    reply = _post(lookup, path, params, order)
    message = f"{_name(row)} updated successfully"
    return _done(row, verb, message, reply.value, reply.request_id, key=order.idempotency_key)


def _act(lookup: Lookup, row: Writable, verb: str, order: Order) -> ActionResult:
    """A verb on one object that exists."""
    if order.id is None:
        return _matched(lookup, row, verb, order, _act_on)
    return _act_on(lookup, row, verb, order, check_id(row, order.id), None)


def _act_on(
    lookup: Lookup, row: Writable, verb: str, order: Order, object_id: str, held: Object | None
) -> ActionResult:
    if row.table == "subscriptions" and verb == "cancel":
        order = _canceling(order)
        if order.at_period_end:
            done = _change(lookup, row, verb, order, object_id, None)
            ends = "Subscription ends with its period"
            return replace(done, message=ends) if done.status == "success" else done
    params = convert(row, verb, order.set or {}, order.nulls, order.unset)
    check(row, verb, params)
    path = _path(row, verb, order, object_id)
    effect = ""
    if order.dry_run or lookup.api.live:
        effect = consequences(lookup, row, verb, object_id)
    if order.dry_run:
        request = Request(row.verbs[verb].method, path, params)
        message = effect or f"Would {verb.replace('_', ' ')} {object_id}"
        return _would(row, verb, message, (request,), object_id)
    _require_confirmation(order, object_id, effect)
    return _send(lookup, row, verb, order, object_id, path, params)


def _path(row: Writable, verb: str, order: Order, object_id: str) -> str:
    path = path_to(row.verbs[verb].path, object_id)
    if "{tax_id}" not in path:
        return path
    if not isinstance(order.tax_id, str) or not order.tax_id.startswith("txi_"):
        raise InvalidParameter(
            "Give the id of the tax id, which begins with txi_; list_tax_ids shows those of a customer.",
            "tax_id",
        )
    return path_to(path, order.tax_id, "{tax_id}")


def _require_confirmation(order: Order, object_id: str, effect: str) -> None:
    """Say what goes for good; raise `UsageError` unless it is confirmed."""
    if effect and not order.confirm:
        raise UsageError(
            f"{object_id}: {effect} Nothing was done, as this is live data: confirm it with --yes (in Python: confirm=True)."
        )
    if effect:
        log.warning("%s: %s", object_id, effect)


def _send(
    lookup: Lookup,
    row: Writable,
    verb: str,
    order: Order,
    object_id: str,
    path: str,
    params: Params,
) -> ActionResult:
    message = f"{_name(row)} {PAST[verb]} successfully"
    if row.verbs[verb].method == "post":
        reply = _post(lookup, path, params, order)
        return _done(row, verb, message, reply.value, reply.request_id, key=order.idempotency_key)
    reply = lookup.api.delete(path, params, decode)
    check_mode(lookup.api, reply.value)
    about = {"id": object_id, "object": row.object} if verb in ("delete", "cancel") else {}
    answer = {**about, **reply.value}
    if reply.value == {"deleted": True} and verb == "cancel":  # a canceled one can be read
        answer = lookup.get(row, object_id).value
    return _done(row, verb, message, answer, reply.request_id)


def _post(lookup: Lookup, path: str, params: Params, order: Order) -> Reply[Object]:
    reply = lookup.api.post(path, _expanding(params, order), decode, key=order.idempotency_key)
    check_mode(lookup.api, reply.value)
    return reply


def _canceling(order: Order) -> Order:
    """Reason and comment as Stripe takes them."""
    if order.reason is not None and order.reason not in FEEDBACK:
        raise InvalidParameter(f"reason is one of {', '.join(FEEDBACK)}.", "reason")
    details = {
        f"cancellation_details.{name}": value
        for name, value in (("feedback", order.reason), ("comment", order.comment))
        if value
    }
    at_end = {"cancel_at_period_end": True} if order.at_period_end else {}
    return replace(order, set={**(order.set or {}), **details, **at_end})


def _expanding(params: Params, order: Order) -> Params:
    return {**params, "expand": list(order.expand)} if order.expand else params


def _name(row: Writable) -> str:
    return row.noun.capitalize()


def _done(
    row: Writable,
    verb: str,
    message: str,
    answer: Object,
    request_id: str | None,
    *,
    key: str | None = None,
    via: Any = None,
) -> ActionResult:
    return ActionResult(
        f"{row.table}.{verb}", "success", message, answer, answer.get("id"), answer, request_id,
        idempotency_key=key, via=via,
    )  # fmt: skip


def _would(
    row: Writable, verb: str, message: str, requests: tuple[Request, ...], id: str | None = None
) -> ActionResult:
    for request in requests:
        encode(request.params)  # what cannot be sent would not be done
    return ActionResult(f"{row.table}.{verb}", "dry_run", message, id=id, requests=requests)


def _skipped(row: Writable, verb: str, message: str, found: Found) -> ActionResult:
    held = found.objects[0] if found.objects else {}
    return ActionResult(
        f"{row.table}.{verb}", "skipped", message, held or None, held.get("id"), via=found.via
    )


_RUNS: dict[str, Run] = {
    "get": _get,
    "list": _list,
    "list_tax_ids": _list_tax_ids,
    "search": _search,
    "create": _create,
    "insert": _insert,
    "update": _update,
    "upsert": _upsert,
}
"""How the verbs run that are more than one request on one object."""
