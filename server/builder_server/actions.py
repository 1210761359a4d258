"""What is to be done for an attempt at a job."""

from collections.abc import Sequence

from attrs import frozen

from builder.execution import ArtifactData, ArtifactStart
from builder.extension.working import Fact
from builder.model import Aborted, Result
from builder.outputs import TimedLines


@frozen
class BeginConsole:
    """Make the directory and the console's file."""


@frozen
class SendJob:
    """Give the worker its job."""


@frozen
class OpenConsole:
    """Go on with the console, if it is not open: it is an earlier server's."""


@frozen
class Resume:
    """Tell the worker that it is still its attempt, and how many lines there are."""


@frozen(kw_only=True)
class AppendLines:
    """Append to the console."""

    lines: TimedLines


@frozen(kw_only=True)
class KeepFacts:
    """Keep how the worker runs the job."""

    facts: tuple[Fact, ...]


@frozen
class ClearConsole:
    """Throw the console away: it may be what fills the disk, and nothing could be recorded while it stays."""


@frozen(kw_only=True)
class BeginRecord:
    """Write everything that stands before the artifacts in a record; whatever was begun before is thrown away."""

    result: Result
    length: int


@frozen(kw_only=True)
class AddArtifacts:
    """Write artifacts; what comes of it may be ResultRefused."""

    pieces: Sequence[ArtifactStart | ArtifactData]


@frozen
class Record:
    """Make the record durable, on the disk and in the database: Recorded, NotRunning, or Moved."""


@frozen(kw_only=True)
class RecordAborted:
    """Write a record without artifacts, and make it durable: Recorded, NotRunning, or Moved.

    ``by`` says who ended it.
    """

    result: Aborted
    by: str | None = None


@frozen(kw_only=True)
class NoteCancel:
    """Make durable that somebody has cancelled it, so that its job does not go back to the queue; or NotRunning, or Moved."""

    by: str


@frozen(kw_only=True)
class PutBack:
    """Put the job back to the front of its queue: PutBackDone, NotPutBack, NotRunning, or Moved."""

    reason: Aborted
    counted: bool


@frozen
class DiscardRecord:
    """Throw away what there is of a record: it comes again."""


@frozen
class RemoveFiles:
    """Remove all files of it: another server has it."""


@frozen
class Acknowledge:
    """Tell the worker that its result is durable."""


@frozen(kw_only=True)
class Dismiss:
    """Tell the worker, if there is one, that the attempt is over without it."""

    reason: str


@frozen
class Release:
    """End the worker's connection, if there is one, in a way that nobody takes for success: it may come back."""


@frozen
class TellUploader:
    """Say that there is a new record."""


Action = (
    BeginConsole
    | SendJob
    | OpenConsole
    | Resume
    | AppendLines
    | KeepFacts
    | ClearConsole
    | BeginRecord
    | AddArtifacts
    | Record
    | RecordAborted
    | NoteCancel
    | PutBack
    | DiscardRecord
    | RemoveFiles
    | Acknowledge
    | Dismiss
    | Release
    | TellUploader
)
