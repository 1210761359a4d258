"""A result as it comes from a worker: its artifacts are handed in some at a time, and are never all in memory."""

from collections.abc import Iterator
from uuid import UUID

import trio
from attrs import define

from builder import execution
from builder.errors import RemoteProtocolError, TooManyArtifacts
from builder.execution import ArtifactData, ArtifactsStart, ArtifactStart, FinishedHead, FinishedReader
from builder.messages import KIB
from builder.model import Result
from builder_server.attachment import Attachment
from builder_server.events import Artifacts, Event, ResultBegun, ResultEnded, ResultRefused
from builder_server.memory import SharingChannel

ARTIFACT_TIMEOUT = 300.0
"""Seconds without a byte while artifacts arrive, after which the worker counts as gone."""

SLOWEST_RESULT = 8 * KIB
"""Bytes a second that a worker must send on the whole, beyond those seconds: else a byte now and then would keep a job."""

MAX_PIECES = 1000
"""Pieces of artifacts that are handed on together: half a megabyte of input can unfold to 50 000."""


async def receive_result(channel: SharingChannel, attachment: Attachment, uuid: UUID) -> None:
    """Hand in the job finished as it arrives."""
    reader = FinishedReader()
    unfolding = Unfolding(uuid)
    credit = 0.0  # seconds by which it is late, if they are negative; those that our disk takes do not count
    while True:
        begun = trio.current_time()
        with trio.fail_after(max(0.0, ARTIFACT_TIMEOUT + credit)):
            data = await channel.receive_body()
        credit = min(0.0, credit - (trio.current_time() - begun) + len(data) / SLOWEST_RESULT)
        if not data:
            break
        try:
            for event in unfolding.of(reader.feed(data)):
                await attachment.hand_in(event)
        except TooManyArtifacts as error:
            await attachment.hand_in(ResultRefused(reason=str(error)))
            await trio.sleep_forever()  # the owner ends it, and the rest is not read
    reader.finish()
    await attachment.hand_in(ResultEnded())


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
