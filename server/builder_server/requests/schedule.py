"""Requests about the schedule."""

import itertools
from functools import partial

from builder.extension.schedule import ChangeJob, CheckJob, JobShown, NextRuns, PlanJob, RunsShown, ShowJob
from builder.model import Instant, Job, ScriptJob
from builder.planning import JobOptions
from builder_server.aside import SMALL
from builder_server.errors import CommandRefused
from builder_server.names import check_job_name, check_package, check_platform_name, known
from builder_server.requests import Asked, Handlers
from builder_server.store import PlannedJob


def check_job(job: Job) -> None:
    """Raise InvalidName unless a job can be in the schedule."""
    check_job_name(job.name)
    if isinstance(job, ScriptJob):
        check_platform_name(job.platform)
    else:
        check_package(job.opam_package)


def _check_options(name: str, options: JobOptions) -> None:
    options.check(name)
    for reference in options.after:
        check_job_name(reference.name)
        if reference.platform is not None:
            check_platform_name(reference.platform)


def check_plan(request: PlanJob) -> None:
    """Raise InvalidName or InvalidOptions unless such a job can be added."""
    check_job(request.job)
    _check_options(request.job.name, request.options)


def check_change(request: ChangeJob) -> None:
    """Raise CommandRefused, InvalidName or InvalidOptions unless a job can be changed so."""
    name = known(request.name, f"unknown job {request.name}")
    if request.job is not None:
        check_job(request.job)
        if request.job.name != name:
            raise CommandRefused(f"a job keeps its name: add {request.job.name} as a new one, and unschedule {name}")
    _check_options(name, request.options)


async def plan(asked: Asked, request: PlanJob) -> None:
    """Add a job."""
    check_plan(request)
    await asked.store.plan(request.job, request.options, asked.now(), run_now=request.run_now)


async def change(asked: Asked, request: ChangeJob) -> None:
    """Change a job."""
    check_change(request)
    await asked.store.change(request.name, request.revision, request.options, request.job, asked.now())


async def show(asked: Asked, request: ShowJob) -> None:
    """Tell all of a job."""
    size = await asked.store.script_size(known(request.name, f"unknown job {request.name}"))

    async def make() -> JobShown:
        found = await _find(asked, request.name)
        return JobShown(
            job=found.job,
            options=found.options,
            revision=found.revision,
            next_run=found.next_run,
            queued_on=found.queued_on,
            awaited=found.awaited,
        )

    await asked.channel.send_reply(make, is_large=size > SMALL)


async def check(asked: Asked, request: CheckJob) -> None:
    """Have a job run twice."""
    known(request.platform or "any", "execute failed: no such platform")
    name = known(request.name, "execute failed: job not found")
    await asked.store.execute(name, request.platform, asked.now(), asked.peer, is_check=True)


async def tell_runs(asked: Asked, request: NextRuns) -> None:
    """Tell when a job will run."""
    request.check()
    found = await _find(asked, request.name)
    # as long as half a second, in which nobody else would be served
    moments = await asked.channel.in_turn(partial(next_runs, found, request.count, asked.now()))
    await asked.channel.send(RunsShown(moments=moments))


def next_runs(found: PlannedJob, count: int, now: Instant) -> tuple[Instant, ...]:
    """Return the next runs of a job, the one that is planned first."""
    return tuple(itertools.islice(found.options.runs(found.job.name, found.next_run, now), count))


async def _find(asked: Asked, name: str) -> PlannedJob:
    return await asked.store.show(known(name, f"unknown job {name}"))


HANDLERS: Handlers = {PlanJob: plan, CheckJob: check, ChangeJob: change, ShowJob: show, NextRuns: tell_runs}
