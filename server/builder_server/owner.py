"""The task that owns an attempt, from before its job is taken until it is recorded or put back, whatever happens.

It hands what happens to ``Attempt``, which decides, and carries out what that says. A worker's session attaches to it: the
two meet in an ``Attachment``, another one for each session. A fault of the disk, of a peer or of ours is an event like any
other, so that no end of a build is left out.
"""

import contextlib
import errno
import logging
import math
from collections import deque
from collections.abc import Callable, Collection
from uuid import UUID

import trio
from attrs import define, evolve, field

from builder.errors import InvalidName
from builder.execution import ArtifactData, ArtifactStart, ExecutionEnd
from builder.extension.halting import Target
from builder.extension.watching import Changed, What
from builder.model import Aborted, Instant, Result
from builder.outputs import Outputs, TimedLines
from builder.runtime.logs import note
from builder.sizes import format_size
from builder_server.aborts import cancelled
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
from builder_server.attachment import Attachment, Given, Resumed
from builder_server.attempt import Attempt, Phase
from builder_server.console import CUT, ConsoleWriter
from builder_server.dispatch import Dispatcher
from builder_server.errors import CommandRefused
from builder_server.events import (
    Attached,
    Detached,
    DiskFault,
    Event,
    Inherited,
    Moved,
    NotPutBack,
    NotRunning,
    OurFault,
    PutBackDone,
    Recorded,
    ResultRefused,
    Returned,
    TimeCame,
)
from builder_server.limits import ServerLimits
from builder_server.logs import note_build
from builder_server.recorder import Recorder
from builder_server.results import ResultWriter
from builder_server.store import AfterLoss, Build, Expand, Holder, StoreError, Taken
from builder_server.store.waking import targets_of

logger = logging.getLogger(__name__)

NOBODY: dict[str, object] = {"peer": None, "holder": None}
"""Fields of the log, of an attempt that no worker is attached to."""


def seconds(limit: int | None) -> float:
    """Return a limit in milliseconds in seconds; endless is what has none."""
    return math.inf if limit is None else limit / 1000


