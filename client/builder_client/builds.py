"""Which build a user means: by a prefix of its uuid, the newest one, or the next one of a job."""

import time
from collections.abc import Callable, Iterator

from builder.messages import InfoReply
from builder.model import RunningBuild, printable

from .remote import Refused

FIRST_POLL, LAST_POLL, POLL_GROWTH = 0.05, 1.0, 1.05
"""Seconds between two looks at what runs: quick for the first ones, so that a short job is not missed, 1 after 20 s."""

MAX_CANDIDATES = 10
"""Most builds that an error names."""


def name_build(build: RunningBuild) -> str:
    """Return a build as a person reads it."""
    return f"{printable(build.job.name)} on {printable(build.job.platform)} ({build.uuid})"


def find_build(info: InfoReply, digits: str) -> RunningBuild:
    """Return the one running build whose uuid begins with ``digits``; Refused where there is none, or several."""
    found = [build for build in info.running if build.uuid.hex.startswith(digits)]
    if not found:
        raise Refused(f"no running build has a uuid that begins with {digits}")
    if len(found) > 1:
        names = ", ".join(name_build(build) for build in found[:MAX_CANDIDATES])
        more = f" and {len(found) - MAX_CANDIDATES} more" if len(found) > MAX_CANDIDATES else ""
        raise Refused(f"{digits} is ambiguous: {names}{more}")
    return found[0]


def _matching(info: InfoReply, *, job: str | None, platform: str | None) -> Iterator[RunningBuild]:
    for build in info.running:
        if job in (None, build.job.name) and platform in (None, build.job.platform):
            yield build


def newest_build(info: InfoReply, *, job: str | None, platform: str | None) -> RunningBuild:
    """Return the running build that started last, of that job and platform where they are given."""
    found = max(_matching(info, job=job, platform=platform), key=lambda build: build.started, default=None)
    if found is None:
        of = f" of {printable(job)}" if job is not None else ""
        on = f" on {printable(platform)}" if platform is not None else ""
        raise Refused(f"no running build{of}{on}")
    return found


def knows_job(info: InfoReply, name: str) -> bool:
    """Return whether the server has that job anywhere."""
    return (
        any(item.job.name == name for item in info.schedule)
        or any(job.name == name for queue in info.queues for job in queue.jobs)
        or any(build.job.name == name for build in info.running)
    )


def wait_for_next(
    ask_info: Callable[[], InfoReply], *, job: str, sleep: Callable[[float], None] = time.sleep
) -> RunningBuild:
    """Wait until a build of that job starts that was not running at first. Refused once the server has no such job.

    It has no deadline: the next run may be a week ahead.
    """
    info = ask_info()
    known = {build.uuid for build in info.running}
    pause = FIRST_POLL
    while True:
        if not knows_job(info, job):
            raise Refused(f"unknown job {printable(job)}")
        for build in _matching(info, job=job, platform=None):
            if build.uuid not in known:
                return build
        sleep(pause)
        pause = min(pause * POLL_GROWTH, LAST_POLL)
        info = ask_info()
