"""Requests of those who watch: changes as they come, and how things stand."""

from functools import lru_cache

import trio

from builder import codec
from builder.extension.provisioning import TellProvision
from builder.extension.watching import Changed, Look, LookAgain, Watch
from builder.framing import frame
from builder_server.names import known
from builder_server.requests import Asked, Handlers
from builder_server.store.changes import Changes

WATCHER_TIMEOUT = 3600.0
"""Seconds without progress after which a watcher is given up."""

PAUSE = 0.05
"""Seconds after which a watcher is told what has changed since it was told something: on a busy server there is more at
once then, and what a watcher costs does not grow with what happens."""


async def watch(asked: Asked, request: Watch) -> None:
    """Tell all changes from a point on, for ever."""
    asked.channel.bound_unsent(WATCHER_TIMEOUT)
    changes = asked.store.waking.changes
    with changes.watched():
        await _tell(asked, changes, request.since)


async def _tell(asked: Asked, changes: Changes, point: int | None) -> None:
    while True:
        changed = changes.next
        if point == changes.point:
            await changed.wait()
            continue
        new = None if point is None else _framed(changes, point, changes.point)
        point = changes.point
        with trio.fail_after(WATCHER_TIMEOUT):
            if new is None:
                await asked.channel.send(LookAgain(point=point))
            else:
                await asked.channel.send_bytes(Changed, new)
        # all watchers at the same moments, so that they are sent the same bytes
        await trio.sleep_until((trio.current_time() // PAUSE + 1) * PAUSE)


@lru_cache(16)
def _framed(changes: Changes, since: int, point: int) -> bytes | None:
    """Return the changes between two points as all watchers are sent them; None if some of them are missing."""
    new = changes.after(since)
    assert changes.point == point, "nothing changes meanwhile"
    return None if new is None else b"".join(frame(codec.encode(change)) for change in new)


async def look(asked: Asked, request: Look) -> None:
    """Tell how things stand, in pages."""
    request.check()
    if request.platform is not None:
        known(request.platform, f"unknown platform {request.platform}")
    await asked.looks.send(asked.channel, request)


async def tell_provision(asked: Asked, request: TellProvision) -> None:
    """Keep what was asked of an engine for those who look."""
    request.check()
    asked.farm.provisions.tell(request)


HANDLERS: Handlers = {Look: look, TellProvision: tell_provision}
