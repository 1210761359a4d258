"""Replies that take long to make, made once for all who ask for the same.

Who asks while one is made waits for the next, which is as new as the question; all who wait share it. After each there is
a rest of as long as it took: so those who ask again and again never take more than half of a processor.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import trio
from attrs import define, field

from builder_server.aside import Aside

K = TypeVar("K", bound=Hashable)

KEPT = 16
"""Questions whose newest reply is known, and kept if it is small."""

LONGEST_REST = 5.0
"""Seconds."""


@define(eq=False)
class _Round:
    """One making of a reply, and those who are to be sent it."""

    version: object = None
    aside: Aside | None = None
    error: Exception | None = None
    users: int = 0
    done: trio.Event = field(factory=trio.Event)
    ended: float = 0.0
    took: float = 0.0


@define(eq=False)
class Shared(Generic[K]):
    """Makes replies. While ``version`` returns the same, the reply is the same."""

    _version: Callable[[], object]
    _make: Callable[[K], Awaitable[Aside]]
    _next: dict[K, _Round] = field(factory=dict)
    _newest: dict[K, _Round] = field(factory=dict)

    @asynccontextmanager
    async def reply(self, key: K) -> AsyncIterator[Aside]:
        """Have a reply for as long as the block lasts. Raises what making it does."""
        while True:
            found = self._newest.get(key)
            if found is None or found.aside is None or found.version != self._version():
                found = self._next.get(key)
            is_first = found is None
            if found is None:
                found = self._next[key] = _Round()
            found.users += 1
            try:
                if is_first:
                    await self._run(key, found)
                await found.done.wait()
                if found.error is not None:
                    raise found.error
                if found.aside is not None:  # else whoever made it has gone away
                    yield found.aside
                    return
            finally:
                found.users -= 1
                self._drop_unused(found)

    async def _run(self, key: K, made: _Round) -> None:
        try:
            before = self._newest.get(key)
            if before is not None:
                await before.done.wait()
                await trio.sleep_until(before.ended + min(before.took, LONGEST_REST))
            del self._next[key]
            self._newest.pop(key, None)
            self._newest[key] = made
            made.version = self._version()
            began = trio.current_time()
            made.aside = await self._make(key)
            made.ended = trio.current_time()
            made.took = made.ended - began
        except Exception as error:
            made.error = error
            raise
        finally:
            if self._next.get(key) is made:
                del self._next[key]
            made.done.set()
            self._forget()

    def _forget(self) -> None:
        """Keep what was asked for lately."""
        for key, old in [*self._newest.items()][:-KEPT]:
            if old.done.is_set():
                del self._newest[key]

    def _drop_unused(self, found: _Round) -> None:
        if found.aside is not None and found.aside.is_large and not found.users:
            found.aside.close()
            found.aside = None
