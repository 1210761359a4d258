"""Control groups: limits of memory, processes and CPU time for a job as a whole, and a way to kill all of it.

Groups are made below the worker's own one, so whatever limits the worker limits its jobs too. Version 2 is used
where its controllers are, version 1 where those are, both on a hybrid machine: the table below says which file of
which version does what, and the rest of this module does not care.

A process must enter the groups before the job's first instruction runs: ``Group.entries`` are the files that the
launcher writes to.
"""

import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import trio
from attrs import evolve, field, frozen

from builder.runtime.files import is_locked, lock_directory
from builder_worker.sandbox import Limits, SandboxError
from builder_worker.sandbox.linux import hierarchies
from builder_worker.sandbox.owner import is_left_over, tag
from builder_worker.sandbox.processes import supervisor

WORKER_LEAF = "builder-worker"
"""The group that the worker moves itself to, because in version 2 a group that limits children holds no process."""

REMOVE_TIMEOUT = 10.0
"""Seconds that killed processes may take to leave their group; those in a long system call leave late."""

_DISCARD_TRIES = 20

_CPU_PERIOD = 100_000
"""Microseconds over which CPU time is measured, the kernel's default."""

_MOVE_TRIES = 5
"""How often processes are moved from a group that must be empty: they may start others meanwhile."""

_MARKS = ("user.delegate", "trusted.delegate")
"""What systemd writes at a group with Delegate=yes, by its version."""


def _delegate() -> str:
    user = "--user " if os.geteuid() else ""
    return (
        "start the worker by systemd with Delegate=yes in its unit, "
        f"or by `systemd-run {user}--scope -p Delegate=yes builder-worker ...`"
    )


@frozen(kw_only=True)
class _Controller:
    """How one limit is set and noticed in one version."""

    settings: Callable[[Limits], dict[str, str]]
    optional: frozenset[str] = frozenset()
    events: tuple[str, str] | None = None
    """A file, and the key in it that counts how often the limit was hit."""


def _quota(limits: Limits) -> int:
    assert limits.cpus is not None
    return max(1000, int(limits.cpus * _CPU_PERIOD))


_CONTROLLERS: dict[tuple[int, str], _Controller] = {
    (2, "memory"): _Controller(
        settings=lambda limits: {"memory.max": str(limits.memory), "memory.swap.max": "0", "memory.oom.group": "1"},
        optional=frozenset({"memory.swap.max", "memory.oom.group"}),
        events=("memory.events", "oom_kill"),
    ),
    (2, "pids"): _Controller(settings=lambda limits: {"pids.max": str(limits.pids)}, events=("pids.events", "max")),
    (2, "cpu"): _Controller(settings=lambda limits: {"cpu.max": f"{_quota(limits)} {_CPU_PERIOD}"}),
    (1, "memory"): _Controller(
        settings=lambda limits: {
            "memory.limit_in_bytes": str(limits.memory),
            "memory.memsw.limit_in_bytes": str(limits.memory),
            "memory.kmem.tcp.limit_in_bytes": str(limits.memory),  # what waits in sockets, which version 2 counts too
        },
        optional=frozenset({"memory.memsw.limit_in_bytes", "memory.kmem.tcp.limit_in_bytes"}),
        events=("memory.oom_control", "oom_kill"),
    ),
    (1, "pids"): _Controller(settings=lambda limits: {"pids.max": str(limits.pids)}, events=("pids.events", "max")),
    (1, "cpu"): _Controller(
        settings=lambda limits: {"cpu.cfs_period_us": str(_CPU_PERIOD), "cpu.cfs_quota_us": str(_quota(limits))}
    ),
}

_LIMIT_OF = {"memory": "memory", "pids": "pids", "cpu": "cpus"}
"""The field of Limits that a controller enforces."""

_UNSEEN = {0}
"""What the kernel calls a process of another container, where this worker can't see it. To kill 0 is to kill oneself."""

LIMITS = frozenset(_LIMIT_OF.values())
"""The fields of Limits that control groups can enforce."""


