"""What can go wrong, grouped by what the user should do about it.

    StripeFeedError                exit 1   unexpected: report it
        RequestRefused             exit 1   Stripe understood the request and refuses it
            NotFound                        no such object
            CursorGone                      the id to page from was deleted meanwhile
        UsageError                 exit 2   change the command
            InvalidParameter                a parameter of an action cannot be what it is
        SetupError                 exit 3   fix the key, a permission, the configuration or the destination
            NotReadable                     Stripe does not give one list; the others can be read
                PermissionMissing           a restricted key may not read it
                NotSetUp                    the account does not use that product of Stripe
            NoAccess                        the key has no access to an account
            WrongAccount                    the dataset holds another account or mode
            Locked                          another process writes to this pipeline, or has the file open
            OffsetOutOfRange                a consumer is behind the oldest change that is kept
            Fenced                          another process took over this consumer
        PartlyDone                 exit 4   the rest is loaded; see which resources were left out
        CopyDiffers                exit 4   the copy differs from the account: reconcile
        TryLater                   exit 5   Stripe or the destination is out of reach, or limits: run again
            RateLimited
            Unreachable
            OutcomeUnknown                  a write that Stripe may have carried out, or not

Messages say what, where and what to do next. They never hold a key, an e-mail address, a name or a
body. Stripe's own error sentences can: only actions quote them, with every value that was sent replaced
by the name of its field.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question that offers the names nearest to a mistyped one, with a space behind it; empty if
    none is near.
    """
    near = get_close_matches(name.lower()[:100], list(known), n=3, cutoff=0.7)
    return f"Did you mean {' or '.join(near)}? " if near else ""


class StripeFeedError(Exception):
    """Something went wrong; `exit_code` is what the command line ends with."""

    exit_code = 1


class RequestRefused(StripeFeedError):
    """Stripe answered 400, 402 or 404; `code`, `param` and `decline_code` are Stripe's."""

    def __init__(
        self,
        message: str,
        code: str | None = None,
        param: str | None = None,
        request_id: str | None = None,
        decline_code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.param = param
        self.request_id = request_id
        self.decline_code = decline_code


class NotFound(RequestRefused):
    """The object does not exist (any more)."""


class CursorGone(RequestRefused):
    """`starting_after` or `ending_before` names an object that no longer matches: continue from a
    timestamp.
    """


class UsageError(StripeFeedError):
    """The call or command makes no sense as given."""

    exit_code = 2


class InvalidParameter(UsageError):
    """What an action is given cannot be sent; `param` is the field."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class SetupError(StripeFeedError):
    """A key, a setting or the destination must be fixed before anything can be read or written."""

    exit_code = 3


class Locked(SetupError):
    """Another process writes to this pipeline, or has the destination's file open."""


class NotReadable(SetupError):
    """Stripe refuses one list: it is left out, and the others are read."""


class PermissionMissing(NotReadable):
    """The restricted key lacks `permission`, named as Stripe names it (`rak_customer_write`)."""

    def __init__(
        self, message: str, permission: str | None = None, account_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.permission = permission
        self.account_id = account_id


class NotSetUp(NotReadable):
    """The account is not set up for a product of Stripe, or does not know its list."""


class NoAccess(SetupError):
    """The key has no access to the account, or no longer."""


class WrongAccount(SetupError):
    """The dataset belongs to another Stripe account or to the other mode."""


class OffsetOutOfRange(SetupError):
    """Changes after the consumer's position were pruned: choose where it continues."""


class Fenced(SetupError):
    """Another process took over the consumer's name: this one can no longer acknowledge."""


class CopyDiffers(StripeFeedError):
    """The copy differs from the account."""

    exit_code = 4


class PartlyDone(StripeFeedError):
    """Some resources were left out; everything else is loaded."""

    exit_code = 4


class TryLater(StripeFeedError):
    """Nothing to fix: Stripe or the destination did not answer in time, or a temporary obstacle was
    in the way.
    """

    exit_code = 5


class RateLimited(TryLater):
    """Stripe answered 429 for longer than the request may take."""


class Unreachable(TryLater):
    """No complete answer within the time allowed: network trouble, 5xx answers or broken bodies."""


class OutcomeUnknown(TryLater):
    """A write was sent and no definite answer came: Stripe may have carried it out, or not.

    A repetition with the same `idempotency_key` and equal parameters takes effect once.
    """

    def __init__(
        self, message: str, idempotency_key: str | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.idempotency_key = idempotency_key
        self.request_id = request_id
