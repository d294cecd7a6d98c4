"""Options that several verbs share."""

from __future__ import annotations

from typing import Annotated

import typer

Database = Annotated[
    str | None, typer.Option("--database", metavar="FILE", help="DuckDB file; stripe_feed.duckdb by default.")
]
Destination = Annotated[
    str | None, typer.Option("--destination", metavar="NAME", help="Another dlt destination, such as postgres.")
]
Dataset = Annotated[str, typer.Option("--dataset", metavar="NAME", help="Schema that holds the tables.")]
StateDir = Annotated[
    str | None,
    typer.Option(
        "--state-dir", metavar="DIR",
        help="dlt's working files, in a folder per destination and dataset; below ~/.dlt/pipelines by default.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, for machines.")]
