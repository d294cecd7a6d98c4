"""The tests of the models: those of the YAML files, and the selects in `tests/`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .database import ModelDatabase, existing_relations
from .render import ModelTarget, Project, RenderedModel, load_project, render_tests
from .run import select_models

SHOWN_ROWS = 5


@dataclass(frozen=True, slots=True)
class ModelRule:
    """One rule about a model; `sql` selects the rows that break it. `condition`: what those rows of
    the model meet, where they are its own.
    """

    name: str
    model: str
    sql: str
    condition: str = ""


@dataclass(frozen=True, slots=True)
class RuleResult:
    """How many rows break a rule (0: none), and some of them. `reason`: why it was not checked."""

    check: ModelRule
    failures: int = 0
    columns: tuple[str, ...] = ()
    rows: tuple[tuple[Any, ...], ...] = ()
    reason: str = ""


def run_checks(
    database: ModelDatabase,
    models: Mapping[str, RenderedModel],
    selection: Sequence[str] | None = None,
    variables: Mapping[str, Any] | None = None,
    project: Project | None = None,
) -> list[RuleResult]:
    """Check the built models that are selected; all by default."""
    project = project or load_project()
    wanted = set(select_models(models, selection))
    built = existing_relations(database)
    checks = [
        (check, reads)
        for check, reads in _checks(project, database.target, variables)
        if wanted.intersection(reads)
    ]
    kept: set[ModelRule] = set()
    for model in {check.model for check, _ in checks if check.condition} & built.keys():
        of_rows = [check for check, _ in checks if check.condition and check.model == model]
        kept |= _kept(database, model, of_rows)
    results = []
    for check, reads in checks:
        missing = [name for name in reads if name not in built]
        if missing:
            results.append(RuleResult(check, reason=f"{missing[0]} is not built"))
        elif check in kept:
            results.append(RuleResult(check))
        else:
            results.append(_run(database, check))
    return results


def _kept(database: ModelDatabase, model: str, checks: Sequence[ModelRule]) -> set[ModelRule]:
    """Return those of a model's rules about its own rows that no row breaks: all in one scan."""
    counts = ", ".join(f"count(*) filter (where {check.condition})" for check in checks)
    (found,) = database.execute(f"select {counts} from {database.target.relation(model)}")
    return {check for check, count in zip(checks, found, strict=True) if not count}


def _run(database: ModelDatabase, check: ModelRule) -> RuleResult:
    ((count,),) = database.execute(f"select count(*) from ({check.sql}) as broken")
    if not count:
        return RuleResult(check)
    columns = tuple(name for name, _ in database.columns(check.sql))
    rows = database.execute(f"select * from ({check.sql}) as broken limit {SHOWN_ROWS}")
    return RuleResult(check, int(count), columns, tuple(rows))


def _checks(
    project: Project, target: ModelTarget, variables: Mapping[str, Any] | None
) -> Iterator[tuple[ModelRule, tuple[str, ...]]]:
    """Each rule, with the models that it reads."""
    for name, rendered in render_tests(project, target, variables).items():
        yield ModelRule(name, rendered.refs[0], rendered.sql), rendered.refs
    for model, properties in project.properties.items():
        yield from _generic(target, model, "", properties.get("data_tests", ()))
        for column in properties.get("columns", ()):
            yield from _generic(target, model, column["name"], column.get("data_tests", ()))


def _generic(
    target: ModelTarget, model: str, column: str, tests: Sequence[Any]
) -> Iterator[tuple[ModelRule, tuple[str, ...]]]:
    for test in tests:
        kind, options = (test, {}) if isinstance(test, str) else next(iter(test.items()))
        arguments = options.get("arguments", {})
        reads: tuple[str, ...] = (model,)
        relation = target.relation(model)
        condition = ""
        match kind:
            case "not_null":
                condition = f"{column} is null"
            case "unique":
                sql = _repeated(relation, [column])
            case "unique_combination":
                sql = _repeated(relation, arguments["columns"])
            case "accepted_values":
                values = ", ".join(f"'{value}'" for value in arguments["values"])
                condition = f"{column} not in ({values})"
            case "relationships":
                parent = arguments["to"].split("'")[1]
                reads = (model, parent)
                sql = (
                    f"select child.* from {relation} as child left join {target.relation(parent)} as parent "
                    f"on parent.{arguments['field']} = child.{column} "
                    f"where child.{column} is not null and parent.{arguments['field']} is null"
                )
            case _:
                raise ValueError(f"{model}.{column}: the built-in runner has no test {kind!r}")
        if condition:
            sql = f"select * from {relation} where {condition}"
        yield ModelRule("_".join(filter(None, (kind, model, column))), model, sql, condition), reads


def _repeated(relation: str, columns: Sequence[str]) -> str:
    names = ", ".join(columns)
    known = " and ".join(f"{column} is not null" for column in columns)
    return (
        f"select {names}, count(*) as row_count from {relation} where {known} "
        f"group by {names} having count(*) > 1"
    )
