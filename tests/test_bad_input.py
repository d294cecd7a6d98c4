"""What can go wrong in use: one line that names the problem and the fix, the right exit code, and
nothing lost.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest
from dlt.load.load import Load
from dlt.normalize.normalize import Normalize

from stripe_feed.api.client import Api
from stripe_feed.cli.progress import WAITING
from stripe_feed.errors import PermissionMissing
from stripe_feed.extract.paging import reader
from stripe_feed.sandbox import Sandbox
from tests.commands import Said, Shell, ended, holding, loaded, shell_of
from tests.copies import PERMISSIONS, copy_of
from tests.core import CORE, CORE_TABLES
from tests.scripted import Answer, scripted

FILE = "stripe_feed.duckdb"
KEYS = "https://dashboard.stripe.com/apikeys"


@pytest.fixture(scope="module")
def box() -> Sandbox:
    return Sandbox(seed=8, customers=8)


@pytest.fixture(scope="module")
def origin(box: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """An account, loaded once."""
    folder = tmp_path_factory.mktemp("origin")
    with shell_of(box, folder) as shell:
        assert shell.sync("--database", folder / FILE, "--state-dir", folder / "state").code == 0
        yield shell


@pytest.fixture
def shell(origin: Shell, tmp_path: Path) -> Iterator[Shell]:
    """An account and a copy of it; whatever a test does to the database, every row is there
    afterwards.
    """
    shutil.copy(origin.folder / FILE, tmp_path)
    shell = Shell(origin.box, origin.url, tmp_path)
    yield shell
    shell.box.faults.always.clear()
    assert shell.rows() == shell.truth(), "rows were lost"


def refused(said: Said, code: int, line: str) -> None:
    """The whole talk is one line; `…` in it stands for anything."""
    pattern = ".*".join(map(re.escape, line.split("…")))
    assert said.code == code, said.err
    assert said.out == ""
    assert re.fullmatch(pattern, said.error), said.error
    assert [
        other
        for other in said.err.splitlines()
        if not other.startswith(("error: ", "warning: ", WAITING, "Waiting for up to "))
    ] == []


# -- the key
# ----------------------------------------------------------------------------------------------------------------


def test_no_key(shell: Shell) -> None:
    refused(
        shell.sync(STRIPE_SECRET_KEY=None),
        3,
        (
            "No Stripe key. Set STRIPE_SECRET_KEY, or api_key under [sources.stripe_feed] in .dlt/secrets.toml; "
            "without an account, try `stripe-feed demo`."
        ),
    )


def test_a_publishable_key(shell: Shell) -> None:
    refused(
        shell.sync(STRIPE_SECRET_KEY="pk_test_51"),
        3,
        (f"This is a publishable key (pk_), which cannot read. Use a restricted key from {KEYS}."),
    )


def test_something_that_is_no_key(shell: Shell) -> None:
    refused(
        shell.sync(STRIPE_SECRET_KEY="hunter2"),
        3,
        (f"This is not a Stripe key: it must begin with rk_ or sk_. Copy one from {KEYS}."),
    )


def test_a_wrong_key(shell: Shell) -> None:
    refused(
        shell.sync(STRIPE_SECRET_KEY="sk_test_wrong"),
        3,
        (f"Stripe says this key is not valid (401, request req_…). Copy a valid one from {KEYS}."),
    )


def test_an_expired_key(shell: Shell) -> None:
    key = shell.box.restrict(permissions=PERMISSIONS)
    shell.box.expire(key)

    refused(
        shell.sync(STRIPE_SECRET_KEY=key),
        3,
        (f"Stripe says this key is expired (401, request req_…). Copy a valid one from {KEYS}."),
    )


def test_a_live_key_with_a_foreign_base(shell: Shell) -> None:
    """Refused before a byte is sent."""
    before = sum(shell.box.counts.values())

    said = shell.sync(STRIPE_SECRET_KEY="sk_live_51")

    refused(
        said,
        3,
        (
            "A live key would be sent to 127.0.0.1 instead of Stripe. "
            "Unset STRIPE_API_BASE, or pass --allow-api-base if you mean it."
        ),
    )
    assert sum(shell.box.counts.values()) == before


def test_a_base_that_is_no_url(shell: Shell) -> None:
    refused(
        shell.sync(STRIPE_API_BASE="localhost:12111"),
        3,
        (
            "STRIPE_API_BASE is not a URL. Unset it to use Stripe's own, or give one such as http://127.0.0.1:12111."
        ),
    )


def test_a_full_refresh_drops_no_rows_that_would_not_come_back(tmp_path: Path) -> None:
    """Of what was never read there are none."""
    with copy_of(Sandbox(seed=4, customers=2, oddities=False), tmp_path, hold=True) as copy:
        key = copy.box.restrict(permissions=PERMISSIONS - {"rak_product_read"})
        for _ in range(2):
            assert list(copy.sync(api_key=key, full_refresh=True).refused) == ["products"]
        copy.sync(resources=("customers", "products"))
        held = copy.select("select id from stripe.products")
        with pytest.raises(PermissionMissing, match="rak_product_read"):
            copy.sync(api_key=key, full_refresh=True)
        assert held and copy.select("select id from stripe.products") == held


@pytest.mark.parametrize("table", ["invoices", "prices"])
def test_a_key_that_lacks_one_permission_loads_the_others(shell: Shell, table: str) -> None:
    """Prices and plans share one. The tables of what is left out stay as they were."""
    lacking = CORE[table].permission
    left_out = [row.table for row in CORE.values() if row.permission == lacking]
    key = shell.box.restrict(permissions=PERMISSIONS - {lacking})

    said = shell.sync("--database", "fresh.duckdb", STRIPE_SECRET_KEY=key)

    assert said.code == 4
    assert (
        said.error
        == f"Left out: {', '.join(left_out)}; the warnings say why. Everything else is loaded."
    )
    for name in left_out:
        line = (
            f"warning: {name} is left out: {CORE[name].path}: this key may not read it (403, request req_…). "
            f"Add the permission {lacking} at {KEYS}."
        )
        assert re.search("^" + ".*".join(map(re.escape, line.split("…"))) + "$", said.err, re.M), (
            said.err
        )
    rows = shell.rows("fresh.duckdb")
    theirs = {child.table for name in left_out for child in CORE[name].children} | set(left_out)
    assert {name: rows[name] for name in CORE_TABLES if name not in theirs} == {
        name: count for name, count in shell.truth().items() if name not in theirs
    }


def test_a_key_for_what_is_asked_for_is_enough(shell: Shell) -> None:
    """Nobody asked for the others, nor for events; what those would bring is said once."""
    key = shell.box.restrict(permissions={"rak_customer_read"})

    said = shell.sync(
        "--quiet", "--database", "fresh.duckdb", "--resources", "customers", STRIPE_SECRET_KEY=key
    )

    assert (said.code, shell.rows("fresh.duckdb")["customers"]) == (0, shell.truth()["customers"])
    assert said.err.splitlines() == [
        "warning: The key may not read events, so updates, cancellations and deletions of older objects are missed: add the "
        "permission rak_event_read (Core > Events), or run `stripe-feed reconcile` regularly."
    ]


@pytest.mark.parametrize(
    ("status", "says"),
    [(400, "Stripe refuses the list (400, "), (404, "Stripe refuses the list (404, ")],
)
def test_a_list_that_stripe_refuses_is_left_out(shell: Shell, status: int, says: str) -> None:
    """As where an account is not set up for it."""
    shell.box.faults.always["/v1/plans"] = status

    some = ("--resources", "customers,plans")
    said = shell.sync("--database", "fresh.duckdb", *some)
    compared = shell.run("reconcile", "--quiet", *some)

    assert (said.code, said.error) == (
        4,
        "Left out: plans; the warnings say why. Everything else is loaded.",
    )
    assert f"warning: plans is left out: /v1/plans: {says}" in said.err
    assert shell.rows("fresh.duckdb")["customers"] == shell.truth()["customers"]
    assert (compared.code, compared.error) == (4, said.error)


def test_a_key_that_lacks_one_permission_keeps_what_was_loaded(shell: Shell) -> None:
    key = shell.box.restrict(permissions=PERMISSIONS - {"rak_customer_read"})

    assert shell.sync(STRIPE_SECRET_KEY=key).code == 4


@pytest.mark.parametrize("reconcile", [False, True])
def test_a_key_that_lacks_one_permission_reads_the_events_of_the_others(
    tmp_path: Path, reconcile: bool
) -> None:
    """An invoice whose lines do not fit into its event must be read, which the key may not. Its
    events wait for one that may.
    """
    box = Sandbox(seed=3, customers=4, invoices=3, subscriptions=3, oddities=False)
    box.advance(1000)
    tables = ("customers", "invoices")
    with copy_of(box, tmp_path, hold=True) as copy:
        copy.sync(resources=tables)
        box.advance(1000)
        invoice = box.create("invoices", lines=15)["id"]
        customer = next(iter(box.objects("customers")))
        box.update("customers", customer, name="Changed")
        box.advance(100)
        cursor = copy.states["changes"]["invoices"]

        done = copy.sync(
            api_key=box.restrict(permissions=PERMISSIONS - {"rak_invoice_read"}),
            resources=tables,
            reconcile=reconcile,
        )

        assert set(done.refused) == {"invoices"}
        assert copy.one(f"select name from stripe.customers where id = '{customer}'") == "Changed"
        assert copy.states["changes"]["invoices"] == cursor
        copy.sync(resources=tables)
        assert copy.select(f"select op from stripe.changes where object_id = '{invoice}'")[0] == (
            "c",
        )
        copy.check(*tables)


def test_a_resource_that_was_refused_at_first_has_changes_since_it_is_loaded(
    tmp_path: Path,
) -> None:
    """A first load makes no changes, also where an earlier key had to leave the resource out."""
    box = Sandbox(seed=3, customers=4, invoices=3, subscriptions=3, oddities=False)
    box.advance(1000)
    with copy_of(box, tmp_path) as copy:
        copy.sync(api_key=box.restrict(permissions=PERMISSIONS - {"rak_invoice_read"}))
        assert "invoices" not in copy.states["changes"]
        box.advance(1000)
        box.create("invoices", lines=15, customer=next(iter(box.objects("customers"))))
        box.advance(1000)

        assert copy.sync().refused == {}
        assert copy.select("select * from stripe.changes where resource = 'invoices'") == []
        copy.check()


def test_a_refused_resource_does_not_end_the_others_in_a_later_package(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two resources one is refused in the first package; the other goes on alone. Rows come in
    small batches here.
    """
    monkeypatch.setattr(reader, "MAX_TABLE_ROWS", 50)
    with shell_of(Sandbox(seed=8, customers=5, invoices=130), shell.folder) as big:
        key = big.box.restrict(permissions=PERMISSIONS - {"rak_customer_read"})
        options = [
            "--database",
            "fresh.duckdb",
            "--resources",
            "customers,invoices",
            "--checkpoint-rows",
            60,
        ]

        said = big.sync(*options, "--json", STRIPE_SECRET_KEY=key)

        assert said.code == 4, said.err
        assert json.loads(said.out)["packages"] > 1
        assert big.rows("fresh.duckdb")["invoices"] == big.truth()["invoices"]


