"""One run of a job that a server gave: what it says, and how it ended, until nobody needs that any more."""

import logging
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path
from typing import Self
from uuid import UUID

import trio
from attrs import define, field

from builder.endpoint import Servers
from builder.history import WORKER_FAULT
from builder.messages import JobFinished
from builder.model import Aborted, Result, ScriptJob
from builder.outputs import Outputs
from builder_worker.artifacts import Collection
from builder_worker.build import BuildEnd, Setup, reopen_build, resume_build, run_build
from builder_worker.console import Progress, only_lines, remark
from builder_worker.handover import LINES, Handover, forget, write_outcome
from builder_worker.job import SendLines
from builder_worker.sandbox import Sandbox, SandboxError, Spare
from builder_worker.spool import LineSpool

log = logging.getLogger("builder_worker")


@define(eq=False, kw_only=True)
class Assignment:
    """A job, its lines in a spool, and its end. ``run`` runs it; who delivers it waits for the events, and releases it."""

    uuid: UUID
    job: ScriptJob
    handover: Handover | None = None
    """What is written down of it, for a worker that comes later; None if the server speaks the classic protocol. That
    knows no such thing, and no times of lines."""

    begun: trio.Event = field(init=False, factory=trio.Event)
    """There is a spool."""

    ended: trio.Event = field(init=False, factory=trio.Event)
    """There is an end; what the job left can be read until it is ``released``."""

    sent: trio.Event = field(init=False, factory=trio.Event)
    """All of it has been sent, and maybe not been taken."""

    released: trio.Event = field(init=False, factory=trio.Event)
    """Nothing of it is needed any more."""

    spool: LineSpool = field(init=False)
    end: BuildEnd = field(init=False)
    fault: SandboxError | None = field(init=False, default=None)
    """What was wrong with this machine."""

    _adopted: tuple[Sandbox, Result | None] | None = None
    """The sandbox of a job that another worker has started, and how the job ended if all of it was said."""

    _sandbox: Sandbox | None = field(init=False, default=None)
    _place: Path | None = field(init=False, default=None)
    _outputs: Outputs = field(init=False)
    _time: int | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        """Be ready to make frames."""
        self._outputs = Outputs(self.uuid)

    @classmethod
    def adopt(cls, handover: Handover, sandbox: Sandbox, result: Result | None, spool: LineSpool) -> Self:
        """Return that of another worker, with what it has written."""
        job = handover.job
        one = cls(uuid=job.uuid, job=job.job, handover=handover, adopted=(sandbox, result))
        one._sandbox, one._place = sandbox, sandbox.place
        one._open(spool)
        frames, _ = spool.read(spool.newest)
        said, _ = one._outputs.read(frames)
        one._time = said[-1].timestamp if said else None
        return one

    @property
    def was_adopted(self) -> bool:
        """Whether another worker has started it, and may have been talking about it with the server."""
        return self._adopted is not None

    def is_of(self, servers: Servers) -> bool:
        """Return whether one of these servers has given it, for all that is written down."""
        return self.handover is None or self.handover.servers.overlaps(servers)

    @property
    def has_ended(self) -> bool:
        """Whether the job is over, though what it left may not have been found yet."""
        return self.ended.is_set() or (self._sandbox is not None and self._sandbox.has_ended)

    @property
    def is_left(self) -> bool:
        """Whether the job, or its end, is kept for another worker."""
        return self._sandbox is not None and self._sandbox.is_left

    def leave(self) -> bool:
        """Let go of the job, if a worker that comes later can adopt it; return whether it can."""
        if self._sandbox is not None and self._place is not None and not self.released.is_set():
            self._sandbox.leave()
        return self.is_left

    async def run(self, setup: Setup, spare: Spare | None) -> None:
        """Run the job, keep what it left until it is released, and remove it.

        What is wrong with the machine is a ``fault``, and the end of the attempt too if that has none yet.
        """
        try:
            async with self._build(setup, spare) as end:
                self._conclude(end)
                await self.released.wait()
                if self._place is not None:
                    forget(self._place)
        except SandboxError as error:
            log.error("%s", error)
            self.fault = error
            if not self.ended.is_set():
                await self._fail(error)

    def _build(self, setup: Setup, spare: Spare | None) -> AbstractAsyncContextManager[BuildEnd]:
        if self._adopted is None:
            return run_build(self.job, self.uuid, setup, self._begin, spare)
        sandbox, result = self._adopted
        if result is not None:
            return reopen_build(sandbox, self.job, setup, result)
        progress, said = self.spool.progress, self.spool.tail
        return resume_build(sandbox, self.job, self.uuid, setup, self._take, progress, said)

    def close(self) -> None:
        """Close the spool, when nobody follows it any more."""
        if self.begun.is_set():
            self.spool.close()

    def spoil(self, error: Exception) -> None:
        """End it by a fault of the machine, instead of with what can't be read any more."""
        log.error("%s", error)
        self.end = _failed(error)

    def _begin(self, sandbox: Sandbox) -> SendLines:
        try:
            self._open(LineSpool.create(sandbox.place / LINES))
            if self.handover is not None:
                self.handover.write(sandbox.place)
                self._place = sandbox.place
            self._sandbox = sandbox
        except OSError as error:
            raise SandboxError(f"the job's lines can't be written: {error.strerror}") from error
        return self._take

    def _open(self, spool: LineSpool) -> None:
        self.spool = spool
        self.begun.set()

    async def _take(self, lines: Sequence[bytes], progress: Progress | None = None, /) -> None:
        """Write lines to the spool, with the time since the job was given, which never goes back."""
        if progress is not None and progress.is_over:
            self.spool.end_console()
        if wanted := only_lines(lines):
            if self.handover is not None:
                at = progress.time if progress else time.monotonic_ns()
                self._time = max(self._time or 0, at - self.handover.begun)
            frames = self._outputs.join(wanted, self._time)
            await self.spool.append(frames, len(wanted), progress)

    def _conclude(self, end: BuildEnd) -> None:
        if self._place is not None:
            try:
                write_outcome(self._place, JobFinished(uuid=self.uuid, result=end.result, artifacts=()))
            except OSError as error:  # who comes later would have to run the job again
                log.error("the result can't be written down: %s", error.strerror)
        self.end = end
        self.spool.complete()
        self.ended.set()

    async def _fail(self, error: SandboxError) -> None:
        """End without a sandbox, and wait until that is delivered."""
        if not self.begun.is_set():
            with tempfile.TemporaryFile() as file:
                self._open(LineSpool(os.dup(file.fileno())))
        end = _failed(error)
        with suppress(SandboxError):
            await self._take([remark(end.artifacts.summary())])
        self._conclude(end)
        await self.released.wait()


def _failed(error: Exception) -> BuildEnd:
    return BuildEnd(result=Aborted(message=f"{WORKER_FAULT}{error}"), artifacts=Collection())
