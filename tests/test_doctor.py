"""The doctor: one line per check, exactly one fix per problem, nothing written."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

from stripe_feed.destination.error_messages import file_error
from stripe_feed.doctor import BREAKS, Finding, clock, dependencies, exit_code
from stripe_feed.sandbox import Sandbox
from tests.commands import Said, Shell, holding, shell_of
from tests.copies import PERMISSIONS
from tests.core import CORE


@pytest.fixture(scope="module")
def box() -> Sandbox:
    """Its clock is this machine's, or the doctor would find fault with it."""
    import time

    return Sandbox(seed=5, customers=10, now=int(time.time()), real_time=True)


@pytest.fixture(scope="module")
def url(box: Sandbox) -> Iterator[str]:
    with box.serve() as url:
        yield url


@pytest.fixture
def shell(box: Sandbox, url: str, tmp_path: Path) -> Shell:
    return Shell(box, url, tmp_path)


def findings(said: Said) -> dict[str, Finding]:
    """By check; fails where a problem has no fix, or a check that is fine has one."""
    found = [Finding(**json.loads(line)) for line in said.out.splitlines()]
    assert all(bool(finding.fix) != finding.ok for finding in found), found
    assert all(bool(finding.exit_code) != finding.ok for finding in found), found
    return {finding.check: finding for finding in found}


def problems(said: Said) -> dict[str, tuple[str, str]]:
    """What is wrong and the fix, by check."""
    return {
        name: (finding.text, finding.fix)
        for name, finding in findings(said).items()
        if not finding.ok
    }


def test_all_is_well(shell: Shell) -> None:
    said = shell.run("doctor")
    checks = findings(shell.run("doctor", "--json"))

    assert said.code == 0, said.out
    assert list(checks) == [
        "dependencies",
        "key",
        "account",
        "clock",
        *CORE,
        "changes",
        "destination",
    ]
    assert [line[:7] for line in said.out.splitlines()] == ["ok     "] * len(checks)
    assert (
        checks["destination"].text
        == "stripe_feed.duckdb does not exist yet; the first sync creates it"
    )
    assert list(shell.folder.iterdir()) == []


def test_a_loaded_dataset_is_named(shell: Shell) -> None:
    assert shell.sync("--resources", "customers", "--state-dir", "state").code == 0
    content = (shell.folder / "stripe_feed.duckdb").read_bytes()

    checks = findings(shell.run("doctor", "--json"))

    assert checks["destination"].text == "stripe_feed.duckdb can be opened and written"
    assert checks["dataset"].text == f"stripe holds {shell.box.account_id} in test mode"
    assert (shell.folder / "stripe_feed.duckdb").read_bytes() == content


@pytest.mark.checklist("N31")
def test_kind_and_mode_of_the_key(shell: Shell, tmp_path: Path) -> None:
    restricted = shell.run(
        "doctor", "--json", STRIPE_SECRET_KEY=shell.box.restrict(permissions=PERMISSIONS)
    )
    with shell_of(Sandbox(seed=5, customers=5, livemode=True), tmp_path) as live:
        secret = live.run("doctor", "--json", "--allow-api-base")

    assert findings(restricted)["key"].text == "a restricted key in test mode"
    assert restricted.code == 0
    assert findings(secret)["key"].text == "a secret key in live mode"


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (None, "No Stripe key"),
        ("pk_test_1", "This is a publishable key (pk_)"),
        ("x", "This is not a Stripe key"),
    ],
)
def test_a_key_that_is_none(shell: Shell, key: str | None, words: str) -> None:
    """The destination is checked all the same."""
    said = shell.run("doctor", "--json", STRIPE_SECRET_KEY=key)

    assert said.code == 3
    assert list(problems(said)) == ["key"]
    assert problems(said)["key"][0].startswith(words)
    assert "destination" in findings(said)


