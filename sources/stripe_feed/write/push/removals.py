"""What becomes of an object whose row is gone."""

from __future__ import annotations

from ...api.forms import path_to
from ..consequences import consequences
from ..lookup.find import Lookup
from .decide import OPEN, Decision
from .definition import Definition
from .log import LoggedRow, Step


def decide_removal(lookup: Lookup, push: Definition, logged: LoggedRow, explain: bool) -> Decision:
    """What is to be done to the object of a row that is gone. `explain`: look up what goes with it."""
    if logged.state == "open" or logged.object_id is None:
        return Decision(logged.row_key, "settle", logged.object_id, reason=OPEN)
    step = Step("delete", "delete", path_to(push.row.verbs["delete"].path, logged.object_id), {})
    note = consequences(lookup, push.row, "delete", logged.object_id) if explain else ""
    return Decision(logged.row_key, "delete", logged.object_id, (step,), notes=(note,) * bool(note))
