"""Events of one object in one second, in the order in which they happened: each begins where the one before ended.

Stripe's times have whole seconds, and its order within one means nothing. What changed tells the image before each event, and so
events form a trail from image to image. Images are given as keys; equal keys are equal images. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Role = Literal["begins", "moves", "says", "ends"]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """An event as a step: `begins` (created), `moves` from an image to another, `says` (only the image after is known, such as
    `invoice.paid`), `ends` (deleted)."""

    role: Role
    id: str
    type: str
    after: str
    before: str | None = None
    seen: bool = False


def in_order(steps: Sequence[Step], known: str | None = None) -> list[Step]:
    """Return the steps in causal order, without twins: the same change told twice. `known`: the image before the second.

    `steps` come in Stripe's order reversed, which is kept where nothing better is known.
    """
    if len(steps) == 1:
        return list(steps)
    steps = _without_twins(steps, known)
    begins = [step for step in steps if step.role == "begins"]
    ends = [step for step in steps if step.role == "ends"]
    if begins and ends and known is not None:
        return _recreated(steps, known)
    start = begins[0].after if begins else known
    return [*begins, *_middle(steps, start), *ends]


def _middle(steps: Sequence[Step], start: str | None) -> list[Step]:
    moves = _trail([step for step in steps if step.role == "moves"], start)
    return _with_says(moves, [step for step in steps if step.role == "says"], start)


def _recreated(steps: Sequence[Step], known: str) -> list[Step]:
    """An object that was there, was deleted and made again: what follows from its last image comes before its end."""
    moves = [step for step in steps if step.role == "moves"]
    old, at = [], known
    while (found := next((step for step in moves if step.before == at and step not in old), None)) is not None:
        old.append(found)
        at = found.after
    rest = [step for step in steps if step not in old]
    begins = [step for step in rest if step.role == "begins"]
    ends = [step for step in rest if step.role == "ends"]
    fresh = [step for step in rest if step.role in ("moves", "says")]
    ended_again = len(ends) > len(begins)
    return [*old, *ends[:1], *begins, *_middle(fresh, begins[0].after), *(ends[1:] if ended_again else [])]


def _without_twins(steps: Sequence[Step], known: str | None) -> list[Step]:
    """Two events of one content are one change told twice, unless the object really went there and back again."""
    kept: dict[tuple[str, str | None, str], Step] = {}
    for step in sorted(steps, key=lambda step: (not step.seen, step.id)):
        kept.setdefault((step.type, step.before, step.after), step)
    if len(kept) == len(steps):
        return list(steps)
    moves = [step for step in steps if step.role == "moves"]
    once = set(map(id, kept.values()))
    if _is_trail(moves, known):
        return [step for step in steps if step.role == "moves" or id(step) in once]
    return [step for step in steps if id(step) in once]


def _is_trail(moves: Sequence[Step], known: str | None) -> bool:
    """Whether all moves can follow each other in one line."""
    excess = _excess(moves)
    starts = [image for image, n in excess.items() if n > 0]
    if len(starts) > 1 or any(abs(n) > 1 for n in excess.values()):
        return False
    return known is None or not starts or starts[0] == known


def is_round(moves: Sequence[Step]) -> bool:
    """Whether the moves end where they began, so that they do not tell where that was."""
    return len(moves) > 1 and not any(_excess(moves).values())


def _excess(moves: Sequence[Step]) -> Counter[str | None]:
    """How much more often each image is left than reached."""
    excess: Counter[str | None] = Counter()
    for step in moves:
        excess[step.before] += 1
        excess[step.after] -= 1
    return excess


def _trail(moves: Sequence[Step], start: str | None) -> list[Step]:
    """All moves in a line from `start`; several lines, one after the other, where they do not hang together."""
    left = list(moves)
    found: list[Step] = []
    while left:
        at = _start(left, start)
        line = _line(left, at)
        used = set(map(id, line))
        left = [step for step in left if id(step) not in used]
        found += line
        start = line[-1].after
    return found


def _start(moves: Sequence[Step], known: str | None) -> str | None:
    if known is not None and any(step.before == known for step in moves):
        return known
    excess = _excess(moves)
    first = next((step for step in moves if step.seen), moves[0])
    return next((step.before for step in moves if excess[step.before] > 0), first.before)


def _line(moves: Sequence[Step], start: str | None) -> list[Step]:
    """The longest way from an image that uses each move once (Hierholzer's algorithm)."""
    out: dict[str | None, list[Step]] = {}
    for step in reversed(moves):
        out.setdefault(step.before, []).append(step)
    stack: list[tuple[str | None, Step | None]] = [(start, None)]
    line: list[Step] = []
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


def _with_says(moves: Sequence[Step], says: Sequence[Step], start: str | None) -> list[Step]:
    """What only says where the object stands comes right after it got there; else it moved there itself."""
    found: list[Step] = []
    waiting = list(says)
    at = start
    places: list[Step | None] = [None, *moves]
    for move in places:
        if move is not None:
            if move.before != at:        # a jump that only one of those can explain
                jumps = [one for one in waiting if one.after == move.before]
                found += jumps
                waiting = [one for one in waiting if one not in jumps]
            found.append(move)
            at = move.after
        here = [one for one in waiting if one.after == at]
        found += here
        waiting = [one for one in waiting if one not in here]
    return found + waiting
