"""Odd arguments for every verb, and odd requests for every route: nothing is unexpected, and
nothing shows a traceback.
"""

from __future__ import annotations

import http.client
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from stripe_feed.cli.main import app
from stripe_feed.delivery.signatures import stripe_header
from stripe_feed.destination.pipeline import open_pipeline
from stripe_feed.feed.feed import open_feed
from stripe_feed.sandbox import Sandbox
from tests.commands import Shell, shell_of
from tests.feed_kills import a_change
from tests.web import NOW, Web, a_trigger, add, served

FEW = {"lines": 250, "requests": 750}  # in each run of the suite
MANY = 10_000  # of each in the long one
SECRET = "whsec_of_the_test"
ENDLESS = {
    "serve",
    "demo",
    "sandbox",
    "deliver",
    "consume",
}  # they go on, or run what they are given
GOING_ON = {"--follow"}
READING = {
    "status",
    "preview",
    "query",
    "tail",
    "net",
    "lag",
    "reset",
    "remove",
    "check",
    "list",
    "explain",
    "discard",
    "release",
}
FINE = {0, 2, 3, 4, 5}

ODD = (
    "", " ", "-", "--", "0", "-1", "1", "3", "007", "1.5", "1e400", "-1e-400", "NaN", "inf", "9" * 20, "9" * 400, "٣", "½", "true", "null",
    "2026-01-31", "2026-02-30", "0001-01-01", "9999-12-31T23:59:59Z", "99999-01-01", "1700000000", "7d", "-0d", "0s", "9" * 30 + "d", "1h30m", "d",
    "latest", "earliest", "evt_1", "evt_999", "customers", "customers,invoices", ",", "charges", "changes", "invoice_line_items", "cus_1", "added",
    "c,u", "status:active:past_due", "status", "a:b", ":::", 'metadata."a.b"', "metadata.", "items.data.0.id", "soft", "stripe", "stripe staging",
    "übergröße", "a" * 300, "'; drop table customers; --", '"', "\\", "%s", "%", "{0}", "$HOME", "~", "..", "../..", ".", "/", "/dev/null", "/dev/full",
    "folder", "missing/file", "text.txt", "stripe_feed.duckdb", "stripe_feed.duckdb/", "stripe_feed.feed.sqlite", "triggers.toml", "odd.toml", "t",
    "duckdb", "postgres", "filesystem", "nonsense", "select 1", "select * from customers", "select", "drop table customers", "select 1; select 2",
    "copy customers to 'x'", "customers.tax_ids", "customers.nothing", "2024-06-20", "2026-10-28.endive", "http://127.0.0.1:1", "http://[", "\udcff",
    "\x1b[31m", "line\nline", "\u202e", "😀", "sk_test_x",
)  # fmt: skip


def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, one in group.commands.items():
        if hasattr(one, "commands"):
            yield from commands(one, (*path, name))
        else:
            yield (*path, name), one


ALL = dict(commands(typer.main.get_command(app)))


