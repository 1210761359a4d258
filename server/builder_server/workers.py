"""A classic worker's connection: it waits for a job, gets one, and what the worker sends goes to the owner of the attempt."""

import logging
from uuid import UUID

import trio
from attrs import define

from builder.errors import ProtocolError, RemoteProtocolError
from builder.framing import StreamedFrame
from builder.messages import JobRequested, JobSchedule, Message, Output
from builder.outputs import Outputs
from builder.runtime.logs import note
from builder_server.aborts import FAULT
from builder_server.aside import Crowded
from builder_server.attachment import Attachment
from builder_server.attempts import Attempts
from builder_server.console import MAX_LINE
from builder_server.delivery import receive_result
from builder_server.events import Detached, Lines
from builder_server.logs import about_build
from builder_server.memory import SharingChannel
from builder_server.names import check_platform_name
from builder_server.peers import CONNECTION_ERRORS, STEP_TIMEOUT
from builder_server.permission import Peer
from builder_server.store import Holder

logger = logging.getLogger(__name__)


@define(eq=False)
class WorkerSession:
    """Serves one worker after it asked for a job."""

    channel: SharingChannel
    peer: Peer
    attempts: Attempts
    _has_job: bool = False

    async def serve(self, platform: str) -> None:
        """Raises one of CONNECTION_ERRORS, Crowded, and what kept the worker from getting a job."""
        check_platform_name(platform)
        self.peer.check_worker(JobRequested, platform)
        note(platform=platform)
        logger.debug("waits for a job on %s", platform)
        attachment = self.attempts.attach(platform, Holder(address=str(self.peer)))
        try:
            with attachment.scope:
                await self._serve(attachment)
        except BaseException as error:
            attachment.detach(self._detached(error))
            if not self._has_job or not isinstance(error, CONNECTION_ERRORS):
                raise
            with about_build(attachment.build):
                logger.warning("worker lost: %s", str(error) or "it was too slow")
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
        await attachment.wait_answered(self.channel.wait_closed)
        build = attachment.build
        self.channel.reset_at_close(reset=True)  # until its result is recorded: a proper end would tell that it is
        self._has_job = True
        with trio.fail_after(STEP_TIMEOUT):
            await self.channel.send(JobSchedule(uuid=build.uuid, job=build.job))
        with about_build(build):
            logger.info("begins at %s", self.peer)
            await self._receive_console(attachment)
            await receive_result(self.channel, attachment, build.uuid)
            await trio.sleep_forever()  # the owner ends it, when the result is recorded or can't be

    async def _receive_console(self, attachment: Attachment) -> None:
        """Hand in console lines until the job is finished; those that came together are handed in together."""
        uuid = attachment.build.uuid
        outputs = Outputs(uuid)
        while not isinstance(received := await self.channel.receive_outputs(outputs.cut), StreamedFrame):
            lines = received if isinstance(received, list) else [_line(received, uuid)]
            if (longest := max(map(len, lines))) > MAX_LINE:
                raise RemoteProtocolError(f"a console line of {longest} bytes")
            await attachment.hand_in(Lines(lines=outputs.timed(lines, attachment.elapsed())))
            if self.channel.has_grant:
                del received, lines
                await attachment.settle()  # the memory is needed until then


def _line(message: Message, uuid: UUID) -> bytes:
    """Return the line of a message that must be an Output of that build."""
    assert isinstance(message, Output), "a worker that builds sends nothing else"
    if message.uuid != uuid:
        raise RemoteProtocolError(f"output for another build: {message.uuid}")
    return message.line