def test_a_wrong_key_and_an_expired_one(shell: Shell) -> None:
    key = shell.box.restrict(permissions=PERMISSIONS)
    shell.box.expire(key)

    wrong = shell.run("doctor", "--json", STRIPE_SECRET_KEY="sk_test_wrong")
    expired = shell.run("doctor", "--json", STRIPE_SECRET_KEY=key)

    assert (wrong.code, expired.code) == (3, 3)
    assert problems(wrong)["account"][0].startswith(
        "Stripe says this key is not valid (401, request "
    )
    assert problems(expired)["account"][0].startswith(
        "Stripe says this key is expired (401, request "
    )


@pytest.mark.parametrize("table", CORE)
def test_each_permission_that_lacks_has_its_own_fix(shell: Shell, table: str) -> None:
    """Prices and plans share one."""
    row = CORE[table]

    said = shell.run(
        "doctor",
        "--json",
        STRIPE_SECRET_KEY=shell.box.restrict(permissions=PERMISSIONS - {row.permission}),
    )

    assert said.code == 3
    found = problems(said)
    text, fix = found.pop("permissions")
    assert (text, f"]={row.permission}" in fix) == (f"the key lacks {row.permission}", True)
    assert found == {
        other.table: (
            f"the key may not read {other.path}",
            f"Give the key read permission for {other.label} ({other.permission}) at https://dashboard.stripe.com/apikeys.",
        )
        for other in CORE.values()
        if other.permission == row.permission
    }


def test_groups_need_their_own_permissions(shell: Shell) -> None:
    """A key for the core lacks each one of another group; the form asks for those of both."""
    key = shell.box.restrict(permissions=PERMISSIONS)
    asked = ("doctor", "--json", "--resources", "customers,connect,topups")

    said = shell.run(*asked, STRIPE_SECRET_KEY=key)

    found = problems(said)
    lacking = {
        "topups": "rak_topup_read",
        "transfers": "rak_transfer_read",
        "application_fees": "rak_application_fee_read",
        "accounts": "rak_connected_account_read",
    }
    assert said.code == 3 and found.keys() == {*lacking, "permissions"}
    for table, permission in lacking.items():
        doubt = "probably " if table == "topups" else ""
        assert f"({doubt}{permission})" in found[table][1]
    text, fix = found["permissions"]
    needed = ["rak_customer_read", *lacking.values(), "rak_event_read"]
    assert text == f"the key lacks {', '.join(lacking.values())}"
    assert all(f"]={permission}" in fix for permission in needed)
    whole = shell.box.restrict(permissions={*PERMISSIONS, *lacking.values()})
    assert problems(shell.run(*asked, STRIPE_SECRET_KEY=whole)) == {}


def test_a_list_of_a_parent_is_tried_on_the_newest_parent(shell: Shell) -> None:
    """Without a parent nothing can be tried, and no permission is said to be missing."""
    asked = ("doctor", "--json", "--resources", "active_entitlements,issuing_tokens")
    key = shell.box.restrict(permissions={*PERMISSIONS, "rak_issuing_card_read"})

    said = shell.run(*asked, STRIPE_SECRET_KEY=key)

    found = problems(said)
    assert found.keys() == {"active_entitlements", "permissions"}
    assert "(probably rak_entitlement_read)" in found["active_entitlements"][1]
    assert found["permissions"][0] == "the key lacks rak_entitlement_read"
    untried = findings(said)["issuing_tokens"]
    assert untried.ok and untried.text.endswith("there is no list to try it with")


def test_a_key_that_may_not_read_events(shell: Shell) -> None:
    said = shell.run(
        "doctor",
        "--json",
        STRIPE_SECRET_KEY=shell.box.restrict(permissions=PERMISSIONS - {"rak_event_read"}),
    )

    assert said.code == 3
    found = problems(said)
    assert found.pop("permissions")[0] == "the key lacks rak_event_read"
    assert found == {
        "changes": (
            "the key may not read /v1/events",
            "Give the key read permission for Core > Events (rak_event_read) at https://dashboard.stripe.com/apikeys.",
        )
    }


