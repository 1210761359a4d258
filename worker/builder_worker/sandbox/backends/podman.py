"""The back end ``podman``: a container from an image or a root tree, by a worker that is root or is not.

The job is a plain user in it. Rootful, that is a user of the host of its own; rootless, the worker's own user under
another number. Limits are podman's; a worker without root has them where control groups are version 2 and delegated.
"""

import json
import os
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar
from uuid import uuid4

from attrs import define, field

from builder.runtime.files import is_locked
from builder_worker.sandbox import (
    Backend,
    Check,
    Limits,
    Sandbox,
    SandboxError,
    Spare,
    Task,
    diagnosis,
    job_directory,
    roots,
)
from builder_worker.sandbox.job_directory import JobDirectory
from builder_worker.sandbox.linux import cgroups, devices, etc, seccomp, view
from builder_worker.sandbox.linux.prepared import Prepared, ReadyMade, adopt_sandbox, open_sandbox
from builder_worker.sandbox.options import Options
from builder_worker.sandbox.owner import is_left_over
from builder_worker.sandbox.processes import inside, rlimits, tools
from builder_worker.sandbox.processes.launch import Launch
from builder_worker.sandbox.processes.supervision import Status
from builder_worker.sandbox.script import interpreter
from builder_worker.sandbox.supervised import SCRIPT, Look

RUNTIMES = ("crun", "runc")
"""What podman can start containers with, in its own order of preference: crun refuses hybrid control groups."""

_TRY_TIMEOUT = 30.0
"""Seconds for a first container, for which a rootless podman sets up its storage."""

_PROCESSES = 4096
"""Processes of one user: podman's own default is more than a worker may give whose rights are bounded."""

_ISOLATION = (
    *(
        "--pull=never",
        "--log-driver=none",
        "--http-proxy=false",
        "--ipc=private",
        "--cgroupns=private",
    ),
    *("--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges"),
    *(f"--hostname={view.HOSTNAME}", "--umask=0022"),
    *("--entrypoint=", "--image-volume=ignore", "--no-healthcheck"),  # an image has programs and files, and no say
    *(f"--ulimit=nproc={_PROCESSES}:{_PROCESSES}",),
)

_PROBE_LIMIT = 1000
"""Processes that a container is limited to when it is asked what it is limited to."""

_LOOK = """
for file in /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max; do
  if [ -r $file ] && read -r limit <$file && [ "$limit" = "$1" ]; then exit 0; fi
done
exit 1
"""

_ENTER = 'while [ "$1" != -- ]; do echo 0 >"$1" || exit 1; shift; done; shift; exec "$@"'
"""Enters control groups."""

_NOTHING = ("/usr/bin/env", "-i", "/bin/sh", "-c", "exit 0")
"""A job needs these two programs."""


