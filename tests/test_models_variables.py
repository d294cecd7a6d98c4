from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stripe_feed.errors import UsageError
from stripe_feed.models.render import load_project
from stripe_feed.models.variables import VARIABLE_CHOICES, check_variables


@pytest.mark.parametrize(
    ("name", "given", "taken"),
    [
        ("stacked_discounts", "2", 2),
        ("renewal_days", "0", 0),
        ("price_tiers", "False", False),
        ("price_tiers", True, True),
        ("reporting_timezone", "America/New_York", "America/New_York"),
        ("as_of", "", ""),
        ("as_of", "2026-11-30", "2026-11-30 00:00:00"),
        ("as_of", "2026-11-30 12:00:00+02:00", "2026-11-30 10:00:00"),
        ("source_dataset_name", "other", "other"),
    ],
)
def test_texts_become_the_type_of_the_variable(name: str, given: Any, taken: Any) -> None:
    checked = check_variables({name: given})

    assert checked == {name: taken}
    assert type(checked[name]) is type(taken)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("discounts", "coupons"),
        ("churn_timing", ""),
        ("stacked_discounts", "0"),
        ("stacked_discounts", "two"),
        ("renewal_days", "-1"),
        ("renewal_days", "1.5"),
        ("price_tiers", "maybe"),
        ("reporting_timezone", "Mars/Olympus"),
        ("reporting_timezone", "../UTC"),
        ("as_of", "yesterday"),
    ],
)
def test_a_value_that_a_variable_does_not_take_is_refused(name: str, given: str) -> None:
    with pytest.raises(UsageError, match=f"variable {name} does not take"):
        check_variables({name: given})


def test_the_defaults_are_values_that_the_variables_take() -> None:
    defaults = load_project().variables

    assert check_variables(defaults) == defaults


def test_the_page_names_each_choice() -> None:
    page = (Path(__file__).parent.parent / "docs" / "models.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}

    for name, choices in VARIABLE_CHOICES.items():
        assert all(f"`{choice}`" in rows[name] for choice in choices), name
