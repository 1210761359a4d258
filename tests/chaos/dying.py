"""Has a program of the tests die before one of its changes: of the disk, of other processes, of what a peer was told.

``CHAOS_TOLD`` names a file to which each change is written when it is about to be made, a line for each. ``CHAOS_PLACE`` is
the line before which the program dies, and how often it has come by then, as in ``2 fsync``; without one, it never does. It
dies once: then it has written so to ``CHAOS_TOLD.died``.

The list of changes makes itself. Python tells of what is made, renamed and removed, of processes and signals. What it does
not tell of is called through here: writing, syncing, the database's commits, and what is sent to peers.
"""

import builtins
import io
import os
import re
import signal
import stat
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

_CHANGES = frozenset(
    (
        *("os.mkdir", "os.rename", "os.link", "os.symlink", "os.remove", "os.rmdir", "os.truncate"),
        *("os.chmod", "os.chown", "os.kill", "subprocess.Popen", "socket.bind", "socket.sendmsg"),
    )
)

_BY_CHANCE = (
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "UUID"),
    (re.compile(r"builder-\d+-\d+-"), "builder-"),
    (re.compile(r"builder-[0-9a-f]{16}"), "builder-TAG"),
    (re.compile(r"trial-\w{8}"), "trial"),
    (re.compile(r"\btmp\w{8}"), "tmp"),
    (re.compile(r"\d+"), "N"),
)
"""What differs from one run to the next, and what stands for it."""

Data = bytes | bytearray | memoryview

See = Callable[..., None]
"""Takes what is about to be done, and what to."""


def begin() -> None:
    """Have this process die so."""
    told = Path(os.environ["CHAOS_TOLD"])
    descriptor = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    died = os.open(f"{told}.died", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    wanted = "" if os.fstat(died).st_size else os.environ.get("CHAOS_PLACE", "")
    occurrence, _, place = wanted.partition(" ")
    write, pid = os.write, os.getpid()
    counted: Counter[str] = Counter()
    lock = threading.Lock()

    def see(what: str, to: object = "") -> None:
        if os.getpid() != pid:
            return
        line = f"{what} {to}".replace(f"{told.parent}/", "").strip()
        for pattern, name in _BY_CHANCE:
            line = pattern.sub(name, line)
        line = line.replace("\n", " ")
        with lock:
            counted[line] += 1
            write(descriptor, f"{line}\n".encode(errors="replace"))
            if line == place and counted[line] == int(occurrence):
                write(died, place.encode())
                signal.raise_signal(signal.SIGKILL)

    _see_descriptors(see)
    _see_files(see)
    _see_commits(see)
    _see_peers(see)
    sys.addaudithook(_hook(see))


def _hook(see: See) -> Callable[[str, tuple[Any, ...]], None]:
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in _CHANGES or (event == "open" and _creates(*arguments)):
            see(event, "" if event.startswith("socket") else arguments[0])

    return hook


def _creates(path: object, _mode: object, flags: object) -> bool:
    return isinstance(flags, int) and bool(flags & os.O_CREAT) and not isinstance(path, int)


def _path(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()


def _see_descriptors(see: See) -> None:
    write, pwrite, fsync = os.write, os.pwrite, os.fsync

    def seen_write(descriptor: int, data: bytes, /) -> int:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            see("write", _path(descriptor))
        return write(descriptor, data)

    def seen_pwrite(descriptor: int, data: bytes, offset: int, /) -> int:
        see("pwrite", _path(descriptor))
        return pwrite(descriptor, data, offset)

    def seen_fsync(descriptor: int, /) -> None:
        see("fsync", _path(descriptor))
        fsync(descriptor)

    os.write, os.pwrite, os.fsync = seen_write, seen_pwrite, seen_fsync  # type: ignore[assignment]


def _see_files(see: See) -> None:
    original = io.open

    class Seen(io.FileIO):
        def write(self, data: Any, /) -> int:
            see("write", _path(self.fileno()))
            return super().write(data)

        def truncate(self, size: int | None = None, /) -> int:
            see("truncate", _path(self.fileno()))
            return super().truncate(size)

    def seen_open(file: Any, mode: str = "r", buffering: int = -1, *rest: Any, **options: Any) -> Any:
        if file in (0, 1, 2) or not set(mode) & set("wax+"):
            return original(file, mode, buffering, *rest, **options)
        raw = Seen(file, mode.replace("b", "").replace("t", ""), closefd=options.pop("closefd", True))
        if buffering == 0:
            return raw
        buffer: Any = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffer if "b" in mode else io.TextIOWrapper(buffer, *rest, **options)

    io.open = builtins.open = seen_open


def _see_commits(see: See) -> None:
    if "sqlalchemy" not in sys.modules:
        return
    import sqlalchemy as sa

    last = ""

    def before_execute(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        nonlocal last
        last = last if statement.startswith(("SELECT", "SAVEPOINT", "RELEASE", "BEGIN")) else statement

    sa.event.listen(sa.Engine, "before_cursor_execute", before_execute)
    sa.event.listen(sa.Engine, "commit", lambda _connection: see("commit of", " ".join(last.split()[:3])))


def _see_peers(see: See) -> None:
    send_all = trio.SocketStream.send_all

    async def seen_send_all(self: trio.SocketStream, data: Data) -> None:
        see("sending")
        await send_all(self, data)

    trio.SocketStream.send_all = seen_send_all  # type: ignore[method-assign]
