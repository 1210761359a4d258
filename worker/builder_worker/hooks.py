"""Commands of the operator's that run around each job, outside of its sandbox: to make a snapshot, to clean up.

A hook is run by /bin/sh as the worker's own user, with the worker's environment and on top of it

    BUILDER_JOB, BUILDER_PLATFORM, BUILDER_UUID    which job it is
    BUILDER_WORK                                   the job's work directory, as the worker sees it
    BUILDER_RESULT                                 how the job ended, only for the one after it

Names of jobs come from outside: a hook has to quote them. What it prints goes into the job's console. It is run like
a job, with the same code around it, in a session of its own: what it leaves in that session is killed when it has
ended. What it moves to another session stays, on purpose: a hook may mount a file system of FUSE or start a container.
"""

import contextlib
import functools
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence

import trio
from attrs import frozen

from builder.model import Exited, describe_result, printable, raw
from builder_worker.console import PREFIX
from builder_worker.job import SendLines, run_job
from builder_worker.sandbox import ExitStatus, Limits, Sandbox, SandboxError

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
    name: str, command: str, environment: Mapping[str, str], *, timeout: float, send_lines: SendLines
) -> str | None:
    """Run a hook; return None, or in words how it failed."""

    async def send_marked(lines: Sequence[bytes]) -> None:
        await send_lines([raw(PREFIX + f"{name}: {printable(line)}") for line in lines])

    limits = Limits(timeout=timeout, max_console=MAX_OUTPUT)
    try:
        async with _Hook(command, environment) as process:
            result = await run_job(process, limits=limits, send_lines=send_marked)
    except SandboxError as error:
        return f"the {name} hook failed: {error}"
    if result == Exited(code=0):
        return None
    return f"the {name} hook failed: {describe_result(result).removeprefix('execution aborted: ')}"


class _Hook(Sandbox):
    """A command that is run as if it were a job; there is no sandbox around it."""

    def __init__(self, command: str, environment: Mapping[str, str]) -> None:
        self._command = command
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, output: int) -> None:
        try:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", self._command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **self._environment},
                cwd="/",
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise SandboxError(f"it can't be started: {error}") from error

    async def wait(self) -> ExitStatus:
        assert self._process
        if self._process.returncode is None:
            # Its end is noticed, and its number kept, until what it left in its session is killed.
            end = functools.partial(os.waitid, os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
            await trio.to_thread.run_sync(end, abandon_on_cancel=True)
            self.kill()
        code = self._process.wait()
        return ExitStatus(code=code) if code >= 0 else ExitStatus(signal=-code)

    def kill(self) -> None:
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left in the session
                os.killpg(self._process.pid, signal.SIGKILL)

    async def aclose(self) -> None:
        with trio.CancelScope(shield=True):
            if self._process:
                self.kill()
                await self.wait()
