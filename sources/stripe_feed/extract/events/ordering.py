"""Events of one object in one second, in the order in which they happened: each begins where the
one before ended.

Stripe's times have whole seconds, and its order within one means nothing. What changed tells the
image before each event, and so events form a trail from image to image; a creation leads there from
nothing, a deletion back. Images are given as keys; equal keys are equal images. Pure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

Role = Literal["begins", "moves", "says", "ends"]
NOTHING = ""  # the key of no image: before a creation and after a deletion
UNKNOWN = "?"  # of one that no event tells


@dataclass(frozen=True, slots=True)
class Step:
    """An event as a step: `begins` (created), `moves` from an image to another, `says` (only the
    image after is known, such as `invoice.paid`), `ends` (deleted; `before` None where it does not
    hold its last image).
    """

    role: Role
    id: str
    type: str
    before: str | None
    after: str
    seen: bool = False


def in_order(
    steps: Sequence[Step], known: str | None = None, then: str | None = None
) -> tuple[list[Step], bool]:
    """Return the steps in causal order, without twins (the same change told twice), and whether no
    other order would do.

    `known`: the image before the second, `NOTHING` for none, None where it is not known; `then`:
    the one after it, if known. `steps` come in Stripe's order reversed, which is kept where nothing
    better is known.
    """
    if len(steps) == 1:
        return list(steps), True
    whole, told = _with_ends(steps, known, then)
    alone = _without_twins(whole, known)
    moves = [step for step in alone if step.role != "says"]
    if known is None and then is not None and is_round(moves):
        known = then
    says = [step for step in alone if step.role == "says"]
    line = _trail(moves, known, {step.after for step in says})
    sure = len(alone) == len({(s.type, s.before, s.after) for s in whole}) and not (
        known is None and is_round(moves)
    )
    chained = all(one.after == other.before for one, other in pairwise(line))
    return _with_says(line, says, known), sure and told and chained and _is_only(line)


def _with_ends(
    steps: Sequence[Step], known: str | None, then: str | None
) -> tuple[list[Step], bool]:
    """Bare deletions end the images that are reached once more than they are left, and whether
    there was but one choice.

    The life that was known ends first, the one that goes on last.
    """
    bare = [step for step in steps if step.before is None and step.role == "ends"]
    if not bare:
        return list(steps), True
    excess = _excess([step for step in steps if step.role != "says" and step.before is not None])
    if known:
        excess[known] -= 1
    first = reached(steps, known) if known else set()
    dead = [image for image, n in excess.items() if n < 0 and image]
    dead.sort(key=lambda image: (image == then, image not in first))
    rest = dead[len(bare) :]
    sure = not rest or (
        len(rest) == 1
        and (rest[0] == then or (len(bare) == 1 and dead[0] in first and rest[0] not in first))
    )
    ends = {step.id: image for step, image in zip(bare, dead, strict=False)}
    other = dead[-1] if dead else known or UNKNOWN  # of a twin
    return [
        replace(step, before=ends.get(step.id, other)) if step in bare else step for step in steps
    ], sure


def reached(steps: Sequence[Step], start: str) -> set[str]:
    """The images that updates lead to from one, which is among them."""
    found, new = set[str](), {start}
    while new:
        found |= new
        new = {step.after for step in steps if step.role == "moves" and step.before in new} - found
    return found


def _without_twins(steps: Sequence[Step], known: str | None) -> list[Step]:
    """Two events of one content are one change told twice, unless the object really went there and
    back again.
    """
    kept: dict[tuple[str, str | None, str], Step] = {}
    for step in sorted(steps, key=lambda step: (not step.seen, step.id)):
        kept.setdefault((step.type, step.before, step.after), step)
    if len(kept) == len(steps):
        return list(steps)
    once = {step.id for step in kept.values()}
    if _is_trail([step for step in steps if step.role != "says"], known):
        return [step for step in steps if step.role != "says" or step.id in once]
    return [step for step in steps if step.id in once]


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


def start_of(moves: Sequence[Step]) -> str | None:
    """The image that moves begin with, where there is but one."""
    starts = [image for image, n in _excess(moves).items() if n > 0]
    return starts[0] if len(starts) == 1 else None


def _excess(moves: Sequence[Step]) -> Counter[str | None]:
    """How much more often each image is left than reached."""
    excess: Counter[str | None] = Counter()
    for step in moves:
        excess[step.before] += 1
        excess[step.after] -= 1
    return excess


def _trail(moves: Sequence[Step], start: str | None, said: Collection[str]) -> list[Step]:
    """All moves in a line from `start`; several lines, one after the other, where they do not hang
    together: an image that is only said has been moved to, and so does not begin the first.
    """
    left = list(moves)
    found: list[Step] = []
    while left:
        line = _line(left, _start(left, start, said))
        used = {step.id for step in line}
        left = [step for step in left if step.id not in used]
        found += line
        start = line[-1].after
    return found


def _start(moves: Sequence[Step], known: str | None, said: Collection[str]) -> str | None:
    if known is not None and any(step.before == known for step in moves):
        return known
    excess = _excess(moves)
    first = next((step for step in moves if step.seen), moves[0])
    starts = [step.before for step in moves if excess[step.before] > 0] or [first.before]
    return next((image for image in starts if image not in said), starts[0])


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


def _is_only(line: Sequence[Step]) -> bool:
    """Whether distinct moves, in a line, fit no other one: rounds from one image could change
    places with each other.

    That takes an image that is reached three times, or two that are reached in turns.
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


def _with_says(moves: Sequence[Step], says: Sequence[Step], start: str | None) -> list[Step]:
    """What only says where the object stands comes right after it got there; else it moved there
    itself.
    """
    found: list[Step] = []
    waiting = list(says)
    at = start
    places: list[Step | None] = [None, *moves]
    for move in places:
        if move is not None:
            if move.before != at:  # a jump that only one of those can explain
                jumps = [one for one in waiting if one.after == move.before]
                found += jumps
                waiting = [one for one in waiting if one not in jumps]
            if move.role == "ends":  # nothing is said of what is gone
                found += waiting if move is moves[-1] else []
                waiting = [] if move is moves[-1] else waiting
            found.append(move)
            at = move.after
        here = [one for one in waiting if one.after == at]
        found += here
        waiting = [one for one in waiting if one not in here]
    return found + waiting
