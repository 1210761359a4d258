"""What every job on Linux needs before it starts: a user, a directory with the script in it, and control groups."""

import os
from collections.abc import Callable
from contextlib import AsyncExitStack

from attrs import frozen

from builder_worker.sandbox import Limits, Sandbox, SandboxError, Task, job_directory
from builder_worker.sandbox.job_directory import JobDirectory
from builder_worker.sandbox.linux import users
from builder_worker.sandbox.linux.cgroups import Cgroups, Group
from builder_worker.sandbox.linux.users import JobUser
from builder_worker.sandbox.options import Options
from builder_worker.sandbox.processes.launch import Launch
from builder_worker.sandbox.processes.supervision import Supervision
from builder_worker.sandbox.supervised import SCRIPT, Look, SupervisedSandbox, look_at_nothing, shielded


@frozen(kw_only=True)
class Prepared:
    """What a job has. ``owner`` is the host's user who owns its files, None for the worker's."""

    owner: int | None
    directory: JobDirectory
    group: Group


async def open_sandbox(
    task: Task,
    options: Options,
    groups: Cgroups,
    describe: Callable[[Prepared], Launch],
    *,
    limits: Limits,
    owner_of: Callable[[JobUser], int] | None,
    user_count: int = 1,
    look: Look = look_at_nothing,
) -> Sandbox:
    """Prepare a job that is started as ``describe`` says; ``limits`` are those of the control groups.

    ``owner_of`` tells who of the host owns the files of a job whose worker is root, None that it is the worker itself;
    ``user_count`` users from that one on are the job's.

    Raises SandboxError, and then nothing is left.
    """
    job_directory.prepare_root(options.work_root)
    async with AsyncExitStack() as resources:
        try:
            owner = None
            if os.geteuid() == 0 and owner_of is not None:
                user = users.take(options.job_uids, shared=bool(options.caches))
                resources.callback(user.release)
                owner = owner_of(user)
            name = str(task.uuid)
            directory = await JobDirectory.make(
                options.work_root, name, size=task.limits.work_size, owner=owner, users=user_count
            )
            resources.push_async_callback(shielded, directory.remove)
            supervision = Supervision(directory.path)
            resources.push_async_callback(shielded, supervision.aclose)
            group = groups.create(name, limits)
            resources.push_async_callback(shielded, group.remove)
            directory.write_script(SCRIPT, task.script)
            launch = describe(Prepared(owner=owner, directory=directory, group=group))
        except OSError as error:
            raise SandboxError(f"cannot prepare the sandbox: {error}") from error
        return SupervisedSandbox(
            directory=directory,
            group=group,
            limits=task.limits,
            supervision=supervision,
            launch=launch,
            look=look,
            resources=resources.pop_all(),
        )
