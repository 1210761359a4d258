"""Scripts and consoles as pages."""

from pathlib import Path

import trio
from starlette.requests import Request
from starlette.responses import Response

from builder_web import console_index
from builder_web.console_index import ConsoleIndex
from builder_web.pages import console, models
from builder_web.store import consoles
from builder_web.store.records import Build
from builder_web.views import presenting
from builder_web.views.answers import NotFound
from builder_web.views.finding import build_of, number_of
from builder_web.views.site import Site, site_of

LINES = 2000
"""Lines of a console on a page."""

_MATCHES = 500
_MAX_SCRIPT = 1024 * 1024
_MAX_QUERY = 200
_MOST = 10**9


async def script_page(request: Request) -> Response:
    """Answer with the script as a page."""
    site, found = site_of(request), await build_of(request)
    try:
        path = site.directory.below(found.script)
        data, size = await trio.to_thread.run_sync(_read_begin, path)
    except OSError as error:
        raise NotFound from error
    text = data.decode("utf-8", "replace")
    return presenting.show(
        request, models.Script(build=presenting.summary(found), text=text, size=size, cut=len(data) < size)
    )


async def console_page(request: Request) -> Response:
    """Answer with a part of the console as a page: its end, from a line on, or the lines with a text."""
    site, found = site_of(request), await build_of(request)
    try:
        path = site.directory.below(found.console)
        index = await _index(site, found, path)
        query = request.query_params.get("q", "")[:_MAX_QUERY]
        if query:
            return await _search(request, found, path, index, query)
        last = max(1, index.lines - LINES + 1)
        first = min(number_of(request, "line", last, most=_MOST) or 1, max(1, index.lines))
        data = await trio.to_thread.run_sync(lambda: index.read(path, first=first, count=LINES))
    except OSError as error:
        raise NotFound from error
    lines = await trio.to_thread.run_sync(lambda: console.to_lines(data, first=first))
    return presenting.show(
        request,
        models.Console(build=presenting.summary(found), lines=lines, total=index.lines, size=index.size, count=LINES),
    )


async def _search(request: Request, found: Build, path: Path, index: ConsoleIndex, query: str) -> Response:
    first = number_of(request, "start", 1, most=_MOST) or 1
    matches, rest = await trio.to_thread.run_sync(
        lambda: console_index.search(path, index, query.encode(), first=first, count=_MATCHES)
    )
    lines = tuple(line for one in matches for line in console.to_lines(one.content[:_MAX_SCRIPT], first=one.number))
    page = models.Console(
        build=presenting.summary(found),
        lines=lines,
        total=index.lines,
        size=index.size,
        count=_MATCHES,
        query=query,
        more=rest is not None,
    )
    return presenting.show(request, page)


async def _index(site: Site, found: Build, path: Path) -> ConsoleIndex:
    kept = await site.store.ask(consoles.find, found.id)
    if kept is not None:
        return kept
    index = await trio.to_thread.run_sync(ConsoleIndex.of, path)
    await site.store.database.write(lambda connection: consoles.keep(connection, found.id, index))
    return index


def _read_begin(path: Path) -> tuple[bytes, int]:
    with path.open("rb") as file:
        data = file.read(_MAX_SCRIPT)
        return data, path.stat().st_size
