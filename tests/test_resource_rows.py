"""Every row of the table beyond the core, loaded together: what is new, what changes and what goes
arrives, with the right op, and `verify` and `reconcile` agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from stripe_feed.resources import RESOURCES
from stripe_feed.resources.model import Resource
from stripe_feed.sandbox import Sandbox
from stripe_feed.sandbox.state.kinds import KINDS, Kind
from stripe_feed.verify_run import verify
from tests.copies import FAST, Copy, copy_of
from tests.core import CORE
from tests.truth import kind_of

OTHERWISE = {"webhook_endpoints", "discounts"}
"""What the sandbox makes in other ways; discounts come with what they are on."""
MORE = {
    name: row
    for name, row in RESOURCES.items()
    if name not in (*CORE, *OTHERWISE) and row.parent is None  # those have tests of their own
}
each_row = pytest.mark.parametrize("row", MORE.values(), ids=list(MORE))


def kind(name: str) -> Kind:
    """What the sandbox knows about the objects of a table."""
    return KINDS[kind_of(name)]


class Told:
    """What was done to the account between two runs, by table."""

    def __init__(self, copy: Copy) -> None:
        self.copy = copy
        self.made = {name: [self.make(name) for _ in range(3)] for name in MORE}
        self.created: dict[str, str] = {}
        self.updated: dict[str, str] = {}
        self.deleted: dict[str, str] = {}
        self.rows: list[dict[str, int]] = []
        self.differences: list[Any] = []

    def make(self, name: str) -> str:
        """Create an object, with one that it belongs to."""
        box, of = self.copy.box, kind(name)
        if name == "invoice_items":
            made = {"customer": next(iter(box.objects("customers")))}
        else:
            made = {of.owner: box.create(of.owners)["id"]} if of.owners else {}
        return str(box.create(of.name, **made)["id"])

    def sync(self) -> None:
        self.copy.box.advance(90_000)  # lists without a filter are read once a day
        self.rows.append(self.copy.sync(resources=list(MORE)).rows)

    def change(self) -> None:
        """One of each kind is created, one updated and one deleted, as far as Stripe lets them."""
        for name, (first, second, _) in self.made.items():
            of, box = kind(name), self.copy.box
            self.created[name] = self.make(name)
            if "updated" in of.events and "metadata" in box.objects(of.name)[second]:
                box.update(of.name, second, metadata={"changed": "yes"})
                self.updated[name] = second
            if "deleted" in of.events:
                box.delete(of.name, first)
                self.deleted[name] = first


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """First load, changes, second run, verify, reconcile and an idle run, of all rows at once."""
    box = Sandbox(customers=2, oddities=False)
    with copy_of(box, tmp_path_factory.mktemp("rows")) as copy:
        told = Told(copy)
        told.sync()
        copy.check(*MORE)
        told.change()
        told.sync()
        access: Any = {"api_key": box.key, "api_base": copy.url} | FAST
        told.differences = verify(
            database=str(copy.folder / copy.database), resources=list(MORE), seed=1, **access
        ).differences
        yield told


@each_row
def test_the_sandbox_wants_the_same_permission(row: Resource) -> None:
    """And serves the list at the same path."""
    assert kind(row.table).permission == row.permission


def ops(told: Told, row: Resource, id: str) -> list[str]:
    found = told.copy.select(
        f"select op from stripe.changes where resource = '{row.table}' and object_id = '{id}' order by seq"
    )
    return [op for (op,) in found]


def test_every_table_equals_the_account(told: Told) -> None:
    """Rows and children, of the first and of the second run."""
    assert told.rows[0].keys() >= MORE.keys()
    told.copy.check(*MORE)


@each_row
def test_changes_have_the_right_op(told: Told, row: Resource) -> None:
    """A new object is created once, another updated or deleted once for each of its events."""
    of = kind(row.table)
    assert ops(told, row, told.created[row.table]).count("c") == 1
    if row.table in told.updated:
        updates = Counter(ops(told, row, told.updated[row.table]))
        assert updates == {"u": len(of.types("updated"))}
    if row.table in told.deleted:
        assert ops(told, row, told.deleted[row.table]) == ["d"]


def test_verify_agrees(told: Told) -> None:
    assert told.differences == []


def test_nothing_is_left_to_reconcile_or_to_load(told: Told) -> None:
    """A comparison of all lists finds nothing, and an idle run writes nothing."""
    done = told.copy.sync(resources=list(MORE), reconcile=True)
    assert (done.rows, sum(done.healed.values())) == ({}, 0)
    told.copy.box.advance(90_000)
    assert told.copy.sync(resources=list(MORE)).rows == {}
    told.copy.box.advance(200)
    idle = told.copy.sync(resources=list(MORE))
    walks = sum(len(row.list_filters) for row in MORE.values())
    assert idle.rows == {} and idle.requests <= walks + 4