def test_a_problem_is_two_lines_for_people(shell: Shell) -> None:
    said = shell.run(
        "doctor",
        STRIPE_SECRET_KEY=shell.box.restrict(permissions=PERMISSIONS - {"rak_invoice_read"}),
    )

    lines = said.out.splitlines()
    at = lines.index(f"problem  {'invoices':<27} the key may not read /v1/invoices")
    assert lines[at + 1].strip().startswith("fix: Give the key read permission for ")
    assert [line[:7] for line in lines].count("problem") == 2  # and the form for a new key


@pytest.mark.parametrize(
    ("skew", "text"),
    [
        (61.0, "this machine's clock is 61 s ahead of Stripe's"),
        (-4000.4, "this machine's clock is 4,000 s behind Stripe's"),
    ],
)
def test_a_clock_that_is_off_is_a_finding(skew: float, text: str) -> None:
    assert clock(skew) == Finding(
        "clock",
        False,
        text,
        "Turn on time synchronisation (NTP) here, or on the proxy in between.",
        3,
    )
    assert clock(59.0).ok and clock(-59.0).ok


def test_without_stripe_s_time_this_machine_s_serves() -> None:
    assert clock(None) == Finding(
        "clock",
        True,
        "Stripe's answers have no usable `Date` header (a proxy?); this machine's clock is used",
    )


def test_an_answer_that_is_no_list_is_no_permission(shell: Shell) -> None:
    """A 200 of something else than Stripe."""
    shell.box.faults.always["/v1/plans"] = "malformed"
    try:
        said = shell.run("doctor", "--json", "--give-up-after", "0.5")
    finally:
        shell.box.faults.always.clear()

    assert said.code == 5
    assert problems(said) == {
        "plans": ("/v1/plans: 127.0.0.1 keeps sending broken answers", "Run again later.")
    }


def test_the_clock_is_compared_with_stripe_s(shell: Shell) -> None:
    shell.box.advance(3600)
    try:
        said = shell.run("doctor", "--json")
    finally:
        shell.box.advance(-3600)

    assert list(problems(said)) == ["clock"]
    assert "behind Stripe's" in problems(said)["clock"][0]


def test_stripe_out_of_reach_is_exit_5(shell: Shell) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        base = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        said = shell.run("doctor", "--json", "--give-up-after", "0", STRIPE_API_BASE=base)

    assert said.code == 5
    assert list(problems(said)) == ["account"]
    assert (
        problems(said)["account"][0] == "/v1/account: cannot reach 127.0.0.1 (NewConnectionError)"
    )


def test_a_limit_on_one_endpoint_is_exit_5_and_hides_nothing_else(shell: Shell) -> None:
    shell.box.faults.always["/v1/invoices"] = 500
    try:
        said = shell.run("doctor", "--json", "--give-up-after", "0.5")
    finally:
        shell.box.faults.always.clear()

    assert said.code == 5
    assert list(problems(said)) == ["invoices"]
    assert "destination" in findings(said)


@pytest.mark.parametrize(
    ("name", "version", "fix"),
    [
        ("sqlglot", "30.30.0", 'pip install "sqlglot<30.22,>=28"'),
        ("duckdb", "2.0.0", 'pip install "duckdb<2,>=1.4"'),
        ("dlt", "1.20.0", 'pip install "dlt<2,>=1.31"'),
        ("stripe", None, 'pip install "stripe<17,>=16"'),
        ("adbc-driver-postgresql", "1.11.0", 'pip install "adbc-driver-postgresql>=1.12"'),
    ],
)
def test_a_broken_combination_is_recognised(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, name: str, version: str | None, fix: str
) -> None:
    real = metadata.version

    def other(wanted: str) -> str:
        if wanted != name:
            return real(wanted)
        if version is None:
            raise metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(metadata, "version", other)

    said = shell.run("doctor", "--json")

    why = BREAKS.get(name, "is not a compatible version")
    assert said.code == 3
    assert problems(said) == {
        name: (f"{version} {why}" if version else f"{name} is not installed", fix)
    }


def test_what_is_installed_fits() -> None:
    assert {finding.check for finding in dependencies()} >= {
        "dlt",
        "duckdb",
        "sqlglot",
        "stripe",
        "pyarrow",
        "typer",
    }
    assert [finding for finding in dependencies() if not finding.ok] == []


