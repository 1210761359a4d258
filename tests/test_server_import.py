"""builder-server: what the original has left, its state file and records of builds, taken over once."""

import json
import subprocess
from pathlib import Path
from typing import Any
from uuid import UUID

import forked
import pytest
import vectors
from attrs import evolve
from endpoints import serving
from farm import (
    DEADLINE,
    Server,
    environment,
    eventually,
    launch_server,
    run_client,
    run_server,
    running_server,
    start_server,
)
from scripted import do, info, queues, schedule

from builder import codec, execution
from builder.messages import DropPlatform, InfoReply
from builder.model import (
    Artifact,
    ConsoleLine,
    DroppedPlatform,
    Execution,
    Exited,
    Instant,
    OrbBuildJob,
    Period,
    Queue,
    ScheduleItem,
    ScriptJob,
    StateItem,
    text,
)
from builder_server.importer import ImportFailed

NOW = Instant(1_795_194_796_123)
LATER = Instant(4_102_444_800_000)
BEFORE_ALL = Instant(-62_167_219_200_000)  # nothing is due
HELLO = ScriptJob(name="hello", platform="p1", script=b"#!/bin/sh\n\xff\0")
ORB = OrbBuildJob(name="orb", opam_package="retreat")
STATE = (
    ScheduleItem(next=LATER, period=Period.DAILY, job=HELLO),
    ScheduleItem(next=Instant(LATER.ms + 1), period=Period.WEEKLY, job=ORB),
    Queue(platform="p1", jobs=(ORB, HELLO)),
    Queue(platform="p2", jobs=(ORB,)),
    Queue(platform="p0", jobs=()),
    DroppedPlatform(platform="gone"),
)


def put_state(root: Path, data: bytes) -> Path:
    directory = root / "data"
    directory.mkdir(exist_ok=True)
    (directory / "state").write_bytes(data)
    return directory


async def imported(root: Path, *items: StateItem) -> InfoReply:
    put_state(root, codec.encode_state(items))
    async with run_server(root, now=lambda: NOW) as server:
        return await info(server)


async def test_everything_is_taken_over(tmp_path: Path) -> None:
    found = await imported(tmp_path, *STATE)
    assert found.schedule == STATE[:2]
    assert found.queues == (
        Queue(platform="p0", jobs=()),
        Queue(platform="p1", jobs=(ORB, HELLO)),
        Queue(platform="p2", jobs=(ORB,)),
    )
    assert found.running == ()
    assert found.dropped_platforms == ("gone",)


async def test_the_file_is_kept_under_another_name_and_not_read_again(tmp_path: Path) -> None:
    directory = put_state(tmp_path, codec.encode_state(STATE))
    async with run_server(tmp_path) as server:
        await do(server, DropPlatform(platform="p1"))
    assert not (directory / "state").exists()
    assert (directory / "state.imported").read_bytes() == codec.encode_state(STATE)
    put_state(tmp_path, codec.encode_state(STATE))
    async with start_server(tmp_path) as server:
        await server.wait_for_log("is ignored: there is a database already; move it away")
        assert await queues(server) == {"p0": [], "p2": ["orb"]}
        assert (directory / "state").exists()


@pytest.mark.parametrize("vector", vectors.load("state"), ids=lambda vector: vector.name)
async def test_recorded_files(tmp_path: Path, vector: vectors.Vector) -> None:
    directory = put_state(tmp_path, vector.data)
    items = vectors.state(vector.fields["value"])
    async with run_server(tmp_path, now=lambda: BEFORE_ALL) as server:
        found = await info(server)
    assert (directory / "state.imported").read_bytes() == vector.data
    scheduled = {item.job.name: item for item in reversed(items) if isinstance(item, ScheduleItem)}
    expected = {name: item for name, item in scheduled.items() if valid(name) and valid(platform_of(item))}
    assert {item.job.name: item for item in found.schedule} == expected
    assert set(found.dropped_platforms) == {
        item.platform for item in items if isinstance(item, DroppedPlatform) and valid(item.platform)
    }
    for queue in items:
        if isinstance(queue, Queue) and valid(queue.platform):
            waiting = [job.name for job in queue.jobs if job.name in expected]
            assert [[job.name for job in other.jobs] for other in found.queues if other.platform == queue.platform] == [
                waiting
            ]


def platform_of(item: ScheduleItem) -> str:
    return item.job.platform if isinstance(item.job, ScriptJob) else "any"


def valid(name: str) -> bool:
    """Whether a name of the recordings may be one: a second, shorter statement of the rule."""
    return 0 < len(name) <= 128 and name.isprintable() and "/" not in name and name not in ("state", "lock", ".", "..")


