"""The supervisor: a small process between a worker and one job, which owns all of the job that runs and leaves nothing of it.

It is run as ``python -I -S supervisor.py NAME ENTRY...`` by ``supervision``, where each ENTRY is a file of a control group
that the job enters, in a directory that the job can't come to:

    launch     what to start, what to look at, what to remove; see ``launch``. In the format of marshal, since to import
               json takes as long as to start this program
    socket     where a worker connects to it
    console    what the job has written, as it came
    times      when: pairs of 64 bits, the nanoseconds of the monotonic clock and the length that the console had then
    status     how it ended, as JSON, from the moment on at which nothing of it is left

Its standard input is the connection to the worker that started it, its standard output the socket on which others are
taken. The worker says ``start`` when the launch is there, ``end`` when the job is not wanted any more, and ``done`` when
nothing of it is; the supervisor says ``output`` when there is some, and the status when the job is over. With ``start``
come the locks that say that the job's directory and whatever else is its own is taken. To a worker that comes later, the
supervisor first says one of both, with the locks.

Rules kept here:
1. Where it adopts (Linux), a process that loses its parent becomes a child of the supervisor: "no children" means that
   nothing of the job is left, and descent tells whose a process is.
2. When the command ends, a limit is reached, the worker says so, or is gone for longer than it may, all of it is killed.
   The supervisor stays after that until the worker has what it wants, or is gone for as long.
   A command that neither is adopted nor has an end, a hook, has a session: that is killed, unless it ended by itself.
3. Then, and only then, the status says how the command ended.
4. What the job writes is read whether a worker is there or not.
5. If the supervisor is killed the kernel kills the command. What else is left then, its worker finds: see ``supervision``.
6. Before ``start``, the end of the worker is the end of the supervisor, and that the end of the process it has forked.

Nothing of the worker is imported, and little of the standard library: this start is what a job costs.
"""

from __future__ import annotations

# pathlib, contextlib, signal and ctypes would each take longer to import than all of the rest:
# ruff: noqa: PTH104, PTH112, PTH123, PTH208, SIM105
import _signal  # type: ignore[import-not-found]  # what signal is made of
import errno
import marshal
import os
import resource
import select
import sys
import time
from _json import encode_basestring_ascii as _quote  # what json is made of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

LAUNCH, SOCKET, CONSOLE, TIMES, STATUS = "launch", "socket", "console", "times", "status"
START, END, DONE, OUTPUT = b"start", b"end", b"done", b"output"

FILLED = "its output filled the worker's disk"
"""Why a job was ended whose output took the last of the disk."""

_LINK, _LISTENER = 0, 1

FIRST_FILE = 4
"""The descriptor of the first of a launch's files; the others follow."""

READY, OVER = b"+", b"\4"
"""What the shell inside of a sandbox says before and after the script, see ``inside``."""

MAX_NOTES = 16 * 1024
"""Bytes kept of what the programs around a job say: a few lines, unless the job got hold of the pipe."""

MAX_MESSAGE = 256 * 1024
"""Bytes of the longest message, a status with such notes."""

MAX_LOCKS = 16
"""Most locks of a job: its directory, its user, and a control group in each hierarchy."""

_READ_SIZE = 64 * 1024
"""Bytes read from the job at once, the size of a pipe."""

_MAX_PIPE = 1024 * 1024
"""Bytes that a job can make a pipe hold, by default."""

_TIME_STEP = 10_000_000
"""Nanoseconds: what is read within them has one time, so that a job that writes byte by byte makes no long list."""

_START_TIMEOUT = 60.0
"""Seconds in which a sandbox must be ready on a machine that is very busy."""

_RETRY = 0.1
"""Seconds between attempts to kill or remove what has not gone yet."""

_REMOVE_TIMEOUT = 60.0
"""Seconds for a container program to end while its container is removed, and for what removes it to succeed: on a machine
that is very busy, such a program is at work for long until there is a container at all."""

_TOOL_TIMEOUT = 60.0
"""Seconds for one run of what removes a sandbox."""