@define(kw_only=True)
class Podman(Backend):
    """Makes sandboxes with podman."""

    name: ClassVar[str] = "podman"

    options: Options = field(factory=Options)
    groups: cgroups.Cgroups = field(factory=cgroups.find)
    _podman: tuple[str, ...] = field(init=False, default=())

    @property
    def _is_ours(self) -> bool:
        """Whether the worker's groups limit the container: rootless podman makes groups by systemd alone, and leaves a
        container where it was itself if there is none to ask. So it is told not to, and started in the job's groups.
        """
        return os.geteuid() != 0

    @property
    def _own_groups(self) -> cgroups.Cgroups:
        return self.groups if self._is_ours else cgroups.Cgroups(hierarchies=())

    def check(self) -> Check:
        """Run ``true`` in a container, with each runtime until one can."""
        problem = diagnosis.missing({"podman": "podman", "env": "coreutils"})
        if problem is None and os.geteuid() != 0:
            problem = diagnosis.missing({"newuidmap": "uidmap"})
        if problem is None and not seccomp.supported():
            problem = ("there is no seccomp filter for this kind of machine", "use another sandbox")
        if problem is None and self.options.image is None:
            problem = roots.problem(self.options.root) or self._tree_problem()
        if problem is None:
            problem = self._choose()
        if problem is not None:
            return Check(works=False, reason=problem[0], remedy=problem[1])
        limits = self.groups.limits if self._is_ours else cgroups.LIMITS
        notes = (
            f"containers are started by {self._podman[-1]}",
            *diagnosis.notes(self.groups, network=self.options.network),
        )
        if limits and not self._is_limited():
            limits, notes = frozenset(), (*notes, "podman puts containers where their limits do not hold")
        return Check(works=True, limits=limits | diagnosis.ALWAYS_LIMITED, notes=notes)

    def _tree_problem(self) -> diagnosis.Problem | None:
        """Return what rootless podman can't do to a tree that belongs to another user, or None."""
        tree = self.options.root
        if tree is None or os.geteuid() == 0 or os.access(tree / "etc", os.W_OK):
            return None
        missing = [*etc.missing(tree), *([] if os.path.lexists(tree / "etc/mtab") else ["/etc/mtab"])]
        if not missing:
            return None
        what = f"{tree} belongs to another user and has no {missing[0]}, which rootless podman can't make"
        return what, f"give the tree to the worker's user, or put empty files there: {', '.join(missing)}"

    def _choose(self) -> diagnosis.Problem | None:
        """Find a runtime that works here, or say why the last one does not."""
        problem = "neither crun nor runc is installed", "apt install runc, or what your system calls it"
        for runtime in filter(tools.find, RUNTIMES):
            manager = ("--cgroup-manager=cgroupfs",) if self._is_ours else ()
            self._podman = ("podman", "--log-level=error", *manager, "--runtime", runtime)
            said = self._try([], _NOTHING)
            if said is None:
                return None
            problem = diagnosis.explain(said)
        self._podman = ()
        return problem

    def _is_limited(self) -> bool:
        """Return whether a limit reaches a container, by looking into one."""
        limits = Limits(pids=_PROBE_LIMIT)
        look = ("/usr/bin/env", "-i", "/bin/sh", "-c", _LOOK, "sh", str(_PROBE_LIMIT))
        if not self._is_ours:
            return self._try(_limits(limits), look) is None
        if not any(each.version == 2 and "pids" in each.controllers for each in self.groups.hierarchies):
            return True  # rootless podman does not touch groups of version 1, nor show them
        if not self.groups.is_settled:
            return True  # to try it would move this process: a worker has done that, a check does not
        group = self.groups.create(f"probe-{uuid4()}", limits)
        try:
            return self._try([], look, entries=group.entries) is None
        finally:
            group.kill()  # what podman leaves for a moment, to clean up after itself
            group.discard()

    def _try(self, arguments: Sequence[str], command: Sequence[str], *, entries: Sequence[Path] = ()) -> str | None:
        """Run a command in a container; return what was complained about, or None."""
        user = _user(self.options.job_uids[0] if os.geteuid() == 0 else None)
        run = [
            *self._podman,
            "run",
            "--rm",
            *_ISOLATION,
            *_surroundings(),
            *user,
            "--network=none",
            *arguments,
            *self._what(),
            *command,
        ]
        enter = ("/bin/sh", "-c", _ENTER, "sh", *map(str, entries), "--")
        return tools.try_now([*enter, *run], environment=_environment(), timeout=_TRY_TIMEOUT)

    def _what(self) -> tuple[str, ...]:
        return (self.options.image,) if self.options.image is not None else ("--rootfs", f"{self.options.root}:O")

    async def spare(self) -> Spare:
        """Make what the next job needs."""
        return await ReadyMade.make(self.options, self._own_groups)

    async def open(self, task: Task, spare: Spare | None = None) -> Sandbox:
        """Return a fresh sandbox."""
        if not self._podman and (problem := self._choose()) is not None:
            raise SandboxError(f"podman does not work: {problem[0]}; {problem[1]}")

        def describe(prepared: Prepared) -> Launch:
            return self._describe(task, prepared)

        return await open_sandbox(
            task,
            self.options,
            self._own_groups,
            describe,
            backend=self.name,
            limits=task.limits if self._is_ours else Limits(),
            owner_of=lambda user: user.uid,
            look=_look(task.limits),
            spare=spare,
        )

    async def adopt(self, place: Path) -> Sandbox:
        """Return the sandbox of a job that an earlier worker has left."""
        return await adopt_sandbox(place, _look)

    def _describe(self, task: Task, prepared: Prepared) -> Launch:
        directory, owner = prepared.directory, prepared.owner
        variables = directory.path / "environment"
        inside.write_variables(variables, task, view.HOME, inside.PATH, owner=owner)
        profile = directory.path / "seccomp.json"
        profile.write_text(json.dumps(seccomp.oci_profile()))
        # All of /home, because in a tree that belongs to another user nothing can be made below its own.
        directory.make_own("homes", 0o755)
        directory.make_own(f"homes/{Path(view.HOME).name}", 0o755)
        volumes = [
            f"{directory.build}:{view.BUILD}",
            f"{directory.disk / 'homes'}:{Path(view.HOME).parent}",
            f"{directory.disk / 'tmp'}:/tmp",
            f"{variables}:{inside.ENVIRONMENT}:ro",
            *(f"{path}:/etc/{path.name}:ro" for path in self._etc(directory, owner)),
            *(f"{bind.source}:{bind.target}{'' if bind.writable else ':ro'}" for bind in self.options.binds),
        ]
        for cache in self.options.caches:
            path = self.options.cache_directory(task.platform, cache)
            job_directory.make_cache(path, owner)
            volumes.append(f"{path}:{cache.target}")
        user = _user(owner)
        if directory.is_measured:
            user.append(f"--ulimit=fsize={directory.size}:{directory.size}")
        run = [
            *(
                *self._podman,
                "run",
                f"--name={directory.path.name}",
                self._label("--label"),
                *_ISOLATION,
                *_surroundings(),
            ),
            *(*user, f"--workdir={view.BUILD}"),
            f"--network={'host' if self.options.network else 'none'}",
            f"--security-opt=seccomp={profile}",
            *([] if task.limits.shm_size is None else [f"--shm-size={task.limits.shm_size}b"]),
            *(f"--device={node.source}:{node.target}" for node in devices.show(self.options.devices, directory)),
            *([] if self._is_ours else _limits(task.limits)),
            *(f"--volume={volume}" for volume in volumes),
            *self._what(),
            *inside.run_in_container(interpreter(task.script, f"{view.BUILD}/{SCRIPT}")),
        ]
        return Launch(
            command=run,
            environment=_environment(),
            owner=owner,
            has_notes=True,
            adopts=False,
            end=(*self._podman, *_remove(directory.path.name)),
            end_environment=_environment(),
        )

    def _etc(self, directory: JobDirectory, owner: int | None) -> list[Path]:
        """Write the files of /etc that are not the system's own. What users an image has, podman alone knows."""
        account = etc.Account(number=view.UID if owner is None else owner)
        if self.options.image is not None:
            texts = etc.where(network=self.options.network)
        else:
            texts = etc.texts(self.options.root, network=self.options.network, account=account)
        place = directory.path / "etc"
        place.mkdir()
        for name, text in texts.items():
            (place / name).write_bytes(text)
            (place / name).chmod(0o644)
        return [place / name for name in texts]

    async def clean_up(self) -> tuple[str, ...]:
        """Remove containers, control groups and work directories of workers that are gone."""
        lines = []
        said = await tools.run(
            "podman", "ps", "--all", self._label("--filter=label"), "--format={{.Names}}", environment=_environment()
        )
        for name in filter(self._is_left_over, said.decode().split()):
            await tools.run("podman", *_remove(name), environment=_environment())
            lines.append(f"removed the container {name}")
        lines += await self.groups.clean_up()
        lines += await job_directory.clean_up(self.options.work_root)
        return tuple(lines)

    def _label(self, option: str) -> str:
        """Return an option with what tells containers of this place from those of others on this machine."""
        return f"{option}=builder-worker={self.options.work_root}"

    def _is_left_over(self, name: str) -> bool:
        return is_left_over(name) and not is_locked(self.options.work_root / name)


