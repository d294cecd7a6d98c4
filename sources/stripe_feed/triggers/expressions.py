"""Small safe expressions over a change: the text of a rule -> whether it holds, and why.

Only the grammar is Python's; what may stand in a rule is listed here, and nothing of it reaches a
Python object. `after.a.b`, `after['a'].b` and `after.lines.data[0].id` read JSON: what is missing
is null, and so is everything inside null.
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

LONGEST = 2_000  # characters
DEEPEST = 50
LARGEST = 2**64
LINE_END = re.compile(r"\r\n|\r|\n")  # as Python counts lines

Scope = Mapping[str, Any]
Value = Callable[[Scope], Any]
Path = tuple[str | int, ...]
NOTHING: Scope = {}

WORDS: dict[str, Any] = {"true": True, "false": False, "null": None}
FACTS: dict[str, Callable[[Change], Any]] = {
    **{
        name: operator.attrgetter(name)
        for name in (
            "op",
            "resource",
            "object_id",
            "customer_id",
            "origin",
            "origin_push",
            "event_type",
            "changed",
            "livemode",
        )
    },
    "occurred_at": lambda change: int(change.occurred_at.timestamp()),
}
"""What `change` offers."""


ROOTS = ("before", "after", "change", *RELATED_TABLES)
NAMES = {
    ast.NamedExpr: "An assignment",
    ast.IfExp: "`if … else`",
    ast.JoinedStr: "An f-string",
    ast.Starred: "A star",
    ast.BinOp: "An operator other than + - *",
    ast.UnaryOp: "An operator other than - and not",
}


@dataclass(frozen=True, slots=True)
class Part:
    """One of the conditions that `and` joins; `fields` reads each of its fields by its dotted path.
    `paths`: the same as names; `words`: the texts that a field is compared with.
    """

    text: str
    evaluate: Value = field(repr=False, compare=False)
    fields: dict[str, Value] = field(repr=False, compare=False)
    paths: tuple[Path, ...] = field(repr=False, compare=False)
    words: tuple[tuple[Path, str], ...] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Found:
    """What one condition came to, and the values that its fields had."""

    text: str
    holds: bool
    values: dict[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled rule. Evaluating it never raises, whatever the JSON; it may be shared between
    threads.
    """

    text: str
    parts: tuple[Part, ...]
    roots: frozenset[str] = field(repr=False)

    @property
    def looks_up(self) -> frozenset[str]:
        """What must be looked up beside a change."""
        return self.roots & {*RELATED_TABLES}

    def holds(self, change: Change, beside: Scope = NOTHING) -> bool:
        """Whether all conditions hold; `beside` has what `looks_up` names."""
        scope = self._scope(change, beside)
        return all(part.evaluate(scope) for part in self.parts)

    def explain(self, change: Change, beside: Scope = NOTHING) -> list[Found]:
        """Each condition with the values in it, those behind a failed one too."""
        scope = self._scope(change, beside)
        return [
            Found(
                part.text,
                bool(part.evaluate(scope)),
                {path: read(scope) for path, read in part.fields.items()},
            )
            for part in self.parts
        ]

    def _scope(self, change: Change, beside: Scope) -> Scope:
        scope: dict[str, Any] = {**dict.fromkeys(RELATED_TABLES), **beside, "after": change.after}
        if "before" in self.roots:  # computed, thus not for nothing
            scope["before"] = change.before
        if "change" in self.roots:
            scope["change"] = {name: get(change) for name, get in FACTS.items()}
        return scope


def compile_expression(text: str) -> Expression:
    """Compile a rule; anything that is not among what rules offer raises `UsageError` with its
    place.
    """
    if len(text) > LONGEST:
        raise UsageError(
            f"The rule has {len(text):,} characters; {LONGEST:,} are possible. Make several triggers of it."
        )
    source = f"({text}\n)"  # a rule may take several lines
    body = _parsed(text, source)
    conditions = (
        body.values if isinstance(body, ast.BoolOp) and isinstance(body.op, ast.And) else [body]
    )
    parts = tuple(_part(source, one) for one in conditions)
    return Expression(
        text,
        parts,
        frozenset(
            path.partition(".")[0].partition("[")[0] for part in parts for path in part.fields
        ),
    )


