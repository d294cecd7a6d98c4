"""A stateful look-alike of Stripe over real HTTP, with its own history: for the demo and the tests.

It imports nothing of ours, so that it is an independent witness of what Stripe does.
"""

from .sandbox import Sandbox

__all__ = ["Sandbox"]