def _look(limits: Limits) -> Look:
    """Return what tells which limits were hit: the container's groups are gone, but it was told before."""

    async def look(status: Status) -> frozenset[str]:
        asked = [name for name in ("memory", "pids") if getattr(limits, name) is not None]
        return frozenset(name for name in asked if inside.was_hit(name, status.notes))

    return look


def _user(owner: int | None) -> list[str]:
    """Return podman's arguments that make the job a user of the host, or the worker's own under another number."""
    number = view.UID if owner is None else owner
    arguments = [f"--user={number}:{number}", f"--passwd-entry=builder:*:{number}:{number}:builder:{view.HOME}:/bin/sh"]
    if owner is None:
        arguments.append(f"--userns=keep-id:uid={number},gid={number}")
    return arguments


def _surroundings() -> list[str]:
    """Return the arguments for what podman would set itself, and others than the table's."""
    core, files = rlimits.pair(resource.RLIMIT_CORE), rlimits.pair(resource.RLIMIT_NOFILE)
    return [f"--ulimit=core={core}", f"--ulimit=nofile={files}", f"--oom-score-adj={rlimits.oom_score()}"]


def _limits(limits: Limits) -> list[str]:
    arguments = []
    if limits.memory is not None:
        arguments += [f"--memory={limits.memory}b", f"--memory-swap={limits.memory}b"]
    if limits.pids is not None:
        arguments.append(f"--pids-limit={limits.pids}")
    if limits.cpus is not None:
        arguments.append(f"--cpus={limits.cpus}")
    return arguments


def _remove(name: str) -> tuple[str, ...]:
    """Return podman's arguments that kill and remove a container, if there is one."""
    return ("rm", "--force", "--time=0", "--ignore", name)


def _environment() -> dict[str, str]:
    """Return what podman needs of the worker's environment: where this user's containers are."""
    names = ("HOME", "XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME")
    return tools.ENVIRONMENT | {name: os.environ[name] for name in names if name in os.environ}
