"""File locks, and waiting for their holder."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TextIO, TypeVar

from ..errors import Locked, SetupError

T = TypeVar("T")
log = logging.getLogger("stripe_feed")

POLL_INTERVAL = 0.2  # seconds between two attempts to take a lock
DEFAULT_WAIT = 30.0  # seconds that a command waits for another one
SHORT_WAIT = 5.0  # the same if the command can continue without the lock
WAIT_HINT = "sync and reconcile can wait for it with --wait SECONDS."
IS_WRITING = f"is writing to this copy. Run again when it is done; {WAIT_HINT}"


def retry_while_locked(work: Callable[[], T], wait: float) -> T:
    """Repeat the work while it raises `Locked`. Raises it after `wait` seconds."""
    waited = 0.0
    while True:
        try:
            return work()
        except Locked as fault:
            if waited >= wait:
                raise
            if not waited:
                log.info("Waiting for up to %g s: %s.", wait, str(fault).partition(". ")[0])
            pause()
            waited += POLL_INTERVAL


def pause() -> None:
    """Wait for the holder of a lock."""
    time.sleep(POLL_INTERVAL)


@contextmanager
def lock_file(
    path: Path,
    command: str,
    wait: float = 0.0,
    activity: str = IS_WRITING,
    advice: str = "Choose another --state-dir.",
) -> Iterator[None]:
    """Hold a file lock. Raises `Locked`, with the holder and its `activity`, after `wait` seconds.

    `advice`: what to do if the file cannot be created.
    """
    is_held = False
    while not is_held:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except OSError as fault:
            raise SetupError(
                f"{path.parent} cannot be written ({fault.strerror}). {advice}"
            ) from None
        with open(descriptor, "r+", encoding="utf-8") as file:
            retry_while_locked(partial(_acquire, file, activity), wait)
            is_held = _is_at(path, file)
            if is_held:
                file.seek(0)
                file.truncate()
                json.dump({"pid": os.getpid(), "command": command}, file)
                file.flush()
                yield


def _is_at(path: Path, file: TextIO) -> bool:
    """Whether an open file still has its name: whoever held the lock may have removed it."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False


def _acquire(file: TextIO, activity: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise Locked(f"{_describe_holder(file.read())} {activity}") from None


def _describe_holder(text: str) -> str:
    try:
        holder = json.loads(text)
        who = f"`{holder['command']}` (process {holder['pid']})"
    except (ValueError, KeyError, TypeError):
        who = "another command"
    return who
