"""Order the events of one object within one second: each begins with the state that the one before
ended with.

Stripe's times have whole seconds, and its order within a second means nothing.
`previous_attributes` gives the state before each event, so the events form a chain of states; a
creation starts from absence, a deletion ends in it. States are given as hashes; equal hashes are
equal states. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

Kind = Literal["created", "updated", "status", "deleted"]
ABSENT = ""  # the state before a creation and after a deletion
UNKNOWN_STATE = "?"  # a state that no event tells


@dataclass(frozen=True, slots=True)
class Transition:
    """One event as a transition from a state to another. Kinds: `created`, `updated`, `deleted`,
    and `status`, of which only the state after is known (such as `invoice.paid`). `before` is None
    if unknown.
    """

    kind: Kind
    id: str
    type: str
    before: str | None
    after: str
    seen: bool = False


def order_transitions(
    steps: Sequence[Transition], start: str | None = None, next_state: str | None = None
) -> tuple[list[Transition], bool]:
    """Return the transitions in causal order without duplicates (the same change reported twice),
    and whether no other order is possible.

    `start`: the state before the second, `ABSENT` for none, None if unknown. `next_state`: the
    state after it, if known. `steps` come in reverse of Stripe's order, which is kept if nothing
    better is known.
    """
    if len(steps) == 1:
        return list(steps), True
    matched, match_sure = _match_deletions(steps, start, next_state)
    distinct = _without_duplicates(matched, start)
    updates = [step for step in distinct if step.kind != "status"]
    if start is None and next_state is not None and is_cycle(updates):
        start = next_state
    status_only = [step for step in distinct if step.kind == "status"]
    chain = _chain(updates, start, {step.after for step in status_only})
    sure = len(distinct) == len({(s.type, s.before, s.after) for s in matched}) and not (
        start is None and is_cycle(updates)
    )
    chained = all(earlier.after == later.before for earlier, later in pairwise(chain))
    ordered = _insert_status_only(chain, status_only, start)
    return ordered, sure and match_sure and chained and _is_unique(chain)


def _match_deletions(
    steps: Sequence[Transition], start: str | None, next_state: str | None
) -> tuple[list[Transition], bool]:
    """Match each deletion without a body to the state it ended, and say whether only one match was
    possible.

    The life that was known before ends first, the one that continues ends last.
    """
    bare = [step for step in steps if step.before is None and step.kind == "deleted"]
    if not bare:
        return list(steps), True
    excess = _excess([step for step in steps if step.kind != "status" and step.before is not None])
    if start:
        excess[start] -= 1
    first_life = reachable(steps, start) if start else set()
    dead = [image for image, n in excess.items() if n < 0 and image]
    dead.sort(key=lambda image: (image == next_state, image not in first_life))
    surplus = dead[len(bare) :]
    sure = not surplus or (
        len(surplus) == 1
        and (
            surplus[0] == next_state
            or (len(bare) == 1 and dead[0] in first_life and surplus[0] not in first_life)
        )
    )
    ends = {step.id: image for step, image in zip(bare, dead, strict=False)}
    duplicate_before = dead[-1] if dead else start or UNKNOWN_STATE  # for a duplicate
    return [
        replace(step, before=ends.get(step.id, duplicate_before)) if step in bare else step
        for step in steps
    ], sure


def reachable(steps: Sequence[Transition], start: str) -> set[str]:
    """The states that updates lead to from `start`, itself included."""
    states, new = set[str](), {start}
    while new:
        states |= new
        new = {
            step.after for step in steps if step.kind == "updated" and step.before in new
        } - states
    return states


def _without_duplicates(steps: Sequence[Transition], start: str | None) -> list[Transition]:
    """Treat two events with the same content as one change reported twice, unless the object really
    went there and back again.
    """
    kept: dict[tuple[str, str | None, str], Transition] = {}
    for step in sorted(steps, key=lambda step: (not step.seen, step.id)):
        kept.setdefault((step.type, step.before, step.after), step)
    if len(kept) == len(steps):
        return list(steps)
    kept_ids = {step.id for step in kept.values()}
    if _is_chain([step for step in steps if step.kind != "status"], start):
        return [step for step in steps if step.kind != "status" or step.id in kept_ids]
    return [step for step in steps if step.id in kept_ids]


def _is_chain(updates: Sequence[Transition], start: str | None) -> bool:
    """Whether all updates can follow each other in one chain."""
    excess = _excess(updates)
    starts = [image for image, n in excess.items() if n > 0]
    if len(starts) > 1 or any(abs(n) > 1 for n in excess.values()):
        return False
    return start is None or not starts or starts[0] == start


def is_cycle(moves: Sequence[Transition]) -> bool:
    """Whether the updates end in the state they began with, so that they do not tell which one it
    was.
    """
    return len(moves) > 1 and not any(_excess(moves).values())


def unique_start(moves: Sequence[Transition]) -> str | None:
    """The state that the updates begin with, if only one is possible."""
    starts = [image for image, n in _excess(moves).items() if n > 0]
    return starts[0] if len(starts) == 1 else None


def _excess(moves: Sequence[Transition]) -> Counter[str | None]:
    """How much more often each state is left than reached."""
    excess: Counter[str | None] = Counter()
    for step in moves:
        excess[step.before] += 1
        excess[step.after] -= 1
    return excess


def _chain(
    updates: Sequence[Transition], start: str | None, status_states: Collection[str]
) -> list[Transition]:
    """All updates in one chain from `start`; several chains, one after the other, if they are not
    connected. A state that a status event reports was reached by an update, so it does not begin
    the first chain.
    """
    left = list(updates)
    chain: list[Transition] = []
    while left:
        path = _longest_path(left, _start(left, start, status_states))
        used = {step.id for step in path}
        left = [step for step in left if step.id not in used]
        chain += path
        start = path[-1].after
    return chain


def _start(
    updates: Sequence[Transition], start: str | None, status_states: Collection[str]
) -> str | None:
    if start is not None and any(step.before == start for step in updates):
        return start
    excess = _excess(updates)
    first = next((step for step in updates if step.seen), updates[0])
    starts = [step.before for step in updates if excess[step.before] > 0] or [first.before]
    return next((image for image in starts if image not in status_states), starts[0])


def _longest_path(moves: Sequence[Transition], start: str | None) -> list[Transition]:
    """The longest path from a state that uses each update once (Hierholzer's algorithm)."""
    out: dict[str | None, list[Transition]] = {}
    for step in reversed(moves):
        out.setdefault(step.before, []).append(step)
    stack: list[tuple[str | None, Transition | None]] = [(start, None)]
    line: list[Transition] = []
    while stack:
        image, taken = stack[-1]
        if out.get(image):
            move = out[image].pop()
            stack.append((move.after, move))
        else:
            stack.pop()
            if taken is not None:
                line.append(taken)
    return line[::-1]


def _is_unique(line: Sequence[Transition]) -> bool:
    """Whether the chain of distinct updates is the only possible one: cycles through the same state
    could swap places.

    That takes a state that is reached three times, or two that are reached in turns.
    """
    open: list[str | None] = []
    closed: set[str | None] = set()
    for image in [*(step.before for step in line[:1]), *(step.after for step in line)]:
        if image in closed:
            return False
        if image in open:
            at = open.index(image)
            closed.update(open[at:])
            del open[at:]
        else:
            open.append(image)
    return True


def _insert_status_only(
    updates: Sequence[Transition], status_only: Sequence[Transition], start: str | None
) -> list[Transition]:
    """Insert each status event right after the update that reached its state; if none did, it moved
    the object there itself.
    """
    ordered: list[Transition] = []
    pending = list(status_only)
    state = start
    slots: list[Transition | None] = [None, *updates]
    for update in slots:
        if update is not None:
            if update.before != state:  # a jump that only a status event can explain
                jumps = [step for step in pending if step.after == update.before]
                ordered += jumps
                pending = [step for step in pending if step not in jumps]
            if update.kind == "deleted":  # no status event follows a deletion
                ordered += pending if update is updates[-1] else []
                pending = [] if update is updates[-1] else pending
            ordered.append(update)
            state = update.after
        here = [step for step in pending if step.after == state]
        ordered += here
        pending = [step for step in pending if step not in here]
    return ordered + pending
