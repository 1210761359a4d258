"""The back end ``nspawn``: systemd-nspawn on a root tree with a throw-away layer; the job is root in it.

The tree and its layer are mounted as for ``overlay``, because systemd-nspawn's own volatile overlay lies in memory
and cannot be combined with user namespaces. Limits are the worker's control groups, in which all of it runs.
"""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from attrs import define, field

from builder_worker.sandbox import Backend, Check, ExitStatus, Sandbox, SandboxError, Task, diagnosis, job_directory
from builder_worker.sandbox.backends import overlay
from builder_worker.sandbox.backends.bubblewrap import command_for
from builder_worker.sandbox.job_directory import JobDirectory
from builder_worker.sandbox.linux import cgroups, seccomp, view
from builder_worker.sandbox.linux.prepared import Prepared, open_sandbox
from builder_worker.sandbox.linux.users import JobUser
from builder_worker.sandbox.options import Options
from builder_worker.sandbox.owner import is_left_over
from builder_worker.sandbox.processes import container, tools

# In version 2 one write ends them all; in version 1 no new ones may come while the rest are killed.
_END_GROUPS = """
for g; do
  if [ -e "$g/cgroup.kill" ]; then echo 1 >"$g/cgroup.kill"; fi
  if [ -e "$g/pids.max" ]; then echo 0 >"$g/pids.max"; fi
done
for g; do
  while p=$(cat "$g/cgroup.procs") && [ -n "$p" ]; do kill -9 $p; done
done
"""

# What cannot be refused to systemd-nspawn itself, see ``seccomp``: it goes on top of its own filter and ours.
_REFUSED_CALLS = "~@mount @keyring bpf unshare setns"

