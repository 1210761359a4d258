"""Messages about uploads, tags 130 to 139: what is still to be uploaded, and what was refused.

A receiver is named by its URL without user, password and query.
"""

import enum
from typing import ClassVar
from uuid import UUID

from attrs import frozen

from builder.extension import MAX_PAGE, Reply, Request
from builder.messages import MIB, message
from builder.model import Instant
from builder.planning import check_count


class UploadState(enum.Enum):
    """How far an upload is."""

    PENDING = "pending"
    """The receiver is to get it."""

    DONE = "done"
    """The receiver has it, and others are still to get it."""

    REFUSED = "refused"
    """The receiver will not take it: it is not tried again unless somebody asks for that."""


@frozen(kw_only=True)
class UploadEntry:
    """An upload of a build to a receiver. ``since`` is when the build ended.

    ``is_known``: the server still uploads to that receiver. ``attempts`` are those that failed, the last of them at
    ``tried``, for that ``reason``. Without ``next_attempt`` a pending one is tried as soon as it is its turn.
    """

    numbered: ClassVar[bool] = True
    uuid: UUID
    job: str
    platform: str
    receiver: str
    state: UploadState
    is_known: bool
    since: Instant
    attempts: int
    tried: Instant | None = None
    next_attempt: Instant | None = None
    reason: str | None = None


@frozen(kw_only=True)
class UploadPlace:
    """A place in the list of uploads: behind that of a build to a receiver."""

    numbered: ClassVar[bool] = True
    since: Instant
    uuid: UUID
    receiver: str


@message
@frozen(kw_only=True)
class ListUploads(Request):
    """Ask for uploads that are pending or refused, the oldest first: at most ``count``, behind a place.

    With ``build`` it is all those of that build, also what is done.
    """

    tag: ClassVar[int] = 130
    count: int
    build: UUID | None = None
    behind: UploadPlace | None = None

    def check(self) -> None:
        """Raise InvalidOptions for a number of entries that is not told."""
        check_count(self.count, 1, MAX_PAGE, "a number of uploads")


@message
@frozen(kw_only=True)
class UploadsListed(Reply):
    """A page of uploads; it is empty behind the last one."""

    tag: ClassVar[int] = 131
    max_size: ClassVar[int] = 4 * MIB
    uploads: tuple[UploadEntry, ...]


@message
@frozen(kw_only=True)
class CountUploads(Request):
    """Ask how uploads stand."""

    tag: ClassVar[int] = 132


@frozen(kw_only=True)
class ReceiverState:
    """How uploads to a receiver stand: how many are pending and refused.

    ``failures`` are those in a row, up to now; ``resume`` is when the receiver is tried again. Of those that are pending
    ``oldest`` is when the first build ended, and ``reason`` why the last attempt failed, if one did.
    """

    numbered: ClassVar[bool] = True
    name: str
    is_known: bool
    pending: int
    refused: int
    failures: int
    oldest: Instant | None = None
    resume: Instant | None = None
    reason: str | None = None


@message
@frozen(kw_only=True)
class UploadsCounted(Reply):
    """How uploads stand at each receiver that the server has, or had when something was to be uploaded there."""

    tag: ClassVar[int] = 133
    receivers: tuple[ReceiverState, ...]


@message
@frozen(kw_only=True)
class RetryUploads(Request):
    """Have uploads tried again now that are pending or refused: those of the build whose uuid begins so, or all."""

    tag: ClassVar[int] = 134
    changes: ClassVar[bool] = True
    target: str | None = None


@message
@frozen(kw_only=True)
class UploadsRetried(Reply):
    """How many uploads are tried again."""

    tag: ClassVar[int] = 135
    count: int


@message
@frozen(kw_only=True)
class DropUpload(Request):
    """Have the build whose uuid begins so uploaded nowhere any more; its record stays on the server's disk."""

    tag: ClassVar[int] = 136
    changes: ClassVar[bool] = True
    target: str
