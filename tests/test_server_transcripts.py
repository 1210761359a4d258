"""builder-server in the place of the original's: the recorded exchanges, played against it frame by frame.

The client's frames are sent as they were recorded; what the server answers must be the recorded bytes, apart from the
uuids that it made up, times, and the differences that are named here.
"""

from pathlib import Path
from uuid import UUID

import pytest
import trio
import vectors
from attrs import define, evolve, field
from farm import DEADLINE, LocalServer, run_server
from scripted import OURS, ScriptedPeer, build, connect, do, info, script

from builder import codec
from builder.extension.schedule import PlanJob
from builder.messages import Execute, InfoReply, JobSchedule, Message, Output, Success
from builder.model import Exited, Instant, OrbBuildJob, Period
from builder.planning import Cron, JobOptions, JobReference, Missed

RECORDED = vectors.transcripts()

ORDER_OF_SCHEDULE = "the original tells its schedule in the order of its heap; ours is the next run first"
DIFFERENCES = {
    ("info-2", 0): ORDER_OF_SCHEDULE,
    ("info-running", 0): ORDER_OF_SCHEDULE,
    ("observe-latest", 0): ORDER_OF_SCHEDULE,
}
"""The replies that are not the recorded bytes, each with its reason; times and uuids are not listed."""


@define
class Replay:
    """One server against all exchanges, in the order in which they were recorded."""

    server: LocalServer
    uuids: dict[UUID, UUID] = field(factory=dict)  # recorded: made up by our server
    different: set[tuple[str, int]] = field(factory=set)

    def translated(self, data: bytes) -> bytes:
        for recorded, ours in self.uuids.items():
            data = data.replace(recorded.bytes, ours.bytes)
        return data

    def note_uuid(self, recorded: Message, ours: Message) -> None:
        if isinstance(recorded, JobSchedule) and isinstance(ours, JobSchedule):
            self.uuids.setdefault(recorded.uuid, ours.uuid)

    async def frames(self, key: tuple[str, int], peer: ScriptedPeer, frames: list[tuple[str, bytes]]) -> None:
        for direction, data in frames:
            if direction == "c2s":
                await peer.send_raw(self.translated(data))
                continue
            received = await read_frame(peer.stream)
            recorded, ours = codec.decode(data[8:]), without_new(codec.decode(received[8:]))
            self.note_uuid(recorded, ours)
            expected = codec.decode(self.translated(data)[8:])
            if key in DIFFERENCES and without_times(expected) != without_times(ours):
                self.different.add(key)
                expected, ours = without_order(expected), without_order(ours)
            assert codec.encode(without_times(ours)) == codec.encode(without_times(expected)), key


async def read_frame(stream: trio.SocketStream) -> bytes:
    with trio.fail_after(DEADLINE):
        data = b""
        while len(data) < 8 or len(data) < 8 + int.from_bytes(data[:8], "big"):
            wanted = 8 if len(data) < 8 else 8 + int.from_bytes(data[:8], "big")
            piece = await stream.receive_some(wanted - len(data))
            assert piece, "the server closed"
            data += piece
        return data


def without_times(message: Message) -> Message:
    """Return a message with every time that depends on when it was sent replaced."""
    match message:
        case InfoReply():
            return evolve(
                message,
                schedule=tuple(
                    item if item.next.ms > 2_000_000_000_000 else evolve(item, next=Instant(0))
                    for item in message.schedule
                ),
                running=tuple(evolve(build, started=Instant(0)) for build in message.running),
            )
        case Output(timestamp=int()):
            return evolve(message, timestamp=0)
    return message


def without_order(message: Message) -> Message:
    if isinstance(message, InfoReply):
        by_name = sorted(message.schedule, key=lambda item: item.job.name)
        return without_times(evolve(message, schedule=tuple(by_name)))
    return message


NEW = (
    PlanJob(
        job=script("new-cron", "p9"),
        options=JobOptions(
            cron=Cron(rule="17 3 * * mon-fri", zone="Europe/Copenhagen"),
            missed=Missed.SKIP,
            priority=9,
            retries=3,
            time_limit=3_600_000,
            max_silent=600_000,
        ),
        run_now=True,
    ),
    PlanJob(job=script("new-spread", "p9"), options=JobOptions(period=Period.WEEKLY, spread=True), run_now=True),
    PlanJob(
        job=script("new-after", "p9"),
        options=JobOptions(
            period=Period.NEVER,
            after=(JobReference(name="new-cron"), JobReference(name="new-spread", platform="p9")),
        ),
        run_now=False,
    ),
    PlanJob(
        job=OrbBuildJob(name="new-orb", opam_package="new"),
        options=JobOptions(cron=Cron(rule="H/15 * * * *"), paused=True),
        run_now=False,
    ),
)
"""Jobs that have all that the original does not know. The recorded peers do not touch them."""


def without_new(message: Message) -> Message:
    """Return a message without the new jobs, and without the platform that only they have."""
    if isinstance(message, InfoReply):
        return evolve(
            message,
            schedule=tuple(item for item in message.schedule if not item.job.name.startswith("new-")),
            queues=tuple(
                evolve(queue, jobs=tuple(job for job in queue.jobs if not job.name.startswith("new-")))
                for queue in message.queues
                if queue.platform != "p9"
            ),
        )
    return message


