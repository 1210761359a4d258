"""Whose leftovers are these: names that say which worker process made a thing, and whether it still lives.

What a sandbox needs outside of its own processes (cgroups, directories, mounts, containers) carries a tag with the
worker's process id and start time. A tag whose worker is gone marks a leftover. The start time tells a process from
a later one with the same number.
"""

import os
import re
from pathlib import Path

_TAG = re.compile(r"builder-([0-9]+)-([0-9]+)-")


def _start_time(pid: int) -> str | None:
    """Return when a process started, in clock ticks since the machine did, or None if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()  # the name before it may hold anything, parentheses too
    return fields[19].decode() if fields[0] not in (b"Z", b"X") else None


def tag(name: str) -> str:
    """Return a file name for a thing of this process, such as "builder-4711-123456-NAME"."""
    pid = os.getpid()
    return f"builder-{pid}-{_start_time(pid)}-{name}"


def untag(name: str) -> str:
    """Return the name that a tag was made of."""
    return _TAG.sub("", name, count=1)


def is_left_over(name: str) -> bool:
    """Return whether a name is a tag whose worker is gone."""
    match = _TAG.match(name)
    return match is not None and _start_time(int(match[1])) != match[2]