def test_the_narrower_bound_of_an_extra_counts_only_for_its_own_packages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = [
        "duckdb<2,>=1.4",
        "duckdb<1.4.1; extra == 'engines'",
        "adbc-driver-postgresql>=99; extra == 'postgres'",
    ]
    monkeypatch.setattr(metadata, "requires", lambda name: lines)

    assert [(each.check, each.ok) for each in dependencies()] == [
        ("duckdb", True),
        ("adbc-driver-postgresql", False),
    ]


def test_a_destination_that_cannot_merge(shell: Shell) -> None:
    said = shell.run(
        "doctor",
        "--json",
        "--destination",
        "filesystem",
        DESTINATION__FILESYSTEM__BUCKET_URL=f"file://{shell.folder}/lake",
    )

    assert said.code == 3
    assert list(problems(said)) == ["destination"]
    assert problems(said)["destination"][0].startswith(
        "The destination filesystem cannot merge with delete-insert"
    )


def test_a_database_that_is_locked(shell: Shell) -> None:
    with holding(shell.folder / "stripe_feed.duckdb") as pid:
        said = shell.run("doctor", "--json")

    assert said.code == 3
    assert list(problems(said)) == ["destination"]
    assert problems(said)["destination"][0] == f"stripe_feed.duckdb is open in process {pid}"


def test_a_folder_that_cannot_be_written(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the file itself could be: DuckDB writes its log beside it."""
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) != shell.folder)

    before = shell.run("doctor", "--json")
    with holding(shell.folder / "stripe_feed.duckdb"):
        pass
    after = shell.run("doctor", "--json")

    assert (before.code, after.code) == (3, 3)
    assert (
        problems(before)
        == problems(after)
        == {
            "destination": (
                f"The folder {shell.folder.name} of stripe_feed.duckdb cannot be written",
                "Allow it with `chmod u+wx` (as its owner), or choose another --database.",
            )
        }
    )


def test_a_file_that_cannot_be_written(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    with holding(shell.folder / "stripe_feed.duckdb"):
        pass
    monkeypatch.setattr("os.access", lambda path, mode: Path(path) == shell.folder)

    said = shell.run("doctor", "--json")

    assert said.code == 3
    assert problems(said) == {
        "destination": (
            "stripe_feed.duckdb cannot be written",
            "Allow it with `chmod u+w` (as its owner), or choose another --database.",
        )
    }


def test_a_file_that_may_not_be_read() -> None:
    """DuckDB's words for it are those of a file that cannot be opened; it is not damaged."""
    fault = file_error(
        Path("x.duckdb"), 'IO Error: Cannot open file "/srv/x.duckdb": Permission denied'
    )

    assert str(fault) == (
        "x.duckdb cannot be opened: permission denied. "
        "Give your user the rights to it and to its folder, or choose another --database."
    )


def test_a_file_named_like_its_dataset(shell: Shell) -> None:
    said = shell.run("doctor", "--json", "--database", "stripe.duckdb")

    assert said.code == 3
    assert problems(said)["destination"][0].startswith(
        "The file stripe.duckdb and the dataset stripe have the same name"
    )


def test_a_dataset_of_another_account_or_mode(shell: Shell, tmp_path: Path) -> None:
    assert shell.sync("--resources", "customers", "--state-dir", "state").code == 0
    with shell_of(Sandbox(seed=6, customers=5, now=shell.box.now), tmp_path) as other:
        said = other.run("doctor", "--json")

    assert said.code == 3
    text, fix = problems(said)["dataset"]
    assert text == (
        f"The dataset holds account {shell.box.account_id} in test mode, "
        f"but the key is for account {other.box.account_id} in test mode"
    )
    assert fix == "Use another --dataset or the other key."


def test_the_worst_finding_decides() -> None:
    fine, wrong, away = (
        Finding("a", True, ""),
        Finding("b", False, "", "x", 3),
        Finding("c", False, "", "x", 5),
    )

    assert [exit_code(found) for found in ([], [fine], [fine, wrong], [wrong, away, fine])] == [
        0,
        0,
        3,
        5,
    ]
