"""Folders have floors: a folder imports only from folders below it, and no modules import each other in a circle.

Imports in functions and for types count too. Nobody registers a module: only a new folder needs a floor.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.syntax_trees import PACKAGE, tree_of

MOST_MODULES = 12  # beside `__init__`, in one folder
FLOORS = (
    ("currencies", "errors", "markup", "resources", "wording"),
    ("api", "sqlite_file"),
    ("destination",),
    ("extract", "models", "write"),
    ("feed", "report"),
    ("delivery", "forget_run", "sync_run"),
    ("accounts_run", "triggers", "verify_run", "doctor"),
    ("shared_run",),
    ("server",),
    ("agents",),
    ("cli",),
    ("", "__main__"),
)
"""From the ground up: folders, and the modules that lie beside them. "" is the package itself."""

WITNESS = "sandbox"  # it imports nothing of ours, and nothing of ours imports it
FLOOR = {name: height for height, names in enumerate(FLOORS) for name in names}

Imports = Mapping[str, Mapping[str, int]]
"""Module -> the modules that it imports, each with the line; all dotted, below the package."""


def problems(package: Path) -> list[str]:
    """Every import that does not go down, every circle, and every folder with too many modules."""
    imports = imports_in(package)
    return [*upward(imports), *circles(imports), *crowded(package)]


def imports_in(package: Path) -> Imports:
    files = {name_of(file.relative_to(package)): file for file in sorted(package.rglob("*.py"))}
    return {
        module: {target: line for line, target in imported(file, module, set(files))}
        for module, file in files.items()
    }


def name_of(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(file: Path, module: str, modules: set[str]) -> Iterator[tuple[int, str]]:
    """Line and module of all imports of ours, wherever in the file."""
    parts = [part for part in module.split(".") if part]
    folder = parts if file.name == "__init__.py" else parts[:-1]
    for node in ast.walk(tree_of(file)):
        match node:
            case ast.Import(names=names):
                paths = [name.name.split(".") for name in names]
            case ast.ImportFrom(level=0, names=names, module=str(base)):
                paths = [[*base.split("."), name.name] for name in names]
            case ast.ImportFrom(level=level, names=names, module=base):
                start = ["stripe_feed", *folder[: len(folder) + 1 - level]]
                paths = [[*start, *(base or "").split("."), name.name] for name in names]
            case _:
                continue
        for path in paths:
            if path[0] != "stripe_feed":
                continue
            inner = [part for part in path[1:] if part]
            while (
                inner and ".".join(inner) not in modules
            ):  # the last part may be a name in a module
                inner = inner[:-1]
            if (target := ".".join(inner)) != module:
                yield node.lineno, target


def upward(imports: Imports) -> Iterator[str]:
    for module, targets in imports.items():
        mine = module.partition(".")[0]
        if mine not in FLOOR and mine != WITNESS:
            yield f"{module}: {mine} has no floor: give it one in tests/test_floors.py"
            continue
        for target, line in targets.items():
            theirs = target.partition(".")[0]
            if mine == theirs:
                continue
            if WITNESS in (mine, theirs):
                yield f"{module}:{line} imports {target}: the sandbox is an independent witness"
            elif FLOOR.get(theirs, len(FLOORS)) >= FLOOR[mine]:
                yield f"{module}:{line} imports {target or 'the package'}, which is not below it"


def circles(imports: Imports) -> Iterator[str]:
    try:
        TopologicalSorter({module: set(targets) for module, targets in imports.items()}).prepare()
    except CycleError as error:
        yield f"modules import each other in a circle: {' -> '.join(error.args[1])}"


def crowded(package: Path) -> Iterator[str]:
    for folder in sorted({file.parent for file in package.rglob("*.py")}):
        count = sum(file.name != "__init__.py" for file in folder.glob("*.py"))
        if count > MOST_MODULES:
            yield f"{folder.relative_to(package)} holds {count} modules, more than {MOST_MODULES}"


def test_every_import_goes_down_and_none_goes_round() -> None:
    assert problems(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "code", "problem"),
    [
        (
            "api/client.py",
            "from ..extract import lists",
            "api.client:1 imports extract.lists, which is not",
        ),
        (
            "api/client.py",
            "from stripe_feed.sync_run import sync",
            "imports sync_run, which is not below it",
        ),
        ("api/client.py", "import stripe_feed.cli.main", "imports cli.main, which is not below it"),
        (
            "api/client.py",
            "def f():\n    from ..doctor import x",
            "api.client:2 imports doctor, which",
        ),
        (
            "api/client.py",
            "if TYPE_CHECKING:\n    from ..feed import x",
            "imports feed, which is not",
        ),
        (
            "api/client.py",
            "from .. import stripe_source",
            "imports the package, which is not below it",
        ),
        ("api/client.py", "from ..resources import x\nfrom ..errors import y", ""),
        (
            "extract/lists.py",
            "from ..write import actions",
            "imports write.actions, which is not below it",
        ),
        (
            "triggers/run.py",
            "from ..doctor import examine",
            "imports doctor, which is not below it",
        ),
        (
            "sandbox/app.py",
            "from ..errors import x",
            "imports errors: the sandbox is an independent",
        ),
        (
            "cli/main.py",
            "from ..sandbox import Sandbox",
            "imports sandbox: the sandbox is an independent",
        ),
        ("cli/main.py", "from ..server.app import app\nfrom ..sync_run import sync", ""),
        ("misc.py", "", "misc has no floor: give it one"),
        ("misc/page.py", "", "misc has no floor: give it one"),
        ("extract/lists.py", "from .paging import reader", ""),
        ("extract/paging/reader.py", "from ..lists import x", "in a circle: "),
        (
            "extract/paging/reader.py",
            "if TYPE_CHECKING:\n    from ..lists import x",
            "in a circle: ",
        ),
        ("sandbox/app.py", "from .state.account import Account", ""),
        ("sandbox/state/account.py", "from ..app import App", "in a circle: "),
    ],
)
def test_a_planted_import(tmp_path: Path, file: str, code: str, problem: str) -> None:
    house(tmp_path, {file: code})

    found = problems(tmp_path)

    assert (len(found) == 1 and problem in found[0]) if problem else found == []


def test_a_folder_with_too_many_modules(tmp_path: Path) -> None:
    house(tmp_path, {f"feed/part_{n}.py": "" for n in range(MOST_MODULES + 1)})

    assert problems(tmp_path) == ["feed holds 13 modules, more than 12"]


def house(package: Path, files: dict[str, str]) -> None:
    """A small package with folders on all floors; the given files replace or join those there."""
    folders = "api destination extract extract/paging feed server cli triggers write sandbox sandbox/state"
    start = {
        **{f"{folder}/__init__.py": "" for folder in folders.split()},
        "__init__.py": "from .extract.lists import x",
        **dict.fromkeys(("errors.py", "doctor.py", "sync_run.py", "resources/__init__.py"), ""),
        **dict.fromkeys(("api/client.py", "server/app.py", "cli/main.py", "write/actions.py"), ""),
        **dict.fromkeys(("triggers/run.py", "extract/paging/reader.py"), ""),
        "extract/lists.py": "from .paging.reader import x",
        "sandbox/app.py": "from .state.account import x",
        "sandbox/state/account.py": "",
    }
    for name, code in (start | files).items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")
