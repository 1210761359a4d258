"""Keeping what is secret from all others: in the memory and the arguments of a process, and in files."""

import ctypes
import re
import resource
import stat
import sys
from pathlib import Path

_PR_SET_DUMPABLE = 4

_ARGUMENTS = slice(45, 47)
"""Of the fields of /proc/PID/stat behind the program's name: between which addresses its arguments are, see proc(5)."""

_QUERY = re.compile(r"(?<=[?#]).*", re.DOTALL)
"""What a URL has behind its path, which may be as secret as a password."""


def exposure(path: Path) -> str:
    """Return what is to be done about a file with a secret that every user of this machine can read; "" if they can't.

    Raises OSError.
    """
    return f"everybody can read {path}: chmod o= {path}" if path.stat().st_mode & stat.S_IROTH else ""


def keep_memory_secret() -> None:
    """See that no core dump is made of this process, be it written to a file or handed to a program.

    On Linux other processes of the user can't look into it any more either, nor at its environment.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # a limit of 0 holds for files alone


def make_no_core_dump() -> None:
    """The same for a process whose children's limits are theirs, and which looks at itself and at them in /proc: its hard limit stays."""
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    # in bytes: at 0 Linux starts programs that take core dumps, at 1 it makes none in any way, see core(5)
    soft = 1 if sys.platform == "linux" and hard != 0 else 0
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def hide_arguments() -> None:
    """Take what is secret of URLs out of the list of processes. On Linux alone; and who was quick has seen it."""
    if sys.platform != "linux":
        return
    try:
        fields = Path("/proc/self/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    except OSError:  # where there is no /proc, nobody lists processes
        return
    start, end = map(int, fields[_ARGUMENTS])
    arguments = ctypes.string_at(start, end - start).decode("latin-1").split("\0")
    shown = "\0".join(masked(each, same_length=True) for each in arguments)
    ctypes.memmove(start, shown.encode("latin-1"), end - start)


def masked(text: str, *, same_length: bool = False) -> str:
    """Return a text without what is secret in it, if it is a URL, or was to be one: user, password, and query."""

    def hidden(secret: str) -> str:
        return "*" * len(secret) if same_length else "***"

    begin, mark, rest = text.partition("://") if "://" in text else ("", "", text)
    holder, at, place = rest.rpartition("@")
    if not mark and ":" not in holder:
        return text
    return begin + mark + (hidden(holder) + at if at else "") + _QUERY.sub(lambda found: hidden(found[0]), place)
