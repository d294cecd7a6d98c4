"""No key, e-mail address or name leaves the destination's tables: not into logs, errors, state,
traces or leftover files.
"""

from __future__ import annotations

import gzip
import logging
import os
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dlt
import pytest
import stripe
from dlt.load.load import Load

from stripe_feed.destination.pipeline import open_pipeline
from stripe_feed.destination.read import open_reader, read_state
from stripe_feed.errors import StripeFeedError
from stripe_feed.extract.paging import reader
from stripe_feed.sandbox import Sandbox
from tests.commands import Said, Shell, holding, loaded, shell_of
from tests.copies import PERMISSIONS
from tests.postgres import postgres_server

KEY = "rk_test_canaryKey51Zx9QpL"
EMAIL = "jane.canary@example.com"
NAME = "Canary O'Shea-Ōkami"
CANARIES = [KEY, EMAIL, NAME, NAME.encode("unicode_escape").decode(), EMAIL.replace("@", "%40")]


@dataclass
class Spy(logging.Handler):
    """Hears everything that is logged, at any level."""

    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(logging.DEBUG)

    def __hash__(self) -> int:
        return id(self)

    def emit(self, record: logging.LogRecord) -> None:
        cause = record.exc_info and traceback.format_exception(record.exc_info[1])
        self.lines.append(f"{record.name} {record.getMessage()} {cause}")


@pytest.fixture
def spy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Spy]:
    """All loggers at DEBUG, those of dlt and of Stripe's SDK too."""
    spy = Spy()
    loggers = [
        logging.getLogger(name) for name in (None, "dlt", "stripe", "stripe_feed", "urllib3")
    ]
    levels = [logger.level for logger in loggers]
    monkeypatch.setenv("RUNTIME__LOG_LEVEL", "DEBUG")
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        logger.addHandler(spy)
    yield spy
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
        logger.removeHandler(spy)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """An account with canaries: in a customer, in its invoices, in what is sent only when it is
    expanded.
    """
    box = Sandbox(seed=11, customers=6)
    box.restrict(KEY, PERMISSIONS)
    for table in ("customers", "invoices", "products", "subscriptions"):
        first = next(iter(box.objects(table)))
        named = {
            "customers": {"email": EMAIL, "name": NAME},
            "invoices": {"customer_email": EMAIL, "customer_name": NAME},
        }
        box.update(
            table,
            first,
            description=f"{NAME} <{EMAIL}>",
            **named.get(table, {}),
            metadata={"who": EMAIL},
        )
    box.advance(1)
    with shell_of(box, tmp_path) as shell:
        shell.key = KEY
        yield shell


def found_in(texts: dict[str, str]) -> list[tuple[str, str]]:
    """Which canary is where."""
    return [
        (where, canary) for where, text in texts.items() for canary in CANARIES if canary in text
    ]


def files(folder: Path) -> dict[str, str]:
    """What is in every file of a folder, packed ones unpacked; the databases themselves aside."""
    found = {}
    for file in folder.rglob("*"):
        if file.is_file() and ".duckdb" not in file.name:
            content = file.read_bytes()
            content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
            found[str(file.relative_to(folder))] = content.decode(
                "utf-8", "replace"
            ) + content.decode("utf-16-le", "replace")
    return found


def leftovers(folder: Path) -> list[str]:
    """Files with rows, which may be packed so that no canary shows."""
    return [
        name
        for name in files(folder)
        if name.endswith((".parquet", ".insert_values", ".jsonl", ".arrow"))
    ]


def fails_at(name: str, fault: Any, *arguments: str) -> Callable[[Shell], Said]:
    def run(shell: Shell) -> Said:
        shell.box.faults.always[f"/v1/{name}"] = fault
        try:
            return sync(shell, "--give-up-after", "0", *arguments)
        finally:
            shell.box.faults.always.clear()

    return run


