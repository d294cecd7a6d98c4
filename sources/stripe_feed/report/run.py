"""Write the report: build what is stale, read the figures, draw the charts."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..destination.locks import DEFAULT_WAIT
from ..destination.place import DEFAULT_DATASET
from ..destination.read import CopyReader, loaded_at, open_reader, read_state
from ..errors import SetupError, UsageError
from ..models.copies import build_copy_models, loaded_tables, reader_database
from ..models.database import ModelDatabase
from ..models.overview import lacking_tables
from ..models.render import BUILT_IN_TYPES
from ..models.run import ModelResult, describe_missing, stale_models
from ..models.variables import check_variables
from ..resources.groups import DEFAULT_GROUP, GROUPS, tables_filled_by
from .page import ReportFacts, render_report
from .reading import Figure, ReportFigures, is_zone_of, read_figures

DEFAULT_MONTHS = 13


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """A report that was written. `built`: what was done with each model before; `stale`: models that
    are older than the data, or from another definition.
    """

    file: Path
    size: int
    left_out: Mapping[str, str]
    stale: tuple[str, ...] = ()
    built: list[ModelResult] = field(default_factory=list)


def write_report(
    file: str,
    *,
    database: str | None = None,
    destination: str | None = None,
    dataset: str = DEFAULT_DATASET,
    state_dir: str | None = None,
    variables: Mapping[str, Any] | None = None,
    month_count: int = DEFAULT_MONTHS,
    currencies: Collection[str] | None = None,
    build: bool = True,
    wait: float = DEFAULT_WAIT,
) -> WrittenReport:
    """Write the report on a copy as one HTML file, readable by its owner alone: it names customers.

    Stale models are built first, with these variables, unless `build` is false or the destination's
    models need dbt. A file that exists is replaced once the new one is whole. Raises the errors of
    `stripe_feed.errors`.
    """
    path, drawing = _check_place(file), _import_charts()
    place: dict[str, Any] = {"database": database, "destination": destination, "dataset": dataset}
    results: list[ModelResult] = []
    for is_last in (False, True):
        with open_reader(**place, wait=wait) as copy:
            reader = reader_database(copy, dataset)
            stale = _stale(copy, reader, variables)
            if not stale or not build or is_last or reader.target.type not in BUILT_IN_TYPES:
                figures = read_figures(reader, month_count, currencies)
                facts = _facts(copy, reader, variables, figures, stale)
                break
        results = build_copy_models(**place, state_dir=state_dir, variables=variables, wait=wait)
    with _unchecked():
        content = render_report(figures, facts, partial(_draw, drawing)).encode()
    _write(path, content)
    return WrittenReport(path, len(content), facts.left_out, tuple(stale), results)


def _import_charts() -> Any:
    """The module of charts. Raises `SetupError` if its packages are not installed."""
    try:
        import vl_convert  # noqa: F401  # what draws them

        from . import charts
    except ModuleNotFoundError as fault:
        raise SetupError(
            f"{fault.name} is not installed. Run: pip install 'stripe-feed[report]'"
        ) from None
    return charts


def _unchecked() -> AbstractContextManager[None]:
    """Spare Altair the check of every part of a chart against its schema: a fifth of the time."""
    from altair.utils.schemapi import debug_mode

    return debug_mode(False)


def _stale(
    copy: CopyReader, reader: ModelDatabase, variables: Mapping[str, Any] | None
) -> list[str]:
    if reader.target.type not in BUILT_IN_TYPES:
        return []
    return stale_models(reader, variables, loaded_tables(read_state(copy)))


def _facts(
    copy: CopyReader,
    reader: ModelDatabase,
    variables: Mapping[str, Any] | None,
    figures: ReportFigures,
    stale: Collection[str],
) -> ReportFacts:
    state = read_state(copy)
    zone = str(check_variables(variables or {}).get("reporting_timezone", "UTC"))
    lacking = {}
    if figures.missing_models and reader.target.type in BUILT_IN_TYPES:
        lacking = lacking_tables(reader, loaded_tables(state))
    notes = []
    if stale:
        notes.append(
            "Models are older than the data, or from another definition: run `stripe-feed models build`."
        )
    if not is_zone_of(reader, zone):
        zone = f"not {zone}"
        notes.append("The models were built for another time zone than this report was asked for.")
    return ReportFacts(
        state.get("account"),
        state.get("livemode"),
        loaded_at(copy),
        zone,
        {title: _reason(lacking.get(model)) for title, model in figures.missing_models.items()},
        notes,
    )


def _reason(table: str | None) -> str:
    """Why a figure is left out: the raw table that it lacks, and what loads it."""
    if table is None:
        return "its models are not built; `stripe-feed models build` says why"
    group = next(name for name, resources in GROUPS.items() if table in tables_filled_by(resources))
    asked = ",".join(dict.fromkeys((DEFAULT_GROUP, group)))
    return f"{describe_missing(table)}; `stripe-feed sync --resources {asked}` loads it"


_DRAWN = {
    "mrr": ("closing_mrr",),
    "movements": ("amount",),
    "retention": ("gross_mrr_churn_rate", "subscriber_churn_rate"),
    "aging": ("amount_remaining",),
}
"""The columns that a chart draws; if all are 0, its table says enough."""


def _draw(drawing: Any, figure: Figure, currency: str) -> str | None:
    """Draw the chart of a figure; null if there is nothing to see in it."""
    rows = figure.chart_rows
    drawn = _DRAWN.get(figure.spec.name, ())
    if drawn and not any(row[name] for row in rows for name in drawn):
        return None
    match figure.spec.name:
        case "subscribers":
            chart = drawing.subscribers_chart(rows)
        case "mrr":
            chart = drawing.mrr_chart(
                [
                    {"month": row["month"], "basis": basis, "mrr": row[basis]}
                    for row in rows
                    for basis in drawing.BASES
                ],
                currency,
            )
        case "movements":
            chart = drawing.movements_chart(rows, currency)
        case "retention":
            titles = ("MRR churn", "Subscriber churn")
            named = [
                {
                    "month": row["month"],
                    "MRR churn": row["gross_mrr_churn_rate"],
                    "Subscriber churn": row["subscriber_churn_rate"],
                }
                for row in rows
            ]
            chart = drawing.rates_chart(named, titles)
        case "aging":
            chart = drawing.aging_chart(rows, currency)
        case "payouts":
            chart = drawing.payouts_chart(rows, currency)
        case "fees":
            chart = drawing.payouts_chart(rows, currency, ("stripe_fees", "other_fees"))
        case _:
            return None
    svg: str = drawing.chart_svg(chart)
    return svg


def _check_place(file: str) -> Path:
    """The path of the file to write. Raises `UsageError` if none can be there."""
    path = Path(file)
    if file == "-":
        raise UsageError("The report is a file. Name one, such as report.html.")
    if os.path.isdir(path):
        raise UsageError(f"{file} is a folder. Name a file in it, such as {path / 'report.html'}.")
    if not os.path.isdir(path.parent):
        raise UsageError(f"There is no folder {path.parent}. Create it, or name another place.")
    if os.path.exists(path) and not os.path.isfile(path):  # a device or a pipe would be replaced
        raise UsageError(f"{file} is no file that can be replaced. Name another one.")
    return path


def _write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, for its owner alone. Raises `SetupError` if it cannot be."""
    new = path.with_name(f".{path.name[:40]}.{os.getpid()}")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
            out.write(content)
        new.replace(path)
    except OSError as fault:
        with suppress(OSError):
            new.unlink()
        raise SetupError(f"The report cannot be written to {path}: {fault.strerror}.") from None