async def play(replay: Replay, *sessions: str) -> None:
    for key, frames in RECORDED.items():
        if key[0] in sessions:
            async with connect(replay.server) as peer:
                await replay.frames(key, peer, frames)
                assert await peer.wait_closed() == b""


@pytest.mark.parametrize("new", [(), NEW], ids=["alone", "beside what is new"])
async def test_all_recorded_exchanges(tmp_path: Path, new: tuple[PlanJob, ...]) -> None:
    async with run_server(tmp_path) as server:
        async with connect(server, OURS) as ours:
            for request in new:
                assert await ours.request(request) == [Success()]
        replay = Replay(server)
        template = server.config_dir / "orb-build.template.p1"
        template.write_bytes(b"#!/bin/sh\necho %%OPAM_PACKAGE%% on %%PLATFORM%%\n")
        played = ["info-empty", "schedule", "schedule-dup", "orb-build", "info-2", "execute-platform"]
        await play(replay, *played)

        # the worker ran while a client asked, observed, and stayed until its end
        worker_frames = RECORDED["worker", 0]
        begin = next(i for i, (_, data) in enumerate(worker_frames) if isinstance(codec.decode(data[8:]), JobSchedule))
        async with connect(server) as worker:
            await replay.frames(("worker", 0), worker, worker_frames[: begin + 1])
            await play(replay, "info-running")
            observed = RECORDED["observe-latest", 1]
            asked = next(i for i, (direction, _) in enumerate(observed) if direction == "s2c") + 2
            async with connect(server) as client:
                await replay.frames(("observe-latest", 0), client, RECORDED["observe-latest", 0])
            async with connect(server) as observer:
                await replay.frames(("observe-latest", 1), observer, observed[:asked])
                await replay.frames(("worker", 0), worker, worker_frames[begin + 1 :])
                assert await worker.wait_closed() == b""
                await replay.frames(("observe-latest", 1), observer, observed[asked:])
                assert await observer.wait_closed() == b""
        await play(replay, "worker-orb")
        rest = ["reschedule", "execute", "unschedule", "unschedule-unknown", "drop", "info-dropped", "undrop"]
        await play(replay, *rest, "observe-unknown")

        everything = {*played, "worker", "info-running", "observe-latest", "worker-orb", *rest, "observe-unknown"}
        assert everything == {session for session, _ in RECORDED}
        assert replay.different == set(DIFFERENCES)
        assert [replay.uuids[uuid] for uuid in replay.uuids] == [
            UUID(row[0]) for row in server.query("select uuid from build order by started, name")
        ]


async def test_classic_peers_of_a_schedule_that_uses_all_that_is_new(tmp_path: Path) -> None:
    """What they see is its nearest classic form, and a classic worker runs it."""
    async with run_server(tmp_path) as server:
        async with connect(server, OURS) as ours:
            for request in NEW:
                assert await ours.request(request) == [Success()]
        seen = await info(server)
        assert {item.job.name: item.period for item in seen.schedule} == {
            "new-cron": Period.DAILY,
            "new-spread": Period.WEEKLY,
            "new-after": Period.NEVER,
            "new-orb": Period.HOURLY,
        }
        assert [[job.name for job in queue.jobs] for queue in seen.queues] == [["new-cron", "new-spread"]]
        ran = [await build(server, "p9") for _ in range(3)]
        assert [job.name for _, job in ran] == ["new-cron", "new-spread", "new-after"]
        await do(server, Execute(name="new-cron"))
        failed, _ = await build(server, "p9", result=Exited(code=1))
        assert server.query(f"select outcome from build where uuid = '{failed}'") == [("failed",)]
        assert [[job.name for job in queue.jobs] for queue in (await info(server)).queues] == [["new-cron"]]


@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_frames_in_pieces_of_any_size(tmp_path: Path, size: int) -> None:
    async with run_server(tmp_path) as server:
        for session in ("schedule", "info-2"):
            async with connect(server) as peer:
                sent = b"".join(data for direction, data in RECORDED[session, 0] if direction == "c2s")
                for start in range(0, len(sent), size):
                    await peer.send_raw(sent[start : start + size])
                kinds = [type(codec.decode((await read_frame(peer.stream))[8:])).__name__]
                rest = await peer.wait_closed()
                while rest:
                    end = 8 + int.from_bytes(rest[:8], "big")
                    kinds.append(type(codec.decode(rest[8:end])).__name__)
                    rest = rest[end:]
                recorded = [data for direction, data in RECORDED[session, 0] if direction == "s2c"]
                assert kinds == [type(codec.decode(data[8:])).__name__ for data in recorded]


async def test_the_record_is_what_the_original_would_have_written(tmp_path: Path) -> None:
    """The worker's own bytes of the artifacts stand in ``full`` as they came."""
    finished = RECORDED["worker", 0][-1][1]
    async with run_server(tmp_path) as server:
        replay = Replay(server)
        await play(replay, "schedule", "execute-platform", "worker")
        uuid = next(iter(replay.uuids.values()))
        data = server.full("hello", uuid).read_bytes()
        sequence = codec.encode(codec.decode(finished[8:]))
        artifacts = sequence[sequence.index(b"README") - 6 :]
        assert data.endswith(artifacts)
        assert [line.line for line in server.execution("hello", uuid).console] == [b"one", b"\xff\xfe"]
