"""How things stand, as it is told to those who look: made once for all who ask for the same."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import trio
from attrs import define, evolve, field

from builder import codec
from builder.extension.halting import SERVER, Scope, Target
from builder.extension.provisioning import Provision
from builder.extension.watching import PAGE, EndingState, Look, Looked, PlatformState
from builder.framing import frame
from builder.model import Instant
from builder.needs import of_text
from builder_server.aside import Aside
from builder_server.crew import Crew
from builder_server.dispatch import Dispatcher
from builder_server.estimates import MAX_TOLD, Circumstances, foresee
from builder_server.farm import Farm
from builder_server.memory import Memory, SharingChannel
from builder_server.provisions import by_platform
from builder_server.shared import Shared
from builder_server.store import Store
from builder_server.store.standing import Standing

NEWEST = 1.0
"""Seconds for which a reply is sent again if nothing happens: it tells times, and what is not noted as a change."""


@define(eq=False)
class Looks:
    """Sends replies to looks. ``now`` is the wall clock, ``ending`` tells what has to be renewed, ``warnings`` what else is wrong."""

    _store: Store
    _dispatcher: Dispatcher
    _farm: Farm
    _memory: Memory
    _now: Callable[[], Instant]
    _ending: Callable[[], Sequence[EndingState]] = tuple
    _warnings: Callable[[], Sequence[str]] = tuple
    _shared: Shared[Look] = field(init=False)

    @_shared.default
    def _share(self) -> Shared[Look]:
        return Shared(self._version, self._make)

    def _version(self) -> object:
        return (
            self._store.version,
            self._store.waking.changes.point,
            self._farm.provisions.version,
            trio.current_time() // NEWEST,
        )

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
                name: await self._dispatcher.template_needs(name)
                for name, (_, entries) in standing.queued.items()
                if any(entry.is_orb for entry in entries)
            }
            crew = await self._farm.crew()
            running = defaultdict(list)
            for build in standing.running:
                if build.uuid not in crew.of_drained:
                    running[build.platform].append(build)
            halted = {each.target for each in standing.halts}
            places = {
                name: Circumstances(
                    platform=name,
                    waiting=crew.waiting[name] - crew.idle[name],
                    running=running[name],
                    has_template=templates.get(name, ()) is not None,
                    is_full=is_full,
                    drained=crew.drained[name],
                    pressed=crew.pressed[name],
                    is_drained=not halted.isdisjoint({SERVER, Target(scope=Scope.PLATFORM, name=name)}),
                    workers=crew.workers.get(name, ()),
                    unknown=crew.unknown[name],
                    template_needs=templates.get(name) or (),
                )
                for name in standing.queued
            }
            # in a thread: there may be thousands of entries
            told = by_platform(crew.asked, now)
            make = partial(_reply, standing, places, crew, now, self._ending(), self._warnings(), told, is_full=is_full)
            return await self._memory.replies.put(await trio.to_thread.run_sync(make))


def _reply(
    standing: Standing,
    places: Mapping[str, Circumstances],
    crew: Crew,
    now: Instant,
    ending: Sequence[EndingState],
    warnings: Sequence[str],
    told: Mapping[str, tuple[Provision, ...]],
    *,
    is_full: bool,
) -> bytes:
    """Return the frames of all pages."""
    busy = Counter(build.platform for build in standing.running)
    pages = _pages(
        platforms=[
            evolve(_platform(place, standing, crew, busy[name]), provisions=told.get(name, ()))
            for name, place in places.items()
        ],
        running=[evolve(build, away=crew.away.get(build.uuid)) for build in standing.running],
        queued=[
            entry for place in places.values() for entry in foresee(place, standing.queued[place.platform][1], now)
        ],
        results=standing.results,
        halts=standing.halts,
        ending=ending,
        warnings=warnings,
    )
    looked = (Looked(now=now, is_full=is_full, scheduled=standing.scheduled, **page) for page in pages)
    return b"".join(frame(codec.encode(page)) for page in looked)


def _platform(place: Circumstances, standing: Standing, crew: Crew, busy: int) -> PlatformState:
    unmet = (place.unmet(of_text(needs)) for needs in standing.needed[place.platform])
    return PlatformState(
        name=place.platform,
        waiting=crew.waiting[place.platform],
        busy=busy,
        queued=standing.queued[place.platform][0],
        unmet=tuple(itertools.islice(filter(None, unmet), MAX_TOLD)),
        drained=place.drained,
        pressed=place.pressed,
    )


def _pages(**lists: Sequence[object]) -> Iterator[dict[str, Any]]:
    """Cut lists into pages, each of a part of one of them; one page that is empty if they all are."""
    yield from (
        {name: tuple(values[start : start + PAGE])}
        for name, values in lists.items()
        for start in range(0, len(values), PAGE)
    )
    if not any(lists.values()):
        yield {}
