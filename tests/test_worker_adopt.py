"""Jobs that outlive their worker: builder-worker as a process that is killed or left, and the one that comes after it."""

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import sandbox_runs
import trio
import worker_sandboxes
from attrs import define
from worker_program import (
    OurConnection,
    Server,
    Worker,
    end_jobs,
    interrupt,
    open_server,
    run_worker,
    wait_gone,
)

from builder.extension.working import AskJob, Continue, GiveJob, GiveUp, Gone, ResultStored, Return
from builder.framing import StreamedFrame
from builder.model import Exited
from builder_worker.handover import LINES, OUTCOME
from builder_worker.sandbox.job_directory import ATTEMPT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what runs on other systems, the tests of jails show")

WAIT = b"until [ -e go ]; do sleep 0.01; done\n"
COUNT = b"i=0; while [ $i -lt 300 ]; do echo $i; i=$((i+1)); done\n"
NUMBERS = [b"%d" % number for number in range(300)]


@define
class Farm:
    """A server, and one worker after the other in the same place."""

    server: Server
    directory: Path
    arguments: tuple[str, ...]
    sandbox: str

    @asynccontextmanager
    async def worker(self, *arguments: str, platform: str = "p1") -> AsyncIterator[Worker]:
        given = ("-r", self.server.address, *(arguments or self.arguments))
        async with run_worker(
            self.directory, *given, sandbox=self.sandbox, platform=platform, keeps_jobs=True
        ) as worker:
            yield worker

    @property
    def places(self) -> list[Path]:
        """The directories of jobs, in the order in which they were made."""
        found = (self.directory / "work").glob("builder-*")
        return sorted((path for path in found if (path / ATTEMPT).exists()), key=lambda path: path.stat().st_ctime)

    @property
    def place(self) -> Path:
        """The directory of the one job."""
        (place,) = self.places
        return place

    def go(self) -> None:
        """Let the job go on."""
        (self.place / "disk/build/go").touch()


@pytest.fixture(params=["none", "bubblewrap", "overlay"])
async def farm(request: pytest.FixtureRequest) -> AsyncIterator[Farm]:
    async with make_farm(request.param) as made:
        yield made


@pytest.fixture
async def plain() -> AsyncIterator[Farm]:
    async with make_farm("none") as made:
        yield made


@asynccontextmanager
async def make_farm(sandbox: str) -> AsyncIterator[Farm]:
    worker_sandboxes.need(sandbox) if sandbox != "overlay" else None
    arguments: tuple[str, ...] = ("--loop",)
    if sandbox == "overlay":
        arguments += ("--root", str(sandbox_runs.root_tree()))
    with worker_sandboxes.reachable_directory() as directory:
        async with open_server() as server:
            yield Farm(server, directory, arguments, sandbox)
        end_jobs(directory / "work")


async def wait_for(found: Callable[[], bool]) -> None:
    while not found():  # noqa: ASYNC110 - another process does it
        await trio.sleep(0.01)


async def kill(worker: Worker, number: signal.Signals = signal.SIGKILL) -> None:
    interrupt(worker, number)
    assert await worker.wait() == (-signal.SIGKILL if number == signal.SIGKILL else 0), worker.log


async def store(server: Server, connection: OurConnection, given: GiveJob, worker: Worker) -> None:
    """Take the result, and have the worker end when it is free."""
    await connection.channel.send(ResultStored(uuid=given.uuid))
    async with server.accept_ours() as following:
        assert isinstance(await following.hear(), AskJob)
        interrupt(worker)
        assert await worker.wait() == 143, worker.log


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGUSR1])
async def test_a_job_goes_on_with_the_next_worker(farm: Farm, number: signal.Signals) -> None:
    async with farm.worker() as worker, farm.server.accept_ours() as connection:
        given = await connection.give(COUNT + b"printf par\n" + WAIT + b"echo t; echo end; echo x >file; exit 3")
        lines = [await connection.read_line() for _ in range(300)]
        assert await connection.read_line() == b"par"  # it waited for its end for a second
        await kill(worker, number)
    async with farm.worker() as worker, farm.server.accept_ours() as connection:
        back = await connection.go_on(given, 200)
        assert not back.has_ended
        assert back.elapsed >= 0
        farm.go()
        finished = await connection.finish()
        assert [*lines[:200], *finished.own_lines] == [*NUMBERS, b"par", b"t", b"end"]
        assert (finished.result, finished.artifacts) == (Exited(code=3), {b"file": b"x\n", b"go": b""})
        assert finished.remarks == ["2 artifacts, 2 bytes"]
        await store(farm.server, connection, given, worker)
    assert not list((farm.directory / "work").glob("builder-*")), worker.log


