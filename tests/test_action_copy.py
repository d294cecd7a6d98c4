"""Look-ups that the copy answers: without a request while it is fresh and of the same account, and
never the last word before a create.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stripe_feed import open_actions, open_push, sync
from stripe_feed.errors import WrongAccount
from stripe_feed.sandbox import Sandbox
from stripe_feed.write.actions import Actions

FAST: dict[str, Any] = {"max_rps": 5_000, "endpoint_rps": 5_000, "threads": 2}
MATE = "kim@example.com"


class Copied:
    """An account, its copy, and actions that know both."""

    def __init__(self, box: Sandbox, url: str, database: str) -> None:
        self.box, self.url, self.database = box, url, database

    def actions(self) -> Actions:
        actions = open_actions(self.box.key, base=self.url, database=self.database, **FAST)
        actions.api.account()  # asked for once a look-up
        return actions


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copied]:
    folder = tmp_path_factory.mktemp("copied")
    box = Sandbox(seed=3, customers=12)
    with box.serve() as url:
        database = str(folder / "copy.duckdb")
        first = next(iter(box.objects("customers")))
        box.update("customers", first, email=MATE, name="Kim", metadata={"crm": "7"})
        second = list(box.objects("customers"))[1]
        box.update("customers", second, email="Ann@Example.org", name="Ann L")
        box.advance(600)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STRIPE_API_BASE", url)
            for _ in range(2):  # events follow the first lists
                sync(
                    api_key=box.key,
                    database=database,
                    state_dir=str(folder),
                    resources=["customers"],
                    max_rps=5_000,
                    endpoint_rps=5_000,
                )
        yield Copied(box, url, database)


def kim(copied: Copied) -> str:
    return next(iter(copied.box.objects("customers")))


def mixed(copied: Copied) -> str:
    """The customer whose address has capitals."""
    return list(copied.box.objects("customers"))[1]


@pytest.mark.parametrize(
    "where",
    [
        {"email": MATE.upper()},
        {"metadata.crm": "7"},
        {"or": [{"name": "Kim"}, {"phone": "nobody's"}], "created": {"gte": 1}},
    ],
    ids=str,
)
def test_a_fresh_copy_answers_a_search(copied: Copied, where: dict[str, Any]) -> None:
    with copied.actions() as actions:
        done = actions.search("customers", where)

    (found,) = done.objects or ()
    held = copied.box.objects("customers")[kim(copied)]
    assert (done.via, found["id"]) == ("tables", kim(copied))
    assert {
        name: found[name] for name in ("email", "metadata", "created", "livemode", "address")
    } == {name: held[name] for name in ("email", "metadata", "created", "livemode", "address")}
    paths = {path for path, _ in actions.api.counts}
    assert paths == {"/v1/account"}


def test_what_the_copy_cannot_say_is_said_by_another_way(copied: Copied) -> None:
    with copied.actions() as actions:
        done = actions.search("customers", {"address.city": "Nowhere"})

    assert done.via == "list" and "the copy does not have these fields" in done.message


def test_a_match_of_the_copy_is_read_again(copied: Copied) -> None:
    with copied.actions() as actions:
        done = actions.upsert("customers", {"metadata.crm": "7"}, set={"name": "Kim"})

    assert (done.status, done.via, done.id) == ("skipped", "tables", kim(copied))
    assert actions.api.counts["/v1/customers/:id", 200] == 1


def test_an_object_that_is_younger_than_the_copy_is_not_created_again(copied: Copied) -> None:
    with copied.actions() as actions:
        young = actions.create("customers", {"metadata.crm": "8", "email": "young@example.com"})
        again = actions.insert("customers", {"name": "B"}, match={"metadata.crm": "8"})
        by_email = actions.insert("customers", {"name": "B"}, match={"email": "young@example.com"})

    assert (again.status, again.id, by_email.id) == ("skipped", young.id, young.id)
    assert again.via in ("list", "search") and by_email.via == "list"


def test_a_push_finds_an_address_in_another_case(copied: Copied, tmp_path: Path) -> None:
    first = kim(copied)
    crm = {"name": "crm", "object": "customers", "key": "n", "match": "email",
           "map": {"email": "email", "name": "name"}}  # fmt: skip
    rows = [{"n": 1, "email": "ann@example.org", "name": "Ann"}]
    ids = set(copied.box.objects("customers"))
    place = {"base": copied.url, "log": tmp_path / "push.sqlite", **FAST}
    with open_push(crm, copied.box.key, database=copied.database, **place) as push:
        (decision,) = push.plan(rows).decisions
    assert (decision.action, decision.object_id) == ("update", mixed(copied))
    with open_push(crm, copied.box.key, **place) as push:
        assert push.plan(rows).decisions[0].action == "create"
    assert ids == set(copied.box.objects("customers")) and first != mixed(copied)


def test_an_old_copy_does_not_answer(copied: Copied) -> None:
    copied.box.advance(3_600)
    with copied.actions() as actions:
        done = actions.search("customers", {"email": MATE})

    assert done.via == "list" and "minutes behind" in done.message


def test_a_copy_of_another_account_is_refused(copied: Copied) -> None:
    other = Sandbox(seed=4, customers=1)
    with (
        other.serve() as url,
        open_actions(other.key, base=url, database=copied.database, **FAST) as actions,
        pytest.raises(WrongAccount),
    ):
        actions.search("customers", {"email": MATE})


def test_without_a_file_there_is_no_answer(copied: Copied, tmp_path: Path) -> None:
    missing = str(tmp_path / "none.duckdb")
    with open_actions(copied.box.key, base=copied.url, database=missing, **FAST) as actions:
        done = actions.search("customers", {"email": MATE})

    assert done.via == "list" and "cannot be read now" in done.message
