"""One run of a job that a server gave: what it says, and how it ended, until nobody needs that any more."""

import logging
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import trio
from attrs import define, field

from builder.history import WORKER_FAULT
from builder.messages import JobFinished
from builder.model import Aborted, ScriptJob
from builder.outputs import Outputs
from builder_worker.artifacts import Collection
from builder_worker.build import BuildEnd, Setup, run_build
from builder_worker.console import Progress, only_lines, remark
from builder_worker.handover import LINES, Handover, write_outcome
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

    _place: Path | None = field(init=False, default=None)
    _outputs: Outputs = field(init=False)
    _time: int | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        """Be ready to make frames."""
        self._outputs = Outputs(self.uuid)

    async def run(self, setup: Setup, spare: Spare | None) -> None:
        """Run the job, keep what it left until it is released, and remove it.

        What is wrong with the machine is a ``fault``, and the end of the attempt too if that has none yet.
        """
        try:
            async with run_build(self.job, self.uuid, setup, self._begin, spare) as end:
                self._conclude(end)
                await self.released.wait()
        except SandboxError as error:
            log.error("%s", error)
            self.fault = error
            if not self.ended.is_set():
                await self._fail(error)

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
        except OSError as error:
            raise SandboxError(f"the job's lines can't be written: {error.strerror}") from error
        return self._take

    def _open(self, spool: LineSpool) -> None:
        self.spool = spool
        self.begun.set()

    async def _take(self, lines: Sequence[bytes], progress: Progress | None = None, /) -> None:
        """Write lines to the spool, with the time since the job was given, which never goes back."""
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
