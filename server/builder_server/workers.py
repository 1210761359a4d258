"""A worker's connection: it waits for a job, gets one, and its console, result and artifacts are recorded."""

import logging
from uuid import UUID

import trio
from attrs import define

from builder.errors import InvalidName, RemoteProtocolError
from builder.execution import ArtifactsStart, Event, FinishedHead, FinishedReader
from builder.framing import StreamedFrame
from builder.messages import GIB, JobSchedule, Message, Output
from builder.model import Aborted, Result, printable
from builder.outputs import Outputs
from builder.runtime.channel import Channel
from builder_server.builds import LOST, TIMEOUT, Builds, LiveBuild, describe
from builder_server.dispatch import Dispatcher
from builder_server.memory import Crowded
from builder_server.names import check_platform_name
from builder_server.peers import CONNECTION_ERRORS, STEP_TIMEOUT, while_connected
from builder_server.results import ResultWriter
from builder_server.shutdown import Shutdown, ShuttingDown
from builder_server.store import Build, StoreError

logger = logging.getLogger(__name__)

MAX_CONSOLE = 4 * GIB
"""Most bytes of a console on the disk: a job in a loop could otherwise fill it. Our worker's own limit is lower."""

ARTIFACT_TIMEOUT = 300.0
"""Seconds without a byte while artifacts arrive, after which the worker counts as gone."""


@define(eq=False)
class WorkerSession:
    """Serves one worker after it asked for a job. ``job_timeout`` is in seconds."""

    channel: Channel
    peer: str
    dispatcher: Dispatcher
    builds: Builds
    shutdown: Shutdown
    job_timeout: float

    async def serve(self, platform: str) -> None:
        """Raises one of CONNECTION_ERRORS, Crowded and ShuttingDown, after the build was put back."""
        check_platform_name(platform)
        logger.debug("%s waits for a job on %s", self.peer, printable(platform))
        build = await self._wait_for_job(platform)
        try:
            live = await self.builds.begin(build)
        except OSError as error:
            logger.error("%s can't begin: %s", describe(build), error)
            await self.builds.lose(build, _not_recorded(error))
            return
        except trio.Cancelled:
            await self.builds.lose(build, count=False)
            raise
        await self._account(live)

    async def _wait_for_job(self, platform: str) -> Build:
        build: Build | None = None
        try:
            with self.shutdown.interruptible():
                build = await while_connected(self.channel, lambda: self.dispatcher.next_build(platform))
        except ShuttingDown:
            if build is not None:
                await self.builds.lose(build, count=False)
            raise
        return build

    async def _account(self, live: LiveBuild) -> None:
        """Run the build and see to it that it is recorded or put back, whatever happens."""
        try:
            await self._run(live)
        except CONNECTION_ERRORS as error:
            logger.warning("%s: worker lost: %s", describe(live.build), error or type(error).__name__)
            await self.builds.lose(live.build)
        except (OSError, StoreError) as error:
            logger.error("%s can't be recorded: %s", describe(live.build), error)
            live.console.clear()  # it may be what filled the disk, and nothing could be recorded while it stays
            await self.builds.lose(live.build, _not_recorded(error))
        except (Crowded, ShuttingDown, trio.Cancelled):
            await self.builds.lose(live.build, count=False)
            raise

    async def _run(self, live: LiveBuild) -> None:
        build = live.build
        ended: Aborted | None = TIMEOUT
        with trio.move_on_after(self.job_timeout), self.shutdown.interruptible():
            with trio.fail_after(STEP_TIMEOUT):
                await self.channel.send(JobSchedule(uuid=build.uuid, job=build.job))
            logger.info("%s begins at %s", describe(build), self.peer)
            ended = await self._receive_console(live)
        if ended is None:
            await self._receive_result(live)
        else:
            logger.warning("%s is ended: %s", describe(build), ended.message)
            await self.builds.abort(build, ended)

    async def _receive_console(self, live: LiveBuild) -> Aborted | None:
        """Append console lines until the job is finished; those that came together are written together.

        Returns None when the result follows, else why the server ends the build.
        """
        outputs = Outputs(live.build.uuid)
        while live.console.size <= MAX_CONSOLE:
            received = await self.channel.receive_outputs(outputs)
            if isinstance(received, StreamedFrame):
                return None
            if not isinstance(received, list):
                received = [_line(received, live.build.uuid)]
            await live.console.append(received, live.elapsed())
            live.notify()
        return Aborted(message=f"more than {MAX_CONSOLE} bytes of console")

    async def _receive_result(self, live: LiveBuild) -> None:
        """Take the job finished as it arrives; a shutdown waits for it."""
        reader = FinishedReader()
        recorder = _Recorder(self.builds, live)
        try:
            while True:
                with trio.fail_after(ARTIFACT_TIMEOUT):
                    data = await self.channel.receive_body()
                if not data:
                    break
                await recorder.take(list(reader.feed(data)))
            reader.finish()
            await recorder.finish()
        finally:
            with trio.CancelScope(shield=True):
                await recorder.discard()


def _line(message: Message, uuid: UUID) -> bytes:
    """Return the line of a message that must be an Output of that build."""
    assert isinstance(message, Output), "a worker that builds sends nothing else"
    if message.uuid != uuid:
        raise RemoteProtocolError(f"output for another build: {message.uuid}")
    return message.line


def _not_recorded(error: OSError | StoreError) -> Aborted:
    """Return the result of a build that was lost too often because of the server's own disk."""
    return Aborted(message=f"the server could not record it: {getattr(error, 'strerror', None) or error}")


@define(eq=False)
class _Recorder:
    """Turns the events of a job finished into the build's record."""

    _builds: Builds
    _live: LiveBuild
    _result: Result = LOST
    _refused: str | None = None
    _writer: ResultWriter | None = None

    async def take(self, events: list[Event]) -> None:
        """Raises OSError, and RemoteProtocolError for another build's result."""
        artifacts: list[Event] = []
        for event in events:
            match event:
                case FinishedHead(uuid=uuid, result=result):
                    if uuid != self._live.build.uuid:
                        raise RemoteProtocolError(f"result of another build: {uuid}")
                    self._result = result
                case ArtifactsStart(length=length):
                    self._writer = await self._builds.begin_result(self._live.build, self._result, data_length=length)
                case _:
                    artifacts.append(event)
        if self._writer is not None and artifacts:
            try:
                await self._writer.add(artifacts)
            except InvalidName as error:
                # the rest is read and dropped, so that the worker is told nothing worse than it deserves
                self._refused = str(error)
                await self.discard()

    async def finish(self) -> None:
        """Record the result. Raises OSError and StoreError."""
        if self._writer is None:
            await self._builds.abort(self._live.build, Aborted(message=self._refused or "no result"))
        else:
            writer, self._writer = self._writer, None
            await self._builds.finish(self._live.build, self._result, writer)

    async def discard(self) -> None:
        """Throw away what was written and not recorded."""
        if self._writer is not None:
            writer, self._writer = self._writer, None
            await writer.discard()
