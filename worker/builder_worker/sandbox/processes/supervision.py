"""The worker's half of a supervised job: it starts the supervisor, talks to it, and follows what the job writes.

A supervisor can be killed too: without a sandbox, by its job. Then the worker finds what is left: in the control groups
of the job, if there are any, and by a mark in the environment, which a job can remove.
"""

import json
import marshal
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import trio
from attrs import asdict, define, field, frozen

from builder.runtime.changes import Change
from builder_worker.sandbox import ExitStatus, Limits, SandboxError
from builder_worker.sandbox.disk import Space
from builder_worker.sandbox.processes import supervisor, tools
from builder_worker.sandbox.processes.launch import Launch
from builder_worker.sandbox.processes.leftovers import MARK, kill_marked

READ_SIZE = 256 * 1024
"""Bytes of the console that are read at once."""

WORKER_GRACE = 0.0
"""Seconds for which a job goes on without a worker: until workers can come back to their jobs, none."""

_PATIENCE = 1.0
"""Seconds for a supervisor to kill everything, and then between attempts to help it: the job may have stopped it."""

_SLACK = 2.0
"""Seconds after which a limit in time is kept here that the supervisor has not kept."""

_END_TIMEOUT = 10.0
"""Seconds after which a supervisor that kills nothing is killed itself."""

_REMOVE_TIMEOUT = 300.0
"""The same for one that has more to remove than processes."""


@frozen(kw_only=True)
class Status:
    """How a job ended, as its supervisor says it; with neither ``code`` nor ``signal`` it did not begin."""

    code: int | None
    signal: int | None
    stopped: str | None
    """Which limit ended it."""

    notes: str
    """What the programs around it said when they were done, or why they could not begin."""

    left: str | None
    """What could not be removed."""


class Spool:
    """What a job writes, from the file to which its supervisor appends it."""

    def __init__(self, directory: Path) -> None:
        flags = os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._file = os.open(directory / supervisor.CONSOLE, flags, 0o600)
        try:
            self._times = os.open(directory / supervisor.TIMES, flags, 0o600)
        except BaseException:
            os.close(self._file)
            raise
        self._offset = 0
        self._entry = 0  # where the entry of the times stands that is in use
        self._change = Change()
        self._is_complete = False
        self.time = time.monotonic_ns()

    async def receive_some(self) -> bytes:
        """Return what was written since, all at one ``time``; empty when the job is over and all was read."""
        await trio.lowlevel.checkpoint()  # before the look: what was read is not lost when the caller is cancelled
        while True:
            changed = self._change.next
            is_complete = self._is_complete  # before the look at the file
            end, at = self._look_up()
            if data := os.pread(self._file, min(READ_SIZE, end - self._offset), self._offset):
                self._offset += len(data)
                self.time = at
            if data or is_complete:
                return data
            await changed.wait()  # no deadline: a job may be silent, up to the limit that its supervisor keeps

    def _look_up(self) -> tuple[int, int]:
        """Return up to where the next bytes were written at one time, and when. What has no entry yet is written now."""
        while len(entry := os.pread(self._times, 32, self._entry)) >= 16:
            at, end = int.from_bytes(entry[:8], "little"), int.from_bytes(entry[8:16], "little")
            if end > self._offset:
                return end, at
            if len(entry) < 32:  # the last one, which the supervisor may change
                break
            self._entry += 16
        return self._offset + READ_SIZE, time.monotonic_ns()

    def announce(self, *, complete: bool = False) -> None:
        """Tell that there may be more, or that there will be no more."""
        self._is_complete = self._is_complete or complete
        self._change.announce()

    @property
    def size(self) -> int:
        """Bytes that it takes on the disk."""
        return os.fstat(self._file).st_size

    def close(self) -> None:
        """Close the files."""
        os.close(self._file)
        os.close(self._times)


