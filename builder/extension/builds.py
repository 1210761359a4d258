"""Messages about builds, tags 80 to 99."""

import re
from typing import ClassVar
from uuid import UUID

from attrs import frozen

from builder.errors import InvalidOptions
from builder.extension import MAX_PAGE, Reply, Request
from builder.history import Cause, Outcome
from builder.messages import KIB, MAX_SCRIPT, MIB, InfoReply, message
from builder.model import Instant, Result
from builder.planning import check_count

_KEY = re.compile(r"[0-9a-z-]{1,36}| [0-9]{19}")
"""Keys of the history: a uuid, or the number of a run that was left out."""


@message
@frozen(kw_only=True)
class CancelBuilds(Request):
    """End the running builds of a job, or the one whose uuid begins so."""

    tag: ClassVar[int] = 80
    changes: ClassVar[bool] = True
    target: str
    platform: str | None = None


@message
@frozen(kw_only=True)
class BuildCancelled(Reply):
    """A build that was ended: it is recorded, or will be as soon as the disk allows it, and is not run again.

    ``by`` is who had cancelled it before, None if that is new.
    """

    tag: ClassVar[int] = 81
    uuid: UUID
    name: str
    platform: str
    by: str | None = None


@message
@frozen(kw_only=True)
class Dequeue(Request):
    """Take a job from the queues, or from that of one platform; it stays in the schedule."""

    tag: ClassVar[int] = 82
    changes: ClassVar[bool] = True
    name: str
    platform: str | None = None


@message
@frozen(kw_only=True)
class Dequeued(Reply):
    """The platforms in whose queues the job was."""

    tag: ClassVar[int] = 83
    platforms: tuple[str, ...]


@frozen(kw_only=True)
class HistoryPlace:
    """A place in the history: behind the entry of that time with that ``key``."""

    numbered: ClassVar[bool] = True
    at: Instant
    key: str


@frozen(kw_only=True)
class HistoryEntry:
    """A build, or a run that was ``skipped``, and then why; that has no uuid.

    ``retries`` is how often the job is run again at most, None if it is gone. ``previous`` is the success before that the
    comparisons are with; what is not known of both, such as the hashes of a build of an earlier release, is not compared.
    ``worker`` is where its worker was, ``worker_name`` what its operator calls it, ``away`` since when that of a running build
    is away. Of an orb-build job the template is compared, and as its script the package that it builds.
    """

    numbered: ClassVar[bool] = True
    place: HistoryPlace
    name: str
    platform: str
    cause: Cause
    retry: int
    uuid: UUID | None = None
    skipped: str | None = None
    cause_of: str | None = None
    retries: int | None = None
    due: Instant | None = None
    started: Instant | None = None
    finished: Instant | None = None
    outcome: Outcome | None = None
    result: Result | None = None
    ended_by: str | None = None
    worker: str | None = None
    artifacts: int | None = None
    artifact_bytes: int | None = None
    main_hash: str | None = None
    upload: str | None = None
    previous: UUID | None = None
    script_changed: bool | None = None
    artifacts_changed: bool | None = None
    verdict: str | None = None
    template_changed: bool | None = None
    away: Instant | None = None
    worker_name: str | None = None


@message
@frozen(kw_only=True)
class ShowHistory(Request):
    """Ask for builds and runs that were left out, the newest first: at most ``count`` of them, behind a place."""

    tag: ClassVar[int] = 84
    count: int
    name: str | None = None
    platform: str | None = None
    failed: bool = False
    since: Instant | None = None
    behind: HistoryPlace | None = None

    def check(self) -> None:
        """Raise InvalidOptions for a number of entries that is not told, or a place that is none."""
        check_count(self.count, 1, MAX_PAGE, "a number of entries")
        if self.behind is not None and not _KEY.fullmatch(self.behind.key):
            raise InvalidOptions("a place in the history must be one that the server has told")


@message
@frozen(kw_only=True)
class HistoryShown(Reply):
    """A page of the history. It may have less than were asked for, and is empty at the end."""

    tag: ClassVar[int] = 85
    max_size: ClassVar[int] = 4 * MIB
    max_elements: ClassVar[int] = InfoReply.max_elements
    entries: tuple[HistoryEntry, ...]


@message
@frozen(kw_only=True)
class ShowBuild(Request):
    """Ask for a build by its uuid, or the begin of one, in hexadecimal digits."""

    tag: ClassVar[int] = 86
    target: str


@message
@frozen(kw_only=True)
class BuildShown(Reply):
    """A build. ``console_size`` are the bytes of its console as frames, None if the server has none any more.

    ``has_record`` is whether the server still has its artifacts. ``absent`` is the server that has both, where that does not
    answer: then nothing is known of them.
    """

    tag: ClassVar[int] = 87
    max_size: ClassVar[int] = 128 * KIB
    entry: HistoryEntry
    has_record: bool
    console_size: int | None = None
    absent: str | None = None


@frozen(kw_only=True)
class ArtifactEntry:
    """An artifact of a build; ``sha256`` are 32 bytes."""

    numbered: ClassVar[bool] = True
    path: str
    size: int
    sha256: bytes


@message
@frozen(kw_only=True)
class ListArtifacts(Request):
    """Ask for the artifacts of a build, in the order of the bytes of their paths: at most ``count``, behind a path."""

    tag: ClassVar[int] = 88
    uuid: UUID
    count: int
    behind: str = ""

    def check(self) -> None:
        """Raise InvalidOptions for a number of artifacts that is not told."""
        check_count(self.count, 1, MAX_PAGE, "a number of artifacts")


@message
@frozen(kw_only=True)
class ArtifactsListed(Reply):
    """A page of artifacts; it may have less than were asked for, and is empty behind the last one."""

    tag: ClassVar[int] = 89
    max_size: ClassVar[int] = 8 * MIB
    artifacts: tuple[ArtifactEntry, ...]


@message
@frozen(kw_only=True)
class FetchArtifacts(Request):
    """Ask for the contents of all artifacts of a build."""

    tag: ClassVar[int] = 90
    uuid: UUID


@message
@frozen(kw_only=True)
class ArtifactsPiece(Reply):
    """The next bytes of all artifacts of a build, encoded as in JobFinished."""

    tag: ClassVar[int] = 91
    max_size: ClassVar[int] = MIB
    data: bytes


@message
@frozen(kw_only=True)
class ShowScript(Request):
    """Ask for the script that a build ran."""

    tag: ClassVar[int] = 92
    uuid: UUID


@message
@frozen(kw_only=True)
class ScriptShown(Reply):
    """The script of a build."""

    tag: ClassVar[int] = 93
    max_size: ClassVar[int] = MAX_SCRIPT + 64 * KIB
    script: bytes
