"""A public name of a module's top level is defined once in the package, so that it means one thing.

The sandbox is a program of its own: its names are compared with each other only.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.syntax_trees import PACKAGE, tree_of

SAME_THING = {
    "T": "a type variable means nothing outside of its function",
    "app": "typer's word for a group of commands",
    "log": "the one logger of the package",
}
COMMANDS = "cli/"  # a command is a function with the name of its verb, which is another's work
HANDLERS = "sandbox/writes/"  # a module per kind of object, and in it a function per operation
OPERATIONS = {"cancel", "create", "delete", "delete_discount", "finalize", "update"}


def doubled(package: Path) -> list[str]:
    """Each public name that several modules define, with these modules."""
    homes: dict[tuple[bool, str], list[str]] = defaultdict(list)
    for file in sorted(package.rglob("*.py")):
        path = file.relative_to(package).as_posix()
        nodes = tree_of(file).body
        for name, is_function in set(definitions(nodes)):
            is_command = is_function and path.startswith(COMMANDS)
            is_handler = name in OPERATIONS and path.startswith(HANDLERS)
            if not (name.startswith("_") or name in SAME_THING or is_command or is_handler):
                homes[path.startswith("sandbox/"), name].append(path)
    return [
        f"{name}: {', '.join(sorted(paths))}"
        for (_, name), paths in homes.items()
        if len(paths) > 1
    ]


def definitions(nodes: list[ast.stmt]) -> Iterator[tuple[str, bool]]:
    """The names that a module defines itself, and whether each is a function."""
    for node in nodes:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name, True
            case ast.ClassDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                yield name, False
            case ast.Assign(targets=targets):
                for part in (part for target in targets for part in ast.walk(target)):
                    if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                        yield part.id, False
            case ast.If(body=body, orelse=orelse):
                yield from definitions([*body, *orelse])


def test_a_public_name_is_defined_once() -> None:
    assert doubled(PACKAGE) == []


@pytest.mark.parametrize(
    ("second", "code", "found"),
    [
        ("feed/b.py", "LIMIT = 2", ["LIMIT: feed/a.py, feed/b.py"]),
        ("feed/b.py", "LIMIT: int = 2", ["LIMIT: feed/a.py, feed/b.py"]),
        ("feed/b.py", "if True:\n    LIMIT = 2", ["LIMIT: feed/a.py, feed/b.py"]),
        ("feed/b.py", "class Row: ...", ["Row: feed/a.py, feed/b.py"]),
        ("feed/b.py", "def reset(): ...", ["reset: feed/a.py, feed/b.py"]),
        ("feed/b.py", "async def reset(): ...", ["reset: feed/a.py, feed/b.py"]),
        ("feed/b.py", "_LIMIT = 2\nfrom .a import LIMIT, reset\nlog = app = T = 1", []),
        ("cli/b.py", "def reset(): ...", []),
        ("cli/b.py", "LIMIT = 2", ["LIMIT: cli/b.py, feed/a.py"]),
        ("sandbox/b.py", "LIMIT = 2", []),
        ("sandbox/writes/b.py", "def update(): ...", []),
        ("sandbox/writes/b.py", "def merge(): ...", ["merge: sandbox/a.py, sandbox/writes/b.py"]),
    ],
)
def test_a_second_definition(tmp_path: Path, second: str, code: str, found: list[str]) -> None:
    for path, text in (
        ("feed/a.py", "LIMIT = 1\nlog = 1\nclass Row: ...\ndef reset(): ..."),
        ("sandbox/a.py", "def update(): ...\ndef merge(): ..."),
        (second, code),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")

    assert doubled(tmp_path) == found
