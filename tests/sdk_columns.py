"""The fields of Stripe's objects as the installed SDK annotates them, against the files of
`resources/columns`.

`python -m tests.sdk_columns [OBJECT ...]` adds the fields that a file does not have, at its end,
and reports those that are gone or of another kind; an order or a description that is there stays as
it is. An object without a file gets one. Nothing is imported from the SDK and nothing is requested:
its source is parsed.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from stripe_feed.resources.column_files import FOLDED, FOLDER, HEADER, column_line
from stripe_feed.resources.model import ColumnKind

DELETED = "deleted"  # only in the stub of a deleted object; `deleted_at` is ours
TIMESTAMPS = re.compile(
    r"\w+_(at|on|after|before|until|anchor|date|start|end|time|from|by)"
    r"|created|updated|date|start|end|expires|timestamp|next_\w+_invoice|next_payment_attempt"
)
"""Names of fields with Unix seconds, which the SDK annotates as plain `int`."""
NUMBERS = frozenset({"last_seen_at"})
"""Numbers that are called like a time: this one has milliseconds."""
SCALARS: dict[str, ColumnKind] = {
    "int": "bigint",
    "str": "text",
    "bool": "bool",
    "float": "double",
    "Decimal": "decimal",
}


ENDS = {"id": -2, "created": -1, "metadata": 1, "livemode": 2, "object": 3}
"""Where the fields are in a new file that every object has; the others are between them."""


class Field:
    """One annotated field of an object: its kind, its annotation and the SDK's text about it."""

    def __init__(self, name: str, annotation: ast.expr, text: str) -> None:
        self.kind = kind_of(name, annotation)
        self.annotation = ast.unparse(annotation)
        self.description = first_sentence(text)


def kind_of(name: str, annotation: ast.expr) -> ColumnKind:
    """Tell the kind that an annotation asks for; whatever is no scalar, no enum and no expandable
    id is JSON.
    """
    match annotation:
        case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
            return kind_of(name, inner)
        case ast.Name(id="int") if TIMESTAMPS.fullmatch(name) and name not in NUMBERS:
            return "timestamp"
        case ast.Name(id=scalar) if scalar in SCALARS:
            return SCALARS[scalar]
        case ast.Subscript(value=ast.Name(id="ExpandableField")):
            return "ref"
        case ast.Subscript(value=ast.Name(id="Literal")):
            return "text"
        case ast.Subscript(
            value=ast.Name(id="Union"), slice=ast.Tuple(elts=[*_, ast.Name(id="str")])
        ):
            return "text"
    return "json"


def first_sentence(text: str) -> str:
    """The first sentence of a text, in one line."""
    line = " ".join(re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", text).split())
    return re.split(r"(?<=[.!?])\s", line)[0]


@cache
def sdk_classes() -> Mapping[str, tuple[str, Mapping[str, Field]]]:
    """Every v1 object of the installed SDK: the name of its class, and its fields."""
    spec = find_spec("stripe")
    assert spec is not None and spec.origin is not None
    folder = Path(spec.origin).parent
    found: dict[str, tuple[str, Mapping[str, Field]]] = {}
    for path in sorted(folder.rglob("*.py")):
        if "v2" not in path.relative_to(folder).parts:
            text = path.read_text(encoding="utf-8")
            if "OBJECT_NAME: ClassVar" in text:
                found |= {object: (name, fields) for object, name, fields in classes_in(text)}
    return found


def classes_in(text: str) -> Iterator[tuple[str, str, Mapping[str, Field]]]:
    """The classes of Stripe's objects in a module: object, class and fields."""
    for definition in ast.parse(text).body:
        if isinstance(definition, ast.ClassDef):
            object_name, fields = "", {}
            for statement, following in zip(
                definition.body, [*definition.body[1:], None], strict=True
            ):
                if not isinstance(statement, ast.AnnAssign) or not isinstance(
                    statement.target, ast.Name
                ):
                    continue
                name = statement.target.id
                if name == "OBJECT_NAME" and isinstance(statement.value, ast.Constant):
                    object_name = str(statement.value.value)
                elif name not in (DELETED, "OBJECT_NAME"):
                    fields[name] = Field(name, statement.annotation, text_of(following))
            if object_name:
                yield object_name, definition.name, fields


def text_of(statement: ast.stmt | None) -> str:
    """The text of a docstring that follows a field."""
    match statement:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return text
    return ""


def sdk_fields(object_name: str) -> Mapping[str, Field]:
    """The fields of an object."""
    return sdk_classes()[object_name][1]


def stored_lines(object_name: str) -> dict[str, tuple[str, str]]:
    """What the file of an object says: name -> kind and description."""
    path = FOLDER / f"{object_name}.tsv"
    lines = path.read_text(encoding="utf-8").splitlines()[1:] if path.exists() else []
    rows = [line.split("\t") for line in lines]
    return {name: (kind, description) for name, kind, description in rows}


def differences(object_name: str) -> list[str]:
    """What the installed SDK says otherwise than the file of an object, one line each."""
    theirs, ours = sdk_fields(object_name), stored_lines(object_name)
    return [
        *(f"{object_name}.{name} is new" for name in theirs if name not in ours),
        *(f"{object_name}.{name} is gone" for name in ours if name not in theirs),
        *(
            f"{object_name}.{name} is {kind}, the SDK says {theirs[name].kind}"
            for name, (kind, _) in ours.items()
            if name in theirs and theirs[name].kind != kind.replace(FOLDED, "json")
        ),
    ]


def add_new(object_name: str) -> None:
    """Add the fields that the file of an object does not have, at its end; a new file begins with
    the id and the time of creation.
    """
    path, ours = FOLDER / f"{object_name}.tsv", stored_lines(object_name)
    text = path.read_text(encoding="utf-8") if path.exists() else HEADER
    fields = sdk_fields(object_name)
    new = [name for name in fields if name not in ours]
    if not ours:
        new.sort(key=lambda name: ENDS.get(name, 0))
    text += "".join(column_line(name, fields[name].kind, fields[name].description) for name in new)
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in FOLDER.glob("*.tsv")):
        for line in differences(name):
            print(line)
        add_new(name)
