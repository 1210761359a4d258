"""What the tests of the worker around its sandboxes share: whether there is one, and a place that its jobs can reach."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import forked
import sandbox_runs
from worker_program import DEADLINE, without_leftovers

PRIVILEGE = "root" if os.geteuid() == 0 else "user"

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
}


def builder_worker(
    *arguments: str | Path,
    stdin: str = "",
    cwd: Path | None = None,
    umask: int | None = None,
    prefix: Sequence[str] = (),
    first: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run builder-worker to its end, by another program that ``prefix`` names, or after modules as in ``forked.FIRST``; return
    what it said, but of what others left.
    """
    if not prefix:
        given = map(str, arguments)
        done = forked.run(
            "builder_worker",
            *given,
            stdin=stdin.encode(),
            timeout=DEADLINE,
            cwd=cwd,
            umask=umask,
            env=ENVIRONMENT | {forked.FIRST: first},
        )
        said = without_leftovers(done.stderr.decode())
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), said)
    ended = subprocess.run(
        [*prefix, sys.executable, "-m", "builder_worker", *arguments],
        capture_output=True,
        text=True,
        input=stdin,
        timeout=DEADLINE,
        check=False,
        cwd=cwd,
        umask=-1 if umask is None else umask,
        env=ENVIRONMENT,
    )
    ended.stderr = without_leftovers(ended.stderr)
    return ended


@cache
def checked() -> dict[str, Any]:
    """Return what builder-worker check tells of this machine, by back end."""
    done = builder_worker("check", "--json")
    return {found["name"]: found for found in json.loads(done.stdout)["sandboxes"]}


def need(backend: str, *limits: str) -> None:
    """Skip, or fail where it must work, unless there is a back end with these limits."""
    found = checked()[backend]
    if not found["works"]:
        sandbox_runs.give_up(backend, f"{found['reason']} ({found['remedy']})")
    if missing := set(limits) - set(found["limits"]):
        sandbox_runs.give_up(backend, f"no limits of {', '.join(sorted(missing))}: {found['notes']}")


@contextmanager
def reachable_directory() -> Iterator[Path]:
    """A directory that a job's own user can come to, which is not so for those of pytest."""
    with sandbox_runs.work_directory(PRIVILEGE) as path:
        yield path


def supervisor_of(place: Path) -> int:
    """Return the number of the supervisor of a job that was started in a directory."""
    number: int = json.loads((place / "record").read_text())["supervisor"]
    return number
