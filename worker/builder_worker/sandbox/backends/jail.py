"""The back end ``jail``, for FreeBSD: a zfs clone of a snapshot, a jail on it, and both destroyed after the job.

It has not run on FreeBSD yet: its command lines are made after the manuals, and tested against programs that note them.

    zfs clone SNAPSHOT PARENT/TAG       a fresh system, at once, mounted below the work root; what is mounted in it
    jail -c name=TAG persist            the jail, empty, and its limits by rctl
    jexec -U nobody TAG                 the script: the process stays the same one, so its status is the script's
    jail -R TAG; pkill -j JID           kills what the script has left
    zfs destroy PARENT/TAG              and nothing was ever there

TAG is the worker's name for the job, see ``owner``; PARENT is the dataset that the snapshot's one is in. The supervisor
is outside of the jail, where the job can't get at it. When no worker comes back it ends the script and the jail; the clone
is destroyed by the next worker.

The job is the user nobody, whom every FreeBSD has: set-uid programs are off in the clone, so it stays that. It may write
to /build, to its home and /tmp; what it needs of packages is in the snapshot.
"""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import ClassVar

from attrs import define, field

from builder.model import printable
from builder.runtime.files import is_locked
from builder_worker.sandbox import Backend, Check, Limits, Sandbox, SandboxError, Spare, Task, job_directory
from builder_worker.sandbox.diagnosis import Problem
from builder_worker.sandbox.freebsd.clone import HOME, SNAPSHOT, Clone, Run, parent_of
from builder_worker.sandbox.freebsd.prison import Prison
from builder_worker.sandbox.linux import etc, view
from builder_worker.sandbox.linux.cgroups import Cgroups
from builder_worker.sandbox.options import Options
from builder_worker.sandbox.owner import is_left_over, tag
from builder_worker.sandbox.processes import inside, rlimits, tools
from builder_worker.sandbox.processes.launch import Launch
from builder_worker.sandbox.processes.supervision import Status, Supervision
from builder_worker.sandbox.record import JobRecord
from builder_worker.sandbox.script import interpreter
from builder_worker.sandbox.supervised import SCRIPT, Look, LookOf, SupervisedSandbox, shielded

USER, UID = "nobody", 65534
"""FreeBSD's own, in every base system."""

_DEVFS_RULES = "4"
"""The set for jails in /etc/defaults/devfs.rules: null, zero, random and terminals."""

