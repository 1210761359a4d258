"""No sandbox: the job runs with the worker's rights, files and network. The worker is already inside something.

Of the rules of ``builder_worker.sandbox`` this back end keeps 1 and 2 as far as the keeper can (see ``keeper``), and
of 3 that the job inherits no descriptors and no environment but the task's. It can read and write what the worker can.
"""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import trio
from attrs import frozen

from builder.errors import BuilderError
from builder_worker.sandbox import Backend, Check, ExitStatus, Sandbox, SandboxError, Task, keeper, owner
from builder_worker.trees import remove_tree

SCRIPT_NAME = ".builder-script"
"""Begins with a dot, so that a job's own ``rm *``, ``ls`` or ``sha256sum *`` does not see it."""

MARK = "BUILDER_UUID"
"""The variable by which what is left of a job is found when it has killed its keeper."""

_END_TIMEOUT = 10.0
"""Seconds for the keeper to kill everything; then it is killed itself."""


@frozen(kw_only=True)
class NoSandbox(Backend):
    """Runs jobs in fresh directories below ``directory``, which must exist and belong to the worker."""

    name: ClassVar[str] = "none"
    directory: Path

    def check(self) -> Check:
        """Return whether the directory can be used."""
        if os.access(self.directory, os.W_OK | os.X_OK):
            return Check(works=True, notes=("the job has all of the worker's rights",))
        return Check(
            works=False,
            reason=f"{self.directory} is no directory that the worker may write to",
            remedy="create it, or name another one with --work-dir",
        )

    async def open(self, task: Task) -> Sandbox:
        """Return a fresh directory with the script in it. Raises SandboxError."""
        work = self.directory / owner.tag(str(task.uuid))
        try:
            work.mkdir(mode=0o700)
            script = work / SCRIPT_NAME
            # Written in the main thread, which also starts the processes: a child that was forked while the file is
            # open for writing would hold it open, and make its execution fail.
            script.write_bytes(task.script)
            script.chmod(0o700)
        except OSError as error:
            raise SandboxError(f"the work directory can't be made: {error}") from error
        return _Directory(work, task)

    async def clean_up(self) -> tuple[str, ...]:
        """Remove the directories of workers that were killed."""
        lines = []
        for path in sorted(self.directory.glob("builder-*")):
            if not owner.is_left_over(path.name) or path.lstat().st_uid != os.geteuid():
                continue
            try:
                await trio.to_thread.run_sync(remove_tree, path)
                lines.append(f"removed {path}, left by a worker that is gone")
            except (OSError, BuilderError) as error:
                lines.append(f"cannot remove {path}, left by a worker that is gone: {error}")
        return tuple(lines)


class _Directory(Sandbox):
    def __init__(self, work: Path, task: Task) -> None:
        self.work = work
        self.script_name = SCRIPT_NAME
        self._mark = f"{MARK}={task.uuid}"
        self._environment = {"PATH": os.defpath, "HOME": str(work), **task.environment, MARK: str(task.uuid)}
        script = str(work / SCRIPT_NAME)
        self._command = [script] if task.script.startswith(b"#!") else ["/bin/sh", script]
        self._keeper: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._report = b""

    def start(self, output: int) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            try:
                self._keeper = subprocess.Popen(
                    [sys.executable, "-I", "-S", keeper.__file__, *self._command],
                    stdin=theirs.fileno(),
                    stdout=output,
                    stderr=output,
                    cwd=self.work,
                    env=self._environment,
                    start_new_session=True,
                )
            except (OSError, ValueError) as error:
                ours.close()
                raise SandboxError(f"the job can't be started: {error}") from error
        self._link = ours

    async def wait(self) -> ExitStatus:
        assert self._keeper
        while self._link:
            # no deadline: a job takes as long as it takes, and its limits are the caller's
            await trio.lowlevel.wait_readable(self._link)
            try:
                data = self._link.recv(4096)
            except ConnectionResetError:
                data = b""
            self._report += data
            if not data:
                self._link.close()
                self._link = None
                self._keeper.wait()  # returns at once: its end of the socket was closed by its end
                if not self._report:
                    await self._kill_marked()
        match self._report.split():
            case [b"exited", code]:
                return ExitStatus(code=int(code))
            case [b"signalled", number]:
                return ExitStatus(signal=int(number))
        return ExitStatus(signal=signal.SIGKILL)

    async def _kill_marked(self) -> None:
        """End what the job has left after it killed its keeper."""
        with trio.move_on_after(_END_TIMEOUT):
            while keeper.kill_marked(self._mark.encode()):  # noqa: ASYNC110 - nobody tells when one dies
                await trio.sleep(0.01)

    def kill(self) -> None:
        if self._keeper and self._link:
            try:
                self._link.shutdown(socket.SHUT_WR)
                self._keeper.send_signal(signal.SIGCONT)  # the job may have stopped it
            except OSError:
                pass  # it has ended

    def exceeded(self) -> str | None:
        if self._keeper and not self._link and not self._report:
            return "the job killed the process that watched over it"
        return None

    async def aclose(self) -> None:
        with trio.CancelScope(shield=True):
            if self._link:
                self.kill()
                with trio.move_on_after(_END_TIMEOUT) as scope:
                    await self.wait()
                if scope.cancelled_caught and self._keeper:
                    self._keeper.kill()
                    await self.wait()
            try:
                await trio.to_thread.run_sync(remove_tree, self.work)
            except OSError as error:
                raise SandboxError(f"the work directory can't be removed: {error}") from error
