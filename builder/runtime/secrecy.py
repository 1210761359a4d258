"""Keeping what is secret in the memory of a process from all others."""

import ctypes
import resource
import sys

_PR_SET_DUMPABLE = 4


def keep_memory_secret() -> None:
    """See that no core dump is made of this process, be it written to a file or handed to a program.

    On Linux other processes of the user can't look into it any more either, nor at its environment.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # a limit of 0 holds for files alone