_TAG = re.compile(r"builder-[0-9]+-[0-9]+-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""All of a name that this back end gives, and no other: what does not match is never removed."""

_PROGRAMS = (
    "zfs",
    "jail",
    "jexec",
    "jls",
    "pkill",
    "mount",
    "mount_nullfs",
    "umount",
    "devfs",
    "rctl",
    "sysctl",
    "dmesg",
)

# Ends a fork bomb where rctl counts no processes. All that nobody runs counts, so a limit of the job it is not.
_INNER = f"""
umask 022
ulimit -c 0
ulimit -u "$1" 2>/dev/null
shift
. {inside.ENVIRONMENT}
cd {view.BUILD} && unset OLDPWD && exec "$@"
"""


@define(kw_only=True)
class Jail(Backend):
    """Makes jails. ``environment`` is that of the system's programs, which are found by its PATH."""

    name: ClassVar[str] = "jail"

    options: Options = field(factory=Options)
    environment: Mapping[str, str] = field(factory=lambda: tools.ENVIRONMENT)
    system: str = field(factory=platform.system)
    _has_rctl: bool | None = field(init=False, default=None)

    @property
    def _run(self) -> Run:
        return partial(tools.run, environment=self.environment)

    @property
    def _snapshot(self) -> str:
        if self.options.image is None:
            raise SandboxError("it needs a snapshot: --image DATASET@NAME")
        return self.options.image

    @property
    def has_rctl(self) -> bool:
        """Whether the kernel counts what jails use."""
        if self._has_rctl is None:
            self._has_rctl = self._ask("sysctl", "-n", "kern.racct.enable") == "1"
        return self._has_rctl

    def _ask(self, *command: str) -> str | None:
        """Return what a program says, None if it fails."""
        try:
            done = subprocess.run(
                command,
                env=self.environment,
                cwd="/",
                check=False,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=5,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else None

    def check(self) -> Check:
        """Look for all that a job needs. It makes nothing: that is seen when the first job does nothing."""
        problem = self._missing() or self._unfit()
        if problem is not None:
            return Check(works=False, reason=problem[0], remedy=problem[1])
        notes = ["it has not run on FreeBSD yet: tell whether it works"]
        limits = {"work_size"}
        if self.has_rctl:
            limits |= {"memory", "pids", "cpus"}
        else:
            notes.append(
                "memory, processes and CPUs can't be limited: "
                "put kern.racct.enable=1 into /boot/loader.conf, and restart the machine"
            )
        if self.options.network:
            notes.append("jobs share the host's network, and reach what listens on its 127.0.0.1")
        return Check(works=True, limits=frozenset(limits), notes=tuple(notes))

    def _missing(self) -> Problem | None:
        """Tell what this machine lacks."""
        if self.system != "FreeBSD":
            return "it needs FreeBSD", "use another sandbox"
        if os.geteuid() != 0:
            return "it needs root", "run the worker as root"
        for program in _PROGRAMS:
            if shutil.which(program, path=self.environment["PATH"]) is None:
                return f"{program} is not installed", "it is part of FreeBSD's base system"
        if self._ask("sysctl", "-n", "security.jail.jailed") == "1":
            return "this is inside of a jail", "run the worker on the host, or here with --sandbox none"
        if not self._ask("devfs", "rule", "-s", _DEVFS_RULES, "show"):
            return "the rules for devices in jails are not loaded", "service devfs restart"
        return None

    def _unfit(self) -> Problem | None:
        """Tell what is wrong with the snapshot."""
        if self.options.root is not None:
            return "it takes no root tree", "give a zfs snapshot, --image DATASET@NAME, instead of --root"
        if self.options.devices:
            return "it shows jobs no devices but its own", "leave --device out, or use another machine's sandboxes"
        if self.options.image is None:
            return "it needs a zfs snapshot", "zfs snapshot DATASET@NAME, and give it as --image DATASET@NAME"
        if SNAPSHOT.fullmatch(self.options.image) is None:
            return f"{printable(self.options.image)} is no zfs snapshot", "write --image DATASET@NAME"
        if self._ask("zfs", "list", "-H", "-t", "snapshot", "-o", "name", self.options.image) is None:
            return f"there is no snapshot {self.options.image}", "`zfs list -t snapshot` tells which there are"
        return None

    async def open(self, task: Task, spare: Spare | None = None) -> Sandbox:  # noqa: ARG002 - there are none
        """Return a fresh jail on a fresh clone."""
        job_directory.prepare_root(self.options.work_root)
        async with AsyncExitStack() as resources:
            name = tag(str(task.uuid))
            clone = self._clone(name, size=task.limits.work_size)
            await clone.create()
            resources.push_async_callback(shielded, clone.remove)
            try:
                await self._furnish(clone, task)
            except OSError as error:
                raise SandboxError(f"cannot prepare the sandbox: {error}") from error
            supervision = Supervision.begin(clone.path)
            resources.push_async_callback(shielded, supervision.aclose)
            prison = Prison(name=name, run=self._run)
            resources.push_async_callback(shielded, prison.remove)
            await prison.create(clone.disk, task.limits, network=self.options.network)

            return SupervisedSandbox(
                directory=clone,
                group=Cgroups(hierarchies=()).create(str(task.uuid), Limits()),
                limits=task.limits,
                supervision=supervision,
                launch=self._describe(task, prison),
                look=_look_at(prison)(task.limits),
                resources=resources.pop_all(),
                backend=self.name,
                grace=task.worker_grace,
            )

    async def adopt(self, place: Path) -> Sandbox:
        """Return the jail of a job that an earlier worker has left; its clone lies where this worker would make it."""

        def directory_of(written: JobRecord) -> Clone:
            return self._clone(place.name, size=written.size)

        prison = Prison(name=place.name, run=self._run)
        return await SupervisedSandbox.adopt(place, directory_of, _look_at(prison))

    def _describe(self, task: Task, prison: Prison) -> Launch:
        jexec = shutil.which("jexec", path=self.environment["PATH"]) or "/usr/sbin/jexec"
        processes = "unlimited" if task.limits.pids is not None else str(rlimits.PROCESSES)
        inner = ("/usr/bin/env", "-i", "/bin/sh", "-c", _INNER, "sh", processes)
        script = interpreter(task.script, f"{view.BUILD}/{SCRIPT}")
        return Launch(
            command=(jexec, "-U", USER, prison.name, *inner, *script),
            environment=self.environment,
            owner=UID,
            end=prison.end,
            end_environment=self.environment,
        )

    def _clone(self, name: str, *, size: int | None = None) -> Clone:
        snapshot = self._snapshot
        return Clone(
            path=self.options.work_root / name,
            size=size,
            owner=UID,
            dataset=f"{parent_of(snapshot)}/{name}",
            snapshot=snapshot,
            run=self._run,
        )

    async def _furnish(self, clone: Clone, task: Task) -> None:
        """Put into a clone what a job needs. Raises OSError and SandboxError."""
        clone.write_script(SCRIPT, task.script)
        variables = clone.disk / inside.ENVIRONMENT.lstrip("/")
        inside.write_variables(variables, task, HOME, inside.ROOT_PATH, owner=UID)
        for name, text in etc.where(network=self.options.network).items():
            clone.write("/etc", name, text)
        await clone.mount("/dev", "mount", "-t", "devfs", "-o", f"ruleset={_DEVFS_RULES}", "devfs")
        for bind in self.options.binds:
            await clone.share(bind.source, bind.target, writable=bind.writable)
        for cache in self.options.caches:
            path = self.options.cache_directory(task.platform, cache)
            job_directory.make_cache(path, UID)
            await clone.share(path, cache.target, writable=True)

    async def clean_up(self) -> tuple[str, ...]:
        """Remove the jails, clones and directories of workers that are gone."""
        said = []
        jails = filter(self._is_left_over, (await self._run("jls", "name")).decode().split())
        left: list[tuple[str, Prison | Clone]] = [(f"jail {name}", Prison(name=name, run=self._run)) for name in jails]
        left += [(f"clone {name}", self._clone(name)) for name in await self._left_clones()]
        for what, thing in left:
            try:
                await thing.remove()
            except SandboxError as error:
                # what one job left must not keep all that come after it from running
                said.append(f"cannot remove the {what}, remove it by hand: {error}")
            else:
                said.append(f"removed the {what}")
        return (*said, *await job_directory.clean_up(self.options.work_root))

    async def _left_clones(self) -> list[str]:
        """Return the last part of the names of clones whose workers are gone, and that are mounted where this worker
        would have mounted them: what is removed with a clone is never what zfs names, but what this worker does.
        """
        parent = parent_of(self._snapshot)
        columns = "name,origin,mountpoint"
        listed = await self._run("zfs", "list", "-H", "-d", "1", "-t", "filesystem", "-o", columns, parent)
        found = []
        for line in listed.decode(errors="surrogateescape").splitlines():
            match line.split("\t"):
                case [dataset, origin, mountpoint]:
                    name = dataset.removeprefix(f"{parent}/")
                    is_ours = self._is_left_over(name) and mountpoint == str(self._clone(name).disk)
                    if is_ours and SNAPSHOT.fullmatch(origin):
                        found.append(name)
        return found

    def _is_left_over(self, name: str) -> bool:
        is_tag = _TAG.fullmatch(name) is not None
        return is_tag and is_left_over(name) and not is_locked(self.options.work_root / name)


def _look_at(prison: Prison) -> LookOf:
    """Return what tells of a jail which limits were hit: of processes the kernel does not."""

    def look_of(limits: Limits) -> Look:
        async def look(_: Status) -> frozenset[str]:
            has_hit = limits.memory is not None and await prison.ran_out_of_memory()
            return frozenset({"memory"} if has_hit else ())

        return look

    return look_of
