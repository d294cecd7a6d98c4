"""Compile rules: small safe expressions over a change, which say whether they hold, and why.

Only the grammar is Python's. The allowed elements are listed here, and none reaches a Python object.
`after.a.b`, `after['a'].b` and `after.lines.data[0].id` read JSON: a missing value is null, and so is
everything inside null.
"""

from __future__ import annotations

import ast
import math
import operator
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NoReturn

from ..errors import UsageError
from ..feed.change import Change
from ..feed.lookups import RELATED_TABLES
from ..feed.paths import lookup
from .operators import CALCULATIONS, COMPARISONS, FUNCTIONS

MAX_RULE_LENGTH = 2_000  # characters
MAX_NESTING = 50
MAX_NUMBER = 2**64
LINE_END = re.compile(r"\r\n|\r|\n")  # as in Python

Scope = Mapping[str, Any]
Evaluator = Callable[[Scope], Any]
FieldPath = tuple[str | int, ...]
EMPTY_SCOPE: Scope = {}

KEYWORDS: dict[str, Any] = {"true": True, "false": False, "null": None}
CHANGE_FIELDS: dict[str, Callable[[Change], Any]] = {
    **{
        name: operator.attrgetter(name)
        for name in (
            "op",
            "resource",
            "object_id",
            "customer_id",
            "account_id",
            "origin",
            "origin_push",
            "event_type",
            "changed",
            "livemode",
        )
    },
    "occurred_at": lambda change: int(change.occurred_at.timestamp()),
}
"""The fields of `change`."""


