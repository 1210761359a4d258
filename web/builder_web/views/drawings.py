"""The dependency graph and the treemap of a build."""

import hashlib

import trio
from starlette.requests import Request
from starlette.responses import Response

from builder_web import drawings
from builder_web.charts.chart import Chart
from builder_web.drawings import GRAPH, TREEMAP, Kind
from builder_web.pages import models
from builder_web.store import builds
from builder_web.store.records import Build
from builder_web.views import answers, presenting
from builder_web.views.answers import NotFound
from builder_web.views.finding import build_of
from builder_web.views.remembering import remembered
from builder_web.views.site import site_of

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; sandbox allow-scripts"
)
"""For documents that hooks have made, which have styles and scripts of their own: in an origin of their own."""


_SOURCES = {GRAPH: "opam-switch", TREEMAP: "file with symbols (.debug)"}


async def graph_document(request: Request) -> Response:
    """Answer with the dependency graph alone."""
    return await _document(request, GRAPH)


async def treemap_document(request: Request) -> Response:
    """Answer with the treemap alone."""
    return await _document(request, TREEMAP)


@remembered
async def graph_page(request: Request) -> Response:
    """Answer with the dependency graph as a page."""
    found = await build_of(request)
    chart = await _chart(request, found, GRAPH)
    return presenting.show(request, models.Graph(build=presenting.summary(found), chart=chart))


@remembered
async def treemap_page(request: Request) -> Response:
    """Answer with the treemap as a page."""
    found = await build_of(request)
    chart = await _chart(request, found, TREEMAP)
    return presenting.show(request, models.Treemap(build=presenting.summary(found), chart=chart))


async def _document(request: Request, kind: Kind) -> Response:
    site, found = site_of(request), await build_of(request)
    source = kind.source(await site.store.ask(builds.artifacts, found.id))
    if source is None:
        raise NotFound(f"This build has no {_SOURCES[kind]}, of which the drawing is made.", job=found.job)
    path = await trio.to_thread.run_sync(lambda: drawings.make(site.directory, kind, source, job=found.job))
    if path is None:
        raise NotFound(f"The {_SOURCES[kind]} of this build can't be read, so there is nothing to draw.", job=found.job)
    content = await trio.to_thread.run_sync(path.read_bytes)
    etag = hashlib.sha256(content).hexdigest()
    return answers.file(request, path, media_type="text/html; charset=utf-8", etag=etag, policy=_POLICY)


async def _chart(request: Request, found: Build, kind: Kind) -> Chart | None:
    """Return our own drawing, None where another program's document is shown. Raises NotFound."""
    site = site_of(request)
    source = kind.source(await site.store.ask(builds.artifacts, found.id))
    if source is None:
        raise NotFound(f"This build has no {_SOURCES[kind]}, of which the drawing is made.", job=found.job)
    kept = await trio.to_thread.run_sync(drawings.find, site.directory, kind, source)
    if kept is not None and not drawings.is_ours(kept[1]):
        return None
    chart = await trio.to_thread.run_sync(lambda: drawings.draw(site.directory, kind, source, job=found.job))
    if chart is None:
        raise NotFound(f"The {_SOURCES[kind]} of this build can't be read, so there is nothing to draw.", job=found.job)
    return chart
