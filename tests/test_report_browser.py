"""The report in a real browser, where one is installed: on a desk, on a phone, on paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.reports import reported, small_copy
from tests.test_page_browser import SECONDS, browser

__all__ = ["browser"]

pytestmark = pytest.mark.browser

SIZES = {"desk": (1280, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    small_copy(folder / "stripe_feed.duckdb")
    reported(folder / "report.html", folder / "stripe_feed.duckdb")
    return folder / "report.html"


@pytest.mark.parametrize("size", SIZES)
def test_it_fits_draws_its_charts_and_runs_no_script_of_a_name(
    browser: Any, report: Path, tmp_path: Path, size: str
) -> None:
    width, height = SIZES[size]
    trouble: list[str] = []
    asked: list[str] = []
    with browser.new_context(viewport={"width": width, "height": height}) as context:
        page = context.new_page()
        page.set_default_timeout(SECONDS)
        page.on("console", lambda said: trouble.append(said.text))
        page.on("pageerror", lambda fault: trouble.append(str(fault)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(report.as_uri())
        page.screenshot(path=tmp_path / f"{size}.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.title().startswith("Stripe report")
        assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
        assert (
            page.evaluate("[...document.images].map(i => i.getBoundingClientRect().width)")[0] > 300
        )
        page.get_by_role("region", name="MRR, USD", exact=True).focus()
        outside = [url for url in asked if not url.startswith(("file:", "data:"))]
    assert (trouble, outside) == ([], [])


def test_on_paper_nothing_is_cut_off(browser: Any, report: Path) -> None:
    with browser.new_context(viewport={"width": 1_030, "height": 700}) as context:
        page = context.new_page()
        page.set_default_timeout(SECONDS)
        page.goto(report.as_uri())
        page.emulate_media(media="print")
        cut = "box => box.scrollWidth > box.clientWidth + 1"
        boxes = f"[...document.querySelectorAll('.scroll, .chart')].filter({cut})"
        assert page.evaluate(f"{boxes}.map(box => box.ariaLabel)") == []
        assert len(page.pdf(format="A4")) > 10_000
