"""The site as an ASGI application: which address is answered by whom, and what is said of what can't be."""

import logging
from urllib.parse import unquote_to_bytes

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from builder.model import text
from builder.runtime.database import StoreError
from builder_web.views import (
    announcing,
    answers,
    builds,
    comparisons,
    drawings,
    executions,
    jobs,
    presenting,
    provenance,
    searching,
    statics,
    texts,
    uploads,
)
from builder_web.views.answers import NotFound, Refused
from builder_web.views.site import Site

log = logging.getLogger(__name__)

_BUILD = "/job/{job}/build/{uuid}"
_ROUTES = [
    Route("/", jobs.main),
    Route("/all-builds", jobs.all_builds),
    Route("/failed-builds", jobs.failed_builds),
    Route("/job/{job}", jobs.job),
    Route("/job/{job}/failed", jobs.job_failed),
    Route("/job/{job}/build/latest", jobs.latest),
    Route("/job/{job}/build/latest/{rest:path}", jobs.latest),
    Route(_BUILD, builds.build),
    Route(_BUILD + "/f/{path:path}", builds.artifact),
    Route(_BUILD + "/main-binary", builds.main_binary),
    Route(_BUILD + "/script", texts.script),
    Route(_BUILD + "/console", texts.console_text),
    Route(_BUILD + "/script/view", texts.script_page),
    Route(_BUILD + "/console/view", texts.console_page),
    Route(_BUILD + "/exec", executions.execution),
    Route(_BUILD + "/all.tar.gz", executions.archive),
    Route(_BUILD + "/provenance", provenance.send),
    Route(_BUILD + "/provenance", provenance.receive, methods=["POST"]),
    Route(_BUILD + "/vizdependencies", drawings.graph_document),
    Route(_BUILD + "/viztreemap", drawings.treemap_document),
    Route("/builds.atom", announcing.feed),
    Route("/failed.atom", announcing.failures),
    Route("/job/{job}/builds.atom", announcing.feed),
    Route("/job/{job}/failed.atom", announcing.failures),
    Route("/job/{job}/status.svg", announcing.status),
    Route("/job/{job}/reproducibility.svg", announcing.reproducibility),
    Route("/compare/{left}/{right}", comparisons.compare),
    Route("/hash", searching.hash_redirect),
    Route("/hash/{sha256}", searching.hash_page),
    Route("/search", searching.search),
    Route("/static/{name}", statics.static),
    Route("/healthz", statics.health),
    Route("/robots.txt", statics.robots),
    Route("/upload", uploads.upload, methods=["POST"]),
    Route("/job/{job}/platform/{platform}/upload", uploads.upload_binary, methods=["POST"]),
]


class _Paths:
    """Decodes paths once, whatever bytes they hold, and takes one slash at their end."""

    def __init__(self, application: ASGIApp) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "http":
            path = text(unquote_to_bytes(scope["raw_path"]))
            if path.endswith("/") and path != "/" and "/f/" not in path:
                path = path[:-1]
            scope = {**scope, "path": path}
        await self._application(scope, receive, send)


def make(site: Site) -> ASGIApp:
    """Return the application."""
    application = Starlette(
        routes=_ROUTES,
        exception_handlers={
            NotFound: _not_found,
            Refused: _refused,
            StoreError: _unavailable,
            HTTPException: _http_error,
            UnicodeEncodeError: _not_text,
            Exception: _fault,
        },
    )
    application.router.redirect_slashes = False
    application.state.site = site
    return _Paths(application)


async def _not_found(request: Request, error: Exception) -> Response:
    missing = error if isinstance(error, NotFound) else NotFound()
    return presenting.error(request, 404, missing.detail, job=missing.job)


async def _not_text(request: Request, error: Exception) -> Response:
    """Answer a request whose path is not UTF-8: nothing in the database has such a name."""
    if request.scope["path"].isprintable():
        return await _fault(request, error)
    return await _not_found(request, NotFound("There is nothing with that name here: it is not UTF-8."))


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return answers.text(error.status, str(error), error.headers)


async def _unavailable(_request: Request, error: Exception) -> Response:
    log.error("%s", error)
    return answers.text(503, "The database can't be used now, try again", {"retry-after": "30"})


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405 and request.method != "POST":
        return await _not_found(request, error) if request.method in {"GET", "HEAD"} else _not_allowed(error)
    if error.status_code == 404:
        return await _not_found(request, error)
    return answers.text(error.status_code, error.detail)


def _not_allowed(error: HTTPException) -> Response:
    return answers.text(405, "Method not allowed", dict(error.headers or {}))


async def _fault(_request: Request, _error: Exception) -> Response:
    """Answer; whoever serves the connection knows whether it was a fault, and says so."""
    return answers.text(500, "Internal server error")
