"""What is the same for everyone: the style, the crawlers' rules, the sign of life."""

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from builder.runtime.database import StoreError
from builder_web.pages.statics import STATIC_FILES
from builder_web.store import jobs
from builder_web.views import answers
from builder_web.views.answers import NotFound
from builder_web.views.site import site_of

_ROBOTS = """User-agent: *
Disallow: /job/*/build/*/f/
Disallow: /job/*/build/*/exec
Disallow: /job/*/build/*/all.tar.gz
Disallow: /compare/
"""
_YEAR = 31_536_000


async def robots(_request: Request) -> Response:
    """Answer with what crawlers should leave alone: comparisons are as many as pairs of builds."""
    return PlainTextResponse(_ROBOTS)


async def static(request: Request) -> Response:
    """Answer with a file of the style; its address changes with its content."""
    file = STATIC_FILES.get(request.path_params["name"])
    if file is None:
        raise NotFound
    headers = {
        "content-type": file.media_type,
        "cache-control": f"public, max-age={_YEAR}, immutable",
        "etag": f'"{file.digest}"',
        "x-content-type-options": "nosniff",
    }
    if answers.is_known(request, file.digest):
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers)


async def health(request: Request) -> Response:
    """Answer whether the database can be read: for whoever watches the program."""
    try:
        await site_of(request).store.ask(jobs.exists, "")
    except StoreError as error:
        return PlainTextResponse(f"{error}\n", status_code=503)
    return PlainTextResponse("ok\n")