@pytest.mark.parametrize("vector", vectors.load("state-decode"), ids=lambda vector: vector.name)
async def test_what_the_original_refuses_does_not_start(tmp_path: Path, vector: vectors.Vector) -> None:
    directory = put_state(tmp_path, vector.data)
    try:
        async with run_server(tmp_path):
            pass
    except* ImportFailed:
        assert not vector.accepted
        assert (directory / "state").read_bytes() == vector.data
    else:
        assert vector.accepted
        assert (directory / "state.imported").exists()


async def test_names_that_must_not_be_used_are_left_out(tmp_path: Path) -> None:
    bad = ("..", "a/b", "", "state", "x\n", text(b"\xff"))
    jobs = tuple(ScriptJob(name=name, platform="p1", script=b"") for name in bad)
    put_state(
        tmp_path,
        codec.encode_state(
            (
                *(ScheduleItem(next=LATER, period=Period.DAILY, job=job) for job in jobs),
                *(
                    ScheduleItem(next=LATER, period=Period.DAILY, job=ScriptJob(name="x", platform=name, script=b""))
                    for name in bad
                ),
                ScheduleItem(next=LATER, period=Period.DAILY, job=OrbBuildJob(name="x", opam_package="a/b")),
                ScheduleItem(next=LATER, period=Period.DAILY, job=HELLO),
                *(Queue(platform=name, jobs=(HELLO,)) for name in bad),
                *(DroppedPlatform(platform=name) for name in bad),
                Queue(platform="p1", jobs=(*jobs, HELLO, OrbBuildJob(name="not scheduled", opam_package="x"))),
            )
        ),
    )
    async with start_server(tmp_path) as server:
        found = await info(server)
        assert [item.job for item in found.schedule] == [HELLO]
        assert found.queues == (Queue(platform="p1", jobs=(HELLO,)),)
        assert found.dropped_platforms == ()
        assert server.log.count("is left out: ") == 4 * len(bad) + 1
        assert "imported 1 jobs" in server.log
        assert len(server.log.splitlines()) == 4 * len(bad) + 2  # no name breaks a line


async def test_a_job_without_its_queue_runs_when_it_is_due(tmp_path: Path) -> None:
    orphan = ScheduleItem(next=Instant(NOW.ms - 1), period=Period.DAILY, job=HELLO)
    other = ScheduleItem(
        next=Instant(NOW.ms - 2), period=Period.DAILY, job=ScriptJob(name="o", platform="p2", script=b"")
    )
    put_state(tmp_path, codec.encode_state((orphan, other, Queue(platform="p2", jobs=()))))
    async with run_server(tmp_path, now=lambda: NOW) as server:
        while (waiting := await queues(server)) != {"p1": ["hello"], "p2": ["o"]}:
            assert set(waiting) <= {"p1", "p2"}


async def test_a_job_of_a_dropped_platform_blocks_nobody(tmp_path: Path) -> None:
    orphan = ScheduleItem(next=Instant(NOW.ms - 1), period=Period.DAILY, job=HELLO)
    other = ScheduleItem(
        next=Instant(NOW.ms - 1), period=Period.DAILY, job=ScriptJob(name="o", platform="p2", script=b"")
    )
    put_state(
        tmp_path, codec.encode_state((orphan, other, DroppedPlatform(platform="p1"), Queue(platform="p2", jobs=())))
    )
    async with run_server(tmp_path, now=lambda: NOW) as server:
        while (await queues(server)) != {"p2": ["o"]}:
            pass
        assert (await info(server)).dropped_platforms == ("p1",)


@pytest.mark.parametrize(
    "data",
    [b"", b"junk", b"0\x80", b"\x30\x84\xff\xff\xff\xff", b"\x30\x04" + b"\x30\x00" * 2, b"0" * 1_000_000],
    ids=lambda data: repr(data[:10]),
)
async def test_a_bad_file_stops_the_start_and_stays(tmp_path: Path, data: bytes) -> None:
    directory = put_state(tmp_path, data)
    with pytest.raises(ExceptionGroup) as caught:
        async with run_server(tmp_path):
            pass
    (error,) = caught.value.exceptions
    assert isinstance(error, ImportFailed)
    assert str(error).startswith(f"can't import {directory}/state: ")
    assert (directory / "state").read_bytes() == data


def test_what_an_operator_reads_of_a_bad_file(tmp_path: Path) -> None:
    directory = put_state(tmp_path, b"junk")
    status, log = ended(launch_server(tmp_path))
    assert status == 6
    assert log.startswith(f"builder-server: can't import {directory}/state: ")
    assert log.endswith("; move it away to start without it\n")
    assert log.count("\n") == 1
    (directory / "state").rename(directory / "elsewhere")
    with running_server(tmp_path):
        pass


