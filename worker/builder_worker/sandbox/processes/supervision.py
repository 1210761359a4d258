"""The worker's half of a supervised job: it starts the supervisor, or finds that of an earlier worker, and talks to it.

A supervisor can be killed too: without a sandbox, by its job. Then the worker finds what is left: in the control groups
of the job, if there are any, and by a mark in the environment, which a job can remove.
"""

import json
import marshal
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Protocol, Self

import trio
from attrs import asdict, define, field, frozen

from builder_worker.sandbox import ExitStatus, JobLeft, Limits, SandboxError
from builder_worker.sandbox.disk import Space
from builder_worker.sandbox.processes import supervisor, tools
from builder_worker.sandbox.processes.console import ConsoleFile
from builder_worker.sandbox.processes.launch import Launch
from builder_worker.sandbox.processes.leftovers import MARK, kill_marked

ANSWER_TIMEOUT = 2.0
"""Seconds for a supervisor to answer a worker that comes to it: it has nothing else to do."""

_PATIENCE = 1.0
"""Seconds for a supervisor to kill everything, and then between attempts to help it: the job may have stopped it."""

_RETRY = 0.01
"""Seconds between attempts to come to a supervisor that has just lost its worker, or is about to go."""

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


class _Process(Protocol):
    """A supervisor, as this worker knows it."""

    pid: int

    def poll(self) -> int | None:
        """Return how it has ended, or None while it lives; of no use where it is no child of this process."""

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it is there."""

    def wait(self) -> object:
        """Wait for its end, which is near."""


class _Adopted:
    """The supervisor of an earlier worker. It is no child of this one, so its number alone could be another's one day."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._descriptor: int | None = None
        if sys.platform == "linux":
            with suppress(ProcessLookupError):
                self._descriptor = os.pidfd_open(pid)

    def poll(self) -> None:
        return None

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            if self._descriptor is not None:
                signal.pidfd_send_signal(self._descriptor, number)
            elif sys.platform != "linux":
                os.kill(self.pid, number)

    def wait(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


@define(eq=False, kw_only=True)
class Supervision:
    """A supervisor and its job, which is started by ``start`` or was by an earlier worker."""

    _directory: Path
    _process: _Process
    _link: socket.socket | None
    """None when the supervisor has gone."""

    console: ConsoleFile
    locks: Sequence[int] = ()
    """Descriptors of what the supervisor of an earlier worker holds for the job, in the order in which it got them."""

    status: Status | None = None
    _launch: Launch | None = None
    _limits: Limits = field(factory=Limits)
    _begun: float = 0.0
    _heard: float = 0.0
    _grace: float = 0.0
    _stopped: str | None = field(init=False, default=None)
    """Which limit the worker had to keep itself."""

    _ended_at: float | None = field(init=False, default=None)
    """When the end was wanted."""

    _is_left: bool = field(init=False, default=False)
    _waiting: trio.CancelScope = field(init=False, factory=trio.CancelScope)

    @classmethod
    def begin(cls, directory: Path, entries: Sequence[Path] = ()) -> Self:
        """Start a supervisor, at once, for that takes most of the time. Raises OSError.

        ``entries`` are the files of control groups that the job enters, also at once.
        """
        with ExitStack() as made, _listen(directory) as listener:
            console = ConsoleFile(directory)
            made.callback(console.close)
            link = made.enter_context(_connect(directory))
            with listener.accept()[0] as theirs:
                process = subprocess.Popen(
                    (*tools.python(supervisor), directory.name, *entries),  # the mark tells people whose it is
                    stdin=theirs.fileno(),
                    stdout=listener.fileno(),
                    cwd=directory,
                    env={**tools.ENVIRONMENT, MARK: directory.name},
                    start_new_session=True,  # what the terminal sends to the worker's group is not for jobs
                )
            made.pop_all()
        return cls(directory=directory, process=process, link=link, console=console)

    @classmethod
    async def adopt(cls, directory: Path, pid: int, launch: Launch, limits: Limits, *, begun: float) -> Self:
        """Come to a supervisor that an earlier worker has left, or to what it has written down before it went.

        ``begun`` is when the job began, in seconds of the monotonic clock. Raises SandboxError if the job neither runs
        nor came to its end.
        """
        with ExitStack() as made:
            try:
                console = ConsoleFile(directory, is_new=False)
                made.callback(console.close)
                answer = await _come_to(directory)
                link, locks, said = answer or (None, (), (directory / supervisor.STATUS).read_bytes())
            except OSError as error:
                raise SandboxError(f"nothing is there of it any more: {error.strerror}") from error
            now = trio.current_time()
            one = cls(
                directory=directory,
                process=_Adopted(pid),
                link=link,
                locks=locks,
                console=console,
                launch=launch,
                limits=limits,
                begun=now - (time.monotonic() - begun),
                heard=now,
                grace=float("inf"),
            )
            one._take(said)
            made.pop_all()
        return one

    @property
    def mark(self) -> str:
        """The value of MARK."""
        return self._directory.name

    @property
    def is_ready(self) -> bool:
        """Whether there can be a job: a job without a sandbox can kill what is there for the next one."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """The supervisor's number."""
        return self._process.pid

    @property
    def has_supervisor(self) -> bool:
        """Whether the supervisor is there."""
        return self._link is not None

    @property
    def can_go_on(self) -> bool:
        """Whether there is a supervisor that keeps the job, or its end, without this worker."""
        return self._link is not None and self._grace > 0

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

    def start(self, launch: Launch, limits: Limits, *, grace: float = 0.0, locks: Sequence[int] = ()) -> None:
        """Start the job, which goes on for ``grace`` seconds without a worker. Raises SandboxError.

        ``locks`` are descriptors that the supervisor holds as long as it is there.
        """
        assert self._link
        given = _plain(launch) | {
            "environment": {**launch.environment, MARK: self.mark},
            "timeout": limits.timeout,
            "max_silent": limits.max_silent,
            "max_console": limits.max_console,
            "worker_grace": grace,
        }
        try:
            given["reserve"] = Space.of(self._directory).reserve
            tools.write_private(self._directory / supervisor.LAUNCH, marshal.dumps(given))
            socket.send_fds(self._link, [supervisor.START], locks)
        except OSError as error:
            raise SandboxError(f"the job can't be started: {error.strerror}") from error
        self._launch, self._limits, self._grace = launch, limits, grace
        self._begun = self._heard = trio.current_time()

    async def wait(self) -> None:
        """Wait until the job has ended and nothing of it is left; the supervisor stays. Raises JobLeft."""
        while self._link and self.status is None:
            # no deadline but those of its limits: a job takes as long as it takes
            with trio.CancelScope(deadline=self._deadline()[0]) as self._waiting, suppress(trio.ClosedResourceError):
                await trio.lowlevel.wait_readable(self._link)
                self._receive(self._link)
            if self._waiting.cancelled_caught:
                self._insist()
        if self._is_left:
            raise JobLeft
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
        if self._link and self.status is None and self._ended_at is None:
            self._ended_at = trio.current_time()
            try:
                self._link.send(supervisor.END)
                self._process.send_signal(signal.SIGCONT)  # the job may have stopped it
            except OSError:
                pass  # it has ended
            self._waiting.deadline = self._deadline()[0]

    def leave(self) -> None:
        """Let go of a job that was started: it goes on for as long as its supervisor has time. Who waits for it gets JobLeft."""
        self._is_left = True
        if isinstance(self._process, subprocess.Popen):
            self._process.returncode = 0  # it outlives this process: nobody here waits for it
        if self._link:
            trio.lowlevel.notify_closing(self._link)
            self._close()

    async def aclose(self) -> None:
        """Kill everything, if anything runs, and wait until the supervisor has gone, too."""
        if not self._is_left:
            self.kill()
            await self.wait()
            await self.dismiss()
        self.console.close()

    async def dismiss(self) -> None:
        """Let a supervisor go that has told how its job ended. Harmless when it has gone."""
        if self._link:
            with trio.move_on_after(_PATIENCE), suppress(OSError):
                self._link.send(supervisor.DONE)
                while self._link:
                    await trio.lowlevel.wait_readable(self._link)
                    self._receive(self._link)
        if self._link:
            self._process.send_signal(signal.SIGKILL)
            self._close()

    def _receive(self, link: socket.socket) -> None:
        """Take all that the supervisor has said: no more than a socket holds."""
        while self._link:
            try:
                data = link.recv(supervisor.MAX_MESSAGE)
            except BlockingIOError:
                return
            except ConnectionResetError:  # it has not read all, and what it said comes after this
                continue
            self._take(data)

    def _take(self, said: bytes) -> None:
        if said == supervisor.OUTPUT:
            self._heard = trio.current_time()
            self.console.announce()
        elif said:
            self.status = Status(**json.loads(said))
        else:
            self._close()

    def _close(self) -> None:
        if self._link:
            self._link.close()
            self._link = None
            if not self._is_left:
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
            self._process.send_signal(signal.SIGKILL)
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
        link.setblocking(False)  # it is connected at once, or too many others wait there
        link.connect(_address(descriptor, directory))
    except BaseException:
        link.close()
        raise
    finally:
        os.close(descriptor)
    return link


async def _come_to(directory: Path) -> tuple[socket.socket, Sequence[int], bytes] | None:
    """Connect to a supervisor that waits for a worker; return the connection, the locks that it holds, and what it says.

    Returns None if it has gone. Raises SandboxError if it does not answer.
    """
    with trio.move_on_after(ANSWER_TIMEOUT):
        while True:
            with ExitStack() as made:
                try:
                    link = made.enter_context(_connect(directory))
                    await trio.lowlevel.wait_readable(link)
                    said, locks, _, _ = socket.recv_fds(
                        link, supervisor.MAX_MESSAGE, supervisor.MAX_LOCKS, socket.MSG_CMSG_CLOEXEC
                    )
                except (ConnectionRefusedError, FileNotFoundError):
                    return None
                except (BlockingIOError, ConnectionResetError):
                    said = b""
                if said:
                    made.pop_all()
                    return link, locks, said
            await trio.sleep(_RETRY)
    raise SandboxError(f"its supervisor has not answered for {ANSWER_TIMEOUT:g} s")
