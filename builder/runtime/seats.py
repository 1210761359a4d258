"""Seats for connections, of which a crowd can't take all: who keeps this program waiting goes for a newcomer.

That is whoever has waited for longest in the block that it is in: first of those that have asked for nothing, then of those
that take no answer, or send nothing of what they had begun. Where this program itself is busy with all, a newcomer waits.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import trio
from attrs import define, field

from builder.runtime.changes import Change


@define(eq=False)
class Seat:
    """The seat of a connection, which ends when ``scope`` is cancelled."""

    _seats: "Seats"
    scope: trio.CancelScope = field(init=False, factory=trio.CancelScope)

    @contextmanager
    def waiting(self, *, has_asked: bool = False) -> Iterator[None]:
        """Mark a block in which the peer is waited for; ``has_asked``: in the middle of a request, or of its answer."""
        waiting = self._seats.waiting[has_asked]
        waiting[self] = None
        self._seats.note_change()
        try:
            yield
        finally:
            waiting.pop(self, None)

    def leave(self) -> None:
        """Give it back."""
        self._seats.leave(self)


@define(eq=False)
class Seats:
    """All seats. ``waiting`` are those of peers that are waited for, the first one for longest: before a request, and in one."""

    limit: int
    waiting: tuple[dict[Seat, None], dict[Seat, None]] = field(init=False, factory=lambda: ({}, {}))
    _taken: set[Seat] = field(init=False, factory=set)
    _changed: Change = field(init=False, factory=Change)

    @property
    def has_room(self) -> bool:
        """Whether a newcomer gets a seat now."""
        return len(self._taken) < self.limit or any(self.waiting)

    async def wait_room(self) -> None:
        """Wait until it does."""
        while not self.has_room:
            await self._changed.next.wait()

    def take(self) -> Seat:
        """Return the seat of a newcomer. It is one too many where there is no room, as there was when it was waited for."""
        if len(self._taken) >= self.limit and self.has_room:
            waiting = next(filter(None, self.waiting))
            longest = next(iter(waiting))
            del waiting[longest]
            self._taken.remove(longest)
            longest.scope.cancel()
        seat = Seat(self)
        self._taken.add(seat)
        return seat

    def leave(self, seat: Seat) -> None:
        """Take back the seat of a connection that has ended."""
        self._taken.discard(seat)
        self.note_change()

    def note_change(self) -> None:
        """Wake who waits for room, if there may be some now."""
        if len(self._taken) >= self.limit - 1:
            self._changed.announce()
