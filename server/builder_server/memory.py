"""Memory for large messages, which all connections share.

A message that is not small is granted all of its bytes before more than the begin of it is read, and keeps them until
it was dealt with. Who finds nothing left waits, the newest first: so a crowd that has waited for long shuts nobody out.
While anybody waits, a message that its peer sends too slowly is cut off. Large replies take memory while they are made,
few at a time; then they are put aside.
"""

import contextlib
import ctypes
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import trio
from attrs import define, field

from builder import codec
from builder.extension.order import ALL
from builder.framing import StreamedFrame, frame
from builder.messages import KIB, MIB, Kind, Message
from builder.order import Protocols, Side
from builder.runtime.channel import RECEIVE_SIZE, Channel
from builder.runtime.encrypted import EncryptedStream
from builder.runtime.sockets import bound_unsent, reset_at_close
from builder_server.aside import SMALL, Aside, Crowded, Replies
from builder_server.turns import Turns

TOTAL = 128 * MIB
"""Bytes for all larger ones: 8 of the largest lines, or 30 of the largest scripts. More of them wait a moment."""

T = TypeVar("T")

SLOWEST = 64 * KIB
"""Bytes a second that a message must have on the whole, while others wait for its memory."""

LONGEST = 15.0
"""Seconds that the largest ones may take meanwhile, which must be the faster for it: who waits has 30."""

GRACE = 3.0
"""Seconds for which it may be slower, or may stand still."""

PIECE = 64 * KIB
"""Bytes of a reply that are in memory while it is sent."""


_LARGE_BLOCK = 2 * MIB
_M_MMAP_THRESHOLD = -3


def return_large_blocks() -> None:
    """Have large blocks of memory go back to the system when they are freed.

    By default glibc keeps those of the size of a large line for later, in holes that hardly ever fit: a few workers with
    such lines made a server of several times the memory that they may have. Other systems need nothing of that.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)


DECODED_AT_ONCE = 2
"""Large messages that are decoded at once, in threads of their own."""

MADE_AT_ONCE = 2
"""Replies that may be large, and are made at once: a crowd of them would have all threads and all memory."""


@define(eq=False)
class Grant:
    """The memory of one message. ``deadline`` is when its peer counts as slow; it matters only while others wait."""

    size: int
    given: trio.Event = field(factory=trio.Event)
    deadline: float = 0.0
    _began: float = 0.0
    _peer: trio.CancelScope | None = None

    def begin(self) -> None:
        """Note that it is the peer's turn from now on."""
        self._began = trio.current_time()
        self.deadline = self._began + GRACE

    def note(self, size: int) -> None:
        """Note that so many bytes of the message have come or gone."""
        rate = max(SLOWEST, self.size / LONGEST)
        self.deadline = GRACE + min(trio.current_time(), self._began + size / rate)

    @contextmanager
    def at_peer(self) -> Iterator[None]:
        """Mark a block in which the peer is waited for. Raises Crowded if it was cut off."""
        with trio.CancelScope() as self._peer:
            yield
        if self._peer.cancelled_caught:
            raise Crowded("a large message was too slow while others waited for its memory")
        self._peer = None

    def cut_off(self) -> None:
        """End the wait for the peer, if that is what its owner does."""
        if self._peer:
            self._peer.cancel()


@define(eq=False)
class Memory:
    """What there is for the large messages of all connections. Sizes are in bytes.

    Messages of up to SMALL need no grant: lines of our own worker, and every command but a large script.
    """

    replies: Replies
    total: int = field(factory=lambda: TOTAL)
    free: int = field(init=False)
    decoding: trio.CapacityLimiter = field(factory=lambda: trio.CapacityLimiter(DECODED_AT_ONCE))
    making: Turns = field(factory=lambda: Turns(MADE_AT_ONCE))
    received: int = 0
    """Bytes of all messages since the start, small ones too."""

    _held: set[Grant] = field(factory=set)
    _waiting: list[Grant] = field(factory=list)

    @free.default
    def _all(self) -> int:
        return self.total

    async def grant(self, size: int) -> Grant:
        """Wait for memory of that many bytes, or for all there is; whoever calls it bounds the wait.

        What is small is not counted, and does not wait.
        """
        grant = Grant(0 if size <= SMALL else min(size, self.total))
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
        for grant in [*reversed(self._waiting)]:
            if grant.size > self.free:
                continue  # others may fit
            self._waiting.remove(grant)
            self.free -= grant.size
            self._held.add(grant)
            grant.begin()
            grant.given.set()

    def _cut_off_the_slow(self) -> None:
        if not self._waiting:
            return
        now = trio.current_time()
        for grant in self._held:
            if now > grant.deadline:
                grant.cut_off()


