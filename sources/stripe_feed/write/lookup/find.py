"""Finding the objects that an action is about, and saying what the answer came from: an id, the
copy's tables, a list, or Stripe's search.

A list is what Stripe holds now. Search can be a minute late and finds phrases, so each hit is tested,
and it never decides that an object does not exist yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import msgspec

from ...api.client import Api, InvalidBody, Reply
from ...api.forms import path_to
from ...errors import NotFound, RequestRefused, SetupError, UsageError
from ...resources.writable import WRITABLE, Writable
from ..checks import check_id
from ..result import Via
from .copy import CopyAnswer, CopyPlace, NoAnswer, ask_copy
from .filters import Group, list_filters, matches, read, search_query

Object = dict[str, Any]

PAGE = 100
MOST_READ = 10_000  # objects that a look-up tests one by one
NO_SEARCH = "Stripe refuses the search"
_LOOK_BACK = 300  # seconds: what a copy may not know yet

_decoder = msgspec.json.Decoder(dict[str, Any])


def decode(body: bytes) -> Object:
    """Decode an object of Stripe's. Raises `InvalidBody` for other JSON."""
    found = _decoder.decode(body)
    if "object" not in found and not found.get("deleted"):
        raise InvalidBody("no object of Stripe's")
    return found


def check_mode(api: Api, answer: Object) -> None:
    """Raise `SetupError` if an object is live and the key is not, or the reverse."""
    live = answer.get("livemode")
    if live is not None and live != api.live:
        data, key = ("live", "test") if live else ("test", "live")
        raise SetupError(
            f"Stripe answers in another mode than the key's: {data} data to a {key} key ({answer.get('id')}). "
            "Check the key and STRIPE_API_BASE before anything else is sent."
        )


@dataclass(frozen=True, slots=True)
class Found:
    """Objects that fulfil the conditions, and what answered."""

    objects: tuple[Object, ...]
    via: Via
    has_more: bool = False
    notes: tuple[str, ...] = ()  # what else could not answer, and why
    request_id: str | None = None


class Pages:
    """The pages of one list or search, read as somebody takes objects from them."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.has_more = False
        self.request_id: str | None = None

    def listed(
        self,
        row: Writable,
        filters: Mapping[str, Any],
        most: int | None = None,
        expand: tuple[str, ...] = (),
    ) -> Iterator[Object]:
        """Read a list. One that hides some objects is walked once for each part."""
        parted = {name for walk in row.walks for name in walk}
        walks = ({},) if parted & filters.keys() else row.walks
        left = most
        for n, walk in enumerate(walks):
            for item in self.of_path(row.path, {**filters, **walk}, left, expand):
                left = None if left is None else left - 1
                yield item
            self.has_more = self.has_more or n < len(walks) - 1
            if left == 0:
                return

    def of_path(
        self,
        path: str,
        filters: Mapping[str, Any],
        most: int | None,
        expand: tuple[str, ...] = (),
    ) -> Iterator[Object]:
        """Read one list."""
        extra = {"expand": [f"data.{name}" for name in expand]} if expand else {}
        left, after = most, dict[str, str]()
        while left is None or left > 0:
            limit = PAGE if left is None else min(PAGE, left)
            page = self._page(path, {**filters, "limit": limit, **after, **extra})
            ended = not page.get("has_more") or not page["data"]
            self.has_more = not ended
            yield from page["data"]
            left = None if left is None else left - len(page["data"])
            if ended:
                return
            after = {"starting_after": page["data"][-1]["id"]}

    def searched(self, row: Writable, query: str) -> Iterator[Object]:
        """Read what Stripe's search finds."""
        path = row.verbs["search"].path
        place: dict[str, str] = {}
        while True:
            page = self._page(path, {"query": query, "limit": PAGE, **place})
            yield from page["data"]
            if not page.get("has_more") or not page.get("next_page"):
                return
            place = {"page": page["next_page"]}

    def _page(self, path: str, params: Mapping[str, Any]) -> Object:
        reply: Reply[Object] = self.api.get(path, params, decode, is_action=True)
        self.request_id = reply.request_id
        for item in reply.value["data"][:1]:
            check_mode(self.api, item)
        return reply.value


