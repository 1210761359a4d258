"""The keeper: a small process between the worker and a job without a sandbox, which leaves nothing of the job alive.

It is run as ``python -I -S keeper.py COMMAND...`` by ``sandbox.kept``; its standard input is a socket to the worker,
its other streams and its working directory are those of the job. Only the standard library is at hand, and little of
it is used: this start-up is what a job costs.

Rules kept here:
1. The keeper is the reaper of its descendants (Linux): a process that leaves its session and loses its parent becomes
   a child of the keeper. So "no children" means that nothing of the job is left, and descent tells whose it is.
2. When the command ends, or the worker says so by closing its side of the socket, or dies, all of them are killed.
3. Then, and only then, one line says how the command ended: ``exited N`` or ``signalled N``. Another one, ``ready``,
   came before the command began.

What remains possible, since the job has the rights of the keeper: it can stop or kill the keeper itself. A keeper that is
not done in time is helped by its worker. With a dead one the command dies too, and the worker looks for the rest in the
control group of the job, if there is one, and by the mark in its environment, which a job can remove.
"""

# pathlib and contextlib would take longer to import than all of the rest:
# ruff: noqa: PTH112, PTH123, PTH208, SIM105

import ctypes
import errno
import os
import select
import signal
import sys
from collections.abc import Iterable

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

_NOT_FOUND, _NOT_EXECUTABLE = 127, 126  # the exit codes that shells give to commands which can't be started

_POLITE_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
"""What a service manager or a terminal sends to everyone: the keeper must be the last to go."""


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _children() -> dict[int, list[int]]:
    """Return the children of every process that /proc shows."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                stat = file.read()
        except OSError:
            continue  # it is gone
        parent = int(stat[stat.rindex(b")") + 2 :].split()[1])  # the name before it may hold anything
        children.setdefault(parent, []).append(int(name))
    return children


def descendants(pid: int) -> list[int]:
    """Return all processes below that one."""
    return _below(pid, _children())


def _below(pid: int, children: dict[int, list[int]]) -> list[int]:
    found: list[int] = []
    pending = [pid]
    while pending:
        below = children.get(pending.pop(), [])
        found += below
        pending += below
    return found


def kill_all(pids: Iterable[int]) -> bool:
    """Kill processes; return whether there was one that this process may kill."""
    killed = False
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
            killed = True
        except ProcessLookupError:
            killed = True
        except PermissionError:
            pass  # it became another user's, through a set-uid program
    return killed


def _has_mark(pid: int, mark: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return mark in file.read().split(b"\0")
    except OSError:
        return False  # it is gone, or another user's


def kill_marked(mark: bytes) -> bool:
    """Kill every process that has ``mark``, a NAME=VALUE, in its environment, and what is below those; return whether
    there was any.

    Those that it starts meanwhile are missed, so this is called until it returns False.
    """
    children = _children()
    marked = {pid for below in children.values() for pid in below if _has_mark(pid, mark)}
    return kill_all(marked.union(*(_below(pid, children) for pid in marked)))


def _start(command: list[str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.umask(0o022)
        for number in (*_POLITE_SIGNALS, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.execv(command[0], command)  # noqa: S606 - no shell is wanted
    except OSError as error:
        os.write(2, f"builder-worker: the script can't be started: {error.strerror}\n".encode())
        os._exit(_NOT_FOUND if error.errno == errno.ENOENT else _NOT_EXECUTABLE)
    finally:
        os._exit(_NOT_EXECUTABLE)


def _has_ended(command: int) -> bool:
    """Take other children that have ended, and return whether the command has: it is left as it is, so that the
    number of its process group stays its own until the group is killed.
    """
    while info := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
        if info.si_pid == command:
            return True
        os.waitpid(info.si_pid, 0)
    return False


def _wait_end(link: int, command: int) -> None:
    """Wait until the command has ended, or the worker is gone or wants the end."""
    wakeup, alarm = os.pipe()
    os.set_blocking(wakeup, False)
    os.set_blocking(alarm, False)
    signal.set_wakeup_fd(alarm, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    poll = select.poll()
    poll.register(link, select.POLLIN)
    poll.register(wakeup, select.POLLIN)
    while not _has_ended(command):
        # no deadline: the worker has the job's, and its end is an event here
        ready = [fd for fd, _ in poll.poll()]
        if link in ready:
            return
        os.read(wakeup, 4096)


def _reap(command: int, status: int | None) -> tuple[bool, int | None]:
    """Take all children that have ended; return whether any is left, and the status of the command."""
    while True:
        try:
            pid, ended = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return False, status
        if pid == 0:
            return True, status
        if pid == command:
            status = ended


def _kill_all(command: int) -> int | None:
    """Kill what is left and wait until it is gone; return the status of the command."""
    status = None
    try:
        os.killpg(command, signal.SIGKILL)  # all at once: a fork bomb that stays in its group has no chance
    except OSError:
        pass  # nobody is left in it, or only what belongs to others
    while True:
        left, status = _reap(command, status)
        if not left:
            return status
        if not kill_all(descendants(os.getpid()) or ([command] if status is None else [])):
            os.write(2, b"builder-worker: processes that became another user's can't be killed, and run on\n")
            return status
        pid, ended = os.waitpid(-1, 0)  # no deadline: what was killed ends as soon as the kernel can
        if pid == command:
            status = ended


def _tell(link: int, line: str) -> None:
    try:
        os.write(link, line.encode() + b"\n")
    except BrokenPipeError:
        pass  # the worker is gone


def main(command: list[str]) -> None:
    """Run a command as the module's docstring says."""
    link = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    for number in _POLITE_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _tell(link, "ready")
    pid = _start(command)
    _wait_end(link, pid)
    status = _kill_all(pid)
    if status is not None:
        code = os.waitstatus_to_exitcode(status)
        _tell(link, f"exited {code}" if code >= 0 else f"signalled {-code}")


if __name__ == "__main__":
    main(sys.argv[1:])
