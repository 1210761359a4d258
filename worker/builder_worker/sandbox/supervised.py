"""The sandbox of one job, whatever it is made of: a supervisor, a directory with an eye on the disk, control groups."""

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack

import trio
from attrs import define, field

from builder.runtime.nurseries import plain_nursery
from builder.sizes import format_size
from builder_worker.sandbox import ExitStatus, Limits, Sandbox
from builder_worker.sandbox.job_directory import JobDirectory
from builder_worker.sandbox.linux.cgroups import Group
from builder_worker.sandbox.processes.launch import Launch
from builder_worker.sandbox.processes.supervision import Spool, Status, Supervision

SCRIPT = ".builder-script"
"""Begins with a dot, so that a job's own ``rm *`` or ``sha256sum *`` does not see it."""

Look = Callable[[Status], Awaitable[frozenset[str]]]
"""Tells from the status of a job which limits it has hit that are the back end's own: fields of Limits."""


async def look_at_nothing(_: Status) -> frozenset[str]:
    """Know of no limit but those of the control groups."""
    return frozenset()


async def shielded(remove: Callable[[], Awaitable[None]]) -> None:
    """Remove something, also when the caller is cancelled."""
    with trio.CancelScope(shield=True):
        await remove()


@define(eq=False, kw_only=True)
class SupervisedSandbox(Sandbox):
    """A job in a directory. ``resources`` are removed in the end."""

    script_name = SCRIPT

    directory: JobDirectory
    group: Group
    limits: Limits
    supervision: Supervision
    launch: Launch
    look: Look = look_at_nothing
    resources: AsyncExitStack
    status: ExitStatus | None = field(init=False, default=None)
    """None until all of the job is gone."""

    _hit: frozenset[str] = field(init=False, default=frozenset())
    """Which limits of the job's processes were hit."""

    def __attrs_post_init__(self) -> None:
        """Say where the job works, and as whom."""
        self.place, self.work, self.owners = self.directory.path, self.directory.build, self.directory.owners

    @property
    def console(self) -> Spool:
        """What the job writes."""
        return self.supervision.console

    def start(self) -> None:
        """Start the script."""
        self.supervision.start(self.launch, self.limits)

    async def wait(self) -> ExitStatus:
        """Wait until all of the job is gone, and kill it if it writes more than it may."""
        if self.status is None:
            async with plain_nursery() as nursery:
                nursery.start_soon(self._enforce_size)
                await self.supervision.wait()
                nursery.cancel_scope.cancel()
            if self.supervision.status is None or self.launch.adopts:
                await self.group.wait_empty()
            await self.directory.settle()
            self.status = self.supervision.conclude()
            self._hit = self.group.hit()
            if self.supervision.status is not None:
                self._hit |= await self.look(self.supervision.status)
        return self.status

    async def _enforce_size(self) -> None:
        await self.directory.wait_full(self._processes)
        self.kill()

    def _processes(self) -> Iterable[int]:
        return {*self.supervision.processes, *self.group.processes()}

    def exceeded(self) -> str | None:
        """Return the limit that ended the job. A job that coped with it and succeeded was not ended by it; but if one of
        its processes was killed for its memory, what it made has a hole.
        """
        if self.directory.took_the_disk:  # then there was no room for its output either
            return self.directory.exceeded()
        if self.supervision.stopped or self.status is None:
            return self.supervision.stopped
        if "memory" in self._hit and self.limits.memory is not None:
            return f"out of memory (limit {format_size(self.limits.memory)})"
        if self.status.code == 0 and not self.directory.is_over:
            return None
        if "pids" in self._hit:
            return f"too many processes (limit {self.limits.pids})"
        lost = "the process that watched over the job was killed" if self.supervision.was_lost else None
        return self.directory.exceeded() or lost

    def kill(self) -> None:
        """Kill all of the job."""
        if self.status is None:
            self.group.kill()
            self.supervision.kill()

    async def aclose(self) -> None:
        """Kill, wait, remove. There is no deadline: what was killed ends as soon as the kernel lets it."""
        with trio.CancelScope(shield=True):
            self.kill()
            await self.supervision.wait()  # before its groups go
            await self.resources.aclose()
