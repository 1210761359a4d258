"""Messages about the schedule, tags 65 to 79."""

from typing import ClassVar

from attrs import frozen

from builder.extension import MAX_PAGE, Reply, Request
from builder.messages import KIB, MAX_SCRIPT, message
from builder.model import Instant, Job
from builder.planning import JobOptions, JobReference, check_count

_WITH_SCRIPT = MAX_SCRIPT + 64 * KIB

MAX_RUNS = MAX_PAGE
"""Most runs that are foretold at once."""


@message
@frozen(kw_only=True)
class PlanJob(Request):
    """Add a job to the schedule. ``run_now``: queue it at once, too."""

    tag: ClassVar[int] = 65
    changes: ClassVar[bool] = True
    max_size: ClassVar[int] = _WITH_SCRIPT
    job: Job
    options: JobOptions
    run_now: bool


@message
@frozen(kw_only=True)
class ChangeJob(Request):
    """Change a job that was seen in that ``revision``. Without ``job`` it runs what it ran."""

    tag: ClassVar[int] = 66
    changes: ClassVar[bool] = True
    max_size: ClassVar[int] = _WITH_SCRIPT
    name: str
    revision: int
    options: JobOptions
    job: Job | None = None


@message
@frozen(kw_only=True)
class ShowJob(Request):
    """Ask for a job of the schedule with all that it has."""

    tag: ClassVar[int] = 67
    name: str


@message
@frozen(kw_only=True)
class JobShown(Reply):
    """A job of the schedule. ``queued_on`` are the platforms in whose queues it is.

    ``awaited`` are those that it still waits for; where an orb build waits for another one, with the platform where.
    """

    tag: ClassVar[int] = 68
    max_size: ClassVar[int] = _WITH_SCRIPT
    job: Job
    options: JobOptions
    revision: int
    next_run: Instant
    queued_on: tuple[str, ...]
    awaited: tuple[JobReference, ...]


@message
@frozen(kw_only=True)
class CheckJob(Request):
    """Run a job twice as soon as workers are free, and compare the artifacts; on one platform, or on all that it is for."""

    tag: ClassVar[int] = 72
    changes: ClassVar[bool] = True
    name: str
    platform: str | None = None


@message
@frozen(kw_only=True)
class NextRuns(Request):
    """Ask when a job will run, for ``count`` runs from now on."""

    tag: ClassVar[int] = 69
    name: str
    count: int

    def check(self) -> None:
        """Raise InvalidOptions for a number of runs that is not told."""
        check_count(self.count, 1, MAX_RUNS, "a number of runs")


@message
@frozen(kw_only=True)
class RunsShown(Reply):
    """The next runs of a job; less than were asked for if it has no more."""

    tag: ClassVar[int] = 70
    moments: tuple[Instant, ...]