def test_a_key_that_may_read_nothing(shell: Shell) -> None:
    said = shell.sync(STRIPE_SECRET_KEY=shell.box.restrict(permissions={"rak_charge_read"}))

    assert said.code == 3
    assert re.fullmatch(
        rf"/v1/\w+: this key may not read it \(403, request req_\w+\)\. Add the permission rak_\w+_read at {KEYS}\.",
        said.error,
    )


def test_another_account_s_key(shell: Shell, tmp_path: Path) -> None:
    with shell_of(Sandbox(seed=9, customers=5), tmp_path) as other:
        refused(
            other.sync(),
            3,
            (
                f"The dataset holds account {shell.box.account_id} in test mode, but the key is for account "
                f"{other.box.account_id} in test mode. Use another --dataset or the other key."
            ),
        )
        refused(other.sync("--full-refresh"), 3, "The dataset holds account …")
        refused(other.run("sync", "--dry-run"), 3, "The dataset holds account …")


def test_the_other_mode(shell: Shell, tmp_path: Path) -> None:
    with shell_of(Sandbox(seed=8, customers=5, livemode=True), tmp_path) as other:
        assert other.box.account_id == shell.box.account_id
        refused(
            other.sync("--allow-api-base"),
            3,
            (
                f"The dataset holds account {shell.box.account_id} in test mode, but the key is for account "
                f"{shell.box.account_id} in live mode. Use another --dataset or the other key."
            ),
        )


