"""Clients and workers that are told of several servers of a farm."""

import itertools
import json
import socket
from functools import partial
from math import inf
from pathlib import Path

import pytest
import trio
from client_harness import EMPTY, Answer, Server, assert_one_line, closed_port, environment, run_client, succeed
from farm import eventually
from worker_program import Server as WorkerServer
from worker_program import open_server, run_worker

from builder import endpoint
from builder.address import TcpAddress, UnixAddress, parse_remotes
from builder.endpoint import Servers, Tls
from builder.errors import InvalidAddress
from builder.extension.applying import ListJobs
from builder.extension.working import AskJob, NoJob, ResultStored
from builder.messages import Hello, Message, ServerHello, Success
from builder.runtime.dialling import NotConnected, NotGreeted
from builder_client.errors import TooOld, Unreachable
from builder_client.remote import Remote
from builder_worker import session
from builder_worker.backoff import Backoff
from builder_worker.session import WorkerSettings
from builder_worker.uplink import Uplink

TLS = Tls(ca="ca", certificate="cert", key="key").options()


def in_order(text: str) -> Servers:
    """Return servers that are tried as they stand there."""
    servers = Servers.of(text, {})
    servers._order = servers.all
    return servers


# --- how they are named --------------------------------------------------------------------------------------------


def test_several_addresses_are_read() -> None:
    assert parse_remotes("a:1,[::1]:2, unix:/run/x ,a:1") == (
        TcpAddress("a", 1),
        TcpAddress("::1", 2),
        UnixAddress("/run/x"),
    )
    for text in ("", "a:1,", ",", "a:1,,b:1", "a:1,unix:"):
        with pytest.raises(InvalidAddress):
            parse_remotes(text)


def test_all_but_sockets_speak_tls() -> None:
    servers = Servers.of("a:1,unix:/run/x", TLS)
    assert [each.tls is None for each in servers.all] == [False, True]
    assert servers.tls == servers.all[0].tls
    assert str(servers) == "a:1,unix:/run/x"
    assert Servers.of(str(servers), servers.tls.options() if servers.tls else {}) == servers


def test_farms_are_the_same_where_they_share_a_server() -> None:
    assert Servers.of("a:1,b:1", {}).overlaps(Servers.of("c:1,b:1", TLS))
    assert not Servers.of("a:1,b:1", {}).overlaps(Servers.of("a:2", {}))


# --- in which order they are tried ---------------------------------------------------------------------------------


def test_any_may_be_the_first() -> None:
    firsts = {str(next(Servers.of("a,b,c", {}).each())[0]) for _ in range(200)}
    assert firsts == {"a:1234", "b:1234", "c:1234"}


def test_what_did_not_answer_comes_last_from_then_on() -> None:
    servers = in_order("a,b,c")

    def tried(count: int) -> list[tuple[str, float]]:
        return [(str(server), most) for server, most in itertools.islice(servers.each(), count)]

    few = endpoint.PATIENCE
    assert tried(2) == [("a:1234", few), ("b:1234", few)]
    assert tried(1) == [("b:1234", few)]
    assert tried(4) == [("b:1234", few), ("c:1234", few), ("a:1234", inf)]
    assert tried(1) == [("b:1234", few)]


def test_what_is_left_comes_last() -> None:
    servers = in_order("a,b,c")
    servers.put_last(servers.all[0])
    assert [str(server) for server, _ in servers.each()] == ["b:1234", "c:1234", "a:1234"]


# --- clients -------------------------------------------------------------------------------------------------------


def test_a_client_asks_whichever_answers(tmp_path: Path) -> None:
    with closed_port() as dead, Server(succeed) as server:
        both = f"127.0.0.1:{dead},{server.address}"
        for _ in range(4):
            assert run_client("-r", both, "execute", "hello").returncode == 0
        assert run_client("execute", "hello", env=environment(BUILDER_REMOTE=both)).returncode == 0
        (tmp_path / "builder").mkdir()
        (tmp_path / "builder" / "client.toml").write_text(f'[servers.both]\nremote = "{both}"\n')
        named = environment(XDG_CONFIG_HOME=str(tmp_path), BUILDER_SERVER="both")
        assert run_client("execute", "hello", env=named).returncode == 0
        shown = run_client("--print-config", env=named).stdout.decode().splitlines()[0]
        assert shown.startswith(f"remote = {json.dumps(both)}  # environment, BUILDER_SERVER")
        assert len(server.seen) == 6


