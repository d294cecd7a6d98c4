"""Build, test, show and explain the data models. Data goes to stdout, messages to stderr."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from ...destination.locks import DEFAULT_WAIT
from ...errors import CopyDiffers, PartlyDone, SetupError, StripeFeedError, UsageError
from ...wording import counted
from ..command import command
from ..options import CopyOptions, Json, LocalCopyOptions, Wait

if TYPE_CHECKING:
    from ...models.run import ModelResult

models_app = typer.Typer(
    name="models",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Data models over the copy: MRR, churn, collections, payouts.",
)

_Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME]...",
        help="Models; +x is x with all that it reads, x+ with all that reads it. All by default.",
    ),
]
Variables = Annotated[
    list[str] | None,
    typer.Option(
        "--var", metavar="NAME=VALUE", help="Set a variable of the models; may be repeated."
    ),
]


@partial(command, models_app, name="list")
def list_(*, copy: CopyOptions, wait: Wait = DEFAULT_WAIT, json: Json = False) -> None:
    """List the models: what one row is, when each was built, and whether it is current."""
    from ...models.copies import open_to_read
    from ...models.overview import list_models
    from .printing import print_overview

    with open_to_read(**copy.arguments(), wait=wait) as database:
        print_overview(list_models(database), json)


@partial(command, models_app)
def build(
    *,
    names: _Names = None,
    full: Annotated[
        bool, typer.Option("--full", help="Build also what is current already.")
    ] = False,
    variables: Variables = None,
    runner: Annotated[
        str,
        typer.Option("--with", metavar="RUNNER", help="built-in, or dbt (extra dbt)."),
    ] = "built-in",
    copy: LocalCopyOptions,
    wait: Wait = DEFAULT_WAIT,
    json: Json = False,
) -> None:
    """Build the models in the database of the copy. Models whose tables are not loaded are left out."""
    build_and_report(names, full, variables, runner, copy, wait, json)


def build_and_report(
    names: list[str] | None,
    full: bool,
    variables: list[str] | None,
    runner: str,
    copy: LocalCopyOptions,
    wait: float,
    json: bool,
) -> None:
    """Build models and print the results. Raises `PartlyDone` if models of the core tables are left
    out, and `StripeFeedError` if models failed.
    """
    from ...models.copies import build_copy_models
    from ...models.dbt_run import build_with_dbt
    from ...models.overview import is_expected
    from .printing import print_results

    if runner not in ("built-in", "dbt"):
        raise UsageError(f"--with takes built-in or dbt, not {runner!r}.")
    build = build_with_dbt if runner == "dbt" else build_copy_models
    results = build(
        **copy.arguments(),
        selection=names,
        variables=parse_variables(variables),
        full=full,
        wait=wait,
    )
    note_build(copy)
    print_results(results, json)
    raise_if_failed(results)
    unexpected = [r for r in results if r.status == "left out" and not is_expected(r, names)]
    if unexpected:
        tables = ", ".join(dict.fromkeys(result.missing for result in unexpected))
        raise PartlyDone(
            f"{counted(len(unexpected), 'model')} left out: not loaded: {tables}. Everything else is built."
        )


def note_build(copy: LocalCopyOptions) -> None:
    """Note for the triggers on models, which `deliver` and `serve` evaluate, that models were built."""
    from ...destination.pipeline import resolve_place, state_root
    from ...destination.place import FEED_STORE_SUFFIX, companion_path
    from ...feed.storage.store import FeedStore

    place = resolve_place(copy.database, copy.destination, copy.dataset)
    store = companion_path(place, state_root(copy.state_dir), FEED_STORE_SUFFIX)
    if store.exists():
        with FeedStore(store) as feed:
            feed.note_models_built()


def require_built_in_models(copy: LocalCopyOptions) -> None:
    """Raise `UsageError` if the models of this destination need dbt: before anything is loaded."""
    from ...destination.pipeline import dlt_settings, open_pipeline
    from ...models.copies import require_built_in

    with dlt_settings():
        pipeline = open_pipeline(**copy.arguments())
    try:
        require_built_in(pipeline)
    except SetupError as fault:
        raise UsageError(f"Leave out --models: {fault}") from None


def build_after_sync(copy: LocalCopyOptions, wait: float) -> None:
    """Build what is stale and say on stderr in one line what was done. Raises `StripeFeedError` if
    models failed; what is left out is in the result of the sync already.
    """
    from ...models.copies import build_copy_models
    from .printing import print_counts

    results = build_copy_models(**copy.arguments(), wait=wait)
    note_build(copy)
    print_counts(results, names_what_is_left_out=False)
    raise_if_failed(results)


def raise_if_failed(results: Iterable[ModelResult]) -> None:
    """Raise `StripeFeedError` if models failed."""
    if failed := [result.name for result in results if result.status == "failed"]:
        raise StripeFeedError(f"Models failed: {', '.join(failed)}. The others are built.")


def parse_variables(given: list[str] | None) -> dict[str, str]:
    """Turn `name=value` into a variable. Raises `UsageError` for other forms."""
    found = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--var takes NAME=VALUE, such as discounts=forever, not {text!r}.")
        found[name] = value
    return found


@partial(command, models_app)
def test(
    *,
    names: _Names = None,
    variables: Variables = None,
    copy: CopyOptions,
    wait: Wait = DEFAULT_WAIT,
    json: Json = False,
) -> None:
    """Check the built models: keys, values, identities. Exit 4 if rows break a rule."""
    from ...models.checks import run_checks
    from ...models.copies import open_to_read
    from ...models.overview import rendered_models
    from .printing import print_checks

    given = parse_variables(variables)
    with open_to_read(**copy.arguments(), wait=wait) as database:
        results = run_checks(database, rendered_models(database, given), names, given)
    print_checks(results, json)
    if broken := [result for result in results if result.failures]:
        raise CopyDiffers(f"{len(broken)} of {len(results)} rules are broken.")


@partial(command, models_app)
def show(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model, such as mrr_summary.")],
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL only.")] = False,
    lineage: Annotated[
        str | None,
        typer.Option(
            "--lineage", metavar="COLUMN", help="Print the raw columns that a column comes from."
        ),
    ] = None,
    copy: CopyOptions,
    wait: Wait = DEFAULT_WAIT,
    json: Json = False,
) -> None:
    """Show what a model says: its grain, its columns, its SQL."""
    from ...models.copies import open_to_read
    from ...models.explain import column_lineage
    from ...models.overview import describe_model, rendered_models
    from .printing import print_details, print_lines

    if lineage:
        print_lines(column_lineage(name, lineage), json)
        return
    with open_to_read(**copy.arguments(), wait=wait, lakes=True) as database:
        details = describe_model(rendered_models(database), name)
    if sql and not json:
        print_lines(details.sql.splitlines(), json)
    else:
        print_details(details, json)


@partial(command, models_app)
def explain(
    *,
    number: Annotated[str, typer.Argument(metavar="NUMBER", help="What to explain: mrr.")],
    customer: Annotated[str, typer.Argument(metavar="CUSTOMER", help="The customer, cus_...")],
    month: Annotated[str, typer.Argument(metavar="MONTH", help="The month, such as 2026-11.")],
    copy: CopyOptions,
    wait: Wait = DEFAULT_WAIT,
    json: Json = False,
) -> None:
    """Explain a customer's MRR in a month: the items, prices, discounts and sources that make it."""
    from ...models.copies import open_to_read
    from ...models.explain import explain_mrr
    from .printing import print_explanation

    if number != "mrr":
        raise UsageError(f"`models explain` explains mrr, not {number!r}.")
    with open_to_read(**copy.arguments(), wait=wait) as database:
        print_explanation(explain_mrr(database, customer, month), json)


@partial(command, models_app)
def docs(
    *,
    out: Annotated[
        str, typer.Option("--out", metavar="DIR", help="Where to write the page.")
    ] = "models-docs",
    copy: LocalCopyOptions,
    wait: Wait = DEFAULT_WAIT,
) -> None:
    """Write dbt's docs of the models as one HTML file. Needs the extra dbt."""
    from ...models.dbt_run import write_docs
    from .printing import print_lines

    print_lines([str(write_docs(out=out, **copy.arguments(), wait=wait))], json=False)


@partial(command, models_app)
def package(
    *,
    copy_to: Annotated[
        str | None, typer.Option("--copy", metavar="DIR", help="Copy the project to this folder.")
    ] = None,
) -> None:
    """Print the path of the dbt project, for an own project's packages.yml."""
    from ...models.render import PROJECT_FOLDER, copy_project
    from .printing import print_lines

    path = PROJECT_FOLDER if copy_to is None else copy_project(copy_to)
    print_lines([str(path)], json=False)
