"""Read and change objects for writes, and convert their parameters to fields."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from ..protocol.errors import Refusal, exclusive, missing
from ..protocol.parameters import Params
from ..samples.values import Object
from ..state import builders, mutations
from ..state.kinds import KINDS
from ..world import World

ADDRESS = dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"))
MOST_KEYS, LONGEST_NAME, LONGEST_VALUE = 50, 40, 500


def object_in_path(account: World, table: str, id: str) -> Object:
    """Return the object that the path names, or raise 404."""
    return _found(account, table, id, "id", 404)


def object_in_param(account: World, table: str, id: str, param: str) -> Object:
    """Return the object that a parameter names, or raise 400."""
    return _found(account, table, id, param, 400)


def _found(account: World, table: str, id: str, param: str, status: int) -> Object:
    row = account.tables[table].rows.get(id)
    if row is None:
        raise missing(KINDS[table].object, id, param, status, account.other_mode_of(table, id))
    return row.content()


def add(account: World, table: str, fields: Object) -> Object:
    """Store a new object and record its events. `fields` must be complete."""
    kind = KINDS[table]
    whole = {"object": kind.object, kind.dated: account.now, "livemode": account.livemode} | fields
    opt_in = {name: whole.pop(name) for name in kind.opt_in if name in whole}
    return builders.insert(account, table, whole, opt_in)


def change(account: World, table: str, id: str, fields: Object) -> Object:
    """Replace fields of an object and record its events."""
    return mutations.update(account, table, id, fields)


def check_id_is_free(account: World, table: str, id: str) -> None:
    """Raise an error if another object has the id that the client chose."""
    if id in account.tables[table].rows:
        object = KINDS[table].object.capitalize()
        raise Refusal(400, f"{object} already exists.", "resource_already_exists", "id")


def new_id(account: World, table: str, given: Params) -> str:
    """Return the id that the client chose, or a new one."""
    if "id" not in given:
        return account.rng.id(KINDS[table].prefix)
    check_id_is_free(account, table, given["id"])
    return str(given["id"])


def schedule(account: World, at: int, act: Callable[[], None]) -> None:
    """Let Stripe act by itself at a time. The events name no request."""

    def acting() -> None:
        request = {"id": None, "idempotency_key": None}
        with suppress(Refusal), account.event_log.action(request):
            act()

    account.schedule(at, acting)


def merge_hash(before: Object | None, given: Params | None, empty: Object) -> Object | None:
    """Merge given fields into a hash. None unsets the hash."""
    return None if given is None else empty | (before or {}) | given


def to_fields(before: Object, given: Params, unset: Object) -> Object:
    """The parameters as fields: metadata merged, and for what is unset null or its value in
    `unset`.
    """
    fields = {name: unset.get(name) if value is None else value for name, value in given.items()}
    if "metadata" in given:
        fields["metadata"] = merge_metadata(before.get("metadata") or {}, given["metadata"])
    return fields


def merge_metadata(
    before: dict[str, str], given: Params | None, name: str = "metadata"
) -> dict[str, str]:
    """Merge metadata. `""` removes a key, None removes all."""
    if given is None:
        return {}
    for key, value in given.items():
        if len(key) > LONGEST_NAME:
            raise Refusal(
                400, f"Invalid key: {key} must be a string under 40 characters", param=name
            )
        if len(value) > LONGEST_VALUE:
            raise Refusal(
                400, f"Invalid val: {value} must be a string under 500 characters", param=name
            )
    both = {key: value for key, value in (before | given).items() if value}
    if len(both) > MOST_KEYS:
        raise Refusal(
            400,
            f"Metadata can have up to {MOST_KEYS} keys, but you've set {len(both)}.",
            param=name,
        )
    return both


def check_exclusive(given: Params, *names: str) -> str:
    """Return which of these parameters is given, if any. Raise an error if there are two."""
    there = [name for name in names if given.get(name) is not None]
    if len(there) > 1:
        raise exclusive(*names)
    return there[0] if there else ""


def check_currency(given: str, param: str = "currency") -> str:
    if len(given) != 3 or not (given.isascii() and given.isalpha()):
        raise Refusal(400, f"Invalid currency: {given}.", param=param)
    return given.lower()


def check_url(url: str | None, param: str) -> None:
    if url is not None and not url.startswith(("http://", "https://")):
        raise Refusal(400, "Not a valid URL", "url_invalid", param)


def check_minimum(least: int, value: int | None, param: str) -> None:
    if value is not None and value < least:
        raise Refusal(
            400,
            f"This value must be greater than or equal to {least}.",
            "parameter_invalid_integer",
            param,
        )
