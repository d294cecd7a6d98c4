"""Compare a sample of the copy with Stripe, and a sample of Stripe with the copy: each row, the
object as Stripe shows it now, and the state its changes lead to.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from .destination.load import translate_errors
from .destination.locks import DEFAULT_WAIT
from .destination.pipeline import DEFAULT_PIPELINE, copy_names
from .destination.preflight import require_column_types
from .errors import NotReadable, SetupError
from .extract import existing
from .extract.events.classify import ids_with_events
from .extract.events.history import same_schema
from .extract.next_step import VERSION_STEP
from .extract.options import SourceOptions, resource_names
from .extract.paging.fetch import fetch_list_page
from .extract.paging.listing import FIRST_ACCOUNT
from .extract.paging.whole_walk import WholeWalk
from .extract.paging.windows import Planner, Walk
from .extract.refetch import Fetched, retrieve
from .extract.repairs import stray_rows
from .extract.repairs.copy_rows import VERSION_TOLERANCE
from .extract.repairs.row_digests import comparable_value, row_images
from .extract.run import RunContext, open_run
from .extract.tables.arrow import LoadStamp
from .extract.tables.diff import Image
from .extract.tables.rejected import WITHOUT_ID, Rejected
from .extract.writer import is_embedded_copy
from .resources import CHANGES, RESOURCES
from .resources.model import Resource
from .sync_run import open_checked_copy, resource_states, with_loaded
from .wording import counted

if TYPE_CHECKING:
    from typing_extensions import Unpack

_SAMPLE = 100
MAX_PAGES = 10  # of Stripe's lists, before random times


@dataclass(frozen=True, slots=True)
class Difference:
    """An object whose copy differs from Stripe; `what` names fields, never values."""

    resource: str
    object_id: str
    what: str


@dataclass(frozen=True, slots=True)
class Verified:
    """Counts by resource: `compared` objects, and `waiting` ones, whose events are not applied yet, or
    which are new in a list that is read whole once a day and was not read since.
    """

    compared: dict[str, int]
    waiting: dict[str, int]
    differences: list[Difference] = field(default_factory=list)


def verify(
    *,
    sample: int = _SAMPLE,
    database: str | None = None,
    destination: str | None = None,
    dataset: str | None = None,
    pipeline_name: str = DEFAULT_PIPELINE,
    resources: Sequence[str] | None = None,
    seed: int | None = None,
    wait: float = DEFAULT_WAIT,
    watch: Callable[[str], None] | None = None,
    **reading: Unpack[SourceOptions],
) -> Verified:
    """Compare a random sample with Stripe: up to `sample` objects per resource from the copy, and as
    many from Stripe's lists. Each row is compared with the object in Stripe and with its last
    change; missing, duplicate and orphaned rows are reported too.

    Writes nothing. Objects with events that are not applied yet count as waiting. Fields that
    change without an event (the volatile ones) are not compared. `watch` is called with progress
    texts. The other arguments are those of `sync`; without `resources`, everything that the copy
    holds is verified. Raises the errors of `stripe_feed.errors`.
    """
    context = open_run(reading, keep_open=True)
    rng = random.Random(seed)
    database, dataset = copy_names(
        reading.get("account"), database, destination, dataset, pipeline_name
    )
    with open_checked_copy(
        context, database, destination, dataset, pipeline_name, wait
    ) as pipeline:
        states, result = resource_states(pipeline), Verified({}, {})
        if not states:
            raise SetupError(
                "There is no copy yet. Run `stripe-feed sync` first, or name another --database or --dataset."
            )
        with translate_errors(pipeline):
            require_column_types(pipeline)
        names = resource_names(resources)
        for name in names if resources else with_loaded(names, pipeline):
            if RESOURCES[name].is_dependent:
                continue  # no list shows them, or only one that takes a request for each parent
            with pipeline.sql_client() as client:
                ResourceVerification(
                    context, client, RESOURCES[name], states, sample, rng, watch or _ignore_progress
                ).run(result)
        return result


def _ignore_progress(text: str) -> None:
    """Show no progress."""


class ResourceVerification:
    """The verification of one resource."""

    def __init__(
        self,
        context: RunContext,
        client: Any,
        resource: Resource,
        states: Mapping[str, Any],
        sample: int,
        rng: random.Random,
        watch: Callable[[str], None],
    ) -> None:
        self.context, self.client, self.resource, self.sample, self.rng = (
            context,
            client,
            resource,
            sample,
            rng,
        )
        self.watch = watch
        self.table, self.shape = resource.table, context.codecs[resource.table]
        self.listed: Mapping[str, Any] = states.get(self.table, {})
        self.cursors: Mapping[str, Any] | None = states.get(CHANGES, {}).get(self.table)
        self.until = min(
            self.listed.get("t0", 0),
            (self.cursors or self.listed).get("cursor", self.listed.get("t0", 0)),
        )
        self.hidden: set[str] = set()  # in the copy, but not in the list that should show them
        self.odd: dict[str, str] = {}  # objects that cannot be stored, with the reason
        self.pages: list[list[str]] = []  # the ids that were listed, newest first
        self.unwalked: set[str] = set()  # in a list that was not read since, before all of the copy

    def run(self, result: Verified) -> None:
        """Add the counts and the differences of this resource to the result."""
        self.watch(f"{self.table}: lists")
        shown = self._shown() if self.until else {}
        stored = {
            str(id)
            for (id,) in existing.all_rows(self.client, self.table, ["id"])
            if id is not None
        }
        self.unwalked = self._new_in_whole_lists(stored)
        drawn = self.rng.sample(sorted(stored), min(self.sample, len(stored)))
        listed = sorted(shown.keys() & stored)
        drawn += [
            id for id in self.rng.sample(listed, min(self.sample, len(listed))) if id not in drawn
        ]
        drawn += [id for id in sorted(self.hidden)[: self.sample] if id not in drawn]
        reads = self._read(drawn, shown)
        pending = self._ids_with_pending_events()
        drawn = [id for id in drawn if id not in self.odd]
        settled = [id for id in drawn if id not in pending]
        result.compared[self.table], result.waiting[self.table] = (
            len(settled),
            len(drawn) - len(settled) + len(self.unwalked - pending),
        )
        not_storable = [
            (self.table, id, f"it cannot be stored: {why}") for id, why in sorted(self.odd.items())
        ]
        differences = [
            *not_storable,
            *self._missing(shown, stored, pending),
            *self._astray(),
            *self._wrong(settled, reads),
        ]
        result.differences.extend(Difference(table, id, what) for table, id, what in differences)

    def _ids_with_pending_events(self) -> set[str]:
        """The ids of objects with events that are not applied yet."""
        if self.cursors is None:
            return set()
        known = partial(existing.known_change_ids, self.client)
        pages = ids_with_events(self.context.api, self.resource, self.cursors["cursor"], known)
        try:
            return set().union(*pages)
        except NotReadable:
            return set()

    def _shown(self) -> dict[str, Fetched]:
        """Read pages of Stripe's lists: the newest, and pages before random times; of a list that
        cannot be filtered by time, its first page.
        """
        oldest = self.context.account.created or FIRST_ACCOUNT
        has_time = bool(self.resource.created_field)
        count = min(MAX_PAGES, max(1, self.sample // 50)) if has_time else 0
        moments = [
            self.until,
            *(self.rng.randint(min(oldest, self.until), self.until) for _ in range(count)),
        ]
        shown: dict[str, Fetched] = {}
        for moment in moments:
            spans, on_pages = [], dict[str, Fetched]()
            for walk in self.resource.list_filters:
                planner: Walk = Planner([(0, moment)]) if has_time else WholeWalk()
                ask = planner.next_request()
                if ask is None:
                    continue
                page = fetch_list_page(
                    self.context.api,
                    self.resource,
                    self.shape,
                    walk,
                    ask,
                    token_taken=False,
                    reject=self._leave_out,
                )
                on_pages |= {id: Fetched(row, page.requested_at) for id, row in page.rows.items()}
                self.pages.append(list(page.rows))
                last = page.keys[-1].created if page.keys and page.has_more else None
                spans.append((last or 0) if page.has_more else -1)
            shown |= on_pages
            if not has_time:
                continue
            read_down_to = max(spans, default=moment)
            self.hidden |= (
                stray_rows.live_ids_between(
                    self.client, self.resource, read_down_to, moment, self.sample
                )
                - on_pages.keys()
            )
        return shown

    def _new_in_whole_lists(self, stored: Collection[str]) -> set[str]:
        """The objects at the beginning of lists that are read whole, newest first, before any that the
        copy holds: they came after the lists were read last.
        """
        if self.resource.created_field:
            return set()
        found: set[str] = set()
        for page in self.pages:
            new = list(takewhile(lambda id: id not in stored, page))
            if len(new) < len(page) or "empty" in self.listed:
                found.update(new)
        return found

    def _read(self, ids: Sequence[str], shown: Mapping[str, Fetched]) -> dict[str, Fetched | None]:
        """The objects as they are now; those that no list showed are requested one by one."""
        reads: dict[str, Fetched | None] = {id: shown[id] for id in ids if id in shown}
        unlisted = [id for id in ids if id not in shown]
        for id, read in zip(
            unlisted, self.context.connections.pool.map(self._retrieve, unlisted), strict=True
        ):
            reads[id] = read
            self.watch(f"{self.table}: {len(reads):,} of {counted(len(ids), 'object')}")
        return reads

    def _retrieve(self, id: str) -> Fetched | None:
        try:
            return retrieve(self.context.api, self.resource, self.shape, id)
        except Rejected as odd:
            self.odd[id] = odd.reason
            return None

    def _leave_out(self, odd: Rejected) -> None:
        """Record a listed object that cannot be stored, unless it is older than the start date."""
        if odd.created is None or odd.created >= self.listed.get("start", 0):
            self.odd[odd.id or WITHOUT_ID] = odd.reason

    def _missing(
        self, shown: Mapping[str, Fetched], stored: Collection[str], pending: Collection[str]
    ) -> Iterator[tuple[str, str, str]]:
        start = self.listed.get("start", 0)
        for id, read in sorted(shown.items()):
            created = read.record.created or 0
            if id not in {*stored, *pending, *self.unwalked} and start <= created < self.until:
                yield self.table, id, "Stripe has it, and the copy does not"

    def _astray(self) -> Iterator[tuple[str, str, str]]:
        """Rows that no run would write, and ids with several rows."""
        newest = (self.context.api.now() + VERSION_TOLERANCE) * VERSION_STEP
        for table in (self.table, *(child.table for child in self.resource.children)):
            yield from (
                (table, id, f"it is there {count} times")
                for id, count in stray_rows.duplicate_ids(self.client, table, self.sample)
            )
            for id in stray_rows.foreign_ids(
                self.client, table, self.context.account.id, self.sample
            ):
                yield table, id, "it is not of this account"
            for id in stray_rows.future_ids(self.client, table, newest, self.sample):
                yield table, id, "its version lies in the future"
        for child in self.resource.children:
            for id in stray_rows.orphan_ids(self.client, child, self.table, self.sample):
                yield child.table, id, f"its {child.parent} is not there"

    def _wrong(
        self, settled: Sequence[str], reads: Mapping[str, Fetched | None]
    ) -> Iterator[tuple[str, str, str]]:
        rows = existing.stored_rows(self.client, self.shape, settled)
        images = existing.objects_from_rows(self.client, self.shape, rows)
        existing_reads = [read for id in settled if (read := reads[id]) is not None]
        stamp = LoadStamp(self.context.account.id, "")
        true = dict(
            zip(
                [read.record.row.id for read in existing_reads],
                row_images(
                    self.resource, self.shape, [read.record for read in existing_reads], stamp
                ),
                strict=True,
            )
        )
        last: Mapping[str, existing.LastImage] = {}
        if self.cursors:
            last = existing.last_images(
                self.client, self.table, dict.fromkeys(settled, existing.AFTER_ANY_CHANGE)
            )
        for id in settled:
            if id not in rows or (reads[id] is None and self._is_known_from_items(rows[id])):
                continue
            for what in self._differences(
                rows[id], images[id], true.get(id), reads[id], last.get(id)
            ):
                yield self.table, id, what

    def _is_known_from_items(self, row: existing.StoredRow) -> bool:
        """Whether only subscription items show the object, and one still shows it as it is stored;
        `reconcile` accepts such rows too.
        """
        created_column = self.resource.created_column
        created = existing.stripe_value("timestamp", row.get(created_column))
        if row["deleted_at"] is not None or not is_embedded_copy(
            row["_version"] or 0, created, bool(row.get("active"))
        ):
            return False
        copies = self.shape.decode_objects(
            list(existing.embedded_copies(self.client, self.table, row["id"]))
        )
        return any(
            (record.row.id, record.hash) == (row["id"], row["_hash"])
            for record in copies
            if not isinstance(record, Rejected)
        )

    def _differences(
        self,
        row: existing.StoredRow,
        held: Image,
        true: Image | None,
        read: Fetched | None,
        last: existing.LastImage | None,
    ) -> Iterator[str]:
        if read is None or true is None or row["deleted_at"] is not None:
            if read is not None:
                yield "it is marked as deleted, but Stripe has it"
            elif row["deleted_at"] is None:
                yield "Stripe does not have it any more"
            elif last is not None and last.image is not None:
                yield "its last change is no deletion"
            return
        compared, lists = (
            existing.compared_fields(self.resource, self.shape),
            [child.field for child in self.resource.children],
        )
        if wrong := [
            name
            for name in true
            if name in compared
            and comparable_value(held.get(name), name in lists)
            != comparable_value(true[name], name in lists)
        ]:
            yield f"the row differs from Stripe in {', '.join(wrong)}"
        elif last is not None and last.image is None:
            yield "its last change is a deletion"
        elif last is not None and (
            wrong := _differing_fields(
                self.context, self.resource, last, self.shape.image(read.record.row)
            )
        ):
            yield f"its last change differs from the row in {', '.join(wrong)}"


def _differing_fields(
    context: RunContext, resource: Resource, last: existing.LastImage, now: Image
) -> list[str]:
    """The fields in which the last change differs from the row; none if their schemas differ."""
    if last.image is None or not same_schema(resource, last.api_version, context.api.version):
        return []
    return existing.differing_fields(resource, context.codecs[resource.table], last.image, now)
