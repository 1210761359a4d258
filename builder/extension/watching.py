"""Messages to whoever watches a server, tags 110 to 119: its changes as they come, and how things stand.

Whoever wants both subscribes first and looks then: so nothing is missed between the two.
"""

import enum
from typing import ClassVar
from uuid import UUID

from attrs import frozen

from builder.extension import MAX_PAGE, Reply, Request
from builder.extension.halting import HaltState
from builder.extension.provisioning import Provision
from builder.history import Cause, Outcome
from builder.messages import KIB, message
from builder.model import Instant
from builder.needs import Need
from builder.planning import check_count

MAX_SHOWN = MAX_PAGE
"""Most entries of each queue, and most results, that a look shows."""

PAGE = 100
"""Entries of a page: with names of usual lengths it is a small message."""

_PAGE_SIZE = 1024 * KIB
"""Bytes of a page with the longest names that there may be, and the most needs."""


class What(enum.Enum):
    """What has changed."""

    QUEUED = "queued"
    """A job is in the queue of a platform, or has moved to the front of it."""

    BEGUN = "begun"
    """A worker has taken a job."""

    FINISHED = "finished"
    """A build has ended, with an outcome."""

    REMOVED = "removed"
    """A job has left the queue of a platform without being run; without a platform: the schedule, and all queues. Without a
    job: the platform was dropped."""

    SCHEDULED = "scheduled"
    """A job is new in the schedule, or its options, script or next run were changed. Without a job: the platform is
    new, or no longer banned."""

    WORKER_CAME = "worker-came"
    """One more worker waits for a job of a platform."""

    WORKER_WENT = "worker-went"
    """A worker that waited has gone without a job."""

    DRAINED = "drained"
    """A platform gets no job any more; without a platform: the server, or a worker."""

    RESUMED = "resumed"
    """It gets jobs again."""

    WORKER_AWAY = "worker-away"
    """The worker of a build has gone, and may come back."""

    WORKER_BACK = "worker-back"
    """It is back."""


@message
@frozen(kw_only=True)
class Watch(Request):
    """Ask for all changes after a point, as they come, until the client closes. Without a point: from now on."""

    tag: ClassVar[int] = 110
    since: int | None = None


@message
@frozen(kw_only=True)
class Changed(Reply):
    """A change. Each has the point after that of the change before it."""

    tag: ClassVar[int] = 111
    point: int
    what: What
    job: str | None = None
    platform: str | None = None
    uuid: UUID | None = None
    outcome: Outcome | None = None


@message
@frozen(kw_only=True)
class LookAgain(Reply):
    """What was before this point is not told: the client has just come, was too slow, or the server has started again."""

    tag: ClassVar[int] = 112
    point: int


@message
@frozen(kw_only=True)
class Look(Request):
    """Ask how things stand: up to so many entries of each queue, of one platform if it is named, and newest results."""

    tag: ClassVar[int] = 113
    entries: int
    results: int
    platform: str | None = None

    def check(self) -> None:
        """Raise InvalidOptions for more than is shown at once."""
        check_count(self.entries, 0, MAX_SHOWN, "entries of each queue")
        check_count(self.results, 0, MAX_SHOWN, "a number of results")


@frozen(kw_only=True)
class Unmet:
    """What no worker of a platform has together: up to 3 needs that none has, and the worker that comes nearest.

    Of that its name, and up to 3 needs that it ``lacks``. ``instead`` is what comes nearest to what is missing, such as the
    most memory that a worker has, or a label that is written alike.
    """

    numbered: ClassVar[bool] = True
    missing: tuple[Need, ...]
    nearest: str
    lacks: tuple[Need, ...]
    instead: tuple[Need, ...] = ()


