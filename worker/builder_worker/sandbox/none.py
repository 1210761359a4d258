"""No sandbox: the job runs with the worker's rights, files and network. The worker is already inside something.

Of the rules of ``builder_worker.sandbox`` this back end keeps 1 and 2 as far as the keeper can (see ``keeper``) and
control groups do, where the worker may make them; and of 3 that the job inherits no descriptors and no environment but
the task's. It can read and write what the worker can, and kill the worker.
"""

import os
import sys
from typing import ClassVar

import trio
from attrs import define, field

from builder_worker.nurseries import plain_nursery
from builder_worker.sandbox import Backend, Check, ExitStatus, Sandbox, Task, cgroups, diagnosis, job_directory, owner
from builder_worker.sandbox.kept import MARK, KeptProcess, kill_marked
from builder_worker.sandbox.options import Options
from builder_worker.sandbox.prepared import SCRIPT, Prepared, open_sandbox


class Unconfined(Sandbox):
    """A job without a sandbox, in a directory of its own."""

    script_name = SCRIPT

    def __init__(self, task: Task, prepared: Prepared) -> None:
        self.work = prepared.directory.build
        self._prepared = prepared
        script = str(self.work / SCRIPT)
        self._process = KeptProcess(
            [script] if task.script.startswith(b"#!") else ["/bin/sh", script],
            environment={"PATH": os.defpath, "HOME": str(self.work), **task.environment, MARK: str(task.uuid)},
            directory=self.work,
            group=prepared.group,
        )
        self._status: ExitStatus | None = None

    def start(self, output: int) -> None:
        """Start the script."""
        self._process.start(output)

    async def wait(self) -> ExitStatus:
        """Wait for the script, and watch the size of the work directory meanwhile."""
        if self._status is None:
            async with plain_nursery() as nursery:
                nursery.start_soon(self._enforce_size)
                status = await self._process.wait()
                nursery.cancel_scope.cancel()
            await self._prepared.directory.settle()
            self._status = status
        return self._status

    async def _enforce_size(self) -> None:
        await self._prepared.directory.wait_full(lambda: self._process.processes)
        self.kill()

    def kill(self) -> None:
        """Kill all that came of the script."""
        self._process.kill()

    def exceeded(self) -> str | None:
        """Return the limit that ended the job."""
        if self._status is None or (self._status.code == 0 and not self._prepared.directory.is_over):
            return None
        lost = "the job killed the process that watched over it" if self._process.was_lost else None
        return self._prepared.group.exceeded() or self._prepared.directory.exceeded() or lost

    async def aclose(self) -> None:
        """Kill, wait, remove."""
        with trio.CancelScope(shield=True):
            if self._process.runs:
                self.kill()
                await self._process.wait()
            await self._prepared.aclose()


@define(kw_only=True)
class NoSandbox(Backend):
    """Runs jobs in fresh directories."""

    name: ClassVar[str] = "none"

    options: Options = field(factory=Options)
    groups: cgroups.Cgroups = field(factory=cgroups.find)

    def check(self) -> Check:
        """Return whether directories can be made. Raises SandboxError, which says how to mend it, if they can't."""
        job_directory.prepare_root(self.options.work_root)
        measured = {"work_size"} if sys.platform == "linux" else set()
        notes = ("the job has all of the worker's rights", *diagnosis.notes(self.groups))
        return Check(works=True, limits=self.groups.limits | measured, notes=notes)

    async def open(self, task: Task) -> Sandbox:
        """Return a fresh directory with the script in it."""

        def make(prepared: Prepared) -> Sandbox:
            return Unconfined(task, prepared)

        return await open_sandbox(task, self.options, self.groups, make, limits=task.limits, owner_of=None)

    async def clean_up(self) -> tuple[str, ...]:
        """Kill what workers that were killed have left of their jobs, and remove the directories."""
        for path in job_directory.left_over(self.options.work_root):
            await kill_marked(owner.untag(path.name))
        return (*await self.groups.clean_up(), *await job_directory.clean_up(self.options.work_root))
