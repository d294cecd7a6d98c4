"""How receivers stand, from one run to the next: since when one only fails, until when it asked for
quiet, why it is given up.
"""

from __future__ import annotations

import logging
import sqlite3

from ..feed.storage.store import FeedStore
from .outbox import AHEAD, are_several_failing
from .transports import RETRY_AFTER_SECONDS, Outcome

log = logging.getLogger("stripe_feed")

DISABLE_AFTER = 120 * 3_600  # seconds of nothing but failures
APART = 36 * 3_600  # between two failures at most: of a longer time nothing is known


def disabled(store: FeedStore) -> dict[str, str]:
    """Why the receivers of triggers are given up."""
    return dict(store.query("select name, disabled from triggers where disabled is not null"))


def pauses(store: FeedStore, now: float) -> dict[str, float]:
    """Until when receivers asked for quiet. What a clock noted that was ahead does not count."""
    rows = store.query(
        "select name, paused_until, failed_at from triggers where paused_until > ?", now
    )
    latest = now + RETRY_AFTER_SECONDS + AHEAD
    return {
        name: until
        for name, until, failed in rows
        if until <= latest and (failed or 0.0) <= now + AHEAD
    }


def succeeded(db: sqlite3.Connection, trigger: str) -> None:
    """Note that a receiver took a message."""
    db.execute(
        "update triggers set failing_since = null, failed_at = null where name = ? and failing_since is not null",
        (trigger,),
    )


def failed(
    db: sqlite3.Connection, trigger: str, now: float, outcome: Outcome
) -> tuple[float | None, str | None]:
    """Note that a receiver failed; return until when it is left alone, if it asked for that, and
    why it is given up, if it is.

    It is given up where it is gone, and where it only failed for days, for several objects, and was
    tried all the while.
    """
    rows = db.execute(
        "select failing_since, failed_at from triggers where name = ?", (trigger,)
    ).fetchall()
    since, before = rows[0] if rows else (None, None)
    until = now + outcome.retry_after if outcome.throttled and outcome.retry_after else None
    if since is None:
        log.warning(
            "The receiver of the trigger %s fails (%s); it is tried again, ever more rarely.",
            trigger,
            outcome.code,
        )
    if since is None or not -AHEAD <= now - (since if before is None else before) <= APART:
        since = now
    why = "it answers 410 Gone" if outcome.gone else None
    if why is None and now - since >= DISABLE_AFTER and are_several_failing(db, trigger, since):
        why = f"it has only failed for {DISABLE_AFTER // 3_600} hours"
    db.execute(
        "update triggers set failing_since = ?, failed_at = ?, "
        "paused_until = coalesce(?, paused_until), disabled = coalesce(?, disabled) where name = ?",
        (since, now, until, why, trigger),
    )
    if why is not None:
        log.warning(
            "The receiver of the trigger %s is disabled: %s. `stripe-feed triggers release %s` tries it again.",
            trigger,
            why,
            trigger,
        )
    return until, why
