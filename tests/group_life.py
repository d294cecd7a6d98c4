"""A small account with resources of every way of reading, its life, and what a copy of it must be."""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import Any

from stripe_feed.resources import RESOURCES
from stripe_feed.sandbox import Sandbox
from stripe_feed.sandbox.samples.annotations import fields_of
from stripe_feed.sandbox.scenarios.plain_activity import act, create_one
from stripe_feed.sandbox.state.kinds import KINDS, Kind
from tests.copies import Copy
from tests.feed_truth import Row, assert_complete, changes
from tests.truth import kind_of

WAYS: dict[str, tuple[str, ...]] = {
    "whole walks": ("quotes", "invoice_rendering_templates", "terminal_locations", "meters"),
    "lists without events": ("balance_transactions", "verification_reports", "invoice_payments"),
    "lists of parents": (
        "customers", "tax_ids", "customer_balance_transactions", "accounts", "capabilities",
        "treasury_financial_accounts", "products", "product_features",
    ),
    "expanded children": ("checkout_sessions", "payment_links", "transfers", "radar_value_lists"),
    "held objects": ("customers", "subscriptions", "coupons", "discounts"),
    "unfiltered events": (
        "charges", "payment_intents", "setup_intents", "disputes", "subscription_schedules",
        "issuing_disputes", "verification_sessions", "topups", "payouts", "quotes",
    ),
    "a bit of each": (
        "quotes", "terminal_locations", "balance_transactions", "customers", "tax_ids",
        "customer_balance_transactions", "payment_links", "subscriptions", "coupons", "discounts",
    ),
}  # fmt: skip
"""The resources that stand for each way of reading."""


def account(seed: int, tables: Collection[str]) -> Sandbox:
    """A few objects of each table, none of them new.

    Its clock goes on during a run, as ours does: what happens after a run must not be older than
    the cursors that the run has stored.
    """
    box = Sandbox(seed=seed, customers=4, products=3, oddities=False, real_time=True)
    box.silent_changes = False
    for id, one in box.objects("subscriptions").items():
        if one["discounts"]:  # by coupons that were deleted, which the copy has all the same
            box.update("subscriptions", id, discounts=[])
    box.advance(3_600)
    for table in tables:
        if table not in ("customers", "products", "subscriptions", "discounts"):
            for _ in range(3):
                with box.account.lock:
                    create_one(box.account, _kind(table))
                box.advance(7)
    box.advance(2_000)
    return box


def _kind(table: str) -> Kind:
    return KINDS[kind_of(table)]


def live(box: Sandbox, tables: Sequence[str], dice: random.Random, count: int) -> None:
    """Objects of the tables are created, changed and deleted; what discounts gets other discounts."""
    names = [name for name in tables if name != "discounts"]
    for _ in range(count):
        box.advance(dice.choice((0, 1, 30)))
        table = dice.choice(names)
        if "discounts" in tables and table in ("customers", "subscriptions"):
            _discount(box, table, dice)
        elif _kind(table).group == "core" or table == "coupons":  # a discount may outlive a coupon
            ids = list(box.objects(table))
            box.update(table, dice.choice(ids), metadata={"n": str(dice.random())})
        else:
            with box.account.lock, box.account.event_log.action():
                act(box.account, [_kind(table)])
    box.advance(dice.choice((60, 400)))


def _discount(box: Sandbox, table: str, dice: random.Random) -> None:
    id, number = dice.choice(list(box.objects(table))), f"di_{dice.randrange(10_000)}"
    coupon = dice.choice(list(box.objects("coupons")))
    discount = {
        "id": number,
        "object": "discount",
        "start": box.now,
        "end": None,
        "source": {"type": "coupon", "coupon": coupon},
    }
    if table == "customers":
        box.update(table, id, discount=discount)
    else:
        box.account.set_opt_in(number, {"discount": discount})
        box.update(table, id, discounts=[number] * dice.randint(0, 1))


def assert_equal(copy: Copy, tables: Sequence[str], whole_at: int) -> None:
    """Fail unless each table equals the account and the log tells what happened, each thing once.
    `whole_at`: the second in which a run came to its end for the first time.
    """
    own = [name for name in tables if RESOURCES[name].path]
    try:
        copy.check(*own, volatile=False, found_later=True)
    except AssertionError as difference:
        raise AssertionError(f"{difference}\n{_trail(copy, str(difference))}") from None
    if "discounts" in tables:
        held = {id for (id,) in copy.select("select id from stripe.discounts")}
        assert held >= _named(copy.box), "a discount is missing"
    told_by_events = [name for name in own if RESOURCES[name].created_by]
    assert_complete(copy, told_by_events)
    for name in own:
        _assert_told(copy, name, whole_at)