def interrupted(shell: Shell) -> Said:
    """In the load step: its package waits for the next run."""
    real = Load.run

    def run(*arguments: Any, **options: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return real(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Load, "run", run)
        return sync(shell)


def fails_after_rows(shell: Shell) -> Said:
    """Some rows are handed to dlt before the last page fails for good."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "MAX_TABLE_ROWS", 5)
        patch.setenv("DATA_WRITER__BUFFER_MAX_ITEMS", "1")
        return fails_at("invoices", 500, "--resources", "invoices")(shell)


def locked_meanwhile(shell: Shell) -> Said:
    """Another process opens the database while pages are read."""
    holder = holding(shell.folder / "copy.duckdb")

    def hold(template: str, parameters: object) -> None:
        if template == "/v1/invoices":
            shell.box.on_request = None
            holder.__enter__()

    shell.box.on_request = hold
    try:
        # not `shell.sync`, which holds the file of a first run open
        return shell.run("sync", "--database", "copy.duckdb", "--state-dir", "state", "--wait", 0)
    finally:
        holder.__exit__(None, None, None)


def sync(shell: Shell, *arguments: str, **environment: str) -> Said:
    return shell.sync(
        "--database", "copy.duckdb", "--state-dir", "state", *arguments, **environment
    )


RUNS: dict[str, tuple[int, Callable[[Shell], Said]]] = {
    "all is well": (0, sync),
    "a malformed page": (5, fails_at("customers", "malformed", "--resources", "customers")),
    "an answer that Stripe never gives": (4, fails_at("invoices", 418)),
    "an error after some rows": (5, fails_after_rows),
    "an interrupt": (130, interrupted),
    "a lock": (3, locked_meanwhile),
}


@pytest.mark.parametrize("kind", RUNS)
def test_no_canary_shows_up(
    shell: Shell, spy: Spy, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """After a run of each kind, and after the good one that follows it."""
    code, run = RUNS[kind]
    monkeypatch.setenv("DLT_DATA_DIR", str(shell.folder / "dlt"))

    said = run(shell)
    pipeline = open_pipeline("copy.duckdb", state_dir="state")
    trace = pipeline.last_trace
    texts = {
        "stdout": said.out,
        "stderr": said.err,
        "log": "\n".join(spy.lines),
        "state": str(pipeline.state),
        "trace": "" if trace is None else f"{trace!r} {trace.asdict()} {trace.asstr(3)}",
    }
    waiting = leftovers(shell.folder)
    shell.box.update(
        "customers",
        next(iter(shell.box.objects("customers"))),
        name=NAME,
        metadata={"whose": EMAIL},
    )
    shell.box.advance(100)
    after = sync(shell)

    assert said.code == code, said.err
    assert len(spy.lines) > 3
    assert found_in(texts) == []
    assert waiting == [] or kind in ("an interrupt", "a lock")  # the next run loads it
    assert after.code == 0, after.err
    assert found_in(files(shell.folder) | {"log": "\n".join(spy.lines), "stderr": after.err}) == []
    assert leftovers(shell.folder) == []
    check_database(shell)
    if kind == "all is well":
        with open_reader("copy.duckdb") as copy:
            (change,) = copy.query("select op, after, previous from changes").rows
        assert change[0] == "u" and EMAIL in change[1] and EMAIL in change[2]


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    with postgres_server() as url:
        yield url


@pytest.mark.parametrize("kind", ["duckdb", "postgres", "sqlalchemy"])
def test_a_row_that_a_destination_refuses_is_shown_nowhere(
    shell: Shell,
    spy: Spy,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    """Somebody made e-mails unique; two customers have the same. And when that is mended the next
    run loads them.
    """
    monkeypatch.setenv("DLT_DATA_DIR", str(shell.folder / "dlt"))
    url = (
        request.getfixturevalue("postgres")
        if kind == "postgres"
        else f"sqlite:///{shell.folder / 'copy.duckdb.db'}?timeout=60"
    )
    monkeypatch.setenv(f"DESTINATION__{kind.upper()}__CREDENTIALS", url)
    where = ["--resources", "customers", "--state-dir", "state"]
    where += ["--database", "copy.duckdb"] if kind == "duckdb" else ["--destination", kind]
    assert shell.sync(*where).code == 0
    pipeline = open_pipeline("copy.duckdb" if kind == "duckdb" else None, kind, state_dir="mine")
    with pipeline.sql_client() as client:
        table = client.make_qualified_table_name("customers")
        on = "stripe__customers (email)" if kind == "sqlalchemy" else f"{table} (email)"
        client.execute_sql(f"update {table} set email = id")
        client.execute_sql(
            f"create unique index {'stripe.' if kind == 'sqlalchemy' else ''}one_mail on {on.removeprefix('stripe__')}"
        )
    for id in [id for id, one in loaded(shell.box, "customers").items() if one["email"] != EMAIL][
        :2
    ]:
        shell.box.update("customers", id, email=EMAIL, name=NAME)
    shell.box.advance(400)

    said = shell.sync(*where)
    texts = {"stdout": said.out, "stderr": said.err, "log": "\n".join(spy.lines)}
    with pipeline.sql_client() as client:
        client.execute_sql("drop index stripe.one_mail")
    after = shell.sync(*where)

    assert (said.code, after.code) == (3, 0), said.err + after.err
    assert f"{kind} cannot load customers: a unique index or constraint" in said.error
    assert found_in(texts | files(shell.folder)) == []
    assert leftovers(shell.folder) == []
    with pipeline.sql_client() as client:
        ((count,),) = client.execute_sql(f"select count(*) from {table} where email = '{EMAIL}'")
    assert count == 2


@pytest.mark.checklist("N31")
@pytest.mark.parametrize(
    "key", [KEY + "x", KEY.removeprefix("rk_"), KEY.replace("rk_test", "pk_test")]
)
def test_a_key_that_is_refused_is_not_shown(shell: Shell, spy: Spy, key: str) -> None:
    """A wrong one, something that is none, a publishable one."""
    said = sync(shell, STRIPE_SECRET_KEY=key)
    told = shell.run("doctor", STRIPE_SECRET_KEY=key)

    texts = {
        "sync": said.out + said.err,
        "doctor": told.out + told.err,
        "log": "\n".join(spy.lines),
    } | files(shell.folder)
    assert (said.code, told.code) == (3, 3)
    assert [where for where, text in texts.items() if key in text or "canaryKey" in text] == []


def check_database(shell: Shell) -> None:
    """The rows are in their tables, and nowhere else in the destination."""
    with open_reader("copy.duckdb") as copy:
        assert copy.query(f"select count(*) from customers where email = '{EMAIL}'").rows == [(1,)]
        assert found_in({"state": str(read_state(copy))}) == []
        staging = copy.query(
            "select table_name from information_schema.tables where table_schema = 'stripe_staging'"
        ).rows
        assert [name for (name,) in staging if not name.startswith("_dlt")] == []


def test_a_script_of_the_user_s_own_tells_no_key(
    shell: Shell, spy: Spy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pipeline.run(stripe_source())` with the key from dlt's configuration, good and refused."""
    from stripe_feed import stripe_source

    monkeypatch.setenv("DLT_DATA_DIR", str(shell.folder / "dlt"))
    monkeypatch.setenv("LOAD__DELETE_COMPLETED_JOBS", "true")
    texts = {}
    for name, key in {"good": KEY, "refused": KEY + "x"}.items():
        monkeypatch.setenv("SOURCES__STRIPE_FEED__API_KEY", key)
        pipeline = dlt.pipeline(name, destination="duckdb", dataset_name="stripe")
        try:
            pipeline.run(stripe_source(api_base=shell.url, max_rps=2000, endpoint_rps=2000))
        except Exception as fault:
            texts[f"{name} raised"] = "".join(traceback.format_exception(fault))
        trace = pipeline.last_trace
        assert trace is not None
        texts[name] = f"{trace!r} {trace.asdict()} {trace.asstr(3)} {pipeline.state} {pipeline!r}"

    assert list(texts) == ["good", "refused raised", "refused"]
    assert found_in(texts | files(shell.folder) | {"log": "\n".join(spy.lines)}) == []


def test_what_we_raise_holds_no_canary(shell: Shell) -> None:
    """The text of our errors, their chain of causes included: what an orchestrator prints."""
    from stripe_feed.sync_run import sync as run

    texts = {}
    options: dict[str, Any] = {
        "api_base": shell.url,
        "database": "copy.duckdb",
        "state_dir": "state",
        "give_up_after": 0,
    }
    for name, fault in {"customers": "malformed", "plans": 429}.items():
        shell.box.faults.always = {f"/v1/{name}": fault}  # type: ignore[dict-item]
        with pytest.raises(StripeFeedError) as raised:
            run(api_key=KEY, resources=[name], **options)
        texts[name] = "".join(traceback.format_exception(raised.value))
    with pytest.raises(StripeFeedError) as raised:
        run(api_key=KEY + "x", **options)
    texts["key"] = "".join(traceback.format_exception(raised.value))

    assert found_in(texts) == []


@pytest.mark.checklist("N31")
def test_the_key_is_in_no_repr(shell: Shell) -> None:
    from stripe_feed import stripe_source
    from stripe_feed.api.client import Api

    api = Api(KEY, base=shell.url)
    source = stripe_source(api_key=KEY, api_base=shell.url)

    assert (
        found_in({"api": repr(api), "vars": str(vars(api)), "source": f"{source!r} {source}"}) == []
    )


def test_telemetry_is_off(shell: Shell) -> None:
    assert stripe.enable_telemetry is False
    assert dlt.config.get("runtime.dlthub_telemetry", bool) is False
