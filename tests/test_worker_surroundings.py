"""What a worker was started with, and its jobs must not get: limits of processes, niceness, scores, scheduling."""

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from worker_program import Finished, run_script
from worker_sandboxes import builder_worker, need, reachable_directory

from builder.model import Exited
from builder_worker.sandbox.processes import rlimits

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")

LOOK = b"cat /proc/self/limits | grep -v pending; nice; cat /proc/self/oom_score_adj; grep ^Umask /proc/self/status; chrt -p $$ | sed s,.*current,,"
"""The kernel's limit of pending signals depends on the machine's memory, and is no matter of builds."""

ODD = (
    "/bin/sh",
    "-c",
    """
for limit in "-s 512" "-t 1000" "-d 7000000" "-v 8000000" "-n 500" "-l 32" "-c 0"; do ulimit -S $limit; done
umask 077
echo 700 >/proc/self/oom_score_adj
exec nice -n 7 chrt --batch 0 "$@"
""",
    "sh",
)


@pytest.fixture
def place() -> Iterator[Path]:
    with reachable_directory() as path:
        yield path


async def _look(place: Path, sandbox: str, *prefix: str) -> Finished:
    finished = await run_script(place, LOOK, f"--sandbox={sandbox}", prefix=prefix)
    assert finished.result == Exited(code=0)
    return finished


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give more than it has")
@pytest.mark.parametrize("sandbox", ["none", "bubblewrap"])
async def test_a_job_does_not_see_what_its_worker_was_started_with(place: Path, sandbox: str) -> None:
    need(sandbox)
    usual, odd = await _look(place, sandbox), await _look(place, sandbox, *ODD)
    assert odd.own_lines == usual.own_lines
    text = b"\n".join(usual.own_lines).decode()
    limits = {line[:25].strip(): line[25:].split()[:2] for line in text.splitlines() if line.startswith("Max")}
    assert limits["Max stack size"] == ["8388608", "unlimited"]
    assert limits["Max cpu time"] == ["unlimited", "unlimited"]
    assert limits["Max address space"] == ["unlimited", "unlimited"]
    assert limits["Max core file size"][0] == "1"
    assert "SCHED_OTHER" in text


def test_what_a_worker_may_not_give_is_told_at_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int, limits: tuple[int, int]) -> None:
        raise ValueError(number, limits)

    mine = {resource.RLIMIT_CPU: (500, 1000), resource.RLIMIT_CORE: (0, 0)}
    more = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda number: mine.get(number, more))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getpriority", lambda *_: 7)
    monkeypatch.setattr(rlimits, "oom_score", lambda: 700)
    monkeypatch.setattr(rlimits, "_OWN_SCORE", Path("/proc/version"))
    assert rlimits.settle() == (
        "jobs have the hard limit 1000 of `ulimit -t`, as this worker has, and no larger one",
        "jobs have the niceness 7, as this worker has, which may not give less",
        "jobs have the score 700 when memory is short, as this worker has, which may not give less",
    )
    assert rlimits.of_job()[resource.RLIMIT_CPU] == (1000, 1000)
    assert rlimits.of_job()[resource.RLIMIT_CORE] == (0, 0)
    assert rlimits.of_job(processes=5)[resource.RLIMIT_NPROC] == (5, 5)


def _less(limit: str) -> tuple[str, ...]:
    """Return what starts a program with a limit that it may not raise."""
    ours = ("setpriv", "--bounding-set=-sys_resource", "--inh-caps=-sys_resource")
    return (*ours, "sh", "-c", f'ulimit {limit}; exec "$@"', "sh")


ONLY_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give up the right")


def _run(place: Path, limit: str, script: str) -> subprocess.CompletedProcess[str]:
    (place / "job.sh").write_text(script)
    return builder_worker("run", place / "job.sh", "--sandbox=none", "--work-dir", place / "work", prefix=_less(limit))


@ONLY_ROOT
def test_a_worker_that_may_not_raise_its_limits_says_so(tmp_path: Path) -> None:
    done = _run(tmp_path, "-t 1000", "ulimit -Ht")
    assert "jobs have the hard limit 1000 of `ulimit -t`" in done.stderr
    assert done.stdout.startswith("1000\n")


@ONLY_ROOT
def test_a_worker_that_may_write_no_file_for_a_job_says_so_in_one_line(tmp_path: Path) -> None:
    done = _run(tmp_path, "-f 3", "true")
    assert done.returncode == 7
    assert done.stderr == (
        "builder-worker: this worker may write no file of more than 1536 bytes (`ulimit -f`), and a job needs one of "
        "16 MiB: start it with a larger limit\n"
    )


@ONLY_ROOT
def test_a_console_that_its_worker_may_not_write_is_told_with_the_limit(tmp_path: Path) -> None:
    done = _run(tmp_path, "-f 40000", "head -c 21000000 /dev/zero; sleep 1000")
    assert "jobs have the hard limit 20480000 of `ulimit -f`" in done.stderr
    assert "the console can't be written: the worker's `ulimit -f` allows no larger file" in done.stdout


@ONLY_ROOT
def test_what_a_worker_may_raise_it_raises_for_itself_too(tmp_path: Path) -> None:
    done = _run(tmp_path, "-S -f 3", "seq 1000; ulimit -f")
    assert "\n1000\nunlimited\n" in done.stdout, done.stderr
