"""Answers: JSON, plain text, files, redirects."""

import re
from email.utils import formatdate
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response

_ETAGS = re.compile(r'(?:W/)?"([^"]*)"|([^\s,"]+)')

_SHOWN = ("text/", "image/", "application/json", "application/javascript", "application/xml", "application/xhtml+xml")
"""What a browser shows in a sandbox. All else is offered for saving: its viewers, such as that of PDF, fail in there."""

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


def http_date(seconds: float) -> str:
    """Return a time since 1970 as headers have it."""
    return formatdate(seconds, usegmt=True)


def is_known(request: Request, etag: str, modified: str) -> bool:
    """Return whether the peer has what bears that tag, or the time, if it says none.

    The original's tags are not quoted: both forms are taken. A peer repeats the time that it was told, so another one,
    be it a later one, is that of another content.
    """
    if tags := request.headers.getlist("if-none-match"):
        return any(value.strip() == "*" or any(etag in found for found in _ETAGS.findall(value)) for value in tags)
    return request.headers.get("if-modified-since") == modified


def file(request: Request, path: Path, *, media_type: str, etag: str, policy: str = SANDBOX) -> Response:
    """Return a file, or the parts that are asked for, or that the peer has it already. Raises NotFound."""
    try:
        status = path.stat()
    except OSError as error:
        raise NotFound("The file is no longer on the disk of this site.") from error
    headers = {
        "etag": etag,
        "last-modified": http_date(status.st_mtime),
        "content-type": media_type,
        "x-content-type-options": "nosniff",
        "content-security-policy": policy,
        "cache-control": "no-cache",
    }
    if is_known(request, etag, headers["last-modified"]):
        return Response(status_code=304, headers=headers)
    if not media_type.startswith(_SHOWN):
        headers["content-disposition"] = "attachment"
    return FileResponse(path, headers=headers, stat_result=status)
