"""The builds that run: how they begin, how each of their possible ends is recorded, and who watches.

The database says what runs; here is only what a process has besides: the console's file, and the wake-up of those who
observe. Every end of a build goes through one of ``finish``, ``abort``, ``lose`` and ``put_back``.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import trio
from attrs import define, field

from builder.execution import ExecutionEnd
from builder.model import Aborted, Instant, Result, printable
from builder_server import console
from builder_server.results import ResultWriter, build_dir, make_build_dir
from builder_server.store import Build, Store, StoreError

logger = logging.getLogger(__name__)

LOST = Aborted(message="worker lost")
TIMEOUT = Aborted(message="timeout")


@define(eq=False)
class LiveBuild:
    """A build that runs, as its observers see it."""

    build: Build
    console: console.ConsoleWriter
    _began: float
    ended: bool = False
    _changed: trio.Event = field(factory=trio.Event)

    @property
    def changed(self) -> trio.Event:
        """Return the event that tells of more of the console, or of the end."""
        return self._changed

    def elapsed(self) -> int:
        """Return the nanoseconds since the build began."""
        return int((trio.current_time() - self._began) * 1e9)

    def notify(self) -> None:
        """Wake the observers."""
        event, self._changed = self._changed, trio.Event()
        event.set()


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

    def find(self, uuid: UUID) -> LiveBuild | None:
        """Return the build if it runs here."""
        return self._live.get(uuid)

    async def begin(self, build: Build) -> LiveBuild:
        """Prepare the directory and the console of a build that was taken. Raises OSError."""
        directory = await trio.to_thread.run_sync(make_build_dir, self.data_dir, build)
        writer = console.ConsoleWriter(directory / console.FILE_NAME, build.uuid)
        live = LiveBuild(build, writer, trio.current_time())
        self._live[build.uuid] = live
        return live

    async def begin_result(self, live: LiveBuild, result: Result, *, data_length: int) -> ResultWriter:
        """Begin the record of a build whose result is known; artifacts of that length follow. Raises OSError."""
        writer = ResultWriter(build_dir(self.data_dir, live.build))
        end = ExecutionEnd(started=live.build.started, finished=self.now(), result=result)
        await writer.begin(live.build, end, live.console.extent(), data_length=data_length)
        return writer

    async def finish(self, live: LiveBuild, result: Result, writer: ResultWriter) -> None:
        """Make a result durable, on disk and then in the database. Raises OSError and StoreError."""
        with trio.CancelScope(shield=True):  # bounded by the disk; half of it is of no use to anybody
            await writer.commit()
            await self._record(live.build, result)
            self._end(live)

    async def abort(self, live: LiveBuild, result: Aborted) -> None:
        """Record that the server ended a build: no artifacts. Raises OSError and StoreError."""
        with trio.CancelScope(shield=True):
            writer = await self.begin_result(live, result, data_length=0)
            await self.finish(live, result, writer)

    async def put_back(self, build: Build, *, count: bool) -> bool:
        """Return the job of a build that never began, or lost its worker, to its queue; False after too many losses.

        What the database can't do now, the next start does: to it the build still runs. Never raises StoreError.
        """
        try:
            queued = await self.store.lose(build.uuid, self.now(), LOST, count=count)
        except StoreError as error:
            logger.error("%s can't be put back, the next start will: %s", describe(build), error)
            return True
        if queued:
            self.on_queued()
        return queued

    async def lose(self, live: LiveBuild, *, count: bool = True) -> None:
        """Take a build from its worker: back to the queue, or recorded as failed after too many losses."""
        with trio.CancelScope(shield=True):
            if not await self.put_back(live.build, count=count):
                logger.warning("%s lost too many workers: recorded as failed", describe(live.build))
                try:
                    await self.abort(live, LOST)
                except (OSError, StoreError) as error:
                    logger.error("%s can't be recorded, the next start will: %s", describe(live.build), error)
            self._end(live)

    def _end(self, live: LiveBuild) -> None:
        if self._live.pop(live.build.uuid, None) is None:
            return  # it was recorded
        live.console.close()
        live.ended = True
        live.notify()

    async def _record(self, build: Build, result: Result) -> None:
        if await self.store.finish(build.uuid, self.now(), result, upload=self.upload):
            logger.info("%s finished: %s", describe(build), printable(str(result)))
            self.on_finished()
        else:
            logger.error("%s does not run any more: its result was not recorded", describe(build))

    async def recover(self) -> None:
        """Put back what ran when the last server ended. Raises OSError and StoreError."""
        for build in await self.store.running():
            directory = await trio.to_thread.run_sync(make_build_dir, self.data_dir, build)
            extent = await trio.to_thread.run_sync(console.repair, directory / console.FILE_NAME)
            writer = ResultWriter(directory)
            if await self.store.lose(build.uuid, self.now(), LOST, count=True):
                logger.warning("%s was interrupted: queued again", describe(build))
                await writer.discard()
            else:
                logger.warning("%s lost too many workers: recorded as failed", describe(build))
                end = ExecutionEnd(started=build.started, finished=self.now(), result=LOST)
                await writer.begin(build, end, extent, data_length=0)
                await writer.commit()
                await self._record(build, LOST)


def describe(build: Build) -> str:
    """Return how a log names a build."""
    return f"build {build.uuid} of {printable(build.job.name)} on {printable(build.job.platform)}"
