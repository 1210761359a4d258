"""Requests of those who watch: changes as they come, and how things stand."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import trio

from builder import codec
from builder.extension.watching import (
    PAGE,
    Changed,
    Look,
    LookAgain,
    Looked,
    PlatformState,
    QueuedState,
    Watch,
)
from builder.framing import frame
from builder.model import Instant
from builder_server.estimates import Circumstances, foresee
from builder_server.names import known
from builder_server.requests import Asked, Handlers
from builder_server.store.changes import MAX_KEPT
from builder_server.store.standing import Standing

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
    dispatcher = asked.attempts.dispatcher
    now = asked.now()
    standing = await asked.store.standing(request)
    is_full = await dispatcher.is_full()
    templates = {
        name: await dispatcher.has_template(name)
        for name, (_, entries) in standing.queued.items()
        if any(entry.is_orb for entry in entries)
    }
    # in a thread: there may be thousands of entries
    platforms, queued = await trio.to_thread.run_sync(
        partial(_queues, standing, Counter(dispatcher.waiting), templates, now, is_full=is_full)
    )
    for page in _pages(platforms=platforms, running=standing.running, queued=queued, results=standing.results):
        await asked.channel.send(Looked(now=now, is_full=is_full, scheduled=standing.scheduled, **page))


def _queues(
    standing: Standing, waiting: Mapping[str, int], templates: Mapping[str, bool], now: Instant, *, is_full: bool
) -> tuple[list[PlatformState], list[QueuedState]]:
    platforms: list[PlatformState] = []
    queued: list[QueuedState] = []
    builds = defaultdict(list)
    for build in standing.running:
        builds[build.platform].append(build)
    for name, (count, entries) in standing.queued.items():
        running = builds[name]
        workers = waiting.get(name, 0)
        place = Circumstances(
            platform=name, waiting=workers, running=running, has_template=templates.get(name, True), is_full=is_full
        )
        queued += foresee(place, entries, now)
        platforms.append(PlatformState(name=name, waiting=workers, busy=len(running), queued=count))
    return platforms, queued


def _pages(**lists: Sequence[object]) -> Iterator[dict[str, Any]]:
    """Cut lists into pages, each of a part of one of them; one page that is empty if they all are."""
    yield from (
        {name: tuple(values[start : start + PAGE])}
        for name, values in lists.items()
        for start in range(0, len(values), PAGE)
    )
    if not any(lists.values()):
        yield {}


HANDLERS: Handlers = {Look: look}
