"""Print what the commands on models found."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ...wording import counted
from ..output import (
    console_out,
    echo_err,
    escape_control,
    format_time,
    make_table,
    print_json,
    print_table,
)

MODEL_GROUPS = "core,billing,payments,payment_lists"
"""The groups of resources that fill all tables that models read."""

if TYPE_CHECKING:
    from ...models.checks import RuleResult
    from ...models.explain import MrrExplanation, MrrPart
    from ...models.overview import ModelDetails, ModelOverview
    from ...models.run import ModelResult


def print_overview(models: Sequence[ModelOverview], json: bool) -> None:
    """Print one line per model; why some are left out goes to stderr."""
    if json:
        print_json(*models)
        return
    rows = [
        (m.name, m.state, m.rows, format_time(m.built_at) if m.built_at else "", m.kind, m.grain)
        for m in models
    ]
    print_table(["model", "state", "rows", "built (UTC)", "kind", "one row per"], rows)
    _print_left_out({m.name: m.reason for m in models if m.state == "left out"})


def print_results(results: Sequence[ModelResult], json: bool) -> None:
    """Print what a build did: a table of what was built, and one line for the rest."""
    if json:
        print_json(*results)
        return
    built = [r for r in results if r.status == "built"]
    if built:
        rows = [(r.name, r.kind, r.rows, f"{r.seconds:.2f}") for r in built]
        console_out().print(make_table(["built", "kind", "rows", "seconds"], rows))
    print_counts(results)


def print_counts(results: Sequence[ModelResult], names_what_is_left_out: bool = True) -> None:
    """Print on stderr how many models were built, and why some were not. Without the names, what is
    left out is part of the first line: it is the same after each sync.
    """
    built = sum(r.status == "built" for r in results)
    unchanged = sum(r.status == "unchanged" for r in results)
    left_out = {r.name: r.reason for r in results if r.status == "left out"}
    line = f"{counted(built, 'model')} built, {unchanged} unchanged"
    if left_out and not names_what_is_left_out:
        line += f", {len(left_out)} left out: `stripe-feed models list` says why"
    echo_err(f"{line}.")
    print_reasons({r.name: r.reason for r in results if r.status == "failed"})
    if names_what_is_left_out:
        _print_left_out(left_out)


def _print_left_out(reasons: dict[str, str]) -> None:
    print_reasons(reasons)
    if reasons:
        echo_err(f"`stripe-feed sync --resources {MODEL_GROUPS}` loads all that the models read.")


def print_reasons(reasons: dict[str, str]) -> None:
    """Print why models are missing: one line per reason."""
    for reason in dict.fromkeys(reasons.values()):
        names = [name for name, given in reasons.items() if given == reason]
        echo_err(f"{', '.join(names)}: {reason}.")


def print_checks(results: Sequence[RuleResult], json: bool) -> None:
    """Print every broken rule with some of its rows, and how many hold."""
    if json:
        print_json(
            *(
                {
                    "name": result.check.name,
                    "model": result.check.model,
                    "failures": result.failures,
                    "reason": result.reason,
                    "rows": [dict(zip(result.columns, row, strict=True)) for row in result.rows],
                }
                for result in results
            )
        )
        return
    for result in results:
        if result.failures:
            console_out().print(
                escape_control(f"{result.check.name}: {counted(result.failures, 'row')}")
            )
            console_out().print(make_table(result.columns, result.rows))
    skipped = sum(bool(result.reason) for result in results)
    holding = sum(not result.failures and not result.reason for result in results)
    echo_err(f"{holding} rules hold" + (f", {skipped} not checked." if skipped else "."))


def print_details(details: ModelDetails, json: bool) -> None:
    """Print a model's description and its columns."""
    if json:
        print_json(details)
        return
    console = console_out()
    console.print(f"{details.name} ({details.kind}), one row per {details.grain}")
    console.print(details.description)
    console.print(f"Reads: {', '.join(details.reads)}")
    for name, description in details.columns:
        console.print(f"  {name}: {' '.join(description.split())}")


def print_explanation(explanation: MrrExplanation, json: bool) -> None:
    """Print the parts of an MRR, one line each, and their sum per currency."""
    if json:
        print_json(explanation)
        return
    console = console_out()
    for currency, total in explanation.totals.items():
        console.print(
            f"{total:,} {currency} in minor units, just before {format_time(explanation.closes_at)} UTC:"
        )
        for part in explanation.parts:
            if part.currency == currency:
                console.print(escape_control(f"  {_format_part(part)}"))
    if not explanation.totals:
        echo_err(f"No item of {explanation.customer_id} counts in {explanation.month:%Y-%m}.")


def _format_part(part: MrrPart) -> str:
    quantity = 1 if part.quantity is None else part.quantity
    discount = f" - {part.discount:,} discount" if part.discount else ""
    source = f" by {part.source}" if part.source else ""
    return (
        f"{part.mrr:,} = {part.billed_amount:,} x {part.factor}{discount}: {quantity} x {part.price_id}, "
        f"item {part.subscription_item_id} of {part.subscription_id}, {part.basis}{source}"
    )


def print_lines(lines: Iterable[str], json: bool) -> None:
    """Print plain lines, or one JSON text per line."""
    if json:
        print_json(*lines)
        return
    for line in lines:
        sys.stdout.write(f"{line}\n")