@frozen(kw_only=True)
class Hierarchy:
    """Where the groups of jobs are made in one hierarchy, and what can be limited there."""

    version: int
    parent: Path
    controllers: frozenset[str]

    def missing(self, controllers: frozenset[str]) -> frozenset[str]:
        """Return which of these controllers do not yet reach the groups of jobs. Raises OSError."""
        if self.version == 1:
            return frozenset()
        return (controllers & self.controllers) - set((self.parent / "cgroup.subtree_control").read_text().split())

    def enable(self, controllers: frozenset[str]) -> None:
        """Let groups of jobs be limited by these controllers. Raises OSError.

        In version 2, that moves what is in the parent, this process first of all, to a group beside those of jobs.
        """
        missing = self.missing(controllers)
        if not missing:
            return
        text = " ".join(f"+{name}" for name in sorted(missing))
        for tries_left in reversed(range(_MOVE_TRIES)):
            try:
                (self.parent / "cgroup.subtree_control").write_text(text)
            except OSError as error:
                if error.errno != errno.EBUSY or not tries_left:
                    raise
                self._move_processes()
            else:
                return

    def _move_processes(self) -> None:
        leaf = self.parent / WORKER_LEAF
        leaf.mkdir(exist_ok=True)
        for pid in (self.parent / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                (leaf / "cgroup.procs").write_text(pid)


def _may_write(directory: Path) -> bool:
    return os.access(directory, os.W_OK | os.X_OK) and os.access(directory / "cgroup.procs", os.W_OK)


def _is_delegated(directory: Path) -> bool:
    """Return whether a group of version 2 that this process may write to was given to it.

    Root may write to each, also to that of a login with its shell and its sshd; and a user to all below its own manager's.
    """
    is_for_the_machine = not (directory / "cgroup.type").exists()  # it has no manager, and need not be empty
    is_marked = any(_mark(directory, name) == b"1" for name in _MARKS)
    is_given_to_this_user = not _may_write(directory.parent)
    return is_for_the_machine or is_marked or is_given_to_this_user or _is_alone(directory)


def _is_alone(directory: Path) -> bool:
    ours = {os.getpid(), *supervisor.below(os.getpid(), supervisor.children())}
    return ours.issuperset(map(int, (directory / "cgroup.procs").read_text().split()))


def _mark(directory: Path, name: str) -> bytes:
    try:
        return os.getxattr(directory, name)
    except OSError:  # there is none, or not for this user
        return b""


def _version_2(directory: Path) -> Hierarchy | None:
    # Only a worker makes a group of this name, and only in one that it was given.
    parent = directory.parent if directory.name == WORKER_LEAF else directory
    if not _may_write(parent) or (parent == directory and not _is_delegated(parent)):
        return None
    controllers = frozenset((parent / "cgroup.controllers").read_text().split()) & _LIMIT_OF.keys()
    return Hierarchy(version=2, parent=parent, controllers=controllers)


def find(proc: Path = hierarchies.PROC) -> "Cgroups":
    """Return where this process may make groups. It only looks."""
    found: list[Hierarchy] = []
    withheld = False
    for membership in hierarchies.memberships(proc):
        if membership.version == 2:
            hierarchy = _version_2(membership.directory)
            if hierarchy is not None:
                found.append(hierarchy)
            else:
                withheld = withheld or _may_write(membership.directory)
        else:
            controllers = membership.controllers - {name for other in found for name in other.controllers}
            if controllers and _may_write(membership.directory):
                found.append(Hierarchy(version=1, parent=membership.directory, controllers=controllers))
    return Cgroups(hierarchies=tuple(found), withheld=withheld)


@frozen(kw_only=True)
class Cgroups:
    """The hierarchies in which this worker may make groups; none at all on a machine that delegates nothing."""

    hierarchies: tuple[Hierarchy, ...]
    withheld: bool = False
    """Whether there is a group that this process could write to, and that was not given to it."""

    @property
    def is_settled(self) -> bool:
        """Whether jobs can be limited without a move of this process."""
        return not any(hierarchy.missing(hierarchy.controllers) for hierarchy in self.hierarchies)

    def settle(self) -> None:
        """Let jobs be limited by all controllers, which may move this process. Raises SandboxError."""
        try:
            for hierarchy in self.hierarchies:
                hierarchy.enable(hierarchy.controllers)
        except OSError as error:
            raise SandboxError(f"cannot limit jobs by control groups: {error}; {_delegate()}") from error

    @property
    def limits(self) -> frozenset[str]:
        """The fields of Limits that are enforced here."""
        return frozenset(_LIMIT_OF[name] for hierarchy in self.hierarchies for name in hierarchy.controllers)

    @property
    def remedy(self) -> str:
        """What an operator can do to have all limits, or nothing."""
        if self.limits == LIMITS:
            return ""
        if self.withheld:
            return f"this worker's control group is shared with others and not delegated: {_delegate()}"
        return _delegate() if os.geteuid() else "mount the cgroup controllers memory, pids and cpu"

    def create(self, name: str, limits: Limits) -> "Group":
        """Make the groups of one job. Raises SandboxError if a limit is asked for that cannot be enforced."""
        group = self.make(name)
        try:
            return self.limit(group, limits)
        except SandboxError:
            group.discard()
            raise

    def make(self, name: str) -> "Group":
        """Make groups without limits. Raises SandboxError."""
        group = Group(
            hierarchies=self.hierarchies,
            directories=tuple(hierarchy.parent / tag(name) for hierarchy in self.hierarchies),
            limits=Limits(),
        )
        try:
            group.make()
        except OSError as error:
            group.discard()
            raise SandboxError(f"cannot make a control group: {error}") from error
        return group

    def limit(self, group: "Group", limits: Limits) -> "Group":
        """Return groups with the limits of a job. Raises SandboxError if one is asked for that cannot be enforced."""
        asked = {limit for limit in LIMITS if getattr(limits, limit) is not None}
        if asked - self.limits:
            missing = ", ".join(sorted(asked - self.limits))
            raise SandboxError(f"no control group to limit {missing}: {self.remedy}")
        limited = evolve(group, limits=limits)
        controllers = frozenset(name for name, limit in _LIMIT_OF.items() if limit in asked)
        try:
            for hierarchy in self.hierarchies:
                hierarchy.enable(controllers)
            limited.apply()
        except OSError as error:
            raise SandboxError(f"cannot limit a job by its control group: {error}") from error
        return limited

    def _is_held(self, name: str) -> bool:
        """Return whether the supervisor of a job that lost its worker has its groups."""
        return any(is_locked(hierarchy.parent / name) for hierarchy in self.hierarchies)

    async def clean_up(self) -> tuple[str, ...]:
        """Kill and remove the groups of workers that are gone; return a line for each."""
        names = sorted({path.name for hierarchy in self.hierarchies for path in hierarchy.parent.glob("builder-*-*-*")})
        left_over = [name for name in names if is_left_over(name) and not self._is_held(name)]
        said = []
        for name in left_over:
            directories = tuple(hierarchy.parent / name for hierarchy in self.hierarchies)
            try:
                await Group(hierarchies=self.hierarchies, directories=directories, limits=Limits()).remove()
            except (SandboxError, RecursionError) as error:
                # what one job left must not keep all that come after it from running
                said.append(f"cannot remove the control group {name}, remove it by hand: {error}")
            else:
                said.append(f"removed the control group {name}")
        return tuple(said)


@frozen(kw_only=True)
class Group:
    """The groups of one job, one in each hierarchy."""

    hierarchies: tuple[Hierarchy, ...] = field(repr=False)
    directories: tuple[Path, ...]
    limits: Limits

    @property
    def entries(self) -> tuple[Path, ...]:
        """The files by which a process enters, writing "0" to each."""
        return tuple(directory / "cgroup.procs" for directory in self.directories)

    def make(self) -> None:
        """Make the directories. Raises OSError."""
        for directory in self.directories:
            directory.mkdir()

    def lock(self) -> tuple[int, ...]:
        """Return descriptors by which others see that they are in use, for the job's supervisor. Raises OSError."""
        with ExitStack() as made:
            locks = []
            for directory in self.directories:
                descriptor = lock_directory(directory, shared=True, wait=True)  # as long as somebody looks for one
                assert descriptor is not None, "it has waited"
                made.callback(os.close, descriptor)
                locks.append(descriptor)
            made.pop_all()
        return tuple(locks)

    def apply(self) -> None:
        """Set the limits. Raises OSError."""
        for hierarchy, directory in zip(self.hierarchies, self.directories, strict=True):
            for name in sorted(hierarchy.controllers):
                controller = _CONTROLLERS[hierarchy.version, name]
                if getattr(self.limits, _LIMIT_OF[name]) is None:
                    continue
                for file, value in controller.settings(self.limits).items():
                    if file not in controller.optional or (directory / file).exists():
                        (directory / file).write_text(value)

    def renew(self) -> None:
        """Set the limits again: while no worker was there, they may have been taken away to make room for one.

        Raises SandboxError.
        """
        try:
            for hierarchy in self.hierarchies:
                hierarchy.enable(hierarchy.controllers)
            self.apply()
        except OSError as error:
            raise SandboxError(f"its limits can't be set again: {error}") from error

    def discard(self) -> None:
        """Remove groups that were not used, or not for long; what is still in use is left to ``Cgroups.clean_up``."""
        for directory in self.directories:
            for _ in range(_DISCARD_TRIES):
                with contextlib.suppress(OSError):
                    directory.rmdir()
                if not directory.exists():
                    break
                time.sleep(0.005)

    def _hits(self, name: str) -> int:
        for hierarchy, directory in zip(self.hierarchies, self.directories, strict=True):
            events = _CONTROLLERS[hierarchy.version, name].events if name in hierarchy.controllers else None
            if events is not None:
                # below too: before Linux 6.11, processes are counted in the group of the one that could not fork
                return sum(_count(Path(path, events[0]), events[1]) for path, _, _ in os.walk(directory))
        return 0

    def hit(self) -> frozenset[str]:
        """Return which of its limits the job has hit: fields of Limits."""
        asked = (name for name in ("memory", "pids") if getattr(self.limits, name) is not None)
        return frozenset(name for name in asked if self._hits(name))

    def processes(self) -> frozenset[int]:
        """Return the processes that are in any of the groups, or in groups that a container program made below."""
        pids: set[int] = set()
        for directory in self.directories:
            for path, _, _ in os.walk(directory):
                with contextlib.suppress(OSError):
                    pids.update(map(int, Path(path, "cgroup.procs").read_text().split()))
        return frozenset(pids - _UNSEEN)

    def kill(self) -> None:
        """Kill all processes of the job. Harmless when there are none."""
        for directory in self.directories:
            for file, value in (("cgroup.kill", "1"), ("pids.max", "0")):  # no forks while the rest are killed
                if (directory / file).exists():
                    with contextlib.suppress(OSError):
                        (directory / file).write_text(value)
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError, PermissionError):  # gone, and its number someone else's
                os.kill(pid, signal.SIGKILL)

    async def wait_empty(self) -> None:
        """Kill until no process is left. Raises SandboxError if the kernel does not let one die."""
        with trio.move_on_after(REMOVE_TIMEOUT):
            pause = 0.001
            while self.processes():
                self.kill()
                await trio.sleep(pause)
                pause = min(0.1, pause * 2)
            return
        raise SandboxError(f"processes that cannot be killed: {sorted(self.processes())}")

    async def remove(self) -> None:
        """Kill what is left and remove the groups. Raises SandboxError."""
        await self.wait_empty()
        for directory in self.directories:
            await _remove(directory)


def _count(file: Path, key: str) -> int:
    try:
        lines = file.read_text().splitlines()
    except FileNotFoundError:
        return 0  # kernels before 4.13 do not count
    return int(dict(line.split() for line in lines).get(key, 0))


async def _remove(directory: Path) -> None:
    with trio.move_on_after(REMOVE_TIMEOUT):
        while not _try_remove(directory):  # noqa: ASYNC110 - the kernel tells nobody
            await trio.sleep(0.002)  # the kernel empties a group a little after its last process is gone
        return
    raise SandboxError(f"the control group {directory} stays busy")


def _try_remove(directory: Path) -> bool:
    for path, _, _ in os.walk(directory, topdown=False):
        try:
            Path(path).rmdir()
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise SandboxError(f"cannot remove the control group {path}: {error}") from error
            return False
    return True
