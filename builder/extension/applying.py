"""Messages by which a whole schedule is compared and changed at once, tags 120 to 129."""

from typing import ClassVar

from attrs import frozen

from builder.extension import Reply, Request
from builder.extension.schedule import ChangeJob, PlanJob
from builder.messages import MIB, message
from builder.model import OrbBuildJob
from builder.planning import JobOptions

MAX_LISTED = 100
"""Jobs of a page: each may wait for many others."""

_ELEMENTS = 300_000
"""Values of 10 000 jobs; a page of jobs that wait for as many others as they may has a tenth of that."""


@frozen(kw_only=True)
class ListedScript:
    """A script job without its script, which is told by its SHA-256."""

    numbered: ClassVar[bool] = True
    name: str
    platform: str
    sha256: bytes


@frozen(kw_only=True)
class ListedJob:
    """A job as it is listed."""

    numbered: ClassVar[bool] = True
    job: ListedScript | OrbBuildJob
    options: JobOptions
    revision: int


@frozen(kw_only=True)
class SeenJob:
    """A job as it was seen."""

    numbered: ClassVar[bool] = True
    name: str
    revision: int


@message
@frozen(kw_only=True)
class ListJobs(Request):
    """Ask for the jobs whose names come behind ``after``, in the order of their bytes; without it from the first on."""

    tag: ClassVar[int] = 120
    after: str | None = None


@message
@frozen(kw_only=True)
class JobsListed(Reply):
    """A page of jobs; an empty one is the last."""

    tag: ClassVar[int] = 121
    max_size: ClassVar[int] = 16 * MIB
    max_elements: ClassVar[int] = _ELEMENTS
    jobs: tuple[ListedJob, ...]


@message
@frozen(kw_only=True)
class Apply(Request):
    """Remove, change and add jobs, all of it or nothing."""

    tag: ClassVar[int] = 122
    changes: ClassVar[bool] = True
    max_size: ClassVar[int] = 32 * MIB
    max_elements: ClassVar[int] = _ELEMENTS
    removed: tuple[SeenJob, ...]
    changed: tuple[ChangeJob, ...]
    added: tuple[PlanJob, ...]


@message
@frozen(kw_only=True)
class TryApply(Apply):
    """Ask whether the same would be done; nothing is."""

    tag: ClassVar[int] = 123
    changes: ClassVar[bool] = False
