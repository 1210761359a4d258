"""builder-server and builder-worker on real file systems that become full, read-only or broken while builds run.

A disk of a few megabytes is a file system in a file. What that lies on can be full without the file system's knowledge, as
thin volumes and images of virtual machines are: then what is written is lost, and told when it is synced.
"""

import contextlib
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import operators
import pytest
import trio
from attrs import define
from farm import DEADLINE, Reachable, eventually, run_server, running_worker, start_server
from scripted import CLIENT, OUR_WORKER, Given, ask, ask_job, build, connect, do, info, queues, schedule, take_job

from builder.errors import ConnectionEnded
from builder.extension.working import Continue, ResultStored
from builder.messages import MIB, Failure, Observe, Output
from builder.model import Artifact
from builder_server import attempt

SOME = (Artifact(path="a", content=bytes(1_000_000)), Artifact(path="b/c", content=b""))


def run(*command: str | Path) -> str:
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout.strip()


@contextlib.contextmanager
def mounted(*options: str | Path) -> Iterator[None]:
    """Have a file system mounted; the last one of the options is where."""
    operators.need("disks", ["mkfs.ext4", "mount", "findmnt"], root=True)
    done = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if done.returncode:  # root in a container, for example
        give_up = pytest.fail if "disks" in operators.REQUIRED else pytest.skip
        give_up(f"disks: {done.stderr.strip()}")
    try:
        yield
    finally:
        run("umount", "--lazy", options[-1])


@define
class Disk:
    """A file system. After an error it is read-only, or goes on, and then it has no journal: ``errors`` is mount's option."""

    image: Path
    path: Path
    errors: str

    @classmethod
    def make(cls, image: Path, path: Path, *, errors: str) -> "Disk":
        operators.need("disks", ["mkfs.ext4", "mount", "findmnt"], root=True)
        path.mkdir()
        with image.open("wb") as file:
            file.truncate(16 * 2**20)
        features = ["-O", "^has_journal"] if errors == "continue" else []
        run("mkfs.ext4", "-q", "-F", "-m", "0", *features, image)
        return cls(image, path, errors)

    def mounted(self) -> contextlib.AbstractContextManager[None]:
        return mounted("-o", f"loop,errors={self.errors}", self.image, self.path)

    def find_fault(self) -> None:
        """Have the kernel find a fault in it: nothing is written any more."""
        device = Path(run("findmnt", "-no", "SOURCE", self.path)).name
        Path("/sys/fs/ext4", device, "trigger_fs_error").write_text("1")


@contextlib.contextmanager
def shared_by(tmp_path: Path, *, size: str) -> Iterator[Path]:
    """A small disk."""
    path = tmp_path / "shared"
    path.mkdir()
    with mounted("-t", "tmpfs", "-o", f"size={size},mode=700", "builder-test", path):
        yield path


def fill(path: Path) -> None:
    """Take all that is left of a disk."""
    with contextlib.suppress(OSError), (path / "filler").open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def make_room(path: Path) -> None:
    (path / "filler").unlink()


async def deliver(server: Reachable, given: Given, *, lines: int) -> None:
    """Do as a worker that has a result: come back until it is stored."""
    with trio.fail_after(DEADLINE):
        while True:
            with contextlib.suppress(ConnectionEnded, trio.BrokenResourceError):
                async with connect(server, OUR_WORKER) as worker:
                    if isinstance(answer := await given.come_back(worker, has_ended=True), ResultStored):
                        return
                    assert isinstance(answer, Continue)
                    await given.say(worker, answer.lines, lines)
                    await given.finish(worker, artifacts=SOME)
                    return