# -- what is asked for
# ------------------------------------------------------------------------------------------------------


def test_an_unknown_resource(shell: Shell) -> None:
    refused(
        shell.sync("--resources", "customers,charge"),
        2,
        "There is no resource or group 'charge'. Did you mean charges? The groups are core, … "
        "`stripe-feed doctor --resources GROUP` lists what is in one.",
    )


@pytest.mark.parametrize("version", ["2018-02-28", "2019-11-05", "2014-10-31"])
def test_an_api_version_whose_objects_the_tables_cannot_hold(shell: Shell, version: str) -> None:
    """Lines would take each other's place; nothing is read."""
    before = shell.box.counts.total()
    refused(
        shell.sync("--api-version", version),
        2,
        (
            f"API version {version}: before 2019-12-03, lines of different invoices have one id, so rows would vanish. "
            "Give a newer one, or leave it out."
        ),
    )
    assert shell.box.counts.total() == before


def test_something_that_is_no_api_version(shell: Shell) -> None:
    refused(
        shell.sync("--api-version", "acacia"),
        2,
        ("'acacia' is not an API version. Give one like 2026-10-28.endive, or leave it out."),
    )


def test_a_start_date_in_the_future(shell: Shell) -> None:
    refused(
        shell.sync("--start-date", "2199-01-01"),
        2,
        ("start_date is in the future. Give an earlier one, or leave it out."),
    )


