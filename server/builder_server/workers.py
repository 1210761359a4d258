"""A worker's connection: it waits for a job, gets one, and what the worker sends goes to the owner of the attempt."""

import logging
from collections.abc import Iterator
from uuid import UUID

import trio
from attrs import define

from builder import execution
from builder.errors import ProtocolError, RemoteProtocolError, TooManyArtifacts
from builder.execution import ArtifactData, ArtifactsStart, ArtifactStart, FinishedHead, FinishedReader
from builder.framing import StreamedFrame
from builder.messages import KIB, JobSchedule, Message, Output
from builder.model import Result, printable
from builder.outputs import Outputs
from builder_server.aside import Crowded
from builder_server.attempt import FAULT, Artifacts, Detached, Event, Lines, ResultBegun, ResultEnded, ResultRefused
from builder_server.attempts import Attempts
from builder_server.console import MAX_LINE
from builder_server.logs import describe
from builder_server.memory import SharingChannel
from builder_server.names import check_platform_name
from builder_server.owner import Attachment
from builder_server.peers import CONNECTION_ERRORS, STEP_TIMEOUT, while_connected

logger = logging.getLogger(__name__)

ARTIFACT_TIMEOUT = 300.0
"""Seconds without a byte while artifacts arrive, after which the worker counts as gone."""

SLOWEST_RESULT = 8 * KIB
"""Bytes a second that a worker must send on the whole, beyond those seconds: else a byte now and then would keep a job."""

MAX_PIECES = 1000
"""Pieces of artifacts that are handed on together: half a megabyte of input can unfold to 50 000."""


@define(eq=False)
class WorkerSession:
    """Serves one worker after it asked for a job."""

    channel: SharingChannel
    peer: str
    attempts: Attempts
    _has_job: bool = False

    async def serve(self, platform: str) -> None:
        """Raises one of CONNECTION_ERRORS, Crowded, and what kept the worker from getting a job."""
        check_platform_name(platform)
        logger.debug("%s waits for a job on %s", self.peer, printable(platform))
        attachment = self.attempts.attach(platform, self.peer)
        try:
            with attachment.scope:
                await self._serve(attachment)
        except BaseException as error:
            attachment.detach(self._detached(error))
            if not self._has_job or not isinstance(error, CONNECTION_ERRORS):
                raise
            logger.warning("%s: worker lost: %s", describe(attachment.build), str(error) or "it was too slow")
            await attachment.wait_ended()
        if attachment.failure:
            raise attachment.failure
        if attachment.acknowledged:
            self.channel.reset_at_close(reset=False)

    def _detached(self, error: BaseException) -> Detached:
        match error:
            case ProtocolError() | trio.BrokenResourceError() | trio.TooSlowError():
                return Detached(counted=self._has_job)
            case Crowded() | trio.Cancelled():
                return Detached(counted=False)
            case _:
                return Detached(reason=FAULT)

    async def _serve(self, attachment: Attachment) -> None:
        await while_connected(self.channel, attachment.wait_job)
        build = attachment.build
        self.channel.reset_at_close(reset=True)  # until its result is recorded: a proper end would tell that it is
        self._has_job = True
        with trio.fail_after(STEP_TIMEOUT):
            await self.channel.send(JobSchedule(uuid=build.uuid, job=build.job))
        logger.info("%s begins at %s", describe(build), self.peer)
        await self._receive_console(attachment)
        await self._receive_result(attachment)
        await trio.sleep_forever()  # the owner ends it, when the result is recorded or can't be

    async def _receive_console(self, attachment: Attachment) -> None:
        """Hand in console lines until the job is finished; those that came together are handed in together."""
        uuid = attachment.build.uuid
        outputs = Outputs(uuid)
        while not isinstance(received := await self.channel.receive_outputs(outputs), StreamedFrame):
            lines = received if isinstance(received, list) else [_line(received, uuid)]
            if (longest := max(map(len, lines))) > MAX_LINE:
                raise RemoteProtocolError(f"a console line of {longest} bytes")
            await attachment.hand_in(Lines(lines=lines, timestamp=attachment.elapsed()))
            if self.channel.has_grant:
                del received, lines
                await attachment.settle()  # the memory is needed until then

    async def _receive_result(self, attachment: Attachment) -> None:
        """Hand in the job finished as it arrives."""
        reader = FinishedReader()
        unfolding = Unfolding(attachment.build.uuid)
        credit = 0.0  # seconds by which it is late, if they are negative; those that our disk takes do not count
        while True:
            begun = trio.current_time()
            with trio.fail_after(max(0.0, ARTIFACT_TIMEOUT + credit)):
                data = await self.channel.receive_body()
            credit = min(0.0, credit - (trio.current_time() - begun) + len(data) / SLOWEST_RESULT)
            if not data:
                break
            try:
                for event in unfolding.of(reader.feed(data)):
                    await attachment.hand_in(event)
            except TooManyArtifacts as error:
                await attachment.hand_in(ResultRefused(reason=str(error)))
                return
        reader.finish()
        await attachment.hand_in(ResultEnded())


def _line(message: Message, uuid: UUID) -> bytes:
    """Return the line of a message that must be an Output of that build."""
    assert isinstance(message, Output), "a worker that builds sends nothing else"
    if message.uuid != uuid:
        raise RemoteProtocolError(f"output for another build: {message.uuid}")
    return message.line


@define(eq=False)
class Unfolding:
    """Turns what is read of a job finished into the events of an attempt, some pieces of artifacts at a time."""

    uuid: UUID
    _result: Result | None = None

    def of(self, found: Iterator[execution.Event]) -> Iterator[Event]:
        """Raises RemoteProtocolError for another build's result."""
        pieces: list[ArtifactStart | ArtifactData] = []
        for event in found:
            match event:
                case FinishedHead(uuid=uuid, result=result):
                    if uuid != self.uuid:
                        raise RemoteProtocolError(f"result of another build: {uuid}")
                    self._result = result
                case ArtifactsStart(length=length):
                    assert self._result, "it comes first"
                    yield ResultBegun(result=self._result, length=length)
                case ArtifactStart() | ArtifactData():
                    pieces.append(event)
                    if len(pieces) == MAX_PIECES:
                        yield Artifacts(pieces=pieces)
                        pieces = []
        if pieces:
            yield Artifacts(pieces=pieces)
