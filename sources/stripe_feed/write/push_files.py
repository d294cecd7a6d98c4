"""Rows of a file: CSV in the forms that spreadsheets write, JSON, JSON lines or Parquet."""

from __future__ import annotations

import codecs
import csv
import io
import json
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from ..errors import SetupError, UsageError
from .push.rows import Row, read_rows

STDIN = "-"
PARQUET = b"PAR1"
DELIMITERS = ",;\t|"
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def file_rows(path: Path, encoding: str = "utf-8") -> Iterator[Row]:
    """Read the rows of a file, or of standard input (`-`); what it is, its content says.

    Raises `SetupError` for a file that cannot be read, and `UsageError` for one that holds no rows.
    """
    name = "standard input" if str(path) == STDIN else path.name
    try:
        content = sys.stdin.buffer.read() if str(path) == STDIN else path.read_bytes()
    except OSError as fault:
        raise SetupError(f"{name} cannot be read ({type(fault).__name__}). Check `file`.") from None
    if content.startswith(PARQUET):
        yield from read_rows(_parquet(content, name))
        return
    text = _decoded(content, encoding, name)
    yield from _json_rows(text, name) if text.lstrip()[:1] in ("{", "[") else _csv_rows(text, name)


def _parquet(content: bytes, name: str) -> Any:
    from pyarrow import ArrowException, parquet
    from pyarrow import py_buffer as buffer

    try:
        return parquet.read_table(buffer(content))
    except (ArrowException, OSError) as fault:
        raise UsageError(
            f"{name} is no Parquet that can be read ({type(fault).__name__})."
        ) from None


def _decoded(content: bytes, encoding: str, name: str) -> str:
    marked = (other for mark, other in BYTE_ORDER_MARKS if content.startswith(mark))
    used = next(marked, encoding)
    try:
        return content.decode(used)
    except LookupError:
        raise UsageError(
            f"There is no encoding {encoding!r}. Choose one such as latin-1."
        ) from None
    except UnicodeDecodeError:
        raise UsageError(
            f'{name} is not written in {used}. Name its encoding, such as encoding = "cp1252".'
        ) from None


def _json_rows(text: str, name: str) -> Iterator[Row]:
    """The hashes of a list, or one per line."""
    try:
        if text.lstrip().startswith("["):
            found = json.loads(text, parse_float=Decimal)
        else:
            found = [
                json.loads(line, parse_float=Decimal) for line in text.split("\n") if line.strip()
            ]
    except (RecursionError, ValueError):
        raise UsageError(f"{name} is neither a JSON list nor JSON lines.") from None
    if not all(isinstance(one, dict) for one in found):
        raise UsageError(f"{name} holds JSON that is no hash. Each row is one.")
    yield from read_rows(found)


def _csv_rows(text: str, name: str) -> Iterator[Row]:
    header, _, _ = text.lstrip("\r\n").partition("\n")
    delimiter = max(DELIMITERS, key=header.count)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    columns: list[str] = []
    try:
        for cells in lines:
            if not cells:
                continue
            if not columns:
                columns = _columns(cells, name)
            elif len(cells) != len(columns):
                raise UsageError(
                    f"{name}: line {lines.line_num} has {len(cells)} cells, and the first one {len(columns)}. "
                    "Quote cells that hold the delimiter."
                )
            else:
                yield dict(zip(columns, cells, strict=True))
    except csv.Error as fault:
        raise UsageError(f"{name}: line {lines.line_num} is no CSV ({fault}).") from None
    if not columns:
        raise UsageError(f"{name} is empty: not even the names of columns are there.")


def _columns(cells: list[str], name: str) -> list[str]:
    columns = [cell.strip() for cell in cells]
    if not all(columns) or len({*columns}) < len(columns):
        raise UsageError(f"{name}: each column has a name of its own in the first line.")
    return columns
