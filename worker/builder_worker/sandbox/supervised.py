"""The sandbox of one job, whatever it is made of: a supervisor, a directory with an eye on the disk, control groups."""

import os
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

import trio
from attrs import asdict, define, field

from builder.runtime.files import is_locked
from builder.runtime.nurseries import plain_nursery
from builder.sizes import format_size
from builder_worker.sandbox import ExitStatus, JobTaken, Limits, Sandbox, SandboxError, record
from builder_worker.sandbox.job_directory import JobDirectory
from builder_worker.sandbox.linux.cgroups import Group
from builder_worker.sandbox.processes import supervisor
from builder_worker.sandbox.processes.console import ConsoleFile
from builder_worker.sandbox.processes.launch import Launch
from builder_worker.sandbox.processes.leftovers import kill_marked
from builder_worker.sandbox.processes.supervision import Status, Supervision
from builder_worker.sandbox.record import GroupRecord, JobRecord

SCRIPT = ".builder-script"
"""Begins with a dot, so that a job's own ``rm *`` or ``sha256sum *`` does not see it."""

Look = Callable[[Status], Awaitable[frozenset[str]]]
"""Tells from the status of a job which limits it has hit that are the back end's own: fields of Limits."""


LookOf = Callable[[Limits], Look]
"""Returns the look at a job with such limits."""

DirectoryOf = Callable[[JobRecord], JobDirectory]
"""Returns the directory of a job that was written down."""


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
    backend: str
    """Which one made it."""

    grace: float = 0.0
    """As ``Task.worker_grace``."""

    locks: tuple[int, ...] = ()
    """Descriptors that keep what is the job's alone from others, beside its directory and control groups."""

    status: ExitStatus | None = field(init=False, default=None)
    """None until all of the job is gone."""

    _hit: frozenset[str] = field(init=False, default=frozenset())
    """Which limits of the job's processes were hit."""

    _claim: int | None = None
    """The descriptor with the lock on what is written down of the job, if it can be adopted."""

    def __attrs_post_init__(self) -> None:
        """Say where the job works, and as whom."""
        self.place, self.work, self.owners = self.directory.path, self.directory.build, self.directory.owners

    @property
    def has_ended(self) -> bool:
        """Whether the job is over."""
        return self.supervision.status is not None

    @property
    def console(self) -> ConsoleFile:
        """What the job writes."""
        return self.supervision.console

    def start(self) -> None:
        """Start the script."""
        if not self.grace:  # what is left is for the next worker to clean up, at once
            self.supervision.start(self.launch, self.limits, locks=self.locks)
            return
        try:
            groups = self.group.lock()
            try:
                self._claim = self._record().write(self.place)
                locks = (self.directory.lock, *groups, *self.locks)
                self.supervision.start(self.launch, self.limits, grace=self.grace, locks=locks)
            finally:
                for descriptor in groups:
                    os.close(descriptor)
        except OSError as error:
            raise SandboxError(f"the job can't be started: {error.strerror}") from error

    def _record(self) -> JobRecord:
        return JobRecord(
            backend=self.backend,
            supervisor=self.supervision.pid,
            begun=time.monotonic(),
            limits=asdict(self.limits),
            size=self.directory.size,
            is_mounted=self.directory.is_mounted,
            owner=self.directory.owner,
            users=self.directory.users,
            groups=GroupRecord.of(self.group),
            group_limits=asdict(self.group.limits),
            adopts=self.launch.adopts,
            end=self.launch.end,
            end_environment=dict(self.launch.end_environment),
        )

    @classmethod
    async def adopt(cls, place: Path, directory_of: DirectoryOf, look_of: LookOf) -> Self:
        """Return the sandbox of a job that another worker has started in a place.

        Raises SandboxError, and then all of the job is killed; and JobTaken.
        """
        async with AsyncExitStack() as resources:
            try:
                claim = record.claim(place)
            except OSError as error:
                if is_locked(place):  # by a worker that can't be seen from here: it may be within a hook
                    raise JobTaken("another worker is about to start it") from error
                raise SandboxError(f"it was not started: {error.strerror}") from error
            try:
                return await cls._adopt(place, directory_of, look_of, claim, resources)
            except BaseException:
                os.close(claim)
                await shielded(lambda: kill_marked(place.name))
                raise

    @classmethod
    async def _adopt(
        cls, place: Path, directory_of: DirectoryOf, look_of: LookOf, claim: int, resources: AsyncExitStack
    ) -> Self:
        written = JobRecord.read(place)
        limits, directory, group = Limits(**written.limits), directory_of(written), written.group
        launch = Launch(command=(), adopts=written.adopts, end=written.end, end_environment=written.end_environment)
        supervision = await Supervision.adopt(place, written.supervisor, launch, limits, begun=written.begun)
        if not supervision.has_supervisor and not written.is_of_this_boot:
            await shielded(supervision.aclose)
            raise SandboxError("the machine was started anew since")
        async with AsyncExitStack() as made:
            made.callback(directory.release)
            made.push_async_callback(shielded, supervision.aclose)
            held, *locks = supervision.locks or (None,)
            for descriptor in locks:
                resources.callback(os.close, descriptor)
            directory.take_over(held, is_mounted=written.is_mounted)
            if supervision.status is None:
                group.renew()
            made.pop_all()
        resources.push_async_callback(shielded, directory.remove)
        resources.push_async_callback(shielded, group.remove)
        resources.push_async_callback(shielded, supervision.aclose)
        return cls(
            directory=directory,
            group=group,
            limits=limits,
            supervision=supervision,
            launch=launch,
            look=look_of(limits),
            resources=resources.pop_all(),
            backend=written.backend,
            claim=claim,
        )

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
            await self._make_room()
            self.status = self.supervision.conclude()
            self._hit = self.group.hit()
            if self.supervision.status is not None:
                self._hit |= await self.look(self.supervision.status)
        return self.status

    async def _make_room(self) -> None:
        """Give the disk back that the job has taken, or nothing could be said of it. Raises SandboxError."""
        if self.directory.took_the_disk:
            await self.directory.clear()
        elif self.supervision.stopped == supervisor.FILLED:
            self.console.cut_short()

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

    def leave(self) -> None:
        """Let go of the job, if it was started and has time."""
        if self.supervision.can_go_on:
            self.is_left = True
            self.supervision.leave()

    def kill(self) -> None:
        """Kill all of the job."""
        if self.status is None and not self.is_left:
            self.group.kill()
            self.supervision.kill()

    async def aclose(self) -> None:
        """Kill, wait, remove. There is no deadline: what was killed ends as soon as the kernel lets it."""
        if self.is_left:  # its locks go with this process
            self.resources.pop_all()
            return
        with trio.CancelScope(shield=True):
            self.kill()
            await self.supervision.wait()  # before its groups go
            await self.supervision.dismiss()
            if self._claim is not None:
                (self.place / record.NAME).unlink(missing_ok=True)  # nobody adopts what is half removed
                os.close(self._claim)
                self._claim = None
            await self.resources.aclose()
