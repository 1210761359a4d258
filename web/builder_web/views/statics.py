"""What is the same for everyone: the style, the crawlers' rules, the sign of life."""

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from builder.runtime.database import StoreError
from builder_web.pages.statics import STATIC_FILES
from builder_web.store import jobs
from builder_web.views import answers
from builder_web.views.answers import NotFound
from builder_web.views.remembering import remembered
from builder_web.views.site import site_of

_ROBOTS = """User-agent: *
Disallow: {prefix}/job/*/build/*/f/
Disallow: {prefix}/job/*/build/*/exec
Disallow: {prefix}/job/*/build/*/all.tar.gz
Disallow: {prefix}/compare/
"""
_YEAR = 31_536_000


@remembered
async def robots(request: Request) -> Response:
    """Answer with what crawlers should leave alone: comparisons are as many as pairs of builds."""
    content = _ROBOTS.format(prefix=site_of(request).links.prefix)
    return PlainTextResponse(content, headers={"x-content-type-options": "nosniff"})


async def static(request: Request) -> Response:
    """Answer with a file of the style; its address changes with its content."""
    file = STATIC_FILES.get(request.path_params["name"])
    if file is None:
        raise NotFound
    headers = {
        "content-type": file.media_type,
        "cache-control": f"public, max-age={_YEAR}, immutable",
        "etag": f'"{file.digest}"',
        "last-modified": answers.http_date(file.modified),
        "x-content-type-options": "nosniff",
    }
    if answers.is_known(request, file.digest, headers["last-modified"]):
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers)


async def health(request: Request) -> Response:
    """Answer whether the database can be read: for whoever watches the program."""
    try:
        await site_of(request).store.ask(jobs.exists, "")
    except StoreError as error:
        return PlainTextResponse(f"{error}\n", status_code=503)
    return PlainTextResponse("ok\n")
