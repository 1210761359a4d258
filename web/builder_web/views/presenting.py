"""Pages made of what the store says."""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from builder_web.store.builds import Output
from builder_web.store.records import Build, Job

FEW = 5


def jobs(request: Request, found: Sequence[Job], failed: Sequence[Build]) -> Response:
    return HTMLResponse("")


def failed_builds(request: Request, found: Sequence[Build], *, platform: str | None, start: int, count: int) -> Response:
    return HTMLResponse("")


async def job(request: Request, outputs: Sequence[Output], failed: Sequence[Build], *, with_failed: bool) -> Response:
    return HTMLResponse("")


async def build(request: Request, found: Build) -> Response:
    return HTMLResponse("")


def error(request: Request, status: int, detail: str) -> Response:
    return HTMLResponse(detail, status_code=status)