@st.composite
def lines(draw: st.DrawFn, wanted: Callable[[str], bool]) -> list[str]:
    """A verb with some of its own options and arguments, and odd values."""
    path = draw(st.sampled_from([path for path in ALL if wanted(path[-1])]))
    odd = st.one_of(
        st.sampled_from(ODD), st.text(max_size=20).filter(lambda text: "\x00" not in text)
    )
    found = [*path]
    known = [one for one in ALL[path].params if not GOING_ON & {*one.opts}]
    for one in draw(st.lists(st.sampled_from(known), max_size=4)):
        if one.param_type_name == "option":
            found.append(draw(st.sampled_from([*one.opts, *one.secondary_opts])))
            found += [] if one.is_flag else [draw(odd)]
        else:
            found.append(draw(odd))
    return found


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A small account, its copy and its feed."""
    with shell_of(Sandbox(seed=5, customers=3), tmp_path_factory.mktemp("fuzz")) as shell:
        os.chdir(shell.folder)
        done = shell.sync("--database", "stripe_feed.duckdb", "--state-dir", "state")
        assert done.code == 0, done.err
        yield shell


@pytest.fixture
def folder(loaded: Shell, tmp_path: Path) -> Shell:
    """The copy, and files that are not what they are taken for."""
    for file in loaded.folder.glob("stripe_feed.*"):
        shutil.copy(file, tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.txt").write_text("text", encoding="utf-8")
    (tmp_path / "odd.toml").write_bytes(b"\xef\xbb\xbf[[trigger]]\nname = 1\n[a")
    (tmp_path / "triggers.toml").write_text(
        '[[trigger]]\nname = "t"\nresource = "customers"\ndeliver = { file = "t.jsonl" }\n'
    )
    return Shell(loaded.box, loaded.url, tmp_path)


def is_fine(shell: Shell, arguments: list[str]) -> None:
    done = CliRunner().invoke(app, arguments, input="select 1", env=shell.environment)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code in FINE, f"{arguments}: {done.stderr}"
    assert "Traceback" not in done.output + done.stderr and "error: unexpected" not in done.stderr


def often(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
        ],
    )


def test_every_verb_that_ends_is_tried() -> None:
    assert {path[-1] for path in ALL} > READING
    assert {path[-1] for path in ALL} > ENDLESS


def test_odd_arguments_of_verbs_that_read_are_answered(folder: Shell) -> None:
    @often(FEW["lines"])
    @given(lines(READING.__contains__))
    def tried(arguments: list[str]) -> None:
        is_fine(folder, arguments)

    tried()


@pytest.mark.long
def test_odd_arguments_of_every_verb_are_answered(folder: Shell) -> None:
    @often(MANY)
    @given(lines(lambda name: name not in ENDLESS))
    def tried(arguments: list[str]) -> None:
        is_fine(
            folder,
            [
                *arguments,
                *(
                    ["--give-up-after", "1"]
                    if arguments[0] in ("sync", "reconcile", "verify", "doctor")
                    else []
                ),
            ],
        )

    tried()


PATHS = (
    "/",
    "/changes",
    "/changes/stream",
    "/changes/ack",
    "/objects/customers/cus_1",
    "/health",
    "/metrics",
    "/stripe",
    "/retry",
    "/page.css",
    "/nowhere",
)
NAMES = (
    "after",
    "limit",
    "wait",
    "resource",
    "op",
    "format",
    "consumer",
    "start",
    "transition",
    "changed",
    "origin",
    "customer",
    "trigger",
    "token",
    "x",
)
HEADERS = (
    "Authorization",
    "Cookie",
    "Origin",
    "Host",
    "If-None-Match",
    "Last-Event-ID",
    "Accept",
    "Content-Type",
    "Stripe-Signature",
    "Sec-Fetch-Site",
)
BODIES = (
    b"",
    b"{}",
    b"[]",
    b"null",
    b'{"consumer":"a","offset":1e999}',
    b'{"consumer":null}',
    b'{"id":"evt_1","object":"event"}',
    b"\xff",
    b"[" * 5_000,
)


@pytest.fixture(scope="module")
def web(loaded: Shell, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    file = shutil.copy(loaded.folder / "stripe_feed.duckdb", tmp_path_factory.mktemp("served"))
    with open_feed(open_pipeline(str(file))) as feed:
        add(feed, *(a_change(n) for n in range(1, 9)))
        with served(feed, secrets=[SECRET], triggers=[a_trigger("t")]) as running:
            yield running


@st.composite
def requests(draw: st.DrawFn) -> tuple[str, str, bytes, dict[str, str]]:
    """A request: mostly of a route that there is, with its own parameters, and odd values."""
    odd = st.one_of(st.sampled_from(ODD), st.text(max_size=12))
    path = draw(
        st.one_of(
            st.sampled_from(PATHS),
            odd.map(lambda text: f"/objects/{quote(text, errors='replace')}/x"),
        )
    )
    pairs = draw(st.lists(st.tuples(st.sampled_from(NAMES), odd), max_size=3))
    query = "&".join(
        f"{name}={quote(value, errors='replace')}" for name, value in pairs if name != "wait"
    )
    method = draw(
        st.sampled_from(
            ["GET", "GET", "GET", "POST", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"]
        )
    )
    plain = odd.map(
        lambda text: (
            text.encode("ascii", "replace").decode().replace("\n", " ").replace("\r", " ")[:200]
        )
    )
    headers = draw(st.dictionaries(st.sampled_from(HEADERS), plain, max_size=2))
    body = draw(st.one_of(st.sampled_from(BODIES), st.binary(max_size=50)))
    if path == "/stripe" and draw(st.booleans()):
        headers["Stripe-Signature"] = stripe_header(int(NOW), body, [SECRET])
    return (
        method,
        f"{path}?{query}" if query else path,
        body if method not in ("GET", "HEAD") else b"",
        headers,
    )


def is_answered(web: Web, request: tuple[str, str, bytes, dict[str, Any]]) -> None:
    method, path, body, headers = request
    try:
        answer = web.ask(
            method, path, body, **{name.replace("-", "_"): value for name, value in headers.items()}
        )
    except ConnectionError:  # it was refused before its body was sent
        assert body, request
        return
    except http.client.HTTPException as fault:
        raise AssertionError(request) from fault
    assert answer.status < 500, request
    assert b"Traceback" not in answer.body


def test_odd_requests_are_answered(web: Web) -> None:
    @often(FEW["requests"])
    @given(requests())
    def tried(request: tuple[str, str, bytes, dict[str, Any]]) -> None:
        is_answered(web, request)

    tried()
    assert web.get("/health").status == 200


@pytest.mark.long
def test_many_odd_requests_are_answered(web: Web) -> None:
    @often(MANY)
    @given(requests())
    def tried(request: tuple[str, str, bytes, dict[str, Any]]) -> None:
        is_answered(web, request)

    tried()
    assert web.get("/health").status == 200
