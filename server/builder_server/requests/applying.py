"""Requests about the schedule as a whole."""

from builder.extension.applying import Apply, JobsListed, ListJobs, TryApply
from builder.model import Instant
from builder_server.errors import about_job
from builder_server.names import known
from builder_server.requests import Asked, Handlers
from builder_server.requests.schedule import check_change, check_plan
from builder_server.store import Timing


async def list_jobs(asked: Asked, request: ListJobs) -> None:
    """Tell a page of jobs."""
    if request.after is not None:
        known(request.after, f"unknown job {request.after}")

    async def make() -> JobsListed:
        return JobsListed(jobs=await asked.store.jobs(request.after))

    await asked.channel.send_reply(make, is_large=True)


async def apply(asked: Asked, request: Apply) -> None:
    """Change the schedule, all of it or nothing, or try whether that can be done."""
    now = asked.now()
    # in a thread, and before anybody has to wait for the database: of thousands of rules it takes seconds
    timings = await asked.channel.in_turn(lambda: _planned(request, now))
    await asked.store.apply(request, timings, now, keep=not isinstance(request, TryApply))


def _planned(request: Apply, now: Instant) -> dict[str, Timing]:
    """Return when the jobs of a request run. Raises CommandRefused, InvalidName or InvalidOptions."""
    for each in request.removed:
        known(each.name, f"unknown job {each.name}")
    timings: dict[str, Timing] = {}
    for change in request.changed:
        with about_job(change.name):
            check_change(change)
            timings[change.name] = Timing.of(change.options, change.name, now)
    for plan in request.added:
        with about_job(plan.job.name):
            check_plan(plan)
            timings[plan.job.name] = Timing.of(plan.options, plan.job.name, now)
    return timings


HANDLERS: Handlers = {ListJobs: list_jobs, Apply: apply, TryApply: apply}
"""What answers them."""
