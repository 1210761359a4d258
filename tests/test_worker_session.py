"""builder-worker as a process: servers that are not there, go away or talk nonsense; signals; what survives a job."""

import functools
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path
from types import SimpleNamespace
from uuid import UUID

import pytest
import trio
import trio.testing
from worker_program import (
    Server,
    Worker,
    WorkerConnection,
    interrupt,
    open_server,
    run_script,
    run_worker,
    wait_gone,
)

from builder.address import format_address
from builder.endpoint import Servers
from builder.errors import ConnectionEnded
from builder.framing import StreamedFrame, frame_header
from builder.messages import Hello, Message
from builder.model import Exited, ScriptJob, Signalled
from builder_worker import assignment, classic, session
from builder_worker.artifacts import Collection
from builder_worker.backoff import LONGEST_PAUSE, Backoff
from builder_worker.build import BuildEnd, Setup
from builder_worker.dial import Dial
from builder_worker.drain import Drain
from builder_worker.job import SendLines
from builder_worker.sandbox import Spare
from builder_worker.sandbox.backends.none import NoSandbox
from builder_worker.sandbox.options import Options
from builder_worker.spares import Spares
from builder_worker.uplink import Lost, Uplink

# A job that leaves what it can: a child in its group, one in a session of its own whose parent is gone, one that
# ignores signals, one that drops its environment. Each writes its process id, the script last, when all are there.
DAEMONS = b"""
sleep 1000 & echo $!
(setsid sh -c 'echo $$; : > .1; exec sleep 1000' & )
(setsid sh -c 'trap "" TERM HUP INT; echo $$; : > .2; while :; do sleep 1000; done' & )
(setsid env -i /bin/sh -c 'echo $$; : > .3; exec sleep 1000' >&2 & )
while ! test -e .1 -a -e .2 -a -e .3; do sleep 0.01; done
echo $$
"""


@asynccontextmanager
async def running(tmp_path: Path, *arguments: str) -> AsyncIterator[tuple[Worker, WorkerConnection, list[int]]]:
    """A worker with a job that runs, and the process ids that it has."""
    async with (
        open_server() as server,
        run_worker(tmp_path, "-r", server.address, *arguments) as worker,
        server.accept() as connection,
    ):
        await connection.hand_out(DAEMONS + b"sleep 1000")
        pids = [int(await connection.read_line()) for _ in range(5)]
        yield worker, connection, pids


async def _all_gone(pids: list[int]) -> None:
    for pid in pids:
        await wait_gone(pid)


async def test_daemons_do_not_outlive_the_script_or_delay_its_end(tmp_path: Path) -> None:
    """They hold the console open, which must not matter."""
    finished = await run_script(tmp_path, DAEMONS + b"exit 5")
    assert finished.result == Exited(code=5)
    pids = [int(line) for line in finished.own_lines]
    assert len(pids) == 5
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


async def test_a_server_that_goes_away_is_the_end_of_the_job(tmp_path: Path) -> None:
    async with running(tmp_path) as (worker, connection, pids):
        await connection.stream.aclose()
        await _all_gone(pids)
        assert await worker.wait() == 5
        assert "the server went away (the connection ended); the job was killed" in worker.log
        assert not list((tmp_path / "work").iterdir())


async def test_a_server_that_resets_is_the_end_of_the_job(tmp_path: Path) -> None:
    async with running(tmp_path) as (worker, connection, pids):
        _reset(connection.stream)
        await _all_gone(pids)
        assert await worker.wait() == 5
        assert "the job was killed" in worker.log


async def test_a_server_that_talks_out_of_turn_is_the_end_of_the_job(tmp_path: Path) -> None:
    async with running(tmp_path) as (worker, connection, pids):
        await connection.stream.send_all(frame_header(4) + bytes.fromhex("b2020500"))
        await _all_gone(pids)
        assert await worker.wait() == 5
        assert "expected nothing, got Success" in worker.log


