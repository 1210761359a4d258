"""Short runs of the system's own tools: mkfs, mount, rm."""

import resource
import shutil
import subprocess
from collections.abc import Mapping, Sequence

import trio

from builder.model import printable
from builder_worker.sandbox import SandboxError

TIMEOUT = 300.0
"""Seconds that a tool may take; removing a directory of millions of files takes minutes."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Users often have no sbin in their PATH."""

CORE_LIMIT = 0 if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0 else 1
"""Bytes of a job's core file. 1 is what also stops handlers of core dumps, which would run outside of the sandbox; but
where the worker was started with 0 it may not ask for more."""

_HARD_DESCRIPTORS = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

DESCRIPTORS = f"{min(1024, _HARD_DESCRIPTORS)}:{min(524_288, _HARD_DESCRIPTORS)}"
"""Open files of one process of a job, soft and hard: what systemd gives to services, whatever the worker was given."""

RESOURCES = (f"--core={CORE_LIMIT}", f"--nofile={DESCRIPTORS}")
"""Arguments of prlimit for every job."""

_HARD_PROCESSES = resource.getrlimit(resource.RLIMIT_NPROC)[1]

PROCESSES = 2048 if _HARD_PROCESSES == resource.RLIM_INFINITY else min(2048, _HARD_PROCESSES)
"""Processes of a job's user, where no control group counts those of the job. All that this user runs counts, other
jobs too if they are the same user's: no limit of a job, but fork bombs leave the machine alive."""

ENVIRONMENT = {"PATH": _PATH, "LC_ALL": "C.UTF-8"}
"""What tools see of the worker's environment: nothing."""


def find(name: str) -> str | None:
    """Return the path of a program, or None."""
    return shutil.which(name, path=_PATH)


def first_line(data: bytes) -> str:
    """Return the first line that a program said, safe to print and of bounded length."""
    lines = data.strip().splitlines()
    return printable(lines[0][:500]) if lines else "it says nothing"


async def run(*command: str, timeout: float = TIMEOUT, environment: Mapping[str, str] = ENVIRONMENT) -> bytes:
    """Run a tool and return its output. Raises SandboxError if it fails, with what it said."""
    with trio.move_on_after(timeout):
        try:
            done = await trio.run_process(
                command, env=environment, cwd="/", check=False, capture_stdout=True, capture_stderr=True
            )
        except OSError as error:
            raise SandboxError(f"cannot run {command[0]}: {error.strerror}") from error
        if done.returncode:
            raise SandboxError(f"{command[0]} failed: {first_line(done.stderr)}")
        return done.stdout
    raise SandboxError(f"{command[0]} took longer than {timeout:.0f} s")


def try_now(
    command: Sequence[str], *, timeout: float = 5.0, environment: Mapping[str, str] = ENVIRONMENT
) -> str | None:
    """Run a tool to see whether it works: return None, or the first line of what it complains about."""
    try:
        done = subprocess.run(
            command,
            env=environment,
            cwd="/",
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
        )
    except OSError as error:
        return f"{command[0]}: {error.strerror}"
    except subprocess.TimeoutExpired:
        return f"{command[0]} took longer than {timeout:.0f} s"
    return first_line(done.stderr) if done.returncode else None
