"""What becomes of an attempt at a job: events and the time in, actions out. No I/O, no clock.

An attempt begins when its job is taken from the queue, and ends when it is recorded or put back. Its owner hands in what
happens, an event at a time, and carries out the actions in their order. What an action comes to is an event again; when
one fails, the actions after it are left out and the fault is the next event.
"""

import enum
import math
from collections.abc import Sequence

from attrs import define, frozen

from builder.execution import ArtifactData, ArtifactStart
from builder.model import Aborted, Result
from builder.quantities import format_duration

LOST = Aborted(message="worker lost")
SERVER_LIMIT, JOB_LIMIT = "--job-timeout of the server", "--timeout of the job"
"""Whose limit of time it is: the result of a job that reaches it names the option."""

FAULT = Aborted(message="the server failed")
"""What the history says of an attempt that ended by an error in the server's own code."""

RETRY = 10.0
"""Seconds until what the disk did not take is tried again."""


class Phase(enum.Enum):
    """How far an attempt is."""

    TAKEN = "nobody has it yet"
    RUNNING = "a worker has it"
    AWAY = "its worker has gone, and may come back"
    RECEIVING = "its result comes"
    RECORDING = "its result, or why it has none, is being made durable"
    RETURNING = "its job goes back to the queue, as soon as the disk allows it"
    ENDED = "it is recorded or put back"


# --- events --------------------------------------------------------------------------------------------------------


@frozen
class Attached:
    """A worker has come for it, or has come back."""


@frozen(kw_only=True)
class Lines:
    """Lines of the console came, all at once; ``timestamp`` is in nanoseconds since the attempt began."""

    lines: Sequence[bytes]
    timestamp: int


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
    """The worker has gone. ``counted`` says whether that speaks against the job, ``reason`` what the history says."""

    reason: Aborted = LOST
    counted: bool = True


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
    """The disk, or the database, did not do an action. ``counted`` says whether that is the job's own doing."""

    reason: str
    counted: bool = False


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
class NotRunning:
    """The database does not have it as running: it had ended before."""


Event = (
    Attached
    | Lines
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
)

# --- actions -------------------------------------------------------------------------------------------------------


@frozen
class BeginConsole:
    """Make the directory and the console's file."""


@frozen
class SendJob:
    """Give the worker its job."""


@frozen(kw_only=True)
class AppendLines:
    """Append to the console."""

    lines: Sequence[bytes]
    timestamp: int


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
    """Make the record durable, on the disk and in the database: Recorded, or NotRunning."""


@frozen(kw_only=True)
class RecordAborted:
    """Write a record without artifacts, and make it durable: Recorded, or NotRunning. ``by`` says who ended it."""

    result: Aborted
    by: str | None = None


@frozen(kw_only=True)
class NoteCancel:
    """Make durable that somebody has cancelled it, so that its job does not go back to the queue."""

    by: str


@frozen(kw_only=True)
class PutBack:
    """Put the job back to the front of its queue: PutBackDone, NotPutBack, or NotRunning."""

    reason: Aborted
    counted: bool


@frozen
class Acknowledge:
    """Close the worker's connection in order, which tells that its result is durable."""


@frozen
class Reset:
    """End the worker's connection, if there is one, in a way that nobody takes for success."""


@frozen
class TellUploader:
    """Say that there is a new record."""


Action = (
    BeginConsole
    | SendJob
    | AppendLines
    | ClearConsole
    | BeginRecord
    | AddArtifacts
    | Record
    | RecordAborted
    | NoteCancel
    | PutBack
    | Acknowledge
    | Reset
    | TellUploader
)


class UnexpectedEvent(Exception):
    """An event that can't happen in this phase: a fault of ours."""