@pytest.mark.parametrize("script", [b"exec yes", b"head -c 50000000 /dev/zero >large"], ids=["output", "result"])
async def test_a_server_that_takes_nothing_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: bytes
) -> None:
    monkeypatch.setattr(classic, "STALL_TIMEOUT", 0.2)
    setup = Setup(backend=NoSandbox(options=Options(work_root=tmp_path)))
    async with open_server() as server, trio.open_nursery() as nursery:
        port = int(server.address.rpartition(":")[2])
        settings = session.WorkerSettings(servers=Servers.of(f"127.0.0.1:{port}", {}), platform="p1", setup=setup)
        given_up = trio.Event()

        async def work() -> None:
            with pytest.raises(Lost, match=r"taken nothing for 0\.2 s; the job was killed"):
                await session.work_once(settings, Drain())
            given_up.set()

        nursery.start_soon(work)
        async with server.accept() as connection:
            await connection.hand_out(script)
            await given_up.wait()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_a_signal_ends_the_worker_after_its_job(tmp_path: Path, number: signal.Signals, status: int) -> None:
    async with running(tmp_path, "--loop") as (worker, connection, pids):
        interrupt(worker, number)
        await _all_gone(pids)
        assert await worker.wait() == status
        assert f"ended by {number.name}" in worker.log
        assert not list((tmp_path / "work").iterdir())
        with pytest.raises((ConnectionEnded, trio.BrokenResourceError)):
            await connection.finish()  # no result: the server counts a loss


async def test_a_signal_ends_a_worker_that_waits_for_a_job(tmp_path: Path) -> None:
    async with (
        open_server() as server,
        run_worker(tmp_path, "-r", server.address, "--loop") as worker,
        server.accept() as connection,
    ):
        await connection.greet()
        interrupt(worker)
        assert await worker.wait() == 143


async def test_nothing_survives_a_worker_that_is_killed(tmp_path: Path) -> None:
    async with running(tmp_path) as (worker, _, pids):
        worker.process.kill()
        await _all_gone(pids)


async def test_nothing_survives_a_job_that_kills_its_supervisor(tmp_path: Path) -> None:
    """But for what also drops its environment, as the fourth of the daemons does."""
    script = (
        DAEMONS.replace(b"env -i", b"env") + b"until grep -qx $$ ../../console; do :; done; kill -9 $PPID; sleep 1000"
    )
    async with open_server() as server, run_worker(tmp_path, "-r", server.address) as worker:
        async with server.accept() as connection:
            await connection.hand_out(script)
            pids = [int(await connection.read_line()) for _ in range(5)]
            finished = await connection.finish()
        assert "the process that watched over the job was killed" in str(finished.result)
        await _all_gone(pids)
        assert await worker.wait() == 0


async def test_a_job_that_stops_its_supervisor_can_be_ended(tmp_path: Path) -> None:
    async with open_server() as server, run_worker(tmp_path, "-r", server.address) as worker:
        async with server.accept() as connection:
            await connection.hand_out(
                b"echo $$; echo $PPID; until grep -qx $PPID ../../console; do :; done; kill -STOP $PPID; sleep 1000"
            )
            pid, supervisor = [int(await connection.read_line()) for _ in range(2)]
            while "stopped" not in Path(f"/proc/{supervisor}/status").read_text():  # noqa: ASYNC110
                await trio.sleep(0.01)
        await wait_gone(pid)
        assert await worker.wait() == 5


async def test_a_fork_bomb_is_killed(tmp_path: Path) -> None:
    """One that stays small enough for the machine that runs the tests: each process replaces itself, in new sessions."""
    bomb = b"""
cat > bomb <<'END'
#!/bin/sh
setsid "$0" & exit
END
chmod +x bomb; for i in 1 2 3 4 5; do ./bomb; done; sleep 0.2; exit 4
"""
    finished = await run_script(tmp_path, bomb)
    assert finished.result == Exited(code=4)
    assert not _command_lines_with(str(tmp_path).encode() + b"/work")


def _command_lines_with(text: bytes) -> list[bytes]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return [line for line in found if text in line and b"builder_worker" not in line]


async def test_a_script_that_kills_its_group_is_signalled(tmp_path: Path) -> None:
    finished = await run_script(tmp_path, b"kill -KILL 0")
    assert finished.result == Signalled(signal=-7)


