"""Turns at what takes long, the newest first: a crowd that has waited for long shuts nobody out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from attrs import define, field


@define(eq=False)
class Turns:
    """So many blocks may run at once; the others wait."""

    free: int
    _waiting: list[trio.Event] = field(factory=list)

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
            self._waiting.pop().set()
        else:
            self.free += 1
