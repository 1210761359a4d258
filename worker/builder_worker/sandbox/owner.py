"""Whose leftovers are these: names that say which worker process made a thing, and whether it still lives.

What a sandbox needs outside of its own processes (cgroups, directories, mounts, containers) carries a tag with the
worker's process id and start time. A tag whose worker is gone marks a leftover. The start time tells a process from
a later one with the same number.

Linux says exactly when a process started. Elsewhere ps(1) does, in a time that moves when the clock is set; so two
times that differ by little are the same one there. To take a worker for alive costs disk; to take it for gone, its jobs.
"""

import calendar
import os
import re
import subprocess
import time
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


_CLOCK_STEP = 120
"""Seconds by which a clock may be set while a worker runs. A machine that crashed takes longer until a worker runs
again that could have got the same number."""

_HAS_PROC = Path("/proc/self/stat").exists()


def ask_ps(pid: int) -> str | None:
    """Return when a process started as ps(1) knows it, in seconds since 1970, or None if there is no such process."""
    said = subprocess.run(
        ["/bin/ps", "-o", "state=", "-o", "lstart=", "-p", str(pid)],
        env={"LC_ALL": "C", "TZ": "UTC"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,  # it fails where there is no such process
    ).stdout
    state, _, start = said.strip().partition(" ")
    if not state or state.startswith("Z"):
        return None
    return str(calendar.timegm(time.strptime(start.strip(), "%a %b %d %H:%M:%S %Y")))


def is_same(one: str | None, other: str) -> bool:
    """Return whether two answers of ``ask_ps`` are about the same process."""
    return one is not None and abs(int(one) - int(other)) <= _CLOCK_STEP


def boot() -> str | None:
    """Return what tells this run of the machine from all others, None where nothing does."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def tag(name: str, pid: int | None = None) -> str:
    """Return a file name for a thing of a process, if not of this one, such as "builder-4711-123456-NAME"."""
    pid = pid or os.getpid()
    return f"builder-{pid}-{_start_time(pid) if _HAS_PROC else ask_ps(pid)}-{name}"


def is_left_over(name: str) -> bool:
    """Return whether a name is a tag whose worker is gone."""
    match = _TAG.match(name)
    if match is None:
        return False
    pid, start = int(match[1]), match[2]
    return _start_time(pid) != start if _HAS_PROC else not is_same(ask_ps(pid), start)
