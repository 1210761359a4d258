"""A job that does what every job does and nothing else: what shows that a sandbox works, and what it costs."""

import grp
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import trio

from builder_worker.sandbox import Backend, Limits, Task
from builder_worker.sandbox.diagnosis import Problem

SCRIPT = """\
#!/bin/sh
: >probe || exit
for device in {devices}; do
  [ -r "$device" ] && [ -w "$device" ] || exit 77
done
"""
"""It is executed, by its first line, writes to its directory, and may use what devices it is shown."""

_DEVICE_CLOSED = 77

_NOT_EXECUTABLE = 126
"""What shells say of a program that is there and can't be started."""


async def run(backend: Backend, *, platform: str = "probe", limits: Limits, timeout: float) -> Problem | None:
    """Run it and return what is wrong, or None. Raises SandboxError where it does not come to the script.

    ``timeout`` is in seconds.
    """
    devices = backend.options.devices
    script = SCRIPT.format(devices=" ".join(shlex.quote(str(path)) for path in devices)).encode()
    task = Task(uuid=uuid4(), name="probe", platform=platform, script=script, limits=limits)
    with trio.move_on_after(timeout):
        async with await backend.open(task) as sandbox:
            sandbox.start()
            status = await sandbox.wait()
            if status.code == 0:
                return None
            if status.code == _NOT_EXECUTABLE:
                return not_executable(sandbox.work, sandbox.work.parents[2])
            if status.code == _DEVICE_CLOSED:
                return _closed(devices)
            return sandbox.exceeded() or str(status), ""
    return f"a job that does nothing takes longer than {timeout:g} s", "see what else the machine is doing"


def _closed(devices: Sequence[Path]) -> Problem:
    groups = {path: path.stat().st_gid for path in devices}
    which = ", ".join(f"{path} (group {_name(group)})" for path, group in groups.items())
    return f"jobs may not read and write {which}", "put the worker's user into the device's group, and start it anew"


def _name(group: int) -> str:
    try:
        return grp.getgrgid(group).gr_name
    except KeyError:
        return str(group)


def not_executable(work: Path, root: Path) -> Problem:
    """Return what is said where no script can be executed in a directory of a job; ``root`` is that for all jobs."""
    flags = os.statvfs(work).f_flag
    is_mounted_so = bool(flags & getattr(os, "ST_NOEXEC", 0))  # Python has no name for it elsewhere than on Linux
    why = "its file system is mounted noexec" if is_mounted_so else "the system forbids it"
    return f"no script can be executed in {root}: {why}", "name another directory with --work-dir"
