"""The messages of the protocol, each written down once: as a class here. Who sends it when is in ``builder.order``.

The class of a message is its kind. Its fields are what it carries, and how they are written follows from their types,
see ``builder.syntax``. What else the protocol has to know of a kind are attributes of its class, see ``Message``. The
bounds of small messages are generous multiples of what they can hold; the reasons for the large ones stand beside them.
"""

import enum
from typing import ClassVar, TypeVar
from uuid import UUID

from attrs import frozen

from builder.model import Artifact, Instant, OrbBuildJob, Period, Queue, Result, RunningBuild, ScheduleItem, ScriptJob

CLIENT_VERSION = 13
"""The version that a client of the classic protocol names in its hello."""

WORKER_VERSION = 5
"""The version that a worker of the classic protocol names in its hello."""

KIB, MIB, GIB = 2**10, 2**20, 2**30

MAX_SCRIPT = 4 * MIB
"""Largest script; a frame that holds one is read into memory, and many peers may send one at once."""

_SMALL = 64 * KIB
_NOTHING = 64
"""Bytes for a message that carries nothing, or next to it."""

_FEW_ELEMENTS = 10_000
"""Values within values of a message: most have less than 20, but for ignored files."""

_MANY_ELEMENTS = 2_000_000
"""The same of what holds lists: a schedule item has 10, so this is 40 000 jobs in several queues each."""


class Message:
    """What a kind of message tells of itself."""

    __slots__ = ()

    tag: ClassVar[int]
    """The number of its EXPLICIT context tag. Those of the original are below 64, ours from there on."""

    max_size: ClassVar[int] = _SMALL
    """Bytes of the largest encoding that is read."""

    max_elements: ClassVar[int] = _FEW_ELEMENTS
    """Most values within values."""

    streamed: ClassVar[bool] = False
    """Whether it is never held whole: what receives it gets its size, and then its bytes as they come."""

    numbered: ClassVar[bool] = False
    """Whether its fields bear numbers on the wire, so that any may be missing and others may come; see ``syntax``."""

    older: ClassVar[dict[int, tuple[str, ...]]] = {}
    """Older forms that are read and never written: their tags, and the fields that they have."""


Kind = type[Message]

KINDS: dict[int, Kind] = {}
"""The kind of message by its tag, older forms too."""

M = TypeVar("M", bound=Message)


def message(kind: type[M]) -> type[M]:
    """Make a class known as the kind of message that has its tags."""
    KINDS.update(dict.fromkeys((kind.tag, *kind.older), kind))
    return kind


class Command(Message):
    """What a client asks for and the server answers with success or failure."""

    __slots__ = ()


class Role(enum.Enum):
    """What the peer that opens a connection is."""

    CLIENT = "client"
    WORKER = "worker"


@message
@frozen(kw_only=True)
class Hello(Message):
    """The first message: who is there, and which version of the protocol it speaks."""

    tag: ClassVar[int] = 14
    max_size: ClassVar[int] = _NOTHING
    role: Role
    version: int


@message
@frozen(kw_only=True)
class ServerHello(Message):
    """The server speaks that version."""

    tag: ClassVar[int] = 15
    max_size: ClassVar[int] = _NOTHING


@message
@frozen(kw_only=True)
class JobRequested(Message):
    """A worker of that platform is ready for a job."""

    tag: ClassVar[int] = 16
    platform: str


@message
@frozen(kw_only=True)
class JobSchedule(Message):
    """The job for a worker, under the uuid of this attempt."""

    tag: ClassVar[int] = 2
    max_size: ClassVar[int] = MAX_SCRIPT + _SMALL
    uuid: UUID
    job: ScriptJob


@message
@frozen(kw_only=True)
class Output(Message):
    """A console line. ``timestamp`` is nanoseconds since the start; workers leave it out, observers get it."""

    tag: ClassVar[int] = 4
    # The original's worker sends a line of any length in one message; our own cuts lines at 64 KiB.
    max_size: ClassVar[int] = 16 * MIB
    uuid: UUID
    line: bytes
    timestamp: int | None = None


@message
@frozen(kw_only=True)
class JobFinished(Message):
    """A job's result and its artifacts, all in memory: for small ones and for tests.

    On a connection it is streamed, and ``max_size`` bounds what a worker may make the server write to its disk.
    """

    tag: ClassVar[int] = 3
    max_size: ClassVar[int] = 1024 * GIB
    max_elements: ClassVar[int] = _MANY_ELEMENTS
    streamed: ClassVar[bool] = True
    uuid: UUID
    result: Result
    artifacts: tuple[Artifact, ...]


@message
@frozen(kw_only=True)
class Schedule(Command):
    """Add a script job to the schedule."""

    tag: ClassVar[int] = 5
    max_size: ClassVar[int] = MAX_SCRIPT + _SMALL
    period: Period
    job: ScriptJob


@message
@frozen(kw_only=True)
class ScheduleOrbBuild(Command):
    """Add an opam package to the schedule."""

    tag: ClassVar[int] = 12
    period: Period
    job: OrbBuildJob


@message
@frozen(kw_only=True)
class Unschedule(Command):
    """Remove a job from the schedule and from the queues."""

    tag: ClassVar[int] = 9
    name: str


@message
@frozen(kw_only=True)
class Reschedule(Command):
    """Set a job's next run, and its period if there is one."""

    tag: ClassVar[int] = 13
    name: str
    next: Instant
    period: Period | None = None


@message
@frozen(kw_only=True)
class Execute(Command):
    """Put a job at the front of its queue, or of one platform's, or of all."""

    tag: ClassVar[int] = 20
    older: ClassVar[dict[int, tuple[str, ...]]] = {11: ("name",)}
    name: str
    platform: str | None = None


@message
@frozen(kw_only=True)
class Observe(Message):
    """Replay and follow the console of a build."""

    tag: ClassVar[int] = 10
    uuid: UUID


@message
@frozen(kw_only=True)
class DropPlatform(Command):
    """Ban a platform: its queue and its script jobs go."""

    tag: ClassVar[int] = 17
    platform: str


@message
@frozen(kw_only=True)
class UndropPlatform(Command):
    """Lift the ban of a platform."""

    tag: ClassVar[int] = 21
    platform: str


@message
@frozen(kw_only=True)
class Info(Message):
    """Ask for the schedule, the queues and what is running."""

    tag: ClassVar[int] = 6
    max_size: ClassVar[int] = _NOTHING


@message
@frozen(kw_only=True)
class InfoReply(Message):
    """The answer to info."""

    tag: ClassVar[int] = 22
    # It repeats every script, once in the schedule and once a queue; a farm with 10 000 jobs of 10 KiB needs 300 MiB.
    max_size: ClassVar[int] = GIB
    max_elements: ClassVar[int] = _MANY_ELEMENTS
    older: ClassVar[dict[int, tuple[str, ...]]] = {7: ("schedule", "queues", "running")}
    schedule: tuple[ScheduleItem, ...]
    queues: tuple[Queue, ...]
    running: tuple[RunningBuild, ...]
    dropped_platforms: tuple[str, ...] = ()


@message
@frozen(kw_only=True)
class Success(Message):
    """What the client asked for is done, and durable."""

    tag: ClassVar[int] = 18
    max_size: ClassVar[int] = _NOTHING


@message
@frozen(kw_only=True)
class Failure(Message):
    """What the client asked for was not done."""

    tag: ClassVar[int] = 19
    message: str