_POLITE_SIGNALS = (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGQUIT)
"""What a service manager or a terminal sends to everyone: the supervisor must be the last to go."""

_MAX_OPEN = 64
"""More than the largest number of a descriptor of the supervisor."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        import _ctypes  # what ctypes is made of

        _ctypes.call_function(_ctypes.dlsym(_ctypes.dlopen(None, 0), "prctl"), (option, value, 0, 0, 0))  # type: ignore[arg-type]


# --- processes of the machine --------------------------------------------------------------------------------------------


def _processes() -> Iterable[tuple[int, list[bytes]]]:
    """Yield every process that /proc shows, with its state, parent, group and session."""
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                stat = file.read()
        except OSError:
            continue  # it is gone
        yield int(name), stat[stat.rindex(b")") + 2 :].split(maxsplit=4)[:4]  # the name before it may hold anything


def children() -> dict[int, list[int]]:
    """Return the children of every process."""
    found: dict[int, list[int]] = {}
    for pid, (_, parent, _, _) in _processes():
        found.setdefault(int(parent), []).append(pid)
    return found


def members(session: int) -> list[int]:
    """Return all processes of a session that have not ended."""
    return [pid for pid, (state, _, _, found) in _processes() if int(found) == session and state != b"Z"]


def below(pid: int, family: dict[int, list[int]]) -> list[int]:
    """Return all processes below one, of those that ``children`` has found."""
    found: list[int] = []
    pending = [pid]
    while pending:
        more = family.get(pending.pop(), [])
        found += more
        pending += more
    return found


def kill_all(pids: Iterable[int]) -> bool:
    """Kill processes; return whether there was one that this process may kill."""
    killed = False
    for pid in pids:
        try:
            os.kill(pid, _signal.SIGKILL)
            killed = True
        except ProcessLookupError:
            killed = True
        except PermissionError:
            pass  # it became another user's, through a set-uid program
    return killed


# --- the first process of a job -------------------------------------------------------------------------------------------


class _First:
    """The process that becomes the command. It is forked before there is a job, and enters its control groups: that takes up
    to 20 ms, in which the kernel waits for all CPUs, and none of them works.
    """

    def __init__(self, entries: list[str]) -> None:
        self._entries = entries
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)  # first here: as the job's user, the child may not read what this loads
        stdin, self.input = os.pipe()
        self.output, stdout = os.pipe()
        self.notes, stderr = os.pipe()
        self.pid, self._told = _fork([stdin, stdout, stderr], self._become_job)
        for descriptor in (stdin, stdout, stderr):
            os.close(descriptor)

    def start(self, *, has_gate: bool) -> None:
        """Let it go on, with the launch that is there now. Raises OSError, with what was tried as its file name."""
        try:
            os.write(self.input, b"+")
        except BrokenPipeError:
            pass  # it could not enter, and has told why
        if not has_gate:
            os.close(self.input)
        _wait_exec(self.pid, self._told)

    def discard(self) -> None:
        """End it, when there will be no job."""
        kill_all([self.pid])
        os.waitpid(self.pid, 0)

    def _become_job(self) -> None:
        """Be in the child what the job is to be, once it is known. Raises OSError."""
        supervisor = os.getppid()
        for entry in self._entries:  # what follows counts as the job's
            _write(entry, b"0")
        if not os.read(0, 1):  # no deadline: there may be no job for days, and the supervisor's end is the end of this
            os._exit(1)
        launch = _read_launch()
        program = _find(launch["command"][0], launch["environment"].get("PATH", os.defpath))
        for number, data in enumerate(launch["files"], FIRST_FILE):
            _put_at(number, data)
        if not launch["has_gate"]:
            os.read(0, 1)  # until it is closed: the job must not find it in the supervisor
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if not launch["has_notes"]:
            os.dup2(1, 2)
        os.umask(0o022)
        try:
            if launch["oom_score"] is not None:
                _write("/proc/self/oom_score_adj", b"%d" % launch["oom_score"])
        except OSError:
            pass  # there is none, or it may not be changed
        try:
            if launch["niceness"] is not None:
                if hasattr(os, "sched_setscheduler"):
                    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
                os.setpriority(os.PRIO_PROCESS, 0, launch["niceness"])
        except OSError:
            pass  # the worker may not give a better one than its own
        for number, limit in launch["rlimits"].items():
            resource.setrlimit(number, limit)
        if launch["user"] is not None:
            os.setgroups([])
            os.setresgid(*[launch["user"]] * 3)
            os.setresuid(*[launch["user"]] * 3)
        os.chdir(launch["directory"])
        if launch["adopts"]:
            _prctl(_PR_SET_PDEATHSIG, _signal.SIGKILL)
            if os.getppid() != supervisor:  # it is gone already
                os._exit(1)
        os.execve(program, launch["command"], launch["environment"])  # noqa: S606 - no shell is wanted


# --- the job --------------------------------------------------------------------------------------------------------------


class Supervisor:
    """One job, from its start until nothing of it is left. The fields of ``launch`` are those of ``launch.Launch``."""

    def __init__(self, launch: dict[str, Any], first: _First, locks: list[int]) -> None:
        self._launch = launch
        self._locks = locks
        self._first = first
        self._adopts: bool = launch["adopts"]
        self._poll = select.poll()
        self._handlers: dict[int, Callable[[], object]] = {}
        self._command = first.pid
        self._ended: int | None = None  # how the command did, as waitpid says it
        self._remover: int | None = None
        self._removed: int | None = None  # how the last run of what removes the sandbox ended
        self._output, self._notes, self._gate = first.output, first.notes, first.input
        self._said = b""
        self._size = 0
        self._reads = True  # whether there may be more output
        self._held = b""  # output for which there was no room on the disk
        self._timed = 0  # the nanoseconds of the last entry in the times
        self._stopped: str | None = None
        self._wanted = True  # whether the job is to go on
        self._was_killed = False
        self._gone_at: float | None = None  # when the worker was
        self._is_done = False  # whether the worker has what it wants
        self._status = b""  # how the job ended
        self._begun = self._heard = time.monotonic()
        self._console = os.open(CONSOLE, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._times = os.open(TIMES, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)

    def run(self) -> None:
        """Run the job to its end, say how it was, and wait until nobody asks any more."""
        self._status = self._run()
        self._stop_reading()  # who still writes has escaped
        self._held = b""
        _write_status(self._status)
        try:
            os.set_blocking(_LINK, True)
            os.write(_LINK, self._status)
        except OSError:
            pass  # the worker is gone
        while not self._is_done and (left := self._gone_left()) > 0:
            self._wait(left)

    def _run(self) -> bytes:
        """Run the job to its end, and return its status."""
        self._register(_LINK, self._hear)
        self._register(_LISTENER, self._accept)
        self._watch_children()
        try:
            self._start()
        except OSError as error:
            notes = f"{error.filename or 'the supervisor'}: {error.strerror}"
            self._wanted = False
            return _encode(code=None, signal=None, stopped=None, notes=notes, left=None)
        while self._wanted and not self._is_over():
            self._wait()
        self._wanted, self._was_killed = False, not self._has_ended()
        left = self._end()
        self._drain()
        if self._held and not self._was_killed:
            self._stopped = "the console can't be written: there is no room on the worker's disk"
        return _encode(**self._conclude(), left=left)

    def _is_over(self) -> bool:
        """Whether the command has ended, and there was room on the disk for all that it has said."""
        if self._has_ended():
            self._drain()
            return not self._held
        return False

    # --- what happens

    def _register(self, descriptor: int, handler: Callable[[], object]) -> None:
        os.set_blocking(descriptor, False)
        self._handlers[descriptor] = handler
        self._poll.register(descriptor, select.POLLIN)

    def _forget(self, descriptor: int) -> None:
        self._poll.unregister(descriptor)
        del self._handlers[descriptor]

    def _wait(self, longest: float = float("inf")) -> None:
        """Handle what comes next, within some seconds and before the next limit in time is reached."""
        now = time.monotonic()
        left = min(longest, _RETRY if self._held else longest, *(at - now for at, _ in self._limits()))
        # no deadline if there is none: a job takes as long as it takes
        for descriptor, _ in self._poll.poll(None if left == float("inf") else max(0.0, left * 1000)):
            if descriptor in self._handlers:
                self._handlers[descriptor]()
        if self._held:
            self._release()
        now = time.monotonic()
        for at, reason in self._limits():
            if now >= at:
                self._stop(reason)

    def _limits(self) -> list[tuple[float, str | None]]:
        """Return when the job must end at the latest, and why."""
        limits: list[tuple[float, str | None]] = [(float("inf"), None)]
        if not self._wanted:
            return limits
        timeout, max_silent = self._launch["timeout"], self._launch["max_silent"]
        if timeout is not None:
            limits.append((self._begun + timeout, f"time limit of {timeout:g} s exceeded"))
        if max_silent is not None:
            limits.append((self._heard + max_silent, f"no output for {max_silent:g} s"))
        if self._gate >= 0:
            limits.append((self._begun + _START_TIMEOUT, f"the sandbox was not ready within {_START_TIMEOUT:g} s"))
        if self._gone_at is not None:
            limits.append((self._gone_at + self._launch["worker_grace"], None))
        return limits

    def _gone_left(self) -> float:
        """Return how many seconds the worker may still be gone."""
        if self._gone_at is None:
            return float("inf")
        grace: float = self._launch["worker_grace"]
        return self._gone_at + grace - time.monotonic()

    def _stop(self, reason: str | None) -> None:
        """Let it end. Of several reasons the first one counts; those that need time come in time or not at all."""
        self._wanted = False
        self._stopped = self._stopped or reason

    def _hear(self) -> None:
        """Read what the worker says; without one, wait for another as long as there is time."""
        try:
            said = os.read(_LINK, MAX_MESSAGE)
        except ConnectionResetError:
            said = b""
        if said == END:
            self._stop(None)
        elif said == DONE:
            self._is_done = True
        elif not said:
            self._forget(_LINK)
            self._gone_at = time.monotonic()

    def _accept(self) -> None:
        """Take a worker that comes while there is none. Others are sent away at once: no job can keep a worker waiting."""
        import _socket  # what socket is made of; only this needs it

        try:
            descriptor, _ = _socket.socket(fileno=os.dup(_LISTENER))._accept()  # type: ignore[attr-defined]  # noqa: SLF001
        except OSError:
            return  # it has gone again
        peer = _socket.socket(fileno=descriptor)
        is_linux = sys.platform == "linux"
        if self._gone_at is None or (
            is_linux and not _is_worker(peer.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12))
        ):
            peer.close()
            return
        locks = b"".join(number.to_bytes(4, sys.byteorder) for number in self._locks)
        try:
            peer.sendmsg([self._status or OUTPUT], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, locks)] if locks else [])
        except OSError:
            peer.close()  # it has gone again
            return
        os.dup2(descriptor, _LINK)
        peer.close()
        self._gone_at = None
        self._register(_LINK, self._hear)

    def _watch_children(self) -> None:
        wakeup, alarm = os.pipe()
        os.set_blocking(alarm, False)
        _signal.set_wakeup_fd(alarm, warn_on_full_buffer=False)
        _signal.signal(_signal.SIGCHLD, lambda *_: None)
        self._register(wakeup, lambda: _read(wakeup, 4096))

    # --- the start

    def _start(self) -> None:
        """Start the command. Raises OSError, with what was tried as its file name."""
        if not self._adopts:
            _prctl(_PR_SET_CHILD_SUBREAPER, 0)
        if self._launch["owner"] is not None and sys.platform == "linux":
            os.fchown(self._output, self._launch["owner"], -1)  # so that the job can open /dev/stderr
        self._register(self._output, self._read_output)
        if self._launch["has_notes"]:
            self._register(self._notes, self._read_notes)
        else:
            os.close(self._notes)
            self._notes = -1
        self._first.start(has_gate=self._launch["has_gate"])
        if not self._launch["has_gate"]:
            self._gate = -1

    # --- what it writes

    def _read_output(self) -> None:
        data = _read(self._output, _READ_SIZE)
        if data is None:
            return
        if not data:
            self._stop_reading()  # the job has closed its output, and may go on without
            return
        self._heard = time.monotonic()
        limit = self._launch["max_console"]
        room = len(data) if limit is None else limit - self._size
        self._append(data[:room])
        if len(data) > room:
            self._stop_reading()
            self._stop(f"more than {limit} bytes of console output")

    def _release(self) -> None:
        """Write what is held, if there is room now."""
        held, self._held = self._held, b""
        self._append(held)
        if not self._held and self._reads:
            self._heard = time.monotonic()  # it was not the job that was silent
            self._register(self._output, self._read_output)

    def _stop_reading(self) -> None:
        self._reads = False
        if self._output in self._handlers:
            self._forget(self._output)

    def _append(self, data: bytes) -> None:
        """Write to the console. Where there is no room, hold it, and read no more from the job until there is: whoever took
        the last of the disk is ended for it by others.
        """
        disk = os.fstatvfs(self._console)
        reserve = self._launch["reserve"]
        if disk.f_bavail * disk.f_frsize - len(data) < reserve < self._size + len(data):
            self._stop_reading()
            self._stop(FILLED)
            return
        try:
            while data:
                written = os.write(self._console, data)
                self._size += written
                data = data[written:]
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                self._stop_reading()
                is_limit = error.errno == errno.EFBIG
                why = "the worker's `ulimit -f` allows no larger file" if is_limit else error.strerror
                self._stop(f"the console can't be written: {why}")
                return
            self._held = data
            if self._output in self._handlers:
                self._forget(self._output)
        self._note_time()
        try:
            os.write(_LINK, OUTPUT)
        except OSError:
            pass  # the worker has enough of these to read, or is gone

    def _note_time(self) -> None:
        now = time.monotonic_ns()
        is_new = now - self._timed > _TIME_STEP
        try:
            os.lseek(self._times, 0 if is_new else -16, os.SEEK_END)
            os.write(self._times, now.to_bytes(8, "little") + self._size.to_bytes(8, "little"))
        except OSError:
            return  # no room: what comes later is noted for both
        if is_new:
            self._timed = now

    def _drain(self) -> None:
        """Read what is still in the pipe; its end is not waited for, since who still holds it has escaped."""
        for _ in range(0, _MAX_PIPE, _READ_SIZE):
            if self._output in self._handlers:
                self._read_output()
            if self._notes in self._handlers:
                self._read_notes()

    def _read_notes(self) -> None:
        """Read what the programs around the job say, and let the script go when all is ready."""
        data = _read(self._notes, MAX_NOTES)
        if data is None:
            return
        self._said += data[: MAX_NOTES - len(self._said)]
        if not data:
            self._forget(self._notes)
        elif self._gate >= 0 and self._said.endswith(READY):
            self._said = READY  # before it, something around the job may have had a warning
            try:
                os.write(self._gate, b"go\n")
            except BrokenPipeError:
                pass  # it has ended meanwhile
            os.close(self._gate)
            self._gate = -1

    # --- the end

    def _has_ended(self) -> bool:
        """Take other children that have ended, and return whether the command has: it is left as it is, so that the
        number of its process group stays its own until the group is killed.
        """
        while info := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            if info.si_pid == self._command:
                return True
            os.waitpid(info.si_pid, 0)
        return False

    def _reap(self) -> bool:
        """Take all children that have ended; return whether something of the job is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return self._adopts or self._ended is None
            if pid == self._command:
                self._ended = status
            elif pid == self._remover:
                self._remover, self._removed = None, status

    def _end(self) -> str | None:
        """Kill what is left and wait until it is gone; return what is not, in words."""
        if self._adopts:
            self._kill()
        elif self._launch["end"]:
            self._end_container()
        else:
            self._end_session()
        if not self._launch["end"]:
            return None
        deadline = time.monotonic() + _REMOVE_TIMEOUT
        self._wait_remover()  # it began before all was over
        while self._run_remover() != 0:
            if time.monotonic() > deadline:
                return f"{self._launch['end'][0]} fails to remove it"
            time.sleep(_RETRY)
        return None

    def _kill_group(self) -> None:
        try:
            os.killpg(self._command, _signal.SIGKILL)  # all at once: a fork bomb that stays in its group has no chance
        except OSError:
            pass  # nobody is left in it, or only what belongs to others

    def _kill(self) -> None:
        self._kill_group()
        if self._launch["has_gate"] and not self._was_killed and self._reap():
            self._wait(_RETRY)  # a namespace ends with its command; to look for what is in it takes longer
        while self._reap():
            own = below(os.getpid(), children())
            if not kill_all(own or ([self._command] if self._ended is None else [])):
                self._append(b"builder-worker: processes that became another user's can't be killed, and run on\n")
                return
            self._wait(_RETRY)

    def _end_session(self) -> None:
        """Reap a command that has ended by itself: what it has left runs on. Otherwise kill all of its session."""
        if self._was_killed:
            self._kill_group()
            while kill_all(members(self._command)):
                self._wait(_RETRY)
        while self._reap():
            self._wait(_RETRY)

    def _end_container(self) -> None:
        """End a container whose program leaves it running when it is killed itself: by what removes it, again and again
        while the program lives, for it may be about to make it.
        """
        deadline = time.monotonic() + _REMOVE_TIMEOUT
        while self._reap():
            if time.monotonic() > deadline:
                self._kill_group()
            elif self._was_killed and self._remover is None:
                self._start_remover()
            self._wait(_RETRY)

    def _start_remover(self) -> None:
        nothing = os.open(os.devnull, os.O_RDWR)
        command: list[str] = self._launch["end"]
        self._removed = None
        environment: dict[str, str] = self._launch["end_environment"]
        program = _find(command[0], environment.get("PATH", os.defpath))
        self._remover, told = _fork([nothing] * 3, lambda: os.execve(program, command, environment))  # noqa: S606
        os.close(nothing)
        _wait_exec(self._remover, told)

    def _run_remover(self) -> int | None:
        """Run what removes the sandbox and return its status."""
        self._start_remover()
        self._wait_remover()
        return self._removed

    def _wait_remover(self) -> None:
        deadline = time.monotonic() + _TOOL_TIMEOUT
        self._reap()
        while self._remover is not None:
            if time.monotonic() > deadline:
                kill_all([self._remover])
            self._wait(_RETRY)
            self._reap()

    def _conclude(self) -> dict[str, Any]:
        """Return how the script ended, with neither a code nor a signal if it did not come to it."""
        code = -_signal.SIGKILL if self._ended is None else os.waitstatus_to_exitcode(self._ended)
        notes = self._said
        if self._launch["has_notes"]:
            before, _, notes = self._said.removeprefix(READY).partition(OVER)
            has_begun = self._said.startswith(READY)
            if not has_begun and not self._was_killed:
                return {"code": None, "signal": None, "stopped": self._stopped, "notes": _text(before)}
            if code < 0 or (self._was_killed and (not has_begun or code == 128 + _signal.SIGKILL)):
                code = -_signal.SIGKILL  # what would have passed on the script's own was killed
            elif before and 128 < code <= 128 + _signal.NSIG:
                code = 128 - code  # the shell has said it in words, too
        return {
            "code": code if code >= 0 else None,
            "signal": -code if code < 0 else None,
            "stopped": self._stopped,
            "notes": _text(notes),
        }


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


