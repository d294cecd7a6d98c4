"""The values that the variables of the models take."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timezone
from typing import Any
from zoneinfo import ZoneInfo

from ..api.iso_time import parse_time
from ..errors import UsageError

VARIABLE_CHOICES: dict[str, tuple[str, ...]] = {
    "discounts": ("forever", "recurring", "all", "none"),
    "churn_timing": ("period_end", "cancel"),
    "paused_collection": ("counted", "excluded"),
    "metered": ("excluded", "last_invoice"),
    "payer_trials": ("excluded", "counted"),
}
_LEAST = {"stacked_discounts": 1, "renewal_days": 0}
_BOOLEANS = {"true": True, "false": False}


def check_variables(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables with texts converted to the type of each. Other names pass as they are.
    Raises `UsageError` for a value that a variable does not take.
    """
    return {name: _check_value(name, value) for name, value in variables.items()}


def _check_value(name: str, value: Any) -> Any:
    text = str(value)
    if name in VARIABLE_CHOICES:
        if text not in VARIABLE_CHOICES[name]:
            raise _refusal(name, text, f"Choose from: {', '.join(VARIABLE_CHOICES[name])}.")
    elif name in _LEAST:
        if not (text.isascii() and text.isdigit()) or int(text) < _LEAST[name]:
            raise _refusal(name, text, f"Give a whole number from {_LEAST[name]} on.")
        return int(text)
    elif name == "price_tiers":
        if text.lower() not in _BOOLEANS:
            raise _refusal(name, text, "Choose from: true, false.")
        return _BOOLEANS[text.lower()]
    elif name == "reporting_timezone":
        try:
            ZoneInfo(text)
        except (KeyError, ValueError, OSError):
            raise _refusal(name, text, "Give a name such as Europe/Berlin.") from None
    elif name == "as_of" and text:
        try:
            moment = parse_time(text)
        except ValueError:
            raise _refusal(name, text, "Give a UTC time such as 2026-11-30 12:00:00.") from None
        if moment.tzinfo:
            moment = moment.astimezone(timezone.utc).replace(tzinfo=None)
        return str(moment)
    return value


def _refusal(name: str, text: str, fix: str) -> UsageError:
    return UsageError(f"The variable {name} does not take {text!r}. {fix}")
