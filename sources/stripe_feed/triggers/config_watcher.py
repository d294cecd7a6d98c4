"""A file of triggers that is followed: read again when it changed; where it is wrong, the rules of
before stay.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from ..delivery.endpoint import Endpoint
from ..errors import StripeFeedError
from .config import read_triggers
from .trigger import Trigger

log = logging.getLogger("stripe_feed")


class Watched:
    """The triggers of a file as it was last right; `triggers` is one list for all who look at it."""

    def __init__(self, triggers: Sequence[Trigger], path: Path | None = None) -> None:
        self.triggers, self.path = list(triggers), path
        self._seen = self._stamp()

    def changed(self) -> bool:
        """Read the file again where it changed; whether `triggers` are new."""
        stamp = self._stamp()
        if self.path is None or stamp is None or stamp == self._seen:
            return False
        self._seen = stamp
        try:
            found = read_triggers(self.path)
            for one in found:
                Endpoint(one.name, one.deliver, lambda: 0.0).close()  # its secrets are set
        except StripeFeedError as fault:
            log.warning(
                "%s changed, and is wrong: the rules of before stay. %s", self.path.name, fault
            )
            return False
        self.triggers[:] = found
        log.warning("%s changed: %d triggers are in force now.", self.path.name, len(found))
        return True

    def _stamp(self) -> tuple[int, int, int] | None:
        """What tells one state of the file from another; nothing where there is none."""
        try:
            found = self.path.stat() if self.path is not None else None
        except OSError:
            return None
        return None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino)
