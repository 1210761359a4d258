"""What is done once a build was recorded: the operator's hooks are run, its drawings are made, its parts can be searched."""

import logging

import trio
from attrs import define, field

from builder.runtime.database import StoreError
from builder_web import derived, drawings, hooks
from builder_web.directory import DataDirectory
from builder_web.drawings import GRAPH, TREEMAP
from builder_web.hooks import Hooks
from builder_web.store import builds
from builder_web.store.records import NewBuild
from builder_web.store.store import Store

log = logging.getLogger(__name__)

MAX_WAITING = 10_000
"""Builds that wait for it; of more than that nothing is made."""

_AT_ONCE = 2

_LARGE = 1024 * 1024
"""Bytes of a console above which it is read before somebody asks for it."""


@define(eq=False)
class Aftermath:
    """Takes builds, and works on some of them at once."""

    _store: Store
    _directory: DataDirectory
    _hooks: Hooks
    _send: "trio.MemorySendChannel[NewBuild]" = field(init=False)
    _receive: "trio.MemoryReceiveChannel[NewBuild]" = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel(MAX_WAITING)

    def begin(self, build: NewBuild) -> None:
        """Take a build that was recorded."""
        try:
            self._send.send_nowait(build)
        except trio.WouldBlock:
            log.error("no hooks are run for build %s: %d builds wait already", build.uuid, MAX_WAITING)

    async def run(self) -> None:
        """Work until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(_AT_ONCE):
                nursery.start_soon(self._work)
            nursery.start_soon(derived.note_switches, self._store, self._directory)

    async def _work(self) -> None:
        async for build in self._receive.clone():
            for path in await trio.to_thread.run_sync(self._hooks.find, build):
                await hooks.run(path, self._hooks.arguments(build))
            await trio.to_thread.run_sync(self._draw, build)
            try:
                await self._note(build)
            except (StoreError, OSError) as error:
                log.error("build %s can't be searched yet: %s", build.uuid, error)

    async def _note(self, build: NewBuild) -> None:
        switch = GRAPH.source(build.artifacts)
        if switch is not None:
            await derived.note_switch(self._store, self._directory, switch.digest)
        recorded = await self._store.ask(builds.find, build.uuid)
        if recorded is not None and self._directory.below(recorded.console).stat().st_size > _LARGE:
            await derived.console_of(self._store, self._directory, recorded)

    def _draw(self, build: NewBuild) -> None:
        for kind in (GRAPH, TREEMAP):
            source = kind.source(build.artifacts)
            if source is None:
                continue
            try:
                drawings.make(self._directory, kind, source, job=build.job)
            except OSError as error:
                log.error("the %s of build %s can't be drawn: %s", kind.name, build.uuid, error)
