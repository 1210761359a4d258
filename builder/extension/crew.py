"""Messages about workers, tags 180 and 181."""

import enum
from typing import ClassVar
from uuid import UUID

from attrs import frozen

from builder.extension import Reply, Request
from builder.extension.working import Fact
from builder.messages import MIB, InfoReply, message
from builder.model import Instant
from builder.planning import check_count

MAX_WORKERS = 100
"""Most workers of a page: each may tell many facts of itself."""


class Doing(enum.Enum):
    """What a worker does."""

    WAITING = "waiting"
    """It waits for a job."""

    BUILDING = "building"

    AWAY = "away"
    """It has a job, and no connection; it may come back."""


@frozen(kw_only=True)
class WorkerPlace:
    """A place in the list of all workers: behind the one with that platform, name and ``uuid``."""

    numbered: ClassVar[bool] = True
    platform: str
    name: str
    uuid: UUID


@frozen(kw_only=True)
class WorkerEntry:
    """A worker that waits for a job, or has one; one with several slots is there several times. It is connected to ``server``.

    It is ``place.name`` where it is drained: what its operator calls it, or the host of a classic one. ``since`` it does what it does. ``heard`` is its
    last sign of life: one that waits gives none but its connection. The uuid is that of its build.
    """

    numbered: ClassVar[bool] = True
    place: WorkerPlace
    address: str
    doing: Doing
    since: Instant
    is_drained: bool
    is_classic: bool
    facts: tuple[Fact, ...] = ()
    holder: str | None = None
    job: str | None = None
    heard: Instant | None = None
    server: str | None = None


@message
@frozen(kw_only=True)
class ListWorkers(Request):
    """Ask for workers by platform and name: at most ``count`` of them, of one platform if that is named, behind a place."""

    tag: ClassVar[int] = 180
    count: int
    platform: str | None = None
    behind: WorkerPlace | None = None

    def check(self) -> None:
        """Raise InvalidOptions for a number of workers that is not told."""
        check_count(self.count, 1, MAX_WORKERS, "a number of workers")


@message
@frozen(kw_only=True)
class WorkersListed(Reply):
    """A page of workers; none: there are no more. ``now`` is the server's clock, ``release`` the version of its program.

    ``number`` is how many there are in all, but for those of the servers that are ``absent``: they do not answer.
    """

    tag: ClassVar[int] = 181
    max_size: ClassVar[int] = 16 * MIB
    max_elements: ClassVar[int] = InfoReply.max_elements
    now: Instant
    release: str
    number: int
    workers: tuple[WorkerEntry, ...] = ()
    absent: tuple[str, ...] = ()
