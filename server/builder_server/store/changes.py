"""The newest changes, for all who watch a server together.

Whoever watches holds a point and asks for what came after it. So none costs memory, and who is too slow only misses some.
"""

import itertools
import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import trio
from attrs import define, evolve, field

from builder.extension.watching import Changed
from builder.runtime.changes import Change

MAX_KEPT = 1000
"""Changes that are kept: whoever is further behind has to look anew."""

_BITS = 60


@define(eq=False)
class Changes:
    """Changes with their points. They begin anywhere, so that the points of an earlier start mean nothing here."""

    point: int = field(factory=lambda: secrets.randbits(_BITS))
    """The point of the newest change."""

    watchers: int = 0
    """How many watch."""

    _kept: deque[Changed] = field(factory=lambda: deque(maxlen=MAX_KEPT))
    _change: Change = field(factory=Change)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Mark the block of one that watches."""
        self.watchers += 1
        try:
            yield
        finally:
            self.watchers -= 1

    @property
    def next(self) -> trio.Event:
        """The event of the next change."""
        return self._change.next

    def add(self, changes: Sequence[Changed]) -> None:
        """Add changes, which get their points."""
        for change in changes:
            self.point += 1
            self._kept.append(evolve(change, point=self.point))
        self._change.announce()

    def skip(self) -> None:
        """Have everyone miss something: there was more to tell than anybody would read."""
        self.point += 1
        self._kept.clear()
        self._change.announce()

    def after(self, point: int) -> tuple[Changed, ...] | None:
        """Return the changes after a point; None if some of them are missing, or the point is none of these."""
        count = self.point - point
        if not 0 <= count <= len(self._kept):
            return None
        return tuple(itertools.islice(self._kept, len(self._kept) - count, None))
