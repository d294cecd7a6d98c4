"""The public surface: few names, loaded when used."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from inspect import ismodule

import pytest

import stripe_feed


def test_all_equals_the_public_names() -> None:
    names = [
        getattr(stripe_feed, name) and name for name in stripe_feed.__all__
    ]  # all loaded, so that vars has them
    own = {
        name
        for name, value in vars(stripe_feed).items()
        if not name.startswith("_") and not ismodule(value)
    }

    assert sorted(names) == sorted(own - {"TYPE_CHECKING", "annotations"} | {"__version__"})


@pytest.mark.parametrize("name", stripe_feed.__all__)
def test_a_public_name_resolves_and_is_listed(name: str) -> None:
    assert getattr(stripe_feed, name)
    assert name in dir(stripe_feed)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'stripe_feed' has no attribute 'nothing'"):
        stripe_feed.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_the_version_is_the_distribution_s() -> None:
    assert stripe_feed.__version__ == metadata.version("stripe-feed")


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, stripe_feed; print(*{'dlt', 'duckdb', 'pyarrow', 'stripe', 'typer'} & set(sys.modules))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == []
