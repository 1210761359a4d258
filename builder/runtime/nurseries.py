"""A nursery for one thing that is done and what watches over it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio


@asynccontextmanager
async def plain_nursery() -> AsyncIterator[trio.Nursery]:
    """Open a nursery that raises the one error that ended it as itself, and a group only for several.

    That all of it was cancelled is one error, however many tasks there were: who asks why it ended is told so.
    """
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        found = group.split(trio.Cancelled)[1] or group
        if found is not group and len(found.exceptions) > 1:
            raise
        error: BaseException = found
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from error.__cause__
