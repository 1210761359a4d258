"""Has a worker where it may make no control groups. To a plain user none are delegated as it is."""

import ctypes
import os
import subprocess

CLONE_NEWNS = 0x0002_0000


def begin() -> None:
    """Unmount them for this process."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    for command in (["mount", "--make-rprivate", "/"], ["umount", "--recursive", "/sys/fs/cgroup"]):
        subprocess.run(command, check=True)