def _find(program: str, path: str) -> str:
    """Return the place of a program, now: the user that its process becomes may not read Python's own modules later."""
    for directory in path.split(":") if "/" not in program else ():
        if os.access(f"{directory}/{program}", os.X_OK):
            return f"{directory}/{program}"
    return program


def _fork(streams: list[int], become: Callable[[], None]) -> tuple[int, int]:
    """Fork a process that becomes a program, in a session of its own and with nothing open but three descriptors. Return
    its number, and the descriptor by which it tells what kept it from that.
    """
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            for number in (*_POLITE_SIGNALS, _signal.SIGPIPE, _signal.SIGXFSZ):
                _signal.signal(number, _signal.SIG_DFL)
            for number, descriptor in enumerate((*streams, tell)):
                os.dup2(descriptor, number, inheritable=number < 3)
            os.closerange(4, _MAX_OPEN)
            tell = 3
            become()
        except OSError as error:
            os.write(tell, f"{error.errno} {error.filename or ''}".encode())
        except ValueError as error:
            os.write(tell, f"{errno.EINVAL} {error}".encode())
        finally:
            os._exit(1)
    os.close(tell)
    return pid, told


def _wait_exec(pid: int, told: int) -> None:
    """Wait until a process that was forked has become a program. Raises OSError, with what was tried as its file name.

    Without a sandbox a job can write here too, once it runs: what is no error of ours is no error.
    """
    number, _, name = os.read(told, 4096).decode(errors="replace").partition(" ")
    os.close(told)
    if number.isdecimal():
        os.waitpid(pid, 0)
        raise OSError(int(number), os.strerror(int(number)), name)


