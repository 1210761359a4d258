"""A line of the log for each request: in the form ``json`` each of its parts is a field."""

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from builder.model import printable

log = logging.getLogger(__name__)

_LONGEST = 500
"""Characters of a target or a user agent that are logged."""


class AccessLog:
    """Logs what an application answers, whether it came to the end of it or not."""

    def __init__(self, application: ASGIApp) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        began = time.monotonic()
        status, size = 0, 0

        async def counting(message: Message) -> None:
            nonlocal status, size
            await send(message)
            if message["type"] == "http.response.start":
                status = message["status"]
            elif scope["method"] != "HEAD":
                size += len(message.get("body", b""))

        try:
            await self._application(scope, receive, counting)
        finally:
            fields = {
                "address": (scope.get("client") or ("",))[0],
                "method": scope["method"],
                "path": _shown(scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")),
                "status": status,
                "bytes": size,
                "ms": round(1000 * (time.monotonic() - began)),
                "agent": _shown(dict(scope["headers"]).get(b"user-agent", b"")),
            }
            log.info(
                '%(address)s %(method)s %(path)s %(status)d %(bytes)d B %(ms)d ms "%(agent)s"',
                fields,
                extra={"fields": fields},
            )


def _shown(value: bytes) -> str:
    return printable(value[:_LONGEST])
