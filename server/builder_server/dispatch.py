"""Which waiting worker gets which job.

Per platform the attempts that wait stand in line: the first one for which there may be something asks the store, and the
others wait, so that a new job costs one transaction and not one per worker. Who is drained stands in no line.
"""

import hashlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio
from attrs import define, field

from builder.extension.watching import Changed, What
from builder.messages import MAX_SCRIPT
from builder.model import OrbBuildJob
from builder.needs import Need, of_script
from builder.runtime.histogram import Histogram
from builder.runtime.logs import about
from builder.sizes import format_size
from builder_server import room, templates
from builder_server.line import Waiter, WorkerLine
from builder_server.room import Room
from builder_server.store import Expand, Expanded, Holder, Store, Taken

logger = logging.getLogger(__name__)

ROOM_POLL = 2.0
"""Seconds between looks for room on a full disk."""

TEMPLATE_POLL = 2.0
"""Seconds between looks for a template that a queued job lacks: directories are not watched, this is cheap."""


Take = Callable[[Expand | None], Awaitable[Taken]]
"""Asks the store for a job; without a template orb-build jobs stay queued."""


@define(eq=False)
class Dispatcher:
    """Says when it is an attempt's turn to ask for a job."""

    store: Store
    data_dir: Path
    config_dir: Path
    min_free: int | None = None
    """Bytes that must be free on the disk before a job is handed out, if the operator says how many."""

    _lines: dict[str, WorkerLine] = field(factory=dict)
    latency: Histogram = field(factory=Histogram)
    """From when there was a job and a worker for it until it was taken."""

    _warned: set[str] = field(factory=set)
    _is_full: bool = False

    async def wait_for_job(self, platform: str, worker: Holder, take: Take) -> None:
        """Have a job taken as soon as there is one for a worker. Raises what ``take`` raises, and OSError of the disk.

        It may wait for days: a worker has nothing else to do. Only a wait is cancelled: when ``take`` was called, it has
        its end, and nothing but its own note of it says whose the job is.
        """
        changes = self.store.waking.changes
        changes.add([Changed(point=0, what=What.WORKER_CAME, platform=platform)])
        has_job = False
        try:
            if worker.pressure:
                await trio.sleep_forever()  # until it says something else: then it waits anew
            while not has_job:
                halted = self.store.waking.halted.next
                if not self.store.waking.is_halted(self.store.owner, platform, worker.known_as):
                    waiter = self._join_line(platform, worker)
                    try:
                        has_job = await self._take_in_turn(platform, worker, waiter, take)
                    finally:
                        self._leave_line(platform, waiter)
                if not has_job:
                    await halted.wait()
        finally:
            if not has_job:
                changes.add([Changed(point=0, what=What.WORKER_WENT, platform=platform)])

    def _join_line(self, platform: str, worker: Holder) -> Waiter:
        line = self._lines.get(platform)
        if line is None:
            line = self._lines[platform] = WorkerLine(self.store.waking.platform(platform))
        return line.join(worker.able)

    def _leave_line(self, platform: str, waiter: Waiter) -> None:
        line = self._lines[platform]
        line.leave(waiter)
        if not line.is_needed:
            del self._lines[platform]  # a peer may name any platform: none is kept for ever

    async def room(self) -> Room:
        """Return what is free on the disk, and how much must be for a job to be handed out. Raises OSError."""
        return await trio.to_thread.run_sync(room.look, self.data_dir, self.min_free)

    async def _take_in_turn(self, platform: str, worker: Holder, waiter: Waiter, take: Take) -> bool:
        """Wait in line; return False for a worker that leaves it without a job, since it gets none."""
        line = self._lines[platform]
        while True:
            await waiter.turn.wait()
            known = trio.current_time()
            if self.store.waking.is_halted(self.store.owner, platform, worker.known_as):
                return False
            await self._wait_for_room()
            template = await self._template(platform)
            is_able = template is None or not worker.able.lacks(of_script(template).needs)
            with trio.CancelScope(shield=True):
                taken = await take(_expander(template, platform) if is_able else None)
            if taken.blocked is not None and is_able:
                self._warn(platform, taken.blocked)
            if taken.build is not None:
                self.latency.add(trio.current_time() - known)
                return True
            if taken.is_halted:
                return False
            line.refused(waiter)
            if taken.blocked is not None:
                await self._wait_for_template(platform, template, waiter)

    async def is_full(self) -> bool:
        """Return whether the disk has no room for what a job leaves: then none is handed out. Raises OSError."""
        return not (await self.room()).is_enough

    async def template_needs(self, platform: str) -> tuple[Need, ...] | None:
        """Return what orb-build jobs need on a platform by its template; None if there is none, and they can't run."""
        template = await self._template(platform)
        return None if template is None else of_script(template).needs

    async def _wait_for_room(self) -> None:
        """Wait while what comes of a job could not be recorded: it would be run again and again."""
        while not (found := await self.room()).is_enough:
            if not self._is_full:
                self._is_full = True
                logger.error(
                    "%s is almost full: no job is handed out while less than %s are free (--min-free), and %s are",
                    self.data_dir,
                    format_size(found.wanted),
                    format_size(found.free),
                )
            await trio.sleep(ROOM_POLL)
        if self._is_full:
            self._is_full = False
            logger.info("there is room again in %s", self.data_dir)

    async def _wait_for_template(self, platform: str, known: bytes | None, waiter: Waiter) -> None:
        while not waiter.turn.is_set():
            with trio.move_on_after(TEMPLATE_POLL):
                await waiter.turn.wait()
            if await self._template(platform) != known:
                self._warned.discard(platform)
                self._lines[platform].came(None)
                return

    async def _template(self, platform: str) -> bytes | None:
        try:
            return await trio.to_thread.run_sync(templates.read_template, self.config_dir, platform)
        except OSError as error:
            if platform not in self._warned:
                self._warned.add(platform)
                with about(platform=platform):
                    logger.warning("the template of %s can't be read: %s", platform, error.strerror)
            return None

    def _warn(self, platform: str, job: str) -> None:
        if platform not in self._warned:
            self._warned.add(platform)
            with about(job=job, platform=platform):
                path = templates.template_path(self.config_dir, platform)
                logger.warning("job %s waits for a template: put one at %s", job, path)


def _expander(template: bytes | None, platform: str) -> Expand | None:
    if template is None:
        return None

    digest = hashlib.sha256(template).hexdigest()

    def expand(job: OrbBuildJob) -> Expanded | None:
        script_job = templates.expand(template, job, platform)
        return Expanded(job=script_job, template=digest) if len(script_job.script) <= MAX_SCRIPT else None

    return expand
