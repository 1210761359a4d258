"""Messages about builds, tags 80 to 99."""

from typing import ClassVar
from uuid import UUID

from attrs import frozen

from builder.extension import Reply, Request
from builder.messages import message


@message
@frozen(kw_only=True)
class CancelBuilds(Request):
    """End the running builds of a job, or the one whose uuid begins so."""

    tag: ClassVar[int] = 80
    target: str
    platform: str | None = None


@message
@frozen(kw_only=True)
class BuildCancelled(Reply):
    """A build that was ended, and is recorded."""

    tag: ClassVar[int] = 81
    uuid: UUID
    name: str
    platform: str


@message
@frozen(kw_only=True)
class Dequeue(Request):
    """Take a job from the queues, or from that of one platform; it stays in the schedule."""

    tag: ClassVar[int] = 82
    name: str
    platform: str | None = None


@message
@frozen(kw_only=True)
class Dequeued(Reply):
    """The platforms in whose queues the job was."""

    tag: ClassVar[int] = 83
    platforms: tuple[str, ...]
