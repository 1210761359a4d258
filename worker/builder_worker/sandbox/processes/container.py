"""A back end that leaves the sandbox to a container program: podman.

Such a program may leave the container running when it is killed itself. So a lifeline runs beside it: a shell that
reads from a pipe which the worker holds. When the worker dies, or cuts the line to kill the job, the shell runs the
command that ends the container; again and again while the program lives, for it may be about to make the container.
"""

import contextlib
import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import trio
from attrs import define, frozen

from builder_worker.sandbox import ExitStatus, SandboxError, Task
from builder_worker.sandbox.job_directory import JobDirectory
from builder_worker.sandbox.linux.prepared import Prepared
from builder_worker.sandbox.processes import launch, tools
from builder_worker.sandbox.watched import WatchedSandbox

ENVIRONMENT = "environment"
"""Name of the file beside the job's disk that sets its variables: a command line would show them to all users."""

ENVIRONMENT_INSIDE = "/.builder-environment"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")

# The program holds the line too until it has told its number, so the worker can't die unnoticed in between. The directory
# of a process stays its own when another one gets its number; "exe" is in it as long as the process lives, and not in /.
# What is ended after the program is ended for good: before, the program may be making it, or fall over its end.
_LIFELINE = """
read -r pid || exit
exec >/dev/null 2>&1
cd "/proc/$pid"
read -r _
alive=yes
for try in $(seq 100); do
  [ -e exe ] || alive=
  (cd / && exec "$@") && [ -z "$alive" ] && exit
  sleep 0.1
done
[ "$alive" ] && kill -KILL -- "-$pid"
cd / && exec "$@"
"""

_TELL = 'echo $$ >&0; exec "$@" </dev/null'
"""What becomes the container program; its standard input is the line."""

# Like the shell inside of bubblewrap, see ``launch``, but there is no word to go: the lifeline watches the worker. Last
# it tells which limits were hit, since the control groups of a container vanish with it; without a fork, which could
# fail for one of these limits.
_INNER = f"""
umask 022
. {ENVIRONMENT_INSIDE}
printf + >&2
(exec "$@" </dev/null 2>&1)
code=$?
printf '\\004' >&2
cd /sys/fs/cgroup 2>/dev/null && for file in memory/memory.oom_control memory.events pids/pids.events pids.events; do
  if [ -r $file ]; then
    while read -r key count; do echo "${{file##*/}} $key $count" >&2; done <$file
  fi
done
exit $code
"""

_HITS = {
    "memory": re.compile(rb"^memory\.(?:oom_control|events) oom_kill 0*[1-9]", re.MULTILINE),
    "pids": re.compile(rb"^pids\.events max 0*[1-9]", re.MULTILINE),
}
"""What the shell says of a limit that was hit, by the limit's name."""


def inner(command: Sequence[str]) -> tuple[str, ...]:
    """Return the command that runs the job's inside, with nothing of the program's environment."""
    return ("/usr/bin/env", "-i", "/bin/sh", "-c", _INNER, "sh", *command)


def exports(variables: Mapping[str, str]) -> str:
    """Return lines for a shell that set variables. Raises SandboxError where a name is none."""
    bad = [name for name in variables if not _NAME.match(name)]
    if bad:
        raise SandboxError(f"not the name of a variable: {bad[0]!r}")
    quoted = {name: value.replace("'", "'\\''") for name, value in variables.items()}
    return "".join(f"export {name}='{value}'\n" for name, value in quoted.items())


def write_environment(directory: JobDirectory, variables: Mapping[str, str]) -> Path:
    """Write the file that sets the job's variables, and return it. Raises OSError or SandboxError."""
    path = directory.path / ENVIRONMENT
    path.write_text(exports(variables))
    if directory.owner is not None:
        os.chown(path, directory.owner, directory.owner)
    path.chmod(0o400)
    return path


@frozen(kw_only=True)
class Command:
    """What to run: the container program's command line, and what ends the container."""

    run: Sequence[str]
    end: Sequence[str]
    entries: Sequence[Path] = ()
    """Files of control groups to write "0" to."""

    environment: Mapping[str, str] = tools.ENVIRONMENT
    """What the container program, not the job, sees."""


