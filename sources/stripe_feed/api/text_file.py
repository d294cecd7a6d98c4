"""Read text files that users write: settings, rules, one object, one query."""

from __future__ import annotations

import errno
from pathlib import Path

MAX_BYTES = 10_000_000


def read_text_file(path: str | Path, encoding: str = "utf-8") -> str:
    """Return the text of a file, with any ends of lines as newlines. Raises `OSError` for more than
    `MAX_BYTES`, of which a device has no end, and `ValueError` for another encoding.
    """
    with Path(path).open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise OSError(errno.EFBIG, "File too large", str(path))
    return content.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
