"""How many may be connected, and who goes when all places are taken.

Whoever has not said yet what it wants gives its place to a newcomer: first those that have not even said hello, the one
that has been there longest before the others. So a crowd that says nothing shuts nobody out. Whoever has asked for
something is never closed for it; those that then stay, to wait for a job or to watch a build, can't have all places.
"""

import logging
import resource
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio
from attrs import define, field

from builder.errors import BuilderError
from builder_server.errors import CommandRefused
from builder_server.limits import DEFAULTS

logger = logging.getLogger(__name__)

_STAYING = 3, 4
"""The part of all places for workers and observers; the rest is for commands, which are answered and gone."""

_DESCRIPTORS = 3
"""Descriptors of a connection at most: its socket, a console, a result."""

_SPARE_DESCRIPTORS = 64
"""For the database, the threads, uploads, and listening."""


class NoPlace(BuilderError):
    """A connection was closed since there are too many."""


class Closed(BuilderError):
    """A connection was closed for what became known of its peer."""


def connections_for_descriptors(wanted: int) -> int:
    """Take as many descriptors as may be had, and return for how many of the connections they are enough.

    A server that runs out of them in the middle of a build would lose that build.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        return wanted
    enough = max(_DESCRIPTORS, (hard - _SPARE_DESCRIPTORS) // _DESCRIPTORS)
    if enough < wanted:
        logger.warning("%d connections at most, since there are only %d file descriptors", enough, hard)
    return min(wanted, enough)


@define(eq=False)
class Place:
    """The place of one connection."""

    _connections: "Connections"
    _scope: trio.CancelScope | None = None
    whole: trio.CancelScope = field(factory=trio.CancelScope)
    closed_for: str | None = None
    _at_end: tuple[Callable[[], object], ...] = ()

    @contextmanager
    def until_asked(self) -> Iterator[None]:
        """Mark a block in which the peer says who it is, or what it wants. Raises NoPlace if it had to go."""
        self._scope = scope = trio.CancelScope()
        self._connections.silent[self] = None
        try:
            with scope:
                yield
        finally:
            self._connections.silent.pop(self, None)
            self._connections.greeted.pop(self, None)
            self._scope = None
        if scope.cancel_called:  # its place is given away, even if it has said something after all
            raise NoPlace("it had asked for nothing yet, and its place was needed")

    def greet(self) -> None:
        """Note that it has said hello."""
        if self in self._connections.silent:
            del self._connections.silent[self]
            self._connections.greeted[self] = None

    def give_up(self) -> None:
        """End the block of ``until_asked``."""
        if self._scope is not None:
            self._scope.cancel()

    def close(self, reason: str) -> None:
        """End the connection, whatever it does."""
        self.closed_for = reason
        self.whole.cancel()

    def belong_to(self, holder: str) -> None:
        """Note whose it is. Raises NoPlace for one too many."""
        of_holders = self._connections._of_holders  # noqa: SLF001 - they are one thing
        if of_holders[holder] >= self._connections.limit_of_holder:
            raise NoPlace(f"{holder} has {of_holders[holder]} connections already")
        of_holders[holder] += 1
        self.at_end(lambda: self._connections.leave(holder))

    def at_end(self, forget: Callable[[], object]) -> None:
        """Have something called when the connection has ended."""
        self._at_end += (forget,)

    def forget(self) -> None:
        """Do what was to be done at the end."""
        for each in self._at_end:
            each()


@define(eq=False)
class Connections:
    """All that are connected. ``silent`` and ``greeted`` are the places of those that have asked for nothing yet, the
    oldest first.
    """

    limit: int
    limit_of_holder: int = DEFAULTS.connections_per_holder
    silent: dict[Place, None] = field(factory=dict)
    greeted: dict[Place, None] = field(factory=dict)
    _taken: set[Place] = field(factory=set)
    _of_holders: Counter[str] = field(factory=Counter)
    staying_now: int = 0

    @property
    def number(self) -> int:
        """How many are connected."""
        return len(self._taken)

    @contextmanager
    def place(self) -> Iterator[Place]:
        """Have a place for as long as the block lasts. Raises NoPlace when all others have asked for something, and Closed."""
        if len(self._taken) >= self.limit:
            self._make_room()
        place = Place(self)
        self._taken.add(place)
        try:
            with place.whole:
                yield place
        finally:
            self._taken.discard(place)
            place.forget()
        if place.closed_for is not None:
            raise Closed(place.closed_for)

    def leave(self, holder: str) -> None:
        """Note that a connection of a holder has ended."""
        self._of_holders[holder] -= 1
        if not self._of_holders[holder]:
            del self._of_holders[holder]

    def _make_room(self) -> None:
        for waiting in (self.silent, self.greeted):
            for place in waiting:
                del waiting[place]
                self._taken.remove(place)
                place.give_up()
                return
        raise NoPlace(f"there are {self.limit} connections, and all have asked for something")

    def staying(self) -> "Staying":
        """Return what marks the block of one that stays."""
        return Staying(self)


@define(eq=False)
class Staying:
    """The block of a worker or an observer. It is no generator: each of thousands would take 400 bytes more."""

    _connections: Connections

    def __enter__(self) -> None:
        """Raise CommandRefused for one too many."""
        part, whole = _STAYING
        count = self._connections.staying_now
        if count >= self._connections.limit * part // whole:
            raise CommandRefused(f"there are {count} workers and observers already")
        self._connections.staying_now = count + 1

    def __exit__(self, *_: object) -> None:
        """Note that it has gone."""
        self._connections.staying_now -= 1