async def test_a_prompt_reaches_the_server_while_the_job_waits(tmp_path: Path) -> None:
    """As a line of its own; what follows is the next, but for an end of line alone."""
    script = b"printf 'Password: '; until [ -e go ]; do sleep 0.01; done; printf '\\nright\\n'"
    async with (
        open_server() as server,
        run_worker(tmp_path, "-r", server.address) as worker,
        server.accept() as connection,
    ):
        await connection.hand_out(script)
        assert await connection.read_line() == b"Password: "
        (work,) = (tmp_path / "work").glob("*/disk/build")
        (work / "go").touch()
        finished = await connection.finish()
        assert finished.own_lines == [b"right"]
        assert worker.process.poll() is None


# --- servers that are no help --------------------------------------------------------------------------------------


async def test_an_unreachable_server_is_status_3(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with trio.fail_after(60):
            async with run_worker(tmp_path, "-r", address) as worker:
                assert await worker.wait() == 3
                assert worker.log == f"builder-worker: cannot reach {address}: Connection refused\n"


def _reset(stream: trio.SocketStream) -> None:
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    stream.socket.close()


async def _closes(connection: WorkerConnection) -> None:
    await connection.stream.aclose()


async def _resets(connection: WorkerConnection) -> None:
    await connection.channel.receive_expected(Hello)  # before it, the connection might count as never made
    _reset(connection.stream)


async def _talks_http(connection: WorkerConnection) -> None:
    await connection.stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")


async def _announces_endless_frame(connection: WorkerConnection) -> None:
    await connection.stream.send_all(frame_header(2**60) + b"\xaf")


async def _greets_wrongly(connection: WorkerConnection) -> None:
    await connection.stream.send_all(frame_header(4) + bytes.fromhex("b2020500"))


@pytest.mark.parametrize("act", [_closes, _resets, _talks_http, _announces_endless_frame, _greets_wrongly])
async def test_what_is_no_server_is_status_4(
    tmp_path: Path, act: Callable[[WorkerConnection], Awaitable[None]]
) -> None:
    async with (
        open_server() as server,
        run_worker(tmp_path, "-r", server.address) as worker,
        server.accept() as connection,
    ):
        await act(connection)
        assert await worker.wait() == 4, worker.log
        assert server.address in worker.log
        assert len(worker.log.splitlines()) == 1


async def test_a_server_that_closes_while_the_worker_waits_is_status_5(tmp_path: Path) -> None:
    async with open_server() as server, run_worker(tmp_path, "-r", server.address) as worker:
        async with server.accept() as connection:
            await connection.greet()
        assert await worker.wait() == 5
        assert "while this worker waited for a job" in worker.log


async def test_a_result_that_the_server_does_not_read_is_not_delivered(tmp_path: Path) -> None:
    async with open_server() as server, run_worker(tmp_path, "-r", server.address) as worker:
        async with server.accept() as connection:
            await connection.hand_out(b"truncate -s 50M large; echo done")
            assert await connection.read_line() == b"done"
        assert await worker.wait() == 5, worker.log
        assert "delivered" not in worker.log


async def test_a_server_that_takes_its_time_to_close_is_waited_for(tmp_path: Path) -> None:
    async with open_server() as server, run_worker(tmp_path, "-r", server.address) as worker:
        async with server.accept() as connection:
            await connection.hand_out(b"true")
            await connection.finish()
            assert worker.process.poll() is None
        assert await worker.wait() == 0


@pytest.mark.parametrize(("lines", "gap"), [([b"first", b"last"], 0.02), ([], 0.0)])
async def test_the_result_comes_well_after_the_last_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mock_clock: trio.testing.MockClock,
    lines: list[bytes],
    gap: float,
) -> None:
    """The original's server loses the end for its observers when both come in the same instant."""

    @asynccontextmanager
    async def run_build(
        _job: ScriptJob, _uuid: UUID, _setup: Setup, begin: Callable[[object], SendLines], _spare: Spare | None
    ) -> AsyncIterator[BuildEnd]:
        send_lines = begin(SimpleNamespace(place=tmp_path))
        for line in lines:
            await send_lines([line])
        yield BuildEnd(result=Exited(code=0), artifacts=Collection())

    async def connect(*_: object) -> trio.abc.HalfCloseableStream:
        return stream

    monkeypatch.setattr(assignment, "run_build", run_build)
    monkeypatch.setattr(Dial, "_open", connect)
    stream, other = trio.testing.memory_stream_pair()
    backend = NoSandbox(options=Options(work_root=tmp_path / "work"))
    settings = session.WorkerSettings(
        servers=Servers.of("127.0.0.1:1", {}), platform="p1", setup=Setup(backend=backend)
    )
    uplink = Uplink(settings.servers)
    uplink._classic_until = dict.fromkeys(settings.servers.all, inf)
    async with trio.open_nursery() as nursery, Spares(backend) as spares:
        nursery.start_soon(functools.partial(session.work_next, settings, Drain(), uplink, spares, is_last=True))
        connection = WorkerConnection(other)  # type: ignore[arg-type]  # no socket, and none is needed here
        await connection.hand_out(b"true")
        assert [await connection.read_line() for _ in lines] == lines
        came: list[Message | StreamedFrame] = []

        async def wait_for_result() -> None:
            came.append(await connection.channel.receive())

        nursery.start_soon(wait_for_result)
        await trio.testing.wait_all_tasks_blocked()
        if gap:
            mock_clock.jump(gap - 0.001)
            await trio.testing.wait_all_tasks_blocked()
            assert not came
            mock_clock.jump(0.002)
            await trio.testing.wait_all_tasks_blocked()
        assert isinstance(came[0], StreamedFrame)
        while await connection.channel.receive_body():
            pass
        await other.aclose()


