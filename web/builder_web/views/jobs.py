"""Lists of jobs and builds."""

import datetime as dt
from collections.abc import Sequence

import trio
from starlette.requests import Request
from starlette.responses import Response

from builder_web.pages import markdown, models, parts
from builder_web.store import builds, jobs
from builder_web.store.builds import Entry
from builder_web.store.records import Job
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
_MOST_STATES = 200
"""Rows of the last builds on the first page: with more of them it would be slow to make, and to load."""

LATELY = dt.timedelta(days=7)
"""For how long a failure is news."""


@remembered
async def main(request: Request) -> Response:
    """Answer with the jobs that were built successfully of late."""
    site = site_of(request)
    found = [job for job in await site.store.ask(jobs.all_jobs) if _is_recent(site, job)]
    expired = site.options.expired_after
    return await _list(request, found, expired_days=expired.days if expired else 0)


@remembered
async def all_builds(request: Request) -> Response:
    """Answer with all jobs that were ever built successfully."""
    found = await site_of(request).store.ask(jobs.all_jobs)
    return await _list(request, [job for job in found if any(one.build for one in job.newest)], expired_days=None)


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
    page = models.FailedBuilds(
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


async def _list(request: Request, found: list[Job], *, expired_days: int | None) -> Response:
    if answers.wants_json(request):
        return answers.json(data.of_jobs(found))
    site = site_of(request)
    lately, failed = await site.store.ask(builds.failed_since, site.now().plus(-LATELY), count=presenting.FEW)
    failures = tuple(map(presenting.summary, lately))
    past: presenting.Pasts = {}
    if sum(len(job.newest) for job in found) <= _MOST_STATES:
        past = await site.store.ask(builds.past, [job.name for job in found], count=presenting.ROW + 1)
    sections = presenting.sections(found, past)
    if expired_days is None:
        return presenting.show(request, models.AllBuilds(sections=sections, failures=failures, failed=failed))
    page = models.Main(sections=sections, failures=failures, failed=failed, expired_days=expired_days)
    return presenting.show(request, page)


async def _job(request: Request, *, with_failed: bool) -> Response:
    site, name, platform = site_of(request), request.path_params["job"], platform_of(request)
    await check_job(request, name)
    found = await site.store.ask(builds.entries, name, platform, with_failed=with_failed)
    if answers.wants_json(request):
        return answers.json(data.of_builds([entry.build for entry in await _entries(site, found)]))
    start = number_of(request, "start", 0, most=_MOST_START)
    count = number_of(request, "count", JOB_PAGE, most=_MOST) or JOB_PAGE
    tags = await site.store.ask(jobs.tags, name)
    platforms = await site.store.ask(jobs.platforms, name)
    newest = {
        one: await site.store.ask(builds.newest, name, one, presenting.ROW + 1)
        for one in (platforms if platform is None else [platform])[:_MOST_ROWS]
    }
    readme = tags.get(jobs.README)
    page = models.Job(
        name=name,
        synopsis=tags.get(jobs.SYNOPSIS),
        readme_html=await trio.to_thread.run_sync(markdown.to_html, readme) if readme else None,
        platform=platform,
        with_failed=with_failed,
        platforms=tuple(platforms),
        entries=await _entries(site, found[start : start + count]),
        paging=parts.Paging(start=start, count=count, total=len(found), more=len(found) > start + count),
        histories=presenting.histories(newest),
        charts=await trio.to_thread.run_sync(presenting.charts, newest),
    )
    return presenting.show(request, page)


async def _entries(site: Site, found: Sequence[Entry]) -> tuple[models.JobEntry, ...]:
    known = await site.store.ask(builds.find_all, [one.build_id for one in found])
    return tuple(
        models.JobEntry(build=presenting.summary(known[one.build_id]), alike=one.alike)
        for one in found
        if one.build_id in known
    )


def _is_recent(site: Site, job: Job) -> bool:
    finished = [one.build.finished for one in job.newest if one.build]
    if site.options.expired_after is None or not finished:
        return bool(finished)
    return max(finished) >= site.now().plus(-site.options.expired_after)
