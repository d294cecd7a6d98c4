"""A sample of the copy against Stripe: the row held, the object as Stripe shows it now, and what the changes lead to."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .destination import PIPELINE
from .errors import NotReadable, SetupError
from .extract import prior
from .extract.histories import same_shape
from .extract.images import Image, with_lists_of
from .extract.rereads import Read, retrieve
from .extract.session import Reading, Session, session_of
from .extract.shapes import Shape
from .extract.told import objects_told
from .locks import PATIENCE
from .place import DATASET
from .resources import CHANGES, RESOURCES, Resource
from .sync import chosen, looking, states_of

if TYPE_CHECKING:
    from typing_extensions import Unpack

SAMPLE = 100


@dataclass(frozen=True, slots=True)
class Difference:
    """An object whose copy is not true; `what` names fields, never their values."""

    resource: str
    object_id: str
    what: str


@dataclass(frozen=True, slots=True)
class Verified:
    """What was compared, by resource; `waiting` objects have events that a sync has still to apply."""

    compared: dict[str, int]
    waiting: dict[str, int]
    differences: list[Difference] = field(default_factory=list)


def verify(
    *,
    sample: int = SAMPLE,
    database: str | None = None,
    destination: str | None = None,
    dataset: str = DATASET,
    pipeline_name: str = PIPELINE,
    resources: Sequence[str] | None = None,
    seed: int | None = None,
    wait: float = PATIENCE,
    **reading: Unpack[Reading],
) -> Verified:
    """Compare up to `sample` objects of each resource, drawn by chance, with Stripe and with their last change.

    Nothing is written. Objects with events that are not applied yet are counted as waiting. Fields that change without an event
    (the volatile ones) are left out. The other arguments are those of `sync`. Raises the errors of `stripe_feed.errors`.
    """
    session = session_of(reading, kept=True)
    dice = random.Random(seed)
    with looking(session, database, destination, dataset, pipeline_name, wait) as pipeline:
        states, found = states_of(pipeline), Verified({}, {})
        if not states:
            raise SetupError("There is no copy yet. Run `stripe-feed sync` first, or name another --database or --dataset.")
        for name in chosen(resources):
            with pipeline.sql_client() as client:
                _verify(session, client, RESOURCES[name], states.get(CHANGES, {}).get(name), sample, dice, found)
        return found


def _verify(
    session: Session, client: Any, resource: Resource, cursors: Mapping[str, int] | None, sample: int, dice: random.Random,
    found: Verified,
) -> None:
    shape, table = session.shapes[resource.table], resource.table
    ids = sorted(id for (id,) in prior.all_rows(client, table, ["id"]))
    drawn = dice.sample(ids, min(sample, len(ids)))
    rows = prior.rows(client, shape, drawn)
    reads = dict(zip(drawn, session.pool.map(lambda id: retrieve(session.api, resource, shape, id), drawn), strict=True))
    told_later = _waiting(session, resource, cursors)
    settled = [id for id in drawn if id not in told_later]
    found.compared[table], found.waiting[table] = len(settled), len(drawn) - len(settled)
    images = prior.images(client, shape, rows)
    last = prior.last_images(client, table, dict.fromkeys(settled, session.api.now() + 1)) if cursors else {}
    unread = [id for id in settled if reads[id] is None and rows[id]["deleted_at"] is None]
    inside = {id for id in unread if _is_shown_inside(client, shape, rows[id])}      # as `reconcile` takes it, too
    for id in [id for id in settled if id not in inside]:
        for what in _differences(session, resource, rows[id], images[id], reads[id], last.get(id)):
            found.differences.append(Difference(table, id, what))


def _is_shown_inside(client: Any, shape: Shape, row: prior.Row) -> bool:
    """Whether what is held of an object is what an item shows of it: no list may show it."""
    copies = map(shape.object, prior.copies(client, shape.name, row["id"]))
    return any((copy.row.id, copy.hash) == (row["id"], row["_hash"]) for copy in copies)


def _waiting(session: Session, resource: Resource, cursors: Mapping[str, int] | None) -> set[str]:
    """The ids of objects with events that are not applied yet."""
    if cursors is None:
        return set()
    try:
        return set().union(*objects_told(session.api, resource, cursors["cursor"]))
    except NotReadable:
        return set()


def _differences(
    session: Session, resource: Resource, row: prior.Row, held: Image, read: Read | None,
    last: prior.LastImage | None,
) -> Iterator[str]:
    if read is None or row["deleted_at"] is not None:
        if read is not None:
            yield "it is marked as deleted, but Stripe has it"
        elif row["deleted_at"] is None:
            yield "Stripe does not have it any more"
        elif last is not None and last.image is not None:
            yield "its last change is no deletion"
        return
    shape = session.shapes[resource.table]
    now, compared = shape.image(read.record.row), prior.compared(resource, shape)
    before = with_lists_of(held, now, [child.field for child in resource.children])
    if wrong := [name for name in now if name in compared and before.get(name) != now.get(name)]:
        yield f"the row differs from Stripe in {', '.join(wrong)}"
    elif last is not None and last.image is None:
        yield "its last change is a deletion"
    elif last is not None and (wrong := _unlike(session, resource, last, now)):
        yield f"its last change differs from the row in {', '.join(wrong)}"


def _unlike(session: Session, resource: Resource, last: prior.LastImage, now: Image) -> list[str]:
    """The fields in which the image of a change differs from the row, if its shape is the row's."""
    if last.image is None or not same_shape(resource, last.api_version, session.api.version):
        return []
    return prior.unlike(resource, session.shapes[resource.table], last.image, now)
