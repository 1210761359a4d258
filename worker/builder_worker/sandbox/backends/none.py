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

from builder_worker.sandbox import Backend, Check, ExitStatus, Sandbox, Task, diagnosis, job_directory, owner
from builder_worker.sandbox.linux import cgroups
from builder_worker.sandbox.linux.prepared import Prepared, open_sandbox
from builder_worker.sandbox.options import Options
from builder_worker.sandbox.processes.kept import MARK, KeptProcess, kill_marked
from builder_worker.sandbox.watched import SCRIPT, WatchedSandbox


class Unconfined(WatchedSandbox):
    """A job without a sandbox, in a directory of its own."""

    def __init__(self, task: Task, prepared: Prepared) -> None:
        super().__init__(prepared.directory)
        self._prepared = prepared
        script = str(self.work / SCRIPT)
        self._process = KeptProcess(
            [script] if task.script.startswith(b"#!") else ["/bin/sh", script],
            environment={"PATH": os.defpath, "HOME": str(self.work), **task.environment, MARK: str(task.uuid)},
            directory=self.work,
            group=prepared.group,
        )

    def start(self, output: int) -> None:
        """Start the script."""
        self._process.start(output)

    async def wait_gone(self) -> None:
        """Wait for the keeper."""
        await self._process.wait_gone()

    async def conclude(self) -> ExitStatus:
        """Return what the keeper said."""
        return self._process.conclude()

    def processes(self) -> list[int]:
        """Return what is below the keeper."""
        return self._process.processes

    def limit_hit(self) -> str | None:
        """Return what the control groups counted, or that there was an end to all limits."""
        lost = "the job killed the process that watched over it" if self._process.was_lost else None
        return self._prepared.group.exceeded() or lost

    def kill(self) -> None:
        """Kill all that came of the script."""
        self._process.kill()

    async def aclose(self) -> None:
        """Kill, wait, remove."""
        with trio.CancelScope(shield=True):
            await self._process.aclose()
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
            if not job_directory.is_held(path):
                await kill_marked(owner.untag(path.name))
        return (*await self.groups.clean_up(), *await job_directory.clean_up(self.options.work_root))
