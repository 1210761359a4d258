"""What becomes of an attempt at a job: events and the time in, actions out. No I/O, no clock.

An attempt begins when its job is taken from the queue, and ends when it is recorded or put back. Its owner hands in what
happens, an event at a time, and carries out the actions in their order. What an action comes to is an event again; when
one fails, the actions after it are left out and the fault is the next event.

Whose worker may come back has a grace. It loses nothing by a connection that breaks, nor by a server that stops: that
leaves it to the next one.
"""

import enum
import math

from attrs import define

from builder.model import Aborted
from builder_server.aborts import (
    FAULT,
    JOB_LIMIT,
    LOST,
    SERVER_LIMIT,
    could_not_record,
    silent_for,
    timeout_after,
)
from builder_server.actions import (
    Acknowledge,
    Action,
    AddArtifacts,
    AppendLines,
    BeginConsole,
    BeginRecord,
    ClearConsole,
    DiscardRecord,
    Dismiss,
    KeepFacts,
    NoteCancel,
    OpenConsole,
    PutBack,
    Record,
    RecordAborted,
    Release,
    RemoveFiles,
    Resume,
    SendJob,
    TellUploader,
)
from builder_server.events import (
    Artifacts,
    Attached,
    Detached,
    DiskFault,
    EndAsked,
    Event,
    FactsTold,
    Inherited,
    Lines,
    Moved,
    NotPutBack,
    NotRunning,
    OurFault,
    PutBackDone,
    Recorded,
    ResultBegun,
    ResultEnded,
    ResultRefused,
    Returned,
    Stopping,
    TimeCame,
)

RETRY = 10.0
"""Seconds until what the disk did not take is tried again."""

OVER = Aborted(message="it had ended before")
"""What a worker is told whose attempt the database does not have as running."""


