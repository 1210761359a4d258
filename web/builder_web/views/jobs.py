"""Lists of jobs and builds."""

from starlette.requests import Request
from starlette.responses import Response

from builder_web.store import builds, jobs
from builder_web.store.records import Build, Job
from builder_web.views import answers, data, presenting
from builder_web.views.answers import NotFound
from builder_web.views.finding import number_of, platform_of
from builder_web.views.site import Site, site_of

FAILED_PAGE = 20
_MOST = 1000


async def main(request: Request) -> Response:
    """Answer with the jobs that were built successfully of late."""
    site = site_of(request)
    return await _list(request, [job for job in await site.store.ask(jobs.all_jobs) if _is_recent(site, job)])


async def all_builds(request: Request) -> Response:
    """Answer with all jobs that were ever built successfully."""
    found = await site_of(request).store.ask(jobs.all_jobs)
    return await _list(request, [job for job in found if any(one.build for one in job.newest)])


async def job(request: Request) -> Response:
    """Answer with the builds of a job by their outputs."""
    return await _job(request, with_failed=False)


async def job_failed(request: Request) -> Response:
    """Answer with the builds of a job by their outputs, and those that failed."""
    return await _job(request, with_failed=True)


async def failed_builds(request: Request) -> Response:
    """Answer with the newest failed builds of all jobs."""
    site, platform = site_of(request), platform_of(request)
    start = number_of(request, "start", 0, most=10**9)
    count = number_of(request, "count", FAILED_PAGE, most=_MOST) or FAILED_PAGE
    found = await site.store.ask(builds.failed, platform=platform, start=start, count=count + 1)
    return presenting.failed_builds(request, found, platform=platform, start=start, count=count)


async def by_hash(request: Request) -> Response:
    """Redirect to the newest build that has an artifact with that SHA-256."""
    site = site_of(request)
    try:
        digest = bytes.fromhex(request.query_params.get("sha256", ""))
    except ValueError:
        raise NotFound from None
    found = await site.store.ask(builds.with_content, digest, count=1)
    if not found:
        raise NotFound
    build, _ = found[0]
    return answers.redirect(site.links.build(build.job, build.uuid), 302)


async def latest(request: Request) -> Response:
    """Redirect to the newest successful build of a job, or what is below it."""
    site = site_of(request)
    found = await site.store.ask(builds.latest, request.path_params["job"], platform_of(request))
    if found is None:
        raise NotFound
    rest = request.path_params.get("rest", "")
    address = site.links.build(found.job, found.uuid)
    return answers.redirect(address + site.links.below(rest), 307)


async def _list(request: Request, found: list[Job]) -> Response:
    if answers.wants_json(request):
        return answers.json(data.of_jobs(found))
    failed = await site_of(request).store.ask(builds.failed, platform=None, start=0, count=presenting.FEW)
    return presenting.jobs(request, found, failed)


async def _job(request: Request, *, with_failed: bool) -> Response:
    site, name, platform = site_of(request), request.path_params["job"], platform_of(request)
    if not await site.store.ask(jobs.exists, name):
        raise NotFound
    outputs = await site.store.ask(builds.outputs, name, platform)
    failed = await site.store.ask(builds.failures, name, platform) if with_failed else []
    if answers.wants_json(request):
        merged = [output.newest for output in outputs] + failed
        return answers.json(data.of_builds(sorted(merged, key=_newest_first, reverse=True)))
    return await presenting.job(request, outputs, failed, with_failed=with_failed)


def _newest_first(build: Build) -> tuple[int, int]:
    return build.started.ms, build.id


def _is_recent(site: Site, job: Job) -> bool:
    finished = [one.build.finished for one in job.newest if one.build]
    if site.options.expired_after is None or not finished:
        return bool(finished)
    return max(finished) >= site.now().plus(-site.options.expired_after)


