"""The sandbox as tests and the demo use it: an account, its simulation, and the server that shows
it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from . import control
from .http import endpoints
from .http.server import serve_in_thread
from .protocol.messages import Answer, Request
from .simulation import Simulation


class Sandbox(Simulation):
    """One account of a look-alike of Stripe, served over HTTP."""

    @contextmanager
    def serve(self, port: int = 0) -> Iterator[str]:
        """Serve over HTTP on loopback in a thread, and give the base URL. Raises what `on_request`
        raised.

        Webhooks are sent at any time; those still undelivered at the end count as failed.
        """
        try:
            with serve_in_thread(self.account, self.answer, port) as url:
                yield url
        finally:
            self.account.webhooks.sender.close()
        if self.account.failures:
            raise self.account.failures.pop(0)

    def answer(self, request: Request) -> Answer:
        """Answer one request, as the server does."""
        if request.target.startswith("/_sandbox/"):
            return control.answer_control(self, request)
        with self.account.lock:
            try:
                return endpoints.answer_request(self.account, request)
            except Exception as error:
                self.account.failures.append(error)
                return Answer(
                    500,
                    b'{"error":{"message":"the sandbox itself failed","type":"sandbox_error"}}',
                    {},
                )
