"""What is done once a build was recorded: the operator's hooks are run, its drawings are made, its parts can be searched."""

import logging
from functools import partial

import trio
from attrs import define, field, frozen

from builder.runtime.database import StoreError
from builder.runtime.logs import about
from builder_web import derived, drawings, hooks
from builder_web.directory import DataDirectory
from builder_web.drawings import GRAPH, TREEMAP, DrawingKind
from builder_web.hooks import Hooks
from builder_web.store.records import NewBuild, StoredArtifact
from builder_web.store.store import Store

log = logging.getLogger(__name__)

MAX_WAITING = 10_000
"""Builds that wait for it; of more than that nothing is made."""

_AT_ONCE = 2


@frozen(kw_only=True)
class _Task:
    """What is left to do for a build, without all that is known of it: many may wait."""

    uuid: str
    job: str
    is_failed: bool
    arguments: list[str]
    sources: tuple[tuple[DrawingKind, StoredArtifact], ...]


@define(eq=False)
class Aftermath:
    """Takes builds, and works on some of them at once."""

    _store: Store
    _directory: DataDirectory
    _hooks: Hooks
    _send: "trio.MemorySendChannel[_Task]" = field(init=False)
    _receive: "trio.MemoryReceiveChannel[_Task]" = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel(MAX_WAITING)

    def begin(self, build: NewBuild) -> None:
        """Take a build that was recorded."""
        sources = ((kind, kind.source(build.artifacts)) for kind in (GRAPH, TREEMAP))
        task = _Task(
            uuid=build.uuid,
            job=build.job,
            is_failed=build.main_binary is None,
            arguments=self._hooks.arguments(build),
            sources=tuple((kind, source) for kind, source in sources if source is not None),
        )
        try:
            self._send.send_nowait(task)
        except trio.WouldBlock:
            with about(uuid=build.uuid, job=build.job):
                log.error("no hooks are run: %d builds wait already", MAX_WAITING)

    async def run(self) -> None:
        """Work until cancelled: hooks that run are ended then, and those of builds that wait are not run."""
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(_AT_ONCE):
                    nursery.start_soon(self._work)
                nursery.start_soon(derived.note_switches, self._store, self._directory)
                nursery.start_soon(derived.note_consoles, self._store, self._directory)
        finally:
            if count := self._send.statistics().current_buffer_used:
                log.warning("no hooks were run for %d builds that waited", count)

    async def _work(self) -> None:
        async for task in self._receive.clone():
            with about(uuid=task.uuid, job=task.job):
                await self._work_on(task)

    async def _work_on(self, task: _Task) -> None:
        if task.sources:
            # a thread that draws may be left behind: what it makes is put into its place as a whole, or not at all
            await trio.to_thread.run_sync(self._draw, task, abandon_on_cancel=True)
        try:
            await self._note(task)
        except StoreError as error:
            log.error("can't be searched yet: %s", error)
        for path in await trio.to_thread.run_sync(partial(self._hooks.find, failed=task.is_failed)):
            await hooks.run(path, task.arguments)

    async def _note(self, task: _Task) -> None:
        for kind, source in task.sources:
            if kind is GRAPH:
                await derived.note_switch(self._store, self._directory, source.digest)

    def _draw(self, task: _Task) -> None:
        for kind, source in task.sources:
            try:
                drawings.make(self._directory, kind, source)
            except OSError as error:
                log.error("its %s can't be drawn: %s", kind.name, error)
