"""The delivery of an attempt to a server of the classic protocol: over the connection that brought the job, or not at all.

That protocol does not acknowledge a result. It counts as delivered when all of it was sent and the server then closed the
connection properly; a server that closes earlier, or resets, has lost it and will run the job again.
"""

import trio
from attrs import define, field

from builder.errors import ConnectionEnded, ProtocolError
from builder.reasons import reason_of
from builder.runtime.channel import Channel
from builder.runtime.nurseries import plain_nursery
from builder_worker.assignment import Assignment
from builder_worker.sending import Sender
from builder_worker.uplink import Lost

CLOSE_TIMEOUT = 3600.0
"""Seconds in which a server stores a result and closes; the original uploads it first, and can only send it once."""

STALL_TIMEOUT = 3600.0
"""Seconds in which a server that is there takes something of what it is sent: one that was stopped may go on."""


@define(eq=False)
class ClassicDelivery:
    """Delivers an attempt while its connection lasts."""

    _channel: Channel
    _assignment: Assignment
    _sender: Sender = field(init=False)
    _closed: trio.Event = field(init=False, factory=trio.Event)
    _end: Exception | None = field(init=False, default=None)
    """How the connection ended."""

    def __attrs_post_init__(self) -> None:
        """Be ready to send."""
        self._sender = Sender(self._channel, self._assignment, STALL_TIMEOUT)

    async def run(self) -> None:
        """Return when the server has stored the result. Raises Lost, and TreeChanged if an artifact can't be read any more."""
        delivered = False
        async with plain_nursery() as nursery:
            nursery.start_soon(self._watch, nursery.cancel_scope)
            try:
                await self._sender.send(0)
            except trio.BrokenResourceError as error:
                raise Lost(f"the connection to the server broke: {reason_of(error)}") from error
            self._assignment.released.set()
            await self._wait_stored()
            delivered = True
            nursery.cancel_scope.cancel()
        if not delivered:
            raise Lost(f"the server went away ({_reason_of_end(self._end)}); the job was killed") from self._end

    async def _watch(self, scope: trio.CancelScope) -> None:
        """Notice the end of the connection; before the result is out, it is the end of the job too."""
        try:
            await self._channel.wait_closed()
        except (ProtocolError, trio.BrokenResourceError) as error:
            self._end = error
        self._closed.set()
        if not self._sender.is_last_piece:
            scope.cancel()

    async def _wait_stored(self) -> None:
        with trio.move_on_after(CLOSE_TIMEOUT) as waiting:
            await self._closed.wait()
        if waiting.cancelled_caught:
            raise Lost(f"the server has not taken the result for {CLOSE_TIMEOUT:g} s")
        if not isinstance(self._end, ConnectionEnded):
            raise Lost(f"the server did not take the result: {_reason_of_end(self._end)}") from self._end


def _reason_of_end(error: Exception | None) -> str:
    return reason_of(error) if error else "it closed the connection"