def _trail(copy: Copy, text: str) -> str:
    """What happened to the objects that a text names, and what the copy knows of it."""
    lines = []
    for table, id in set(
        re.findall(r"^(\w+)[.\w]*:? of (\S+):|^(\w+): (\S+) ", text, re.M)
        and [
            (one[0] or one[2], one[1] or one[3])
            for one in re.findall(r"^(\w+)[.\w]* of (\S+):|^(\w+): (\S+) ", text, re.M)
        ]
    ):
        own = id.rpartition("/")[2]
        lines += [
            f"{one.at} {one.operation} {id} {one.events}"
            for one in copy.box.history
            if one.id == own
        ]
        lines += map(
            str,
            copy.select(
                f"select _version, _dlt_load_id, deleted_at from stripe.{table} where id = '{id}'"
            ),
        )
        lines += [
            f"{one['occurred_at']} {one['op']} {one['event_type']} {one['load']} {one['changed']}"
            for one in changes(copy, f"object_id = '{id}'")
        ]
        lines.append(str((copy.states.get(table), copy.states.get("changes", {}).get(table))))
    return "\n".join(lines)


def _named(box: Sandbox) -> set[str]:
    """The discounts that objects have now."""
    found = {id for one in box.objects("subscriptions").values() for id in one["discounts"]}
    customers = box.objects("customers").values()
    return found | {one["discount"]["id"] for one in customers if one["discount"]}


def _assert_told(copy: Copy, table: str, whole_at: int) -> None:
    """Fail unless the changes of each object begin with its creation if it is new, end with what it
    is, and are about what happened.

    An object is new if it was created since its first load began. If no event tells
    of its creation, and it does not say when that was, it is new if it came after that load.
    """
    box, row = copy.box, RESOURCES[table]
    by_object: dict[str, list[Row]] = defaultdict(list)
    for change in changes(copy, f"resource = '{table}'"):
        by_object[change["object_id"]].append(change)
    shown = _shown(box, table)
    mutations = defaultdict(list)
    for one in box.history:
        if one.table == kind_of(table):
            mutations[one.id].append(one)
    for id, told in by_object.items():
        assert mutations[id.rpartition("/")[2]], f"{table} {id}: told, and nothing happened"
        ops = "".join(change["op"] for change in told)
        lives = ops.count("c")
        assert lives <= 1 + ops.count("d"), f"{table} {id}: created twice: {ops}"
        assert "c" not in ops.replace("dc", "")[1:], f"{table} {id}: created late: {ops}"
        assert (ops[-1] == "d") == (id not in shown), f"{table} {id}: ends with {ops}"
        if id in shown:
            assert _plain(row, told[-1]["after"]) == _plain(row, shown[id]), f"{table} {id}"
    for id, content in shown.items():
        happened = mutations[id.rpartition("/")[2]]
        first = _since(copy, table)
        if not by_object[id] and happened and happened[0].at >= first and not _has_flag(row):
            created = content.get(row.created_column) if row.created_column else None
            if created is None and not row.created_by and happened[0].at < whole_at:
                continue
            assert created is not None and created < first, f"{table} {id}: untold"


def _has_flag(row: Any) -> bool:
    return bool(row.parent and row.parent.flag)


def _since(copy: Copy, table: str) -> int:
    """The second from which on what happens is told."""
    state = copy.states[table]
    events = copy.states.get("changes", {}).get(table, {})
    return int(events.get("since", state.get("since", state["t0"])))


def _shown(box: Sandbox, table: str) -> dict[str, Row]:
    """The objects of a table by the ids of its rows."""
    parent = RESOURCES[table].parent
    with box.account.lock:
        return {
            f"{row.group}/{row.id}" if parent and parent.local_ids else row.id: row.content()
            for row in box.account.tables[kind_of(table)].rows.values()
            if not parent or row.group
        }


def _plain(row: Any, content: Row) -> Row:
    """What a change tells of an object."""
    left_out = {*row.volatile, *row.bearer_links, *row.excluded, "id"}
    left_out |= {child.field for child in row.children}
    left_out |= {row.parent.column} if row.parent else set()
    known = fields_of(content["object"])
    return {
        name: json.dumps(value, sort_keys=True)
        for name, value in content.items()
        if name not in left_out and name in known and value is not None
    }
