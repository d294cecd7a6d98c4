"""Render the dbt project of the models without dbt: the part of dbt's Jinja that the project uses.

`ref`, `source`, `var`, `config`, `is_incremental`, `this`, `target.type`, `adapter.dispatch`,
`return` and the project's own macros. The SQL is the same, byte for byte, as `dbt compile` writes.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from pathlib import Path
from types import CodeType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from .variables import check_variables

if TYPE_CHECKING:
    from jinja2 import Environment, Template

PROJECT_FOLDER = Path(__file__).with_name("dbt")
PACKAGE = "stripe_feed"  # the name of the dbt project
BUILT_IN_TYPES = ("duckdb", "postgres")  # the engines that need no dbt
_PARENT_TYPES = {"databricks": "spark", "redshift": "postgres"}  # as dbt's adapters inherit
_QUOTES = {
    "bigquery": "`",
    "databricks": "`",
    "snowflake": "",
    "spark": "`",
}  # as dbt's adapters quote
_MACRO = re.compile(r"{%-?\s*macro\s+(\w+).*?{%-?\s*endmacro\s*-?%}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ModelTarget:
    """Where models are built: the type of the engine, the database, the schema of the raw tables
    (`dataset`) and that of the models.
    """

    type: str
    database: str
    dataset: str
    schema: str

    def relation(self, name: str, schema: str | None = None) -> str:
        """The qualified name of a model, or of a table of another schema."""
        parts = (self.database, self.schema if schema is None else schema, name)
        quote = _QUOTES.get(self.type, '"')
        return ".".join(f"{quote}{part}{quote}" for part in parts if part)


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One `.sql` file of the project: `folder` is staging, intermediate, marts, or tests."""

    name: str
    folder: str
    text: str


@dataclass(frozen=True, slots=True)
class RenderedModel:
    """A model's SQL for one target, its materialization, and what it reads: other models (`refs`)
    and raw tables (`sources`). `increment`: the SQL for the new rows of an incremental model that
    exists.
    """

    name: str
    folder: str
    sql: str
    kind: str  # view, table, incremental, or test
    refs: tuple[str, ...]
    sources: tuple[str, ...]
    increment: str = ""


@dataclass(frozen=True, slots=True)
class Project:
    """The dbt project: its models and tests, macros, variables with their defaults, the default
    kind per folder, what the YAML files say about each model, and the raw tables they name.
    """

    models: Mapping[str, ModelFile]
    tests: Mapping[str, ModelFile]
    macros: Mapping[str, str]
    variables: Mapping[str, Any]
    kinds: Mapping[str, str]
    properties: Mapping[str, Mapping[str, Any]]
    raw_tables: frozenset[str] = frozenset()
    exposures: tuple[Mapping[str, Any], ...] = ()


class _Returned(Exception):
    """Carries the value of `return(...)` out of a macro."""


@dataclass(slots=True)
class _Reads:
    """What a template asked for while it was rendered."""

    refs: dict[str, None] = field(default_factory=dict)
    sources: dict[str, None] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)


@cache
def load_project(folder: Path = PROJECT_FOLDER) -> Project:
    """Read the files of the project."""
    import yaml

    loader = getattr(
        yaml, "CSafeLoader", yaml.SafeLoader
    )  # in C where it can be: ten times as fast
    settings = yaml.load((folder / "dbt_project.yml").read_text(encoding="utf-8"), loader)
    properties: dict[str, Mapping[str, Any]] = {}
    exposures: list[Mapping[str, Any]] = []
    raw_tables: set[str] = set()
    for file in sorted((folder / "models").rglob("*.yml")):
        content = yaml.load(file.read_text(encoding="utf-8"), loader)
        properties |= {model["name"]: model for model in content.get("models", ())}
        exposures += content.get("exposures", ())
        for source in content.get("sources", ()):
            raw_tables |= {table["name"] for table in source["tables"]}
    macros = {
        match[1]: match[0]
        for file in sorted((folder / "macros").glob("*.sql"))
        for match in _MACRO.finditer(file.read_text(encoding="utf-8"))
    }
    return Project(
        models={model.name: model for model in _files(folder / "models")},
        tests={test.name: test for test in _files(folder / "tests")},
        macros=macros,
        variables=settings["vars"][PACKAGE],
        kinds={
            folder_name: options["+materialized"]
            for folder_name, options in settings["models"][PACKAGE].items()
            if not folder_name.startswith("+")
        },
        properties=properties,
        raw_tables=frozenset(raw_tables),
        exposures=tuple(exposures),
    )


@cache
def project_digest(folder: Path = PROJECT_FOLDER) -> str:
    """A digest of the files of the project."""
    content = blake2b(digest_size=16)
    for file in sorted(folder.rglob("*")):
        if file.suffix in (".sql", ".yml"):
            content.update(file.name.encode() + b"\0" + file.read_bytes())
    return content.hexdigest()


def copy_project(folder: str) -> Path:
    """Copy the project to a folder that does not exist yet. Raises `UsageError` if it does."""
    try:
        return Path(shutil.copytree(PROJECT_FOLDER, folder)).absolute()
    except FileExistsError:
        raise UsageError(f"{folder} exists already. Name another folder.") from None


def _files(folder: Path) -> Iterator[ModelFile]:
    for file in sorted(folder.rglob("*.sql")):
        yield ModelFile(file.stem, file.parent.name, file.read_text(encoding="utf-8").strip())


