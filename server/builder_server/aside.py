"""Large replies, put aside in files: so they take memory while they are made, and none for as long as a peer takes.

A peer may take a reply as slowly as it likes, and as many peers as there are places: nobody waits for their memory. What
lies on the disk is bounded too. Where more is needed, those are cut off that have been at it for longest.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import trio
from attrs import define, field

from builder.errors import BuilderError
from builder.messages import KIB, MIB
from builder.runtime.changes import Change
from builder_server.errors import CommandRefused

SMALL = 128 * KIB
"""Largest reply that is kept in memory, in bytes."""

TOTAL = 1024 * MIB
"""Bytes of all files of replies: 250 of the largest scripts."""


class Crowded(BuilderError):
    """A message came or went too slowly while others waited for its room."""


@define(eq=False)
class Aside:
    """A reply as it is sent, in memory or in a file. Whoever has it closes it."""

    size: int
    _data: bytes = b""
    _descriptor: int | None = None
    _on_closed: Callable[[], None] = lambda: None

    @property
    def is_large(self) -> bool:
        """Whether it is in a file."""
        return self._descriptor is not None

    async def read(self, offset: int, count: int) -> bytes:
        """Return so many bytes from there on, fewer at the end. Raises OSError."""
        if self._descriptor is None:
            return self._data[offset : offset + count]
        return await trio.to_thread.run_sync(os.pread, self._descriptor, count, offset)

    def close(self) -> None:
        """Let it go."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._on_closed()


@define(eq=False)
class Replies:
    """All replies that are put aside, below a directory. Sizes are in bytes."""

    _directory: Path
    total: int = field(factory=lambda: TOTAL)
    used: int = 0
    _takers: dict[trio.CancelScope, None] = field(factory=dict)
    _freed: Change = field(factory=Change)

    async def put(self, data: bytes) -> Aside:
        """Return what these bytes can be sent from. Raises CommandRefused if the disk does not take them."""
        size = len(data)
        if size <= SMALL:
            return Aside(size, data)
        await self._make_room(size)
        self.used += size
        try:
            descriptor = await trio.to_thread.run_sync(_written, self._directory, data)
        except BaseException as error:
            self._free(size)
            if not isinstance(error, OSError):
                raise
            why = f"{self._directory}: {error.strerror}"
            raise CommandRefused(f"the reply is large, and the server's disk does not take it: {why}") from error
        return Aside(size, descriptor=descriptor, on_closed=lambda: self._free(size))

    async def _make_room(self, size: int) -> None:
        """Wait until there is room; one that is larger than all the room has it alone."""
        while self.used and self.used + size > self.total:
            freed = self._freed.next
            for scope in self._takers:
                if not scope.cancel_called:
                    scope.cancel()
                    break
            await freed.wait()

    @contextmanager
    def taking(self, aside: Aside) -> Iterator[None]:
        """Mark a block in which a peer takes a reply. Raises Crowded if it was cut off."""
        if not aside.is_large:
            yield
            return
        with trio.CancelScope() as scope:
            self._takers[scope] = None
            try:
                yield
            finally:
                del self._takers[scope]
        if scope.cancelled_caught:
            raise Crowded("a large reply was taken too slowly while others waited for its room")

    def _free(self, size: int) -> None:
        self.used -= size
        self._freed.announce()


def _written(directory: Path, data: bytes) -> int:
    """Return the descriptor of a new file without a name, that holds these bytes."""
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        left = memoryview(data)
        while left:
            left = left[file.write(left) :]
        return os.dup(file.fileno())
