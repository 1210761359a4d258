"""Requests about the schedule as a whole."""

import hashlib

from builder.extension.applying import Apply, JobsListed, ListedJob, ListedScript, ListJobs
from builder.model import ScriptJob
from builder_server.names import known
from builder_server.requests import Asked, Handlers
from builder_server.requests.schedule import check_change, check_plan
from builder_server.store import PlannedJob


async def list_jobs(asked: Asked, request: ListJobs) -> None:
    """Tell a page of jobs."""
    found = await asked.store.jobs(request.after)
    await asked.channel.send(JobsListed(jobs=tuple(map(_listed, found))))


def _listed(found: PlannedJob) -> ListedJob:
    job = found.job
    if isinstance(job, ScriptJob):
        sha256 = hashlib.sha256(job.script).digest()
        return ListedJob(
            job=ListedScript(name=job.name, platform=job.platform, sha256=sha256),
            options=found.options,
            revision=found.revision,
        )
    return ListedJob(job=job, options=found.options, revision=found.revision)


async def apply(asked: Asked, request: Apply) -> None:
    """Change the schedule, all of it or nothing."""
    for each in request.removed:
        known(each.name, f"unknown job {each.name}")
    for change in request.changed:
        check_change(change)
    for plan in request.added:
        check_plan(plan)
    await asked.store.apply(request, asked.now())


HANDLERS: Handlers = {ListJobs: list_jobs, Apply: apply}
"""What answers them."""
