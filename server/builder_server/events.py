"""What happens to an attempt at a job."""

from collections.abc import Sequence

from attrs import frozen

from builder.execution import ArtifactData, ArtifactStart
from builder.extension.working import Fact
from builder.model import Aborted, Result
from builder.outputs import TimedLines
from builder_server.aborts import LOST
from builder_server.actions import Action


@frozen
class Attached:
    """A worker has come for it."""


@frozen
class Inherited:
    """An earlier server has left it; its worker may come back."""


@frozen(kw_only=True)
class Returned:
    """Its worker has come back. It ``began`` then, by the clock of the owner; ``has_ended``: the job is over."""

    began: float
    has_ended: bool


@frozen(kw_only=True)
class Lines:
    """Lines of the console came."""

    lines: TimedLines


@frozen(kw_only=True)
class FactsTold:
    """The worker said how it runs the job."""

    facts: tuple[Fact, ...]


@frozen(kw_only=True)
class ResultBegun:
    """The result is known, and artifacts follow whose encoding takes ``length`` bytes."""

    result: Result
    length: int


@frozen(kw_only=True)
class Artifacts:
    """Some more of the artifacts came."""

    pieces: Sequence[ArtifactStart | ArtifactData]


@frozen
class ResultEnded:
    """The last of the artifacts was there."""


@frozen(kw_only=True)
class ResultRefused:
    """There are artifacts that must not be stored."""

    reason: str


@frozen(kw_only=True)
class Detached:
    """The worker has gone. ``counted`` says whether that speaks against the job, ``reason`` what the history says.

    ``is_final``: it does not come back, or must not.
    """

    reason: Aborted = LOST
    counted: bool = True
    is_final: bool = False


@frozen(kw_only=True)
class EndAsked:
    """It is to be ended: a limit was reached, or somebody wants it; ``by`` says who."""

    result: Aborted
    by: str | None = None


@frozen
class TimeCame:
    """It is ``wake_at``."""


@frozen
class Stopping:
    """The server stops."""


@frozen(kw_only=True)
class DiskFault:
    """The disk, or the database, did not do an action. ``counted`` says whether that is the job's own doing.

    ``undone`` are that action, and those that were to follow.
    """

    reason: str
    counted: bool = False
    undone: tuple[Action, ...] = ()


@frozen
class OurFault:
    """An error in the server's own code."""


@frozen
class Recorded:
    """The record is durable."""


@frozen
class PutBackDone:
    """The job is queued again, unless it has left the schedule."""


@frozen(kw_only=True)
class NotPutBack:
    """The job does not go back to the queue: this attempt is to be recorded with that result. ``by`` is who cancelled it."""

    result: Aborted
    by: str | None = None


@frozen
class Moved:
    """It is another server's now, to which its worker has come back, or that has taken it over."""


@frozen
class NotRunning:
    """The database does not have it as running: it had ended before."""


Event = (
    Attached
    | Inherited
    | Returned
    | Lines
    | FactsTold
    | ResultBegun
    | Artifacts
    | ResultEnded
    | ResultRefused
    | Detached
    | EndAsked
    | TimeCame
    | Stopping
    | DiskFault
    | OurFault
    | Recorded
    | PutBackDone
    | NotPutBack
    | NotRunning
    | Moved
)