async def test_a_job_that_ended_meanwhile_is_delivered(farm: Farm) -> None:
    async with farm.worker() as worker, farm.server.accept_ours() as connection:
        given = await connection.give(b"echo begun\n" + WAIT + b"echo end; echo x >file")
        assert await connection.read_line() == b"begun"
        await kill(worker)
    farm.go()
    await wait_for((farm.place / "status").exists)
    async with farm.worker() as worker, farm.server.accept_ours() as connection:
        assert (await connection.go_on(given, 1)).has_ended
        finished = await connection.finish()
        assert (finished.own_lines, finished.result) == ([b"end"], Exited(code=0))
        assert finished.artifacts == {b"file": b"x\n", b"go": b""}
        await store(farm.server, connection, given, worker)
    assert not list((farm.directory / "work").glob("builder-*"))


@pytest.mark.parametrize("sends", [False, True], ids=["before", "within"])
async def test_a_result_that_was_not_taken_is_delivered_by_the_next_worker(plain: Farm, *, sends: bool) -> None:
    async with plain.worker() as worker, plain.server.accept_ours() as connection:
        given = await connection.give(b"echo made; head -c 3000000 /dev/zero >large; exit 4")
        assert await connection.read_line() == b"made"
        assert b"1 artifact" in await connection.read_line()
        await wait_for((plain.place / OUTCOME).exists)
        if sends:
            assert isinstance(await connection.next(), StreamedFrame)
            assert await connection.channel.receive_body()
        await kill(worker)
    for _ in range(2):  # nor is it lost by the one after that
        async with plain.worker() as worker, plain.server.accept_ours() as connection:
            assert (await connection.go_on(given, 2)).has_ended
            finished = await connection.finish()
            assert (finished.lines, finished.result) == ([], Exited(code=4))
            assert finished.artifacts == {b"large": bytes(3_000_000)}
            await kill(worker, signal.SIGUSR1)
    async with plain.worker() as worker, plain.server.accept_ours() as connection:
        assert isinstance(await connection.hear(), Return)
        await store(plain.server, connection, given, worker)
    assert not list((plain.directory / "work").glob("builder-*"))


async def test_a_result_for_a_server_that_is_gone_keeps_no_slot_from_another_one(plain: Farm) -> None:
    """As when the server has moved: the result waits on, and is delivered when it is back."""
    async with plain.worker() as worker, plain.server.accept_ours() as connection:
        given = await connection.give(b"exit 4")
        await connection.finish()
        await wait_for((plain.place / OUTCOME).exists)
        await kill(worker)
    await plain.server.aclose()
    async with (
        open_server() as other,
        plain.worker("--loop", "-r", other.address) as worker,
        other.accept_ours() as connection,
    ):
        new = await connection.give(b"exit 5")
        assert (await connection.finish()).result == Exited(code=5)
        await connection.channel.send(ResultStored(uuid=new.uuid))
        await plain.server.listen_again()
        async with plain.server.accept_ours() as back:
            await back.go_on(given, 1)
            assert (await back.finish()).result == Exited(code=4)
            await back.channel.send(ResultStored(uuid=given.uuid))
            await wait_for(lambda: f"{given.uuid} of {given.job.name} on p1: exited 4" in worker.log)
        interrupt(worker)
        assert await worker.wait() == 143, worker.log
    assert not plain.places


async def test_what_was_said_after_the_job_is_not_said_again(plain: Farm) -> None:
    """Killed when the worker has said a part of it: there is no outcome yet."""
    async with plain.worker() as worker, plain.server.accept_ours() as connection:
        given = await connection.give(b"echo one; mkfifo pipe; echo x >file")
        assert (await connection.finish()).remarks == ["left out pipe: named pipe", "1 artifact, 2 bytes"]
        await kill(worker)
    (plain.place / OUTCOME).unlink()
    async with plain.worker() as worker, plain.server.accept_ours() as connection:
        await connection.go_on(given, 2)
        finished = await connection.finish()
        assert (finished.own_lines, finished.remarks) == ([], ["1 artifact, 2 bytes"])
        assert finished.artifacts == {b"file": b"x\n"}
        await store(plain.server, connection, given, worker)


async def test_a_batch_that_was_not_written_whole_is_written_again(plain: Farm) -> None:
    async with plain.worker() as worker, plain.server.accept_ours() as connection:
        given = await connection.give(b"echo one; echo two\n" + WAIT + b"echo three")
        assert [await connection.read_line() for _ in range(2)] == [b"one", b"two"]
        await kill(worker)
    with (plain.place / LINES).open("r+b") as file:
        file.truncate((plain.place / LINES).stat().st_size - 1)
    plain.go()
    async with plain.worker() as worker, plain.server.accept_ours() as connection:
        await connection.go_on(given, 0)
        assert (await connection.finish()).own_lines == [b"one", b"two", b"three"]
        await store(plain.server, connection, given, worker)


