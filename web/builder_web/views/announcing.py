"""What other pages and programs show of a site: feeds and badges."""

from starlette.requests import Request
from starlette.responses import Response

from builder.model import Instant
from builder_web import pages
from builder_web.charts.badge import reproducibility_badge, status_badge
from builder_web.pages import models
from builder_web.store import builds
from builder_web.views import presenting
from builder_web.views.finding import check_job, platform_of
from builder_web.views.remembering import remembered
from builder_web.views.site import site_of

_ENTRIES = 50
_HEADERS = {"x-content-type-options": "nosniff"}


@remembered
async def feed(request: Request) -> Response:
    """Answer with a feed of builds."""
    return await _feed(request, failures=False)


@remembered
async def failures(request: Request) -> Response:
    """Answer with a feed of failed builds."""
    return await _feed(request, failures=True)


async def _feed(request: Request, *, failures: bool) -> Response:
    site, platform = site_of(request), platform_of(request)
    name = request.path_params.get("job")
    if name is not None:
        await check_job(request, name)
    found = await site.store.ask(builds.lately, job_name=name, platform=platform, only_failed=failures, count=_ENTRIES)
    page = models.Feed(
        job=name,
        platform=platform,
        failures=failures,
        updated=max((build.finished for build in found), default=Instant(0)),
        builds=tuple(map(presenting.summary, found)),
    )
    return Response(
        pages.render_feed(page, links=presenting.links(request)),
        media_type="application/atom+xml; charset=utf-8",
        headers=_HEADERS,
    )


@remembered
async def status(request: Request) -> Response:
    """Answer with a badge that says how the newest build of a job went."""
    site, name, platform = site_of(request), request.path_params["job"], platform_of(request)
    newest = await site.store.ask(builds.newest, name, platform, 1)
    succeeded = newest[0].main_binary is not None if newest else None
    return _badge(status_badge(name, succeeded, platform=platform))


@remembered
async def reproducibility(request: Request) -> Response:
    """Answer with a badge that says how often the newest output of a job came out again."""
    site, name, platform = site_of(request), request.path_params["job"], platform_of(request)
    newest = await site.store.ask(builds.latest, name, platform)
    alike = await site.store.ask(builds.alike, newest, count=0) if newest is not None else None
    reproduced: int | None = None
    if alike is not None:
        reproduced = 0 if alike.different_builds else alike.same_builds or None
    return _badge(reproducibility_badge(name, reproduced, platform=platform))


def _badge(svg: str) -> Response:
    return Response(svg, media_type="image/svg+xml", headers=_HEADERS)
