"""Whose turn it is to ask for a job among the workers of a platform that wait. One asks at a time, those first who came first.

Workers that have the same are of one kind: what one of them was refused, the others need not ask for. So an entry that
comes costs one question and its answer, and wakes nobody who can't take it, however many wait.
"""

import itertools
from collections.abc import Collection, Iterator

import trio
from attrs import define, field

from builder.needs import Capabilities, of_text
from builder_server.store.waking import Work


@define(eq=False)
class Waiter:
    """A worker that waits. When it is its ``turn``, it asks, and says what came of that."""

    able: Capabilities
    place: int
    turn: trio.Event = field(factory=trio.Event)
    has_asked: bool = False


@define(eq=False)
class _Kind:
    """Workers that have the same, in the order in which they came; ``is_new``: there may be anything for them."""

    able: Capabilities
    waiters: dict[Waiter, None] = field(factory=dict)
    is_new: bool = True

    @property
    def first(self) -> Waiter:
        return next(iter(self.waiters))

    def meets(self, needs: str) -> bool:
        return not self.able.lacks(of_text(needs))


@define(eq=False)
class WorkerLine:
    """The workers of one platform that wait. ``work`` tells what comes there."""

    work: Work
    _kinds: dict[Capabilities, _Kind] = field(factory=dict)
    _fresh: set[str] = field(factory=set)
    """Texts of needs of which there may be entries that nobody was refused."""

    _asking: Waiter | None = None
    _asked: set[str] = field(factory=set)
    _asked_for_any: bool = False
    _places: Iterator[int] = field(factory=itertools.count)

    def __attrs_post_init__(self) -> None:
        self.work.on_work = self.came

    @property
    def is_needed(self) -> bool:
        """Whether anybody waits."""
        return bool(self._kinds)

    def join(self, able: Capabilities) -> Waiter:
        """Have a worker wait behind the others."""
        waiter = Waiter(able, next(self._places))
        self._kinds.setdefault(able, _Kind(able)).waiters[waiter] = None
        self._call()
        return waiter

    def came(self, needs: Collection[str] | None) -> None:
        """Note that there may be entries with such needs, or with None, any."""
        if needs is None:
            for kind in self._kinds.values():
                kind.is_new = True
        else:
            self._fresh.update(needs)
        self._call()

    def refused(self, waiter: Waiter) -> None:
        """Note that there is nothing that the worker can do: it waits on."""
        assert waiter is self._asking, "it is not its turn"
        waiter.turn = trio.Event()
        self._end()

    def leave(self, waiter: Waiter) -> None:
        """Have a worker go, with a job or without: what it could have had, others may."""
        kind = self._kinds[waiter.able]
        del kind.waiters[waiter]
        if waiter is self._asking:
            self._fresh |= self._asked
            kind.is_new |= self._asked_for_any
            self._end()
        elif waiter.has_asked:
            kind.is_new = True  # it was the one that would have asked again
        if not kind.waiters:
            del self._kinds[waiter.able]
        self._call()

    def _end(self) -> None:
        self._asking = None
        self._asked = set()
        self._call()

    def _call(self) -> None:
        """Give the turn to the first one for whom there may be something, if nobody has it."""
        if self._asking is not None:
            return
        hopeful = (
            kind.first
            for kind in self._kinds.values()
            if kind.waiters and (kind.is_new or any(map(kind.meets, self._fresh)))
        )
        waiter = min(hopeful, key=lambda each: each.place, default=None)
        if waiter is None:
            self._fresh.clear()  # nobody here can take those, and whoever comes asks for anything
            return
        kind = self._kinds[waiter.able]
        self._asking, self._asked_for_any = waiter, kind.is_new
        self._asked = {needs for needs in self._fresh if kind.meets(needs)}
        self._fresh -= self._asked
        kind.is_new = False
        waiter.has_asked = True
        waiter.turn.set()
