"""Fields that name another object: found by a property, and created if that is asked for."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ...errors import InvalidParameter
from ...resources.writable import WRITABLE
from ..checks import check
from ..lookup.filters import matches, read
from ..lookup.known import known_value
from ..parameters import convert
from .definition import Definition
from .log import CREATED_FOR, PushLog, PushStep, content_of
from .mapping import CELL_TYPES, Reference, Wanted
from .matching import Matcher
from .send import Sender

PLANNED_ID = "(new)"  # behind the prefix of its ids: an object that a run would create


@dataclass(frozen=True, slots=True)
class References:
    """Look-ups of the objects that rows name. Without a `sender`, nothing is created."""

    push: Definition
    matcher: Matcher
    sender: Sender | None
    log: PushLog | None = None  # of what earlier runs created
    planned: set[Reference] = field(default_factory=set)
    _found: dict[Reference, str | None] = field(default_factory=dict)
    _locks: dict[Reference, threading.Lock] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def resolve(self, wanted: Wanted) -> Wanted:
        """Put ids in the place of what a row names. Raises `InvalidParameter`; what may be created
        comes last, so that nothing is created for a row that is refused for another name.
        """
        if CELL_TYPES.issuperset(map(type, wanted.given.values())):
            return wanted
        in_turn = sorted(wanted.given, key=lambda path: _may_create(wanted.given[path]))
        found = {path: self._resolved(path, wanted.given[path]) for path in in_turn}
        given = {
            path: found[path]
            for path, value in wanted.given.items()
            if not isinstance(value, Reference) or found[path] is not None
        }
        return replace(wanted, given=given)

    def _resolved(self, path: str, value: Any) -> Any:
        match value:
            case str():
                return value
            case Reference():
                named = _as_compared(value)
                with self._lock:
                    lock = self._locks.setdefault(named, threading.Lock())
                with lock:  # two rows may name one new customer
                    if named not in self._found:
                        self._found[named] = self._find(path, value)
                    return self._found[named]
            case list():
                return [self._resolved(path, inner) for inner in value]
            case Mapping():
                return {key: self._resolved(path, inner) for key, inner in value.items()}
        return value

    def _find(self, path: str, wanted: Reference) -> str | None:
        way = wanted.association
        row = WRITABLE[way.find]
        found = self.matcher.find(row, way.by, wanted.value)
        if len(found) > 1:
            ids = ", ".join(str(one["id"]) for one in found[:5])
            raise InvalidParameter(
                f"{path}: {len(found)} {row.noun}s have this {way.by} ({ids}).", path
            )
        if found:
            return str(found[0]["id"])
        if way.on_missing == "create":
            return self._create(path, wanted)
        if way.on_missing == "null":
            return None
        raise InvalidParameter(f"{path}: no {row.noun} has this {way.by}.", path)

    def _create(self, path: str, wanted: Reference) -> str:
        way = wanted.association
        row = WRITABLE[way.find]
        params = convert(row, "create", {way.by: wanted.value})
        check(row, "create", params)
        name = f"{self.push.name}{CREATED_FOR}{way.find}"
        named = {way.by: known_value(way.by, wanted.value)}  # Stripe's list tells cases apart
        key = reference_key(way.by, wanted.value)
        if (held := self._created_before(name, key, named)) is not None:
            return held
        if self.sender is None:
            self.planned.add(wanted)
            return f"{row.prefix}{PLANNED_ID}"
        log, outcome = self.sender.log, None
        if steps := log.open_steps(name, key):
            outcome = self.sender.carry_out(steps, False)
        if outcome is None or outcome.status == "rejected":
            step = PushStep("create", "post", row.path, params)
            outcome = self.sender.carry_out_new(name, key, content_of(params), [step])
        if outcome.status != "done" or outcome.object_id is None:
            raise InvalidParameter(f"{path}: the new {row.noun}: {outcome.reason}", path)
        return outcome.object_id

    def _created_before(self, name: str, key: str, named: Mapping[str, Any]) -> str | None:
        """What an earlier run created for this, if it is still so."""
        logged = self.log.row(name, key) if self.log else None
        if logged is None or logged.object_id is None:
            return None
        held = self.matcher.get(WRITABLE[name.rpartition(CREATED_FOR)[2]], logged.object_id)
        return logged.object_id if held is not None and matches(read(named), held) else None


def _may_create(value: Any) -> bool:
    match value:
        case Reference():
            return value.association.on_missing == "create"
        case list():
            return any(map(_may_create, value))
        case Mapping():
            return any(map(_may_create, value.values()))
    return False


def reference_key(by: str, value: object) -> str:
    """The key of what was created for a value, in the log: it holds no e-mail address."""
    return f"{by}={content_of({by: known_value(by, value)})}"


def _as_compared(wanted: Reference) -> Reference:
    """What a row names, as it is told from what others name: addresses in any case are one."""
    if wanted.association.by != "email":
        return wanted
    return replace(wanted, value=known_value("email", wanted.value))
