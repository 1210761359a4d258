"""The back end ``jail``, for FreeBSD: a zfs clone of a snapshot, a jail on it, and both destroyed after the job.

It has not run on FreeBSD yet: its command lines are made after the manuals, and tested against programs that note them.

    zfs clone SNAPSHOT PARENT/TAG       a fresh system, at once, mounted below the work root; what is mounted in it
    jail -c name=TAG persist            the jail, empty, and its limits by rctl
    jexec -U nobody TAG                 the script: the process stays the same one, so its status is the script's
    jail -R TAG; pkill -j JID           kills what the script has left
    zfs destroy PARENT/TAG              and nothing was ever there

TAG is the worker's name for the job, see ``owner``; PARENT is the dataset that the snapshot's one is in. The keeper is
outside of the jail, where the job can't get at it. When the worker dies the keeper ends the script, and a lifeline the
jail; the clone is destroyed by the next worker.

The job is the user nobody, whom every FreeBSD has: set-uid programs are off in the clone, so it stays that. It may write
to /build, to its home and /tmp; what it needs of packages is in the snapshot.
"""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import ClassVar

import trio
from attrs import define, field

from builder.model import printable
from builder_worker.sandbox import Backend, Check, ExitStatus, Limits, Sandbox, SandboxError, Task, job_directory
from builder_worker.sandbox.backends.bubblewrap import command_for
from builder_worker.sandbox.diagnosis import Problem
from builder_worker.sandbox.freebsd.clone import HOME, SNAPSHOT, Clone, Run, parent_of
from builder_worker.sandbox.freebsd.prison import Prison
from builder_worker.sandbox.linux import etc, view
from builder_worker.sandbox.linux.cgroups import Cgroups, out_of_memory
from builder_worker.sandbox.options import Options
from builder_worker.sandbox.owner import is_left_over, tag
from builder_worker.sandbox.processes import container, tools
from builder_worker.sandbox.processes.kept import MARK, KeptProcess
from builder_worker.sandbox.watched import SCRIPT, WatchedSandbox

USER, UID = "nobody", 65534
"""FreeBSD's own, in every base system."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

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
. {container.ENVIRONMENT_INSIDE}
cd {view.BUILD} && unset OLDPWD && exec "$@"
"""

_LIFELINE = 'read -r _; exec "$@"'


class JailSandbox(WatchedSandbox):
    """A job in a jail."""

    def __init__(self, task: Task, clone: Clone, prison: Prison, environment: Mapping[str, str]) -> None:
        super().__init__(clone)
        self._task = task
        self._prison = prison
        self._environment = environment
        self._resources = AsyncExitStack()
        self._process = KeptProcess(
            self._command(),
            environment={**environment, MARK: str(task.uuid)},
            directory=clone.path,
            group=Cgroups(hierarchies=()).create(str(task.uuid), Limits()),
        )
        self._lifeline: subprocess.Popen[bytes] | None = None
        self._out_of_memory = False

    def _command(self) -> list[str]:
        jexec = shutil.which("jexec", path=self._environment["PATH"]) or "/usr/sbin/jexec"
        processes = "unlimited" if self._task.limits.pids is not None else str(tools.PROCESSES)
        inner = ("/usr/bin/env", "-i", "/bin/sh", "-c", _INNER, "sh", processes)
        return [jexec, "-U", USER, self._prison.name, *inner, *command_for(self._task.script)]

    def keep(self, resources: AsyncExitStack) -> None:
        """Take over what is to be removed in the end."""
        self._resources = resources

    def start(self, output: int) -> None:
        """Start the script, and the lifeline before it."""
        end, hold = os.pipe()
        self._resources.callback(os.close, hold)
        try:
            self._lifeline = subprocess.Popen(
                ["/bin/sh", "-c", _LIFELINE, "sh", "jail", "-R", self._prison.name],
                stdin=end,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=self._environment,
                cwd="/",
                start_new_session=True,  # it outlives whatever ends the worker's own session
            )
        except OSError as error:
            raise SandboxError(f"cannot start a sandbox: {error}") from error
        finally:
            os.close(end)
        self._process.start(output)

    async def wait_gone(self) -> None:
        """Wait for the script and remove the jail, which ends the rest."""
        await self._process.wait_gone()
        await self._prison.remove()

    async def conclude(self) -> ExitStatus:
        """Return what the keeper said."""
        status = self._process.conclude()
        if self._task.limits.memory is not None and status.code != 0:
            self._out_of_memory = await self._prison.ran_out_of_memory()
        return status

    def processes(self) -> tuple[int, ...]:
        """Return none: zfs counts what they keep open as well."""
        return ()

    def limit_hit(self) -> str | None:
        """Return whether memory was it. Of processes the kernel does not tell."""
        memory = self._task.limits.memory
        return out_of_memory(memory) if memory is not None and self._out_of_memory else None

    def kill(self) -> None:
        """Kill the script; ``wait`` ends the rest."""
        self._process.kill()

    async def aclose(self) -> None:
        """Kill, wait, remove the jail and the clone."""
        with trio.CancelScope(shield=True):
            await self._process.aclose()
            if self._lifeline is not None:
                self._lifeline.kill()  # before its end of the pipe tells it that the worker is gone
                self._lifeline.wait()
                self._lifeline = None
            await self._resources.aclose()


async def _shielded(remove: Callable[[], Awaitable[None]]) -> None:
    with trio.CancelScope(shield=True):
        await remove()


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
        if self.options.image is None:
            return "it needs a zfs snapshot", "zfs snapshot DATASET@NAME, and give it as --image DATASET@NAME"
        if SNAPSHOT.fullmatch(self.options.image) is None:
            return f"{printable(self.options.image)} is no zfs snapshot", "write --image DATASET@NAME"
        if self._ask("zfs", "list", "-H", "-t", "snapshot", "-o", "name", self.options.image) is None:
            return f"there is no snapshot {self.options.image}", "`zfs list -t snapshot` tells which there are"
        return None

    async def open(self, task: Task) -> Sandbox:
        """Return a fresh jail on a fresh clone."""
        job_directory.prepare_root(self.options.work_root)
        async with AsyncExitStack() as resources:
            name = tag(str(task.uuid))
            clone = self._clone(name, size=task.limits.work_size)
            await clone.create()
            resources.push_async_callback(_shielded, clone.remove)
            try:
                await self._furnish(clone, task)
            except OSError as error:
                raise SandboxError(f"cannot prepare the sandbox: {error}") from error
            prison = Prison(name=name, run=self._run)
            resources.push_async_callback(_shielded, prison.remove)
            await prison.create(clone.disk, task.limits, network=self.options.network)
            sandbox = JailSandbox(task, clone, prison, self.environment)
            sandbox.keep(resources.pop_all())
            return sandbox

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
        environment = clone.disk / container.ENVIRONMENT_INSIDE.lstrip("/")
        with environment.open("x") as file:
            os.fchmod(file.fileno(), 0o400)
            os.fchown(file.fileno(), UID, UID)
            file.write(container.exports(container.variables(task, HOME, PATH)))
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
        jails = filter(_is_left_over, (await self._run("jls", "name")).decode().split())
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
                    is_ours = _is_left_over(name) and mountpoint == str(self._clone(name).disk)
                    if is_ours and SNAPSHOT.fullmatch(origin):
                        found.append(name)
        return found


def _is_left_over(name: str) -> bool:
    return _TAG.fullmatch(name) is not None and is_left_over(name)
