"""A true, queryable copy of a Stripe account in DuckDB or any other dlt destination.

The names below are imported when they are first used: `import stripe_feed` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = [
    "Change", "Feed", "StripeFeedError", "__version__", "deliver", "open_feed", "process_once", "read_triggers", "stripe_source",
    "trigger",
]

if TYPE_CHECKING:
    from .errors import StripeFeedError
    from .extract.source import stripe_source
    from .feed.change import Change
    from .feed.consume import Feed, open_feed
    from .feed.deliver import deliver
    from .feed.once import process_once
    from .feed.rule_file import read_triggers
    from .feed.rule_file import trigger_of as trigger

    __version__: str
else:  # hidden from type checkers, which would otherwise take every misspelt name for an object

    def __getattr__(name: str) -> object:
        match name:
            case "StripeFeedError":
                from .errors import StripeFeedError as value
            case "__version__":
                from importlib.metadata import version

                value = version("stripe-feed")
            case "Change":
                from .feed.change import Change as value
            case "Feed":
                from .feed.consume import Feed as value
            case "deliver":
                from .feed.deliver import deliver as value
            case "open_feed":
                from .feed.consume import open_feed as value
            case "process_once":
                from .feed.once import process_once as value
            case "read_triggers":
                from .feed.rule_file import read_triggers as value
            case "stripe_source":
                from .extract.source import stripe_source as value
            case "trigger":
                from .feed.rule_file import trigger_of as value
            case _:
                raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
