"""A snapshot that was asked for: a change of op `r` for each object, as it was when the first
listing began.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..resources.model import Resource
from . import existing
from .events.classify import ObjectEvent, object_events
from .events.derive import initial_state
from .events.history import order_events
from .events.reader import oldest_first
from .run import Session
from .tables.changes import Change, customer_of, digest, encoded
from .tables.diff import Image
from .writer import Writer

BATCH = 5_000


def snapshot(session: Session, writer: Writer, since: int, hi: int) -> Iterator[Any]:
    """Yield the objects of a resource from the rows that are held, rewound by the events of [since,
    hi).

    So each later change begins where its object's snapshot ended.
    """
    resource = writer.resource
    if writer.client is None:
        return
    rewound = _rewound(session, resource, since, hi)
    with writer.client as client:
        ids = sorted(
            id
            for id, end in existing.all_rows(client, resource.table, ["id", "deleted_at"])
            if end is None
        )
    for start in range(0, len(ids), BATCH):
        some = ids[start : start + BATCH]
        with writer.client as client:
            rows = existing.rows(client, writer.shape, [id for id in some if id not in rewound])
            images = existing.images(client, writer.shape, rows)
        images |= {id: image for id in some if (image := rewound.pop(id, None)) is not None}
        yield from writer.changes(_read(session, resource, images, since))
    rest = {id: image for id, image in rewound.items() if image is not None}
    yield from writer.changes(_read(session, resource, rest, since))


def _rewound(session: Session, resource: Resource, since: int, hi: int) -> dict[str, Image | None]:
    """What the events tell of objects before them; None where they were not there yet or it cannot
    be told.
    """
    histories: dict[str, list[ObjectEvent]] = {}
    names = {resource.object: resource}
    for page in oldest_first(session.api, resource.events, since, hi) if since < hi else ():
        for event in page:
            for one in object_events(event, names):
                if not one.is_stub or one.kind == "deleted":
                    histories.setdefault(one.id, []).append(one)
    found = {id: initial_state(order_events(some)) for id, some in histories.items()}
    return {id: image for id, (known, image) in found.items() if known}


def _read(
    session: Session, resource: Resource, images: Mapping[str, Image], since: int
) -> list[Change]:
    return [
        Change(
            digest("snapshot", resource.table, id, since),
            resource.table,
            id,
            "r",
            "snapshot",
            since,
            encoded(resource, image),
            before_quality="exact",
            customer_id=customer_of(resource, id, image),
            api_version=session.api.version,
        )
        for id, image in images.items()
    ]