def render_models(
    project: Project,
    target: ModelTarget,
    variables: Mapping[str, Any] | None = None,
    stand_ins: Mapping[str, str] | None = None,
) -> dict[str, RenderedModel]:
    """Render every model, in an order in which each follows those that it reads. `stand_ins`: the
    tables of the models' schema that take the place of raw tables. Raises `UsageError` for an
    unknown variable.
    """
    renderer = _Renderer(project, target, variables or {}, stand_ins or {})
    rendered = {name: renderer.render(file) for name, file in project.models.items()}
    return {name: rendered[name] for name in in_order(rendered)}


def render_model(
    project: Project,
    target: ModelTarget,
    name: str,
    variables: Mapping[str, Any] | None = None,
    stand_ins: Mapping[str, str] | None = None,
) -> RenderedModel:
    """Render one model."""
    return _Renderer(project, target, variables or {}, stand_ins or {}).render(project.models[name])


def render_tests(
    project: Project, target: ModelTarget, variables: Mapping[str, Any] | None = None
) -> dict[str, RenderedModel]:
    """Render the tests that are `.sql` files: each selects the rows that are wrong."""
    renderer = _Renderer(project, target, variables or {})
    return {name: renderer.render(file) for name, file in project.tests.items()}


def render_text(
    project: Project, target: ModelTarget, text: str, variables: Mapping[str, Any] | None = None
) -> str:
    """Render a text that uses the project's macros and models."""
    renderer = _Renderer(project, target, variables or {})
    return renderer.render(ModelFile("inline", "tests", text)).sql


def in_order(models: Mapping[str, RenderedModel]) -> list[str]:
    """The names of models, each after those that it reads."""
    from graphlib import TopologicalSorter

    graph = {name: model.refs for name, model in models.items()}
    return list(TopologicalSorter(graph).static_order())


@cache
def _environment() -> Environment:
    from jinja2 import Environment, StrictUndefined

    return Environment(undefined=StrictUndefined, extensions=["jinja2.ext.do"], autoescape=False)


@cache
def _compiled(text: str) -> CodeType:
    return _environment().compile(text)


def _template(text: str, template_globals: dict[str, Any]) -> Template:
    """A template from its text, which is compiled once per process."""
    from jinja2 import Template

    return Template.from_code(_environment(), _compiled(text), template_globals)


class _Renderer:
    """What templates see for one project and target."""

    def __init__(
        self,
        project: Project,
        target: ModelTarget,
        variables: Mapping[str, Any],
        stand_ins: Mapping[str, str] | None = None,
    ) -> None:
        if unknown := sorted(set(variables) - set(project.variables)):
            raise UsageError(
                f"The models have no variable {', '.join(unknown)}. Choose from: {', '.join(project.variables)}."
            )
        self.project, self.target = project, target
        self.stand_ins = stand_ins or {}
        self.variables = {**project.variables, **check_variables(variables)}
        self.reads = _Reads()
        self.globals: dict[str, Any] = {
            **_environment().globals,
            "ref": self._ref,
            "source": self._source,
            "var": self._var,
            "config": self._config,
            "return": _raise_returned,
            "target": SimpleNamespace(
                type=target.type, schema=target.schema, database=target.database
            ),
            "adapter": SimpleNamespace(dispatch=self._dispatch),
        }
        self.globals |= {name: self._macro(name, text) for name, text in project.macros.items()}

    def render(self, file: ModelFile) -> RenderedModel:
        self.reads = _Reads()
        sql = self._render_text(file, is_incremental=False)
        reads = self.reads
        kind = str(reads.config.get("materialized") or self.project.kinds.get(file.folder, "test"))
        increment = self._render_text(file, is_incremental=True) if kind == "incremental" else ""
        return RenderedModel(
            file.name, file.folder, sql, kind, tuple(reads.refs), tuple(reads.sources), increment
        )

    def _render_text(self, file: ModelFile, is_incremental: bool) -> str:
        template_globals = {
            **self.globals,
            "this": self.target.relation(file.name),
            "is_incremental": lambda: is_incremental,
        }
        return _template(file.text, template_globals).render()

    def _macro(self, name: str, text: str) -> Callable[..., Any]:
        compiled: list[Any] = []  # each macro is a template of its own, compiled when first used

        def call(*arguments: Any, **named: Any) -> Any:
            if not compiled:
                compiled.append(getattr(_template(text, self.globals).module, name))
            try:
                return str(compiled[0](*arguments, **named))
            except _Returned as returned:
                return returned.args[0]

        return call

    def _dispatch(self, name: str, package: str = PACKAGE) -> Any:
        for prefix in (self.target.type, _PARENT_TYPES.get(self.target.type), "default"):
            if f"{prefix}__{name}" in self.project.macros:
                return self.globals[f"{prefix}__{name}"]
        raise UsageError(
            f"The models have no {self.target.type}__{name} and no default__{name}: build them with dbt (--with dbt)."
        )

    def _ref(self, *names: str) -> str:
        self.reads.refs[names[-1]] = None
        return self.target.relation(names[-1])

    def _source(self, source: str, table: str) -> str:
        self.reads.sources[table] = None
        if table in self.stand_ins:
            return self.target.relation(self.stand_ins[table])
        return self.target.relation(table, self.target.dataset)

    def _var(self, name: str, default: Any = None) -> Any:
        return self.variables.get(name, default)

    def _config(self, **settings: Any) -> str:
        self.reads.config |= settings
        return ""


def _raise_returned(value: Any = None) -> None:
    raise _Returned(value)
