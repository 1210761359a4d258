"""Keeping what is secret from all others: in the memory of a process, and in files."""

import ctypes
import resource
import stat
import sys
from pathlib import Path

_PR_SET_DUMPABLE = 4


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
