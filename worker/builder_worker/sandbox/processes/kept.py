"""A process with a keeper: started, waited for, and ended with all that it has started. See ``keeper`` for the other half."""

import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import trio

from builder_worker.sandbox import ExitStatus, SandboxError
from builder_worker.sandbox.linux.cgroups import Group
from builder_worker.sandbox.processes import keeper, launch

MARK = "BUILDER_UUID"
"""The variable by which what is left of a job is found when it has killed its keeper."""

_PATIENCE = 1.0
"""Seconds for a keeper to kill everything, and then between attempts to help it: the job may have stopped it."""

_LINES = 2
"""Lines that a keeper says: that it is ready, and how its command ended."""

_END_TIMEOUT = 10.0
"""Seconds after which a keeper that is not done is killed itself."""


class KeptProcess:
    """A command with its keeper, in the control groups ``group``. ``environment`` must hold MARK."""

    def __init__(
        self, command: Sequence[str], *, environment: Mapping[str, str], directory: Path, group: Group
    ) -> None:
        self._command = command
        self._environment = environment
        self._directory = directory
        self._group = group
        self._keeper: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._report = b""
        self._ended_at: float | None = None  # when the end was wanted
        self._waiting = trio.CancelScope()

    @property
    def runs(self) -> bool:
        """Whether it was started and its keeper has not ended."""
        return self._link is not None

    @property
    def was_lost(self) -> bool:
        """Whether its keeper ended before it could tell how the command did, and nobody here wanted that."""
        return self._keeper is not None and not self._link and not self._has_told and self._ended_at is None

    @property
    def _has_told(self) -> bool:
        """Whether the keeper has come to its end."""
        return self._report.count(b"\n") == _LINES

    @property
    def processes(self) -> list[int]:
        """All processes below the keeper."""
        return keeper.descendants(self._keeper.pid) if self._keeper and self._link else []

    def start(self, output: int) -> None:
        """Start the command with ``output`` as its stdout and stderr. Raises SandboxError."""
        ours, theirs = socket.socketpair()
        with theirs:
            ours.setblocking(False)
            command = [sys.executable, "-I", "-S", keeper.__file__, *self._command]
            try:
                self._keeper = subprocess.Popen(
                    launch.enter_groups(self._group.entries, command) if self._group.entries else command,
                    stdin=theirs.fileno(),
                    stdout=output,
                    stderr=output,
                    cwd=self._directory,
                    env=self._environment,
                    start_new_session=True,
                )
            except (OSError, ValueError) as error:
                ours.close()
                raise SandboxError(f"the job can't be started: {error}") from error
        self._link = ours

    async def wait_gone(self) -> None:
        """Wait until the command has ended and nothing of it is left."""
        while self._link:
            # no deadline before the end is wanted: a job takes as long as it takes, and its limits are the caller's
            with trio.CancelScope(deadline=self._next_attempt()) as self._waiting:
                await trio.lowlevel.wait_readable(self._link)
                self._receive(self._link)
            if self._waiting.cancelled_caught:
                self._insist()
        if not self._has_told:
            await kill_marked(self._environment[MARK])
        await self._group.wait_empty()

    def conclude(self) -> ExitStatus:
        """Return how the command ended, when nothing of it is left. Raises SandboxError if it did not begin."""
        match self._report.split():
            case [b"ready", b"exited", code]:
                return ExitStatus(code=int(code))
            case [b"ready", b"signalled", number]:
                return ExitStatus(signal=int(number))
            case [] if self._ended_at is None:
                raise SandboxError("the keeper of the job did not start: its output says why")
        return ExitStatus(signal=signal.SIGKILL)

    def _receive(self, link: socket.socket) -> None:
        try:
            data = link.recv(4096)
        except ConnectionResetError:
            data = b""
        self._report += data
        if not data:
            self._close()

    def _close(self) -> None:
        if self._link and self._keeper:
            self._link.close()
            self._link = None
            self._keeper.wait()  # returns at once: its end of the socket was closed by its end, or it was killed

    def _next_attempt(self) -> float:
        return trio.current_time() + _PATIENCE if self._ended_at is not None else float("inf")

    def kill(self) -> None:
        """Let the keeper kill everything. Harmless when it is gone; does not wait."""
        if self._keeper and self._link and self._ended_at is None:
            self._ended_at = trio.current_time()
            try:
                self._link.shutdown(socket.SHUT_WR)
                self._keeper.send_signal(signal.SIGCONT)  # the job may have stopped it
            except OSError:
                pass  # it has ended
            self._waiting.deadline = self._ended_at + _PATIENCE

    async def aclose(self) -> None:
        """Kill everything and wait for it, if anything runs."""
        if self.runs:
            self.kill()
            await self.wait_gone()

    def _insist(self) -> None:
        """Kill what keeps the keeper from its work; if that does not help in the end, the keeper, and all by other ways."""
        assert self._keeper
        assert self._ended_at is not None
        keeper.kill_all(self.processes)
        self._keeper.send_signal(signal.SIGCONT)
        if trio.current_time() > self._ended_at + _END_TIMEOUT:
            self._keeper.kill()
            self._group.kill()
            self._close()  # the job may have got hold of the other end


async def kill_marked(uuid: str) -> None:
    """Kill what a job without its keeper has left, and can be told by its environment; give up after some time."""
    with trio.move_on_after(_END_TIMEOUT):
        while keeper.kill_marked(f"{MARK}={uuid}".encode()):  # noqa: ASYNC110 - nobody tells when one dies
            await trio.sleep(0.01)