async def test_a_disk_that_becomes_read_only(tmp_path: Path) -> None:
    """It is so until a person mends it, and starts the server again."""
    disk = Disk.make(tmp_path / "image", tmp_path / "disk", errors="remount-ro")
    with disk.mounted():
        async with start_server(tmp_path, "--min-free=1M", data_dir=disk.path) as server:
            await do(server, schedule("a"), schedule("b", "p2"))
            async with connect(server, OUR_WORKER) as worker, take_job(server, "p2") as classic:
                given = await ask_job(worker)
                await given.say(worker, 0, 10)
                await classic.say(b"one")
                console = disk.path / "a" / str(given.uuid) / "console"
                await eventually(lambda: b"line 9" in console.read_bytes())
                disk.find_fault()
                await given.say(worker, 10, 20)
                await server.wait_for_log("Read-only file system")
                reply = await ask(server, schedule("c"))
                assert isinstance(reply, Failure)
                assert "the database can't be written: " in reply.message
                assert {found.uuid for found in (await info(server)).running} == {given.uuid, classic.uuid}
                async with connect(server, CLIENT) as observer:
                    await observer.send(Observe(uuid=given.uuid))
                    assert [(await observer.receive(Output)).line for _ in range(10)] == [
                        b"line %d" % n for n in range(10)
                    ]
                server.kill()
                assert "Traceback" not in server.log
    with disk.mounted():
        async with start_server(tmp_path, "--min-free=1M", data_dir=disk.path) as server:
            await deliver(server, given, lines=20)
            record = server.execution("a", given.uuid)
            assert [line.line for line in record.console] == [b"line %d" % number for number in range(20)]
            assert record.artifacts == SOME
            assert await queues(server) == {"p1": [], "p2": ["b"]}, "nothing that was refused"
            await build(server, "p2")


async def test_a_disk_that_loses_what_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is acknowledged whose sync has failed; the worker comes again with its result."""
    monkeypatch.setattr(attempt, "RETRY", 0.1)
    with shared_by(tmp_path, size="8m") as below:
        disk = Disk.make(below / "image", tmp_path / "data", errors="continue")
        with disk.mounted():
            async with run_server(tmp_path, min_free=MIB) as server:
                await do(server, schedule("a"))
                async with connect(server, OUR_WORKER) as worker:
                    given = await ask_job(worker)
                    await given.say(worker, 0, 10)
                    fill(below)
                    reply = await ask(server, schedule("b", text=bytes(2_000_000)))
                    assert isinstance(reply, Failure)
                    assert "the database can't be written: " in reply.message
                    await given.send_result(worker, artifacts=SOME)
                    await eventually(lambda: f"build {given.uuid} of a on p1: can't be recorded: " in caplog.text)
                make_room(below)
                await deliver(server, given, lines=10)
                record = server.execution("a", given.uuid)
                assert [line.line for line in record.console] == [b"line %d" % number for number in range(10)]
                assert record.artifacts == SOME
                assert await queues(server) == {"p1": []}, "nothing that was refused"
                assert "Traceback" not in caplog.text


# it says more than the worker keeps room for, and less than a job is ended for
JOB = b"""#!/bin/sh
echo begun
until [ -e %s ]; do sleep 0.01; done
i=0
while [ $i -lt 40000 ]; do i=$((i + 1)); echo "line $i of many"; done
"""


def is_stuck(console: Path) -> bool:
    """Whether a file has all of its last page, and the next one was refused."""
    size = console.stat().st_size
    return size > 0 and size % resource.getpagesize() == 0


async def test_a_worker_without_room_for_what_jobs_say(tmp_path: Path) -> None:
    """It waits until there is room, also when the job has ended meanwhile."""
    go = tmp_path / "go"
    with shared_by(tmp_path, size="64m") as jobs:
        async with start_server(tmp_path) as server:
            await do(server, schedule("a", text=JOB % bytes(go)))
            with running_worker(server, "p1", f"--work-dir={jobs}", "--loop", "--sandbox=none"):
                await eventually(
                    lambda: any(b"begun" in path.read_bytes() for path in server.data_dir.glob("a/*/console"))
                )
                fill(jobs)
                go.touch()
                (place,) = (path.parent for path in jobs.glob("*/attempt"))
                await eventually(lambda: is_stuck(place / "console"))
                make_room(jobs)
                await eventually(lambda: server.query("select outcome from build") == [("succeeded",)])
            ((uuid,),) = server.query("select uuid from build")
            record = server.execution("a", UUID(uuid))
            lines = [line.line for line in record.console if not line.line.startswith(b"builder-worker: ")]
            assert lines == [b"begun", *(b"line %d of many" % number for number in range(1, 40_001))]
