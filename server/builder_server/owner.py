"""The task that owns an attempt, from before its job is taken until it is recorded or put back, whatever happens.

It hands what happens to ``Attempt``, which decides, and carries out what that says. A worker's session attaches to it: the
two meet in an ``Attachment``. A fault of the disk, of a peer or of ours is an event like any other, so that no end of a
build is left out.
"""

import contextlib
import errno
import logging
import math
from collections import deque
from collections.abc import Callable
from uuid import UUID

import trio
from attrs import define, field

from builder.errors import InvalidName
from builder.execution import ExecutionEnd
from builder.messages import GIB
from builder.model import Aborted, Instant, Result, printable
from builder.sizes import format_size
from builder_server.attempt import (
    Acknowledge,
    Action,
    AddArtifacts,
    AppendLines,
    Attached,
    Attempt,
    BeginConsole,
    BeginRecord,
    ClearConsole,
    Detached,
    DiskFault,
    EndAsked,
    Event,
    NoteCancel,
    NotPutBack,
    NotRunning,
    OurFault,
    Phase,
    PutBack,
    PutBackDone,
    Record,
    RecordAborted,
    Recorded,
    Reset,
    ResultRefused,
    SendJob,
    TellUploader,
    TimeCame,
    cancelled,
)
from builder_server.console import ConsoleWriter
from builder_server.dispatch import Dispatcher
from builder_server.errors import CommandRefused
from builder_server.logs import describe
from builder_server.recorder import Recorder
from builder_server.results import ResultWriter
from builder_server.store import AfterLoss, Build, Expand, StoreError, Taken

logger = logging.getLogger(__name__)

MAX_CONSOLE = 4 * GIB
"""Most bytes of a console on the disk: a job in a loop could otherwise fill it. Our worker's own limit is lower."""


def _seconds(limit: int | None) -> float:
    """Return a limit in milliseconds in seconds; endless is what has none."""
    return math.inf if limit is None else limit / 1000


@define(eq=False)
class Attachment:
    """Where a worker's session and the owner of its attempt meet.

    The session works in ``scope``, which the owner ends. Then either ``failure`` is what the session is to end with, or
    ``acknowledged`` says whether the worker's result is durable.
    """

    _events: trio.MemorySendChannel[Event | None]
    _tell: Callable[[Event], None]
    scope: trio.CancelScope = field(factory=trio.CancelScope)
    failure: Exception | None = None
    acknowledged: bool = False
    _build: Build | None = None
    _began: float = 0.0
    _given: trio.Event = field(factory=trio.Event)
    _ended: trio.Event = field(factory=trio.Event)

    # the session's side

    async def wait_job(self) -> None:
        """Wait until there is a job; it may take days."""
        await self._given.wait()

    @property
    def build(self) -> Build:
        """The attempt that was given."""
        assert self._build, "wait_job comes first"
        return self._build

    def elapsed(self) -> int:
        """Return the nanoseconds since the attempt began."""
        return int((trio.current_time() - self._began) * 1e9)

    async def hand_in(self, event: Event) -> None:
        """Hand in what the worker sent. It waits until what was handed in before is dealt with, and on the disk."""
        await self._events.send(event)

    async def settle(self) -> None:
        """Wait until all that was handed in is dealt with, and on the disk."""
        await self._events.send(None)

    def detach(self, event: Detached) -> None:
        """Say that the worker has gone."""
        self._tell(event)

    async def wait_ended(self) -> None:
        """Wait until the attempt has ended, or its end has to wait for the disk."""
        await self._ended.wait()

    # the owner's side

    def give(self, build: Build, began: float) -> None:
        """Give the job to the session."""
        self._build = build
        self._began = began
        self._given.set()

    def end(self, *, acknowledged: bool = False, failure: Exception | None = None) -> None:
        """End the session, if it has not ended; only the first end counts."""
        if not self.scope.cancel_called:
            self.acknowledged = acknowledged
            self.failure = failure
            self.scope.cancel()
            self._ended.set()


