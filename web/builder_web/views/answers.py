"""Answers: JSON, plain text, files, redirects."""

import re
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response

_ETAGS = re.compile(r'(?:W/)?"([^"]*)"|([^\s,"]+)')


SANDBOX = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'none'"
"""The Content-Security-Policy of what was uploaded: a document has an origin of its own, and neither runs nor loads anything."""


class NotFound(Exception):
    """There is nothing at that address: the text says what is missing, and what to do next, as a sentence or two."""

    def __init__(self, detail: str = "There is no page at this address.", *, job: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.job = job
        """Where to go on, if it exists."""


class Refused(Exception):
    """A request that can't be answered: its status, and the reason as text."""

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.headers = headers


def wants_json(request: Request) -> bool:
    """Return whether the peer takes JSON; like the original's, whatever else it takes."""
    return any("application/json" in value for value in request.headers.getlist("accept"))


def json(value: Any) -> Response:
    """Return a value as JSON."""
    return JSONResponse(value)


def text(status: int, line: str, headers: dict[str, str] | None = None) -> Response:
    """Return a line of plain text."""
    content = f"{line}\n".encode("utf-8", "backslashreplace")  # a name need not be UTF-8
    return PlainTextResponse(content, status_code=status, headers=headers)


def redirect(location: str, status: int) -> Response:
    """Return a redirect to an address that is encoded already."""
    return Response(status_code=status, headers={"location": location})


def is_known(request: Request, etag: str) -> bool:
    """Return whether the peer has what bears that tag. The original's tags are not quoted: both forms are taken."""
    for value in request.headers.getlist("if-none-match"):
        if value.strip() == "*" or any(etag in found for found in _ETAGS.findall(value)):
            return True
    return False


def file(request: Request, path: Path, *, media_type: str, etag: str) -> Response:
    """Return a file, or the parts that are asked for, or that the peer has it already."""
    headers = {
        "etag": etag,
        "content-type": media_type,
        "x-content-type-options": "nosniff",
        "content-security-policy": SANDBOX,
        "cache-control": "no-cache",
    }
    if is_known(request, etag):
        return Response(status_code=304, headers=headers)
    if not path.is_file():
        raise NotFound("The file is no longer on the disk of this site.")
    return FileResponse(path, headers=headers)
