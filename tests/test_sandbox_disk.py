"""The disk that all jobs of a worker share: how much of it is used, and who is ended when it is almost full."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import trio
import trio.testing
from farm import eventually
from sandbox_runs import MIB
from worker_program import DEADLINE, run_script
from worker_sandboxes import need, reachable_directory

from builder.model import Aborted
from builder_worker.sandbox import Limits, SandboxError, Task, disk, job_directory, registry
from builder_worker.sandbox.freebsd.clone import Clone
from builder_worker.sandbox.job_directory import JobDirectory
from builder_worker.sandbox.options import Options


async def test_files_count_with_those_that_are_deleted_and_open(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "kept").write_bytes(bytes(MIB))
    before = await disk.measure(tmp_path, ())
    assert MIB <= before < MIB + 100_000
    with tempfile.TemporaryFile(dir=tmp_path) as one:
        one.write(bytes(3 * MIB))
        one.flush()
        assert await disk.measure(tmp_path, ()) - before < 100_000
        found = await disk.measure(tmp_path, [os.getpid(), os.getpid(), 2**22 + 1])
        assert 3 * MIB <= found - before < 3 * MIB + 100_000


@pytest.mark.parametrize(
    ("space", "expected"),
    [((10, 9, 0, 0), False), ((8, 9, 0, 0), True), ((10, 9, 5, 6), True), ((10, 9, 6, 6), False)],
)
def test_a_disk_is_low_when_bytes_or_files_are(space: tuple[int, int, int, int], expected: bool) -> None:  # noqa: FBT001 - by pytest
    free, reserve, files_free, files_reserve = space
    found = disk.Space(free=free, reserve=reserve, files_free=files_free, files_reserve=files_reserve)
    assert found.is_low == expected


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A place whose directory "work" is a disk of 20 MiB and 2000 files."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    with reachable_directory() as place:
        (place / "work").mkdir()
        options = f"mode=0711,size={20 * MIB},nr_inodes=2000"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", place / "work"], check=True)
        try:
            yield place
        finally:
            subprocess.run(["umount", place / "work"], check=True)


@pytest.mark.parametrize("sandbox", ["bubblewrap", "none"])
async def test_who_takes_the_last_of_it_is_ended(small_disk: Path, sandbox: str) -> None:
    need(sandbox)
    script = b"head -c 20500000 /dev/zero >f; head -c 5000000 /dev/zero >g; sleep 1000"
    result = (await run_script(small_disk, script, f"--sandbox={sandbox}")).result
    assert isinstance(result, Aborted)
    assert result.message.startswith("it filled the worker's disk (")


@pytest.mark.parametrize("sandbox", ["bubblewrap", "none"])
async def test_who_leaves_no_room_and_ends_is_delivered(small_disk: Path, sandbox: str) -> None:
    """There is some that is kept for what is said last."""
    need(sandbox)
    script = b"echo begun; head -c 30000000 /dev/zero >f; echo done; exit 0"
    finished = await run_script(small_disk, script, f"--sandbox={sandbox}")
    assert finished.own_lines[:1] == [b"begun"]
    assert finished.result is not None


LOUD = b'exec yes "$(head -c 10000 /dev/zero | tr "\\0" x)"'


@pytest.mark.parametrize("sandbox", ["bubblewrap", "none"])
async def test_who_takes_the_last_of_it_by_its_output_is_ended(small_disk: Path, sandbox: str) -> None:
    need(sandbox)
    finished = await run_script(small_disk, LOUD, f"--sandbox={sandbox}")
    assert finished.result == Aborted(message="its output filled the worker's disk")
    assert sum(map(len, finished.own_lines)) < 20 * MIB - disk.Space.of(small_disk / "work").reserve


async def test_what_is_said_last_waits_for_room(small_disk: Path, tmp_path: Path) -> None:
    """The job has ended by then; nothing of it is thrown away."""
    go, done, filler = tmp_path / "go", tmp_path / "done", small_disk / "work" / "filler"
    script = f"#!/bin/sh\nuntil [ -e {go} ]; do sleep 0.01; done\nhead -c 20000 /dev/zero\ntouch {done}\n"
    backend = registry.make("none", Options(work_root=small_disk / "work"))
    task = Task(uuid=uuid4(), name="j", platform="p", script=script.encode(), limits=Limits())
    with trio.fail_after(DEADLINE):
        async with await backend.open(task) as sandbox:
            sandbox.start()
            with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            go.touch()
            await eventually(done.exists)
            assert (sandbox.place / "console").stat().st_size < 20000
            with trio.move_on_after(0.5):  # it would be over by now
                await sandbox.wait()
                raise AssertionError("it was thrown away")
            filler.unlink()
            assert (await sandbox.wait()).code == 0
            assert sandbox.exceeded() is None
            assert (sandbox.place / "console").stat().st_size == 20000


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_directory, "MEASURE_INTERVAL", 0.01)
    monkeypatch.setattr(job_directory, "LOW_TIMEOUT", 0.1)


@pytest.mark.usefixtures("hurried")
async def test_who_has_written_little_is_ended_if_it_stays_full(small_disk: Path) -> None:
    directory = await JobDirectory.make(small_disk / "work", "x", size=None, owner=None)
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(directory.wait_full, list)
            await trio.testing.wait_all_tasks_blocked()
            for number in range(1975):
                (directory.build / str(number)).touch()
    assert directory.is_over
    assert str(directory.exceeded()).startswith("the worker's disk stayed full (")
    await directory.remove()


@pytest.mark.usefixtures("hurried")
async def test_who_found_it_full_is_not_ended_for_it(small_disk: Path) -> None:
    (small_disk / "work" / "others").write_bytes(bytes(20 * MIB - 100_000))
    directory = await JobDirectory.make(small_disk / "work", "x", size=None, owner=None)
    with trio.move_on_after(1):
        await directory.wait_full(list)
    assert directory.exceeded() is None
    await directory.remove()


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    ("used", "expected"),
    [
        ("100000", "the worker's disk stayed full ("),  # by others: all jobs end, after some time
        ("15000000", "it filled the worker's disk ("),
        (None, "the job's directory can't be looked at any more: zfs failed"),
    ],
)
async def test_the_system_in_a_jail_is_not_what_its_job_has_written(
    small_disk: Path, used: str | None, expected: str
) -> None:
    async def run(*command: str) -> bytes:
        if "used" not in command:
            return b""
        if used is None:
            raise SandboxError("zfs failed")
        return used.encode()

    clone = Clone(path=small_disk / "work/x", size=None, owner=None, dataset="a/x", snapshot="a/b@c", run=run)
    clone.disk.mkdir(parents=True)
    (clone.disk / "system").write_bytes(bytes(10 * MIB))
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clone.wait_full, list)
            await trio.testing.wait_all_tasks_blocked()
            (small_disk / "work/others").write_bytes(bytes(10 * MIB - 100_000))
    assert str(clone.exceeded()).startswith(expected)
