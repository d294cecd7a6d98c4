"""Record the health of endpoints across runs: failing since when, paused until when, and why
disabled.
"""

from __future__ import annotations

import logging
import sqlite3

from ..feed.storage.store import FeedStore
from .outbox import CLOCK_SKEW, are_several_failing
from .transports import RETRY_AFTER_SECONDS, AttemptResult

log = logging.getLogger("stripe_feed")

DISABLE_AFTER_SECONDS = 120 * 3_600  # seconds of nothing but failures
MAX_GAP = 36 * 3_600  # between two failures at most: of a longer time nothing is known


def disabled_endpoints(store: FeedStore) -> dict[str, str]:
    """Return why endpoints are disabled, by trigger."""
    return dict(store.query("select name, disabled from triggers where disabled is not null"))


def pauses(store: FeedStore, now: float) -> dict[str, float]:
    """Return until when endpoints asked to be left alone, by trigger. Ignores times recorded by a
    clock that was ahead.
    """
    rows = store.query(
        "select name, paused_until, failed_at from triggers where paused_until > ?", now
    )
    latest = now + RETRY_AFTER_SECONDS + CLOCK_SKEW
    return {
        name: until
        for name, until, failed in rows
        if until <= latest and (failed or 0.0) <= now + CLOCK_SKEW
    }


def record_success(db: sqlite3.Connection, trigger: str) -> None:
    """Record that an endpoint accepted a message."""
    db.execute(
        "update triggers set failing_since = null, failed_at = null where name = ? and failing_since is not null",
        (trigger,),
    )


def record_failure(
    db: sqlite3.Connection, trigger: str, now: float, outcome: AttemptResult
) -> tuple[float | None, str | None]:
    """Record that an endpoint failed; return until when it asked for a pause, and why it is now
    disabled, if it is.

    It is disabled if it answers 410 Gone, or if for days only failures came, from several objects,
    with attempts all the while.
    """
    rows = db.execute(
        "select failing_since, failed_at from triggers where name = ?", (trigger,)
    ).fetchall()
    since, before = rows[0] if rows else (None, None)
    until = now + outcome.retry_after if outcome.throttled and outcome.retry_after else None
    if since is None:
        log.warning(
            "The endpoint of trigger %s fails (%s); deliveries are retried at growing intervals.",
            trigger,
            f"{outcome.code}: {outcome.note}" if outcome.note else outcome.code,
        )
    if since is None or not -CLOCK_SKEW <= now - (since if before is None else before) <= MAX_GAP:
        since = now
    why = "it answers 410 Gone" if outcome.gone else None
    if (
        why is None
        and now - since >= DISABLE_AFTER_SECONDS
        and are_several_failing(db, trigger, since)
    ):
        why = f"it has only failed for {DISABLE_AFTER_SECONDS // 3_600} hours"
    db.execute(
        "update triggers set failing_since = ?, failed_at = ?, "
        "paused_until = coalesce(?, paused_until), disabled = coalesce(?, disabled) where name = ?",
        (since, now, until, why, trigger),
    )
    if why is not None:
        log.warning(
            "The endpoint of trigger %s is disabled: %s. `stripe-feed triggers release %s` enables it again.",
            trigger,
            why,
            trigger,
        )
    return until, why
