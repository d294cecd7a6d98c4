"""What a session has to do: the cases that its tests ask for, for fixtures that work ahead."""

from __future__ import annotations

from typing import Any

import pytest


def chosen(request: pytest.FixtureRequest, name: str) -> list[Any]:
    """The values of a parameter in the tests of this module that are run, each once."""
    found: dict[Any, None] = {}
    for item in request.session.items:
        values = getattr(getattr(item, "callspec", None), "params", {})
        if item.path == request.path and name in values:
            found[values[name]] = None
    return list(found)
