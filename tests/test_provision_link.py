"""The provisioner as a client of a server: with certificates, through restarts, and what it says when it is not let in."""

from pathlib import Path

import pytest
import trio
from authorities import Authority
from farm import LocalServer, eventually, eventually_async, run_server, start_server
from scripted import OUR_WORKER, connect, do, schedule, waiting_worker
from worker_program import open_server

from builder.endpoint import Servers, Tls
from builder.errors import ProtocolError
from builder.extension.crew import Doing, WorkerEntry
from builder.extension.provisioning import Provision
from builder.extension.watching import Changed, LookAgain, What
from builder.extension.working import AskJob
from builder.runtime.dialling import NotConnected
from builder_provision import link
from builder_provision.errors import NotAllowedThere
from builder_provision.link import Link

TOLD = Provision(by="farm", engine="slurm")


def plain(server: LocalServer) -> Servers:
    return Servers.of(server.remote, {})


async def test_it_looks_and_tells(server: LocalServer) -> None:
    await do(server, schedule("a"))
    async with Link(plain(server)) as there:
        await there.tell("p1", TOLD)
        (platform,) = (await there.look("p1")).platforms
        assert platform.provisions == (TOLD,)
        assert [entry.job for entry in (await there.look("p1")).queued] == ["a"]
        assert (await there.look("nowhere")).queued == ()
        assert await there.workers("p1") == []


async def test_all_workers_come_in_as_many_pages_as_it_takes(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "MAX_WORKERS", 2)
    async with (
        Link(plain(server)) as there,
        connect(server, OUR_WORKER) as first,
        connect(server, OUR_WORKER) as second,
        connect(server, OUR_WORKER) as third,
        connect(server, OUR_WORKER) as other,
    ):
        for number, peer in enumerate((first, second, third)):
            await peer.send(AskJob(platform="p1", worker=f"w{number}"))
        await other.send(AskJob(platform="p2", worker="w"))

        async def all_there() -> list[WorkerEntry]:
            found = await there.workers("p1")
            return found if len(found) == 3 else []

        found = await eventually_async(all_there)
    assert [entry.place.name for entry in found] == ["w0", "w1", "w2"]
    assert {entry.doing for entry in found} == {Doing.WAITING}


async def test_changes_come(server: LocalServer) -> None:
    seen: list[Changed | LookAgain] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.watch, plain(server), seen.append)
        await eventually(lambda: [type(each) for each in seen] == [LookAgain])
        await do(server, schedule("a"))
        async with waiting_worker(server):
            await eventually(lambda: What.QUEUED in {each.what for each in seen if isinstance(each, Changed)})
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("role", ["provisioner", "observer"])
async def test_it_needs_a_role_of_its_own(tmp_path: Path, role: str) -> None:
    authority = Authority(tmp_path / "ca")
    mine = authority.issue("login", uris=[f"urn:builder:{role}"]).files
    tls = Tls(ca=str(mine.ca), certificate=str(mine.certificate), key=str(mine.key))
    async with (
        run_server(tmp_path, tls=authority.server().files) as server,
        Link(Servers.of(server.remote, tls.options())) as there,
    ):
        await there.look("p1")
        if role == "observer":
            with pytest.raises(NotAllowedThere, match=r"refuses TellProvision: .* needs the role provisioner"):
                await there.tell("p1", TOLD)
        else:
            await there.tell("p1", TOLD)
        assert await there.workers("p1") == [], "the connection goes on"


async def test_a_connection_that_breaks_is_made_anew(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server, Link(Servers.of(server.remote, {})) as there:
        await there.look("p1")
        server.kill()
        with pytest.raises(NotConnected, match="closed the connection"):
            await there.look("p1")
        with pytest.raises(NotConnected, match="cannot reach"):
            await there.look("p1")
        async with start_server(tmp_path, f"--port={server.port}"):
            await there.look("p1")


async def test_a_server_of_the_classic_protocol_will_not_do() -> None:
    async with open_server() as server, trio.open_nursery() as nursery:

        async def refuse() -> None:
            while True:
                async with server.accept():
                    pass

        nursery.start_soon(refuse)
        with pytest.raises(ProtocolError, match=r"(closed|broke) the connection (without a|before its) hello"):
            async with Link(Servers.of(server.address, {})) as there:
                await there.look("p1")
        nursery.cancel_scope.cancel()


async def test_a_server_that_says_nothing_is_given_up(server: LocalServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Link(plain(server)) as there:
        await there.look("p1")
        monkeypatch.setattr(link, "TIMEOUT", 0.0)
        with pytest.raises(NotConnected, match="does not answer within 0 s"):
            await there.look("p1")


async def test_of_several_any_will_do(server: LocalServer) -> None:
    async with Link(Servers.of(f"127.0.0.1:1,{server.remote}", {})) as there:
        await there.look("p1")
    with pytest.raises(
        NotConnected, match=r"no server answers: cannot reach 127\.0\.0\..:1: .*; cannot reach 127\.0\.0\..:1: "
    ):
        async with Link(Servers.of("127.0.0.1:1,127.0.0.2:1", {})) as there:
            await there.look("p1")
