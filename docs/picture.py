"""Draw the picture of the README: the report on a made-up business.

`python docs/picture.py`, or `make picture`; it needs the extra `[browser]` and Chromium.
"""

from __future__ import annotations

import importlib
import logging
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from stripe_feed import run_sandbox, sync
from stripe_feed.report.run import write_report

PICTURE = Path(__file__).parent / "images" / "report.png"
DAY = 86_400
START = 1_792_929_600  # 2026-10-25 12:00:00 UTC
AS_OF = "2026-11-15 12:00:00"
WIDTH = 960
MARGIN = 8
TOP = "document.querySelector('#currency-usd').getBoundingClientRect().top"
BOTTOM = "document.querySelectorAll('#currency-usd .chart')[1].getBoundingClientRect().bottom"
GROUPS = ["core", "billing", "payments", "payment_lists"]


def draw(picture: Path) -> None:
    """Load a business, let it live for three weeks, load again, and take a picture of its report."""
    flags = ("--seed", "7", "--customers", "90", "--no-oddities", "--fixed-clock")
    with (
        TemporaryDirectory() as folder,
        run_sandbox("--business", *flags, "--now", str(START)) as box,
    ):
        place: dict[str, Any] = {"database": f"{folder}/business.duckdb", "state_dir": folder}
        account: dict[str, Any] = {
            "api_key": box.key,
            "api_base": box.url,
            "max_rps": 1000,
            "endpoint_rps": 1000,
        }
        sync(resources=GROUPS, **place, **account)
        box.tell("live", seconds=21 * DAY - 60, changes=20)
        box.tell("advance", seconds=60 + 120)
        sync(resources=GROUPS, **place, **account)
        report = f"{folder}/report.html"
        write_report(report, **place, variables={"as_of": AS_OF}, month_count=9)
        picture.parent.mkdir(exist_ok=True)
        browsers: Any = importlib.import_module("playwright.sync_api")
        with browsers.sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            page = browser.new_page(viewport={"width": WIDTH, "height": 800})
            page.goto(Path(report).as_uri())
            top, bottom = (page.evaluate(edge) for edge in (TOP, BOTTOM))
            clip = {"x": 0, "y": top, "width": WIDTH, "height": bottom - top + MARGIN}
            page.screenshot(path=picture, full_page=True, clip=clip)
            browser.close()


if __name__ == "__main__":
    logging.getLogger("stripe_feed").setLevel(logging.WARNING)
    draw(PICTURE)
