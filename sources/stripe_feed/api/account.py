"""Whose objects a key reads. Apart from the client, since what reads a copy needs no SDK."""

from __future__ import annotations

import msgspec


class Account(msgspec.Struct, frozen=True):
    """The account of the requests. `created` is 0 when the key may not read the account."""

    id: str
    livemode: bool
    created: int = 0
