"""What the next job of a slot needs whichever it is, made ahead of it: while the result of the one before is delivered."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Self

from attrs import define

from builder_worker.sandbox import Backend, SandboxError, Spare


@define(eq=False)
class Spares:
    """One spare at a time. Use it as a context manager, which removes what no job has taken."""

    _backend: Backend
    _next: Spare | None = None

    async def make(self) -> None:
        """Make one, unless there is one."""
        if self._next is None:
            with suppress(SandboxError):  # what is wrong is said when there is a job
                self._next = await self._backend.spare()

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[Spare | None]:
        """Have one for the block, if there can be one."""
        await self.make()
        spare, self._next = self._next, None
        try:
            yield spare
        finally:
            if spare is not None:
                await spare.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._next is not None:
            await self._next.aclose()
