"""The state of a push after each of its runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

PushState = Literal["healthy", "warning", "failed", "recovered", "interrupted"]
PUSH_STATES: tuple[PushState, ...] = ("healthy", "warning", "failed", "recovered")
"""The states that a push can be in: a run that was interrupted does not change it."""
TROUBLES: tuple[PushState, ...] = ("warning", "failed")


def state_of(run: Mapping[str, Any], before: str) -> PushState:
    """The state of a push after a run, as the log has it; `before` is the state before it.

    `warning`: some rows were rejected or have no known outcome; `failed`: an error stopped the run;
    `recovered`: healthy again, which a retry of failed rows cannot tell after an error;
    `interrupted`: the run did not end, so nothing is known.
    """
    counts = run["counts"]
    if run["ended_at"] is None:
        return "interrupted"
    if run["error"] or counts.get("not_sent"):
        return "failed"
    if counts.get("rejected") or counts.get("unknown"):
        return "warning"
    if before == "failed" and run["is_retry"]:
        return "failed"  # the other rows still wait
    return "recovered" if before in TROUBLES else "healthy"


def with_states(
    runs: Iterable[Mapping[str, Any]], before: str = "healthy"
) -> Iterator[tuple[Mapping[str, Any], PushState, str]]:
    """Each run of one push, oldest first, with the state after it and the one before; an interrupted
    run leaves the state as it was.
    """
    for run in runs:
        state = state_of(run, before)
        yield run, state, before
        if state != "interrupted":
            before = state
