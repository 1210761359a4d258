"""What is said of builds: why they ran, and what became of them. Values."""

import enum

from builder.model import Aborted, Exited, Result


class Outcome(enum.Enum):
    """What became of an attempt. Only the job's own doing is a failure of the job."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """The job's doing: it exited with another status than 0, or died of a signal."""

    ABORTED = "aborted"
    """It was ended: by a limit, or by somebody."""

    LOST = "lost"
    """The farm's doing: a worker, the server, a disk."""


class Cause(enum.Enum):
    """Why a job was put into a queue."""

    FIRST = "first"
    """It was new."""

    DUE = "due"
    MISSED = "missed"
    """It was due while the server was down."""

    EXECUTED = "executed"
    """Somebody asked for it: the address of the client is with it."""

    AFTER = "after"
    """The job that it waits for has succeeded: the name of that is with it."""

    RETRY = "retry"
    """It failed before; the uuid of that attempt is with it."""

    CHECK = "check"
    """Its artifacts are compared with those of the run before, whose uuid is with it."""

    LOST = "lost"
    """The attempt before was lost: the uuid of that is with it."""

    IMPORTED = "imported"
    """Nobody knows: its record lay on the disk when it was taken over."""


REPRODUCIBLE = "reproducible"
"""The verdict of a check whose two runs have left the same artifacts."""

DIFFERS = "differs: "
"""Begins the verdict of any other; the path of the first artifact that differs, or is in one of them alone, follows."""


class Skipped(enum.Enum):
    """Why a run that was due was left out."""

    RUNNING = "still running"
    """The run before is queued or running: a queued one is as little done."""

    SERVER_DOWN = "the server was down"


WORKER_FAULT = "the worker failed: "
"""Begins what a worker of ours says of a job that it could not run, or not to its end, by a fault of its own."""

_LOSSES = (
    WORKER_FAULT,
    "worker lost",
    "the server failed",
    "the server could not record it",
    "interrupted",
    "the worker's disk stayed full",
    "the process that watched over the job was killed",
    "the console can't be written",
    "the job's directory can't be looked at",
    "the work directory can't be read",
    "the prepare hook failed",
    "the finish hook failed",
)
"""How messages begin that tell of a fault of the farm. All others tell of a limit, or that somebody ended it."""


def outcome_of(result: Result) -> Outcome:
    """Return what a result means."""
    match result:
        case Exited(code=0):
            return Outcome.SUCCEEDED
        case Aborted(message=message):
            return Outcome.LOST if message.startswith(_LOSSES) else Outcome.ABORTED
    return Outcome.FAILED