ROOT_NAMES = ("before", "after", "change", *RELATED_TABLES)
REFUSED_NODES = {
    ast.NamedExpr: "An assignment",
    ast.IfExp: "`if … else`",
    ast.JoinedStr: "An f-string",
    ast.Starred: "A star",
    ast.BinOp: "An operator other than + - *",
    ast.UnaryOp: "An operator other than - and not",
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One of the conditions that `and` joins; `fields` evaluates each of its fields by dotted path.
    `paths`: the same paths as keys; `literals`: the texts that a field is compared with.
    """

    text: str
    evaluate: Evaluator = field(repr=False, compare=False)
    fields: dict[str, Evaluator] = field(repr=False, compare=False)
    paths: tuple[FieldPath, ...] = field(repr=False, compare=False)
    literals: tuple[tuple[FieldPath, str], ...] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class ConditionResult:
    """Whether one condition holds, and the values of its fields."""

    text: str
    holds: bool
    values: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled rule. Evaluating it never raises, for any JSON; threads can share it."""

    text: str
    conditions: tuple[Condition, ...]
    roots: frozenset[str] = field(repr=False)

    @property
    def related_tables(self) -> frozenset[str]:
        """The related objects that must be looked up for a change."""
        return self.roots & {*RELATED_TABLES}

    def holds(self, change: Change, related: Scope = EMPTY_SCOPE) -> bool:
        """Whether all conditions hold; `related` has the objects of `related_tables`."""
        scope = self._scope(change, related)
        return all(part.evaluate(scope) for part in self.conditions)

    def explain(self, change: Change, related: Scope = EMPTY_SCOPE) -> list[ConditionResult]:
        """Evaluate each condition, also those after one that does not hold."""
        scope = self._scope(change, related)
        return [
            ConditionResult(
                part.text,
                bool(part.evaluate(scope)),
                {path: read(scope) for path, read in part.fields.items()},
            )
            for part in self.conditions
        ]

    def _scope(self, change: Change, related: Scope) -> Scope:
        scope: dict[str, Any] = {**dict.fromkeys(RELATED_TABLES), **related, "after": change.after}
        if "before" in self.roots:  # computed on demand
            scope["before"] = change.before
        if "change" in self.roots:
            scope["change"] = {name: get(change) for name, get in CHANGE_FIELDS.items()}
        return scope


def compile_expression(text: str) -> Expression:
    """Compile a rule. Raises `UsageError`, with the place, for anything that rules do not allow."""
    if len(text) > MAX_RULE_LENGTH:
        raise UsageError(
            f"The rule has {len(text):,} characters; at most {MAX_RULE_LENGTH:,} are allowed. Split it into several triggers."
        )
    source = f"({text}\n)"  # a rule may have several lines
    body = _parse_rule(text, source)
    conditions = (
        body.values if isinstance(body, ast.BoolOp) and isinstance(body.op, ast.And) else [body]
    )
    parts = tuple(_compile_condition(source, condition) for condition in conditions)
    return Expression(
        text,
        parts,
        frozenset(
            path.partition(".")[0].partition("[")[0] for part in parts for path in part.fields
        ),
    )


def field_paths(expression: Expression) -> list[str]:
    """The dotted paths that an expression reads, each once."""
    return list(dict.fromkeys(path for part in expression.conditions for path in part.fields))


def _parse_rule(text: str, source: str) -> ast.expr:
    if not text.strip():
        raise UsageError(
            "The rule is empty. Write a condition such as `after.amount_paid >= 10000`, or leave `where` out."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an unknown escape in a text is a mistake
            body = ast.parse(source, mode="eval").body
    except SyntaxError as fault:
        lines, line = LINE_END.split(text), fault.lineno or 1
        column = (fault.offset or 1) - (line == 1) if line <= len(lines) else len(lines[-1]) + 1
        place = _format_place(min(line, len(lines)), max(column, 1))
        raise UsageError(f"The rule cannot be read {place}: {fault.msg}.") from None
    except (ValueError, MemoryError, RecursionError, Warning):
        raise UsageError(
            "The rule cannot be read at column 1: it has invalid characters, or is nested too deeply."
        ) from None
    if (body.lineno, body.col_offset) == (1, 0):
        raise UsageError(
            "The rule cannot be read at column 1: a lone comma or comprehension, or brackets that do not match."
        )
    return body


def _format_place(line: int, column: int) -> str:
    return f"at column {column}" if line == 1 else f"at line {line}, column {column}"


@dataclass(slots=True)
class _Builder:
    """The condition that is being compiled."""

    source: str
    fields: dict[str, Evaluator] = field(default_factory=dict)
    paths: list[FieldPath] = field(default_factory=list)
    literals: list[tuple[FieldPath, str]] = field(default_factory=list)


def _refuse(builder: _Builder, node: ast.expr, what: str = "") -> NoReturn:
    line = LINE_END.split(builder.source)[node.lineno - 1].encode()[: node.col_offset].decode()
    place = _format_place(
        node.lineno, len(line) + (node.lineno > 1)
    )  # the first line begins with an added bracket
    raise UsageError(
        f"{what or REFUSED_NODES.get(type(node), type(node).__name__)} {place} is not allowed in a rule. Rules allow {', '.join(ROOT_NAMES)}, "
        f"texts, numbers, true, false, null, lists of these, comparisons, in, and, or, not, + - *, {', '.join(FUNCTIONS)}."
    )


def _compile_condition(source: str, node: ast.expr) -> Condition:
    builder = _Builder(source)
    value = _compile_value(builder, node, 1)
    return Condition(
        ast.get_source_segment(source, node) or "",
        value,
        builder.fields,
        tuple(builder.paths),
        tuple(builder.literals),
    )


def _compile_value(builder: _Builder, node: ast.expr, depth: int) -> Evaluator:
    if depth > MAX_NESTING:
        _refuse(builder, node, f"Nesting more than {MAX_NESTING} deep")
    match node:
        case ast.Constant() | ast.List() | ast.Tuple():
            return _constant(_parse_literal(builder, node))
        case ast.Name(id=name) if name in KEYWORDS:
            return _constant(KEYWORDS[name])
        case ast.Name() | ast.Attribute() | ast.Subscript():
            return _compile_field(builder, node)
        case ast.Compare():
            return _compile_comparison(builder, node, depth)
        case ast.BoolOp():
            return _short_circuit(
                [_compile_value(builder, one, depth + 1) for one in node.values],
                wanted=isinstance(node.op, ast.Or),
            )
        case ast.UnaryOp(op=ast.Not() | ast.USub() as op):
            return _apply(CALCULATIONS[type(op)], _compile_value(builder, node.operand, depth + 1))
        case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() as op):
            return _apply(
                CALCULATIONS[type(op)],
                _compile_value(builder, node.left, depth + 1),
                _compile_value(builder, node.right, depth + 1),
            )
        case ast.Call():
            return _compile_call(builder, node, depth)
    _refuse(builder, node)


def _constant(value: Any) -> Evaluator:
    return lambda scope: value


def _apply(function: Callable[..., Any], *values: Evaluator) -> Evaluator:
    if len(values) == 1:
        return lambda scope: function(values[0](scope))
    left, right = values
    return lambda scope: function(left(scope), right(scope))


def _parse_literal(builder: _Builder, node: ast.expr, inside: bool = False) -> Any:
    match node:
        case ast.Constant(value=bool() | str() | None as value):
            return value
        case ast.Constant(value=int() | float() as value):
            if not abs(value) <= MAX_NUMBER if isinstance(value, int) else not math.isfinite(value):
                _refuse(builder, node, "A number beyond 2**64")
            return value
        case ast.Name(id=name) if name in KEYWORDS:
            return KEYWORDS[name]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)) if (
            not isinstance(value, bool)
        ):
            return -_parse_literal(builder, node.operand)
        case ast.List(elts=items) | ast.Tuple(elts=items) if not inside:
            return [_parse_literal(builder, one, inside=True) for one in items]
        case ast.Constant():
            _refuse(builder, node, f"A value of the kind {type(node.value).__name__}")
    _refuse(
        builder, node, "" if type(node) in REFUSED_NODES else "What is no value, inside a list,"
    )


