"""The dependency graph and the treemap of a build."""

import hashlib
import logging
from collections.abc import Sequence

import trio
from starlette.requests import Request
from starlette.responses import Response

from builder_web import drawings
from builder_web.drawings import GRAPH, TREEMAP, DrawingKind
from builder_web.pages import models
from builder_web.store import builds
from builder_web.store.records import StoredArtifact
from builder_web.views import answers
from builder_web.views.answers import NotFound
from builder_web.views.finding import build_of
from builder_web.views.site import Site, site_of

log = logging.getLogger(__name__)

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'; "
    "sandbox allow-scripts"
)
"""For documents that hooks have made, which have styles and scripts of their own: in an origin of their own."""

_SOURCES = {GRAPH: "opam-switch", TREEMAP: "file with symbols (.debug)"}


async def graph_document(request: Request) -> Response:
    """Answer with the dependency graph alone."""
    return await _document(request, GRAPH)


async def treemap_document(request: Request) -> Response:
    """Answer with the treemap alone."""
    return await _document(request, TREEMAP)


async def _document(request: Request, kind: DrawingKind) -> Response:
    site, found = site_of(request), await build_of(request)
    source = kind.source(await site.store.ask(builds.artifacts, found.id))
    if source is None:
        raise NotFound(f"This build has no {_SOURCES[kind]}, of which the drawing is made.", job=found.job)
    kept = await trio.to_thread.run_sync(drawings.make, site.directory, kind, source)
    if kept is None:
        raise NotFound(f"The {_SOURCES[kind]} of this build can't be read, so there is nothing to draw.", job=found.job)
    etag = hashlib.sha256(await trio.to_thread.run_sync(kept.path.read_bytes)).hexdigest()
    return answers.file(request, kept.path, media_type="text/html; charset=utf-8", etag=etag, policy=_POLICY)


async def drawing(site: Site, kind: DrawingKind, files: Sequence[StoredArtifact]) -> models.Drawing | None:
    """Return a drawing as the page of a build shows it; None where there is nothing to draw."""
    source = kind.source(files)
    if source is None:
        return None
    try:
        kept = await trio.to_thread.run_sync(drawings.make, site.directory, kind, source)
        if kept is None:
            return None
        return models.Drawing(figure_html=await trio.to_thread.run_sync(kept.figure) if kept.is_ours else None)
    except OSError as error:
        log.error("the %s of %s can't be drawn: %s", kind.name, source.path, error)
        return None
