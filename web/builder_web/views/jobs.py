"""Lists of jobs and builds."""

import datetime as dt
from collections.abc import Callable

import trio
from attrs import frozen
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from builder_web.pages import markdown, models, parts
from builder_web.store import builds, jobs
from builder_web.store.builds import Entry
from builder_web.store.records import Build, Job
from builder_web.views import answers, data, presenting
from builder_web.views.answers import NotFound
from builder_web.views.finding import check_job, number_of, platform_of
from builder_web.views.remembering import remembered
from builder_web.views.site import Site, site_of

FAILED_PAGE = 20
JOB_PAGE = 50
_MOST = 1000
_MOST_START = 10**9
_MOST_ROWS = 20

LATELY = dt.timedelta(days=7)
"""For how long a failure is news."""


@remembered
async def main(request: Request) -> Response:
    """Answer with the jobs that were built successfully of late."""
    expired = site_of(request).options.expired_after
    return await _list(request, _is_recent, expired_days=expired.days if expired else 0)


@remembered
async def all_builds(request: Request) -> Response:
    """Answer with all jobs that were ever built successfully."""
    return await _list(request, _is_built, expired_days=None)


@remembered
async def job(request: Request) -> Response:
    """Answer with the builds of a job by their outputs."""
    return await _job(request, with_failed=False)


@remembered
async def job_failed(request: Request) -> Response:
    """Answer with the builds of a job by their outputs, and those that failed."""
    return await _job(request, with_failed=True)


@remembered
async def failed_builds(request: Request) -> Response:
    """Answer with the newest failed builds of all jobs."""
    site, platform = site_of(request), platform_of(request)
    start = number_of(request, "start", 0, most=_MOST_START)
    count = number_of(request, "count", FAILED_PAGE, most=_MOST) or FAILED_PAGE
    found = await site.store.ask(builds.failed, platform=platform, start=start, count=count + 1)
    page = models.FailedBuildsPage(
        builds=tuple(map(presenting.summary, found[:count])),
        platform=platform,
        platforms=tuple(await site.store.ask(jobs.failing_platforms)),
        paging=parts.Paging(start=start, count=count, more=len(found) > count),
    )
    return presenting.show(request, page)


async def latest(request: Request) -> Response:
    """Redirect to the newest successful build of a job, or what is below it."""
    site = site_of(request)
    found = await site.store.ask(builds.latest, request.path_params["job"], platform_of(request))
    if found is None:
        job, platform = request.path_params["job"], platform_of(request)
        await check_job(request, job)
        where = f" on {platform}" if platform else ""
        raise NotFound(f"No build of {job} has succeeded{where}.", job=job)
    rest = request.path_params.get("rest", "")
    address = site.links.build(found.job, found.uuid)
    return answers.redirect(address + site.links.below(rest), 307)


async def _list(request: Request, is_shown: Callable[[Site, Job], bool], *, expired_days: int | None) -> Response:
    site = site_of(request)
    if answers.wants_json(request):
        found, solo5 = await site.store.ask(
            lambda connection: (site.store.jobs.read(connection), jobs.solo5(connection))
        )
        return answers.json(data.of_jobs([job for job in found if is_shown(site, job)], solo5))

    def read(connection: Connection) -> tuple[list[Job], tuple[list[Build], int]]:
        since = site.now().plus(-LATELY)
        return site.store.jobs.read(connection), builds.failed_since(connection, since, count=presenting.FEW)

    found, (lately, failed) = await site.store.ask(read)
    found = [job for job in found if is_shown(site, job)]
    failures = tuple(map(presenting.summary, lately))
    sections = presenting.sections(found)
    if expired_days is None:
        return presenting.show(request, models.AllBuildsPage(sections=sections, failures=failures, failed=failed))
    page = models.MainPage(sections=sections, failures=failures, failed=failed, expired_days=expired_days)
    return presenting.show(request, page)


async def _job(request: Request, *, with_failed: bool) -> Response:
    site, name, platform = site_of(request), request.path_params["job"], platform_of(request)
    await check_job(request, name)
    if answers.wants_json(request):
        entries, _ = await site.store.ask(builds.entries, name, platform, with_failed=with_failed)
        return answers.json(data.of_builds([presenting.summary(entry.build) for entry in entries]))
    start = number_of(request, "start", 0, most=_MOST_START)
    count = number_of(request, "count", JOB_PAGE, most=_MOST) or JOB_PAGE

    def read(connection: Connection) -> _Job:
        entries, total = builds.entries(connection, name, platform, with_failed=with_failed, start=start, count=count)
        platforms = jobs.platforms(connection, name)
        newest = {
            one: builds.newest(connection, name, one, presenting.ROW + 1)
            for one in (platforms if platform is None else [platform])[:_MOST_ROWS]
        }
        tags = jobs.tags(connection, name)
        return _Job(entries=entries, total=total, platforms=platforms, newest=newest, tags=tags)

    found = await site.store.ask(read)
    readme = found.tags.get(jobs.README)
    page = models.JobPage(
        name=name,
        synopsis=found.tags.get(jobs.SYNOPSIS),
        readme_html=await trio.to_thread.run_sync(markdown.to_html, readme) if readme else None,
        platform=platform,
        with_failed=with_failed,
        platforms=tuple(found.platforms),
        entries=tuple(
            models.JobEntry(build=presenting.summary(entry.build), alike=entry.alike) for entry in found.entries
        ),
        paging=parts.Paging(start=start, count=count, total=found.total, more=found.total > start + count),
        histories=presenting.histories(found.newest),
        charts=await trio.to_thread.run_sync(presenting.charts, found.newest),
    )
    return presenting.show(request, page)


@frozen(kw_only=True)
class _Job:
    """What the store says of a job at one moment."""

    entries: list[Entry]
    total: int
    platforms: list[str]
    newest: dict[str, list[Build]]
    tags: dict[str, str]


def _is_built(_site: Site, job: Job) -> bool:
    return any(one.build for one in job.newest)


def _is_recent(site: Site, job: Job) -> bool:
    finished = [one.build.finished for one in job.newest if one.build]
    if site.options.expired_after is None or not finished:
        return bool(finished)
    return max(finished) >= site.now().plus(-site.options.expired_after)
