"""Jobs and servers that try to stop a worker, to slow its other jobs, or to leave what its successors stumble over."""

import fcntl
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import uuid4

import forked
import pytest
import sandbox_runs
import trio
from worker_program import DEADLINE, open_server, run_script, run_worker, without_leftovers
from worker_sandboxes import ENVIRONMENT, need, reachable_directory

from builder.model import Aborted, Exited
from builder_worker import job
from builder_worker.sandbox import Limits, Task, disk, job_directory
from builder_worker.sandbox.backends.none import NoSandbox
from builder_worker.sandbox.linux.cgroups import Group
from builder_worker.sandbox.options import Options
from builder_worker.trees import remove_tree

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sandboxes of Linux")

GONE = "builder-4194305-1-"
"""How the name of a thing begins whose worker is gone: no process has that number."""


def _run(script: Path, *arguments: str) -> forked.Process:
    return forked.start(
        "builder_worker", "run", str(script), "--sandbox", "none", "-q", *arguments,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT, cwd=script.parent,
    )  # fmt: skip


@pytest.fixture
def flood(tmp_path: Path) -> Path:
    """A script that prints until it is killed."""
    path = tmp_path / "flood.sh"
    path.write_text("exec yes")
    return path


def test_a_signal_ends_a_run_whose_output_nobody_reads(flood: Path, tmp_path: Path) -> None:
    with _run(flood, "--work-dir", str(tmp_path / "work")) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(2) == b"y\n"
        _wait_blocked(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 143
        said = without_leftovers(process.stderr.read().decode())
        assert said == "builder-worker: ended by SIGTERM; the job was killed\n"
    assert not list((tmp_path / "work").iterdir())


def _wait_blocked(pid: int) -> None:
    """Wait until one of the threads of a process waits for room in a pipe."""
    threads = Path(f"/proc/{pid}/task")
    while not any("pipe_write" in (thread / "wchan").read_text() for thread in threads.iterdir()):
        os.sched_yield()


def test_a_run_whose_reader_goes_away_ends_without_a_word(flood: Path, tmp_path: Path) -> None:
    with _run(flood, "--work-dir", str(tmp_path / "work")) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(2) == b"y\n"
        process.stdout.close()
        assert process.wait(DEADLINE) == 141
        assert without_leftovers(process.stderr.read().decode()) == ""


async def test_a_flood_of_newlines_is_sent_in_small_parts(tmp_path: Path) -> None:
    parts: list[int] = []

    async def take(lines: Sequence[bytes], *_: object) -> None:
        parts.append(len(lines))

    task = Task(uuid=uuid4(), name="job", platform="p1", script=b"yes '' | head -c 300000", environment=ENVIRONMENT)
    with trio.fail_after(DEADLINE):
        async with await NoSandbox(options=Options(work_root=tmp_path / "work")).open(task) as sandbox:
            await job.run_job(sandbox, send_lines=take)
    assert sum(parts) == 300_000
    assert max(parts) <= job.LINES_AT_ONCE


@pytest.mark.parametrize("limit", [(), ("--work-size", "10M")], ids=["without a limit", "with one"])
@pytest.mark.parametrize(
    "attack", ['rm -rf "$2"', 'mv "$2" "$2.elsewhere"', 'rm -rf "$1"'], ids=["removed", "moved", "disk removed"]
)
async def test_a_job_that_makes_away_with_its_directory_is_told_so(
    attack: str, limit: tuple[str, ...], tmp_path: Path
) -> None:
    script = f'set -- "$(dirname "$PWD")" "$(dirname "$(dirname "$PWD")")"; cd /; {attack}; {"exec sleep 1000" if limit else "exit 0"}'
    async with open_server() as server, run_worker(tmp_path, "-r", server.address, *limit) as worker:
        async with server.accept() as connection:
            await connection.hand_out(script.encode())
            finished = await connection.finish()
        assert await worker.wait() == 0, worker.log
    assert isinstance(finished.result, Aborted)
    assert finished.result.message.endswith(": No such file or directory")


async def test_what_one_worker_left_and_nobody_can_remove_keeps_no_other_from_working(tmp_path: Path) -> None:
    left = tmp_path / "work" / f"{GONE}{uuid4()}"
    left.parent.mkdir()
    left.write_text("where a directory was")
    async with open_server() as server, run_worker(tmp_path, "-r", server.address) as worker:
        async with server.accept() as connection:
            await connection.hand_out(b"echo works")
            assert (await connection.finish()).own_lines == [b"works"]
        assert await worker.wait() == 0, worker.log
    assert f"cannot remove {left}" in worker.log
    assert "remove it by hand" in worker.log


async def test_of_two_workers_that_start_together_one_cleans_up(tmp_path: Path) -> None:
    left = tmp_path / f"{GONE}{uuid4()}"
    left.mkdir()
    lock = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert await job_directory.clean_up(tmp_path) == ()
    assert left.exists()
    os.close(lock)
    assert await job_directory.clean_up(tmp_path) == (f"removed the work directory {left}",)
    assert not left.exists()


async def test_the_directory_of_a_living_job_is_left_alone_by_workers_that_do_not_see_its_own(tmp_path: Path) -> None:
    async with (
        open_server() as server,
        run_worker(tmp_path, "-r", server.address) as worker,
        server.accept() as connection,
    ):
        await connection.hand_out(b"echo begun; exec sleep 1000")
        assert await connection.read_line() == b"begun"
        (directory,) = (tmp_path / "work").iterdir()
        elsewhere = directory.with_name(f"{GONE}{uuid4()}")  # as it looks from another container
        directory.rename(elsewhere)
        assert await job_directory.clean_up(tmp_path / "work") == ()
        assert elsewhere.is_dir()
        worker.process.kill()
        await worker.wait()
    assert await job_directory.clean_up(tmp_path / "work") == (f"removed the work directory {elsewhere}",)


def test_a_process_that_is_not_seen_from_here_is_not_taken_for_one_of_this_worker_s(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").write_text("0\n17\n0\n")
    assert Group(hierarchies=(), directories=(tmp_path,), limits=Limits()).processes() == {17}


@pytest.mark.long
def test_a_wide_tree_takes_not_much_longer_to_remove_than_to_make() -> None:
    with reachable_directory() as place:  # on a disk: file systems in memory do not mind
        tree = place / "tree"
        begin = _system_time()
        tree.mkdir()
        for number in range(15_000):
            (tree / f"directory-{number}").mkdir()
        made = _system_time()
        remove_tree(tree)
        assert _system_time() - made < 4 * (made - begin)


def _system_time() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_stime


@pytest.mark.parametrize("held", [1, 2, 1000])
def test_a_tree_of_any_shape_is_removed(held: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("builder_worker.trees.MAX_HELD", held)
    tree = tmp_path / "tree"
    for path in ("a/b/c/d", "a/b2", "a/b3/c", "e", "f/g", "f/h/i", "f/h/j", "k"):
        (tree / path).mkdir(parents=True)
        (tree / path / "file").touch()
        (tree / path / ".." / "beside").touch()
    remove_tree(tree)
    assert not tree.exists()


async def test_a_job_that_opens_files_without_end_does_not_hold_up_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "MAX_DESCRIPTORS", 1000)
    looked_at = []

    def processes() -> Iterator[int]:
        for _ in range(2000):
            looked_at.append(threading.current_thread())
            yield os.getpid()

    await disk.measure(tmp_path, processes())
    assert len(looked_at) <= 1000
    assert threading.main_thread() not in looked_at


SOCKETS = b"""
ulimit -n 4000
exec perl -e '
use Socket; my ($found, @kept) = (0);
for (1 .. 1000) {
    socket(my $in, PF_INET, SOCK_DGRAM, 0) or die; bind($in, sockaddr_in(0, INADDR_LOOPBACK)); push @kept, $in;
    socket(my $out, PF_INET, SOCK_DGRAM, 0);
    send($out, q(x) x 60000, 0, getsockname($in)) for 1 .. 4;
}
for my $in (@kept) { my $data; $found += length($data) while defined(recv($in, $data, 65536, MSG_DONTWAIT)) }
print $found >> 20;'
"""
"""A job that leaves in the buffers of sockets what it can, and prints how many MiB it finds there."""


async def test_what_waits_in_sockets_is_limited_as_memory(tmp_path: Path) -> None:
    need("none", "memory")
    finished = await run_script(tmp_path, SOCKETS, "--memory=64M")
    assert int(finished.own_lines[0]) <= 64


async def test_a_worker_that_stood_still_does_not_take_its_own_silence_for_the_job_s(tmp_path: Path) -> None:
    freezes = 8  # each would be taken for the job's with a chance of one half

    async def freeze(*_: object) -> None:
        """As SIGSTOP does: the time passes, and the output waits in the pipe."""
        nonlocal freezes
        if freezes:
            freezes -= 1
            nursery.start_soon(stand_still)

    async def stand_still() -> None:
        time.sleep(0.3)  # noqa: ASYNC251 - nothing else may run

    script = b"for i in $(seq 60); do echo $i; sleep 0.05; done"
    limits = Limits(max_silent=0.2)
    task = Task(uuid=uuid4(), name="job", platform="p1", script=script, environment=ENVIRONMENT, limits=limits)
    with trio.fail_after(DEADLINE):
        async with (
            trio.open_nursery() as nursery,
            await NoSandbox(options=Options(work_root=tmp_path / "work")).open(task) as sandbox,
        ):
            result = await job.run_job(sandbox, send_lines=freeze)
    assert result == Exited(code=0)
    assert not freezes


CLOSED = """
mkdir closed
for name in 1 2 3; do head -c 3000000 /dev/zero >closed/$name; done
chmod 0 closed
sleep 5
"""
"""A job that writes more than it may where nobody may look."""


def test_a_directory_that_is_closed_to_all_takes_room_too() -> None:
    with sandbox_runs.driver("bubblewrap", "user") as worker:
        outcome = worker.run(CLOSED, limits={"work_size": 4 * sandbox_runs.MIB})
        assert outcome.exceeded == "work directory full (limit 4 MiB)"
