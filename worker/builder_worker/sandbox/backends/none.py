"""No sandbox: the job runs with the worker's rights, files and network. The worker is already inside something.

Of the rules of ``builder_worker.sandbox`` this back end keeps 1 and 2 as far as the supervisor can (see there) and
control groups do, where the worker may make them; and of 3 that the job inherits no descriptors and no environment but
the task's. It can read and write what the worker can, and kill the worker.
"""

import os
import sys
from pathlib import Path
from typing import ClassVar

from attrs import define, field

from builder_worker.sandbox import Backend, Check, Sandbox, Spare, Task, diagnosis, job_directory, probe
from builder_worker.sandbox.linux import cgroups
from builder_worker.sandbox.linux.prepared import Prepared, ReadyMade, adopt_sandbox, open_sandbox
from builder_worker.sandbox.options import Options
from builder_worker.sandbox.processes import inside
from builder_worker.sandbox.processes.launch import Launch
from builder_worker.sandbox.script import interpreter
from builder_worker.sandbox.supervised import SCRIPT


@define(kw_only=True)
class NoSandbox(Backend):
    """Runs jobs in fresh directories."""

    name: ClassVar[str] = "none"

    options: Options = field(factory=Options)
    groups: cgroups.Cgroups = field(factory=cgroups.find)

    def check(self) -> Check:
        """Run a script in a directory for jobs. Raises SandboxError, which says how to mend it, if there can be none."""
        if not job_directory.can_execute(self.options.work_root):
            reason, remedy = probe.not_executable(self.options.work_root, self.options.work_root)
            return Check(works=False, reason=reason, remedy=remedy)
        measured = {"work_size"} if sys.platform == "linux" else set()
        notes = ("the job has all of the worker's rights", *diagnosis.notes(self.groups))
        return Check(works=True, limits=self.groups.limits | measured, notes=notes)

    async def spare(self) -> Spare:
        """Make what the next job needs."""
        return await ReadyMade.make(self.options, self.groups)

    async def open(self, task: Task, spare: Spare | None = None) -> Sandbox:
        """Return a fresh directory with the script in it."""

        def describe(prepared: Prepared) -> Launch:
            work = prepared.directory.build
            return Launch(
                command=interpreter(task.script, str(work / SCRIPT)),
                environment=inside.variables(task, str(work), os.defpath),
                directory=work,
            )

        return await open_sandbox(
            task,
            self.options,
            self.groups,
            describe,
            backend=self.name,
            limits=task.limits,
            owner_of=None,
            spare=spare,
        )

    async def adopt(self, place: Path) -> Sandbox:
        """Return the sandbox of a job that an earlier worker has left."""
        return await adopt_sandbox(place)

    async def clean_up(self) -> tuple[str, ...]:
        """Kill what workers that were killed have left of their jobs, and remove the directories."""
        return (*await self.groups.clean_up(), *await job_directory.clean_up(self.options.work_root))
