"""The house has floors, and a module imports only from those below. Imports in functions and for
types count too.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "sources" / "stripe_feed"

FLOORS = (
    "errors, resources, sandbox",
    "rates, credentials, transport, repair, stripe_time, locks, place < destination_errors, answers < api, destination, preflight, lease",
    "extract, write, models",
    "feed",
    "loading < sync_run, show < verify_run, doctor, endpoint, service",
    "terminal < progress, verbs, options, trigger_words < feed_commands < trigger_commands, service_commands, demo < cli, __init__ < __main__",
)
"""From the bottom up. Modules between commas do not know each other; within one floor, `a < b` lets
b import a.
"""

ROOMS = {
    "extract": "windows, images, order, cursors, odd < shapes < pages, records, events < prior, told, fetch, indexes, comments, native, dropped < contents, astray, hints, session < changes, clocks"
    " < writer, histories, rereads, rung, reading < derive, lists, held < reconcile, snapshot, apply < follow < source",
    "feed": "listener, change, addresses, signing, operations, paths, unusable, schema < filters, expressions, sinks < store < fold, relay, once, mend, newest"
    " < lookups < cursors, upkeep, bodies, rules, bell < receivers, messages, enrolment, remote, documented < standing, lanes, rule_file, consume < triggers, watched"
    " < deliver, rehearsal < gate, pulls, metrics < page, desk < outlet < serve",
    "write": "actions < push",
}
"""The same inside a package; in one that is not named here, modules may import each other."""

ADD = "add it to {} in tests/test_floors.py"

Module = tuple[str, ...]  # ("extract", "pages")


def steps(*lines: str) -> dict[str, int]:
    order = [step for line in lines for step in line.split("<")]
    return {name.strip(): height for height, step in enumerate(order) for name in step.split(",")}


HEIGHT = steps(*FLOORS)
INSIDE = {package: steps(line) for package, line in ROOMS.items()}


def violations(package: Path) -> list[str]:
    """One line per import that does not go down, and per module that has no place yet."""
    files = {module_of(file.relative_to(package)): file for file in sorted(package.rglob("*.py"))}
    found = []
    for module, file in files.items():
        if problem := homeless(module):
            found.append(f"{file.relative_to(package)}: {problem}")
            continue
        for line, target in imports(file, module, set(files)):
            if problem := homeless(target) or forbidden(module, target):
                found.append(f"{file.relative_to(package)}:{line}: {problem}")
    return found


def module_of(path: Path) -> Module:
    parts = path.with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts


def homeless(module: Module) -> str:
    if module[0] not in HEIGHT:
        return f"{module[0]} is on no floor: {ADD.format('FLOORS')}"
    if len(module) > 1 and module[1] not in INSIDE.get(module[0], {module[1]: 0}):
        return f"{module[0]}.{module[1]} has no place in {module[0]}: {ADD.format('ROOMS')}"
    return ""


def forbidden(module: Module, target: Module) -> str:
    if module[0] == target[0]:
        same = module[:2] == target[:2] and len(module) > 1
        allowed = same or module[0] not in ROOMS or height_inside(target) < height_inside(module)
    elif module[0] == "sandbox":
        return (
            f"{'.'.join(module)} imports {'.'.join(target)}: the sandbox is an independent witness"
        )
    elif target[0] == "sandbox":
        allowed = module[0] == "cli"
    else:
        allowed = HEIGHT[target[0]] < HEIGHT[module[0]]
    return (
        "" if allowed else f"{'.'.join(module)} imports {'.'.join(target)}, which is not below it"
    )


def height_inside(module: Module) -> int:
    inside = INSIDE[module[0]]
    return (
        inside[module[1]] if len(module) > 1 else len(inside)
    )  # the package's own __init__ is on top


def imports(file: Path, module: Module, known: set[Module]) -> Iterator[tuple[int, Module]]:
    """Line and module of all imports of ours, wherever in the file."""
    package = (
        () if module == ("__init__",) else module if file.name == "__init__.py" else module[:-1]
    )
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), str(file))):
        match node:
            case ast.Import(names=names):
                paths = [tuple(name.name.split(".")) for name in names]
            case ast.ImportFrom(level=0, names=names, module=str(base)):
                paths = [(*base.split("."), name.name) for name in names]
            case ast.ImportFrom(level=level, names=names, module=base):
                start = ("stripe_feed", *package)[: len(package) + 2 - level]
                paths = [(*start, *(base.split(".") if base else ()), name.name) for name in names]
            case _:
                continue
        for path in paths:
            if path[0] != "stripe_feed":
                continue
            inner = path[1:]
            while len(inner) > 1 and inner not in known:  # the last part may be a name in a module
                inner = inner[:-1]
            yield (
                node.lineno,
                inner if inner and (inner in known or inner[0] in HEIGHT) else ("__init__",),
            )


def test_every_import_goes_down() -> None:
    assert violations(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "code", "problem"),
    [
        (
            "api.py",
            "from .extract import pages",
            "api imports extract.pages, which is not below it",
        ),
        (
            "api.py",
            "from stripe_feed.sync_run import run",
            "api imports sync_run, which is not below it",
        ),
        ("api.py", "import stripe_feed.cli", "api imports cli, which is not below it"),
        (
            "api.py",
            "def f():\n    from .doctor import x",
            "api imports doctor, which is not below it",
        ),
        (
            "api.py",
            "if TYPE_CHECKING:\n    from .sync_run import x",
            "api imports sync_run, which is not below it",
        ),
        ("api.py", "from . import stripe_source", "api imports __init__, which is not below it"),
        ("rates.py", "from .api import x", "rates imports api, which is not below it"),
        ("sync_run.py", "from .doctor import x", "sync_run imports doctor, which is not below it"),
        (
            "extract/pages.py",
            "from ..sync_run import x",
            "extract.pages imports sync_run, which is not below it",
        ),
        (
            "extract/pages.py",
            "from .records import x",
            "extract.pages imports extract.records, which is not below it",
        ),
        (
            "extract/pages.py",
            "from . import source",
            "extract.pages imports extract.source, which is not below it",
        ),
        (
            "extract/pages.py",
            "from . import x",
            "extract.pages imports extract, which is not below it",
        ),
        (
            "feed/triggers.py",
            "from .deliver import x",
            "feed.triggers imports feed.deliver, which is not below it",
        ),
        (
            "write/push.py",
            "from ..extract.pages import x",
            "write.push imports extract.pages, which is not below it",
        ),
        (
            "sandbox/server.py",
            "from ..errors import x",
            "sandbox.server imports errors: the sandbox is an independent",
        ),
        (
            "sync_run.py",
            "from .sandbox import x",
            "sync_run imports sandbox, which is not below it",
        ),
        ("misc.py", "", "misc is on no floor: add it to FLOORS in tests/test_floors.py"),
        (
            "extract/misc.py",
            "",
            "extract.misc has no place in extract: add it to ROOMS in tests/test_floors.py",
        ),
    ],
)
def test_a_wrong_import_is_found(tmp_path: Path, file: str, code: str, problem: str) -> None:
    house(tmp_path, {file: code})

    found = violations(tmp_path)

    assert len(found) == 1
    assert problem in found[0]


@pytest.mark.parametrize(
    ("file", "code"),
    [
        ("api.py", "import json, stripe\nfrom .errors import x\nfrom . import rates, resources"),
        (
            "cli.py",
            "from .sandbox import serve\nfrom . import sync_run\nfrom stripe_feed.feed.serve import app",
        ),
        ("extract/__init__.py", "from .source import stripe_source"),
        ("extract/source.py", "from . import changes\nfrom .pages import walk\nfrom .. import api"),
        ("sandbox/server.py", "from .store import Account\nfrom . import store"),
        ("__init__.py", "from .extract.source import stripe_source"),
    ],
)
def test_an_import_from_below_is_fine(tmp_path: Path, file: str, code: str) -> None:
    house(tmp_path, {file: code})

    assert violations(tmp_path) == []


def house(package: Path, files: dict[str, str]) -> None:
    modules = [
        name.strip() for line in FLOORS for step in line.split("<") for name in step.split(",")
    ]
    empty = [
        f"{name}/__init__.py" if name in {*ROOMS, "models", "sandbox"} else f"{name}.py"
        for name in modules
    ]
    rooms = [f"{room}/{name}.py" for room in ROOMS for name in INSIDE[room]]
    for name, code in (dict.fromkeys([*empty, *rooms, "sandbox/store.py"], "") | files).items():
        path = package / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(code, encoding="utf-8")