def test_a_client_says_of_each_why_it_did_not_answer() -> None:
    with closed_port() as one, closed_port() as other:
        done = run_client("-r", f"127.0.0.1:{one},127.0.0.1:{other}", "info")
    assert done.returncode == 5
    assert_one_line(done.stderr)
    for part in (
        "none of 2 servers answers: ",
        f"can't reach the server at 127.0.0.1:{one}: Connection refused",
        f"can't reach the server at 127.0.0.1:{other}: Connection refused",
        "; start one of them",
    ):
        assert part in done.stderr.decode()


def test_a_client_does_not_wait_for_a_silent_server_while_there_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "PATIENCE", 0.05)

    def answer(_command: Message) -> Answer:
        return [EMPTY, Success()]

    with socket.create_server(("127.0.0.1", 0)) as silent, Server(answer) as server:
        farm = Remote(servers=in_order(f"127.0.0.1:{silent.getsockname()[1]},{server.address}"))
        assert farm.info() == EMPTY
        silent.close()
        assert farm.info() == EMPTY
        assert str(farm.servers.all[0]) in str(farm)
    with pytest.raises(Unreachable, match=r"^none of 2 servers answers: can't reach the server at .*; can't reach"):
        farm.info()


def test_what_a_server_says_it_can_not_is_not_asked_of_another() -> None:
    with Server(succeed) as one, Server(succeed) as other:
        farm = Remote(servers=in_order(f"{one.address},{other.address}"))
        with pytest.raises(TooOld, match=f"^{one.address} speaks only the classic protocol"):
            farm.request(ListJobs(after=None), what="lists of jobs")
    assert not other.seen


# --- workers -------------------------------------------------------------------------------------------------------


async def test_a_worker_takes_a_job_from_whichever_answers(tmp_path: Path) -> None:
    with closed_port() as dead:
        async with open_server() as server:
            both = f"127.0.0.1:{dead},{server.address}"
            config = tmp_path / "worker.toml"
            config.write_text(f'remote = "{both}"\n')
            for given in (("-r", both), ("--config", str(config))):
                async with run_worker(tmp_path, *given) as worker, server.accept_ours() as connection:
                    job = await connection.give(b"true")
                    await connection.finish()
                    await connection.channel.send(ResultStored(uuid=job.uuid))
                    assert await worker.wait() == 0
                    assert f"waiting for a job for p1 from {server.address}" in worker.log


async def test_a_worker_says_of_each_why_it_did_not_answer(tmp_path: Path) -> None:
    with closed_port() as one, closed_port() as other:
        async with run_worker(tmp_path, "-r", f"127.0.0.1:{one},127.0.0.1:{other}") as worker:
            assert await worker.wait() == 3
    assert "none of 2 servers answers: cannot reach 127.0.0.1:" in worker.log
    assert f"cannot reach 127.0.0.1:{one}: Connection refused" in worker.log
    assert f"cannot reach 127.0.0.1:{other}: Connection refused" in worker.log


async def test_a_worker_leaves_a_server_that_is_drained(monkeypatch: pytest.MonkeyPatch) -> None:
    """And comes back to it when the other one does not answer."""
    monkeypatch.setattr(session, "Backoff", partial(Backoff, shortest=0.001))
    async with (
        open_server() as one,
        open_server() as other,
        trio.open_nursery() as nursery,
        Uplink(servers := in_order(f"{one.address},{other.address}")) as uplink,
    ):
        settings = WorkerSettings(servers=servers, platform="p1", setup=None)  # type: ignore[arg-type]  # no job is run

        async def wait() -> None:
            await uplink.open()
            await session._wait_anywhere(uplink, settings)

        nursery.start_soon(wait)
        for server in (one, other, one):
            async with server.accept_ours() as connection:
                asked = await connection.hear()
                assert isinstance(asked, AskJob)
                assert asked.may_leave
                if server is other:
                    await other.aclose()
                await connection.channel.send(NoJob(is_drained=True))
        nursery.cancel_scope.cancel()


