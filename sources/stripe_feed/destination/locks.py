"""Locks that are files, and the patience with whoever holds one."""

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

PAUSE = 0.2  # seconds between two looks whether a lock is free
PATIENCE = 30.0  # seconds that a command waits for another one, unless it is told otherwise
MOMENT = 5.0  # the same, for who can go on without
CAN_WAIT = "sync and reconcile can wait for it with --wait SECONDS."
WRITES = f"is writing to this copy. Run again when it is done; {CAN_WAIT}"


def patiently(work: Callable[[], T], wait: float) -> T:
    """Do work that can be repeated until no other process is in the way. Raises `Locked` after
    `wait` seconds.
    """
    waited = 0.0
    while True:
        try:
            return work()
        except Locked as fault:
            if waited >= wait:
                raise
            if not waited:
                log.info("Waiting for up to %g s: %s.", wait, str(fault).partition(". ")[0])
            rest()
            waited += PAUSE


def rest() -> None:
    """Let whoever is in the way go on."""
    time.sleep(PAUSE)


@contextmanager
def lock_file(
    path: Path,
    what: str,
    wait: float = 0.0,
    does: str = WRITES,
    instead: str = "Choose another --state-dir.",
) -> Iterator[None]:
    """Hold the lock that a file is. Raises `Locked` that names the holder, and what it `does`,
    after `wait` seconds.

    `instead`: what to do where the file cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except OSError as fault:
        raise SetupError(f"{path.parent} cannot be written ({fault.strerror}). {instead}") from None
    with open(opened, "r+", encoding="utf-8") as file:
        patiently(partial(_take, file, does), wait)
        file.seek(0)
        file.truncate()
        json.dump({"pid": os.getpid(), "command": what}, file)
        file.flush()
        yield


def _take(file: TextIO, does: str) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        raise Locked(f"{_holder(file.read())} {does}") from None


def _holder(text: str) -> str:
    try:
        held = json.loads(text)
        who = f"`{held['command']}` (process {held['pid']})"
    except (ValueError, KeyError, TypeError):
        who = "another command"
    return who
