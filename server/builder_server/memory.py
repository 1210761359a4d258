"""Memory for large messages, which all connections share.

A message that is not small is granted all of its bytes before more than the begin of it is read, and keeps them until
it was dealt with. Who finds nothing left waits, the newest first: so a crowd that has waited for long shuts nobody out.
While anybody waits, a message that comes too slowly is cut off.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import trio
from attrs import define, field

from builder.channel import Channel
from builder.connection import Side
from builder.errors import BuilderError
from builder.framing import StreamedFrame
from builder.messages import KIB, MIB, Message

SMALL = 128 * KIB
"""Largest message that needs no grant, in bytes: a line of our own worker, and every command but a large script."""

TOTAL = 128 * MIB
"""Bytes for all larger ones: 8 of the largest lines, or 30 of the largest scripts. More of them wait a moment."""

SLOWEST = 64 * KIB
"""Bytes a second that a message must come with on the whole, while others wait for its memory."""

GRACE = 3.0
"""Seconds for which it may be slower, or may not come at all."""


class Crowded(BuilderError):
    """A message came too slowly while others waited for its memory."""


@define(eq=False)
class Grant:
    """The memory of one message. ``deadline`` is when it counts as slow; it matters only while others wait."""

    size: int
    given: trio.Event = field(factory=trio.Event)
    began: float = 0.0
    deadline: float = 0.0
    receiving: trio.CancelScope | None = None

    def begin(self) -> None:
        """Note that it may be used from now on."""
        self.given.set()
        self.began = trio.current_time()
        self.deadline = self.began + GRACE

    def note(self, arrived: int) -> None:
        """Note that so many bytes of the message are there."""
        self.deadline = GRACE + min(trio.current_time(), self.began + arrived / SLOWEST)


@define(eq=False)
class Memory:
    """What there is for the large messages of all connections. ``free`` is in bytes."""

    free: int = field(factory=lambda: TOTAL)
    _held: set[Grant] = field(factory=set)
    _waiting: list[Grant] = field(factory=list)

    async def grant(self, size: int) -> Grant:
        """Wait for memory of that many bytes; whoever calls it bounds the wait."""
        grant = Grant(size)
        self._waiting.append(grant)
        self._settle()
        try:
            while not grant.given.is_set():
                with trio.move_on_after(GRACE):
                    await grant.given.wait()
                self._cut_off_the_slow()
        except trio.Cancelled:
            self.give_back(grant)
            raise
        return grant

    def give_back(self, grant: Grant) -> None:
        """Let others have it."""
        if grant in self._held:
            self._held.remove(grant)
            self.free += grant.size
            self._settle()
        else:
            self._waiting.remove(grant)

    def _settle(self) -> None:
        while self._waiting and self._waiting[-1].size <= self.free:
            grant = self._waiting.pop()
            self.free -= grant.size
            self._held.add(grant)
            grant.begin()

    def _cut_off_the_slow(self) -> None:
        if not self._waiting:
            return
        now = trio.current_time()
        for grant in self._held:
            if grant.receiving and now > grant.deadline:
                grant.receiving.cancel()


class SharingChannel(Channel):
    """A channel of the server, whose large messages come into the memory that all share. Raises Crowded as well."""

    def __init__(self, stream: trio.SocketStream, memory: Memory) -> None:
        super().__init__(stream, Side.SERVER)
        self._memory = memory
        self._grant: Grant | None = None

    async def receive(self) -> Message | StreamedFrame:
        """Wait for the next message; the one before it is dealt with."""
        self._give_back()
        return await super().receive()

    async def _receive_some(self, size: int) -> None:
        if self.connection.awaited <= SMALL:
            await super()._receive_some(size)
            return
        if self._grant is None:
            self._grant = await self._memory.grant(self.connection.awaited)
        with trio.CancelScope() as self._grant.receiving:
            await super()._receive_some(size)
        if self._grant.receiving.cancelled_caught:
            raise Crowded("a large message came too slowly while others waited to send theirs")
        self._grant.receiving = None
        self._grant.note(self.connection.held)

    def _give_back(self) -> None:
        if self._grant is not None:
            self._memory.give_back(self._grant)
            self._grant = None

    @contextmanager
    def sharing(self) -> Iterator[None]:
        """Have what it holds given back at the end of a connection."""
        try:
            yield
        finally:
            self._give_back()
