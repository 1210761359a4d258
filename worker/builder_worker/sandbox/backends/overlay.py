"""The back end ``overlay``: a root tree with a throw-away writable layer, in which the job is root.

It is root of its user namespace: of 65536 users of the host that own nothing but this job's files. So it can install
packages, and the next job finds the tree as it was. Otherwise it is ``bubblewrap``, with the same walls.
"""

import os
import sys
from collections.abc import Callable, Sequence

from attrs import define

from builder_worker import trees
from builder_worker.sandbox import Check, SandboxError, Task, diagnosis, job_directory
from builder_worker.sandbox.backends.bubblewrap import Bubblewrap, command_for, environment
from builder_worker.sandbox.job_directory import JobDirectory
from builder_worker.sandbox.linux import etc, overlay_setup, seccomp, view
from builder_worker.sandbox.linux.prepared import Prepared
from builder_worker.sandbox.linux.users import JobUser
from builder_worker.sandbox.options import Options
from builder_worker.sandbox.owner import tag
from builder_worker.sandbox.processes import tools
from builder_worker.sandbox.processes.launch import Launch

USERS = 65536
"""Users of the host that belong to one sandbox."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
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
    *("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup", "--die-with-parent", "--new-session"),
    *("--hostname", view.HOSTNAME, "--cap-drop", "ALL"),
    *(part for name in CAPABILITIES for part in ("--cap-add", name)),
)

SETUP = (sys.executable, "-I", "-S", overlay_setup.__file__)


def first_uid(uids: range, index: int) -> int:
    """Return the first of the host's users that belong to the sandbox with this place in the range of job users.

    They lie behind that range: for each job user, as many as a sandbox has.
    """
    return uids.start + USERS * (index + 1)


@define(kw_only=True)
class Overlay(Bubblewrap):
    """Makes sandboxes with bubblewrap on an overlay file system."""

    name = "overlay"

    def check(self) -> Check:
        """Try the mounts and namespaces with the root tree."""
        problem = diagnosis.missing({"bwrap": "bubblewrap", "prlimit": "util-linux"})
        if problem is None and os.geteuid() != 0:
            problem = ("it needs root, to give jobs users of their own", "run the worker as root, or use podman")
        if problem is None and not seccomp.supported():
            problem = ("there is no seccomp filter for this kind of machine", "use another sandbox")
        if problem is None:
            problem = tree_problem(self.options)
        if problem is None:
            problem = try_on_tree(self.options, self._trial)
        if problem is not None:
            return Check(works=False, reason=problem[0], remedy=problem[1])
        return Check(
            works=True,
            limits=self.groups.limits | {"work_size"},
            notes=diagnosis.notes(self.groups, network=self.options.network),
        )

    def _trial(self, directory: JobDirectory, first: int) -> Sequence[str]:
        system = ("--bind", str(directory.path / "root"), "/", "--proc", "/proc", "--dev", "/dev")
        return (*self._enter(directory, first), "bwrap", *_ISOLATION, *system, "/bin/sh", "-c", "exit 0")

    def _enter(self, directory: JobDirectory, first: int) -> tuple[str, ...]:
        return (*SETUP, str(self.options.root), str(directory.path), str(first))

    def _owner(self, user: JobUser) -> int:
        return first_uid(self.options.job_uids, user.index)

    def _launch(self, task: Task, prepared: Prepared) -> Launch:
        directory, owner = prepared.directory, prepared.owner
        if owner is None:
            raise SandboxError("overlay needs root, to give jobs users of their own")
        make_layers(directory)
        # in the job's own layer, where a link or nothing can be replaced, and where packages may replace it again
        texts = etc.texts(self.options.root, network=self.options.network, account=None)
        etc.write(directory.disk / "upper", texts, root=self.options.root, owner=owner)
        return Launch(
            entries=prepared.group.entries,
            prefix=(*self._prefix(directory, None), *self._enter(directory, owner)),
            arguments=[
                *_ISOLATION,
                *([] if self.options.network else ["--unshare-net"]),
                *("--bind", str(directory.path / "root"), "/"),
                *view.kernel(),
                *("--size", str(RUN_SIZE), "--perms", "0755", "--tmpfs", "/run"),
                *("--bind", str(directory.disk / "tmp"), "/tmp"),  # noqa: S108 - the job's own
                *("--bind", str(directory.build), view.BUILD),
                *self._shared(task.platform, owner),
                *("--chdir", view.BUILD),
                *environment(task, HOME, PATH),
            ],
            filter=seccomp.build(),
            command=command_for(task.script),
            last=(),
        )


def make_layers(directory: JobDirectory) -> None:
    """Make the directories that ``overlay_setup`` mounts. Raises OSError."""
    directory.make_own("upper", 0o755)
    directory.make_own("scratch", 0o755)
    for name in ("lower", "root"):
        (directory.path / name).mkdir()


def try_on_tree(
    options: Options, command_for_trial: Callable[[JobDirectory, int], Sequence[str]]
) -> diagnosis.Problem | None:
    """Run a command on the layers of a job that is none, and return what is wrong, or None. Raises SandboxError.

    The command is made from their directory, and from the first user of the sandbox.
    """
    job_directory.prepare_root(options.work_root)
    first = first_uid(options.job_uids, 0)
    directory = JobDirectory(path=options.work_root / tag("trial"), size=None, owner=first)
    try:
        directory.path.mkdir()
        try:
            directory.disk.mkdir()
            make_layers(directory)
            said = tools.try_now(command_for_trial(directory, first))
        finally:
            trees.remove_tree(directory.path)
    except (OSError, trees.TreeChanged) as error:
        raise SandboxError(f"cannot try the root tree in {options.work_root}: {error}") from error
    return None if said is None else diagnosis.explain(said)


def tree_problem(options: Options) -> diagnosis.Problem | None:
    """Return what is wrong with the root tree of the options, or None."""
    make = "make one by `builder-worker root create NAME DIR` and give it as --root DIR"
    if options.root is None:
        return "it needs a root tree", make
    if not any((options.root / path).exists() for path in ("bin/sh", "usr/bin/sh")):
        return f"{options.root} is no root tree: there is no /bin/sh in it", make
    return None