def test_a_start_date_after_the_end(shell: Shell) -> None:
    refused(
        shell.sync("--start-date", "2026-02-01", "--end-date", "2026-01-01"),
        2,
        ("start_date is not before end_date. Swap them, or leave one out."),
    )


def test_a_date_that_is_none(shell: Shell) -> None:
    refused(
        shell.sync("--start-date", "yesterday"),
        2,
        ("start_date is not a date: give it like 2026-01-31, or with a time, or as Unix seconds."),
    )


def test_a_field_that_does_not_expand(shell: Shell) -> None:
    refused(
        shell.sync("--expand", "customers.email"),
        2,
        "Cannot expand customers.email. customers can expand: …tax_ids…",
    )


# -- Stripe
# -----------------------------------------------------------------------------------------------------------------


def test_stripe_out_of_reach(shell: Shell) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        said = shell.sync(
            "--give-up-after", 0.1, STRIPE_API_BASE=f"http://127.0.0.1:{nobody.getsockname()[1]}"
        )

    refused(
        said,
        5,
        (
            "/v1/account: cannot reach 127.0.0.1 (NewConnectionError). Check the network, proxy and STRIPE_API_BASE, then run again."
        ),
    )


def test_a_permanent_429(shell: Shell) -> None:
    shell.box.faults.always["/v1/invoices"] = 429

    refused(
        shell.sync("--give-up-after", 0.1),
        5,
        (
            "/v1/invoices: Stripe keeps answering 429 (too many requests). Run again later, or lower --max-rps."
        ),
    )