@frozen(kw_only=True)
class PlatformState:
    """A platform: how many workers wait there and how many have a build, and how many entries are in its queue.

    ``unmet`` is what up to 3 sets of needs in its queue lack. ``drained`` are those workers that get no job: by themselves,
    or with the platform or the server. ``provisions`` is what was asked of engines. ``pressed`` are other workers that wait, and
    take no job for their machine's sake: they are in none of the other numbers.
    """

    numbered: ClassVar[bool] = True
    name: str
    waiting: int
    busy: int
    queued: int
    unmet: tuple[Unmet, ...] = ()
    drained: int = 0
    provisions: tuple[Provision, ...] = ()
    pressed: int = 0


@frozen(kw_only=True)
class RunningState:
    """A running build. ``expected`` is how long it takes in all, in milliseconds, as far as past ones tell.

    ``worker`` is what it is called where it is drained, and ``holder`` that of its certificate, if it has one; ``away`` is since
    when it is away, from which it may come back.
    """

    numbered: ClassVar[bool] = True
    uuid: UUID
    job: str
    platform: str
    started: Instant
    cause: Cause
    expected: int | None = None
    away: Instant | None = None
    worker: str = ""
    holder: str | None = None


class Why(enum.Enum):
    """Why an entry of a queue waits."""

    PAUSED = "paused"
    NO_TEMPLATE = "no-template"
    NOT_BEFORE = "not-before"
    DISK_FULL = "disk-full"
    NO_WORKER = "no-worker"
    BEHIND = "behind"
    """Others go before it."""

    BUSY = "busy"
    """It is next, and all workers of the platform are busy."""

    NEXT = "next"
    """A worker is about to take it."""

    DRAINED = "drained"
    """The server or the platform is."""

    WORKERS_DRAINED = "workers-drained"
    """All workers of the platform are."""

    NEEDS = "needs"
    """No worker of the platform has what it needs."""

    ABLE_BUSY = "able-busy"
    """Those that have what it needs are busy, or take no job; others would not do."""

    PRESSED = "pressed"
    """All workers of the platform take no job, since their machines can't bear another."""


@frozen(kw_only=True)
class QueuedState:
    """An entry of a queue, why it waits, and when it is likely to start.

    ``ahead`` are those that go before it, ``expected`` the milliseconds that it is likely to take. What nothing is known
    of is None. ``needs`` is all that its worker must have, and ``time_limit`` how many milliseconds its build may take, if that
    is said of the job.
    """

    numbered: ClassVar[bool] = True
    job: str
    platform: str
    cause: Cause
    why: Why
    ahead: int
    due: Instant | None = None
    not_before: Instant | None = None
    start: Instant | None = None
    expected: int | None = None
    unmet: Unmet | None = None
    needs: tuple[Need, ...] = ()
    time_limit: int | None = None


@frozen(kw_only=True)
class ResultState:
    """A build that has ended. ``outcome`` is None where it was not noted: in a version before."""

    numbered: ClassVar[bool] = True
    uuid: UUID
    job: str
    platform: str
    started: Instant
    finished: Instant
    outcome: Outcome | None = None


@frozen(kw_only=True)
class EndingState:
    """What ends soon, or has ended: the server's certificate, that of a holder who is connected, or the key that signs builds."""

    numbered: ClassVar[bool] = True
    name: str
    expires: Instant
    is_own: bool
    is_key: bool = False


@message
@frozen(kw_only=True)
class Looked(Reply):
    """A page of how things stand. ``now`` is the server's clock; all pages of a reply are of one moment.

    ``scheduled`` is the number of jobs in the schedule. Entries of queues come in their order. ``halts`` are what is drained.
    ``ending`` are certificates and keys that have to be renewed, ``warnings`` what else somebody has to do something about.
    """

    tag: ClassVar[int] = 114
    max_size: ClassVar[int] = _PAGE_SIZE
    now: Instant
    is_full: bool
    scheduled: int
    platforms: tuple[PlatformState, ...] = ()
    running: tuple[RunningState, ...] = ()
    queued: tuple[QueuedState, ...] = ()
    results: tuple[ResultState, ...] = ()
    halts: tuple[HaltState, ...] = ()
    ending: tuple[EndingState, ...] = ()
    warnings: tuple[str, ...] = ()