@define(eq=False, kw_only=True)
class Owner:
    """Owns an attempt that is still to be taken, or one that an earlier server has left.

    ``on_changed`` is called when its console has begun, and when it was tried to put it back.
    """

    uuid: UUID
    recorder: Recorder
    attempt: Attempt
    on_changed: Callable[[], None]
    worker: str | None = None
    """The address of the worker that it is for."""
    build: Build | None = None
    console: ConsoleWriter | None = None
    """Lines come; None before the first ones and for an attempt of an earlier server."""
    attachment: Attachment = field(init=False)
    asked: trio.Event = field(factory=trio.Event)
    """It was tried, once, to put it back."""

    _receive: trio.MemoryReceiveChannel[Event | None] = field(init=False)
    _told: deque[Event] = field(factory=deque)
    _waiting: trio.CancelScope = field(factory=trio.CancelScope)
    _may_be_taken: bool = False
    _began: float | None = None  # None for an attempt of an earlier server
    _end: ExecutionEnd | None = None
    _ended_by: str | None = None
    _writer: ResultWriter | None = None

    def __attrs_post_init__(self) -> None:
        send, self._receive = trio.open_memory_channel[Event | None](0)
        self.attachment = Attachment(send, self.tell)

    def tell(self, event: Event) -> None:
        """Have it deal with an event before all that the worker sends. For as long as it waits for a job, that ends it."""
        self._told.append(event)
        self._waiting.cancel()

    # --- the task --------------------------------------------------------------------------------------------------

    async def run(self, dispatcher: Dispatcher, platform: str) -> None:
        """Take a job of a platform, and own the attempt at it to its end."""
        try:
            if (event := await self._take(dispatcher, platform)) is not None:
                await self._own(event)
        finally:
            self._leave()

    async def run_interrupted(self) -> None:
        """Own an attempt that an earlier server has left."""
        try:
            await self._own(Detached())
        finally:
            self._leave()

    async def _take(self, dispatcher: Dispatcher, platform: str) -> Event | None:
        """Return what happens to the attempt first, None if there is none."""

        async def take(expand: Expand | None) -> Taken:
            started, self._began = self.recorder.now(), trio.current_time()
            self._may_be_taken = True
            taken = await self.recorder.store.take(platform, self.uuid, started, expand, worker=self.worker)
            self.build = taken.build
            self._may_be_taken = taken.build is not None
            if taken.build:
                self.attempt.tighten(_seconds(taken.build.time_limit), _seconds(taken.build.max_silent))
            return taken

        try:
            with trio.CancelScope() as self._waiting:
                if self._told:
                    return None
                await dispatcher.wait_for_job(platform, take)
        except CommandRefused as error:
            self.attachment.end(failure=error)
            return None
        except Exception as error:  # noqa: BLE001 - the session ends with it, and tells
            self.attachment.end(failure=error)
            return await self._fault(error) if self._may_be_taken else None
        if self.build is None:
            return None
        return self._told.popleft() if self._told else Attached()

    async def _own(self, event: Event) -> None:
        while True:
            outcome = await self._handle(event)
            if self.attempt.phase is Phase.ENDED:
                return
            del event  # which may be a line of 16 MiB, and the next one may take an hour
            event = outcome or await self._next_event()

    async def _next_event(self) -> Event:
        if self._told:
            return self._told.popleft()
        # looked at, since a worker that sends without end leaves no time for a deadline
        if trio.current_time() < self.attempt.wake_at:
            with trio.CancelScope(deadline=self.attempt.wake_at) as self._waiting:
                while (event := await self._receive.receive()) is None:
                    pass  # whoever sent it knows now that all before it is dealt with
                return event
        elif not self.attempt.is_overdue(trio.current_time()):
            with contextlib.suppress(trio.WouldBlock):  # what has waited for a slow disk breaks the silence
                while (event := self._receive.receive_nowait()) is None:
                    pass
                return event
        return self._told.popleft() if self._told else TimeCame()

    async def _handle(self, event: Event) -> Event | None:
        """Carry out what follows from an event, and return what comes of that."""
        try:
            for action in self.attempt.handle(event, trio.current_time()):
                if (outcome := await self._carry_out(action)) is not None:
                    return outcome
        except (OSError, StoreError) as error:
            trouble = "put back, trying again" if self.attempt.is_lost else "recorded"
            logger.error("%s can't be %s: %s", self, trouble, error)
            return await self._fault(error)
        except Exception as error:
            logger.exception("%s: internal error", self)
            return await self._fault(error)
        return None

    async def _fault(self, error: Exception) -> Event:
        if not isinstance(error, OSError | StoreError):
            return OurFault()
        is_too_large = getattr(error, "errno", None) == errno.EFBIG  # a file of the job's, whatever the disk has
        counted = self.build is not None and (is_too_large or await self.recorder.is_filled_by(self.build))
        return DiskFault(reason=str(getattr(error, "strerror", None) or error), counted=counted)

    async def _carry_out(self, action: Action) -> Event | None:
        match action:
            case BeginConsole():
                self.console = await self.recorder.begin_console(self._taken)
                self.on_changed()
            case SendJob():
                assert self._began is not None, "it was taken here"
                self.attachment.give(self._taken, self._began)
            case AppendLines(lines=lines, timestamp=timestamp):
                assert self.console, "it was begun"
                await self.console.append(lines, timestamp)
                if self.console.size > MAX_CONSOLE:
                    return EndAsked(result=Aborted(message=f"more than {format_size(MAX_CONSOLE)} of console"))
            case ClearConsole():
                if self.console:
                    self.console.clear()
            case BeginRecord(result=result, length=length):
                await self._begin_record(result, length)
            case AddArtifacts(pieces=pieces):
                assert self._writer, "it was begun"
                try:
                    await self._writer.add(pieces)
                except InvalidName as error:
                    return ResultRefused(reason=str(error))
            case Record():
                return await self._record()
            case RecordAborted(result=why, by=by):
                logger.warning("%s is ended: %s", self, why.message)
                self._ended_by = by
                await self._begin_record(why, 0)
                return await self._record()
            case NoteCancel(by=by):
                return None if await self.recorder.note_cancel(self.uuid, by) else NotRunning()
            case PutBack(reason=reason, counted=counted):
                return await self._put_back(reason, counted=counted)
            case Acknowledge():
                self.attachment.end(acknowledged=True)
            case Reset():
                self.attachment.end()
            case TellUploader():
                self.recorder.on_recorded()
        return None

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
        ):
            logger.error("%s does not run any more: its result was not recorded", self)
            return NotRunning()
        logger.info("%s finished: %s", self, printable(str(self._end.result)))
        return Recorded()

    async def _put_back(self, reason: Aborted, *, counted: bool) -> Event:
        try:
            if self._writer and not self._writer.committed:
                await self._writer.discard()  # it may be what fills the disk
            if self.build is None:
                self.build = await self.recorder.find(self.uuid)
                if self.build and self._began is None:
                    logger.warning("%s was interrupted", self)
            if self.build is None:
                return NotRunning()
            found = await self.recorder.put_back(self.build, self._finished(), reason, counted=counted)
        finally:
            self.asked.set()
            self.on_changed()
        match found:
            case AfterLoss.PUT_BACK:
                return PutBackDone()
            case AfterLoss.TOO_MANY:
                logger.warning("%s was lost too often: recorded as failed", self)
                return NotPutBack(result=reason)
            case AfterLoss.NOT_RUNNING:
                return NotRunning()
            case str() as by:
                return NotPutBack(result=cancelled(by), by=by)

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
        self.asked.set()
        self.attachment.end()
        if self._writer:
            self._writer.close()
        if self.console:
            self.console.close()

    def __str__(self) -> str:
        return describe(self.build) if self.build else f"attempt {self.uuid}"