async def test_a_job_goes_on_at_another_server(tmp_path: Path) -> None:
    """Its own one is gone for good, while the job runs."""
    go = tmp_path / "go"
    async with open_server() as one, open_server() as other:
        await other.aclose()
        async with run_worker(tmp_path, "-r", f"{one.address},{other.address}") as worker:
            async with one.accept_ours() as connection:
                job = await connection.give(b"echo one; until [ -e %b ]; do sleep 0.02; done; echo two" % bytes(go))
                assert await connection.read_line() == b"one"
                await one.aclose()
                await other.listen_again()
            async with other.accept_ours() as connection:
                await connection.go_on(job, 0)
                assert await connection.read_line() == b"one"
                go.touch()
                finished = await connection.finish()
                assert finished.own_lines == [b"two"]
                await connection.channel.send(ResultStored(uuid=job.uuid))
            assert await worker.wait() == 0
        assert f"lost {one.address}" in worker.log
        assert f"back at {other.address} after" in worker.log


async def test_each_server_is_spoken_to_as_it_wants() -> None:
    async with (
        open_server() as classic,
        open_server() as ours,
        trio.open_nursery() as nursery,
        Uplink(in_order(f"{classic.address},{ours.address}")) as uplink,
    ):
        nursery.start_soon(uplink.open)
        async with classic.accept() as connection:
            await connection.channel.receive_expected(Hello)
            await connection.channel.send(ServerHello())
            await eventually(lambda: uplink._channel, what="the connection")
            assert (str(uplink), uplink.is_ours) == (classic.address, False)
        await uplink.close()
        await classic.aclose()
        nursery.start_soon(uplink.open)
        async with ours.accept_ours() as our:
            nursery.start_soon(our.hear)
            await eventually(lambda: uplink._channel, what="the connection")
            assert (str(uplink), uplink.is_ours) == (ours.address, True)
            nursery.cancel_scope.cancel()


async def test_a_worker_does_not_wait_for_a_silent_server_while_there_are_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(endpoint, "PATIENCE", 0.05)
    async with (
        open_server() as silent,
        open_server() as server,
        trio.open_nursery() as nursery,
        Uplink(in_order(f"{silent.address},{server.address}")) as uplink,
    ):
        nursery.start_soon(uplink.open)
        async with server.accept_ours() as connection:
            nursery.start_soon(connection.hear)
            await eventually(lambda: uplink._channel, what="the connection")
            assert str(uplink) == server.address
            nursery.cancel_scope.cancel()


async def test_what_no_server_wants_is_told_otherwise_than_that_none_is_there() -> None:
    """For the exit status: whoever is refused by all has something to mend."""

    async def refuse(server: WorkerServer) -> None:
        while True:
            async with server.accept_ours():
                pass

    async with (
        open_server() as one,
        open_server() as other,
        trio.open_nursery() as nursery,
        Uplink(Servers.of(f"{one.address},{other.address}", {})) as uplink,
    ):
        nursery.start_soon(refuse, one)
        nursery.start_soon(refuse, other)
        with pytest.raises(NotGreeted, match=r"^none of 2 servers takes this worker: .* without a hello.*; .*"):
            await uplink.open()
        nursery.cancel_scope.cancel()
    with closed_port() as dead:
        async with open_server() as one, trio.open_nursery() as nursery:
            nursery.start_soon(refuse, one)
            with pytest.raises(NotConnected, match=r"^none of 2 servers answers: "):
                await Uplink(Servers.of(f"{one.address},127.0.0.1:{dead}", {})).open()
            nursery.cancel_scope.cancel()
