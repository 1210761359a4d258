"""Which build a user means: by a prefix of its uuid, the newest one, or the next one of a job."""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import ClassVar

from builder.errors import BuilderError
from builder.messages import InfoReply
from builder.model import Instant, RunningBuild, ScheduleItem, printable

from .errors import Refused

QUICK_POLL, QUICK_POLLS, SLOW_POLL = 0.05, 600, 1.0
"""Seconds between two looks at what runs for so many looks (30 s), and afterwards: each look transfers the schedule."""

REST = 9
"""Least pause after a look, in times of what the look took: one of a large schedule is work for the server."""

CLOCK_DIFFERENCE = 5_000
"""Milliseconds by which the clocks of server and client may differ without a run that was due being overlooked."""

MAX_CANDIDATES = 10
"""Most builds that an error names."""


class MissedBuild(BuilderError):
    """A build that was waited for began and ended between two looks; no message of the protocol tells its uuid."""

    exit_code: ClassVar[int] = 3


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
        raise Refused(f"no running build{of}{on}", name=job)
    return found


def check_job(info: InfoReply, name: str) -> None:
    """Raise Refused unless the server has that job anywhere."""
    known = (
        any(item.job.name == name for item in info.schedule)
        or any(job.name == name for queue in info.queues for job in queue.jobs)
        or any(build.job.name == name for build in info.running)
    )
    if not known:
        raise Refused(f"unknown job {printable(name)}", name=name)


def wait_for_next(
    ask_info: Callable[[], InfoReply],
    first: InfoReply,
    *,
    job: str,
    now: Callable[[], Instant],
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> RunningBuild:
    """Wait until a build of that job starts that was not running at the ``first`` look.

    It has no deadline: the next run may be a week ahead. Raises Refused once the server has no such job, and MissedBuild.
    """
    known = {build.uuid for build in first.running}
    before = first
    took = 0.0
    for pause in itertools.chain(itertools.repeat(QUICK_POLL, QUICK_POLLS), itertools.repeat(SLOW_POLL)):
        sleep(max(pause, REST * took))
        began = clock()
        info = ask_info()
        took = clock() - began
        check_job(info, job)
        for build in _matching(info, job=job, platform=None):
            if build.uuid not in known:
                return build
        if _build_passed(before, info, job=job, now=now()):
            raise MissedBuild(
                f"a build of {printable(job)} ended before it could be observed; the server's log tells its uuid: "
                "observe that"
            )
        before = info
    raise AssertionError("the looks never end")


def _build_passed(before: InfoReply, after: InfoReply, *, job: str, now: Instant) -> bool:
    """Return whether a build of that job began and ended between two looks, the later of which shows no new one.

    It did if the job left a queue that is still there, or if a time came to queue it and it waits nowhere. A job that
    was unscheduled, or was replaced by another of its name, tells nothing.
    """
    old, new = _scheduled(before, job), _scheduled(after, job)
    if old is None or new is None or old.job != new.job:
        return False
    waiting = _platforms_waiting(after, job)
    left = _platforms_waiting(before, job) - waiting
    if any(queue.platform in left for queue in after.queues):
        return True
    was_due = old.next < new.next and old.next.ms <= now.ms + CLOCK_DIFFERENCE
    return was_due and bool(after.queues) and not waiting


def _scheduled(info: InfoReply, name: str) -> ScheduleItem | None:
    return next((item for item in info.schedule if item.job.name == name), None)


def _platforms_waiting(info: InfoReply, name: str) -> set[str]:
    return {queue.platform for queue in info.queues if any(job.name == name for job in queue.jobs)}