@dataclass(frozen=True, slots=True)
class Lookup:
    """Look-ups in one account."""

    api: Api
    copy: CopyPlace | None = None

    def get(self, row: Writable, object_id: str, expand: tuple[str, ...] = ()) -> Reply[Object]:
        """Retrieve one object. A deleted customer is a stub with `deleted`. Raises `NotFound`."""
        path = path_to(row.verbs["get"].path, check_id(row, object_id))
        reply = self.api.get(path, {"expand": list(expand)}, decode, is_action=True)
        check_mode(self.api, reply.value)
        return reply

    def list_below(self, path: str, limit: int, expand: tuple[str, ...] = ()) -> Found:
        """Objects of a list that one object has."""
        pages = Pages(self.api)
        objects = tuple(pages.of_path(path, {}, limit, expand))
        return Found(objects, "list", pages.has_more, request_id=pages.request_id)

    def search(self, row: Writable, wanted: Group, limit: int) -> Found:
        """Objects that fulfil the conditions: from the copy, else from a list that can say them all,
        else from Stripe's search, else from a list that is tested one by one.
        """
        answer, notes = self._from_copy(row, wanted, limit + 1)
        if answer is not None:
            return _limited(answer.objects, limit, "tables")
        _, complete = list_filters(wanted, row)
        query = search_query(wanted, row)
        if complete or query is None or "search" not in row.verbs:
            return replace(self.listing(row, wanted, limit), notes=notes)
        pages = Pages(self.api)
        hits = (hit for hit in pages.searched(row, query) if matches(wanted, hit))
        try:
            found = _limited(tuple(islice(hits, limit + 1)), limit, "search")
        except RequestRefused:  # not every account may search
            return replace(self.listing(row, wanted, limit), notes=(*notes, NO_SEARCH))
        return replace(found, notes=notes, request_id=pages.request_id)

    def listing(
        self, row: Writable, wanted: Group, limit: int, expand: tuple[str, ...] = ()
    ) -> Found:
        """Objects of the list endpoint that fulfil the conditions."""
        filters, complete = list_filters(wanted, row)
        pages = Pages(self.api)
        if complete:
            objects = tuple(pages.listed(row, filters, limit, expand))
            return Found(objects, "list", pages.has_more, request_id=pages.request_id)
        tested = (
            item
            for item in _bounded(pages.listed(row, filters, None, expand))
            if matches(wanted, item)
        )
        found = _limited(tuple(islice(tested, limit + 1)), limit, "list")
        return replace(found, request_id=pages.request_id)

    def find(self, row: Writable, match: Mapping[str, Any], decides_create: bool) -> Found:
        """Every object that matches, as it is now.

        `decides_create`: if there is none, one is going to be created, so search does not answer.
        """
        if not match or any(value in (None, "") for value in match.values()):
            raise UsageError("Nothing to match on. Give an id, or --match PROPERTY=VALUE.")
        if any(isinstance(value, Mapping | list | tuple) for value in match.values()):
            raise UsageError("A property to match on has one value.")
        wanted = read(match)
        if "id" in match:
            return Found(self._existing([str(match["id"])], row, wanted), "id")
        answer, notes = self._from_copy(row, wanted, MOST_READ)
        if answer is not None and answer.objects:
            ids = [str(item["id"]) for item in answer.objects]
            if objects := self._existing(ids, row, wanted):
                return Found(objects, "tables")
        return replace(self._find_now(row, wanted, decides_create, answer), notes=notes)

    def _find_now(
        self, row: Writable, wanted: Group, decides_create: bool, answer: CopyAnswer | None
    ) -> Found:
        """What Stripe holds. If the copy knows of none, the list is read from where the copy ends."""
        filters, _ = list_filters(wanted, row)
        query = search_query(wanted, row) if "search" in row.verbs else None
        if not filters and query is not None and (answer or not decides_create):
            try:
                found = Pages(self.api).searched(row, query)
                hits = tuple(hit for hit in found if matches(wanted, hit))
                if hits or not decides_create:
                    return Found(hits, "search")
            except RequestRefused:  # not every account may search
                answer = None
        if not filters and answer is not None and "created" in row.parameters["list"]:
            filters = {"created": {"gte": answer.read_until - _LOOK_BACK}}
        return Found(self._all(row, wanted, filters), "list")

    def _all(self, row: Writable, wanted: Group, filters: Mapping[str, Any]) -> tuple[Object, ...]:
        """All that a list has and that match; an e-mail address is asked for as given and in lower
        case.
        """
        asked = [dict(filters)]
        if (email := str(filters.get("email", ""))) != email.lower():
            asked.append({**filters, "email": email.lower()})
        found: dict[str, Object] = {}
        for narrowed in asked:
            for item in _bounded(Pages(self.api).listed(row, narrowed)):
                if matches(wanted, item):
                    found[item["id"]] = item
        return tuple(found.values())

    def _existing(self, ids: list[str], row: Writable, wanted: Group) -> tuple[Object, ...]:
        """Those of some ids that exist and match now."""
        found = []
        for object_id in ids:
            try:
                item = self.get(row, object_id).value
            except NotFound:
                continue
            if not item.get("deleted") and matches(wanted, item):
                found.append(item)
        return tuple(found)

    def _from_copy(
        self, row: Writable, wanted: Group, limit: int
    ) -> tuple[CopyAnswer | None, tuple[str, ...]]:
        if self.copy is None:
            return None, ()
        try:
            return ask_copy(self.api, self.copy, row.table, wanted, limit), ()
        except NoAnswer as reason:
            return None, (str(reason),)


def _limited(objects: tuple[Object, ...], limit: int, via: Via) -> Found:
    return Found(objects[:limit], via, len(objects) > limit)


def _bounded(objects: Iterator[Object]) -> Iterator[Object]:
    """Raise `UsageError` before a look-up reads an account without end."""
    for n, item in enumerate(objects):
        if n >= MOST_READ:
            raise UsageError(
                f"Stripe's lists cannot be filtered by this, and {MOST_READ:,} objects did not tell. "
                "Match on the id or the e-mail address, or name a copy (--database) that is up to date."
            )
        yield item


def writable(resource: str) -> Writable:
    """The row of a resource. Raises `UsageError` for unknown ones."""
    if resource not in WRITABLE:
        raise UsageError(
            f"There are no actions on {resource!r}. Choose from: {', '.join(WRITABLE)}."
        )
    return WRITABLE[resource]
