"""One class per message of the protocol. The class of a message is its kind; see docs/protocol.md for who sends it.

``tag`` is the alternative's context tag on the wire, ``max_size`` the largest encoding that is read. The bounds of
small messages are generous multiples of what they can hold; the reasons for the large ones stand beside them.
"""

import enum
from typing import ClassVar
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


class Role(enum.Enum):
    """What the peer that opens a connection is."""

    CLIENT = "client"
    WORKER = "worker"


@frozen(kw_only=True)
class Hello:
    """The first message: who is there, and which version of the protocol it speaks."""

    tag: ClassVar[int] = 14
    max_size: ClassVar[int] = 64
    role: Role
    version: int


@frozen
class ServerHello:
    """The server speaks that version."""

    tag: ClassVar[int] = 15
    max_size: ClassVar[int] = 64


@frozen(kw_only=True)
class JobRequested:
    """A worker of that platform is ready for a job."""

    tag: ClassVar[int] = 16
    max_size: ClassVar[int] = _SMALL
    platform: str


@frozen(kw_only=True)
class JobSchedule:
    """The job for a worker, under the uuid of this attempt."""

    tag: ClassVar[int] = 2
    max_size: ClassVar[int] = MAX_SCRIPT + _SMALL
    uuid: UUID
    job: ScriptJob


@frozen(kw_only=True)
class Output:
    """A console line. ``timestamp`` is nanoseconds since the start; workers leave it out, observers get it."""

    tag: ClassVar[int] = 4
    # The original's worker sends a line of any length in one message; our own cuts lines at 64 KiB.
    max_size: ClassVar[int] = 16 * MIB
    uuid: UUID
    line: bytes
    timestamp: int | None = None


@frozen(kw_only=True)
class JobFinished:
    """A job's result and its artifacts, all in memory: for small ones and for tests.

    On a connection it is streamed, and ``max_size`` bounds what a worker may make the server write to its disk.
    """

    tag: ClassVar[int] = 3
    max_size: ClassVar[int] = 1024 * GIB
    uuid: UUID
    result: Result
    artifacts: tuple[Artifact, ...]


@frozen(kw_only=True)
class Schedule:
    """Add a script job to the schedule."""

    tag: ClassVar[int] = 5
    max_size: ClassVar[int] = MAX_SCRIPT + _SMALL
    period: Period
    job: ScriptJob


@frozen(kw_only=True)
class ScheduleOrbBuild:
    """Add an opam package to the schedule."""

    tag: ClassVar[int] = 12
    max_size: ClassVar[int] = _SMALL
    period: Period
    job: OrbBuildJob


@frozen(kw_only=True)
class Unschedule:
    """Remove a job from the schedule and from the queues."""

    tag: ClassVar[int] = 9
    max_size: ClassVar[int] = _SMALL
    name: str


@frozen(kw_only=True)
class Reschedule:
    """Set a job's next run, and its period if there is one."""

    tag: ClassVar[int] = 13
    max_size: ClassVar[int] = _SMALL
    name: str
    next: Instant
    period: Period | None = None


@frozen(kw_only=True)
class Execute:
    """Put a job at the front of its queue, or of one platform's, or of all."""

    tag: ClassVar[int] = 20
    max_size: ClassVar[int] = _SMALL
    name: str
    platform: str | None = None


@frozen(kw_only=True)
class Observe:
    """Replay and follow the console of a build."""

    tag: ClassVar[int] = 10
    max_size: ClassVar[int] = _SMALL
    uuid: UUID


@frozen(kw_only=True)
class DropPlatform:
    """Ban a platform: its queue and its script jobs go."""

    tag: ClassVar[int] = 17
    max_size: ClassVar[int] = _SMALL
    platform: str


@frozen(kw_only=True)
class UndropPlatform:
    """Lift the ban of a platform."""

    tag: ClassVar[int] = 21
    max_size: ClassVar[int] = _SMALL
    platform: str


@frozen
class Info:
    """Ask for the schedule, the queues and what is running."""

    tag: ClassVar[int] = 6
    max_size: ClassVar[int] = 64


@frozen(kw_only=True)
class InfoReply:
    """The answer to info."""

    tag: ClassVar[int] = 22
    # It repeats every script, once in the schedule and once a queue; a farm with 10 000 jobs of 10 KiB needs 300 MiB.
    max_size: ClassVar[int] = GIB
    schedule: tuple[ScheduleItem, ...]
    queues: tuple[Queue, ...]
    running: tuple[RunningBuild, ...]
    dropped_platforms: tuple[str, ...]


@frozen
class Success:
    """What the client asked for is done, and durable."""

    tag: ClassVar[int] = 18
    max_size: ClassVar[int] = 64


@frozen(kw_only=True)
class Failure:
    """What the client asked for was not done."""

    tag: ClassVar[int] = 19
    max_size: ClassVar[int] = _SMALL
    message: str


Message = (
    Hello
    | ServerHello
    | JobRequested
    | JobSchedule
    | Output
    | JobFinished
    | Schedule
    | ScheduleOrbBuild
    | Unschedule
    | Reschedule
    | Execute
    | Observe
    | DropPlatform
    | UndropPlatform
    | Info
    | InfoReply
    | Success
    | Failure
)

Kind = type[Message]

KINDS: dict[int, Kind] = {
    kind.tag: kind
    for kind in (
        Hello,
        ServerHello,
        JobRequested,
        JobSchedule,
        Output,
        JobFinished,
        Schedule,
        ScheduleOrbBuild,
        Unschedule,
        Reschedule,
        Execute,
        Observe,
        DropPlatform,
        UndropPlatform,
        Info,
        InfoReply,
        Success,
        Failure,
    )
} | {7: InfoReply, 11: Execute}
"""The kind of message by its tag; 7 and 11 are older forms that are read and never written."""
