"""Scripts and consoles: as they are, and as pages."""

import hashlib
from functools import lru_cache
from pathlib import Path

import trio
from starlette.requests import Request
from starlette.responses import Response

from builder_web import console_index, derived
from builder_web.console_index import ConsoleIndex
from builder_web.pages import console, models
from builder_web.store.records import Build
from builder_web.views import answers, presenting
from builder_web.views.answers import NotFound
from builder_web.views.finding import build_of, number_of
from builder_web.views.remembering import remembered
from builder_web.views.site import site_of

LINES = 2000
"""Lines of a console on a page."""

_MATCHES = 500
_MAX_SCRIPT = 1024 * 1024
_MAX_QUERY = 200
_MOST = 10**9
_TEXT = "text/plain; charset=utf-8"
_GONE = "The {} of this build is no longer on the disk of this site."


async def script(request: Request) -> Response:
    """Answer with the script."""
    site, found = site_of(request), await build_of(request)
    try:
        path = site.directory.below(found.script)
        etag = await trio.to_thread.run_sync(_digest, path)
    except OSError as error:
        raise NotFound(_GONE.format("script"), job=found.job) from error
    return answers.file(request, path, media_type=_TEXT, etag=etag)


async def console_text(request: Request) -> Response:
    """Answer with the console."""
    site, found = site_of(request), await build_of(request)
    try:
        path = site.directory.below(found.console)
        index = await derived.console_of(site.store, site.directory, found)
    except OSError as error:
        raise NotFound(_GONE.format("console"), job=found.job) from error
    return answers.file(request, path, media_type=_TEXT, etag=index.digest.hex())


def _digest(path: Path) -> str:
    """Return the SHA-256 of a script, which never changes: it is read once for as long as it is asked for. Raises OSError."""
    status = path.stat()
    return _digest_of(path, status.st_ino, status.st_mtime_ns)


@lru_cache(maxsize=4096)
def _digest_of(path: Path, _number: int, _modified: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@remembered
async def script_page(request: Request) -> Response:
    """Answer with the script as a page."""
    site, found = site_of(request), await build_of(request)
    try:
        path = site.directory.below(found.script)
        data, size = await trio.to_thread.run_sync(_read_begin, path)
    except OSError as error:
        raise NotFound(_GONE.format("script"), job=found.job) from error
    text = data.decode("utf-8", "replace")
    return presenting.show(
        request, models.ScriptPage(build=presenting.summary(found), text=text, size=size, cut=len(data) < size)
    )


@remembered
async def console_page(request: Request) -> Response:
    """Answer with a part of the console as a page: its end, from a line on, or the lines with a text."""
    site, found = site_of(request), await build_of(request)
    try:
        path = site.directory.below(found.console)
        index = await derived.console_of(site.store, site.directory, found)
        query = request.query_params.get("q", "")[:_MAX_QUERY]
        if query:
            return await _search(request, found, path, index, query)
        last = max(1, index.lines - LINES + 1)
        first = min(number_of(request, "line", last, most=_MOST) or 1, max(1, index.lines))
        part = await trio.to_thread.run_sync(lambda: index.read(path, first=first, count=LINES))
    except OSError as error:
        raise NotFound(_GONE.format("console"), job=found.job) from error
    lines = await trio.to_thread.run_sync(lambda: console.to_lines(part.content, first=first, style=part.style))
    return presenting.show(
        request,
        models.ConsolePage(
            build=presenting.summary(found), lines=lines, total=index.lines, size=index.size, count=LINES
        ),
    )


async def _search(request: Request, found: Build, path: Path, index: ConsoleIndex, query: str) -> Response:
    first = number_of(request, "start", 1, most=_MOST) or 1
    matches, rest = await trio.to_thread.run_sync(
        lambda: console_index.search(path, index, query.encode(), first=first, count=_MATCHES)
    )
    lines = tuple(
        line
        for one in matches
        for line in console.to_lines(one.content[:_MAX_SCRIPT], first=one.number, style=one.style)
    )
    page = models.ConsolePage(
        build=presenting.summary(found),
        lines=lines,
        total=index.lines,
        size=index.size,
        count=_MATCHES,
        query=query,
        more=rest is not None,
    )
    return presenting.show(request, page)


def _read_begin(path: Path) -> tuple[bytes, int]:
    with path.open("rb") as file:
        data = file.read(_MAX_SCRIPT)
        return data, path.stat().st_size
