"""How things stand, as it is told to those who look: made once for all who ask for the same."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import trio
from attrs import define, evolve, field

from builder import codec
from builder.extension.halting import SERVER, Scope, Target
from builder.extension.watching import PAGE, Look, Looked, PlatformState, QueuedState
from builder.framing import frame
from builder.model import Instant
from builder_server.aside import Aside
from builder_server.attempts import Attempts
from builder_server.crew import Crew
from builder_server.dispatch import Dispatcher
from builder_server.estimates import Circumstances, foresee
from builder_server.memory import Memory, SharingChannel
from builder_server.shared import Shared
from builder_server.store import Store
from builder_server.store.standing import Standing

NEWEST = 1.0
"""Seconds for which a reply is sent again if nothing happens: it tells times, and what is not noted as a change."""


@define(eq=False)
class Looks:
    """Sends replies to looks. ``now`` is the wall clock."""

    _store: Store
    _dispatcher: Dispatcher
    _attempts: Attempts
    _memory: Memory
    _now: Callable[[], Instant]
    _shared: Shared[Look] = field(init=False)

    @_shared.default
    def _share(self) -> Shared[Look]:
        return Shared(self._version, self._make)

    def _version(self) -> object:
        return self._store.version, self._store.waking.changes.point, trio.current_time() // NEWEST

    async def send(self, channel: SharingChannel, look: Look) -> None:
        """Send how things stand. Raises StoreError, CommandRefused, one of CONNECTION_ERRORS, and Crowded."""
        async with self._shared.reply(look) as aside:
            await channel.send_aside(Looked, aside)

    async def _make(self, look: Look) -> Aside:
        async with self._memory.making.turn():
            now = self._now()
            standing = await self._store.standing(look)
            is_full = await self._dispatcher.is_full()
            templates = {
                name: await self._dispatcher.has_template(name)
                for name, (_, entries) in standing.queued.items()
                if any(entry.is_orb for entry in entries)
            }
            # in a thread: there may be thousands of entries
            make = partial(_reply, standing, self._attempts.crew(), templates, now, is_full=is_full)
            return await self._memory.replies.put(await trio.to_thread.run_sync(make))


def _reply(standing: Standing, crew: Crew, templates: Mapping[str, bool], now: Instant, *, is_full: bool) -> bytes:
    """Return the frames of all pages."""
    platforms, queued = _queues(standing, crew, templates, now, is_full=is_full)
    running = [evolve(build, away=crew.away.get(build.uuid)) for build in standing.running]
    pages = _pages(platforms=platforms, running=running, queued=queued, results=standing.results, halts=standing.halts)
    looked = (Looked(now=now, is_full=is_full, scheduled=standing.scheduled, **page) for page in pages)
    return b"".join(frame(codec.encode(page)) for page in looked)


def _queues(
    standing: Standing, crew: Crew, templates: Mapping[str, bool], now: Instant, *, is_full: bool
) -> tuple[list[PlatformState], list[QueuedState]]:
    platforms: list[PlatformState] = []
    queued: list[QueuedState] = []
    builds = defaultdict(list)
    halted = {each.target for each in standing.halts}
    for build in standing.running:
        builds[build.platform].append(build)
    for name, (count, entries) in standing.queued.items():
        running = builds[name]
        able = [build for build in running if build.uuid not in crew.of_drained]
        idle = crew.drained[name] - (len(running) - len(able))
        place = Circumstances(
            platform=name,
            waiting=max(0, crew.waiting[name] - idle),
            running=able,
            drained=crew.drained[name],
            has_template=templates.get(name, True),
            is_full=is_full,
            is_drained=not halted.isdisjoint({SERVER, Target(scope=Scope.PLATFORM, name=name)}),
        )
        queued += foresee(place, entries, now)
        platforms.append(
            PlatformState(
                name=name, waiting=crew.waiting[name], busy=len(running), queued=count, drained=crew.drained[name]
            )
        )
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
