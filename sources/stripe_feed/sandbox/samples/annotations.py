"""The fields of Stripe's objects, as the annotations of the installed SDK name them.

Only the source of the asked-for class is read; no module of the SDK is imported.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

Nature = Literal[
    "text", "choice", "integer", "boolean", "number", "decimal", "id", "hash", "array", "list",
    "map", "object",
]  # fmt: skip


class Field(NamedTuple):
    """One field. `choices` are the values of an enum, `objects` the names of the objects that an
    id, a list or the value itself stands for.
    """

    nature: Nature
    nullable: bool = False
    choices: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    inner: Mapping[str, Field] = {}  # of a hash, or of each element of an array of hashes
    element: Nature | None = None  # of an array


Fields = Mapping[str, Field]
SCALARS: dict[str, Nature] = {
    "str": "text",
    "int": "integer",
    "bool": "boolean",
    "float": "number",
    "Decimal": "decimal",
}


@lru_cache
def fields_of(object: str) -> Fields:
    """The fields of an object by name, without those of a deleted one. Raises `KeyError` if the SDK
    has no such object.
    """
    module, name = _object_classes()[object]
    tree = ast.parse(_source(module))
    imports = dict(_imports(tree)) | {name: (module, name)}
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    fields = _Class(classes[name], [], imports).fields()
    return {name: field for name, field in fields.items() if name not in ("OBJECT_NAME", "deleted")}


def _sdk() -> Path:
    spec = find_spec("stripe")
    if spec is None or spec.origin is None:
        raise KeyError("the SDK of Stripe is not installed")
    return Path(spec.origin).parent


def _source(module: str) -> str:
    return (_sdk().parent / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")


@lru_cache
def _object_classes() -> dict[str, tuple[str, str]]:
    """Object name -> its module and class."""
    tree = ast.parse(_source("stripe._object_classes"))
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and node.value and ast.unparse(node.target) == "OBJECT_CLASSES":  # fmt: skip
            found: dict[str, tuple[str, str]] = ast.literal_eval(node.value)
            return found
    raise KeyError("the SDK of Stripe has no table of its objects")


@lru_cache
def _objects_by_class() -> dict[tuple[str, str], str]:
    return {place: object for object, place in _object_classes().items()}


def _imports(tree: ast.Module) -> Iterator[tuple[str, tuple[str, str]]]:
    """Local name -> module and class, those imported for types only included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield alias.asname or alias.name, (node.module, alias.name)


class _Class:
    """A class of the SDK; the classes around it resolve the names in its annotations."""

    def __init__(
        self, node: ast.ClassDef, around: list[_Class], imports: dict[str, tuple[str, str]]
    ) -> None:
        self.node, self.around, self.imports = node, around, imports
        self.nested = {child.name: child for child in node.body if isinstance(child, ast.ClassDef)}

    def fields(self) -> dict[str, Field]:
        return {
            node.target.id: self.field(node.annotation)
            for node in self.node.body
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
        }

    def field(self, annotation: ast.expr) -> Field:
        match annotation:
            case ast.Constant(value=str(name)):
                return self.named(name)
            case ast.Name(id=name):
                return self.named(name)
            case ast.Subscript(value=ast.Name(id="Optional"), slice=inner):
                return self.field(inner)._replace(nullable=True)
            case ast.Subscript(value=ast.Name(id="Literal"), slice=inner):
                return Field("choice", choices=_texts(inner))
            case ast.Subscript(value=ast.Name(id="ClassVar"), slice=inner):
                return self.field(inner)
            case ast.Subscript(value=ast.Name(id="Union"), slice=ast.Tuple(elts=[first, *_])):
                natures = self.field(first)
                objects = tuple(_names(annotation.slice, self.imports))
                return natures._replace(objects=objects) if objects else natures
            case ast.Subscript(value=ast.Name(id="ExpandableField"), slice=inner):
                return Field("id", objects=tuple(_names(inner, self.imports)))
            case ast.Subscript(value=ast.Name(id="ListObject"), slice=inner):
                return Field("list", objects=tuple(_names(inner, self.imports)))
            case ast.Subscript(value=ast.Name(id="List"), slice=inner):
                held = self.field(inner)
                return Field("array", False, held.choices, held.objects, held.inner, held.nature)
        return Field("map")

    def named(self, name: str) -> Field:
        """The field that a plain name stands for: a scalar, a nested class, or another object."""
        if name in SCALARS:
            return Field(SCALARS[name])
        last = name.rpartition(".")[2]
        for scope in (self, *reversed(self.around)):
            if last in scope.nested:
                own = _Class(scope.nested[last], [*self.around, self], self.imports)
                return Field("hash", inner=own.fields())
        object = _objects_by_class().get(self.imports.get(last, ("", "")))
        return Field("object", objects=(object,)) if object else Field("map")


def _texts(node: ast.expr) -> tuple[str, ...]:
    elements = node.elts if isinstance(node, ast.Tuple) else [node]
    return tuple(str(ast.literal_eval(element)) for element in elements)


def _names(node: ast.expr, imports: dict[str, tuple[str, str]]) -> Iterator[str]:
    """The names of all objects that an annotation mentions."""
    for part in ast.walk(node):
        name = part.value if isinstance(part, ast.Constant) else getattr(part, "id", "")
        object = _objects_by_class().get(imports.get(str(name).rpartition(".")[2], ("", "")))
        if object:
            yield object