def test_a_permanent_500(shell: Shell) -> None:
    """Of the one list that is read; beside others it is left out."""
    shell.box.faults.always["/v1/plans"] = 500

    refused(
        shell.sync("--give-up-after", 0, "--resources", "plans"),
        5,
        "/v1/plans: Stripe keeps answering 500 (request req_…). Run again later.",
    )


def test_a_broken_answer_is_asked_for_again(shell: Shell) -> None:
    """The first answer of each list is malformed, cut off, or lost."""
    faults = ["malformed", "truncate", "reset", 500, "malformed", "truncate"]
    left = dict(zip((row.path for row in CORE.values()), faults, strict=True))

    def breaks(template: str, parameters: object) -> None:
        shell.box.faults.always.clear()
        if template in left:
            shell.box.faults.always[template] = left.pop(template)  # type: ignore[assignment]

    shell.box.on_request = breaks
    try:
        said = shell.sync("--database", "fresh.duckdb")
    finally:
        shell.box.on_request = None

    assert said.code == 0, said.err
    assert left == {}
    assert shell.rows("fresh.duckdb") == shell.truth()


def test_a_server_that_is_not_stripe(shell: Shell) -> None:
    """The login page of a hotel, say; the doctor says the same."""
    with scripted(Answer(body=b"<html><h1>Welcome</h1>")) as page:
        line = "/v1/account: 127.0.0.1 answers with a web page. Check the proxy, the network's login page and STRIPE_API_BASE."
        refused(shell.sync(STRIPE_API_BASE=page.url), 3, line)
        said = shell.run("doctor", STRIPE_API_BASE=page.url)
    assert said.code == 3
    assert "account: 127.0.0.1 answers with a web page\n" in said.out


def test_an_answer_that_stays_broken(shell: Shell) -> None:
    shell.box.faults.always["/v1/customers"] = "malformed"

    refused(
        shell.sync("--give-up-after", 0, "--resources", "customers"),
        5,
        "/v1/customers: 127.0.0.1 keeps sending broken answers. Run again later.",
    )


# -- the destination
# --------------------------------------------------------------------------------------------------------


def test_a_file_that_another_process_has_open(shell: Shell) -> None:
    with holding(shell.folder / FILE) as pid:
        line = (
            f"{FILE} is open in process {pid}. Close it there (a notebook, a shell, another sync), then run again; "
            "sync and reconcile can wait for it with --wait SECONDS."
        )
        refused(shell.sync("--wait", 0), 3, line)
        refused(shell.run("query", "select 1", "--wait", 0), 3, line)
        refused(shell.run("status", "--wait", 0), 3, line)


def test_a_file_of_a_newer_duckdb(shell: Shell) -> None:
    """The file's first block is a checksum of the rest of it, four letters, the storage version,
    and more.
    """
    file = shell.folder / FILE
    content = file.read_bytes()
    assert content[:8] == checksum(content[8:4096])
    newer = content[8:12] + (9999).to_bytes(8, "little") + content[20:4096]
    file.write_bytes(checksum(newer) + newer + content[4096:])
    line = (
        f"{FILE} was written by a newer DuckDB than {duckdb.__version__}. "
        "Upgrade with `pip install -U duckdb`, or choose another --database."
    )

    refused(shell.sync(), 3, line)
    refused(shell.run("status"), 3, line)

    file.write_bytes(content)


def checksum(content: bytes) -> bytes:
    """DuckDB's, of whole words."""
    found = 5381
    for at in range(0, len(content), 8):
        found ^= int.from_bytes(content[at : at + 8], "little") * 0xBF58476D1CE4E5B9 % 2**64
    return found.to_bytes(8, "little")


def test_a_file_that_is_no_database_or_damaged(shell: Shell) -> None:
    """DuckDB's words about a damaged `block` are not about a lock."""
    content = (shell.folder / FILE).read_bytes()
    for name, bad in {
        "notes.txt": b"dear diary, " * 1000,
        "bad.duckdb": content[:30] + b"?" + content[31:],
    }.items():
        (shell.folder / name).write_bytes(bad)

        refused(
            shell.sync("--database", name),
            3,
            (
                f"{name} is not a DuckDB database, or is damaged. Restore it, or move it away, and the next sync loads everything again; or choose another --database."
            ),
        )
        assert (shell.folder / name).read_bytes() == bad


