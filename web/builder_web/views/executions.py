"""Whole builds go out: as an upload, or as an archive of their files."""

from collections.abc import Iterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from builder_web import stored
from builder_web.store import builds
from builder_web.views.finding import build_of
from builder_web.views.site import site_of


async def execution(request: Request) -> Response:
    """Answer with the build as the body of an upload."""
    site, found = site_of(request), await build_of(request)
    uploaded = await site.store.ask(builds.uploaded, found)
    return _stream(stored.execution_pieces(site.directory, found, uploaded), "application/octet-stream")


async def archive(request: Request) -> Response:
    """Answer with the artifacts of a build as an archive."""
    site, found = site_of(request), await build_of(request)
    files = await site.store.ask(builds.artifacts, found.id)
    return _stream(stored.archive_pieces(site.directory, found, files), "application/gzip")


def _stream(pieces: Iterator[bytes], media_type: str) -> Response:
    return StreamingResponse(pieces, media_type=media_type)
