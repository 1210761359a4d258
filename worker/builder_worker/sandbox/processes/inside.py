"""What runs inside of a sandbox, around the script: a shell that says when it begins, and how it ended.

Why a shell: a program around the job reports a killed script as exit code 128 + signal, like a script that exits so; the
shell also says in words that a child was killed. (For SIGINT and SIGPIPE it does not, so those are reported as exit codes
130 and 141.) Why it may wait for the word to go: only then is it known that the programs around the job end with their
supervisor, so a script never runs for one that died meanwhile.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from builder_worker.sandbox import SandboxError, Task
from builder_worker.sandbox.processes import tools

PATH, ROOT_PATH = "/usr/local/bin:/usr/bin:/bin", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Of a job that is a plain user in its system, and of one that is root, or that may look at what root has."""

ENVIRONMENT = "/.builder-environment"
"""A file that sets the job's variables, where a command line would show them to all users."""

_RUN = """
printf + >&2
read -r go || exit 1
(exec "$@" </dev/null 2>&1)
code=$?
printf '\\004' >&2
exit $code
"""

# There is no word to go: what ends a container ends it in any state. Last it tells which limits were hit, since the
# control groups of a container vanish with it; without a fork, which could fail for one of these limits.
_RUN_IN_CONTAINER = f"""
umask 022
. {ENVIRONMENT}
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
    "memory": re.compile(r"^memory\.(?:oom_control|events) oom_kill 0*[1-9]", re.MULTILINE),
    "pids": re.compile(r"^pids\.events max 0*[1-9]", re.MULTILINE),
}
"""What the shell says of a limit that was hit, by the limit's name."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def run(command: Sequence[str]) -> tuple[str, ...]:
    """Return the command line that waits for the word to go, runs a command and says how it ended."""
    return ("/bin/sh", "-c", _RUN, "sh", *command)


def run_in_container(command: Sequence[str]) -> tuple[str, ...]:
    """Return the command line that runs a command in a container, with nothing of the program's environment."""
    return ("/usr/bin/env", "-i", "/bin/sh", "-c", _RUN_IN_CONTAINER, "sh", *command)


def was_hit(limit: str, notes: str) -> bool:
    """Return whether a container's own control groups said that a limit was hit."""
    return _HITS[limit].search(notes) is not None


def variables(task: Task, home: str, path: str) -> dict[str, str]:
    """Return the job's environment."""
    return {"PATH": path, "HOME": home, **task.environment}


def write_variables(path: Path, task: Task, home: str, search: str, *, owner: int | None) -> None:
    """Write the file that sets the job's variables. Raises OSError, and SandboxError where a name is none."""
    given = variables(task, home, search)
    bad = [name for name in given if not _NAME.match(name)]
    if bad:
        raise SandboxError(f"not the name of a variable: {bad[0]!r}")
    quoted = {name: value.replace("'", "'\\''") for name, value in given.items()}
    lines = "".join(f"export {name}='{value}'\n" for name, value in quoted.items())
    tools.write_private(path, os.fsencode(lines), owner=owner)
