"""The back end ``bubblewrap``: a job in namespaces of its own, on the host's /usr or a root tree, all of it read-only.

bubblewrap never runs as the host's user 0: a worker that is root gives every sandbox a user of its own first.
Whatever else a job may do, it does as a user who owns nothing but the job's directory.
"""

import os
from collections.abc import Collection, Sequence

import trio
from attrs import define, field

from builder.model import printable, text
from builder_worker.sandbox import Backend, Check, ExitStatus, Sandbox, Task, diagnosis, job_directory
from builder_worker.sandbox.job_directory import JobDirectory
from builder_worker.sandbox.linux import cgroups, seccomp, view
from builder_worker.sandbox.linux.prepared import Prepared, open_sandbox
from builder_worker.sandbox.linux.users import JobUser
from builder_worker.sandbox.options import Options
from builder_worker.sandbox.processes import tools
from builder_worker.sandbox.processes.launch import Launch, Process
from builder_worker.sandbox.watched import SCRIPT, WatchedSandbox

PATH = "/usr/local/bin:/usr/bin:/bin"

_ISOLATION = (
    *("--unshare-all", "--unshare-user", "--disable-userns", "--die-with-parent", "--new-session"),
    *("--cap-drop", "ALL", "--uid", str(view.UID), "--gid", str(view.UID), "--hostname", view.HOSTNAME),
)

# The system only says that there is "no such file", of the script.
_BY_FIRST_LINE = """
[ -x "$2" ] || printf '%s\\n' "builder-worker: the first line of the script names $2, which is no program here"
exec "$1"
"""


def command_for(script: bytes) -> tuple[str, ...]:
    """Return how the script is run: by its own first line, or by /bin/sh."""
    path = f"{view.BUILD}/{SCRIPT}"
    if not script.startswith(b"#!"):
        return ("/bin/sh", path)
    words = script[2:4096].partition(b"\n")[0].strip(b" \t").replace(b"\t", b" ").split(b" ")
    return ("/bin/sh", "-c", _BY_FIRST_LINE, "sh", path, printable(text(words[0])))


def become(uid: int) -> tuple[str, ...]:
    """Return the program that gives up root for good."""
    return ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs")


def environment(task: Task, home: str, path: str) -> list[str]:
    """Return arguments that set the job's environment and nothing else."""
    variables = {"PATH": path, "HOME": home} | dict(task.environment)
    return ["--clearenv", *(part for name, value in variables.items() for part in ("--setenv", name, value))]


class BubblewrapSandbox(WatchedSandbox):
    """A job in bubblewrap."""

    def __init__(self, launch: Launch, prepared: Prepared) -> None:
        super().__init__(prepared.directory)
        self._launch = launch
        self._prepared = prepared
        self._process: Process | None = None

    def start(self, output: int) -> None:
        """Start the script."""
        self._process = Process.start(self._launch, output)

    async def wait_gone(self) -> None:
        """Wait until the namespace is empty."""
        assert self._process is not None, "started first"
        await self._process.wait_gone()

    async def conclude(self) -> ExitStatus:
        """Return what the shell around the script said."""
        assert self._process is not None
        return self._process.conclude()

    def processes(self) -> Collection[int]:
        """Return what is below bubblewrap."""
        return self._process.processes if self._process is not None else ()

    def limit_hit(self) -> str | None:
        """Return what the control groups counted."""
        return self._prepared.group.exceeded()

    def kill(self) -> None:
        """Kill the namespace."""
        if self._process is not None and self.status is None:
            self._prepared.group.kill()
            self._process.kill()

    async def aclose(self) -> None:
        """Kill, wait, remove. There is no deadline: what was killed ends as soon as the kernel lets it."""
        with trio.CancelScope(shield=True):
            if self._process is not None:
                self.kill()
                await self._process.wait_gone()
                self._process.close()
                self._process = None
            await self._prepared.aclose()


@define(kw_only=True)
class Bubblewrap(Backend):
    """Makes sandboxes with bubblewrap."""

    name = "bubblewrap"

    options: Options = field(factory=Options)
    groups: cgroups.Cgroups = field(factory=cgroups.find)

    def check(self) -> Check:
        """Run ``true`` in the same namespaces."""
        problem = diagnosis.missing({"bwrap": "bubblewrap", "setpriv": "util-linux", "prlimit": "util-linux"})
        if problem is None and not seccomp.supported():
            problem = ("there is no seccomp filter for this kind of machine", "use another sandbox")
        if problem is None:
            prefix = become(self.options.job_uids[-1]) if os.geteuid() == 0 else ()
            system = ("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev")
            said = tools.try_now([*prefix, "bwrap", *_ISOLATION, *system, "true"])
            problem = diagnosis.explain(said) if said is not None else None
        if problem is not None:
            return Check(works=False, reason=problem[0], remedy=problem[1])
        return Check(
            works=True,
            limits=self.groups.limits | {"work_size"},
            notes=diagnosis.notes(self.groups, network=self.options.network),
        )

    async def open(self, task: Task) -> Sandbox:
        """Return a fresh sandbox."""

        def make(prepared: Prepared) -> Sandbox:
            return BubblewrapSandbox(self._launch(task, prepared), prepared)

        return await open_sandbox(task, self.options, self.groups, make, limits=task.limits, owner_of=self._owner)

    def _owner(self, user: JobUser) -> int:
        """Return the host's user who owns the job's files."""
        return user.uid

    def _launch(self, task: Task, prepared: Prepared) -> Launch:
        directory, owner = prepared.directory, prepared.owner
        shown = view.system(self.options)
        return Launch(
            entries=prepared.group.entries,
            prefix=self._prefix(directory, owner),
            arguments=[
                *_ISOLATION,
                *(["--share-net"] if self.options.network else []),
                *shown.arguments,
                *view.kernel(),
                *("--bind", str(directory.disk / "tmp"), "/tmp"),  # noqa: S108 - the job's own
                *("--perms", "0755", "--dir", "/home", "--bind", str(directory.disk / "home"), view.HOME),
                *("--bind", str(directory.build), view.BUILD),
                *self._shared(task.platform, owner),
                *("--chdir", view.BUILD),
                *environment(task, view.HOME, PATH),
            ],
            files=shown.files,
            filter=seccomp.build(),
            command=command_for(task.script),
        )

    def _prefix(self, directory: JobDirectory, owner: int | None) -> Sequence[str]:
        limits = [*tools.RESOURCES]
        if directory.is_measured:
            limits.append(f"--fsize={directory.size}")
        gentle: tuple[str, ...] = ()
        if "pids" not in self.groups.limits:
            limits.append(f"--nproc={tools.PROCESSES}")
            gentle = ("nice", "-n", "10")  # among that many processes, the worker must get to kill them in time
        return [*gentle, "prlimit", *limits, *(become(owner) if owner is not None else ())]

    def _shared(self, platform: str, owner: int | None) -> list[str]:
        """Return the arguments for what the operator shares with jobs."""
        arguments = []
        for bind in self.options.binds:
            arguments += ["--bind" if bind.writable else "--ro-bind", str(bind.source), bind.target]
        for cache in self.options.caches:
            path = self.options.cache_directory(platform, cache)
            job_directory.make_cache(path, owner)
            arguments += ["--bind", str(path), cache.target]
        return arguments

    async def clean_up(self) -> tuple[str, ...]:
        """Remove control groups and work directories of workers that are gone."""
        return (*await self.groups.clean_up(), *await job_directory.clean_up(self.options.work_root))
