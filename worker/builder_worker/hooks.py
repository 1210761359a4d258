"""Commands of the operator's that run around each job, outside of its sandbox: to make a snapshot, to clean up.

A hook is run by /bin/sh as the worker's own user, with the worker's environment and on top of it

    BUILDER_JOB, BUILDER_PLATFORM, BUILDER_UUID    which job it is
    BUILDER_WORK                                   the job's work directory, as the worker sees it
    BUILDER_RESULT                                 how the job ended, only for the one after it

Names of jobs come from outside: a hook has to quote them. What it prints goes into the job's console. It is run like
a job, with the same code around it, in a session of its own. What it leaves behind when it ends by itself stays, on
purpose: a hook may mount a file system of FUSE or start a container. Where it is ended, for its time or its output, all
of its session is killed.
"""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import trio
from attrs import frozen

from builder.model import Exited, describe_result, printable, raw
from builder_worker.console import PREFIX, Progress, only_lines
from builder_worker.job import SendLines, run_job
from builder_worker.sandbox import Console, ExitStatus, Limits, Sandbox, SandboxError
from builder_worker.sandbox.processes.launch import Launch
from builder_worker.sandbox.processes.supervision import Supervision

DEFAULT_TIMEOUT = 60.0
"""Seconds for a hook."""

MAX_OUTPUT = 64 * 1024
"""Bytes that a hook may print."""


@frozen(kw_only=True)
class Hooks:
    """The commands, and how many seconds each may take."""

    prepare: str | None = None
    finish: str | None = None
    timeout: float = DEFAULT_TIMEOUT


async def run_hook(
    name: str, command: str, environment: Mapping[str, str], *, timeout: float, place: Path, send_lines: SendLines
) -> str | None:
    """Run a hook; return None, or in words how it failed. Its supervisor works in ``place``, or elsewhere if that is gone."""

    async def send_marked(lines: Sequence[bytes], _: Progress | None = None, /) -> None:
        await send_lines([raw(PREFIX + f"{name}: {printable(line)}") for line in only_lines(lines)])

    try:
        with tempfile.TemporaryDirectory(prefix=f"{name}-", dir=_existing(place)) as directory:
            async with _Hook(command, environment, timeout=timeout, place=Path(directory)) as hook:
                result = await run_job(hook, send_lines=send_marked)
    except (SandboxError, OSError) as error:
        return f"the {name} hook failed: {error}"
    if result == Exited(code=0):
        return None
    return f"the {name} hook failed: {describe_result(result).removeprefix('execution aborted: ')}"


def _existing(place: Path) -> Path | None:
    """Return a directory, or None for the system's temporary one: without a sandbox, a job can remove its own."""
    return place if place.is_dir() else None


class _Hook(Sandbox):
    """A command that is run as if it were a job; there is no sandbox around it."""

    def __init__(self, command: str, environment: Mapping[str, str], *, timeout: float, place: Path) -> None:
        self._launch = Launch(
            command=("/bin/sh", "-c", command),
            environment={**os.environ, **environment},
            rlimits={},
            niceness=None,
            oom_score=None,
            adopts=False,
        )
        self._limits = Limits(timeout=timeout, max_console=MAX_OUTPUT)
        self._supervision = Supervision.begin(place)

    @property
    def console(self) -> Console:
        return self._supervision.console

    def start(self) -> None:
        self._supervision.start(self._launch, self._limits)

    async def wait(self) -> ExitStatus:
        await self._supervision.wait()
        return self._supervision.conclude()

    def kill(self) -> None:
        self._supervision.kill()

    def exceeded(self) -> str | None:
        return self._supervision.stopped

    async def aclose(self) -> None:
        with trio.CancelScope(shield=True):
            await self._supervision.aclose()