def _put_at(number: int, data: bytes) -> None:
    """Make a file in memory, to be read from its start at a descriptor that the command inherits."""
    descriptor = os.memfd_create("builder", 0)
    written = 0
    while written < len(data):
        written += os.pwrite(descriptor, data[written:], written)
    if descriptor != number:
        os.dup2(descriptor, number)
        os.close(descriptor)


def _write(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, data)
    except OSError as error:
        error.filename = path
        raise
    finally:
        os.close(descriptor)


def _read(descriptor: int, size: int) -> bytes | None:
    """Return what is there, empty at the end, None when nothing is there now."""
    try:
        return os.read(descriptor, size)
    except BlockingIOError:
        return None


def _read_launch() -> dict[str, Any]:
    """Return what is to be started. Raises OSError."""
    with open(LAUNCH, "rb") as file:
        launch: dict[str, Any] = marshal.load(file)  # noqa: S302 - the worker's own
    return launch


def _is_worker(credentials: bytes) -> bool:
    """Return whether a peer is a process of this user that lives and is no part of the job: one that has ended may have
    left its end of the connection to the job.
    """
    pid, user, _ = (int.from_bytes(credentials[at : at + 4], sys.byteorder) for at in (0, 4, 8))
    family = children()
    lives = any(pid in found for found in family.values())
    return lives and user == os.geteuid() and pid not in below(os.getpid(), family)


