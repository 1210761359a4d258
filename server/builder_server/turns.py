"""Turns at what takes long: by turns the newest has the next one, and whoever has waited for longest.

So a crowd that waits does not keep a newcomer waiting, and a crowd that comes after somebody is not before them for ever.
"""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from attrs import define, field


@define(eq=False)
class Turns:
    """So many blocks may run at once; the others wait."""

    free: int
    _waiting: deque[trio.Event] = field(factory=deque)
    _is_for_newest: bool = True

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it for as long as the block lasts."""
        if self.free:
            self.free -= 1
        else:
            await self._wait()
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self) -> None:
        given = trio.Event()
        self._waiting.append(given)
        try:
            await given.wait()
        except trio.Cancelled:
            if given.is_set():
                self._pass_on()  # both came at once
            else:
                self._waiting.remove(given)
            raise

    def _pass_on(self) -> None:
        if self._waiting:
            given = self._waiting.pop() if self._is_for_newest else self._waiting.popleft()
            self._is_for_newest = not self._is_for_newest
            given.set()
        else:
            self.free += 1