def ended(server: Server) -> tuple[int, str]:
    try:
        output, _ = server.process.communicate(timeout=DEADLINE)
    except subprocess.TimeoutExpired:
        server.kill()
        raise
    assert output == b""
    return server.wait(), server.log


async def test_what_is_put_there_later_is_not_imported(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
    put_state(tmp_path, codec.encode_state(STATE))
    async with run_server(tmp_path) as server:
        assert await queues(server) == {"p1": ["a"]}


# --- records of builds ---------------------------------------------------------------------------------------------

STARTED = Instant(1_700_000_000_000)
LINES = tuple(ConsoleLine(delta=number * 1_000_000, line=b"line %d" % number) for number in range(3))
FILES = (Artifact(path="bin/hello", content=b"x" * 300_000), Artifact(path="empty", content=b""))


def record(number: int, job: ScriptJob = HELLO, **changes: Any) -> Execution:
    made = Execution(
        job=job,
        uuid=UUID(int=number),
        console=LINES,
        started=STARTED,
        finished=Instant(STARTED.ms + 5000 + number),
        result=Exited(code=0),
        artifacts=FILES,
    )
    return evolve(made, **changes)


def put_record(directory: Path, made: Execution, *, cut: int | None = None, name: str | None = None) -> Path:
    """Put a record where the original puts it."""
    place = directory / (name or made.job.name) / str(made.uuid)
    place.mkdir(parents=True)
    (place / "full").write_bytes(execution.encode(made)[:cut])
    return place / "full"


def import_left(directory: Path, *arguments: str) -> str:
    command = ["builder_server", f"--dir={directory}", "import", *arguments]
    done = forked.run(*command, env=environment(), timeout=DEADLINE)
    assert done.returncode == 0, done.stderr
    return (done.stdout + done.stderr).decode()


async def test_records_get_into_the_history_and_are_uploaded(tmp_path: Path) -> None:
    directory = put_state(tmp_path, codec.encode_state(STATE))
    made = [record(1), record(2, result=Exited(code=3), console=())]
    put_record(directory, made[0])
    assert import_left(directory) == "imported 1, known already 0, damaged 0\n"
    put_record(directory, made[1])
    with serving() as endpoint:
        uploads = "; known ones that are to be uploaded now: 1"
        assert import_left(directory, "--upload") == f"imported 1, known already 1, damaged 0{uploads}\n"
        assert import_left(directory, "--upload") == "imported 0, known already 2, damaged 0\n"
        async with start_server(tmp_path, f"--upload={endpoint.url()}") as server:
            found = [json.loads(line) for line in run_client(server, "history", "--json").stdout.splitlines()]
            assert [(each["uuid"], each["outcome"], each["cause"], each["artifacts"]) for each in found] == [
                (str(made[1].uuid), "failed", "imported", 2),
                (str(made[0].uuid), "succeeded", "imported", 2),
            ]
            assert [found[1][key] for key in ("started", "took_ms", "artifact_bytes")] == [
                STARTED.isoformat(), 5001, 300_000,
            ]  # fmt: skip
            assert run_client(server, "log", str(made[0].uuid)).stdout.count(b" line ") == 3
            await eventually(lambda: not list(directory.glob("*/*/full")), what="the uploads")
            assert b"hello" in run_client(server, "show", "hello").stdout  # the state was imported as well
        assert {request.execution.uuid: request.execution for request in endpoint.requests} == {
            each.uuid: each for each in made
        }


def test_what_is_no_record_is_left_out(tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    cut = put_record(directory, record(1), cut=-1)
    other = put_record(directory, record(2), name="another")
    wrong = put_record(directory, record(3, job=evolve(HELLO, platform="a/b")))
    linked = put_record(tmp_path / "elsewhere", record(4))
    (directory / "hello" / str(UUID(int=4))).symlink_to(linked.parent)
    (directory / "hello" / "no-uuid").mkdir()
    (directory / "hello" / "no-uuid" / "full").write_bytes(b"")
    said = import_left(directory)
    assert f"{cut} is left out: the value is cut off\n" in said
    assert f"{other} is left out: it is the record of another build\n" in said
    assert f"{wrong} is left out: " in said
    assert "imported 0, known already 0, damaged 3\n" in said
    cut.write_bytes(execution.encode(record(1)))
    assert "imported 1, known already 0, damaged 2\n" in import_left(directory)
    assert sorted(path.name for path in cut.parent.iterdir()) == ["console", "full"]


def test_a_running_server_is_left_alone(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        command = ["builder_server", f"--dir={server.data_dir}", "import"]
        done = forked.run(*command, env=environment(), timeout=DEADLINE)
    assert (done.returncode, done.stderr.count(b"another server uses")) == (3, 1)