def _compile_field(builder: _Builder, node: ast.expr) -> Evaluator:
    """Compile a path; its names are keys of JSON and never attributes."""
    keys: list[str | int] = []
    end = node
    while isinstance(end, ast.Attribute | ast.Subscript):
        keys.append(_parse_key(builder, end))
        end = end.value
    if not isinstance(end, ast.Name):
        _refuse(
            builder,
            node,
            "A field of something other than before, after, change, customer, subscription and invoice",
        )
    if end.id not in ROOT_NAMES:
        _refuse(builder, end, f"The name {end.id!r}")
    keys.reverse()
    if end.id in RELATED_TABLES and not keys:
        _refuse(builder, end, f"{end.id} without a field, such as {end.id}.id,")
    if end.id == "change" and (not keys or keys[0] not in CHANGE_FIELDS):
        _refuse(
            builder,
            node,
            f"{'.'.join(map(str, ['change', *keys[:1]]))} (there is change.{', change.'.join(CHANGE_FIELDS)})",
        )
    if len(keys) > MAX_NESTING:
        _refuse(builder, node, f"Nesting more than {MAX_NESTING} deep")
    read = _field_reader(end.id, keys)
    builder.fields[end.id + "".join(map(_format_key, keys))] = read
    builder.paths.append((end.id, *keys))
    return read


def _parse_key(builder: _Builder, node: ast.Attribute | ast.Subscript) -> str | int:
    if isinstance(node, ast.Attribute):
        if node.attr.startswith("__"):
            _refuse(builder, node, f"The name {node.attr!r}")
        return node.attr
    match node.slice:
        case ast.Constant(value=str() as key):
            return key
        case ast.Constant(value=int() as key) if not isinstance(key, bool) and key < MAX_NUMBER:
            return key
    _refuse(builder, node, "An index that is neither a text nor a whole number from 0")


def _format_key(key: str | int) -> str:
    return f".{key}" if isinstance(key, int) or key.isidentifier() else f"[{key!r}]"


def _field_reader(root: str, keys: list[str | int]) -> Evaluator:
    return lambda scope: lookup(scope[root], keys)


def _short_circuit(values: list[Evaluator], wanted: bool) -> Evaluator:
    """The first value that is true (or) or false (and), else the last."""

    def first(scope: Scope) -> Any:
        result = None
        for value in values:
            result = value(scope)
            if bool(result) is wanted:
                break
        return result

    return first


def _compile_comparison(builder: _Builder, node: ast.Compare, depth: int) -> Evaluator:
    """Compile a chain of comparisons: every pair must hold; a middle value is evaluated once."""
    first, *others = (
        _compile_value(builder, one, depth + 1) for one in (node.left, *node.comparators)
    )
    for left, right in pairwise((node.left, *node.comparators)):
        _record_literals(builder, left, right)
        _record_literals(builder, right, left)
    for op, right in zip(node.ops, node.comparators, strict=True):
        if isinstance(op, ast.Is | ast.IsNot) and ast.unparse(right) not in ("None", "null"):
            _refuse(builder, right, "`is` with anything but None")
    steps = [(COMPARISONS[type(op)], value) for op, value in zip(node.ops, others, strict=True)]

    def compare(scope: Scope) -> bool:
        left = first(scope)
        for test, value in steps:
            right = value(scope)
            if not test(left, right):
                return False
            left = right
        return True

    return compare


def _record_literals(builder: _Builder, node: ast.expr, other: ast.expr) -> None:
    """Record which texts a field is compared with."""
    if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(
        other, ast.Constant | ast.List | ast.Tuple
    ):
        _compile_field(builder, node)
        path, literal = builder.paths.pop(), _parse_literal(builder, other)
        builder.literals += [
            (path, word)
            for word in (literal if isinstance(literal, list) else [literal])
            if isinstance(word, str)
        ]


def _compile_call(builder: _Builder, node: ast.Call, depth: int) -> Evaluator:
    if not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS:
        _refuse(builder, node, f"A call of {ast.get_source_segment(builder.source, node.func)!r}")
    name = node.func.id
    count, function = FUNCTIONS[name]
    if len(node.args) != count or node.keywords:
        _refuse(builder, node, f"{name} with anything but {count} plain argument{'s'[: count - 1]}")
    return _apply(function, *(_compile_value(builder, one, depth + 1) for one in node.args))
