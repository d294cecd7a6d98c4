"""What one row needs: a new object, an update, nothing; or why it cannot be sent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ...api.forms import path_to
from ...errors import InvalidParameter
from ..checks import check_id, check_metadata
from ..consequences import side_effects
from ..lookup.find import Lookup, Object
from .decision import Action, Decision, FieldChange, Update, field_changes, leaves
from .definition import Definition
from .log import MARKER, LoggedRow, PushStep
from .mapping import Wanted, params_for, update_only, update_params
from .matching import Matcher
from .references import References
from .rules.invoices import update_invoice, update_invoice_item, update_quote
from .rules.prices import update_price
from .rules.subscriptions import BILLS, ENDED, update_subscription


def decide(
    push: Definition,
    references: References,
    wanted: Wanted,
    logged: LoggedRow | None,
    creates: bool = False,
) -> Decision:
    """Look up the object of a row, and say what it needs; what the row names is created, if it
    `creates` what is missing. Raises `InvalidParameter` for a row that cannot be sent.
    """
    content, noun = wanted.content, push.row.noun
    if push.mode == "insert" and logged is not None and logged.object_id:
        return Decision(wanted.key, "skip", logged.object_id, reason="It was inserted before.")
    matcher = references.matcher
    held = find_object(matcher, push, wanted, logged)
    if held is None:
        if push.mode == "update":
            return Decision(wanted.key, "skip", reason=f"No {noun} matches.")
        return _creation(push, references.resolve(wanted, creates))
    if push.mode == "insert":
        return Decision(
            wanted.key, "none", held["id"], reason=f"A {noun} matches already.", content=content
        )
    rule = _RULES.get(push.object, _update)
    wanted = _revived(references.resolve(wanted, creates), held, logged)
    _check_fixed(push, wanted, held)
    steps, fields, notes = rule(matcher.lookup, push, wanted, held, logged)
    steps = tuple(steps)
    if wanted.of_run and all(_is_of_run(wanted, step) for step in steps):
        steps, fields, notes = (), (), ()
    effects = (note for step in steps for note in side_effects(push.row, step.params))
    action: Action = "update" if steps else "none"
    return Decision(
        wanted.key, action, held["id"], steps, tuple(fields), "", content, (*notes, *effects)
    )


def _check_fixed(push: Definition, wanted: Wanted, held: Object) -> None:
    """Raise `InvalidParameter` for a row that wants what an object has for good to be another."""
    for name in UNCHANGEABLE if push.object != "prices" else ():
        value, now = wanted.given.get(name), held.get(name)
        if isinstance(value, str) and isinstance(now, str) and value.lower() != now.lower():
            noun = push.row.noun
            raise InvalidParameter(
                f"The {name} of the {noun} cannot change any more. A row with another key makes a new {noun}.",
                name,
            )


def _is_of_run(wanted: Wanted, step: PushStep) -> bool:
    """Whether a request would say no more than when the run began."""
    return all(path in wanted.of_run for path, _ in leaves({**step.params}))


def _update(
    lookup: Lookup, push: Definition, wanted: Wanted, held: Object, logged: LoggedRow | None
) -> Update:
    params = update_params(push, wanted, held)
    if not params:
        return (), (), ()
    step = PushStep("update", "post", path_to(push.row.verbs["update"].path, held["id"]), params)
    return (step,), field_changes(held, params), ()


UNCHANGEABLE = frozenset(("customer", "currency"))
"""What an object can have for good; a price with another currency is a new price."""
_Rule = Callable[[Lookup, Definition, Wanted, Object, "LoggedRow | None"], Update]
_RULES: dict[str, _Rule] = {
    "prices": update_price,
    "subscriptions": update_subscription,
    "invoices": update_invoice,
    "invoice_items": update_invoice_item,
    "quotes": update_quote,
}
"""Kinds of objects whose update is more than one request with what differs."""


def _revived(wanted: Wanted, held: Object, logged: LoggedRow | None) -> Wanted:
    """A row that comes back undoes what was done to its object when it went."""
    if logged is None or logged.state != "deleted":
        return wanted
    undone = {name: value for name, (was, value) in _UNDONE.items() if held.get(name) is was}
    return replace(wanted, given={**undone, **wanted.given})


_UNDONE = {"active": (False, True), "cancel_at_period_end": (True, False)}
"""Fields by which an object went, and what brings it back."""


def _creation(push: Definition, wanted: Wanted) -> Decision:
    params = params_for(push, wanted, "create")
    check_metadata(params.get("metadata"), {MARKER: "its key"})
    steps = [PushStep("create", "post", push.row.path, params)]
    if later := update_only(push, wanted):
        steps.append(
            PushStep("update", "post", push.row.verbs["update"].path.format(id="{0}"), later)
        )
    shown = (FieldChange(name, None, value) for name, value in leaves({**params, **later}))
    notes = (BILLS,) if push.object == "subscriptions" else side_effects(push.row, params)
    return Decision(
        wanted.key, "create", None, tuple(steps), tuple(shown), "", wanted.content, notes
    )


def find_object(
    matcher: Matcher, push: Definition, wanted: Wanted, logged: LoggedRow | None
) -> Object | None:
    """The object of a row: the one that it was before, else the one that matches."""
    if logged is not None and logged.object_id:
        held = matcher.get(push.row, logged.object_id)
        if held is not None:
            return held
    if push.match is None:
        return None
    value = wanted.given.get(push.match)
    if value in (None, ""):
        raise InvalidParameter(f"{push.match} is empty, and rows match on it.", push.match)
    if push.match == "id":
        value = check_id(push.row, value)
    found = [
        one
        for one in matcher.find(push.row, push.match, value)
        if push.match == "id" or one.get("status") not in ENDED
    ]
    if len(found) > 1 and push.if_several == "error":
        ids = ", ".join(str(one["id"]) for one in found[:5])
        raise InvalidParameter(
            f"{len(found)} {push.row.noun}s match on {push.match} ({ids}). "
            "Match on something unique, or choose with if_several: newest or oldest."
        )
    return found[-1 if push.if_several == "newest" else 0] if found else None
