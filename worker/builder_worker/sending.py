"""The way of an attempt through a connection: its lines as they come, and then its result."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from math import inf

import trio
from attrs import define, field

from builder.execution import FinishedHead, finished_head
from builder.framing import frame_header
from builder.messages import JobFinished, Message, Output
from builder.runtime.channel import Channel
from builder_worker.assignment import Assignment
from builder_worker.trees import TreeChanged
from builder_worker.uplink import Lost


@define(eq=False)
class Sender:
    """Sends an attempt. Whatever else is said on the connection goes through it too: two can't send at once."""

    _channel: Channel
    _assignment: Assignment
    _patience: float = inf
    """Seconds in which the other side takes something."""

    is_last_piece: bool = field(init=False, default=False)
    """Whether all is sent, or the end of it is on its way."""

    _turn: trio.Lock = field(init=False, factory=trio.Lock)
    _quiet_until: float = field(init=False, default=-inf)
    """The result is not sent before."""

    async def send(self, line: int) -> None:
        """Send the lines from that one on, and in the end the result and the artifacts.

        Raises TreeChanged if an artifact can't be read any more: the message stays incomplete then.
        """
        await self._assignment.begun.wait()
        lines = self._assignment.spool.follow(line)
        while frames := await lines.next():
            async with self._turn:
                with self._bounded():
                    await self._channel.send_bytes(Output, frames)
            self._quiet_until = trio.current_time() + self._channel.connection.protocol.result_gap
        await self._assignment.ended.wait()
        await trio.sleep_until(self._quiet_until)
        async with self._turn:
            await self._send_end()
        self._assignment.sent.set()

    async def say(self, message: Message) -> None:
        """Send a message between two others."""
        async with self._turn:
            with self._bounded():
                await self._channel.send(message)

    async def _send_end(self) -> None:
        end = self._assignment.end
        left = end.artifacts.length
        head = finished_head(FinishedHead(uuid=self._assignment.uuid, result=end.result), left)
        self.is_last_piece = left == 0
        with self._bounded():
            await self._channel.send_bytes(JobFinished, frame_header(len(head) + left) + head)
        with closing(end.artifacts.chunks()) as chunks:
            while left:
                try:
                    data = await trio.to_thread.run_sync(next, chunks, b"")
                except OSError as error:
                    raise TreeChanged(f"an artifact can't be read any more: {error}") from error
                left -= len(data)
                self.is_last_piece = left == 0
                with self._bounded():
                    await self._channel.send_body(data)

    @contextmanager
    def _bounded(self) -> Iterator[None]:
        """Bound a block in which the other side has to take something."""
        try:
            with trio.fail_after(self._patience):
                yield
        except trio.TooSlowError as error:
            raise Lost(f"the server has taken nothing for {self._patience:g} s; the job was killed") from error
