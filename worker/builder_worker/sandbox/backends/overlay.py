"""The back end ``overlay``: a root tree with a throw-away writable layer, in which the job is root.

It is root of its user namespace: of 65536 users of the host that own nothing but this job's files. So it can install
packages, and the next job finds the tree as it was. Otherwise it is ``bubblewrap``, with the same walls.
"""

import os
from typing import ClassVar

from attrs import define

from builder_worker import trees
from builder_worker.sandbox import Check, SandboxError, Task, diagnosis, job_directory, roots
from builder_worker.sandbox.diagnosis import Problem
from builder_worker.sandbox.job_directory import JobDirectory
from builder_worker.sandbox.linux import bwrap, devices, etc, overlay_setup, view
from builder_worker.sandbox.linux.prepared import Prepared
from builder_worker.sandbox.linux.users import JobUser
from builder_worker.sandbox.owner import tag
from builder_worker.sandbox.processes import inside, tools
from builder_worker.sandbox.processes.launch import Launch

USERS = 65536
"""Users of the host that belong to one sandbox."""

HOME = "/root"

RUN_SIZE = 64 * 1024 * 1024
"""Bytes of /run, in memory."""

# What dpkg and the scripts of packages do as root: change owners and modes, become another user, put programs in
# their place. All of it counts only for the job's own users and files. What is not here: mounts, devices, network
# settings, the kernel.
CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_SYS_CHROOT",
)

_ISOLATION = (
    *(*bwrap.ISOLATION, "--unshare-cgroup"),
    *("--hostname", view.HOSTNAME, "--cap-drop", "ALL"),
    *(part for name in CAPABILITIES for part in ("--cap-add", name)),
)


def first_uid(uids: range, index: int) -> int:
    """Return the first of the host's users that belong to the sandbox with this place in the range of job users.

    They lie behind that range: for each job user, as many as a sandbox has.
    """
    return uids.start + USERS * (index + 1)


@define(kw_only=True)
class Overlay(bwrap.BwrapBackend):
    """Makes sandboxes with bubblewrap on an overlay file system."""

    name: ClassVar[str] = "overlay"
    users: ClassVar[int] = USERS

    def check(self) -> Check:
        """Try the mounts and namespaces with the root tree."""
        problem = self.missing()
        if problem is None and os.geteuid() != 0:
            problem = ("it needs root, to give jobs users of their own", "run the worker as root, or use podman")
        return self.result(problem or roots.problem(self.options.root) or self._try())

    def _try(self) -> Problem | None:
        """Run a shell on the layers of a job that is none, and return what is wrong, or None. Raises SandboxError."""
        job_directory.prepare_root(self.options.work_root)
        first = first_uid(self.options.job_uids, 0)
        directory = JobDirectory(path=self.options.work_root / tag("trial"), size=None, owner=first)
        system = ("--bind", str(directory.path / "root"), "/", "--proc", "/proc", "--dev", "/dev")
        try:
            job_directory.make_directory(directory.path, 0o755)
            try:
                job_directory.make_directory(directory.disk, 0o755)
                _make_layers(directory)
                run = ("bwrap", *_ISOLATION, *system, "/bin/sh", "-c", "exit 0")
                said = tools.try_now([*self._enter(directory, first), *run])
            finally:
                trees.remove_tree(directory.path)
        except (OSError, trees.TreeChanged) as error:
            raise SandboxError(f"cannot try the root tree in {self.options.work_root}: {error}") from error
        return None if said is None else diagnosis.explain(said)

    def _enter(self, directory: JobDirectory, first: int) -> tuple[str, ...]:
        return (*tools.python(overlay_setup), str(self.options.root), str(directory.path), str(first))

    def owner_of(self, user: JobUser) -> int:
        """Return the first of the sandbox's users, who is root in it."""
        return first_uid(self.options.job_uids, user.index)

    def describe(self, task: Task, prepared: Prepared) -> Launch:
        """Say how a job is started."""
        directory, owner = prepared.directory, prepared.owner
        if owner is None:
            raise SandboxError("overlay needs root, to give jobs users of their own")
        _make_layers(directory)
        # in the job's own layer, where a link or nothing can be replaced, and where packages may replace it again
        texts = etc.texts(self.options.root, network=self.options.network, account=None)
        etc.write(directory.disk / "upper", texts, root=self.options.root, owner=owner)
        arguments = [
            *_ISOLATION,
            *([] if self.options.network else ["--unshare-net"]),
            *("--bind", str(directory.path / "root"), "/"),
            *view.kernel(task.limits.shm_size, devices.show(self.options.devices, directory)),
            *("--size", str(RUN_SIZE), "--perms", "0755", "--tmpfs", "/run"),
            *("--bind", str(directory.disk / "tmp"), "/tmp"),  # noqa: S108 - the job's own
            *("--bind", str(directory.build), view.BUILD),
            *self.shared(task.platform, owner),
            *("--chdir", view.BUILD),
            *bwrap.environment(task, HOME, inside.ROOT_PATH),
        ]
        return self.launch(task, prepared, arguments, prefix=self._enter(directory, owner))


def _make_layers(directory: JobDirectory) -> None:
    """Make the directories that ``overlay_setup`` mounts. Raises OSError."""
    directory.make_own("upper", 0o755)
    directory.make_own("scratch", 0o755)
    for name in ("lower", "root"):
        (directory.path / name).mkdir()