class Phase(enum.Enum):
    """How far an attempt is."""

    TAKEN = "nobody has it yet"
    RUNNING = "a worker has it"
    HELD = "a worker has it, and waits for the disk"
    AWAY = "its worker has gone, and may come back"
    RECEIVING = "its result comes"
    RECORDING = "its result, or why it has none, is being made durable"
    RETURNING = "its job goes back to the queue, as soon as the disk allows it"
    ENDED = "it is recorded or put back, or left to another server"


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
    _job_is_over: bool = False
    _rests_until: float = -math.inf
    _undone: tuple[Action, ...] = ()
    _put_back: PutBack | None = None
    _acknowledges: bool = False
    _stops: bool = False
    _limit_of: str = SERVER_LIMIT
    _why: Aborted = LOST  # it is over without its worker

    @property
    def is_lost(self) -> bool:
        """True once its job is to go back to the queue, or can't any more."""
        return self._put_back is not None and self.phase in (Phase.RECORDING, Phase.RETURNING)

    @property
    def is_held(self) -> bool:
        """True while nothing more is to be taken from its worker."""
        return self.phase is Phase.HELD

    def tighten(self, time_limit: float, max_silent: float) -> None:
        """Take the job's own limits where they are lower. They hold from the next Attached or Returned on."""
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
            case (Phase.TAKEN, Inherited()):
                return self._wait(now, PutBack(reason=LOST, counted=True), OpenConsole())
            case (Phase.TAKEN, Detached(reason=reason, counted=counted)):
                return self._return(reason, counted=counted)

            case (Phase.RUNNING, Lines(lines=lines)):
                return self._run(now, AppendLines(lines=lines))
            case (Phase.RUNNING, FactsTold(facts=facts)):
                return (KeepFacts(facts=facts),)
            case (Phase.RUNNING, ResultBegun(result=result, length=length)):
                self._end_job()  # what comes now has all the time it needs
                return self._to(Phase.RECEIVING, BeginRecord(result=result, length=length))
            case (Phase.RUNNING, TimeCame()) if self._silent_until < self._job_ends:
                return self._abort(silent_for(self.max_silent))
            case (Phase.RUNNING | Phase.HELD | Phase.AWAY, TimeCame()) if now >= self._job_ends:
                return self._abort(timeout_after(self.time_limit, self._limit_of))
            case (Phase.RUNNING, DiskFault(counted=False, undone=undone)) if SendJob() not in undone:
                return self._to(Phase.HELD, wake_at=min(now + RETRY, self._job_ends), undone=undone)
            case (Phase.HELD, TimeCame()):
                return self._run(now, *self._undone)  # while they were held, nobody could hear the job

            case (Phase.RECEIVING, Artifacts(pieces=pieces)):
                return (AddArtifacts(pieces=pieces),)
            case (Phase.RECEIVING, ResultRefused(reason=why)):
                return self._abort(Aborted(message=why))
            case (Phase.RECEIVING, ResultEnded()):
                self._acknowledges = True
                return self._to(Phase.RECORDING, Record())
            case (Phase.RECEIVING | Phase.RETURNING, EndAsked(by=by)):
                return _note(by)  # it has ended by itself, and is not to run again if that comes to nothing

            case (Phase.RUNNING | Phase.HELD | Phase.RECEIVING, Detached(reason=reason, counted=counted) as gone):
                if gone.is_final or not self.grace:
                    return self._return(reason, counted=counted)
                return self._wait(now, PutBack(reason=reason, counted=counted))
            case (Phase.RECEIVING, Returned()) if self._stops:
                return self._to(Phase.ENDED, Release())  # to the next server it comes back, too
            case (Phase.RUNNING | Phase.HELD | Phase.AWAY | Phase.RECEIVING, Returned(began=began) as back):
                self._job_ends = began + self.time_limit
                if back.has_ended or self._job_is_over:
                    self._end_job()
                if now < self._rests_until:  # else the same result might come again and again
                    wake_at = min(self._rests_until, self._job_ends)
                    return self._to(Phase.HELD, wake_at=wake_at, undone=(OpenConsole(), Resume()))
                return self._run(now, OpenConsole(), Resume())  # while it was away, nobody could hear the job
            case (Phase.RECORDING, Returned()) if self._acknowledges:
                return ()  # it has its answer when it is recorded
            case (Phase.RECORDING | Phase.RETURNING, Returned()):
                return (Dismiss(reason=self._why.message),)
            case (Phase.AWAY, TimeCame()):
                return self._to(Phase.RETURNING, self._what_to_put_back())

            case (Phase.TAKEN | Phase.RUNNING | Phase.HELD | Phase.AWAY, EndAsked(result=why, by=by)):
                return self._abort(why, by)
            case (Phase.RUNNING | Phase.HELD | Phase.AWAY, Stopping()) if self.grace:
                self._stops = True
                return self._to(Phase.ENDED, Release())
            case (Phase.TAKEN | Phase.RUNNING | Phase.HELD, Stopping()):
                self._stops = True
                return self._return(LOST, counted=False)
            case (Phase.RECEIVING | Phase.RECORDING, Stopping()):
                self._stops = True
                return ()  # what is being written may finish
            case (Phase.RETURNING, Stopping()):
                self._stops = True
                return self._to(Phase.RETURNING, self._what_to_put_back())  # once more, and then the next start's task

            case (Phase.RECORDING, Recorded()):
                told = Acknowledge() if self._acknowledges else Dismiss(reason=self._why.message)
                return self._to(Phase.ENDED, told, TellUploader())
            case (Phase.RETURNING, PutBackDone()):
                return self._to(Phase.ENDED, Dismiss(reason=self._why.message))
            case (Phase.RETURNING, NotPutBack(result=why, by=by)):
                self._why = why
                return self._to(Phase.RECORDING, RecordAborted(result=why, by=by))
            case (Phase.RETURNING, TimeCame()):
                return self._to(Phase.RETURNING, self._what_to_put_back())
            case (Phase.RECORDING | Phase.RETURNING, NotRunning()):
                return self._to(Phase.ENDED, Dismiss(reason=OVER.message))

            case (Phase.ENDED, _):
                return ()
            case (_, Moved()):
                return self._to(Phase.ENDED, Release(), RemoveFiles())
            case (_, DiskFault() | OurFault()) if self.is_lost:
                return self._try_later(now)
            case (Phase.RECEIVING | Phase.RECORDING, DiskFault(counted=False)) if self._keeps_result:
                loss = PutBack(reason=LOST, counted=False)
                self._rests_until = now + RETRY
                return self._wait(now, loss, Release(), DiscardRecord())  # its worker sends it again
            case (Phase.AWAY, DiskFault()):
                return ()  # what could not be done is done again when the worker is back
            case (_, DiskFault(reason=why, counted=counted)):
                return self._return(could_not_record(why), counted=counted, before=(ClearConsole(),))
            case (_, OurFault()):
                return self._return(FAULT)  # counted, or it might happen again and again
            case (
                Phase.AWAY | Phase.RECORDING | Phase.RETURNING,
                Lines() | FactsTold() | ResultBegun() | Artifacts() | ResultEnded() | ResultRefused() | Detached(),
            ):
                return ()  # it was under way when the attempt, or the connection, had come to its end
            case (Phase.RECORDING, EndAsked()):
                return ()
            case _:
                raise UnexpectedEvent(f"{type(event).__name__} in phase {self.phase.name}")

    @property
    def _keeps_result(self) -> bool:
        """Whether what comes, or has come, is a result that the worker keeps until it is recorded."""
        return self.grace > 0 and (self.phase is Phase.RECEIVING or self._acknowledges)

    def _to(
        self, phase: Phase, *actions: Action, wake_at: float = math.inf, undone: tuple[Action, ...] = ()
    ) -> tuple[Action, ...]:
        self.phase = phase
        self.wake_at = wake_at
        self._undone = undone
        return actions

    def _run(self, now: float, *actions: Action) -> tuple[Action, ...]:
        self._put_back = None
        self._silent_until = math.inf if self._job_is_over else now + self.max_silent
        return self._to(Phase.RUNNING, *actions, wake_at=min(self._silent_until, self._job_ends))

    def _end_job(self) -> None:
        self._job_is_over = True
        self._job_ends = math.inf

    def _wait(self, now: float, loss: PutBack, *actions: Action) -> tuple[Action, ...]:
        """Wait for the worker; ``loss`` is what becomes of it if that does not come."""
        self._acknowledges = False
        if self._stops:
            return self._to(Phase.ENDED, Release())
        self._put_back = loss
        return self._to(Phase.AWAY, *actions, wake_at=min(now + self.grace, self._job_ends))

    def _abort(self, result: Aborted, by: str | None = None) -> tuple[Action, ...]:
        self._put_back = None
        self._why = result
        # the job is to be dead at once, and a long console takes a minute to be recorded
        told = Dismiss(reason=result.message)
        return self._to(Phase.RECORDING, told, *_note(by), RecordAborted(result=result, by=by))

    def _return(self, reason: Aborted, *, counted: bool = True, before: tuple[Action, ...] = ()) -> tuple[Action, ...]:
        self._acknowledges = False
        self._why = reason
        self._put_back = PutBack(reason=reason, counted=counted)
        return self._to(Phase.RETURNING, *before, self._put_back)

    def _try_later(self, now: float) -> tuple[Action, ...]:
        if self._stops:  # it still runs, as far as the database knows: the next start sees it
            return self._to(Phase.ENDED, Release())
        return self._to(Phase.RETURNING, Dismiss(reason=self._why.message), wake_at=now + RETRY)

    def _what_to_put_back(self) -> PutBack:
        assert self._put_back, "it was lost"
        self._why = self._put_back.reason
        return self._put_back


def _note(by: str | None) -> tuple[Action, ...]:
    return () if by is None else (NoteCancel(by=by),)
