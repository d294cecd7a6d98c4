"""Group resources whose events one request can list: Stripe takes a limited number of types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...resources.model import Resource

MAX_TYPES = 20  # Stripe's limit for `types[]`
MAX_FILTERED_CALLS = 3  # more are replaced with one call for all types
LATE = 86_400  # seconds; events that are read from so much earlier have calls of their own


@dataclass(frozen=True)
class PollGroup:
    """Resources whose events are polled together: their types fit into one request, or (`types` is
    None) the request is for every type.
    """

    resources: tuple[Resource, ...]
    types: tuple[str, ...] | None


def poll_groups(resources: Sequence[Resource], starts: Mapping[str, int]) -> list[PollGroup]:
    """Put the resources that have events into as few groups as possible; the types of one resource
    stay together. `starts`: table -> the second from which its events are read.

    If more than `MAX_FILTERED_CALLS` groups are needed, one group for every type replaces those of
    the resources that are not late: for a late one it would read the events of all again.
    """
    groups = _filtered_groups(resources)
    if len(groups) <= MAX_FILTERED_CALLS:
        return groups
    followed = [r for r in resources if r.events]
    newest = max(starts[r.table] for r in followed)
    late = [r for r in followed if starts[r.table] < newest - LATE]
    in_time = [r for r in followed if r not in late]
    rest = _filtered_groups(in_time)
    return [
        *_filtered_groups(late),
        *(rest if len(rest) <= MAX_FILTERED_CALLS else [PollGroup(tuple(in_time), None)]),
    ]


def _filtered_groups(resources: Sequence[Resource]) -> list[PollGroup]:
    groups: list[tuple[list[Resource], tuple[str, ...]]] = []
    for resource in sorted(resources, key=lambda row: -len(row.events)):
        if not resource.events:
            continue
        for index, (members, known) in enumerate(groups):
            types = tuple(dict.fromkeys((*known, *resource.events)))
            if len(types) <= MAX_TYPES:
                groups[index] = ([*members, resource], types)
                break
        else:
            groups.append(([resource], resource.events))
    return [PollGroup(tuple(members), types) for members, types in groups]
