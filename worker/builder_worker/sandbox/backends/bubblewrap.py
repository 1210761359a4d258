"""The back end ``bubblewrap``: a job in namespaces of its own, on the host's /usr or a root tree, all of it read-only.

bubblewrap never runs as the host's user 0: a worker that is root gives every sandbox a user of its own first.
Whatever else a job may do, it does as a user who owns nothing but the job's directory.
"""

import os
from typing import ClassVar

from attrs import define

from builder_worker.sandbox import Check, Task, diagnosis
from builder_worker.sandbox.linux import bwrap, devices, view
from builder_worker.sandbox.linux.prepared import Prepared
from builder_worker.sandbox.linux.users import JobUser
from builder_worker.sandbox.processes import inside, tools
from builder_worker.sandbox.processes.launch import Launch

_ISOLATION = (
    *(*bwrap.ISOLATION, "--unshare-cgroup-try", "--unshare-user", "--disable-userns"),
    *("--cap-drop", "ALL", "--uid", str(view.UID), "--gid", str(view.UID), "--hostname", view.HOSTNAME),
)


def become(uid: int) -> tuple[str, ...]:
    """Return the program that gives up root for good."""
    return ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs")


@define(kw_only=True)
class Bubblewrap(bwrap.BwrapBackend):
    """Makes sandboxes with bubblewrap."""

    name: ClassVar[str] = "bubblewrap"

    def check(self) -> Check:
        """Run ``true`` in the same namespaces."""
        problem = self.missing() or diagnosis.missing({"setpriv": "util-linux"})
        if problem is None:
            prefix = become(self.options.job_uids[-1]) if os.geteuid() == 0 else ()
            system = ("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev")
            said = tools.try_now([*prefix, "bwrap", *_ISOLATION, "--unshare-net", *system, "true"])
            problem = diagnosis.explain(said) if said is not None else None
        return self.result(problem)

    def owner_of(self, user: JobUser) -> int:
        """Return the one user of the sandbox."""
        return user.uid

    def describe(self, task: Task, prepared: Prepared) -> Launch:
        """Say how a job is started."""
        directory, shown = prepared.directory, view.system(self.options)
        arguments = [
            *_ISOLATION,
            *([] if self.options.network else ["--unshare-net"]),
            *shown.arguments,
            *view.kernel(task.limits.shm_size, devices.show(self.options.devices, directory)),
            *("--bind", str(directory.disk / "tmp"), "/tmp"),  # noqa: S108 - the job's own
            *("--perms", "0755", "--dir", "/home", "--bind", str(directory.disk / "home"), view.HOME),
            *("--bind", str(directory.build), view.BUILD),
            *self.shared(task.platform, prepared.owner),
            *("--chdir", view.BUILD),
            *bwrap.environment(task, view.HOME, inside.PATH),
        ]
        made_by = "--ro-bind-data" if shown.covers else "--file"
        return self.launch(
            task,
            prepared,
            arguments,
            user=prepared.owner,
            files={(made_by, path): text for path, text in shown.files.items()},
            last=("--remount-ro", "/"),
        )
