"""A report on a small account in three currencies, and what a reader finds in the file."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import duckdb

from stripe_feed.report.run import WrittenReport, write_report

from .modelled import AS_OF_ALWAYS
from .payments import payment_tables
from .timelines import draw_account, new_connection, raw_tables

SCRIPT = "<script>document.title = 'taken over'</script><img src=x onerror=\"document.title = 'taken over'\">"
MONTHS = 24


def small_copy(file: Path) -> None:
    """A file with the raw tables of an account; its customers and products have hostile names."""
    connection = new_connection(raw_tables(draw_account(3, 150, "observed")) | payment_tables())
    connection.execute("update stripe.customers set name = ?", [SCRIPT])
    connection.execute("update stripe.products set name = ?", [SCRIPT])
    connection.execute("update stripe.payouts set currency = 'kwd' where id = 'po_4'")
    connection.execute(f"attach '{file}' as stored")
    connection.execute("copy from database memory to stored")
    connection.close()


def reported(file: Path, database: Path, **options: Any) -> WrittenReport:
    """Write a report as of the moment of the account."""
    given: dict[str, Any] = {
        "variables": AS_OF_ALWAYS,
        "month_count": MONTHS,
        "database": str(database),
    } | options
    return write_report(str(file), state_dir=str(file.parent / "state"), **given)


def marts(database: Path, sql: str) -> list[tuple[Any, ...]]:
    """The rows of a query on the models."""
    with duckdb.connect(str(database), read_only=True) as connection:
        connection.execute("set search_path = 'stripe_models'")
        rows: list[tuple[Any, ...]] = connection.execute(sql).fetchall()
        return rows


@dataclass
class Page(HTMLParser):
    """What an HTML file consists of: its tables by caption (a row is a mapping from the heading), its
    headings, the elements with their attributes, and all of its text.
    """

    tables: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    headings: list[tuple[int, str]] = field(default_factory=list)
    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__()
        self._path: list[str] = []
        self._caption = ""
        self._heads: list[str] = []
        self._cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("img", "meta"):
            self._path.append(tag)
        if tag == "table":
            self._caption, self._heads = "", []
        elif tag == "tr":
            self._cells = []
        elif tag in ("th", "td"):
            self._cells.append("")
        elif tag in ("h1", "h2", "h3"):
            self.headings.append((int(tag[1]), ""))

    def handle_endtag(self, tag: str) -> None:
        assert self._path.pop() == tag
        if tag == "caption":
            assert self._caption not in self.tables, self._caption
            self.tables[self._caption] = []
        elif tag == "tr" and "thead" in self._path:
            self._heads = self._cells
        elif tag == "tr":
            row = dict(zip(self._heads, self._cells, strict=True))
            self.tables[self._caption].append(row)

    def handle_data(self, data: str) -> None:
        inside = self._path[-1] if self._path else ""
        if inside != "style":
            self.text += data
        if inside == "caption":
            self._caption += data
        elif inside in ("th", "td"):
            self._cells[-1] += data
        elif inside in ("h1", "h2", "h3"):
            level, words = self.headings[-1]
            self.headings[-1] = (level, words + data)


def read_page(file: Path) -> Page:
    """Parse an HTML file. Raises `AssertionError` if its elements do not close."""
    page = Page()
    page.feed(file.read_text(encoding="utf-8"))
    page.close()
    assert not page._path
    return page
