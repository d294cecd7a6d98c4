"""A true, queryable copy of a Stripe account in DuckDB or any other dlt destination.

The names below are imported when they are first used: `import stripe_feed` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = [
    "TABLES",
    "ActionResult",
    "Actions",
    "Change",
    "Copy",
    "Feed",
    "PartlyDone",
    "StripeFeedError",
    "__version__",
    "build_copy_models",
    "connected_accounts",
    "deliver",
    "delta",
    "iceberg",
    "open_actions",
    "open_copy",
    "open_feed",
    "open_pipeline",
    "open_push",
    "process_once",
    "read_triggers",
    "run_sandbox",
    "stripe_objects",
    "stripe_source",
    "sync",
    "sync_accounts",
    "sync_shared",
    "trigger",
    "verify",
]

if TYPE_CHECKING:
    from .accounts_run import connected_accounts, sync_accounts
    from .cli.demo import run_sandbox
    from .destination.lake.factory import delta, iceberg
    from .destination.pipeline import open_pipeline
    from .errors import PartlyDone, StripeFeedError
    from .extract.source import stripe_source
    from .feed.change import Change
    from .feed.feed import Feed, open_feed
    from .feed.process_once import process_once
    from .models.copies import build_copy_models
    from .models.copy_data import Copy, open_copy
    from .resources import TABLES
    from .shared_run import sync_shared
    from .sync_run import sync
    from .triggers.config import parse_trigger as trigger
    from .triggers.config import read_triggers
    from .triggers.run import deliver
    from .verify_run import verify
    from .write.actions import Actions, open_actions
    from .write.push.run import open_push
    from .write.push_destination import stripe_objects
    from .write.result import ActionResult

    __version__: str
else:  # hidden from type checkers, which would otherwise take every misspelt name for an object
    _HOMES = {
        "ActionResult": ".write.result:ActionResult",
        "Actions": ".write.actions:Actions",
        "Change": ".feed.change:Change",
        "Copy": ".models.copy_data:Copy",
        "Feed": ".feed.feed:Feed",
        "PartlyDone": ".errors:PartlyDone",
        "StripeFeedError": ".errors:StripeFeedError",
        "TABLES": ".resources:TABLES",
        "build_copy_models": ".models.copies:build_copy_models",
        "connected_accounts": ".accounts_run:connected_accounts",
        "delta": ".destination.lake.factory:delta",
        "iceberg": ".destination.lake.factory:iceberg",
        "deliver": ".triggers.run:deliver",
        "open_actions": ".write.actions:open_actions",
        "open_copy": ".models.copy_data:open_copy",
        "open_feed": ".feed.feed:open_feed",
        "open_pipeline": ".destination.pipeline:open_pipeline",
        "open_push": ".write.push.run:open_push",
        "process_once": ".feed.process_once:process_once",
        "read_triggers": ".triggers.config:read_triggers",
        "run_sandbox": ".cli.demo:run_sandbox",
        "stripe_objects": ".write.push_destination:stripe_objects",
        "stripe_source": ".extract.source:stripe_source",
        "sync": ".sync_run:sync",
        "sync_accounts": ".accounts_run:sync_accounts",
        "sync_shared": ".shared_run:sync_shared",
        "trigger": ".triggers.config:parse_trigger",
        "verify": ".verify_run:verify",
    }

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from importlib.metadata import version

            value = version("stripe-feed")
        elif name in _HOMES:
            from importlib import import_module

            module, _, attribute = _HOMES[name].partition(":")
            value = getattr(import_module(module, __name__), attribute)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
