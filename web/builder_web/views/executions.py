"""Whole builds go out: as an upload, or as an archive of their files."""

from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from builder_web import stored
from builder_web.store import builds
from builder_web.store.records import Build
from builder_web.views import answers
from builder_web.views.finding import build_of
from builder_web.views.site import site_of


async def execution(request: Request) -> Response:
    """Answer with the build as the body of an upload."""
    site, found = site_of(request), await build_of(request)
    uploaded = await site.store.ask(builds.uploaded, found)
    pieces = stored.execution_pieces(site.directory, found, uploaded)
    return _stream(request, found, pieces, "application/octet-stream")


async def archive(request: Request) -> Response:
    """Answer with the artifacts of a build as an archive."""
    site, found = site_of(request), await build_of(request)
    files = await site.store.ask(builds.artifacts, found.id)
    return _stream(request, found, stored.archive_pieces(site.directory, found, files), "application/gzip")


def _stream(request: Request, build: Build, pieces: Iterator[bytes], media_type: str) -> Response:
    headers = {"etag": f'"{build.id}-{build.uuid}"', "cache-control": "no-cache", "x-content-type-options": "nosniff"}
    if answers.is_known(request, headers["etag"].strip('"')):
        return Response(status_code=304, headers=headers)
    if request.method == "HEAD":  # no file needs to be read for it
        pieces = iter(())
    return StreamingResponse(pieces, media_type=media_type, headers=headers)
