"""When a worker takes no job for the machine's sake, and when it takes jobs again."""

import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast
from uuid import uuid4

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from worker_program import Server, open_server

from builder.endpoint import Servers
from builder.errors import ConnectionEnded, InvalidOptions
from builder.extension.working import SECRET_SIZE, Alive, AskJob, GiveJob, GiveUp, Gone, Return
from builder.messages import GIB
from builder.model import ScriptJob
from builder_worker import guard
from builder_worker.build import Setup
from builder_worker.drain import Drain
from builder_worker.guard import LOOK_INTERVAL, Guard
from builder_worker.pressure import MAX_PRESSURE, SETTLING, Pressure, Reading, Thresholds, stalled
from builder_worker.session import WorkerSettings, work_next
from builder_worker.spares import Spares
from builder_worker.uplink import Uplink

MIB = 1024**2


def disk(free: int, size: int = 100 * GIB) -> Reading:
    return Reading(disk_free=free, disk_size=size)


def memory(available: int, size: int = 64 * GIB) -> Reading:
    return Reading(memory_available=available, memory_size=size)


def under(**percent: float) -> Reading:
    return Reading(pressure=percent)


def looks(readings: Iterable[Reading], thresholds: Thresholds | None = None) -> list[bool]:
    """Return whether something is short after each reading, of a worker that has no job."""
    pressure = Pressure(thresholds or Thresholds())
    return [bool(pressure.look(each, 5.0 * number, is_working=False)) for number, each in enumerate(readings)]


