"""What every job on Linux needs before it starts: a user, a directory with the script in it, and control groups."""

import os
import secrets
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Self

from attrs import frozen

from builder_worker.sandbox import Limits, Sandbox, SandboxError, Spare, Task, job_directory
from builder_worker.sandbox.job_directory import JobDirectory
from builder_worker.sandbox.linux import users
from builder_worker.sandbox.linux.cgroups import Cgroups, Group
from builder_worker.sandbox.linux.users import JobUser
from builder_worker.sandbox.options import Options
from builder_worker.sandbox.owner import tag
from builder_worker.sandbox.processes.launch import Launch
from builder_worker.sandbox.processes.supervision import Supervision
from builder_worker.sandbox.record import JobRecord
from builder_worker.sandbox.supervised import SCRIPT, Look, LookOf, SupervisedSandbox, look_at_nothing, shielded


@frozen(kw_only=True)
class Prepared:
    """What a job has. ``owner`` is the host's user who owns its files, None for the worker's."""

    owner: int | None
    directory: JobDirectory
    group: Group


@frozen(kw_only=True)
class ReadyMade(Spare):
    """A directory, control groups, and a supervisor with the process in them that becomes the job's first one."""

    directory: JobDirectory
    group: Group
    supervision: Supervision
    _resources: AsyncExitStack

    @classmethod
    async def make(cls, options: Options, groups: Cgroups) -> Self:
        """Make a place for a job. Raises SandboxError, and then nothing is left."""
        job_directory.prepare_root(options.work_root)
        name = secrets.token_hex(8)
        async with AsyncExitStack() as resources:
            directory = JobDirectory(path=options.work_root / tag(name), size=None, owner=None)
            directory.reserve()
            resources.push_async_callback(shielded, directory.remove)
            group = groups.make(name)
            resources.push_async_callback(shielded, group.remove)
            try:
                supervision = Supervision.begin(directory.path, group.entries)
            except OSError as error:
                raise SandboxError(f"cannot prepare the sandbox: {error}") from error
            resources.push_async_callback(shielded, supervision.aclose)
            return cls(directory=directory, group=group, supervision=supervision, resources=resources.pop_all())

    @property
    def is_ready(self) -> bool:
        """Whether it is as it was made: it may have waited for long, and jobs without a sandbox can destroy it."""
        return self.directory.is_there and self.supervision.is_ready

    def taken(self) -> AsyncExitStack:
        """Return what ends and removes it, for the sandbox that was made of it."""
        return self._resources.pop_all()

    async def aclose(self) -> None:
        """End what runs in it and remove it, unless it was taken."""
        await self._resources.aclose()


async def open_sandbox(
    task: Task,
    options: Options,
    groups: Cgroups,
    describe: Callable[[Prepared], Launch],
    *,
    backend: str,
    limits: Limits,
    owner_of: Callable[[JobUser], int] | None,
    user_count: int = 1,
    look: Look = look_at_nothing,
    spare: Spare | None = None,
) -> Sandbox:
    """Prepare a job that is started as ``describe`` says; ``limits`` are those of the control groups.

    ``owner_of`` tells who of the host owns the files of a job whose worker is root, None that it is the worker itself;
    ``user_count`` users from that one on are the job's. A ``spare`` place is used if it still is as it was made.

    Raises SandboxError, and then nothing is left.
    """
    async with AsyncExitStack() as resources:
        try:
            owner: int | None = None
            locks: tuple[int, ...] = ()
            if os.geteuid() == 0 and owner_of is not None:
                user = users.take(options.job_uids, shared=bool(options.caches))
                resources.callback(user.release)
                owner, locks = owner_of(user), (user.lock,)
            if not isinstance(spare, ReadyMade) or not spare.is_ready:
                spare = await ReadyMade.make(options, groups)
            await resources.enter_async_context(spare.taken())
            directory = spare.directory
            directory.size, directory.owner, directory.users = task.limits.work_size, owner, user_count
            await directory.furnish()
            group = groups.limit(spare.group, limits)
            directory.write_script(SCRIPT, task.script)
            launch = describe(Prepared(owner=owner, directory=directory, group=group))
        except OSError as error:
            raise SandboxError(f"cannot prepare the sandbox: {error}") from error
        return SupervisedSandbox(
            directory=directory,
            group=group,
            limits=task.limits,
            supervision=spare.supervision,
            launch=launch,
            look=look,
            resources=resources.pop_all(),
            backend=backend,
            grace=task.worker_grace,
            locks=locks,
        )


async def adopt_sandbox(place: Path, look_of: LookOf = lambda _: look_at_nothing) -> Sandbox:
    """Return the sandbox of a job that ``open_sandbox`` of another worker has made. Raises SandboxError and JobTaken."""

    def directory_of(written: JobRecord) -> JobDirectory:
        return JobDirectory(path=place, size=written.size, owner=written.owner, users=written.users)

    return await SupervisedSandbox.adopt(place, directory_of, look_of)
