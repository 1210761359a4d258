"""One bubblewrap process: started, let go, waited for, killed.

The chain of programs keeps one process id, which is the worker's child, so the parent-death signal that bubblewrap
asks for watches the worker:

    sh         enters the control groups, sets limits     (still the worker's user)
    setpriv    becomes the job's user                     (only if the worker is root)
    bwrap      makes the namespaces; inside, as process 2:
    sh         waits for the word to go, runs the script, and says how it ended

Why the word to go: only then is it known that the worker watches the namespace, so a script never runs for a worker
that died meanwhile. Why a shell inside: bubblewrap reports a killed script as exit code 128 + signal, like a script
that exits so; the shell also says in words that a child was killed. (For SIGINT and SIGPIPE it does not, so those are
reported as exit codes 130 and 141.)
"""

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import trio
from attrs import define, field, frozen

from builder_worker.sandbox import ExitStatus, SandboxError
from builder_worker.sandbox.processes import keeper
from builder_worker.sandbox.processes.tools import ENVIRONMENT, first_line

START_TIMEOUT = 60.0
"""Seconds in which a sandbox must be ready on a machine that is very busy."""

MAX_NOTES = 64 * 1024
"""Bytes kept of what bubblewrap and its helpers say: a few lines, unless the job got hold of the pipe."""

# Process limits first, then the groups: what follows counts as the job's. The score makes the kernel, when the whole
# machine is out of memory, end jobs before workers.
_OUTER = """
umask 022
{ echo 500 >/proc/self/oom_score_adj; } 2>/dev/null
while [ "$1" != -- ]; do echo 0 >"$1" || exit 1; shift; done
shift
exec "$@"
"""

READY, OVER = b"+", b"\4"
"""What the inner shell says before and after the script; between them is what it says about the script's end."""

_INNER = """
printf + >&2
read -r go || exit 1
(exec "$@" </dev/null 2>&1)
code=$?
printf '\\004' >&2
exit $code
"""

# Kills process 1 of a namespace when the worker is gone. The kernel has a signal for that, which bubblewrap asks for;
# but a job shares its user with process 1, can get hold of it and turn that signal off. This one it can't see.
_LIFELINE = 'read -r _; kill -KILL "$1"'

_STATUS = re.compile(rb'"(child-pid|exit-code)": *([0-9]+)')


@frozen(kw_only=True)
class Launch:
    """What to start: the command line up to bwrap, bwrap's own arguments, and the job's command inside."""

    entries: Sequence[Path] = ()
    """Files of control groups to write "0" to."""

    prefix: Sequence[str] = ()
    """Programs that run the next one: setpriv, prlimit."""

    arguments: Sequence[str]
    files: dict[str, bytes] = field(factory=dict)
    """Files to be made in the sandbox, with their text."""

    last: Sequence[str] = ("--remount-ro", "/")
    """Arguments that come after the files."""

    filter: bytes
    """The seccomp program."""

    command: Sequence[str]
    pass_fds: Sequence[int] = ()
    """Descriptors that the prefix needs, and closes."""