@define(eq=False, kw_only=True)
class Owner:
    """Owns an attempt that is still to be taken, or one that an earlier server has left.

    ``on_changed`` is called when its console has begun, and when it was tried to put it back.
    """

    uuid: UUID
    platform: str
    recorder: Recorder
    attempt: Attempt
    limits: ServerLimits = field(factory=ServerLimits)
    on_changed: Callable[[], None]
    worker: Holder
    since: Instant
    """When its worker began to wait, or the build."""
    job: str | None = None
    """The name of its job, None while its worker waits for one."""
    away_since: Instant | None = None
    """When the worker went that may come back; None if it is there."""
    secret: bytes | None = None
    """What that worker is given, if it may come back."""
    build: Build | None = None
    console: ConsoleWriter | None = None
    """Lines come; None before the first ones and for an attempt of an earlier server."""
    attachment: Attachment = field(init=False)
    is_asked: bool = False
    """It was tried, once, to put it back."""

    _told: list[Event] = field(factory=list)
    _waiting: trio.CancelScope = field(factory=trio.CancelScope)
    _may_be_taken: bool = False
    _began: float | None = None  # None for an attempt of an earlier server whose worker was not back
    _trouble: str = ""  # what the disk did not take, as the log has it
    _end: ExecutionEnd | None = None
    _is_delivered: bool = False  # the record has what the worker said
    _ended_by: str | None = None
    _writer: ResultWriter | None = None
    _artifacts: int = 0

    def __attrs_post_init__(self) -> None:
        self.attachment = Attachment.to(self.uuid, self._tell_from)

    def is_drained(self, halted: Collection[Target]) -> bool:
        """Return whether its worker gets no job while that is drained."""
        # made when it is needed: thousands of workers may wait
        return bool(halted) and any(
            target in halted for target in targets_of(self.recorder.store.owner, self.platform, self.worker.known_as)
        )

    def tell(self, event: Event) -> None:
        """Have it deal with an event before all that the worker sends. For as long as it waits for a job, that ends it."""
        self._told.append(event)
        self._waiting.cancel()

    def note_pressure(self, pressure: str) -> None:
        """Note why its worker takes no job now, or that it does. That of one that has a job matters to nobody."""
        if self.job is None and pressure != self.worker.pressure:
            self.worker = self.worker.under(pressure)
            self._waiting.cancel()

    def _tell_from(self, attachment: Attachment, event: Event) -> None:
        if attachment is self.attachment:
            self.tell(event)

    def take_back(self, elapsed: float, *, has_ended: bool) -> Attachment:
        """Have the worker back, in place of the session that it had: what that one still hands in counts no more.

        ``elapsed`` are the seconds since the attempt began; they matter where that was under an earlier server.
        """
        self.attachment.end()
        self.attachment = Attachment.to(self.uuid, self._tell_from)
        if self._began is None:
            self._began = trio.current_time() - elapsed
        self.tell(Returned(began=self._began, has_ended=has_ended))
        return self.attachment

    # --- the task --------------------------------------------------------------------------------------------------

    async def run(self, dispatcher: Dispatcher) -> None:
        """Take a job, and own the attempt at it to its end."""
        try:
            if (event := await self._take(dispatcher)) is not None:
                await self._own(event)
        finally:
            self._leave()

    async def run_interrupted(self) -> None:
        """Own an attempt that an earlier server has left."""
        try:
            await self._own(Inherited() if self.attempt.grace else Detached())
        finally:
            self._leave()

    async def _take(self, dispatcher: Dispatcher) -> Event | None:
        """Return what happens to the attempt first, None if there is none."""
        try:
            while self.build is None:
                with trio.CancelScope() as self._waiting:
                    if self._told:
                        return None
                    await dispatcher.wait_for_job(self.platform, self.worker, self._ask)
        except CommandRefused as error:
            self.attachment.end(failure=error)
            return None
        except Exception as error:  # noqa: BLE001 - the session ends with it, and tells
            self.attachment.end(failure=error)
            return await self._fault(error) if self._may_be_taken else None
        return self._told.pop(0) if self._told else Attached()

    async def _ask(self, expand: Expand | None) -> Taken:
        """Ask the store for a job, once it is its worker's turn."""
        started, self._began = self.recorder.now(), trio.current_time()
        self._may_be_taken = True
        taken = await self.recorder.store.take(self.platform, self.uuid, started, expand, self.worker)
        self.build = taken.build
        self._may_be_taken = taken.build is not None
        if taken.build:
            self.job, self.since = taken.build.job.name, started
            self.attempt.tighten(seconds(taken.build.time_limit), seconds(taken.build.max_silent))
        return taken

    async def _own(self, event: Event) -> None:
        note(uuid=self.uuid)
        if self.build:
            note_build(self.build)
        while True:
            note(**{**NOBODY, **self.attachment.holder})
            outcome = await self._handle(event)
            self._note_presence()
            if self.attempt.phase is Phase.ENDED:
                return
            del event  # which may be a line of 16 MiB, and the next one may take an hour
            event = outcome or await self._next_event()

    def _note_presence(self) -> None:
        """Have those who watch see that the worker is away, or is back."""
        is_away = self.attempt.phase is Phase.AWAY
        if is_away is (self.away_since is None):
            self.away_since = self.recorder.now() if is_away else None
            what = What.WORKER_AWAY if is_away else What.WORKER_BACK
            change = Changed(point=0, what=what, job=self.job, platform=self.platform, uuid=self.uuid)
            self.recorder.store.waking.changes.add([change])

    async def _next_event(self) -> Event:
        if self._told:
            return self._told.pop(0)
        receive = self.attachment.receive
        if self.attempt.is_held:
            with trio.CancelScope() as self._waiting:
                await trio.sleep_until(self.attempt.wake_at)
            return self._told.pop(0) if self._told else TimeCame()
        # looked at, since a worker that sends without end leaves no time for a deadline
        if trio.current_time() < self.attempt.wake_at:
            with trio.CancelScope(deadline=self.attempt.wake_at) as self._waiting:
                while (event := await receive.receive()) is None:
                    pass  # whoever sent it knows now that all before it is dealt with
                return event
        elif not self.attempt.is_overdue(trio.current_time()):
            with contextlib.suppress(trio.WouldBlock):  # what has waited for a slow disk breaks the silence
                while (event := receive.receive_nowait()) is None:
                    pass
                return event
        return self._told.pop(0) if self._told else TimeCame()

    async def _handle(self, event: Event) -> Event | None:
        """Carry out what follows from an event, and return what comes of that."""
        left: deque[Action] = deque()
        try:
            left.extend(self.attempt.handle(event, trio.current_time()))
            while left:
                outcome = await self._carry_out(left[0])
                self._note_done(left.popleft(), outcome)
                if outcome is not None:
                    return outcome
        except (OSError, StoreError) as error:
            self._log_fault(error)
            return await self._fault(error, tuple(left))
        except Exception as error:
            logger.exception("internal error")
            return await self._fault(error)
        return None

    def _log_fault(self, error: Exception) -> None:
        """Say it once: it is tried again and again, by its worker too."""
        trouble = "put back, trying again" if self.attempt.is_lost else "recorded"
        is_known = trouble == self._trouble
        self._trouble = trouble
        logger.log(logging.DEBUG if is_known else logging.ERROR, "can't be %s: %s", trouble, error)

    def _note_done(self, action: Action, outcome: Event | None) -> None:
        """Say that the trouble is over, once something is on the disk: part of a result may be no further than memory."""
        if self._trouble and isinstance(action, AppendLines) | isinstance(outcome, Recorded | PutBackDone):
            self._trouble = ""
            logger.info("goes on: the disk takes what comes")

    async def _fault(self, error: Exception, undone: tuple[Action, ...] = ()) -> Event:
        if not isinstance(error, OSError | StoreError):
            return OurFault()
        is_too_large = getattr(error, "errno", None) == errno.EFBIG  # a file of the job's, whatever the disk has
        counted = self.build is not None and (is_too_large or await self.recorder.is_filled_by(self.build))
        return DiskFault(reason=str(getattr(error, "strerror", None) or error), counted=counted, undone=undone)

    async def _carry_out(self, action: Action) -> Event | None:
        match action:
            case BeginConsole():
                self.console = await self.recorder.begin_console(self._taken)
                self.on_changed()
            case SendJob():
                assert self._began is not None, "it was taken here"
                self.attachment.give(Given(build=self._taken, began=self._began, secret=self.secret))
            case OpenConsole():
                await self._open_console()
            case Resume():
                assert self.console, "it was opened"
                self.attachment.resume(Resumed(lines=self.console.lines, last=self.console.last))
            case AppendLines(lines=lines):
                assert self.console, "it was begun"
                await self._append(self.console, lines)
                self.recorder.done.console_bytes += len(lines.frames)
            case KeepFacts(facts=facts):
                await self.recorder.note_facts(self.uuid, facts)
            case ClearConsole():
                if self.console:
                    self.console.clear()
            case BeginRecord(result=result, length=length):
                if length > self.limits.artifact_bytes:
                    return ResultRefused(reason=f"more than {format_size(self.limits.artifact_bytes)} of artifacts")
                self._is_delivered = True
                self._artifacts = 0
                await self._begin_record(result, length)
            case AddArtifacts(pieces=pieces):
                assert self._writer, "it was begun"
                self._artifacts += sum(isinstance(piece, ArtifactStart) for piece in pieces)
                if self._artifacts > self.limits.artifacts:
                    return ResultRefused(reason=f"more than {self.limits.artifacts} artifacts")
                try:
                    await self._writer.add(pieces)
                    sizes = (len(piece.data) for piece in pieces if isinstance(piece, ArtifactData))
                    self.recorder.done.artifact_bytes += sum(sizes)
                except InvalidName as error:
                    return ResultRefused(reason=str(error))
            case Record():
                return await self._record()
            case RecordAborted(result=why, by=by):
                if await self._found() is None:
                    return NotRunning()
                logger.warning("ended: %s", why.message)
                self._ended_by = by
                self._is_delivered = False
                await self._begin_record(why, 0)
                return await self._record()
            case NoteCancel(by=by):
                return None if await self.recorder.note_cancel(self.uuid, by) else await self._not_here()
            case PutBack(reason=reason, counted=counted):
                return await self._put_back(reason, counted=counted)
            case DiscardRecord():
                if self._writer:
                    await self._writer.discard()
            case RemoveFiles():
                await self._remove_files()
            case Acknowledge():
                self.attachment.end(acknowledged=True)
            case Dismiss(reason=reason):
                self.attachment.end(dismissed=reason)
            case Release():
                self.attachment.end()
            case TellUploader():
                self.recorder.on_recorded()
        return None

    async def _append(self, to: ConsoleWriter, lines: TimedLines) -> None:
        """Append, or cut the console where it is long enough: the first line that is left out becomes one that says so."""
        if not to.is_cut and to.size < self.limits.console:
            await to.append(lines)
            return
        if not to.is_cut:
            limit = format_size(self.limits.console)
            said = CUT + f"{limit}: the build goes on".encode()
            # at the time of the line before it: those that it stands for come again after a restart, and none may be earlier
            await to.append(Outputs(self.uuid).timed([said], to.last))
            to.is_cut = True
            logger.warning("its console is cut at %s", limit)
            lines = evolve(lines, count=lines.count - 1)
        to.skip(lines)

    async def _found(self) -> Build | None:
        """Return the build, which of an attempt of an earlier server, or after a fault, is in the database alone."""
        if self.build is None:
            self.build = await self.recorder.find(self.uuid)
            if self.build:
                note_build(self.build)
            if self.build and self._began is None and not self.attempt.grace:
                logger.warning("interrupted")
        return self.build

    async def _open_console(self) -> None:
        if self.console is None and (build := await self._found()):
            self.console = await self.recorder.reopen_console(build)
            self.on_changed()

    async def _begin_record(self, result: Result, length: int) -> None:
        if self._writer:
            self._writer.close()
        self._end = ExecutionEnd(started=self._taken.started, finished=self._finished(), result=result)
        self._writer = self.recorder.writer(self._taken)
        await self.recorder.begin_record(self._writer, self._taken, self._end, self.console, length=length)

    async def _record(self) -> Event:
        assert self._writer, "it was begun"
        assert self._end, "it was begun"
        if not await self.recorder.finish(
            self._writer,
            self._taken,
            self._end,
            is_lost=self.attempt.is_lost and self._ended_by is None,
            ended_by=self._ended_by,
            is_delivered=self._is_delivered,
        ):
            logger.error("does not run here any more: its result was not recorded")
            return await self._not_here()
        logger.info("finished: %s", self._end.result)
        return Recorded()

    async def _put_back(self, reason: Aborted, *, counted: bool) -> Event:
        try:
            if self._writer and not self._writer.committed:
                await self._writer.discard()  # it may be what fills the disk
            if (build := await self._found()) is None:
                return NotRunning()
            found = await self.recorder.put_back(build, self._finished(), reason, counted=counted)
        finally:
            self.is_asked = True
            self.on_changed()
        match found:
            case AfterLoss.PUT_BACK:
                if self.attempt.grace:  # else its session, or the start, has told
                    logger.warning("queued again: %s", reason.message)
                return PutBackDone()
            case AfterLoss.TOO_MANY:
                logger.warning("lost too often: recorded as failed")
                return NotPutBack(result=reason)
            case AfterLoss.NOT_RUNNING:
                return await self._not_here()
            case str() as by:
                return NotPutBack(result=cancelled(by), by=by)

    async def _not_here(self) -> Event:
        """Return what has become of an attempt that the database does not have as running here."""
        return Moved() if await self.recorder.is_running(self.uuid) else NotRunning()

    async def _remove_files(self) -> None:
        if self._writer:
            self._writer.close()
        if self.console:
            self.console.close()
        if await self.recorder.remove_if_moved(self.uuid):
            logger.warning("another server has it now")

    def _finished(self) -> Instant:
        """Return when it ends if it ends now: the wall clock may have been set meanwhile, and is not asked."""
        started = self._taken.started
        if self._began is None:  # of an earlier server
            return max(started, self.recorder.now())
        return Instant(started.ms + int((trio.current_time() - self._began) * 1000))

    @property
    def _taken(self) -> Build:
        assert self.build, "it was taken"
        return self.build

    def _leave(self) -> None:
        self.is_asked = True
        self.attachment.end()
        if self._writer:
            self._writer.close()
        if self.console:
            self.console.close()
