"""Expressions that read badly are not used: text or a list multiplied by a condition, and a ternary
inside a ternary.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.syntax_trees import PACKAGE, tree_of

SEQUENCES = (ast.JoinedStr, ast.List, ast.Tuple)
CONDITIONS = ("all", "any", "bool", "isinstance")  # functions that give a bool


def riddles(tree: ast.Module) -> Iterator[str]:
    """Each such expression, with its line."""
    for node in ast.walk(tree):
        match node:
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                pairs = ((left, right), (right, left))
                if any(is_sequence(one) and is_condition(other) for one, other in pairs):
                    yield f"{node.lineno}: {ast.unparse(node)}"
            case ast.IfExp(test=test, body=body, orelse=orelse):
                if any(isinstance(part, ast.IfExp) for part in (test, body, orelse)):
                    yield f"{node.lineno}: {ast.unparse(node)}"


def is_sequence(node: ast.expr) -> bool:
    return isinstance(node, SEQUENCES) or (
        isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
    )


def is_condition(node: ast.expr) -> bool:
    match node:
        case ast.Compare() | ast.BoolOp() | ast.UnaryOp(op=ast.Not()):
            return True
        case ast.Call(func=ast.Name(id=name)):
            return name in CONDITIONS
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.startswith(("is_", "has_"))
    return False


def test_no_expression_is_a_riddle() -> None:
    found = [
        f"{file.relative_to(PACKAGE)}:{riddle}"
        for file in sorted(PACKAGE.rglob("*.py"))
        for riddle in riddles(tree_of(file))
    ]

    assert found == []


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("f'{n} row{\"s\" * (n != 1)}'", 1),
        ("bool(n) * 'x'", 1),
        ("[n] * is_new", 1),
        ("1 if a else 2 if b else 3", 1),
        ("(1 if a else 2) if b else 3", 1),
        ("'-' * width + 'x'", 0),
        ("[None] * len(rows)", 0),
        ("[1 if a else 2, 3 if b else 4] if c else []", 0),
    ],
)
def test_an_expression(code: str, count: int) -> None:
    assert len(list(riddles(ast.parse(code)))) == count
