"""A line of the log for each request: in the form ``json`` each of its parts is a field."""

import logging
import time
from collections import Counter

from attrs import define, field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from builder.model import printable
from builder.runtime.histogram import Histogram

log = logging.getLogger(__name__)

_LONGEST = 500
"""Characters of a target or a user agent that are logged."""


@define(eq=False)
class Answered:
    """What was answered since the start: requests by their status, 0 for those without an answer, bytes, and seconds."""

    by_status: Counter[int] = field(factory=Counter)
    size: int = 0
    took: Histogram = field(factory=Histogram)

    def add(self, status: int, size: int, seconds: float) -> None:
        """Count one more."""
        self.by_status[status] += 1
        self.size += size
        self.took.add(seconds)


class AccessLog:
    """Logs what an application answers, whether it came to the end of it or not, and counts it."""

    def __init__(self, application: ASGIApp, answered: Answered) -> None:
        self._application = application
        self._answered = answered

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
            took = time.monotonic() - began
            self._answered.add(status, size, took)
            fields = {
                "address": (scope.get("client") or ("",))[0],
                "method": scope["method"],
                "path": _shown(scope["raw_path"] + (b"?" + scope["query_string"] if scope["query_string"] else b"")),
                "status": status,
                "bytes": size,
                "ms": round(1000 * took),
                "agent": _shown(dict(scope["headers"]).get(b"user-agent", b"")),
            }
            log.info(
                '%(address)s %(method)s %(path)s %(status)d %(bytes)d B %(ms)d ms "%(agent)s"',
                fields,
                extra={"fields": fields},
            )


def _shown(value: bytes) -> str:
    return printable(value[:_LONGEST])
