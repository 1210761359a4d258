"""Requests about the schedule as a whole."""

from builder.extension.applying import Apply, JobsListed, ListJobs, TryApply
from builder_server.errors import about_job
from builder_server.names import known
from builder_server.requests import Asked, Handlers
from builder_server.requests.schedule import check_change, check_plan


async def list_jobs(asked: Asked, request: ListJobs) -> None:
    """Tell a page of jobs."""
    if request.after is not None:
        known(request.after, f"unknown job {request.after}")

    async def make() -> JobsListed:
        return JobsListed(jobs=await asked.store.jobs(request.after))

    await asked.channel.send_reply(make)


async def apply(asked: Asked, request: Apply) -> None:
    """Change the schedule, all of it or nothing, or try whether that can be done."""
    for each in request.removed:
        known(each.name, f"unknown job {each.name}")
    for change in request.changed:
        with about_job(change.name):
            check_change(change)
    for plan in request.added:
        with about_job(plan.job.name):
            check_plan(plan)
    await asked.store.apply(request, asked.now(), keep=not isinstance(request, TryApply))


HANDLERS: Handlers = {ListJobs: list_jobs, Apply: apply, TryApply: apply}
"""What answers them."""
