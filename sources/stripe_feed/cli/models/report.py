"""Write the report on the models as one HTML file."""

from __future__ import annotations

from typing import Annotated

import typer

from ...destination.locks import DEFAULT_WAIT
from ...wording import counted
from ..options import LocalCopyOptions, Wait, split_names
from ..output import console_out, echo_err, escape_control
from .commands import Variables, note_build, parse_variables, raise_if_failed


def report(
    *,
    html: Annotated[str, typer.Option("--html", metavar="FILE", help="The HTML file to write.")],
    months: Annotated[
        int,
        typer.Option(
            "--months",
            metavar="N",
            min=1,
            max=120,
            help="How many months to show, the running one included.",
        ),
    ] = 13,
    currency: Annotated[
        list[str] | None,
        typer.Option(
            "--currency", metavar="A,B", help="Only these currencies, such as eur; may be repeated."
        ),
    ] = None,
    build: Annotated[
        bool,
        typer.Option(
            "--build/--no-build", help="Build stale models before, or show what is there."
        ),
    ] = True,
    variables: Variables = None,
    copy: LocalCopyOptions,
    wait: Wait = DEFAULT_WAIT,
) -> None:
    """Write MRR, churn, collections, payouts and fees as one HTML file with charts. Needs the extra report."""
    from ...report.run import write_report
    from .printing import print_counts, print_reasons

    names = split_names(currency, "--currency")
    written = write_report(
        html,
        **copy.arguments(),
        variables=parse_variables(variables),
        month_count=months,
        currencies=None if names is None else [name.lower() for name in names],
        build=build,
        wait=wait,
    )
    if written.built:
        note_build(copy)
        print_counts(written.built)
    if written.left_out:
        echo_err("The report leaves out:")
        print_reasons(dict(written.left_out))
    if written.stale:
        echo_err(f"{counted(len(written.stale), 'model')} stale. Run `stripe-feed models build`.")
    console_out().print(escape_control(f"{written.file} ({written.size:,} bytes)"), soft_wrap=True)
    raise_if_failed(written.built)
