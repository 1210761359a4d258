"""The builds that run: how they begin, how each of their possible ends is recorded, and who watches.

The database says what runs; here is only what a process has besides: the console's file, and the wake-up of those who
observe. Every end of a build goes through one of ``finish``, ``abort`` and ``lose``.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import trio
from attrs import define, field, frozen

from builder.execution import ExecutionEnd
from builder.model import Aborted, Instant, Result, printable
from builder.runtime.changes import Change
from builder_server import console
from builder_server.results import ResultWriter, build_dir, make_build_dir
from builder_server.store import AfterLoss, Build, Store, StoreError

logger = logging.getLogger(__name__)

LOST = Aborted(message="worker lost")
TIMEOUT = Aborted(message="timeout")

RETRY = 10.0
"""Seconds until the end of a build that could not be recorded is tried again."""


@frozen
class _Loss:
    build: Build
    reason: Aborted
    count: bool


@define(eq=False)
class LiveBuild:
    """A build that runs, as its observers see it."""

    build: Build
    console: console.ConsoleWriter
    _began: float
    ended: bool = False
    _changed: Change = field(factory=Change)

    @property
    def changed(self) -> trio.Event:
        """Return the event that tells of more of the console, or of the end."""
        return self._changed.next

    def elapsed(self) -> int:
        """Return the nanoseconds since the build began."""
        return int((trio.current_time() - self._began) * 1e9)

    def notify(self) -> None:
        """Wake the observers."""
        self._changed.announce()


@define(eq=False)
class Builds:
    """All builds of a server. ``on_finished`` is called for a build that was recorded, for the uploader."""

    store: Store
    data_dir: Path
    now: Callable[[], Instant]
    upload: bool
    on_finished: Callable[[], None]
    on_queued: Callable[[], None]
    _live: dict[UUID, LiveBuild] = field(factory=dict)
    _stuck: list[_Loss] = field(factory=list)
    _changed: Change = field(factory=Change)

    async def find(self, uuid: UUID) -> tuple[Build, LiveBuild | None] | None:
        """Return a build, and what is live of it if it runs here. Raises StoreError.

        It waits for a build that was taken and is about to begin, and for one whose end is still to be recorded.
        """
        while True:
            changed = self._changed.next
            if live := self._live.get(uuid):
                return live.build, live
            build = await self.store.find_build(uuid)
            if build is None:
                return None
            if build.state != "running":
                return build, None
            await changed.wait()

    async def begin(self, build: Build) -> LiveBuild:
        """Prepare the directory and the console of a build that was taken. Raises OSError."""
        directory = await trio.to_thread.run_sync(make_build_dir, self.data_dir, build)
        writer = console.ConsoleWriter(directory / console.FILE_NAME, build.uuid)
        live = LiveBuild(build, writer, trio.current_time())
        self._live[build.uuid] = live
        self._notify()
        return live

    async def begin_result(self, build: Build, result: Result, *, data_length: int) -> ResultWriter:
        """Begin the record of a build whose result is known; artifacts of that length follow. Raises OSError."""
        writer = ResultWriter(build_dir(self.data_dir, build))
        end = ExecutionEnd(started=build.started, finished=self.now(), result=result)
        await writer.begin(build, end, await self._extent(build), data_length=data_length)
        return writer

    async def _extent(self, build: Build) -> console.Extent:
        if live := self._live.get(build.uuid):
            return live.console.extent()
        directory = await trio.to_thread.run_sync(make_build_dir, self.data_dir, build)
        return await trio.to_thread.run_sync(console.repair, directory / console.FILE_NAME, build.uuid)

    async def finish(self, build: Build, result: Result, writer: ResultWriter) -> None:
        """Make a result durable, on disk and then in the database.

        Raises OSError and StoreError: then nothing was recorded, and no ``full`` says otherwise.
        """
        with trio.CancelScope(shield=True):  # bounded by the disk; half of it is of no use to anybody
            try:
                await writer.commit()
                recorded = await self.store.finish(build.uuid, self.now(), result, upload=self.upload)
            except (OSError, StoreError):
                await writer.discard()
                raise
            if recorded:
                logger.info("%s finished: %s", describe(build), printable(str(result)))
                self.on_finished()
            else:
                logger.error("%s does not run any more: its result was not recorded", describe(build))
                await writer.discard()
            self._end(build)

    async def abort(self, build: Build, result: Aborted) -> None:
        """Record that the server ended a build: no artifacts. Raises OSError and StoreError."""
        with trio.CancelScope(shield=True):
            await self.finish(build, result, await self.begin_result(build, result, data_length=0))

    async def lose(self, build: Build, reason: Aborted = LOST, *, count: bool = True) -> None:
        """Take a build from its worker: back to the queue, or recorded as failed after too many losses.

        What the disk does not allow now is tried again by ``run``, and by the next start.
        """
        with trio.CancelScope(shield=True):
            try:
                await self._lose(build, reason, count=count)
            except (OSError, StoreError) as error:
                logger.error("%s can't be put back, trying again: %s", describe(build), error)
                self._stuck.append(_Loss(build, reason, count))
            self._end(build)

    async def _lose(self, build: Build, reason: Aborted, *, count: bool) -> None:
        match await self.store.lose(build.uuid, self.now(), reason, count=count):
            case AfterLoss.PUT_BACK:
                await ResultWriter(build_dir(self.data_dir, build)).discard()
                self.on_queued()
            case AfterLoss.TOO_MANY:
                logger.warning("%s was lost too often: recorded as failed", describe(build))
                await self.abort(build, reason)

    async def run(self) -> None:
        """Try again, for ever, to end the builds whose end the disk did not take."""
        while True:
            await trio.sleep(RETRY)
            stuck, self._stuck = self._stuck, []
            for loss in stuck:
                await self.lose(loss.build, loss.reason, count=loss.count)

    async def recover(self) -> None:
        """Put back what ran when the last server ended. Raises OSError and StoreError."""
        for build in await self.store.running():
            logger.warning("%s was interrupted", describe(build))
            await self._extent(build)  # repairs the console, which observers may ask for
            await self._lose(build, LOST, count=True)

    def _end(self, build: Build) -> None:
        live = self._live.pop(build.uuid, None)
        if live is not None:
            live.console.close()
            live.ended = True
            live.notify()
        self._notify()

    def _notify(self) -> None:
        self._changed.announce()


def describe(build: Build) -> str:
    """Return how a log names a build."""
    return f"build {build.uuid} of {printable(build.job.name)} on {printable(build.job.platform)}"