@pytest.mark.parametrize(
    ("readings", "short"),
    [
        ([disk(GIB), disk(GIB - 1), disk(GIB), disk(GIB * 5 // 4), disk(GIB * 4 // 3 + 1)], [0, 1, 1, 1, 0]),
        ([disk(100 * MIB, GIB), disk(110 * MIB, GIB)], [1, 1]),
        ([disk(110 * MIB, GIB)], [0]),
        ([memory(512 * MIB), memory(511 * MIB), memory(600 * MIB), memory(700 * MIB)], [0, 1, 1, 0]),
        ([memory(100 * MIB, GIB)], [0]),
        ([under(memory=19), under(memory=20), under(memory=15), under(memory=14.9)], [0, 1, 1, 0]),
        ([under(io=89), under(io=90), under(io=70), under(io=67)], [0, 1, 1, 0]),
        ([under(cpu=100)], [0]),  # make -j of another worker
        ([under(load=15.9), under(load=16)], [0, 1]),
        ([Reading()], [0]),
    ],
)
def test_what_is_short_and_from_when_on_it_is_not(readings: list[Reading], short: list[int]) -> None:
    assert looks(readings) == [*map(bool, short)]


def test_what_the_operator_says() -> None:
    limits = Thresholds(min_free=10 * GIB).with_pressure("cpu=50").with_pressure("io=none")
    assert looks([disk(9 * GIB)], limits) == [True]
    assert looks([under(cpu=51)], limits) == [True]
    assert looks([under(io=100)], limits) == [False]
    for wrong in ("io", "io=", "io=0", "io=-1", "swap=3", "load=1e9", ""):
        with pytest.raises(InvalidOptions, match="write memory=PERCENT"):
            Thresholds().with_pressure(wrong)


def test_what_its_own_jobs_do_is_no_reason() -> None:
    """They are there to use the machine; for a minute after them the means still tell of them."""
    pressure = Pressure(Thresholds().with_pressure("cpu=90"))
    own = under(io=99, cpu=100)
    assert pressure.look(own, 0, is_working=True) == ""
    assert pressure.look(own, SETTLING - 1, is_working=False) == ""
    assert pressure.look(own, SETTLING, is_working=False) == (
        "stalled for the disk 99 % (--max-pressure io=90), short of CPUs 100 % (--max-pressure cpu=90)"
    )
    assert pressure.look(own, SETTLING + 5, is_working=True) != ""  # it began with others' work, and goes on
    assert pressure.look(under(io=10, cpu=10), SETTLING + 10, is_working=True) == ""
    assert pressure.look(own, SETTLING + 15, is_working=True) == ""


@pytest.mark.parametrize("reading", [disk(1), memory(1), under(memory=50)])
def test_what_is_used_up_counts_whoever_has_done_that(reading: Reading) -> None:
    assert Pressure(Thresholds()).look(reading, 0, is_working=True)


@given(st.lists(st.floats(0, 100), max_size=30))
def test_a_busy_build_host_takes_jobs(cpu: list[float]) -> None:
    """CPUs that are wanted by all, disks that are busy for half of the time, and memory to spare."""
    readings = (
        Reading(disk_free=50 * GIB, disk_size=100 * GIB, pressure={"cpu": each, "io": each / 2}) for each in cpu
    )
    assert not any(looks(readings))


def test_what_the_kernel_tells() -> None:
    told = "some avg10=5.74 avg60=3.37 avg300=3.10 total=1\nfull avg10=0.00 avg60=1.25 avg300=0.05 total=6\n"
    assert (stalled("cpu", told), stalled("io", told), stalled("memory", told)) == (3.37, 1.25, 1.25)
    assert stalled("io", "some avg10=0.00 avg60=1.00\n") is None
    assert stalled("io", "") is None


def test_what_this_machine_tells(tmp_path: Path) -> None:
    found = guard.read(tmp_path / "not" / "there")
    assert found.disk_free is not None
    assert 0 < found.disk_free < found.disk_size
    assert found.memory_available is not None
    assert 0 < found.memory_available <= found.memory_size
    assert found.pressure.keys() <= MAX_PRESSURE.keys()


async def test_it_says_once_when_it_begins_and_when_it_ends(
    caplog: pytest.LogCaptureFixture, autojump_clock: trio.testing.MockClock
) -> None:
    caplog.set_level(logging.INFO)
    readings = iter([disk(GIB), disk(0), disk(0), disk(0), disk(2 * GIB), disk(2 * GIB)])
    watching = Guard(Pressure(Thresholds()), lambda: next(readings))
    drain = Drain()
    await watching.look(drain)
    assert watching.reason == ""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watching.run, drain)
        began = watching.changed.next
        await began.wait()
        assert trio.current_time() == LOOK_INTERVAL
        assert watching.reason == "less than 1 GiB free on the disk (--min-free)"
        await watching.wait_relieved()
        assert trio.current_time() == 4 * LOOK_INTERVAL
        nursery.cancel_scope.cancel()
    assert [record.getMessage() for record in caplog.records] == [
        "takes no job: less than 1 GiB free on the disk (--min-free)",
        "takes jobs again",
    ]


class NoSpares:
    """What is ready for the next job: nothing."""

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        yield


def told(asked: AskJob | Return) -> dict[str, str]:
    assert isinstance(asked, AskJob)
    return {fact.name: fact.value for fact in asked.facts}


async def test_a_job_that_comes_too_late_goes_back_and_the_server_is_told_why() -> None:
    watching = Guard(Pressure(Thresholds()), Reading)

    async def work(server: Server) -> None:
        settings = WorkerSettings(
            servers=Servers.of(server.address, {}), platform="p1", setup=cast("Setup", None), name="w", guard=watching
        )
        async with Uplink(settings.servers) as uplink:
            for _ in range(2):
                await work_next(settings, Drain(), uplink, cast("Spares", NoSpares()))

    async with open_server() as server, trio.open_nursery() as nursery:
        nursery.start_soon(work, server)
        async with server.accept_ours() as connection:
            assert "pressure" not in told(await connection.hear())
            watching.reason = "no room"
            uuid = uuid4()
            job = ScriptJob(name="job", platform="p1", script=b"")
            await connection.channel.send(GiveJob(uuid=uuid, job=job, secret=bytes(SECRET_SIZE)))
            assert await connection.channel.receive() == GiveUp(uuid=uuid, reason="no room")
            await connection.channel.send(Gone(uuid=uuid, reason="given up"))
        async with server.accept_ours() as connection:
            assert told(await connection.hear())["pressure"] == "no room"
            for reason in ("", "no memory"):
                watching.reason = reason
                watching.changed.announce()
                said = await connection.channel.receive()
                assert isinstance(said, Alive)
                assert {fact.name: fact.value for fact in said.facts}["pressure"] == reason
        nursery.cancel_scope.cancel()


async def test_a_classic_server_is_asked_for_nothing_meanwhile() -> None:
    watching = Guard(Pressure(Thresholds()), Reading, reason="no room")

    async def work(server: Server) -> None:
        settings = WorkerSettings(
            servers=Servers.of(server.address, {}), platform="p1", setup=cast("Setup", None), name="w", guard=watching
        )
        async with Uplink(settings.servers) as uplink:
            await work_next(settings, Drain(), uplink, cast("Spares", NoSpares()))

    async with open_server() as server, trio.open_nursery() as nursery:
        nursery.start_soon(work, server)
        async with server.accept() as connection:
            with pytest.raises((ConnectionEnded, trio.BrokenResourceError)):
                await connection.greet()
        watching.reason = ""
        watching.changed.announce()
        async with server.accept() as connection:
            await connection.greet()
            assert connection.platform == "p1"
        nursery.cancel_scope.cancel()