def fields_of(expression: Expression) -> list[str]:
    """The dotted paths that an expression reads, each once."""
    return list(dict.fromkeys(path for part in expression.parts for path in part.fields))


def _parsed(text: str, source: str) -> ast.expr:
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
        place = _place(min(line, len(lines)), max(column, 1))
        raise UsageError(f"The rule cannot be read {place}: {fault.msg}.") from None
    except (ValueError, MemoryError, RecursionError, Warning):
        raise UsageError(
            "The rule cannot be read at column 1: it holds odd characters, or is nested too deeply."
        ) from None
    if (body.lineno, body.col_offset) == (1, 0):
        raise UsageError(
            "The rule cannot be read at column 1: a lone comma or comprehension, or brackets that do not match."
        )
    return body


def _place(line: int, column: int) -> str:
    return f"at column {column}" if line == 1 else f"at line {line}, column {column}"


@dataclass(slots=True)
class _Reading:
    """The part that is being compiled; all but `source` grows."""

    source: str
    fields: dict[str, Value] = field(default_factory=dict)
    paths: list[Path] = field(default_factory=list)
    words: list[tuple[Path, str]] = field(default_factory=list)


def _refuse(at: _Reading, node: ast.expr, what: str = "") -> NoReturn:
    line = LINE_END.split(at.source)[node.lineno - 1].encode()[: node.col_offset].decode()
    place = _place(
        node.lineno, len(line) + (node.lineno > 1)
    )  # the first line begins with a bracket of ours
    raise UsageError(
        f"{what or NAMES.get(type(node), type(node).__name__)} {place} has no place in a rule. Rules know {', '.join(ROOTS)}, "
        f"texts, numbers, true, false, null, lists of these, comparisons, in, and, or, not, + - *, {', '.join(FUNCTIONS)}."
    )


def _part(source: str, node: ast.expr) -> Part:
    at = _Reading(source)
    value = _value(at, node, 1)
    return Part(
        ast.get_source_segment(source, node) or "",
        value,
        at.fields,
        tuple(at.paths),
        tuple(at.words),
    )


def _value(at: _Reading, node: ast.expr, depth: int) -> Value:
    if depth > DEEPEST:
        _refuse(at, node, f"Nesting more than {DEEPEST} deep")
    match node:
        case ast.Constant() | ast.List() | ast.Tuple():
            return _always(_literal(at, node))
        case ast.Name(id=name) if name in WORDS:
            return _always(WORDS[name])
        case ast.Name() | ast.Attribute() | ast.Subscript():
            return _field(at, node)
        case ast.Compare():
            return _comparison(at, node, depth)
        case ast.BoolOp():
            return _first(
                [_value(at, one, depth + 1) for one in node.values],
                wanted=isinstance(node.op, ast.Or),
            )
        case ast.UnaryOp(op=ast.Not() | ast.USub() as op):
            return _applied(CALCULATIONS[type(op)], _value(at, node.operand, depth + 1))
        case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() as op):
            return _applied(
                CALCULATIONS[type(op)],
                _value(at, node.left, depth + 1),
                _value(at, node.right, depth + 1),
            )
        case ast.Call():
            return _call(at, node, depth)
    _refuse(at, node)


def _always(value: Any) -> Value:
    return lambda scope: value


def _applied(function: Callable[..., Any], *values: Value) -> Value:
    if len(values) == 1:
        return lambda scope: function(values[0](scope))
    left, right = values
    return lambda scope: function(left(scope), right(scope))


def _literal(at: _Reading, node: ast.expr, inside: bool = False) -> Any:
    match node:
        case ast.Constant(value=bool() | str() | None as value):
            return value
        case ast.Constant(value=int() | float() as value):
            if not abs(value) <= LARGEST if isinstance(value, int) else not math.isfinite(value):
                _refuse(at, node, "A number beyond 2**64")
            return value
        case ast.Name(id=name) if name in WORDS:
            return WORDS[name]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)) if (
            not isinstance(value, bool)
        ):
            return -_literal(at, node.operand)
        case ast.List(elts=items) | ast.Tuple(elts=items) if not inside:
            return [_literal(at, one, inside=True) for one in items]
        case ast.Constant():
            _refuse(at, node, f"A value of the kind {type(node.value).__name__}")
    _refuse(at, node, "" if type(node) in NAMES else "What is no value, inside a list,")