def _receive_start() -> list[int] | None:
    """Wait for the word to start, and return the locks that come with it; None if there will be no job."""
    import _socket  # what socket is made of

    link = _socket.socket(fileno=_LINK)
    # no deadline: there may be no job for days, and the worker's end is the end of its input
    said, notes, _, _ = link.recvmsg(MAX_MESSAGE, _socket.CMSG_SPACE(4 * MAX_LOCKS))
    link.detach()
    if said != START:
        return None
    numbers = b"".join(data for _, _, data in notes)
    return [int.from_bytes(numbers[at : at + 4], sys.byteorder) for at in range(0, len(numbers), 4)]


def _encode(**status: int | str | None) -> bytes:
    """Return how the job ended, as JSON."""
    texts = (
        f'"{name}": {"null" if value is None else _quote(value) if isinstance(value, str) else value}'
        for name, value in status.items()
    )
    return f"{{{', '.join(texts)}}}\n".encode()


def _write_status(status: bytes) -> None:
    """Write down how the job ended. A crash of the machine takes the job with its status: nothing is synced."""
    try:
        with open(f"{STATUS}.part", "wb") as file:
            file.write(status)
        os.rename(f"{STATUS}.part", STATUS)
    except OSError:
        pass  # without a sandbox, a job can remove the directory


def main() -> None:
    """Supervise a job as the module's docstring says."""
    os.umask(0o077)
    for number in _POLITE_SIGNALS:
        _signal.signal(number, _signal.SIG_IGN)
    first = _First(sys.argv[2:])
    locks = _receive_start()
    if locks is not None:
        Supervisor(_read_launch(), first, locks).run()
    else:
        first.discard()
    os._exit(0)


if __name__ == "__main__":
    main()
