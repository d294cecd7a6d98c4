"""Resources with one list per object of another one: swept once, then read where something happened."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from stripe_feed import sync_run
from stripe_feed.destination import load
from stripe_feed.extract.dependents import sublists
from stripe_feed.resources import RESOURCES
from stripe_feed.resources.model import Resource
from stripe_feed.sandbox import Sandbox
from stripe_feed.sandbox.state.kinds import KINDS
from stripe_feed.sync_run import dry_run
from tests.copies import PERMISSIONS, Copy, PostgresCopy, copy_of
from tests.feed_truth import changes
from tests.postgres import postgres_server
from tests.truth import kind_of

DAY = 86_400
LISTS = {name: row for name, row in RESOURCES.items() if row.parent is not None}
PARENTS = sorted({row.parent.table for row in LISTS.values() if row.parent})
NAMES = [*PARENTS, *LISTS]
VARIANTS = {"sources": ("card", "bank_account", "source"), "external_accounts": ("bank_account", "card")}  # fmt: skip


def account() -> Sandbox:
    """Three parents of each kind, of which two have two objects each in their list."""
    box = Sandbox(customers=0, products=0, oddities=False)
    for parent in PARENTS:
        for _ in range(3):
            box.create(parent, **({"automatic": True} if parent == "payouts" else {}))
            box.advance(50)
    for name in LISTS:
        for owner in owners(box, name)[:2]:
            for n in range(2):
                make(box, name, owner, n)
    box.advance(2_000)
    return box


def owners(box: Sandbox, name: str) -> list[str]:
    parent = LISTS[name].parent
    assert parent is not None
    return list(box.objects(parent.table))


def make(box: Sandbox, name: str, owner: str, n: int = 0) -> str:
    """Create an object in the list of a parent."""
    kinds = VARIANTS.get(name, ())
    object_name = {"object": kinds[n % len(kinds)]} if kinds else {}
    parent = LISTS[name].parent
    assert parent is not None
    if parent.local_ids:  # the id is a name, and each account has it
        object_name = {"id": f"{'card_payments' if n else 'transfers'}"}
        if object_name["id"] in box.objects(kind_of(name)):
            object_name = {"id": f"{owner}_{n}_payments"}
    return str(box.create(kind_of(name), **{parent.column: owner}, **object_name)["id"])


def sync(copy: Copy, **options: Any) -> Any:
    copy.box.counts.clear()
    return copy.sync(**{"resources": NAMES} | options)


def asked(copy: Copy) -> Counter[str]:
    """Requests by path."""
    found = Counter[str]()
    for (template, _), count in copy.box.counts.items():
        found[template] += count
    return found


def path(name: str) -> str:
    return LISTS[name].path.replace("{id}", ":id")


def rows(copy: Copy, name: str) -> dict[str, str]:
    """The parent of each object that is not deleted."""
    parent = LISTS[name].parent
    assert parent is not None
    return dict(
        copy.select(f'select id, "{parent.column}" from stripe.{name} where deleted_at is null')
    )


def truth(box: Sandbox, name: str) -> dict[str, str]:
    kind, parent = kind_of(name), LISTS[name].parent
    assert parent is not None
    with box.account.lock:
        return {
            f"{row.group}/{row.id}" if parent.local_ids else row.id: row.group
            for row in box.account.tables[kind].rows.values()
            if row.group
        }


def told(copy: Copy) -> list[tuple[str, str, str, str]]:
    """All changes of the lists: resource, operation, origin, object."""
    return [
        (row["resource"], row["op"], row["origin"], row["object_id"])
        for row in changes(copy)
        if row["resource"] in LISTS
    ]


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What each sync asked and told: the first, an idle one, and one after everything that can
    happen; `made`, `changed` and `removed` are ids by resource.
    """
    box = account()
    with copy_of(box, tmp_path_factory.mktemp("lists"), hold=True) as copy:
        seen: dict[str, Any] = {"copy": copy, "planned": {}}
        seen["first"] = (sync(copy), asked(copy), {name: rows(copy, name) for name in LISTS}, {name: truth(box, name) for name in LISTS})  # fmt: skip
        seen["first told"] = told(copy)
        box.advance(DAY // 2)
        seen["idle"] = (sync(copy), asked(copy))
        box.advance(DAY // 2 + 100)
        live(box, seen)
        box.advance(200)
        seen["next"] = (sync(copy), asked(copy))
        yield seen


def live(box: Sandbox, seen: dict[str, Any]) -> None:
    """In each list an object is new, one changes and one goes, as far as Stripe lets them; a new
    parent has one; and what tells of it where no event of the object does.
    """
    made: dict[str, list[str]] = {}
    changed: dict[str, str] = {}
    removed: dict[str, str] = {}
    for name, row in LISTS.items():
        kind, parent = kind_of(name), row.parent
        assert parent is not None
        first = owners(box, name)[0]
        ids = list(truth(box, name))
        new_parent = box.create(parent.table, **({"automatic": True} if name == "payout_balance_transactions" else {}))["id"]  # fmt: skip
        made[name] = [make(box, name, first, 1), make(box, name, new_parent)]
        own = [id.rpartition("/")[2] for id in ids]
        if any(type.endswith(".updated") for type in row.events):
            field: dict[str, Any] = (
                {"requested": False} if name == "capabilities" else {"metadata": {"n": "1"}}
            )
            field = {"country": "FR"} if name == "tax_ids" else field
            box.update(kind, own[0], **field)
            changed[name] = ids[0]
        if KINDS[kind].deletable:
            box.delete(kind, own[-1])
            removed[name] = ids[-1]
        if name == "customer_balance_transactions":
            box.update("customers", first, balance=-500)
        if name in ("setup_attempts", "payout_balance_transactions"):
            box.update(parent.table, first, metadata={"n": "2"}, status="canceled")
        if name == "capabilities":
            box.update("accounts", first, capabilities={"transfers": "active"})
    seen |= {"made": made, "changed": changed, "removed": removed}


def test_the_first_sweep_reads_each_list_once(lived: dict[str, Any]) -> None:
    _, requests, found, true = lived["first"]

    assert found == true and all(found.values())
    shared = Counter(path(name) for name in LISTS)
    assert {
        name: requests[path(name)] for name in LISTS if shared[path(name)] == 1
    } == dict.fromkeys(LISTS, 3)
    assert lived["first told"] == []


def test_an_idle_run_asks_for_no_list(lived: dict[str, Any]) -> None:
    done, requests = lived["idle"]

    assert done.rows == {}
    assert {name for name in LISTS if requests[path(name)]} == set()


@pytest.mark.parametrize("name", LISTS)
def test_what_happens_arrives(lived: dict[str, Any], name: str) -> None:
    """New, changed and deleted objects, also of a new parent."""
    copy: Copy = lived["copy"]

    assert rows(copy, name) == truth(copy.box, name)


def new_ids(lived: dict[str, Any], name: str) -> list[str]:
    """The ids of new objects as rows have them."""
    all_ids = truth(lived["copy"].box, name)
    return [next(id for id in all_ids if id.endswith(made)) for made in lived["made"][name]]


@pytest.mark.parametrize("row", LISTS.values(), ids=list(LISTS))
def test_each_change_is_told_once(lived: dict[str, Any], row: Resource) -> None:
    """By an event if there is one, else by the list."""
    name, origin = row.table, "event" if row.created_by else "list"
    found = Counter(change[1:] for change in told(lived["copy"]) if change[0] == name)
    expected = Counter[tuple[str, str, str]]()
    expected |= Counter(("c", origin, id) for id in new_ids(lived, name))
    reached = KINDS[kind_of(name)].reaching  # a status that has an event of its own
    for id, made in zip(new_ids(lived, name), lived["made"][name], strict=True):
        content = lived["copy"].box.objects(kind_of(name))[made]
        if row.events and reached.get(content.get("status"), ()):
            expected["u", origin, id] = len(reached[content["status"]])
    if name in lived["changed"]:
        expected["u", "event", lived["changed"][name]] = 1
    if name in lived["removed"]:
        expected["d", "event" if row.deleted_by else "diff", lived["removed"][name]] = 1

    assert found == expected


# -- faults, costs and comparisons
# -------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Copy]:
    """Nine customers with a tax id each, and three accounts with a person each."""
    box = Sandbox(customers=0, products=0, oddities=False)
    for _ in range(9):
        make(box, "tax_ids", box.create("customers")["id"])
        box.advance(10)
    for _ in range(3):
        make(box, "persons", box.create("accounts")["id"])
    box.advance(1_000)
    with copy_of(box, tmp_path, hold=True) as found:
        yield found


def sync_partly(copy: Copy, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The customers, and the lists of four of the nine; then the run is killed."""
    monkeypatch.setattr(sublists, "SWEEP_BATCH", 2)
    monkeypatch.setattr(sublists, "PACKAGE_PARENTS", 2)
    loads = iter([load.run_load] * 3)

    def load_some(*arguments: Any, **options: Any) -> Any:
        return next(loads)(*arguments, **options)

    with monkeypatch.context() as patch, suppress(StopIteration):
        patch.setattr(sync_run, "run_load", load_some)
        sync(copy, resources=[name])


def test_a_killed_sweep_goes_on_where_it_was(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """No list is read twice but those of the batch that was lost."""
    sync_partly(copy, monkeypatch, "tax_ids")
    swept = asked(copy)[path("tax_ids")]
    assert (swept, len(rows(copy, "tax_ids"))) == (4, 4)

    sync(copy, resources=["tax_ids"])
    assert asked(copy)[path("tax_ids")] == 9 - swept
    assert rows(copy, "tax_ids") == truth(copy.box, "tax_ids")
    assert told(copy) == []


def test_what_is_created_during_the_first_sweep_is_told(
    copy: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the list of its parent was read before or is read only now; what was there is not."""
    name, box = "customer_balance_transactions", copy.box
    swept, *_, waiting = owners(box, name)
    for owner in (swept, waiting):
        make(box, name, owner)
    box.advance(100)
    sync_partly(copy, monkeypatch, name)

    box.advance(50)
    made = {make(box, name, owner) for owner in (swept, waiting)}
    for owner in (swept, waiting):  # the balance shows that the list has changed
        box.update("customers", owner, balance=-100)
    box.advance(400)
    sync(copy, resources=[name])
    sync(copy, resources=[name])
    assert rows(copy, name) == truth(box, name)
    assert sorted(told(copy)) == sorted((name, "c", "list", id) for id in made)


def test_an_account_that_has_left_is_a_line(copy: Copy, caplog: pytest.LogCaptureFixture) -> None:
    """The lists of the others are read."""
    sync(copy, resources=["accounts"])
    gone = list(copy.box.objects("accounts"))[1]
    copy.box.account.tables["accounts"].remove(gone)
    with caplog.at_level(logging.WARNING):
        done = sync(copy, resources=["persons"])

    assert (len(rows(copy, "persons")), done.refused, done.left_out) == (2, {}, {})
    (line,) = [record.getMessage() for record in caplog.records if "persons" in record.getMessage()]
    assert line.startswith(
        f"persons of 1 account could not be read and is left out, {gone} first: "
    )


def test_a_key_without_the_permission_leaves_the_resource_out(copy: Copy) -> None:
    """After some requests, not after one for each list."""
    for _ in range(300):
        copy.box.create("payouts", automatic=True)
    copy.box.advance(100)
    key = copy.box.restrict(permissions=PERMISSIONS | {"rak_payout_read"})
    done = sync(copy, resources=["payout_balance_transactions"], api_key=key)

    assert (done.refused.keys(), done.rows["payouts"]) == ({"payout_balance_transactions"}, 300)
    assert asked(copy)["/v1/balance_transactions"] < 150


def test_a_dry_run_counts_the_lists(copy: Copy) -> None:
    """Before the parents are loaded nothing tells; then a request for each, and for each new one."""

    def planned() -> int | str | None:
        found = dry_run(
            api_key=copy.box.key,
            api_base=copy.url,
            database=str(copy.folder / copy.database),
            resources=["tax_ids"],
        )
        return next((plan.requests for plan in found if plan.resource == "tax_ids"), "none")

    assert planned() is None
    sync(copy, resources=["customers"])
    assert planned() == 9
    sync(copy, resources=["tax_ids"])
    assert planned() == "none"


def test_reconcile_reads_all_lists_again(copy: Copy) -> None:
    """It finds what no event told, and tells it once."""
    sync(copy, resources=["tax_ids"])
    box = copy.box
    box.advance(1_000)
    with box.account.lock:
        lost, changed = list(box.objects("tax_ids"))[:2]
        box.account.remove("tax_ids", lost)
        content = box.objects("tax_ids")[changed] | {"value": "DE000000000"}
        box.account.store("tax_ids", content)
    done = sync(copy, resources=["tax_ids"], reconcile=True)

    assert rows(copy, "tax_ids") == truth(box, "tax_ids")
    assert sorted(told(copy)) == [("tax_ids", "d", "diff", lost), ("tax_ids", "u", "diff", changed)]
    assert done.healed["tax_ids"] == 2


def some(box: Sandbox, kind: str) -> str:
    return next(iter(box.objects(kind)))


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with postgres_server() as url:
        yield url


def test_the_same_on_postgres(
    postgres: str, copy: Copy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sweep, a look, and a comparison."""
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", postgres)
    monkeypatch.setattr(sublists, "SWEEP_BATCH", 2)
    names, box = ["tax_ids", "customer_balance_transactions", "capabilities"], copy.box
    server = PostgresCopy(box, copy.url, tmp_path)
    try:
        sync(server, resources=names)
        box.advance(100)  # Stripe's time goes on while a run is at work, and the sandbox's does not
        customer, account_id = some(box, "customers"), some(box, "accounts")
        make(box, "customer_balance_transactions", customer)
        box.update("customers", customer, balance=-100)
        make(box, "capabilities", account_id, 1)
        box.update("accounts", account_id, capabilities={"card_payments": "active"})
        box.delete("tax_ids", some(box, "tax_ids"))
        box.advance(200)
        sync(server, resources=names)
        assert {name: rows(server, name) for name in names} == {
            name: truth(box, name) for name in names
        }
        ops = Counter(change[:3] for change in told(server))
        assert ops == {
            ("tax_ids", "d", "event"): 1,
            ("customer_balance_transactions", "c", "list"): 1,
            ("capabilities", "c", "list"): 1,
        }
        box.account.remove("tax_ids", some(box, "tax_ids"))
        sync(server, resources=names, reconcile=True)
        assert rows(server, "tax_ids") == truth(box, "tax_ids")
    finally:
        with server.pipeline.sql_client() as client:
            client.execute_sql("drop schema if exists stripe cascade")
