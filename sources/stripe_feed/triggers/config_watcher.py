"""Watch a triggers file: reload it when it changes; if it has errors, keep the triggers in force."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..delivery.transports import Endpoint
from ..errors import StripeFeedError
from ..wording import counted
from .config import read_triggers
from .models.model_trigger import AnyTrigger

log = logging.getLogger("stripe_feed")

_RARE = {"rare": True}  # one line for each edit, so none is held back as a repetition


class ConfigWatcher:
    """The triggers of the last valid version of a file; `triggers` is one list, updated in place."""

    def __init__(self, triggers: Sequence[AnyTrigger], path: Path | None = None) -> None:
        self.triggers, self.path = list(triggers), path
        self._seen = self._stamp()

    def reload(self) -> bool:
        """Reload the file if it changed; return whether `triggers` were updated."""
        stamp = self._stamp()
        if self.path is None or stamp is None or stamp == self._seen:
            return False
        self._seen = stamp
        try:
            triggers = read_triggers(self.path)
            for trigger in triggers:
                Endpoint(
                    trigger.name, trigger.deliver, lambda: 0.0
                ).close()  # check that its secrets are set
        except StripeFeedError as fault:
            log.warning(
                "%s changed but has errors, so the triggers stay as they were. %s",
                self.path.name,
                fault,
                extra=_RARE,
            )
            return False
        self.triggers[:] = triggers
        log.warning(
            "%s changed: %s in force now.",
            self.path.name,
            counted(len(triggers), "trigger"),
            extra=_RARE,
        )
        return True

    def _stamp(self) -> tuple[tuple[int, int, int], ...] | None:
        """What differs between two versions of the file, or of the SQL beside it; None if there is no
        file.
        """
        if self.path is None:
            return None
        try:
            stats = [self.path.stat()]
        except OSError:
            return None
        for file in sorted(self.path.parent.glob("*.sql")):
            with suppress(OSError):
                stats.append(file.stat())
        return tuple((one.st_mtime_ns, one.st_size, one.st_ino) for one in stats)
