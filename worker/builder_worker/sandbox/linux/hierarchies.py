"""Where this process is in the trees of control groups, and how much the groups around it may use. It only looks.

On one machine there can be the one tree of version 2, trees of version 1 for each controller, or both.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from attrs import frozen

CONTROLLERS = frozenset({"memory", "pids", "cpu"})

PROC = Path("/proc/self")


@frozen(kw_only=True)
class Membership:
    """The group of this process in one tree, and the top of what it sees of that tree."""

    version: int
    top: Path
    directory: Path
    controllers: frozenset[str]
    """Those that a tree of version 1 has; in version 2 each group has its own."""


@frozen(kw_only=True)
class Ceiling:
    """What this process may use together with all others in the groups around it: bytes, CPUs; None is no limit."""

    memory: int | None = None
    cpus: float | None = None


def memberships(proc: Path = PROC) -> tuple[Membership, ...]:
    """Return where this process is, version 2 first; nothing where there are no control groups."""
    if not (proc / "cgroup").exists():
        return ()  # no Linux
    own = _read_own((proc / "cgroup").read_text())
    found = [
        membership for line in (proc / "mountinfo").read_text().splitlines() if (membership := _read_mount(line, own))
    ]
    return tuple(sorted(found, key=lambda membership: -membership.version))


def _read_own(text: str) -> dict[str, str]:
    """Return the own group by version 1 controller; the one of version 2 is under the empty name."""
    own = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        own.update(dict.fromkeys(controllers.split(","), path))
    return own


def _read_mount(line: str, own: dict[str, str]) -> Membership | None:
    before, _, after = line.partition(" - ")
    kind, _, options = after.split(" ", 2)
    if kind not in ("cgroup", "cgroup2"):
        return None
    controllers = CONTROLLERS & set(options.split(",")) if kind == "cgroup" else frozenset()
    path = own.get(min(controllers, default="") if kind == "cgroup" else "")
    if path is None or (kind == "cgroup" and not controllers):
        return None
    root, point = before.split(" ")[3:5]
    top = Path(point.encode().decode("unicode_escape"))
    # A mount that shows another part of the tree shows nothing of ours but its top.
    directory = top / (os.path.relpath(path, root) if path.startswith(root) else ".")
    if not directory.is_dir():
        return None
    return Membership(version=1 if kind == "cgroup" else 2, top=top, directory=directory, controllers=controllers)


def ceiling(proc: Path = PROC) -> Ceiling:
    """Return the smallest limits of all groups around this process, as far up as it can see."""
    memory, cpus = [], []
    for membership in memberships(proc):
        for directory in _upwards(membership):
            memory += _memory_limits(directory)
            cpus += _cpu_limits(directory)
    return Ceiling(memory=min(memory, default=None), cpus=min(cpus, default=None))


def _upwards(membership: Membership) -> Iterator[Path]:
    directory = membership.directory
    while directory.is_relative_to(membership.top):
        yield directory
        if directory == membership.top:
            return
        directory = directory.parent


def _memory_limits(directory: Path) -> list[int]:
    texts = [_read(directory / name) for name in ("memory.max", "memory.limit_in_bytes")]
    for line in _read(directory / "memory.stat").splitlines():  # version 1 tells of groups too that can't be seen here
        key, _, value = line.partition(" ")
        if key == "hierarchical_memory_limit":
            texts.append(value)
    return [int(text) for text in texts if text.isdecimal()]


def _cpu_limits(directory: Path) -> list[float]:
    pairs = [
        _read(directory / "cpu.max").split(),
        [_read(directory / "cpu.cfs_quota_us"), _read(directory / "cpu.cfs_period_us")],
    ]
    return [int(pair[0]) / int(pair[1]) for pair in pairs if len(pair) == 2 and all(map(_is_positive, pair))]


def _is_positive(text: str) -> bool:
    return text.isdecimal() and int(text) > 0


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:  # not there, or not for this user
        return ""