def test_a_file_named_like_its_dataset(shell: Shell) -> None:
    line = (
        "The file stripe.duckdb and the dataset stripe have the same name, and DuckDB could not tell them apart. "
        "Choose another --database or --dataset."
    )

    refused(shell.sync("--database", "stripe.duckdb"), 3, line)
    refused(shell.run("sync", "--dry-run", "--database", "stripe.duckdb"), 3, line)
    refused(shell.run("status", "--database", "stripe.duckdb"), 3, line)
    assert not (shell.folder / "stripe.duckdb").exists()


def test_a_folder_that_does_not_exist(shell: Shell) -> None:
    refused(
        shell.sync("--database", "nowhere/x.duckdb"),
        3,
        ("The folder of nowhere/x.duckdb does not exist. Create it, or choose another --database."),
    )


def test_a_destination_that_cannot_merge(shell: Shell) -> None:
    lake = {"DESTINATION__FILESYSTEM__BUCKET_URL": f"file://{shell.folder}/lake"}

    refused(
        shell.sync("--destination", "filesystem", **lake),
        3,
        (
            "The destination filesystem cannot merge with delete-insert, so rows would be duplicated. "
            "Use a SQL destination, such as duckdb, postgres, snowflake or bigquery, or for files delta or iceberg."
        ),
    )
    assert not (shell.folder / "lake").exists()


def test_models_where_they_need_dbt(shell: Shell) -> None:
    lake = {"DESTINATION__FILESYSTEM__BUCKET_URL": f"file://{shell.folder}/lake"}
    before = shell.box.counts.total()

    refused(
        shell.sync("--models", "--destination", "delta", **lake),
        2,
        "Leave out --models: The built-in runner builds models in duckdb and postgres, not in delta. "
        "Use dbt: `stripe-feed models package` prints the path of the project.",
    )
    assert (shell.box.counts.total(), (shell.folder / "lake").exists()) == (before, False)


def test_an_unknown_destination(shell: Shell) -> None:
    refused(
        shell.sync("--destination", "excel"),
        3,
        "dlt knows no destination 'excel'; it knows duckdb, postgres, …",
    )


def test_a_database_beside_another_destination(shell: Shell) -> None:
    refused(
        shell.sync("--destination", "postgres", "--database", FILE),
        3,
        ("--database names a DuckDB file; it does not go with another --destination."),
    )


# -- other commands, and Ctrl-C
# ---------------------------------------------------------------------------------------------


def test_another_command_that_writes(shell: Shell) -> None:
    """It waits for an answer of Stripe's; the second one is told who it is. A killed process gives
    the lock back.
    """
    some = ("--resources", "products")
    with stopped_at(shell, "/v1/products", "sync", *some) as (first, go_on):
        refused(
            shell.sync("--state-dir", "other", "--wait", 0),
            3,
            (
                f"`stripe-feed sync` (process {first.pid}) is writing to this copy. Run again when it is done; "
                "sync and reconcile can wait for it with --wait SECONDS."
            ),
        )
        first.kill()
        ended(first)
        go_on()

    assert shell.sync(*some).code == 0


