"""The package as syntax trees, each file parsed once."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "sources" / "stripe_feed"


@cache
def tree_of(file: Path) -> ast.Module:
    """A file's syntax tree; the file must not change meanwhile."""
    return ast.parse(file.read_text(encoding="utf-8"), str(file))
