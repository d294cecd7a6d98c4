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
from .matching import Matcher, references_in
from .send import Sender

PLANNED_ID = "(new)"  # behind the prefix of its ids: an object that a run would create


@dataclass(frozen=True, slots=True)
class References:
    """Look-ups of the objects that rows name. Without a `sender`, nothing is created; `planned` has what
    is missing.
    """

    push: Definition
    matcher: Matcher
    sender: Sender | None
    log: PushLog | None = None  # of what earlier runs created
    planned: set[Reference] = field(default_factory=set)
    _found: dict[Reference, str | None] = field(default_factory=dict)
    _locks: dict[Reference, threading.Lock] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def resolve(self, wanted: Wanted, creates: bool) -> Wanted:
        """Put ids in the place of what a row names, or what stands for the id of an object that is
        missing, unless it `creates` them. Raises `InvalidParameter`.
        """
        if CELL_TYPES.issuperset(map(type, wanted.given.values())):
            return wanted
        found = {path: self._resolved(path, value, creates) for path, value in wanted.given.items()}
        given = {
            path: found[path]
            for path, value in wanted.given.items()
            if not isinstance(value, Reference) or found[path] is not None
        }
        return replace(wanted, given=given)

    def missing(self, wanted: Wanted) -> set[Reference]:
        """What a row names and has to be created first."""
        if not self.planned:
            return set()
        named = {_as_compared(one) for one in references_in(wanted.given.values())}
        return {one for one in named if one in self.planned and one not in self._found}

    def _resolved(self, path: str, value: Any, creates: bool) -> Any:
        match value:
            case str():
                return value
            case Reference():
                named = _as_compared(value)
                with self._lock:
                    lock = self._locks.setdefault(named, threading.Lock())
                with lock:  # two rows may name one new customer
                    if named in self._found:
                        return self._found[named]
                    if named not in self.planned:
                        self._find(path, value, named)
                    if named in self.planned:
                        if not creates or self.sender is None:
                            return f"{WRITABLE[value.association.find].prefix}{PLANNED_ID}"
                        self._found[named] = self._create(path, value, self.sender)
                    return self._found[named]
            case list():
                return [self._resolved(path, inner, creates) for inner in value]
            case Mapping():
                return {key: self._resolved(path, inner, creates) for key, inner in value.items()}
        return value

    def _find(self, path: str, wanted: Reference, named: Reference) -> None:
        """Look an object up: it is found, or planned."""
        way = wanted.association
        row = WRITABLE[way.find]
        found = self.matcher.find(row, way.by, wanted.value)
        if len(found) > 1:
            ids = ", ".join(str(one["id"]) for one in found[:5])
            raise InvalidParameter(
                f"{path}: {len(found)} {row.noun}s have this {way.by} ({ids}).", path
            )
        if found:
            self._found[named] = str(found[0]["id"])
        elif way.on_missing == "create":
            check(row, "create", convert(row, "create", {way.by: wanted.value}))
            if (held := self._created_before(wanted)) is not None:
                self._found[named] = held
            else:
                self.planned.add(named)
        elif way.on_missing == "null":
            self._found[named] = None
        else:
            raise InvalidParameter(f"{path}: no {row.noun} has this {way.by}.", path)

    def _create(self, path: str, wanted: Reference, sender: Sender) -> str:
        way = wanted.association
        row = WRITABLE[way.find]
        params = convert(row, "create", {way.by: wanted.value})
        name, key = self._logged_as(wanted)
        outcome = None
        if steps := sender.log.open_steps(name, key):
            outcome = sender.carry_out(steps, False)
        if outcome is None or outcome.status == "rejected":
            step = PushStep("create", "post", row.path, params)
            outcome = sender.carry_out_new(name, key, content_of(params), [step])
        if outcome.status != "done" or outcome.object_id is None:
            raise InvalidParameter(f"{path}: the new {row.noun}: {outcome.reason}", path)
        return outcome.object_id

    def _logged_as(self, wanted: Reference) -> tuple[str, str]:
        """The name and key under which the log has what is created for a row."""
        way = wanted.association
        return f"{self.push.name}{CREATED_FOR}{way.find}", reference_key(way.by, wanted.value)

    def _created_before(self, wanted: Reference) -> str | None:
        """What an earlier run created for this, if it is still so."""
        logged = self.log.row(*self._logged_as(wanted)) if self.log else None
        if logged is None or logged.object_id is None:
            return None
        way = wanted.association
        held = self.matcher.get(WRITABLE[way.find], logged.object_id)
        named = {way.by: known_value(way.by, wanted.value)}  # Stripe's list tells cases apart
        return logged.object_id if held is not None and matches(read(named), held) else None


def reference_key(by: str, value: object) -> str:
    """The key of what was created for a value, in the log: it holds no e-mail address."""
    return f"{by}={content_of({by: known_value(by, value)})}"


def _as_compared(wanted: Reference) -> Reference:
    """What a row names, as it is told from what others name: addresses in any case are one."""
    if wanted.association.by != "email":
        return wanted
    return replace(wanted, value=known_value("email", wanted.value))
