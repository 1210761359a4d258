"""Requests of those who watch: changes as they come, and how things stand."""

from functools import lru_cache

import trio

from builder import codec
from builder.extension.watching import Changed, Look, LookAgain, Watch
from builder.framing import frame
from builder_server.names import known
from builder_server.requests import Asked, Handlers
from builder_server.store.changes import MAX_KEPT

WATCHER_TIMEOUT = 3600.0
"""Seconds without progress after which a watcher is given up."""


async def watch(asked: Asked, request: Watch) -> None:
    """Tell all changes from a point on, for ever."""
    asked.channel.bound_unsent(WATCHER_TIMEOUT)
    changes = asked.store.waking.changes
    point = request.since
    while True:
        changed = changes.next
        new = None if point is None else changes.after(point)
        if new == ():
            await changed.wait()
            continue
        point = changes.point
        with trio.fail_after(WATCHER_TIMEOUT):
            if new is None:
                await asked.channel.send(LookAgain(point=point))
            else:
                await asked.channel.send_bytes(Changed, b"".join(map(_framed, new)))


@lru_cache(MAX_KEPT)
def _framed(change: Changed) -> bytes:
    """Return a change as all watchers are sent it."""
    return frame(codec.encode(change))


async def look(asked: Asked, request: Look) -> None:
    """Tell how things stand, in pages."""
    request.check()
    if request.platform is not None:
        known(request.platform, f"unknown platform {request.platform}")
    await asked.looks.send(asked.channel, request)


HANDLERS: Handlers = {Look: look}
