"""Where the tools of an agent work: a copy, its feed, and the account at Stripe."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ..destination.duckdb_file import duckdb_path
from ..destination.pipeline import dlt_settings, open_pipeline
from ..destination.place import DEFAULT_DATASET
from ..destination.read import CopyReader, open_reader
from ..errors import SetupError
from ..feed.feed import Feed, open_feed
from ..write.actions import Actions

WAIT = 5.0  # seconds while a sync has the file open


@dataclass(slots=True)
class AgentContext:
    """A copy, and the actions on its account. One tool at a time opens the copy."""

    open_actions: Callable[[], Actions] = field(repr=False)
    database: str | None = None
    destination: str | None = None
    dataset: str = DEFAULT_DATASET
    state_dir: str | None = None
    triggers: str = "triggers.toml"
    _opened: Actions | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def actions(self) -> Actions:
        """The actions, opened when they are first used: reading the copy needs no key."""
        with self._lock:
            if self._opened is None:
                self._opened = self.open_actions()
            return self._opened

    def close(self) -> None:
        """Close what is open."""
        if self._opened is not None:
            self._opened.close()

    @contextmanager
    def copy(self) -> Iterator[CopyReader]:
        """The copy, for reading."""
        with (
            self._lock,
            open_reader(self.database, self.destination, self.dataset, WAIT) as reader,
        ):
            yield reader

    @contextmanager
    def feed(self) -> Iterator[Feed]:
        """The feed of the copy. Raises `SetupError` if there is no copy."""
        with self._lock, dlt_settings(), open_feed(self._existing_pipeline()) as opened:
            yield opened

    def _existing_pipeline(self) -> Any:
        pipeline = open_pipeline(self.database, self.destination, self.dataset, self.state_dir)
        file = duckdb_path(pipeline)
        if file is not None and not file.is_file():
            raise SetupError(f"There is no file {file.name} yet. Run `stripe-feed sync` first.")
        return pipeline
