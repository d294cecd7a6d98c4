"""Write a requested snapshot: a change of op `r` for each object, as it was when the first listing
began.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..resources.model import Resource
from . import existing
from .events.classify import ObjectEvent, by_object, object_events
from .events.history import initial_state, order_events
from .events.reader import oldest_first
from .run import RunContext
from .tables.changes import ChangeRow, customer_id_of, digest_id, encode_image
from .tables.diff import Image
from .writer import Writer

BATCH = 5_000


def snapshot(context: RunContext, writer: Writer, since: int, hi: int) -> Iterator[Any]:
    """Yield the snapshot of a resource from its stored rows, rewound by the events of [since, hi), so
    that each later change begins with the image in the snapshot.
    """
    resource = writer.resource
    if writer.client is None:
        return
    images_at_start = _images_at_start(context, resource, since, hi)
    with writer.client as client:
        ids = sorted(
            id
            for id, deleted_at in existing.all_rows(client, resource.table, ["id", "deleted_at"])
            if deleted_at is None
        )
    for start in range(0, len(ids), BATCH):
        batch = ids[start : start + BATCH]
        with writer.client as client:
            rows = existing.stored_rows(
                client, writer.codec, [id for id in batch if id not in images_at_start]
            )
            images = existing.objects_from_rows(client, writer.codec, rows)
        images |= {
            id: image for id in batch if (image := images_at_start.pop(id, None)) is not None
        }
        yield from writer.changes(_snapshot_rows(context, resource, images, since))
    unstored = {id: image for id, image in images_at_start.items() if image is not None}
    yield from writer.changes(_snapshot_rows(context, resource, unstored, since))


def _images_at_start(
    context: RunContext, resource: Resource, since: int, hi: int
) -> dict[str, Image | None]:
    """Return id -> the image before its first event; None if the object did not exist yet."""
    histories: dict[str, list[ObjectEvent]] = {}
    names = by_object([resource])
    for page in oldest_first(context.api, resource.events, since, hi) if since < hi else ():
        for event in page:
            for object_event in object_events(event, names):
                if not object_event.is_stub or object_event.kind == "deleted":
                    histories.setdefault(object_event.id, []).append(object_event)
    states = {id: initial_state(order_events(some)) for id, some in histories.items()}
    return {id: image for id, (known, image) in states.items() if known}


def _snapshot_rows(
    context: RunContext, resource: Resource, images: Mapping[str, Image], since: int
) -> list[ChangeRow]:
    return [
        ChangeRow(
            digest_id("snapshot", resource.table, id, since),
            resource.table,
            id,
            "r",
            "snapshot",
            since,
            encode_image(resource, image),
            before_quality="exact",
            customer_id=customer_id_of(resource, id, image),
            api_version=context.api.version,
        )
        for id, image in images.items()
    ]