# --- loop ------------------------------------------------------------------------------------------------------------


async def test_in_a_loop_each_job_has_its_own_connection_and_directory(tmp_path: Path) -> None:
    async with open_server() as server, run_worker(tmp_path, "-r", server.address, "--loop") as worker:
        for number in range(3):
            async with server.accept() as connection:
                await connection.hand_out(b"ls; echo %d > result" % number)
                finished = await connection.finish()
                assert finished.own_lines == []
                assert finished.artifacts == {b"result": b"%d\n" % number}
        async with server.accept() as connection:
            await connection.greet()
            interrupt(worker)
        assert await worker.wait() == 143
        assert worker.log.count("delivered") == 3


async def test_in_a_loop_the_worker_comes_back_to_a_server_that_was_away(tmp_path: Path) -> None:
    async with open_server() as server, run_worker(tmp_path, "-r", server.address, "--loop") as worker:
        async with server.accept() as connection:
            await connection.hand_out(b"echo $$; sleep 1000")
            pid = int(await connection.read_line())
        await wait_gone(pid)
        async with server.accept() as connection:
            await connection.hand_out(b"true")
            assert (await connection.finish()).result == Exited(code=0)
        assert "next attempt in 1 s" in worker.log


def test_pauses_double_up_to_a_minute_and_differ() -> None:
    backoff = Backoff()
    assert [backoff.next_pause(0) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff.next_pause(1) == LONGEST_PAUSE / 2
    for _ in range(5000):
        assert backoff.next_pause(0) == LONGEST_PAUSE
    backoff.reset()
    assert backoff.next_pause(0) == 1


@pytest.mark.parametrize("host", ["localhost", "::1"])
async def test_host_names_and_ipv6_work(tmp_path: Path, host: str) -> None:
    with trio.fail_after(60):
        listener, *others = await trio.open_tcp_listeners(0, host=host)
        for other in others:
            await other.aclose()
        port = listener.socket.getsockname()[1]
        async with (
            listener,
            run_worker(
                tmp_path, platform="debian-12", environment={"BUILDER_REMOTE": format_address(host, port)}
            ) as worker,
            Server(listener).accept() as connection,
        ):
            await connection.greet()
            assert connection.platform == "debian-12"
            interrupt(worker)
            assert await worker.wait() == 143, worker.log
