"""A job that does what every job does and nothing else: what shows that a sandbox works, and what it costs."""

import os
from pathlib import Path
from uuid import uuid4

import trio

from builder_worker.sandbox import Backend, Limits, Task
from builder_worker.sandbox.diagnosis import Problem

SCRIPT = b"""\
#!/bin/sh
: >probe
"""
"""It is executed, by its first line, and writes to its directory."""

_NOT_EXECUTABLE = 126
"""What shells say of a program that is there and can't be started."""


async def run(backend: Backend, *, platform: str = "probe", limits: Limits, timeout: float) -> Problem | None:
    """Run it and return what is wrong, or None. Raises SandboxError where it does not come to the script.

    ``timeout`` is in seconds.
    """
    task = Task(uuid=uuid4(), name="probe", platform=platform, script=SCRIPT, limits=limits)
    with trio.move_on_after(timeout):
        async with await backend.open(task) as sandbox:
            sandbox.start()
            status = await sandbox.wait()
            if status.code == 0:
                return None
            if status.code == _NOT_EXECUTABLE:
                return not_executable(sandbox.work, sandbox.work.parents[2])
            return sandbox.exceeded() or str(status), ""
    return f"a job that does nothing takes longer than {timeout:g} s", "see what else the machine is doing"


def not_executable(work: Path, root: Path) -> Problem:
    """Return what is said where no script can be executed in a directory of a job; ``root`` is that for all jobs."""
    flags = os.statvfs(work).f_flag
    is_mounted_so = bool(flags & getattr(os, "ST_NOEXEC", 0))  # Python has no name for it elsewhere than on Linux
    why = "its file system is mounted noexec" if is_mounted_so else "the system forbids it"
    return f"no script can be executed in {root}: {why}", "name another directory with --work-dir"