@define(kw_only=True)
class _Running:
    process: subprocess.Popen[bytes]
    pidfd: int
    notes: int
    lifeline: subprocess.Popen[bytes]
    line: int | None


class ContainerSandbox(WatchedSandbox):
    """A job in a container."""

    def __init__(self, command: Command, prepared: Prepared) -> None:
        super().__init__(prepared.directory)
        self.group = prepared.group
        self._command = command
        self._prepared = prepared
        self._running: _Running | None = None
        self._killed = False
        self._told = b""  # what the shell said after the script

    def start(self, output: int) -> None:
        """Start the container program, and its lifeline first."""
        read, line = os.pipe2(os.O_CLOEXEC)
        notes, notes_write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(notes, False)
        try:
            lifeline = self._spawn(("/bin/sh", "-c", _LIFELINE, "sh", *self._command.end), read, read, read)
            chain = launch.enter_groups(self._command.entries, self._command.run)
            process = self._spawn(("/bin/sh", "-c", _TELL, "sh", *chain), line, output, notes_write)
            pidfd = os.pidfd_open(process.pid)
        except OSError as error:
            os.close(line)  # which ends what was started
            os.close(notes)
            raise SandboxError(f"cannot start {self._command.run[0]}: {error}") from error
        finally:
            os.close(read)
            os.close(notes_write)
        self._running = _Running(process=process, pidfd=pidfd, notes=notes, lifeline=lifeline, line=line)

    def _spawn(self, command: Sequence[str], stdin: int, stdout: int, stderr: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            env=self._command.environment,
            cwd="/",
            start_new_session=True,
        )

    async def wait_gone(self) -> None:
        """Wait for the container program."""
        assert self._running is not None, "started first"
        await trio.lowlevel.wait_readable(self._running.pidfd)
        self._running.process.wait()

    async def conclude(self) -> ExitStatus:
        """Return how the script ended, when all is gone. Raises SandboxError if it did not come to it."""
        assert self._running is not None
        code = self._running.process.returncode
        notes = b""
        with contextlib.suppress(BlockingIOError):
            notes = os.read(self._running.notes, launch.MAX_NOTES)
        self._told = notes.partition(launch.OVER)[2]
        has_begun = notes.startswith(launch.READY)
        if code < 0 or (self._killed and not has_begun):  # the code is the program's own, for a container that vanished
            return launch.conclude(notes, None, killed=self._killed)
        return launch.conclude(notes, code, killed=self._killed)

    def was_hit(self, limit: str) -> bool:
        """Return whether the container's own control groups say that a limit was hit."""
        return _HITS[limit].search(self._told) is not None

    def processes(self) -> Iterable[int]:
        """Return what is in the worker's own control groups."""
        return self.group.processes()

    def limit_hit(self) -> str | None:
        """Return what the worker's control groups counted."""
        return self.group.exceeded()

    def kill(self) -> None:
        """Cut the lifeline, which ends the container, and kill all processes in the control groups."""
        if self.status is not None:
            return
        running = self._running
        if running is not None and running.line is not None:
            self._killed = self._killed or running.process.poll() is None
            os.close(running.line)
            running.line = None
        self.group.kill()

    async def aclose(self) -> None:
        """Kill, wait, remove. There is no deadline: what was killed ends as soon as the kernel lets it."""
        with trio.CancelScope(shield=True):
            if self._running is not None:
                await self._end(self._running)
                self._running = None
                await self.discard()
            await self._prepared.aclose()

    async def _end(self, running: _Running) -> None:
        if running.process.poll() is None:
            self.kill()
        await self.wait_gone()
        if running.line is not None:  # all is over, so its work is not wanted
            running.lifeline.kill()
            os.close(running.line)
        await trio.to_thread.run_sync(running.lifeline.wait)
        os.close(running.pidfd)
        os.close(running.notes)

    async def discard(self) -> None:
        """Remove what the container program made."""


def variables(task: Task, home: str, path: str) -> dict[str, str]:
    """Return the job's environment."""
    return {"PATH": path, "HOME": home, **task.environment}