def _framed(message: Message) -> bytes:
    return frame(codec.encode(message))


class SharingChannel(Channel):
    """A channel of the server, whose large messages come into the memory that all share. Raises Crowded as well."""

    def __init__(
        self, stream: trio.SocketStream | EncryptedStream, memory: Memory, as_peer: Protocols | None = None
    ) -> None:
        """``as_peer`` are the protocols of a server that asks another one."""
        super().__init__(stream, Side.SERVER if as_peer is None else Side.PEER, ALL if as_peer is None else as_peer)
        self._socket = stream
        self._memory = memory
        self._grant: Grant | None = None

    def reset_at_close(self, *, reset: bool) -> None:
        """Have the connection end by a reset, or in order."""
        reset_at_close(self._socket, reset=reset)

    def bound_unsent(self, seconds: float) -> None:
        """Have the kernel end the connection when the peer reads nothing for so long."""
        bound_unsent(self._socket, seconds)

    async def linger(self, seconds: float) -> None:
        """Say that no more is sent, and throw away what comes, for so long or until the peer closes.

        A connection that is closed with bytes unread is reset, and the peer may never read what it was told last.
        """
        with trio.move_on_after(seconds), contextlib.suppress(trio.BrokenResourceError):
            await self._socket.send_eof()
            while await self._socket.receive_some(RECEIVE_SIZE):
                pass

    @property
    def has_grant(self) -> bool:
        """Whether the message that was received last has memory that others may wait for, until the next is asked for."""
        return self._grant is not None and self._grant.size > 0

    async def receive(self) -> Message | StreamedFrame:
        """Wait for the next message; the one before it is dealt with."""
        self.give_back()
        while True:
            if SMALL < self.connection.awaited <= self.connection.held:
                # in a thread: nobody else would be served for a second, which a schedule of thousands of jobs takes
                limiter = self._memory.decoding
                message = await trio.to_thread.run_sync(self.connection.next_message, limiter=limiter)
            else:
                message = self.connection.next_message()
            if message is not None:
                return message
            await self._receive_some(RECEIVE_SIZE)

    async def receive_outputs(self, cut: Callable[[bytes], tuple[list[T], int]]) -> list[T] | Message | StreamedFrame:
        """Wait for the next console lines or another message; what came before is dealt with."""
        self.give_back()
        return await super().receive_outputs(cut)

    async def receive_body(self) -> bytes:
        """Wait for more of a job finished's body, for which no memory is granted."""
        self.give_back()
        return await super().receive_body()

    async def _receive_some(self, size: int) -> int:
        if self.connection.awaited <= SMALL:
            return self._count(await super()._receive_some(size))
        if self._grant is None:
            self._grant = await self._memory.grant(self.connection.awaited)
        with self._grant.at_peer():
            count = await super()._receive_some(size)
        self._grant.note(self.connection.held)
        return self._count(count)

    def _count(self, count: int) -> int:
        self._memory.received += count
        return count

    async def in_turn(self, work: Callable[[], T]) -> T:
        """Do in a thread what takes long, as few at a time as replies are made."""
        async with self._memory.making.turn():
            return await trio.to_thread.run_sync(work)

    async def send_reply(self, make: Callable[[], Awaitable[Message]], *, is_large: bool) -> None:
        """Send the message that ``make`` returns. Raises CommandRefused where it is large and the disk is full.

        ``is_large``: it is likely to be, or takes long to make. Then it waits for its turn; what is small never does.
        """
        async with self._memory.making.turn() if is_large else contextlib.nullcontext():
            message = await make()
            kind = type(message)
            made = await trio.to_thread.run_sync(_framed, message)
            del message
            aside = await self._memory.replies.put(made)
            del made
        try:
            await self.send_aside(kind, aside)
        finally:
            aside.close()

    async def send_aside(self, kind: Kind, aside: Aside) -> None:
        """Send frames that were put aside. Raises Crowded, and OSError."""
        with self._memory.replies.taking(aside):
            await self.send_bytes(kind, await aside.read(0, PIECE))
            for start in range(PIECE, aside.size, PIECE):
                await self.send_body(await aside.read(start, PIECE))

    def give_back(self) -> None:
        """Let others have the memory that it holds."""
        if self._grant is not None:
            self._memory.give_back(self._grant)
            self._grant = None
