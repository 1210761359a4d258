"""Many files and directories made durable at the same time."""

import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import trio

_AT_ONCE = 8


def sync_together(paths: Iterable[Path]) -> None:
    """Make files and the entries of directories durable, all at the same time. Raises OSError.

    A file system with a journal then commits once for all of them, where one after the other each waits for a commit.
    """
    wanted = list(paths)
    shares = [share for start in range(_AT_ONCE) if (share := wanted[start::_AT_ONCE])]
    done: SimpleQueue[Any] = SimpleQueue()
    for share in shares:
        # trio keeps its threads for a while: to start one takes longer than all that it does here
        trio.lowlevel.start_thread_soon(partial(_sync, share), done.put)
    for outcome in [done.get() for _ in shares]:
        outcome.unwrap()


def _sync(paths: Iterable[Path]) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
