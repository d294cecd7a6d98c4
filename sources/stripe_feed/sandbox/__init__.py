"""A stateful look-alike of Stripe over real HTTP, with its own event history, for the demo and the
tests.

It imports nothing of the rest of the package, so it is an independent witness of how Stripe
behaves.
"""

from .sandbox import Sandbox

__all__ = ["Sandbox"]
