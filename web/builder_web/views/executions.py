"""Whole builds go out: as an upload, or as an archive of their files."""

from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from builder_web import stored
from builder_web.store import builds
from builder_web.store.records import Build
from builder_web.views import answers
from builder_web.views.answers import NotFound
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
    etag = f"{build.id}-{build.uuid}"
    headers = {"etag": f'"{etag}"', "cache-control": "no-cache", "x-content-type-options": "nosniff"}
    try:
        headers["last-modified"] = answers.http_date(site_of(request).directory.below(build.script).stat().st_mtime)
    except OSError as error:
        raise NotFound("The script of this build is no longer on the disk of this site.", job=build.job) from error
    if answers.is_known(request, etag, headers["last-modified"]):
        return Response(status_code=304, headers=headers)
    if request.method == "HEAD":  # no file needs to be read for it
        pieces = iter(())
    return StreamingResponse(pieces, media_type=media_type, headers=headers)