def test_waiting_for_another_command(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is free again while the second command waits."""
    some = ("--resources", "products")
    with open(shell.folder / "stripe_feed.sync.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        in_vain = shell.sync(*some, "--wait", 0.1)
        monkeypatch.setattr(
            "stripe_feed.destination.locks.pause", lambda: fcntl.flock(file, fcntl.LOCK_UN)
        )
        said = shell.sync(*some, "--wait", 60)

    refused(
        in_vain,
        3,
        (
            "another command is writing to this copy. Run again when it is done; "
            "sync and reconcile can wait for it with --wait SECONDS."
        ),
    )
    assert said.code == 0
    assert (
        "Waiting for up to 60 s: another command is writing to this copy." in said.err.splitlines()
    )


@pytest.mark.parametrize(
    "apart", [False, pytest.param(True, marks=pytest.mark.broad)], ids=["here", "apart"]
)
def test_ctrl_c_while_reading(shell: Shell, monkeypatch: pytest.MonkeyPatch, apart: bool) -> None:
    """The next run goes on, without what was loaded before, and the copy equals the account. Rows
    come in small batches here, and little is read ahead.
    """
    small = (
        "from stripe_feed.extract.paging import reader\nreader.MAX_TABLE_ROWS = 50\n"
        "from stripe_feed.api.client import Api\nApi.__init__.__kwdefaults__['threads'] = 1"
    )
    box = Sandbox(seed=8, customers=500, subscriptions=5, invoices=5)
    options = [
        "--resources",
        "customers",
        "--database",
        "fresh.duckdb",
        "--state-dir",
        "state",
        "--checkpoint-rows",
        100,
    ]
    monkeypatch.setattr(reader, "MAX_TABLE_ROWS", 50)
    one_at_a_time = dict(Api.__init__.__kwdefaults__ or {}, threads=1)
    monkeypatch.setattr(Api.__init__, "__kwdefaults__", one_at_a_time)
    with shell_of(box, shell.folder) as big:
        if apart:
            with stopped_at(big, "/v1/customers", "sync", *options, request=5, first=small) as (
                process,
                go_on,
            ):
                process.send_signal(signal.SIGINT)
                go_on()
                said = ended(process)
        else:
            left = iter(range(4, -1, -1))
            box.on_request = lambda asked, _: (
                os.kill(os.getpid(), signal.SIGINT)
                if asked == "/v1/customers" and next(left, None) == 0
                else None
            )
            said = big.sync(*options)
        some = big.rows("fresh.duckdb")["customers"]
        again = big.sync(*options, "--json")

        every = len(loaded(box, "customers"))
        assert (said.code, again.code) == (130, 0), said.err + again.err
        assert said.err.splitlines()[-1] == "Interrupted. Run again to continue."
        assert "Traceback" not in said.err
        assert 0 < some < every
        assert 0 < json.loads(again.out)["rows"]["customers"] < every
        assert big.rows("fresh.duckdb")["customers"] == every


@pytest.mark.parametrize("step", [Normalize, Load])
def test_ctrl_c_in_a_later_step(shell: Shell, monkeypatch: pytest.MonkeyPatch, step: type) -> None:
    """dlt ends what is under way first."""
    real = step.run  # type: ignore[attr-defined]

    def interrupted(*arguments: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments, **options)

    options = ("--database", "fresh.duckdb", "--resources", "customers")
    with monkeypatch.context() as patch:
        patch.setattr(step, "run", interrupted)
        said = shell.sync(*options)
    again = shell.sync(*options)

    assert (said.code, again.code) == (130, 0), said.err + again.err
    assert said.err.splitlines()[-1] == "Interrupted. Run again to continue."
    assert shell.rows("fresh.duckdb")["customers"] == shell.truth()["customers"]


@contextmanager
def stopped_at(
    shell: Shell, template: str, *arguments: object, request: int = 1, first: str = ""
) -> Iterator[tuple[subprocess.Popen[str], Callable[[], None]]]:
    """A command whose n-th request to an endpoint waits for its answer until `go_on` is called."""
    arrived, go = threading.Event(), threading.Event()
    left = iter(range(request - 1, -1, -1))

    def hold(asked: str, parameters: object) -> None:
        if asked == template and next(left, None) == 0:
            arrived.set()
            go.wait(300)

    shell.box.on_request = hold
    process = shell.spawn(*arguments, first=first)
    try:
        assert arrived.wait(300), process.communicate(timeout=1)
        yield process, go.set
    finally:
        go.set()
        shell.box.on_request = None
        process.kill()
        process.communicate()