@define(eq=False)
class Supervision:
    """A supervisor and its job. The supervisor starts at once, for that takes most of the time; the job by ``start``.

    ``entries`` are the files of control groups that the job enters, also at once.
    """

    _directory: Path
    _entries: Sequence[Path] = ()
    console: Spool = field(init=False)
    status: Status | None = field(init=False, default=None)
    _launch: Launch | None = field(init=False, default=None)
    _limits: Limits = field(init=False, factory=Limits)
    _process: subprocess.Popen[bytes] = field(init=False)
    _link: socket.socket | None = field(init=False)
    _begun: float = field(init=False, default=0.0)
    _heard: float = field(init=False, default=0.0)
    _stopped: str | None = field(init=False, default=None)
    """Which limit the worker had to keep itself."""

    _ended_at: float | None = field(init=False, default=None)
    """When the end was wanted."""

    _waiting: trio.CancelScope = field(init=False, factory=trio.CancelScope)

    def __attrs_post_init__(self) -> None:
        """Start the supervisor. Raises OSError."""
        with ExitStack() as made, _listen(self._directory) as listener:
            self.console = Spool(self._directory)
            made.callback(self.console.close)
            self._link = made.enter_context(_connect(self._directory))
            with listener.accept()[0] as theirs:
                self._process = subprocess.Popen(
                    (*tools.python(supervisor), self.mark, *self._entries),  # the mark tells people whose it is
                    stdin=theirs.fileno(),
                    stdout=listener.fileno(),
                    cwd=self._directory,
                    env={**tools.ENVIRONMENT, MARK: self.mark},
                    start_new_session=True,  # what the terminal sends to the worker's group is not for jobs
                )
            made.pop_all()

    @property
    def mark(self) -> str:
        """The value of MARK."""
        return self._directory.name

    @property
    def is_ready(self) -> bool:
        """Whether there can be a job: a job without a sandbox can kill what is there for the next one."""
        return self._process.poll() is None

    @property
    def was_lost(self) -> bool:
        """Whether the supervisor ended before it could tell how the job did, and nobody here wanted that."""
        return self._launch is not None and not self._link and self.status is None and self._ended_at is None

    @property
    def stopped(self) -> str | None:
        """The limit in time or output that ended the job, in words."""
        return self._stopped or (self.status.stopped if self.status else None)

    @property
    def processes(self) -> list[int]:
        """All processes below the supervisor."""
        return supervisor.below(self._process.pid, supervisor.children()) if self._link else []

    def start(self, launch: Launch, limits: Limits) -> None:
        """Start the job. Raises SandboxError."""
        assert self._link
        given = _plain(launch) | {
            "environment": {**launch.environment, MARK: self.mark},
            "timeout": limits.timeout,
            "max_silent": limits.max_silent,
            "max_console": limits.max_console,
            "worker_grace": WORKER_GRACE,
        }
        try:
            given["reserve"] = Space.of(self._directory).reserve
            tools.write_private(self._directory / supervisor.LAUNCH, marshal.dumps(given))
            self._link.send(supervisor.START)
        except OSError as error:
            raise SandboxError(f"the job can't be started: {error.strerror}") from error
        self._launch, self._limits = launch, limits
        self._begun = self._heard = trio.current_time()

    async def wait(self) -> None:
        """Wait until the job has ended and nothing of it is left."""
        while self._link:
            # no deadline but those of its limits: a job takes as long as it takes
            with trio.CancelScope(deadline=self._deadline()[0]) as self._waiting:
                await trio.lowlevel.wait_readable(self._link)
                self._receive(self._link)
            if self._waiting.cancelled_caught:
                self._insist()
        if self._launch is not None and self.status is None:
            await self._clean_up(self._launch)
        self.console.announce(complete=True)

    def conclude(self) -> ExitStatus:
        """Return how the job ended, when nothing of it is left. Raises SandboxError if it did not begin."""
        status = self.status
        if status is None:
            return ExitStatus(signal=signal.SIGKILL)
        if status.code is None and status.signal is None:
            if self._ended_at is not None:  # it was killed before it could begin
                return ExitStatus(signal=signal.SIGKILL)
            raise SandboxError(f"the sandbox did not start: {tools.first_line(status.notes.encode())}")
        if status.left:
            raise SandboxError(status.left)
        return ExitStatus(code=status.code, signal=status.signal)

    def kill(self) -> None:
        """Let the supervisor kill everything. Harmless when it is gone; does not wait."""
        if self._link and self._ended_at is None:
            self._ended_at = trio.current_time()
            try:
                self._link.send(supervisor.END)
                self._process.send_signal(signal.SIGCONT)  # the job may have stopped it
            except OSError:
                pass  # it has ended
            self._waiting.deadline = self._deadline()[0]

    async def aclose(self) -> None:
        """Kill everything and wait for it, if anything runs."""
        self.kill()
        await self.wait()
        self.console.close()

    def _receive(self, link: socket.socket) -> None:
        """Take all that the supervisor has said: no more than a socket holds."""
        while self._link:
            try:
                data = link.recv(supervisor.MAX_MESSAGE)
            except BlockingIOError:
                return
            except ConnectionResetError:  # it has not read all, and what it said comes after this
                continue
            if data == supervisor.OUTPUT:
                self._heard = trio.current_time()
                self.console.announce()
            elif data:
                self.status = Status(**json.loads(data))
            else:
                self._close()

    def _close(self) -> None:
        if self._link:
            self._link.close()
            self._link = None
            self._process.wait()  # returns at once: its end of the socket was closed by its end, or it was killed

    def _deadline(self) -> tuple[float, str | None]:
        """Return when this worker has to do itself what the supervisor should have done, and the limit that it keeps."""
        if self._ended_at is not None:
            return max(self._ended_at, trio.current_time()) + _PATIENCE, None
        timeout, max_silent = self._limits.timeout, self._limits.max_silent
        limits: list[tuple[float, str | None]] = [(float("inf"), None)]
        if timeout is not None and self._launch:
            limits.append((self._begun + timeout + _SLACK, f"time limit of {timeout:g} s exceeded"))
        if max_silent is not None and self._launch:
            limits.append((self._heard + max_silent + _SLACK, f"no output for {max_silent:g} s"))
        return min(limits, key=lambda limit: limit[0])

    def _insist(self) -> None:
        """Kill what keeps the supervisor from its work; if that does not help in the end, the supervisor, and all by other
        ways.
        """
        if self._ended_at is None:
            self._stopped = self._deadline()[1]
            self.kill()
            return
        supervisor.kill_all(self.processes)
        self._process.send_signal(signal.SIGCONT)
        patience = _REMOVE_TIMEOUT if self._launch and self._launch.end else _END_TIMEOUT
        if trio.current_time() > self._ended_at + patience:
            self._process.kill()
            self._close()  # the job may have got hold of the other end

    async def _clean_up(self, launch: Launch) -> None:
        """Remove what the job of a dead supervisor has left."""
        if launch.end:
            await tools.run(*launch.end, environment=launch.end_environment)
        await kill_marked(self.mark)


def _plain(launch: Launch) -> dict[str, Any]:
    """Return a launch as marshal takes it."""
    plain = asdict(
        launch, value_serializer=lambda _instance, _field, value: os.fspath(value) if isinstance(value, Path) else value
    )
    return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def _address(directory: int, path: Path) -> str:
    """Return a name for the socket in a directory that is short enough for one: 108 bytes."""
    inside = Path(f"/proc/self/fd/{directory}")
    return str((inside if inside.exists() else path) / supervisor.SOCKET)


def _listen(directory: Path) -> socket.socket:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listener.bind(_address(descriptor, directory))
        (directory / supervisor.SOCKET).chmod(0o600)
        listener.listen(1)
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(descriptor)
    return listener


def _connect(directory: Path) -> socket.socket:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        link.connect(_address(descriptor, directory))
        link.setblocking(False)
    except BaseException:
        link.close()
        raise
    finally:
        os.close(descriptor)
    return link