@pytest.mark.parametrize("ends", [signal.SIGTERM, signal.SIGINT])
async def test_a_worker_that_is_stopped_ends_an_adopted_job(farm: Farm, ends: signal.Signals) -> None:
    async with farm.worker() as worker, farm.server.accept_ours() as connection:
        given = await connection.give(b"echo begun; exec sleep 1000")
        await connection.read_line()
        await kill(worker)
    async with farm.worker() as worker, farm.server.accept_ours() as connection:
        await connection.go_on(given, 1)
        interrupt(worker, ends)
        async with farm.server.accept_ours() as again:
            await again.go_on(given, 1)
            assert isinstance(await again.channel.receive(), GiveUp)
            await again.channel.send(Gone(uuid=given.uuid, reason="given up"))
            assert await worker.wait() == 128 + ends
    assert not list((farm.directory / "work").glob("builder-*"))


async def test_a_job_that_is_gone_is_killed_by_the_worker_that_adopted_it(plain: Farm) -> None:
    async with plain.worker() as worker, plain.server.accept_ours() as connection:
        given = await connection.give(b"echo $$; exec sleep 1000")
        pid = int(await connection.read_line())
        await kill(worker)
    async with plain.worker() as worker, plain.server.accept_ours() as connection:
        assert isinstance(await connection.hear(), Return)
        await connection.channel.send(Gone(uuid=given.uuid, reason="given to another"))
        await wait_gone(pid)
        async with plain.server.accept_ours() as following:
            await following.give(b"exit 4")
            assert (await following.finish()).result == Exited(code=4)


async def test_a_job_of_which_nobody_knows_whose_it_is_is_killed(plain: Farm) -> None:
    """Without a sandbox a job can write over what is written down of it."""
    async with plain.worker() as worker, plain.server.accept_ours() as connection:
        await connection.give(b"echo $$; exec sleep 1000")
        pid = int(await connection.read_line())
        (plain.place / ATTEMPT).write_bytes(b"{}")
        await kill(worker)
    async with plain.worker() as worker, plain.server.accept_ours() as connection:
        assert isinstance(await connection.hear(), AskJob)
        await wait_gone(pid)
        assert "is not what a worker writes" in worker.log
    assert not plain.places


async def test_a_job_whose_supervisor_died_is_given_up_at_once(farm: Farm) -> None:
    async with farm.worker() as worker, farm.server.accept_ours() as connection:
        given = await connection.give(b"echo begun; exec sleep 1000")
        await connection.read_line()
        await kill(worker)
    supervisor = worker_sandboxes.supervisor_of(farm.place)
    os.kill(supervisor, signal.SIGKILL)
    await wait_gone(supervisor)
    async with farm.worker() as worker, farm.server.accept_ours() as connection:
        await connection.go_on(given, 1)
        message = await connection.next()
        assert isinstance(message, GiveUp)
        assert "nothing is there of it any more" in message.reason
        await connection.channel.send(Gone(uuid=given.uuid, reason="given up"))
        async with farm.server.accept_ours() as following:
            await following.hear()
        assert ": lost: nothing is there of it any more" in worker.log
    assert not list((farm.directory / "work").glob("builder-*/disk/build/*"))


async def test_jobs_of_another_platform_are_left_to_its_workers(plain: Farm) -> None:
    async with plain.worker() as worker, plain.server.accept_ours() as connection:
        given = await connection.give(b"echo begun\n" + WAIT)
        await connection.read_line()
        await kill(worker)
    place = plain.place
    async with plain.worker(platform="p2") as other, plain.server.accept_ours() as connection:
        await connection.give(b"exit 4")
        assert (await connection.finish()).result == Exited(code=4)
        await kill(other, signal.SIGKILL)
    (place / "disk/build/go").touch()
    await wait_for((place / "status").exists)
    os.kill(worker_sandboxes.supervisor_of(place), signal.SIGKILL)  # its time is over
    async with plain.worker(platform="p2") as other, plain.server.accept_ours() as connection:
        assert isinstance(await connection.hear(), Return)
        assert (place / ATTEMPT).exists(), "a result is kept"
        await kill(other)
    async with plain.worker() as worker, plain.server.accept_ours() as connection:
        await connection.go_on(given, 1)
        assert (await connection.finish()).result == Exited(code=0)
        await store(plain.server, connection, given, worker)


