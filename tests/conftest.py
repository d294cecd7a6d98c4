"""Keeps the suite to itself: no network but loopback, no key, no setting and no folder of whoever
runs it.
"""

from __future__ import annotations

import functools
import gc
import importlib
import ipaddress
import itertools
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests import quick_dlt
from tests.broad import BROAD

FOREIGN = (
    # what we and Stripe's SDK read (STRIPE_FIXTURES is for the tests)
    "STRIPE_",
    # what dlt reads, see its known_env.py and its config sections
    "DLT_", "SOURCES__", "DESTINATION__", "CREDENTIALS", "RUNTIME__", "EXTRACT__", "NORMALIZE__", "LOAD__", "SCHEMA__",
    "DATA_WRITER__", "PIPELINE_NAME",
    # what would move the home folder's contents elsewhere
    "XDG_", "IPYTHONDIR", "JUPYTER_",
    # what changes the output of a command
    "FORCE_COLOR", "NO_COLOR", "COLUMNS",
)  # fmt: skip

_home = pytest.StashKey[Path]()


def pytest_configure(config: pytest.Config) -> None:
    """Before any test module is imported: dlt reads `.dlt/` of the working directory once, when it
    is imported.
    """
    os.environ.pop(
        "PYTHONDONTWRITEBYTECODE", None
    )  # the commands under test would be compiled anew each time
    sys.dont_write_bytecode = False  # each worker and each run would compile the tests anew
    for name in list(os.environ):
        proxy = name.lower().endswith("_proxy")
        if proxy or (name.startswith(FOREIGN) and name != "STRIPE_FIXTURES"):
            del os.environ[name]
    if fixtures := os.environ.get("STRIPE_FIXTURES"):
        os.environ["STRIPE_FIXTURES"] = os.path.abspath(fixtures)
    _write_to_memory()
    home = config.stash[_home] = Path(tempfile.mkdtemp(prefix="stripe-feed-tests-"))
    os.environ |= {
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home / "run"),
        "DLT_DATA_DIR": str(home / "dlt"),
        "RUNTIME__DLTHUB_TELEMETRY": "false",
    }
    (home / "run").mkdir(mode=0o700)
    if (
        signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    ):  # of a background job; all commands under test would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.getLogger("dlt").addHandler(_ToStderr())
    if not getattr(
        config.option, "numprocesses", None
    ):  # the process that starts workers keeps the folder they look from
        gc.disable()  # until all is collected: what is imported stays
        os.chdir(home)
        quick_dlt.install()
        _keep_tables_of_hypothesis(config)
        _build_commands_once()
    _only_loopback()


@pytest.hookimpl(optionalhook=True)  # some environments have no xdist
def pytest_xdist_auto_num_workers() -> int:
    """One worker more than processors: a tenth of a worker's time is waiting for servers, locks and
    processes of its own.
    """
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0)) + 1
    return (os.cpu_count() or 1) + 1


IN_MEMORY, ROOM = Path("/dev/shm"), 4 << 30


