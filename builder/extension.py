"""The messages of our own protocol, version 100, for clients: tags from 64 up. See ``builder.messages`` for how they are made.

A client keeps its connection for as many requests as it likes, one after the other. Each has its replies, and ends with
Success or Failure. Lists come in pages, and without scripts.
"""

from typing import ClassVar

from attrs import frozen

from builder.messages import MAX_SCRIPT, MIB, Message, message
from builder.model import Instant, Job
from builder.planning import JobOptions

EXTENSION_VERSION = 100
"""The version that peers of ours name in their hello, for both roles. Later ones are higher; both sides speak the lower."""

MAX_PAGE = 1000
"""Most entries of a page."""

_KIB = 1024
_SCRIPT = MAX_SCRIPT + 64 * _KIB
_PAGE = 4 * MIB
"""Bytes of a page: MAX_PAGE entries with the longest names."""


class Request(Message):
    """What a client asks for on a connection of the extension."""

    __slots__ = ()


class Reply(Message):
    """What a server answers before the Success that ends the answer."""

    __slots__ = ()


@message
@frozen(kw_only=True)
class Welcome(Message):
    """The server's answer to the hello: the version that it speaks."""

    numbered: ClassVar[bool] = True
    tag: ClassVar[int] = 64
    version: int


# --- the schedule --------------------------------------------------------------------------------------------------


@message
@frozen(kw_only=True)
class PlanJob(Request):
    """Add a job to the schedule."""

    numbered: ClassVar[bool] = True
    tag: ClassVar[int] = 65
    max_size: ClassVar[int] = _SCRIPT
    job: Job
    options: JobOptions


@message
@frozen(kw_only=True)
class ChangeJob(Request):
    """Change a job, from the ``revision`` in which it was seen. Without ``job`` it runs what it ran."""

    numbered: ClassVar[bool] = True
    tag: ClassVar[int] = 66
    max_size: ClassVar[int] = _SCRIPT
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
    """A job of the schedule. ``queued_on`` are the platforms in whose queues it is."""

    numbered: ClassVar[bool] = True
    tag: ClassVar[int] = 68
    max_size: ClassVar[int] = _SCRIPT
    job: Job
    options: JobOptions
    revision: int
    next_run: Instant
    queued_on: tuple[str, ...] = ()


@message
@frozen(kw_only=True)
class NextRuns(Request):
    """Ask when a job will run."""

    numbered: ClassVar[bool] = True
    tag: ClassVar[int] = 69
    name: str
    count: int


@message
@frozen(kw_only=True)
class RunsShown(Reply):
    """The next runs of a job; less than were asked for if it has no more."""

    numbered: ClassVar[bool] = True
    tag: ClassVar[int] = 70
    moments: tuple[Instant, ...]