@define(kw_only=True)
class Process:
    """A running bubblewrap. Its descriptors are closed by ``close``."""

    _process: subprocess.Popen[bytes]
    _bwrap: int
    """A pidfd: readable when bubblewrap has ended."""

    _gate: int
    _status: int
    _notes: int
    _lifeline: subprocess.Popen[bytes] | None = field(init=False, default=None)
    _init: int | None = field(init=False, default=None)
    """A pidfd of process 1 of the namespace: readable when all of its processes are gone."""

    _status_text: bytes = field(init=False, default=b"")
    _notes_text: bytes = field(init=False, default=b"")
    _hold: int | None = field(init=False, default=None)
    """The end of the lifeline's pipe that closes when the worker is gone."""

    _released: bool = field(init=False, default=False)

    _killed: bool = field(init=False, default=False)

    @classmethod
    def start(cls, launch: Launch, output: int) -> "Process":
        """Start it, in the main thread. Raises SandboxError if that fails at once."""
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            try:
                gate_read, gate = _pipe(reader=theirs, writer=ours)
                status, status_write = _pipe(reader=ours, writer=theirs)
                notes, notes_write = _pipe(reader=ours, writer=theirs)
                passed = [status_write]
                arguments = [*launch.arguments, "--json-status-fd", str(status_write)]
                for path, text in launch.files.items():
                    passed.append(_data(text, theirs))
                    arguments += ["--perms", "0644", "--file", str(passed[-1]), path]
                passed.append(_data(launch.filter, theirs))
                arguments += ["--seccomp", str(passed[-1]), *launch.last]
                # In a file, because all users see command lines, and the job's environment is part of this one.
                passed.append(_data(b"".join(os.fsencode(argument) + b"\0" for argument in arguments), theirs))
                process = subprocess.Popen(
                    enter_groups(
                        launch.entries,
                        [
                            *launch.prefix,
                            *("bwrap", "--args", str(passed[-1]), "/bin/sh", "-c", _INNER, "sh", *launch.command),
                        ],
                    ),
                    stdin=gate_read,
                    stdout=output,
                    stderr=notes_write,
                    env=ENVIRONMENT,
                    cwd="/",
                    start_new_session=True,  # what the terminal sends to the worker's group is not for jobs
                    pass_fds=[*passed, *launch.pass_fds],
                )
                bwrap = os.pidfd_open(process.pid)
            except OSError as error:
                raise SandboxError(f"cannot start a sandbox: {error}") from error
            ours.pop_all()
        os.set_blocking(status, False)
        os.set_blocking(notes, False)
        return cls(process=process, bwrap=bwrap, gate=gate, status=status, notes=notes)

    @property
    def processes(self) -> list[int]:
        """All processes below bubblewrap; those that lose their parent stay below process 1 of the namespace."""
        return keeper.descendants(self._process.pid)

    async def wait_gone(self) -> None:
        """Let the script go and wait until no process is left."""
        with trio.move_on_after(START_TIMEOUT):
            await self._release()
        if not self._released:
            self.kill()
        if self._init is not None:
            await trio.lowlevel.wait_readable(self._init)
            self._reap_adopted(self._init)
        self._end_lifeline()
        await trio.lowlevel.wait_readable(self._bwrap)
        self._process.wait()
        self._status_text += _read(self._status)
        self._notes_text += _read(self._notes)

    async def _release(self) -> None:
        """Wait until the namespace can be watched, and let the script go. Return too if bubblewrap gives up."""
        while not self._released:
            await trio.lowlevel.wait_readable(self._status)
            data = _read(self._status)
            if not data:
                return
            self._status_text += data
            init = self._reported("child-pid")
            if init is not None:
                with contextlib.suppress(ProcessLookupError):  # ended before it came to the script
                    self._init = os.pidfd_open(init)
                self._start_lifeline(init)
                # read now: once the script runs, it can take what is in the pipe
                await trio.lowlevel.wait_readable(self._notes)
                self._notes_text += _read(self._notes)
                with contextlib.suppress(BrokenPipeError):
                    os.write(self._gate, b"go\n")
                self._released = True

    def _start_lifeline(self, init: int) -> None:
        end, self._hold = os.pipe2(os.O_CLOEXEC)
        try:
            self._lifeline = subprocess.Popen(
                ["/bin/sh", "-c", _LIFELINE, "sh", str(init)],
                stdin=end,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=ENVIRONMENT,
                cwd="/",
                start_new_session=True,  # it outlives whatever ends the worker's own session
            )
        except OSError as error:
            raise SandboxError(f"cannot start a sandbox: {error}") from error
        finally:
            os.close(end)

    def _end_lifeline(self) -> None:
        """End it before the number of its process 1 can be another's."""
        if self._lifeline is not None:
            self._lifeline.kill()
            self._lifeline.wait()
            self._lifeline = None

    def _reported(self, key: str) -> int | None:
        return next((int(match[2]) for match in _STATUS.finditer(self._status_text) if match[1].decode() == key), None)

    @staticmethod
    def _reap_adopted(pidfd: int) -> None:
        """Reap process 1 of the namespace if it has become this worker's child: it has when this one is process 1."""
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)

    def conclude(self) -> ExitStatus:
        """Return how the script ended, when all are gone. Raises SandboxError if it did not come to the script."""
        return conclude(self._notes_text, self._reported("exit-code"), killed=self._killed)

    def kill(self) -> None:
        """Kill all processes; the kernel ends the namespace with its process 1."""
        self._killed = self._killed or self._process.poll() is None
        self._process.kill()
        if self._init is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._init, signal.SIGKILL)

    def close(self) -> None:
        """Close the descriptors, once ``wait`` has returned."""
        self._end_lifeline()
        for descriptor in (self._gate, self._status, self._notes, self._bwrap, self._init, self._hold):
            if descriptor is not None:
                os.close(descriptor)


def enter_groups(entries: Sequence[Path], command: Sequence[str]) -> list[str]:
    """Return a command line that becomes another one in the given control groups."""
    return ["/bin/sh", "-c", _OUTER, "sh", *map(str, entries), "--", *command]


def conclude(notes: bytes, code: int | None, *, killed: bool) -> ExitStatus:
    """Return how a script ended, from what the shell around it said and the code that came through.

    ``code`` is None if what should have passed it on was killed. Raises SandboxError if there was no such shell.
    """
    if not notes.startswith(READY) and not killed:
        raise SandboxError(f"the sandbox did not start: {first_line(notes)}")
    if code is None or (killed and code == 128 + signal.SIGKILL):
        return ExitStatus(signal=signal.SIGKILL)
    if notes.removeprefix(READY).partition(OVER)[0] and 128 < code <= 128 + signal.NSIG:
        return ExitStatus(signal=code - 128)
    return ExitStatus(code=code)


def _data(data: bytes, stack: contextlib.ExitStack) -> int:
    """Return a descriptor of a file in memory, to be read from its start."""
    descriptor = os.memfd_create("builder")
    stack.callback(os.close, descriptor)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _pipe(*, reader: contextlib.ExitStack, writer: contextlib.ExitStack) -> tuple[int, int]:
    read, write = os.pipe2(os.O_CLOEXEC)
    reader.callback(os.close, read)
    writer.callback(os.close, write)
    return read, write


def _read(descriptor: int) -> bytes:
    """Read what is there now, up to a bound; empty at the end of the file."""
    with contextlib.suppress(BlockingIOError):
        return os.read(descriptor, MAX_NOTES)
    return b""