def _field(at: _Reading, node: ast.expr) -> Value:
    """Read a path; the names in it are keys of JSON and never attributes."""
    keys: list[str | int] = []
    end = node
    while isinstance(end, ast.Attribute | ast.Subscript):
        keys.append(_key(at, end))
        end = end.value
    if not isinstance(end, ast.Name):
        _refuse(
            at,
            node,
            "A field of something other than before, after, change, customer, subscription and invoice",
        )
    if end.id not in ROOTS:
        _refuse(at, end, f"The name {end.id!r}")
    keys.reverse()
    if end.id in RELATED_TABLES and not keys:
        _refuse(at, end, f"{end.id} without a field, such as {end.id}.id,")
    if end.id == "change" and (not keys or keys[0] not in FACTS):
        _refuse(
            at,
            node,
            f"{'.'.join(map(str, ['change', *keys[:1]]))} (there is change.{', change.'.join(FACTS)})",
        )
    if len(keys) > DEEPEST:
        _refuse(at, node, f"Nesting more than {DEEPEST} deep")
    read = _reader(end.id, keys)
    at.fields[end.id + "".join(map(_step, keys))] = read
    at.paths.append((end.id, *keys))
    return read


def _key(at: _Reading, node: ast.Attribute | ast.Subscript) -> str | int:
    if isinstance(node, ast.Attribute):
        if node.attr.startswith("__"):
            _refuse(at, node, f"The name {node.attr!r}")
        return node.attr
    match node.slice:
        case ast.Constant(value=str() as key):
            return key
        case ast.Constant(value=int() as key) if not isinstance(key, bool) and key < LARGEST:
            return key
    _refuse(at, node, "An index that is neither a text nor a whole number from 0")


def _step(key: str | int) -> str:
    return f".{key}" if isinstance(key, int) or key.isidentifier() else f"[{key!r}]"


def _reader(root: str, keys: list[str | int]) -> Value:
    return lambda scope: lookup(scope[root], keys)


def _first(values: list[Value], wanted: bool) -> Value:
    """The first value that is true (or) or false (and), else the last."""

    def first(scope: Scope) -> Any:
        found = None
        for value in values:
            found = value(scope)
            if bool(found) is wanted:
                break
        return found

    return first


def _comparison(at: _Reading, node: ast.Compare, depth: int) -> Value:
    """A chain is its pairs, each of which must hold; what stands between two is evaluated once."""
    first, *others = (_value(at, one, depth + 1) for one in (node.left, *node.comparators))
    for left, right in pairwise((node.left, *node.comparators)):
        _note_words(at, left, right)
        _note_words(at, right, left)
    for op, right in zip(node.ops, node.comparators, strict=True):
        if isinstance(op, ast.Is | ast.IsNot) and ast.unparse(right) not in ("None", "null"):
            _refuse(at, right, "`is` with anything but None")
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


def _note_words(at: _Reading, node: ast.expr, other: ast.expr) -> None:
    """Remember which texts a field is compared with."""
    if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(
        other, ast.Constant | ast.List | ast.Tuple
    ):
        _field(at, node)
        path, found = at.paths.pop(), _literal(at, other)
        at.words += [
            (path, word)
            for word in (found if isinstance(found, list) else [found])
            if isinstance(word, str)
        ]


def _call(at: _Reading, node: ast.Call, depth: int) -> Value:
    if not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS:
        _refuse(at, node, f"A call of {ast.get_source_segment(at.source, node.func)!r}")
    name = node.func.id
    count, function = FUNCTIONS[name]
    if len(node.args) != count or node.keywords:
        _refuse(at, node, f"{name} with anything but {count} plain argument{'s'[: count - 1]}")
    return _applied(function, *(_value(at, one, depth + 1) for one in node.args))