@define(eq=False, kw_only=True)
class Attempt:
    """Where an attempt is. Times are in seconds of a clock that never goes back.

    ``time_limit`` is how long a job may take, ``max_silent`` how long it may say nothing, ``grace`` how long a worker may be
    away before its job is given to another. ``wake_at`` is when TimeCame is to be handed in.
    """

    time_limit: float
    max_silent: float = math.inf
    grace: float = 0.0
    phase: Phase = Phase.TAKEN
    wake_at: float = math.inf
    _job_ends: float = math.inf
    _silent_until: float = math.inf  # by then it has to say something
    _put_back: PutBack | None = None
    _acknowledges: bool = False
    _stops: bool = False
    _limit_of: str = SERVER_LIMIT

    @property
    def is_lost(self) -> bool:
        """True once its job is to go back to the queue, or can't any more."""
        return self._put_back is not None and self.phase in (Phase.RECORDING, Phase.RETURNING)

    def tighten(self, time_limit: float, max_silent: float) -> None:
        """Take the job's own limits where they are lower. They hold from the next Attached on."""
        if time_limit < self.time_limit:
            self.time_limit = time_limit
            self._limit_of = JOB_LIMIT
        self.max_silent = min(self.max_silent, max_silent)

    def is_overdue(self, now: float) -> bool:
        """Return whether it has had all the time that it may take; a job that was only silent may still speak."""
        return now >= self._job_ends or self.phase is not Phase.RUNNING

    def handle(self, event: Event, now: float) -> tuple[Action, ...]:
        """Return what is to be done. Raises UnexpectedEvent."""
        match self.phase, event:
            case (Phase.TAKEN, Attached()):
                self._job_ends = now + self.time_limit
                return self._run(now, BeginConsole(), SendJob())
            case (Phase.TAKEN, Detached(reason=reason, counted=counted)):
                return self._return(reason, counted=counted)

            case (Phase.RUNNING, Lines(lines=lines, timestamp=timestamp)):
                return self._run(now, AppendLines(lines=lines, timestamp=timestamp))
            case (Phase.RUNNING, ResultBegun(result=result, length=length)):
                self._job_ends = math.inf  # the job has ended, and what comes now has all the time it needs
                return self._to(Phase.RECEIVING, BeginRecord(result=result, length=length))
            case (Phase.RUNNING, TimeCame()) if self._silent_until < self._job_ends:
                return self._abort(silent_for(self.max_silent))
            case (Phase.RUNNING, TimeCame()):
                return self._abort(timeout_after(self.time_limit, self._limit_of))

            case (Phase.RECEIVING, Artifacts(pieces=pieces)):
                return (AddArtifacts(pieces=pieces),)
            case (Phase.RECEIVING, ResultRefused(reason=why)):
                return self._abort(Aborted(message=why))
            case (Phase.RECEIVING, ResultEnded()):
                self._acknowledges = True
                return self._to(Phase.RECORDING, Record())
            case (Phase.RECEIVING | Phase.RETURNING, EndAsked(by=by)):
                return _note(by)  # it has ended by itself, and is not to run again if that comes to nothing

            case (Phase.RUNNING | Phase.RECEIVING, Detached(reason=reason, counted=counted)):
                if not self.grace or self._stops:
                    return self._return(reason, counted=counted)
                self._put_back = PutBack(reason=reason, counted=counted)
                return self._to(Phase.AWAY, wake_at=min(now + self.grace, self._job_ends))
            case (Phase.AWAY, Attached()):
                return self._run(now)  # while it was away, nobody could hear the job
            case (Phase.AWAY, TimeCame()) if now >= self._job_ends:
                return self._abort(timeout_after(self.time_limit, self._limit_of))
            case (Phase.AWAY, TimeCame()):
                return self._to(Phase.RETURNING, self._what_to_put_back())

            case (Phase.TAKEN | Phase.RUNNING | Phase.AWAY, EndAsked(result=why, by=by)):
                # the job is to be dead at once, and a long console takes a minute to be recorded
                return (Reset(), *_note(by), *self._abort(why, by))
            case (Phase.TAKEN | Phase.RUNNING | Phase.AWAY, Stopping()):
                self._stops = True
                return self._return(LOST, counted=False)
            case (Phase.RECEIVING | Phase.RECORDING, Stopping()):
                self._stops = True
                return ()  # what is being written may finish
            case (Phase.RETURNING, Stopping()):
                self._stops = True
                return self._to(Phase.RETURNING, self._what_to_put_back())  # once more, and then the next start's task

            case (Phase.RECORDING, Recorded()):
                return self._to(Phase.ENDED, Acknowledge() if self._acknowledges else Reset(), TellUploader())
            case (Phase.RETURNING, PutBackDone()):
                return self._to(Phase.ENDED, Reset())
            case (Phase.RETURNING, NotPutBack(result=why, by=by)):
                return self._to(Phase.RECORDING, RecordAborted(result=why, by=by))
            case (Phase.RETURNING, TimeCame()):
                return self._to(Phase.RETURNING, self._what_to_put_back())
            case (Phase.RECORDING | Phase.RETURNING, NotRunning()):
                return self._to(Phase.ENDED, Reset())

            case (_, DiskFault() | OurFault()) if self.is_lost:
                return self._try_later(now)
            case (Phase.ENDED, _):
                return ()
            case (_, DiskFault(reason=why, counted=counted)):
                return self._return(could_not_record(why), counted=counted, before=(ClearConsole(),))
            case (_, OurFault()):
                return self._return(FAULT)  # counted, or it might happen again and again
            case (
                Phase.RECORDING | Phase.RETURNING,
                Lines() | ResultBegun() | Artifacts() | ResultEnded() | ResultRefused() | Detached(),
            ):
                return ()  # it was under way when the attempt had come to its end
            case (Phase.RECORDING, EndAsked()):
                return ()
            case _:
                raise UnexpectedEvent(f"{type(event).__name__} in phase {self.phase.name}")

    def _to(self, phase: Phase, *actions: Action, wake_at: float = math.inf) -> tuple[Action, ...]:
        self.phase = phase
        self.wake_at = wake_at
        return actions

    def _run(self, now: float, *actions: Action) -> tuple[Action, ...]:
        self._silent_until = now + self.max_silent
        return self._to(Phase.RUNNING, *actions, wake_at=min(self._silent_until, self._job_ends))

    def _abort(self, result: Aborted, by: str | None = None) -> tuple[Action, ...]:
        self._put_back = None
        return self._to(Phase.RECORDING, RecordAborted(result=result, by=by))

    def _return(self, reason: Aborted, *, counted: bool = True, before: tuple[Action, ...] = ()) -> tuple[Action, ...]:
        self._put_back = PutBack(reason=reason, counted=counted)
        return self._to(Phase.RETURNING, *before, self._put_back)

    def _try_later(self, now: float) -> tuple[Action, ...]:
        if self._stops:
            return self._to(Phase.ENDED, Reset())  # it still runs, as far as the database knows: the next start sees it
        return self._to(Phase.RETURNING, Reset(), wake_at=now + RETRY)

    def _what_to_put_back(self) -> PutBack:
        assert self._put_back, "it was lost"
        return self._put_back


def _note(by: str | None) -> tuple[Action, ...]:
    return () if by is None else (NoteCancel(by=by),)


def cancelled(by: str) -> Aborted:
    """Return what the history says of an attempt that somebody has cancelled."""
    return Aborted(message=f"cancelled by {by}")


def could_not_record(reason: str) -> Aborted:
    """Return what the history says of an attempt that failed by the server's own disk."""
    return Aborted(message=f"the server could not record it: {reason}")


def timeout_after(seconds: float, whose: str) -> Aborted:
    """Return what the history says of a job that has taken so long."""
    return Aborted(message=f"timeout after {format_duration(round(seconds * 1000))} ({whose})")


def silent_for(seconds: float) -> Aborted:
    """Return what the history says of a job that has said nothing for so long."""
    return Aborted(message=f"silent for {format_duration(round(seconds * 1000))} (--max-silent of the job)")
