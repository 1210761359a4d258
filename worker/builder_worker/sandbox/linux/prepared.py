"""What every job on Linux needs before it starts: a user, a directory with the script in it, and control groups."""

import contextlib
import os
from collections.abc import Awaitable, Callable

import trio
from attrs import frozen

from builder_worker.sandbox import Limits, Sandbox, SandboxError, Task, job_directory
from builder_worker.sandbox.job_directory import JobDirectory
from builder_worker.sandbox.linux import users
from builder_worker.sandbox.linux.cgroups import Cgroups, Group
from builder_worker.sandbox.linux.users import JobUser
from builder_worker.sandbox.options import Options
from builder_worker.sandbox.watched import SCRIPT


@frozen(kw_only=True)
class Prepared:
    """It is there until ``aclose``. ``owner`` is the host's user who owns the job's files, None for the worker's."""

    owner: int | None
    directory: JobDirectory
    group: Group
    resources: contextlib.AsyncExitStack

    async def aclose(self) -> None:
        """Remove the control groups with all that is in them, then the directory, and let the user go."""
        await self.resources.aclose()


async def _shielded(remove: Callable[[], Awaitable[None]]) -> None:
    """Remove something, also when the caller is cancelled."""
    with trio.CancelScope(shield=True):
        await remove()


async def open_sandbox(
    task: Task,
    options: Options,
    groups: Cgroups,
    make: Callable[[Prepared], Sandbox],
    *,
    limits: Limits,
    owner_of: Callable[[JobUser], int] | None,
) -> Sandbox:
    """Prepare a job and return what ``make`` makes of it; ``limits`` are those of the control groups.

    ``owner_of`` tells who of the host owns the files of a job whose worker is root, None that it is the worker itself.

    Raises SandboxError, and then nothing is left.
    """
    job_directory.prepare_root(options.work_root)
    async with contextlib.AsyncExitStack() as resources:
        try:
            owner = None
            if os.geteuid() == 0 and owner_of is not None:
                user = users.take(options.job_uids, shared=bool(options.caches))
                resources.callback(user.release)
                owner = owner_of(user)
            name = str(task.uuid)
            directory = await JobDirectory.make(options.work_root, name, size=task.limits.work_size, owner=owner)
            resources.push_async_callback(_shielded, directory.remove)
            group = groups.create(name, limits)
            resources.push_async_callback(_shielded, group.remove)
            directory.write_script(SCRIPT, task.script)
            prepared = Prepared(owner=owner, directory=directory, group=group, resources=contextlib.AsyncExitStack())
            sandbox = make(prepared)
        except OSError as error:
            raise SandboxError(f"cannot prepare the sandbox: {error}") from error
        prepared.resources.push_async_exit(resources.pop_all())
        return sandbox
