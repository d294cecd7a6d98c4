"""Every row of the table beyond the core, loaded together: what is new, what changes and what goes
arrives, with the right op, and `verify` and `reconcile` agree.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from stripe_feed.resources import RESOURCES
from stripe_feed.resources.model import Resource
from stripe_feed.sandbox import Sandbox
from stripe_feed.sandbox.samples.annotations import fields_of
from stripe_feed.sandbox.state.kinds import KINDS, Kind
from stripe_feed.verify_run import verify
from tests.copies import FAST, Copy, copy_of
from tests.core import CORE
from tests.truth import kind_of

NEEDED = {"rak_customer_read", "rak_accounts_kyc_basic_read", "rak_event_read"}
OTHERWISE = {"webhook_endpoints", "discounts"}
"""What the sandbox makes in other ways; discounts come with what they are on."""
MORE = {
    name: row
    for name, row in RESOURCES.items()
    if name not in (*CORE, *OTHERWISE) and row.parent is None  # those have tests of their own
}
each_row = pytest.mark.parametrize("row", MORE.values(), ids=list(MORE))

SOME = (
    "coupons",
    "invoice_items",
    "quotes",
    "balance_transactions",
    "payment_links",
    "features",
    "tax_codes",
    "shipping_rates",
    "checkout_sessions",
    "payouts",
)
"""With and without deletions, events, children, owners, a filter by time and two walks: these are
loaded in `make test`, all together in `make broad`.
"""
SHARES = {"some": SOME, "all": tuple(MORE)}
each_share = pytest.mark.parametrize(
    "told", ["some", pytest.param("all", marks=pytest.mark.broad)], indirect=True
)
each_told_row = pytest.mark.parametrize(
    ("told", "row"),
    [
        pytest.param(
            share,
            MORE[name],
            id=f"{share}-{name}",
            marks=() if share == "some" else pytest.mark.broad,
        )
        for share, names in SHARES.items()
        for name in names
    ],
    indirect=["told"],
)


def kind(name: str) -> Kind:
    """What the sandbox knows about the objects of a table."""
    return KINDS[kind_of(name)]


def odd_values(object_name: str, row: Resource) -> dict[str, Any]:
    """A text with a NUL, and a text where a number or a truth value should be."""
    fields = fields_of(object_name)
    said = {other.at or name for name, other in kind(row.table).filters.items()}
    usual = {"id", "object", "livemode", "created", row.created_field, "status", "type", *said}
    free = [
        column
        for column in row.columns
        if column.name in fields and column.name not in usual and not fields[column.name].objects
    ]
    texts = [column.name for column in free if fields[column.name].nature == "text"]
    others = [column.name for column in free if column.kind in ("bigint", "bool")]
    return dict.fromkeys(texts[:1], "a\0b") | dict.fromkeys(others[:1], "seven")


class Told:
    """What was done to the account between two runs, by table."""

    def __init__(self, copy: Copy, names: tuple[str, ...]) -> None:
        self.copy, self.names = copy, names
        self.made = {name: [self.make(name) for _ in range(3)] for name in names}
        self.odd = {name: self.make_odd(name) for name in names}
        self.created: dict[str, str] = {}
        self.made_later: list[tuple[str, str]] = []
        self.reborn: dict[str, str] = {}
        self.updated: dict[str, str] = {}
        self.deleted: dict[str, str] = {}
        self.rows: list[dict[str, int]] = []
        self.differences: list[Any] = []

    def make(self, name: str, /, **fields: Any) -> str:
        """Create an object, with one that it belongs to."""
        box, of = self.copy.box, kind(name)
        if name == "invoice_items":
            made = {"customer": next(iter(box.objects("customers")))}
        else:
            made = {of.owner: box.create(of.owners)["id"]} if of.owners else {}
        return str(box.create(of.name, **made, **fields)["id"])

    def make_odd(self, name: str) -> str:
        """Create an object whose text has a NUL, whose number is a text, with a field that nobody
        knows, and with more children than Stripe embeds.
        """
        row = RESOURCES[name]
        lists: dict[str, Any] = {child.field: 12 for child in row.children}
        odd = odd_values(kind(name).object, row)
        return self.make(name, surprise={"of": name}, **lists, **odd)

    def sync(self) -> None:
        self.copy.box.advance(90_000)  # lists without a filter are read once a day
        self.rows.append(self.copy.sync(resources=self.names).rows)

    def change(self) -> None:
        """One of each kind is created, one updated and one deleted, as far as Stripe lets them."""
        for name, (first, second, _) in self.made.items():
            of, box = kind(name), self.copy.box
            self.created[name] = self.make(name)
            self.made_later.append((name, self.make_odd(name)))
            if "updated" in of.events and "metadata" in box.objects(of.name)[second]:
                box.update(of.name, second, metadata={"changed": "yes"})
                self.updated[name] = second
            if "deleted" in of.events:
                box.delete(of.name, first)
                self.deleted[name] = first
                again = self.make(name)
                gone = box.delete(of.name, again)
                box.advance(1)
                self.reborn[name] = str(box.put(of.name, gone)["id"])


@pytest.fixture(scope="module")
def told(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Told]:
    """First load, changes, second run, verify, reconcile and an idle run, of a share at once."""
    box = Sandbox(customers=2, oddities=False)
    with copy_of(box, tmp_path_factory.mktemp("rows"), hold=True) as copy:
        told = Told(copy, SHARES[request.param])
        told.sync()
        copy.check(*told.names)
        told.change()
        told.sync()
        access: Any = {"api_key": box.key, "api_base": copy.url} | FAST
        told.differences = verify(
            database=str(copy.folder / copy.database), resources=told.names, seed=1, **access
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


@each_share
def test_every_table_equals_the_account(told: Told) -> None:
    """Rows and children, of the first and of the second run."""
    assert told.rows[0].keys() >= set(told.names)
    told.copy.check(*told.names)


@each_told_row
def test_changes_have_the_right_op(told: Told, row: Resource) -> None:
    """A new object is created once, another updated or deleted once for each of its events."""
    of = kind(row.table)
    assert ops(told, row, told.created[row.table]).count("c") == 1
    if row.table in told.updated:
        updates = Counter(ops(told, row, told.updated[row.table]))
        assert updates == {"u": len(of.types("updated"))}
    if row.table in told.deleted:
        assert ops(told, row, told.deleted[row.table]) == ["d"]


@each_told_row
def test_what_is_odd_is_there_whole(told: Told, row: Resource) -> None:
    """A field that nobody knows and a value of another type are in `extra`; of a text with a NUL the
    rest is in its column. That all children are there, the comparison of the tables says.
    """
    select = "select extra from stripe.{} where id = '{}'"
    odd = odd_values(
        told.copy.box.objects(kind(row.table).name)[told.odd[row.table]]["object"], row
    )
    for id in (told.odd[row.table], dict(told.made_later)[row.table]):
        extra = json.loads(told.copy.one(select.format(row.table, id)))
        written = {name: value.replace("\0", "\\u0000") for name, value in odd.items()}
        assert extra == written | {"surprise": {"of": row.table}}


@each_told_row
def test_an_id_that_comes_again_lives_again(told: Told, row: Resource) -> None:
    """Of what Stripe lets be deleted, with an event that says so."""
    if row.table in told.reborn:
        id = told.reborn[row.table]
        assert told.copy.one(f"select deleted_at is null from stripe.{row.table} where id = '{id}'")
        assert ops(told, row, id) == ["c", "d", "c"]


@each_share
def test_what_is_refused_is_left_out_with_its_reason_and_loses_nothing(told: Told) -> None:
    """Each row, for a key that lacks its permission (403), and for an account that is not set up for
    it (400); the rest loads.
    """
    copy, box = told.copy, told.copy.box
    names = ["customers", *told.names]
    key = box.restrict(permissions=NEEDED)
    lacking = {name for name in told.names if MORE[name].permission not in NEEDED}
    box.advance(90_000)
    refused = copy.sync(resources=names, api_key=key).refused
    assert refused.keys() == lacking
    assert all(MORE[name].permission in reason for name, reason in refused.items())
    box.faults.not_set_up = tuple(MORE[name].path for name in told.names)
    refused = copy.sync(resources=names).refused
    assert refused.keys() == set(told.names)
    assert all("not set up" in reason for reason in refused.values())
    box.faults.not_set_up = ()
    assert copy.sync(resources=names).rows.keys() <= {"customers"}
    copy.check(*told.names)


@each_share
def test_verify_agrees(told: Told) -> None:
    assert told.differences == []


@each_share
def test_nothing_is_left_to_reconcile_or_to_load(told: Told) -> None:
    """A comparison of all lists finds nothing, and an idle run writes nothing."""
    done = told.copy.sync(resources=told.names, reconcile=True)
    found = told.copy.select(
        "select resource, object_id, op, changed from stripe.changes where origin = 'diff' order by _dlt_load_id"
    )
    assert (done.rows, sum(done.healed.values())) == ({}, 0), found[-3:]
    told.copy.box.advance(90_000)
    assert told.copy.sync(resources=told.names).rows == {}
    told.copy.box.advance(200)
    idle = told.copy.sync(resources=told.names)
    walks = sum(len(MORE[name].list_filters) for name in told.names)
    assert idle.rows == {} and idle.requests <= walks + 4
