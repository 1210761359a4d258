"""Views whose answers are kept, with tags by which peers need not fetch them twice."""

import functools
import hashlib
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response

from builder_web.views import answers
from builder_web.views.site import site_of

_MINUTE_MS = 60_000

View = Callable[[Request], Awaitable[Response]]


def remembered(view: View) -> View:
    """Make a view whose answers depend on the address, the form that is asked for, the database and the minute."""

    @functools.wraps(view)
    async def answer(request: Request) -> Response:
        site = site_of(request)
        form = "json" if answers.wants_json(request) else "html"
        key = (request.url.path, request.url.query, form, request.url.scheme, request.headers.get("host", ""))
        state = (site.store.state(), site.now().ms // _MINUTE_MS)

        async def make() -> Response:
            made = await view(request)
            made.headers["etag"] = f'W/"{hashlib.sha256(made.body).hexdigest()[:32]}"'
            before = site.kept.last(key)
            same = before is not None and before.headers.get("etag") == made.headers["etag"]
            made.headers["last-modified"] = (
                before.headers["last-modified"] if before and same else answers.http_date(site.now().ms / 1000)
            )
            made.headers["cache-control"] = "no-cache"
            made.headers["vary"] = "accept"
            return made

        found = await site.kept.get(key, state, make)
        if request.method in ("GET", "HEAD") and _is_known(request, found):
            kept = {name: found.headers[name] for name in ("etag", "last-modified", "cache-control", "vary")}
            return Response(status_code=304, headers=kept)
        return found

    return answer


def _is_known(request: Request, found: Response) -> bool:
    etag = found.headers["etag"].removeprefix("W/").strip('"')
    return found.status_code == 200 and answers.is_known(request, etag, found.headers["last-modified"])