def _write_to_memory() -> None:
    """Keep all folders of tests in memory if it has a folder with room: a tenth of the suite's time
    is waiting for a disk to keep what is deleted at once. `TMPDIR` keeps them elsewhere.
    """
    if "TMPDIR" in os.environ or not os.access(IN_MEMORY, os.W_OK):
        return
    if shutil.disk_usage(IN_MEMORY).free > ROOM:
        os.environ["TMPDIR"] = str(IN_MEMORY)
        tempfile.tempdir = None  # it is asked for again


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Share the compiling: each worker begins with modules of its own, and finds those of the others
    compiled. All at once would compile each module of a fresh clone.
    """
    config = session.config
    if (worker := getattr(config, "workerinput", None)) is None or not _is_whole(config):
        return
    first, step = int(worker["workerid"].removeprefix("gw")), worker["workercount"]
    for file in sorted(Path(__file__).parent.glob("test_*.py"))[first::step]:
        with suppress(Exception, pytest.skip.Exception):  # collecting says so
            importlib.import_module(f"tests.{file.stem}")


def _is_whole(config: pytest.Config) -> bool:
    """Whether all tests are collected, not some files of them."""
    return config.args_source is pytest.Config.ArgsSource.TESTPATHS


def pytest_collection_finish(session: pytest.Session) -> None:
    """What was imported and collected stays: later collections of garbage need not look at it."""
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(50_000, 20, 20)


class _ToStderr(logging.Handler):
    """In place of dlt's own, which keeps what stderr was when it was made: that of a command in an
    earlier test, closed since.
    """

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)


def pytest_unconfigure(config: pytest.Config) -> None:
    if "tests.postgres" in sys.modules:
        sys.modules["tests.postgres"].stop_server()
    os.chdir(config.invocation_params.dir)
    shutil.rmtree(config.stash[_home], ignore_errors=True)


LONGEST = (
    "stream",
    "bad_input",
    "reconcile",
    "docs",
    "pipelines",
    "dlt_native",
    "verify_run",
    "sublists",
    "cli",
    "forget",
    "incremental",
    "damage",
    "store",
    "models_slices",
    "relists",
    "webhook_events",
    "groups",
    "contract",
    "push_record",
    "agents",
    "connect",
    "locks",
    "destinations",
    "crash",
    "doctor",
    "models_cli",
    "report",
    "held_objects",
    "transports",
    "resource_rows",
    "trigger_cli",
    "feed_cli",
    "privacy",
    "worker",
    "models_oracle",
    "feed_property",
    "service",
    "changes_api",
    "rejected",
    "push_cli",
    "mutants",
    "lakes",
    "sandbox",
    "deleted_prices",
    "push_destination",
    "model_triggers",
    "stripe_time",
    "push_copy",
    "small_accounts",
    "truth",
    "place",
)
"""Files by the time that they take: a worker that gets one of them last keeps all others waiting."""


@pytest.hookimpl(tryfirst=True)  # before those are left out that are not asked for
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    whole = not any("::" in argument for argument in config.args)
    _mark_broad(items, whole)
    place = {f"test_{name}": n for n, name in enumerate(LONGEST)}
    items.sort(
        key=lambda item: place.get(item.path.stem, len(place))
    )  # stable: the rest stays as it was


def _mark_broad(items: list[pytest.Item], whole: bool) -> None:
    """Mark what `broad.py` lists; where whole files are collected, fail for a row that no test
    answers to.
    """
    seen: dict[tuple[str, str], set[str]] = {}
    for item in items:
        test, rows = getattr(item, "originalname", item.name), BROAD.get(item.path.name, {})
        if test in rows:
            case, row = getattr(getattr(item, "callspec", None), "id", ""), rows[test]
            seen.setdefault((item.path.name, test), set()).add(case)
            if isinstance(row, str) or case not in row:
                item.add_marker("broad")
    for file in {item.path.name for item in items if whole} & BROAD.keys():
        for test, row in BROAD[file].items():
            cases = seen.get((file, test), set())
            if not cases or not (isinstance(row, str) or set(row) <= cases):
                raise pytest.UsageError(
                    f"tests/broad.py: {file}: there is no {test} with all of {row}"
                )


_folders = itertools.count(1)


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As pytest's own, which looks through the folders of all tests before for the next number."""
    folder = tmp_path_factory.getbasetemp() / f"test-{next(_folders)}"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test works in an empty folder and keeps its pipelines apart: both have default names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DLT_DATA_DIR", str(Path(os.environ["HOME"], "dlt", tmp_path.name)))
    return tmp_path


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for another process does not rest in between, and asks rarely, so that the
    longest wait takes no time.
    """
    monkeypatch.setattr("stripe_feed.destination.locks.pause", lambda: None)
    monkeypatch.setattr("stripe_feed.destination.locks.POLL_INTERVAL", 5.0)


def _keep_tables_of_hypothesis(config: pytest.Config) -> None:
    """Those of characters and of the constants in the code take seconds; examples are not kept."""
    from hypothesis import settings
    from hypothesis.configuration import set_hypothesis_home_dir

    if (cache := getattr(config, "cache", None)) is not None:
        set_hypothesis_home_dir(cache.mkdir("hypothesis"))
    settings.register_profile("suite", settings.default, database=None)
    settings.load_profile("suite")


def _build_commands_once() -> None:
    """The tree of commands is the same for each run in this process, and to build it takes as long
    as many a run.
    """
    from typer import testing

    build = functools.cache(vars(testing)["_get_command"])
    setattr(testing, "_get_command", build)  # noqa: B010  (mypy refuses the assignment)


def _only_loopback() -> None:
    """Makes a test fail that reaches for another host, even where the code under test catches every
    Exception.
    """

    def guarded(real: Callable[..., Any], host_of: Callable[..., object]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            host = host_of(*args, **kwargs)
            if not _is_loopback(host):
                pytest.fail(f"a test reached for {host!r}; only loopback is allowed")
            return real(*args, **kwargs)

        return call

    def peer(_: socket.socket, address: Any) -> object:
        return (
            address[0] if isinstance(address, tuple) else "localhost"
        )  # not a tuple: the path of a Unix socket

    def named(host: object, *_: object, **__: object) -> object:
        return host

    for name in ("connect", "connect_ex"):
        setattr(socket.socket, name, guarded(getattr(socket.socket, name), peer))
    setattr(socket, "getaddrinfo", guarded(socket.getaddrinfo, named))  # noqa: B010  (mypy refuses the assignment)


def _is_loopback(host: object) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if name is None or name == "localhost":
        return True
    try:
        return ipaddress.ip_address(str(name)).is_loopback
    except ValueError:
        return False
