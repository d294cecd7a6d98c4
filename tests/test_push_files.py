"""Rows of files as spreadsheets and exports write them: each is read as it is meant, or refused with the
place.
"""

from __future__ import annotations

import io
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from stripe_feed.errors import SetupError, UsageError
from stripe_feed.sandbox import Sandbox
from stripe_feed.write.push_files import file_rows
from tests.commands import shell_of
from tests.pushing import Row

FILE = '[push.crm]\nobject = "customers"\nkey = "id"\nmatch = "email"\nfile = "{}"\n'


def in_parquet(row: Row) -> bytes:
    written = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist([row]), written)
    return written.getvalue()


@pytest.mark.parametrize(
    ("content", "encoding", "rows"),
    [
        (b"id,name\n01,Ann\n\n02,\n", "utf-8", [{"id": "01", "name": "Ann"}, {"id": "02", "name": ""}]),
        ('\ufeffid;name\r\n1;"Ä; B"\r\n'.encode(), "utf-8", [{"id": "1", "name": "Ä; B"}]),
        ("id\tname\n1\tÄ\n".encode("utf-16"), "utf-8", [{"id": "1", "name": "Ä"}]),
        ("id;name\n1;Jörg\n".encode("latin-1"), "latin-1", [{"id": "1", "name": "Jörg"}]),
        (b'id,name\n1,"a\nb ""c"""\n', "utf-8", [{"id": "1", "name": 'a\nb "c"'}]),
        (b"id,name\n", "utf-8", []),
        (b'{"id": 1, "n": 1.10}\n\n{"id": 2}\n', "utf-8", [{"id": 1, "n": Decimal("1.10")}, {"id": 2}]),
        ('{"id": 1, "n": "a\u2028b"}\r\n{"id": 2}'.encode(), "utf-8", [{"id": 1, "n": "a\u2028b"}, {"id": 2}]),
        (b'[{"id": 1, "address": {"city": "X"}}]', "utf-8", [{"id": 1, "address": {"city": "X"}}]),
        (in_parquet({"id": 7, "n": Decimal("1.50"), "l": ["de"]}), "utf-8",
         [{"id": 7, "n": Decimal("1.50"), "l": ["de"]}]),
    ],
)  # fmt: skip
def test_a_file_is_read_as_its_content_says(
    tmp_path: Path, content: bytes, encoding: str, rows: list[Row]
) -> None:
    (tmp_path / "rows").write_bytes(content)
    assert list(file_rows(tmp_path / "rows", encoding)) == rows


@pytest.mark.parametrize(
    ("content", "encoding", "says"),
    [
        (b"", "utf-8", "not even the names of columns"),
        (b"id,email\n1,a,b\n", "utf-8", "line 2 has 3 cells, and the first one 2"),
        (b'id,email\n1,"a\n', "utf-8", "line 2 is no CSV"),
        (b"id,id\n1,2\n", "utf-8", "a name of its own"),
        (b"id,\n1,2\n", "utf-8", "a name of its own"),
        ("id\nJörg\n".encode("latin-1"), "utf-8", "not written in utf-8. Name its encoding"),
        (b"id\n1\n", "klingon", "no encoding 'klingon'"),
        (b'{"id": 1,\n}', "utf-8", "neither a JSON list nor JSON lines"),
        (b"[1]", "utf-8", "no hash"),
        (b"PAR1x", "utf-8", "no Parquet"),
    ],
)
def test_a_file_that_holds_no_rows_is_refused_with_the_place(
    tmp_path: Path, content: bytes, encoding: str, says: str
) -> None:
    (tmp_path / "rows").write_bytes(content)
    with pytest.raises(UsageError, match=says):
        list(file_rows(tmp_path / "rows", encoding))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"rows.csv cannot be read \(FileNotFoundError\)"):
        list(file_rows(tmp_path / "rows.csv"))


def test_a_file_beside_the_pushes_is_pushed_without_a_copy_and_once(tmp_path: Path) -> None:
    with shell_of(Sandbox(seed=5, customers=2, oddities=False), tmp_path) as shell:
        (tmp_path / "crm").mkdir()
        (tmp_path / "crm" / "rows.csv").write_bytes("\ufeffid;email\n1;ann@example.com\n".encode())
        for file, rows in (("rows.csv", None), ("-", "id,email\n1,bob@example.com\n")):
            (tmp_path / "crm" / "pushes.toml").write_text(FILE.format(file))
            arguments = ("--file", "crm/pushes.toml", "--log", f"log{file}.sqlite")
            for verb, says in (("plan", "1 create"), ("run", "1 created"), ("run", "1 unchanged")):
                said = shell.run("push", verb, *arguments, stdin=rows)
                assert (said.code, says in said.err) == (0, True), said.err
        both = f'{FILE.format("x")}query = "select 1"\n'
        (tmp_path / "crm" / "pushes.toml").write_text(both)
        assert "not from both" in shell.run("push", "plan", "--file", "crm/pushes.toml").error
