"""What the back ends share that are made of bubblewrap: how it is called, and what surrounds it.

A worker that is root never runs it as the host's user 0 with the job's files in reach: each sandbox has a user of its own.
"""

import abc
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from attrs import define, field

from builder_worker.sandbox import Backend, Check, Sandbox, Spare, Task, diagnosis, job_directory
from builder_worker.sandbox.diagnosis import Problem
from builder_worker.sandbox.linux import cgroups, seccomp, view
from builder_worker.sandbox.linux.prepared import Prepared, ReadyMade, adopt_sandbox, open_sandbox
from builder_worker.sandbox.linux.users import JobUser
from builder_worker.sandbox.options import Options
from builder_worker.sandbox.processes import inside, rlimits
from builder_worker.sandbox.processes.launch import Launch
from builder_worker.sandbox.processes.supervisor import FIRST_FILE
from builder_worker.sandbox.script import interpreter
from builder_worker.sandbox.supervised import SCRIPT

ISOLATION = ("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent", "--new-session")

GENTLE = 10
"""Niceness of jobs of which no control group counts the processes: among so many, the worker must get to kill them."""


def environment(task: Task, home: str, path: str) -> list[str]:
    """Return arguments that set the job's environment and nothing else."""
    variables = inside.variables(task, home, path)
    return ["--clearenv", *(part for name, value in variables.items() for part in ("--setenv", name, value))]


@define(kw_only=True)
class BwrapBackend(Backend):
    """Makes sandboxes with bubblewrap."""

    users: ClassVar[int] = 1
    """How many of the host's users belong to one sandbox."""

    options: Options = field(factory=Options)
    groups: cgroups.Cgroups = field(factory=cgroups.find)

    @abc.abstractmethod
    def owner_of(self, user: JobUser) -> int:
        """Return the host's user who owns the job's files, when the worker is root."""

    @abc.abstractmethod
    def describe(self, task: Task, prepared: Prepared) -> Launch:
        """Say how a job is started."""

    def missing(self) -> Problem | None:
        """Return what all of these sandboxes need and this machine lacks."""
        if not seccomp.supported():
            return "there is no seccomp filter for this kind of machine", "use another sandbox"
        return diagnosis.missing({"bwrap": "bubblewrap"})

    def result(self, problem: Problem | None) -> Check:
        """Return the result of a check."""
        if problem is not None:
            return Check(works=False, reason=problem[0], remedy=problem[1])
        notes = diagnosis.notes(self.groups, network=self.options.network)
        return Check(works=True, limits=self.groups.limits | diagnosis.ALWAYS_LIMITED, notes=notes)

    async def spare(self) -> Spare:
        """Make what the next job needs."""
        return await ReadyMade.make(self.options, self.groups)

    async def open(self, task: Task, spare: Spare | None = None) -> Sandbox:
        """Return a fresh sandbox."""

        def describe(prepared: Prepared) -> Launch:
            return self.describe(task, prepared)

        return await open_sandbox(
            task,
            self.options,
            self.groups,
            describe,
            backend=self.name,
            limits=task.limits,
            owner_of=self.owner_of,
            user_count=self.users,
            spare=spare,
        )

    async def adopt(self, place: Path) -> Sandbox:
        """Return the sandbox of a job that an earlier worker has left."""
        return await adopt_sandbox(place)

    def launch(
        self,
        task: Task,
        prepared: Prepared,
        arguments: Sequence[str],
        *,
        prefix: Sequence[str] = (),
        user: int | None = None,
        files: Mapping[tuple[str, str], bytes] | None = None,
        last: Sequence[str] = (),
    ) -> Launch:
        """Return what starts bubblewrap, by a program that ``prefix`` names or as ``user``. ``files`` are made in the
        sandbox before the arguments that are ``last``: by which option, where, with what text.
        """
        contents: list[bytes] = []
        words = list(arguments)
        for (made_by, path), text in (files or {}).items():
            words += ["--perms", "0644", made_by, str(FIRST_FILE + len(contents)), path]
            contents.append(text)
        words += ["--seccomp", str(FIRST_FILE + len(contents)), *last]
        contents.append(seccomp.build())
        # In a file, because all users see command lines, and the job's environment is part of this one.
        command = (*prefix, "bwrap", "--args", str(FIRST_FILE + len(contents)))
        contents.append(b"".join(os.fsencode(word) + b"\0" for word in words))
        bounded = "pids" in self.groups.limits
        return Launch(
            command=(*command, *inside.run(interpreter(task.script, f"{view.BUILD}/{SCRIPT}"))),
            rlimits=rlimits.of_job(
                processes=None if bounded else rlimits.PROCESSES,
                file_size=prepared.directory.size if prepared.directory.is_measured else None,
            ),
            niceness=0 if bounded else GENTLE,
            user=user,
            owner=prepared.owner,
            files=contents,
            has_notes=True,
            has_gate=True,
        )

    def shared(self, platform: str, owner: int | None) -> list[str]:
        """Return the arguments for what the operator shares with jobs."""
        arguments = []
        for bind in self.options.binds:
            arguments += ["--bind" if bind.writable else "--ro-bind", str(bind.source), bind.target]
        for cache in self.options.caches:
            path = self.options.cache_directory(platform, cache)
            job_directory.make_cache(path, owner)
            arguments += ["--bind", str(path), cache.target]
        return arguments

    async def clean_up(self) -> tuple[str, ...]:
        """Remove control groups and work directories of workers that are gone."""
        return (*await self.groups.clean_up(), *await job_directory.clean_up(self.options.work_root))