async def test_a_worker_with_fewer_slots_sees_all_jobs_through(plain: Farm) -> None:
    given = []
    accept = plain.server.accept_ours
    async with plain.worker("--loop", "--slots", "2") as worker, accept() as one, accept() as two:
        for connection in (one, two):
            given.append(await connection.give(b"echo begun\n" + WAIT))
            await connection.read_line()
        await kill(worker)
    async with plain.worker("--loop") as worker, accept() as one, accept() as two:
        back = {}
        for connection in (one, two):
            wish = await connection.hear()
            assert isinstance(wish, Return)
            back[wish.uuid] = connection
            await connection.channel.send(Continue(lines=1))
        for place in plain.places:
            (place / "disk/build/go").touch()
        for job in given:
            assert (await back[job.uuid].finish()).result == Exited(code=0)
            await back[job.uuid].channel.send(ResultStored(uuid=job.uuid))
        async with accept() as following:
            await following.hear()
        await wait_for(lambda: worker.log.count("delivered") == 2)
        assert worker.log.count("waiting for a job") == 3, "two at first, and one when all is done"


async def test_without_a_loop_the_job_that_was_left_is_the_one(plain: Farm) -> None:
    async with plain.worker("--quiet") as worker, plain.server.accept_ours() as connection:
        given = await connection.give(b"echo begun\n" + WAIT + b"exit 3")
        await connection.read_line()
        await kill(worker, signal.SIGUSR1)
        assert worker.log.splitlines()[-1] == ("builder-worker: ended by SIGUSR1; jobs left to the next worker: 1"), (
            "and nothing is wrong"
        )
    plain.go()
    async with plain.worker("--quiet") as worker, plain.server.accept_ours() as connection:
        await connection.go_on(given, 1)
        assert (await connection.finish()).result == Exited(code=3)
        await connection.channel.send(ResultStored(uuid=given.uuid))
        assert await worker.wait() == 0


async def test_a_job_that_was_not_started_yet_is_given_up_by_the_next_worker(plain: Farm, tmp_path: Path) -> None:
    arguments = ("--loop", "--prepare", f"echo >{tmp_path}/begun; exec sleep 1000")
    async with plain.worker(*arguments) as worker, plain.server.accept_ours() as connection:
        given = await connection.give(b"exit 3")
        await wait_for((tmp_path / "begun").exists)
        await kill(worker)
    async with plain.worker() as worker, plain.server.accept_ours() as connection:
        await connection.go_on(given, 0)
        message = await connection.next()
        assert isinstance(message, GiveUp)
        assert "it was not started" in message.reason


async def test_a_job_of_which_nothing_can_be_read_is_ended(plain: Farm) -> None:
    async with plain.worker() as worker, plain.server.accept_ours() as connection:
        await connection.give(b"echo $$; exec sleep 1000")
        pid = int(await connection.read_line())
        await kill(worker)
    (plain.place / ATTEMPT).chmod(0o600)
    (plain.place / ATTEMPT).write_text("{}")
    async with plain.worker(), plain.server.accept_ours() as connection:
        await connection.hear()
        await wait_gone(pid)
    assert not plain.places


async def test_a_job_that_was_not_given_time_ends_with_its_worker(plain: Farm) -> None:
    async with plain.worker("--loop", "--reconnect-for", "0") as worker, plain.server.accept_ours() as connection:
        given = await connection.give(b"echo $$; exec sleep 1000")
        pid = int(await connection.read_line())
        interrupt(worker, signal.SIGUSR1)
        async with plain.server.accept_ours() as again:
            await again.go_on(given, 1)
            assert isinstance(await again.channel.receive(), GiveUp)
            await again.channel.send(Gone(uuid=given.uuid, reason="given up"))
        assert await worker.wait() == 0
        await wait_gone(pid)
        assert "jobs left to the next worker: 0" in worker.log


async def test_the_command_after_a_job_is_run_once_by_the_worker_that_sees_it_end(plain: Farm, tmp_path: Path) -> None:
    hook = f"echo $BUILDER_RESULT >>{tmp_path}/ends"
    arguments = ("--loop", "--prepare", f"echo >>{tmp_path}/begins", "--finish", hook)
    async with plain.worker(*arguments) as worker, plain.server.accept_ours() as connection:
        given = await connection.give(b"echo begun\n" + WAIT + b"exit 3")
        await connection.read_line()
        await kill(worker, signal.SIGUSR1)
        assert "jobs left to the next worker: 1" in worker.log
    assert not (tmp_path / "ends").exists()
    plain.go()
    async with plain.worker(*arguments) as worker, plain.server.accept_ours() as connection:
        await connection.go_on(given, 1)
        await connection.finish()
        await store(plain.server, connection, given, worker)
    assert (tmp_path / "ends").read_text().count("\n") == 1
    assert (tmp_path / "begins").read_text() == "\n"
