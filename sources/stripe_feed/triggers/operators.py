"""Operations of expressions on JSON values. None of them raises: if an operation makes no sense, the
result is null or false.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

MAX_BITS = 256  # of an integer operand, so that a product of many factors stays small


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_calculable(value: Any) -> bool:
    return _is_number(value) and (isinstance(value, float) or value.bit_length() <= MAX_BITS)


def _same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal: 1 equals 1.0 but not true, at any depth."""
    try:
        return _equal(one, other)
    except RecursionError:
        return False


def _equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def _contained(one: Any, other: Any) -> bool:
    """Whether a value is in a list, a key of an object, or part of a text."""
    if isinstance(other, list):
        return any(_same(one, each) for each in other)
    return isinstance(one, str) and isinstance(other, str | dict) and one in other


def _ordered(test: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compare(one: Any, other: Any) -> bool:
        alike = (
            _is_number(one) and _is_number(other)
            if not isinstance(one, str)
            else isinstance(other, str)
        )
        return alike and test(one, other)

    return compare


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _typed(
    kind: Callable[[Any], bool], function: Callable[..., Any], otherwise: Any = None
) -> Callable[..., Any]:
    def result(*values: Any) -> Any:
        try:
            return function(*values) if all(map(kind, values)) else otherwise
        except OverflowError:  # an integer too large to compare with a float
            return otherwise

    return result


CALCULATIONS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Not: operator.not_,
    ast.USub: _typed(_is_calculable, operator.neg),
    ast.Add: _typed(_is_calculable, operator.add),
    ast.Sub: _typed(_is_calculable, operator.sub),
    ast.Mult: _typed(_is_calculable, operator.mul),
}
COMPARISONS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: _same,
    ast.NotEq: lambda one, other: not _same(one, other),
    ast.Is: _same,
    ast.IsNot: lambda one, other: not _same(one, other),
    ast.In: _contained,
    ast.NotIn: lambda one, other: not _contained(one, other),
    ast.Lt: _ordered(operator.lt),
    ast.LtE: _ordered(operator.le),
    ast.Gt: _ordered(operator.gt),
    ast.GtE: _ordered(operator.ge),
}
FUNCTIONS: dict[str, tuple[int, Callable[..., Any]]] = {
    "len": (1, lambda value: len(value) if isinstance(value, str | list | dict) else None),
    "lower": (1, _typed(_is_text, str.lower)),
    "upper": (1, _typed(_is_text, str.upper)),
    "startswith": (2, _typed(_is_text, str.startswith, False)),
    "endswith": (2, _typed(_is_text, str.endswith, False)),
}
"""By name: the number of arguments, and the function."""
