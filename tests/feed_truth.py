"""Compares the `changes` table with what really happened in a sandbox, and with the tables beside
it.

Written from the sandbox's own history; it shares no code with what derives the changes.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby
from typing import Any

from stripe_feed.api.client import API_VERSION
from stripe_feed.resources import RESOURCES
from stripe_feed.sandbox import Sandbox
from tests.copies import Copy
from tests.core import CORE

NEVER = ("hosted_invoice_url", "invoice_pdf", "confirmation_secret")
COLUMNS = (
    "change_id", "resource", "object_id", "op", "origin", "event_id", "event_type", "api_version", "request_id",
    "extract(epoch from occurred_at)::bigint", "after::varchar", "previous::varchar", "before_quality", "changed::varchar", "late", "seq",
    "_dlt_load_id", "customer_id",
)  # fmt: skip
NAMES = (*(name.split("::")[0] for name in COLUMNS[:9]), "occurred_at", "after", "previous", "before_quality", "changed", "late",
         "seq", "load", "customer_id")  # fmt: skip

Row = dict[str, Any]


def changes(copy: Copy, where: str = "true") -> list[Row]:
    """All changes of completed loads, in the order of the feed."""
    query = (
        f"select {', '.join(COLUMNS)} from stripe.changes where _dlt_load_id in "
        f"(select load_id from stripe._dlt_loads where status = 0) and {where} order by _dlt_load_id, seq"
    )
    if not copy.select(
        "select 1 from information_schema.tables where table_schema = 'stripe' and table_name = 'changes'"
    ):
        return []  # nothing has changed yet
    rows = [dict(zip(NAMES, row, strict=True)) for row in copy.select(query)]
    for row in rows:
        for name in ("after", "previous", "changed"):
            row[name] = None if row[name] is None else json.loads(row[name])
    return rows


def assert_complete(
    copy: Copy, tables: Collection[str] = tuple(CORE), late: bool = False, orders: bool = True
) -> list[Row]:
    """Fail unless each transition that Stripe told is there once, as it was, in its order; `late`:
    some may come out of order.

    A resource's count from the second in which its first listing began: a slow run begins them in
    different seconds.
    """
    box = copy.box
    wanted = expected(box, {table: copy.states["changes"][table]["since"] for table in tables})
    found = [row for row in changes(copy) if row["origin"] == "event" and row["resource"] in tables]
    ids = [row["event_id"] for row in found]
    twins = {event.id: event.duplicate_of for event in box.events if event.duplicate_of}
    real = [twins.get(id, id) for id in ids]
    twice = {id for id in real if real.count(id) > 1} - {
        event.id for event in wanted if _goes_round(box, event)
    }
    assert not twice, f"told twice: {twice}"
    contents = {event.id: _content(event) for event in box.events}
    told = {contents[id] for id in ids}  # there, back and there again cannot be told from a twin
    missing = [
        event for event in wanted if event.id not in set(real) and contents[event.id] not in told
    ]
    assert not missing, (
        f"{len(missing)} missing: {[(e.type, e.object_id, e.created) for e in missing[:5]]}"
    )
    known = {event.id for event in wanted}
    phantom = [
        row["event_id"] for row in found if twins.get(row["event_id"], row["event_id"]) not in known
    ]
    assert not phantom, f"never happened: {phantom[:5]}"
    bodies = {event.id: json.loads(event.body) for event in box.events}
    for row in found:
        _assert_faithful(row, bodies[row["event_id"]])
    if orders:
        _assert_ordered(box, found, twins, wanted, late)
    return found


def _content(event: Any) -> str:
    """What twins have in common."""
    body = json.loads(event.body)
    return json.dumps([event.type, event.created, body["data"]], sort_keys=True)


def _goes_round(box: Sandbox, event: Any) -> bool:
    """Whether its object had so many events in its second that a twin could be a change of its own:
    there, back and there.
    """
    return (
        sum((one.object_id, one.created) == (event.object_id, event.created) for one in box.events)
        > 2
    )


def expected(box: Sandbox, since: Mapping[str, int]) -> list[Any]:
    """The events about objects of tables that are read, told and visible, in the order of
    happening; each table from a second.
    """
    end = box.now - 60
    begins = {RESOURCES[table].object: second for table, second in since.items()}
    types = {
        type
        for table in since
        for type in RESOURCES[table].events
        if not type.startswith("customer.discount")
    }
    return [
        event
        for event in box.events
        if event.type in types
        and not event.lost
        and event.duplicate_of is None
        and begins.get(json.loads(event.body)["data"]["object"]["object"], end)
        <= event.created
        < end
    ]


def _assert_faithful(row: Row, event: Row) -> None:
    resource = RESOURCES[row["resource"]]
    never = {*NEVER, *resource.bearer_links, *resource.excluded}
    object = {name: value for name, value in event["data"]["object"].items() if name not in never}
    kind = event["type"].rpartition(".")[2]
    deleted = kind == "deleted" and event["type"] != "customer.subscription.deleted"
    assert row["op"] == (
        "d" if deleted else "c" if event["type"] in RESOURCES[row["resource"]].created_by else "u"
    ), row
    assert row["occurred_at"] == event["created"]
    assert row["request_id"] == (event["request"] or {}).get("id")
    assert row["api_version"] == event["api_version"]
    if deleted:
        assert row["after"] is None
        if not object.get("deleted"):
            assert row["previous"] == object
    else:
        assert row["after"] == object, f"{row['event_id']}: after"
    if "previous_attributes" in event["data"]:
        old = {
            name: value
            for name, value in event["data"]["previous_attributes"].items()
            if name not in never
        }
        assert row["previous"] == old


def _assert_ordered(
    box: Sandbox, found: Sequence[Row], twins: Mapping[str, str], wanted: Sequence[Any], late: bool
) -> None:
    by_object: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in found:
        if not row["late"]:
            by_object[row["resource"], row["object_id"]].append(row)
    for (resource, id), rows in by_object.items():
        images = [row for row in rows if row["before_quality"] == "exact" and row["op"] == "u"]
        for row in images:
            before = before_of(row)
            n = rows.index(row)
            if (
                n
                and not late
                and rows[n - 1]["after"] is not None
                and rows[n - 1]["api_version"] == row["api_version"]
            ):
                volatile = RESOURCES[resource].volatile
                strip = dict.fromkeys(volatile)
                ended = by_ids({**rows[n - 1]["after"], **strip})
                assert by_ids({**before, **strip}) == ended, (
                    f"{resource} {id}: the chain breaks at {row['event_id']}"
                )


def by_ids(image: Row) -> Row:
    """With embedded prices and plans by their ids: Stripe shows them as they are now, without an
    event of what embeds them.
    """
    found = _without_copies(image)
    for name, value in image.items():
        if isinstance(value, dict) and isinstance(value.get("data"), list):
            found[name] = {**value, "data": [_without_copies(item) for item in value["data"]]}
    return found


def _without_copies(image: Row) -> Row:
    copies = {
        name: image[name]["id"] for name in ("price", "plan") if isinstance(image.get(name), dict)
    }
    return {**image, **copies}


def assert_in_order(copy: Copy) -> None:
    """Fail unless each object's changes are in the order in which its events happened, those told
    late aside.

    Events that hold one image have no order, and of a second in which an image came again any order
    that leads through it will do. A second of which one event was told late had to be told without
    it.
    """
    box = copy.box
    late = {
        (row["resource"], row["object_id"], int(row["occurred_at"]))
        for row in changes(copy, "late")
    }
    place = {event.id: n for n, event in enumerate(box.events)}
    twins = {event.id: event.duplicate_of for event in box.events if event.duplicate_of}
    by_object: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in changes(copy, "origin = 'event' and not late"):
        by_object[row["resource"], row["object_id"]].append(row)
    for (resource, id), rows in by_object.items():
        true = sorted(rows, key=lambda row: place[twins.get(row["event_id"]) or row["event_id"]])
        assert [row["occurred_at"] for row in rows] == [row["occurred_at"] for row in true], (
            f"{resource} {id}: out of order"
        )
        for (second, some), (_, happened) in zip(_seconds(rows), _seconds(true), strict=True):
            if (resource, id, second) in late:
                continue
            got, wanted = _images(some), _images(happened)
            if len({row["api_version"] for row in some}) > 1:
                continue  # images of two shapes form no trail
            again = len(wanted) > len({json.dumps(image, sort_keys=True) for image in wanted})
            assert got == wanted or (again and got[-1:] == wanted[-1:]), (
                f"{resource} {id}: out of order in a second"
            )


def _seconds(rows: Sequence[Row]) -> list[tuple[int, list[Row]]]:
    return [(at, list(some)) for at, some in groupby(rows, key=lambda row: int(row["occurred_at"]))]


def _images(rows: Sequence[Row]) -> list[Row | None]:
    """What an object was, one after the other; changes that only say what it is are left out."""
    found: list[Row | None] = []
    for row in rows:
        volatile = RESOURCES[row["resource"]].volatile
        image = (
            None
            if row["after"] is None
            else {name: value for name, value in row["after"].items() if name not in volatile}
        )
        image = image and by_ids(image)
        if not found or found[-1] != image:
            found.append(image)
    return found


def assert_folds(copy: Copy, tables: Collection[str] = tuple(CORE)) -> int:
    """Fail unless the changes lead to where the objects are: the last of each object that was told
    in time is what Stripe shows.

    Images of an older API version are not compared, nor those of a second with events of two
    versions, or of which one was told late: these have no order. Returns how many objects were.
    """
    rows = changes(copy, "true")
    last = {(row["resource"], row["object_id"]): row for row in rows if not row["late"]}
    versions: dict[tuple[str, str, int], set[str]] = defaultdict(set)
    for row in rows:
        versions[row["resource"], row["object_id"], int(row["occurred_at"])].add(
            "late" if row["late"] else row["api_version"]
        )
    true = {table: copy.box.objects(table) for table in tables}
    living_on = _living_on(copy.box)
    count = 0
    for (table, id), row in last.items():
        if (
            table not in tables
            or versions[table, id, int(row["occurred_at"])] != {API_VERSION}
            or (table, id) in living_on
        ):
            continue
        count += 1
        shown = true[table].get(id)
        left_out = {*RESOURCES[table].volatile, *NEVER}
        wanted = (
            None
            if shown is None
            else {name: value for name, value in shown.items() if name not in left_out}
        )
        after = (
            None
            if row["after"] is None
            else {name: value for name, value in row["after"].items() if name not in left_out}
        )
        if row["origin"] == "event":
            assert (after and by_ids(after)) == (wanted and by_ids(wanted)), (
                f"{table} {id}: the changes lead elsewhere"
            )
        else:
            assert (after is None) == (wanted is None), f"{table} {id}: the changes end otherwise"
    return count


def _living_on(box: Sandbox) -> set[tuple[str, str]]:
    """Prices and plans that were deleted without an event that tells of it, and that items still
    show: to a copy they are there.
    """
    items = box.children("subscription_items").values()
    shown = {
        (table, item[name]["id"])
        for item in items
        for table, name in (("prices", "price"), ("plans", "plan"))
    }
    forgotten = box.now - 29 * 86_400
    untold = {
        (event.table, event.object_id)
        for event in box.events
        if event.type.endswith(".deleted") and (event.lost or event.created < forgotten)
    }
    return shown & untold


def before_of(row: Row) -> Row:
    """The image before a change, from after and previous, as documented."""
    if row["op"] == "d":
        return dict(row["previous"])
    return _reverted(row["after"], row["previous"] or {}, False)


def _reverted(after: Any, previous: Any, is_map: bool) -> Row:
    found = dict(after)
    for name, old in previous.items():
        if is_map and old is None:
            found.pop(name, None)
        elif isinstance(old, dict) and isinstance(after.get(name), dict):
            found[name] = _reverted(after[name], old, name == "metadata")
        else:
            found[name] = old
    return found