# What systemd-nspawn gives by default and ``overlay.CAPABILITIES`` does not have; a list of what to keep is not
# possible, because what is dropped wins.
_DROPPED = (
    *("CAP_AUDIT_CONTROL", "CAP_AUDIT_WRITE", "CAP_DAC_READ_SEARCH", "CAP_IPC_OWNER", "CAP_LEASE"),
    *("CAP_LINUX_IMMUTABLE", "CAP_MKNOD", "CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST"),
    *("CAP_NET_RAW", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_PTRACE", "CAP_SYS_RESOURCE"),
    "CAP_SYS_TTY_CONFIG",
)

PROPAGATED = Path("/run/systemd/nspawn/propagate")
"""Where systemd-nspawn makes a directory for each container, and leaves it if it is killed itself."""

# systemd-nspawn gives a container its control groups, in which a job could make trees that nothing can remove. Its own
# --inaccessible comes too early, before it mounts them; only what lies below /proc does it mount after them, and there
# is a way from /proc to everything.
_HIDE_GROUPS = "--tmpfs=/proc/self/root/sys/fs/cgroup:mode=0555,size=4k,ro"

_GROUPS_ARE_HIDDEN = """
[ -z "$(ls -A /sys/fs/cgroup)" ] || { echo "this systemd-nspawn shows jobs their control groups" >&2; exit 1; }
"""

_ISOLATION = (
    *("--quiet", "--register=no", "--keep-unit", "--console=pipe", "--as-pid2", "--link-journal=no"),
    f"--tmpfs=/dev/shm:mode=1777,size={view.SHM_SIZE}",
    *("--resolv-conf=off", "--timezone=off", f"--hostname={view.HOSTNAME}", "--no-new-privileges=yes"),
    f"--drop-capability={','.join(_DROPPED)}",
    f"--system-call-filter={_REFUSED_CALLS}",
    f"--rlimit=CORE={tools.CORE_LIMIT}",
    _HIDE_GROUPS,
)


class NspawnSandbox(container.ContainerSandbox):
    """A job in systemd-nspawn."""

    async def conclude(self) -> ExitStatus:
        """Wait for the last processes first: systemd-nspawn may have been killed alone."""
        await self.group.wait_empty()
        return await super().conclude()

    async def discard(self) -> None:
        """Remove what systemd-nspawn leaves."""
        _forget(_machine(self.directory))


@define(kw_only=True)
class Nspawn(Backend):
    """Makes sandboxes with systemd-nspawn."""

    name = "nspawn"

    options: Options = field(factory=Options)
    groups: cgroups.Cgroups = field(factory=cgroups.find)

    def check(self) -> Check:
        """Run a shell in a container that looks for control groups."""
        problem = diagnosis.missing({"systemd-nspawn": "systemd-container"})
        if problem is None and not seccomp.supported():
            problem = ("there is no seccomp filter for this kind of machine", "use another sandbox")
        if problem is None and os.geteuid() != 0:
            problem = ("it needs root", "run the worker as root, or use bubblewrap or podman")
        if problem is None and not self.groups.hierarchies:
            problem = ("it needs control groups, to find all processes of a job", self.groups.remedy)
        if problem is None:
            problem = overlay.tree_problem(self.options)
        if problem is None:
            problem = overlay.try_on_tree(self.options, self._trial)
        if problem is not None:
            return Check(works=False, reason=problem[0], remedy=problem[1])
        return Check(works=True, limits=self.groups.limits | {"work_size"}, notes=diagnosis.notes(self.groups))

    def _trial(self, directory: JobDirectory, first: int) -> Sequence[str]:
        _write_filter(directory)
        return [*self._command(directory, first), "/bin/sh", "-c", _GROUPS_ARE_HIDDEN]

    def _command(self, directory: JobDirectory, first: int) -> list[str]:
        return [
            *overlay.SETUP,
            *("stay", str(self.options.root), str(directory.path), str(first)),
            *("systemd-nspawn", *_ISOLATION, f"--machine={_machine(directory)}"),
            f"--directory={directory.path / 'root'}",
            *(f"--private-users={first}:{overlay.USERS}", "--private-users-ownership=off"),
            *([] if self.options.network else ["--private-network"]),
            *([] if "pids" in self.groups.limits else [f"--rlimit=NPROC={tools.PROCESSES}"]),
        ]

    async def open(self, task: Task) -> Sandbox:
        """Return a fresh sandbox."""

        def make(prepared: Prepared) -> Sandbox:
            return NspawnSandbox(self._container(task, prepared), prepared)

        def owner_of(user: JobUser) -> int:
            return overlay.first_uid(self.options.job_uids, user.index)

        return await open_sandbox(task, self.options, self.groups, make, limits=task.limits, owner_of=owner_of)

    def _container(self, task: Task, prepared: Prepared) -> container.Command:
        directory, owner = prepared.directory, prepared.owner
        if owner is None:
            raise SandboxError("nspawn needs root")
        overlay.make_layers(directory)
        _write_filter(directory)
        environment = container.write_environment(directory, container.variables(task, overlay.HOME, overlay.PATH))
        shared = [f"--bind-ro={environment}:{container.ENVIRONMENT_INSIDE}"]
        shared += [
            f"--bind{'' if bind.writable else '-ro'}={_escape(bind.source)}:{bind.target}"
            for bind in self.options.binds
        ]
        for cache in self.options.caches:
            path = self.options.cache_directory(task.platform, cache)
            job_directory.make_cache(path, owner)
            shared.append(f"--bind={_escape(path)}:{cache.target}")
        run = [
            *self._command(directory, owner),
            *(f"--bind={directory.build}:{view.BUILD}", f"--bind={directory.disk / 'tmp'}:/tmp"),
            *shared,
            f"--chdir={view.BUILD}",
            *container.inner(command_for(task.script)),
        ]
        end = ["/bin/sh", "-c", _END_GROUPS, "sh", *map(str, prepared.group.directories)]
        return container.Command(run=run, end=end, entries=prepared.group.entries)

    async def clean_up(self) -> tuple[str, ...]:
        """Remove control groups and work directories of workers that are gone."""
        _forget_left_over()
        return (*await self.groups.clean_up(), *await job_directory.clean_up(self.options.work_root))


def _machine(directory: JobDirectory) -> str:
    """Return the container's name, which may be no longer than a host's."""
    return directory.path.name[:64].rstrip("-")


def _forget(machine: str) -> None:
    with contextlib.suppress(OSError):  # it has been removed, or is none of ours
        (PROPAGATED / machine).rmdir()


def _forget_left_over() -> None:
    for path in PROPAGATED.glob("builder-*"):
        if is_left_over(path.name):
            _forget(path.name)


def _write_filter(directory: JobDirectory) -> None:
    """Write the seccomp filter that ``overlay_setup`` puts on. Raises OSError."""
    (directory.path / "filter").write_bytes(seccomp.build(allowed=seccomp.FOR_CONTAINERS))


def _escape(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace(":", "\\:")
