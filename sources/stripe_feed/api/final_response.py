"""Read the response to a request when informational ones come before it."""

from __future__ import annotations

from http import HTTPStatus
from http.client import HTTPResponse


class FinalResponse(HTTPResponse):
    """The response after informational ones (1xx), of which http.client skips only 100
    (https://www.rfc-editor.org/rfc/rfc9110#section-15.2).
    """

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        return (
            version,
            HTTPStatus.CONTINUE
            if 100 < status < 200 and status != HTTPStatus.SWITCHING_PROTOCOLS
            else status,
            reason,
        )
