"""Several servers on one PostgreSQL: what one of them has, the others get from it for their clients."""

import datetime as dt
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import clusters
import databases
import forked
import pytest
import trio
from authorities import Authority
from click.testing import CliRunner
from client_harness import assert_one_line
from clocks import Clock
from cryptography.x509.oid import ExtendedKeyUsageOID
from endpoints import serving
from farm import (
    Reachable,
    Server,
    eventually,
    eventually_async,
    free_port,
    log_lines,
    run_client,
    run_server,
    running_worker,
    start_server,
)
from scripted import CLIENT, OUR_WORKER, OURS, ScriptedPeer, ask_job, connect, do, observe, said, schedule, take_job

from builder.extension.builds import ArtifactsPiece, BuildCancelled, CancelBuilds, FetchArtifacts
from builder.extension.crew import ListWorkers, WorkersListed
from builder.extension.halting import Halt, Scope, Target
from builder.extension.logs import ConsoleRange, ReadConsole
from builder.extension.provisioning import Provision, TellProvision
from builder.extension.servers import ListServers, Relay, ServersListed
from builder.extension.watching import Look, Looked
from builder.extension.working import AskJob, Continue, GiveJob, Gone, NoJob, Return
from builder.messages import Failure, Message, Observe, Output, Success
from builder.model import Artifact, Exited, Instant
from builder.roles import HolderRole
from builder.runtime.postgres import Location
from builder_server import cli
from builder_server.attempts import Attempts
from builder_server.store import Store, Undecided


def arguments(name: str, database: str, port: int) -> tuple[str, ...]:
    return (f"--database={database}", f"--name={name}", f"--port={port}", f"--advertise=127.0.0.1:{port}")


@pytest.fixture
def database(tmp_path: Path) -> str:
    return databases.postgres_at(tmp_path / "farm").url


@asynccontextmanager
async def started(root: Path, database: str, name: str, *more: str, port: int | None = None) -> AsyncIterator[Server]:
    (root / name).mkdir(exist_ok=True)
    given = (*arguments(name, database, port or free_port()), *more)
    async with start_server(root / name, *given, env={forked.FIRST: "talkative"}) as server:
        yield server


@pytest.fixture
async def pair(tmp_path: Path, database: str) -> AsyncIterator[tuple[Server, Server]]:
    async with started(tmp_path, database, "a") as one, started(tmp_path, database, "b") as other:
        yield one, other


async def client(server: Server, *given: str, status: int = 0) -> str:
    done = await trio.to_thread.run_sync(run_client, server, *given)
    assert done.returncode == status, (done.stdout, done.stderr)
    if status:
        assert_one_line(done.stderr)
        return done.stderr.decode()
    return done.stdout.decode()


async def replies(server: Reachable, request: Message) -> list[Message]:
    async with connect(server, OURS) as peer:
        return await peer.request(request)


# --- queues ----------------------------------------------------------------------------------------------------------


async def test_what_a_provisioner_has_asked_for_is_told_by_all(pair: tuple[Server, Server]) -> None:
    one, other = pair
    await do(one, schedule("a"))
    provision = Provision(by="farm", engine="slurm", why_not=("there may be 5 at once",))
    assert await replies(one, TellProvision(platform="p1", provision=provision, keep=60_000)) == [Success()]

    async def is_told() -> bool:
        looked = await replies(other, Look(entries=1, results=0))
        return any(state.provisions for page in looked if isinstance(page, Looked) for state in page.platforms)

    await eventually_async(is_told)
    assert "asked slurm for no worker: there may be 5 at once" in (await client(other, "queue")).splitlines()


# --- consoles ------------------------------------------------------------------------------------------------------


async def test_a_console_is_followed_wherever_its_build_is(pair: tuple[Server, Server]) -> None:
    one, other = pair
    await do(other, schedule("a"))
    async with take_job(one) as taken, trio.open_nursery() as nursery:
        await taken.say(b"first")
        seen: list[Output] = []
        asked: list[Message] = []

        async def watch() -> None:
            found = await observe(other, taken.uuid)
            assert isinstance(found, list)
            seen.extend(found)

        async def read() -> None:
            async with connect(other, OURS) as peer:
                await peer.send(ReadConsole(uuid=taken.uuid, follow=True))
                while not isinstance(message := await peer.receive_any(), Success):
                    asked.append(message)

        nursery.start_soon(watch)
        nursery.start_soon(read)
        await eventually(lambda: any(isinstance(each, Output) for each in asked), what="the first line")
        await taken.say(*(b"%d" % number for number in range(300)))
        await taken.finish(Exited(code=3))
    lines = [b"first", *(b"%d" % number for number in range(300))]
    assert [each.line for each in seen] == [*lines, b"exited 3"]
    assert asked == [ConsoleRange(offset=0, size=asked[0].size), *seen[:-1]]  # type: ignore[attr-defined]


async def test_parts_of_a_console_are_the_same_wherever_it_is(pair: tuple[Server, Server]) -> None:
    one, other = pair
    await do(one, schedule("a"))
    async with take_job(one) as taken:
        await taken.say(*(b"x" * number for number in range(300)))
        await taken.finish()
    for wanted in (
        ReadConsole(uuid=taken.uuid, follow=False),
        ReadConsole(uuid=taken.uuid, follow=True),
        ReadConsole(uuid=taken.uuid, follow=False, last=7),
        ReadConsole(uuid=taken.uuid, follow=False, offset=5000, length=3000),
        ReadConsole(uuid=taken.uuid, follow=False, offset=-500),
        ReadConsole(uuid=taken.uuid, follow=True, offset=10**9),
    ):
        here = await replies(one, wanted)
        assert isinstance(here[-1], Success)
        assert await replies(other, wanted) == here


async def test_who_is_not_there_is_told_in_a_line(pair: tuple[Server, Server]) -> None:
    one, other = pair
    await do(one, schedule("a"))
    async with take_job(one) as taken:
        await taken.say(b"first")
        await taken.finish(artifacts=(Artifact(path="x", content=b"1"),))
    await eventually(lambda: one.full("a", taken.uuid).exists())
    assert json.loads((await client(other, "result", str(taken.uuid), "--json")).splitlines()[0])["has_artifacts"]
    one.kill()
    said = f"the console of {taken.uuid} is with the server a, which does not answer: Connection refused"
    assert said in await client(other, "log", str(taken.uuid), status=3)
    assert said in await client(other, "observe", str(taken.uuid), status=3)
    said = f"the record of {taken.uuid} is with the server a, which does not answer: Connection refused"
    assert await replies(other, FetchArtifacts(uuid=taken.uuid)) == [Failure(message=said)]
    found = json.loads((await client(other, "result", str(taken.uuid), "--json")).splitlines()[0])
    assert (found["uuid"], found["has_artifacts"], found["absent"]) == (str(taken.uuid), False, "a")
    assert "a has console and artifacts, and does not answer" in await client(other, "result", str(taken.uuid))


async def test_what_a_build_left_is_fetched_wherever_it_is(pair: tuple[Server, Server], tmp_path: Path) -> None:
    one, other = pair
    await do(one, schedule("a"))
    content = bytes(range(256)) * 4096
    async with take_job(one) as taken:
        await taken.say(b"first")
        await taken.finish(artifacts=(Artifact(path="bin/x", content=content), Artifact(path="y", content=b"")))
    await eventually(lambda: one.full("a", taken.uuid).exists())

    def fetched(found: list[Message]) -> bytes:
        assert isinstance(found.pop(), Success)
        return b"".join(each.data for each in found if isinstance(each, ArtifactsPiece))

    assert fetched(await replies(other, FetchArtifacts(uuid=taken.uuid))) == fetched(
        await replies(one, FetchArtifacts(uuid=taken.uuid))
    )
    await client(other, "fetch", str(taken.uuid), str(tmp_path / "out"))
    assert (tmp_path / "out" / "bin" / "x").read_bytes() == content
    for command in (("result",), ("log",)):
        assert await client(other, *command, str(taken.uuid)) == await client(one, *command, str(taken.uuid))


# --- a build that moves --------------------------------------------------------------------------------------------


async def test_a_console_goes_on_where_its_build_goes_on(tmp_path: Path, database: str) -> None:
    """The server dies that has a build; its worker comes back to another one, and sends all of it again."""
    async with (
        started(tmp_path, database, "a") as one,
        started(tmp_path, database, "b") as other,
        started(tmp_path, database, "c") as third,
        trio.open_nursery() as nursery,
    ):
        await do(third, schedule("a"))
        seen: dict[str, list[Output]] = {}

        async def watch(name: str, server: Server, uuid: UUID) -> None:
            found = await observe(server, uuid)
            assert isinstance(found, list), found
            seen[name] = found

        heard: list[Message] = []

        async def read(uuid: UUID) -> None:
            async with connect(third, OURS) as peer:
                await peer.send(ReadConsole(uuid=uuid, follow=True))
                while not isinstance(message := await peer.receive_any(), Success | Failure):
                    heard.append(message)

        async with connect(one, OUR_WORKER) as peer:
            job = await ask_job(peer)
            await job.say(peer, 0, 5)
            nursery.start_soon(watch, "other", other, job.uuid)
            nursery.start_soon(watch, "third", third, job.uuid)
            nursery.start_soon(read, job.uuid)
            await eventually(lambda: len(heard) == 6, what="five lines, and where they begin")
            one.kill()
        async with connect(other, OUR_WORKER) as peer:
            assert await job.come_back(peer) == Continue(lines=0)
            await job.say(peer, 0, 3)
            await trio.sleep(0.05)
            await job.say(peer, 3, 9)
            await job.finish(peer)
        await eventually(lambda: len(seen) == 2, what="the ends")
    lines = [job.line(number).line for number in range(9)]
    for found in seen.values():
        assert [each.line for each in found[:-1]] == lines
    assert [each.line for each in heard if isinstance(each, Output)] == lines


COUNTING = """#!/bin/sh
n=0
while [ ! -e {end} ]; do n=$((n+1)); echo "line $n"; sleep 0.05; done
"""


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["frozen", "killed"])
async def test_a_console_is_whole_whatever_becomes_of_a_server(
    tmp_path: Path, database: str, number: signal.Signals
) -> None:
    """A worker that has several servers comes back to another one; those who watch at a third one see each line once."""
    (tmp_path / "job.sh").write_text(COUNTING.format(end=tmp_path / "end"))
    async with (
        started(tmp_path, database, "a") as one,
        started(tmp_path, database, "b") as other,
        started(tmp_path, database, "c") as third,
        trio.open_nursery() as nursery,
    ):
        farm = f"{one.remote},{other.remote},{third.remote}"
        await client(third, "schedule", "job", "p1", str(tmp_path / "job.sh"))
        with running_worker(one, "p1", "--sandbox=none", f"--remote={farm}"):
            await eventually_async(partial(is_running, third), what="a build", deadline=60)
            servers = [json.loads(line) for line in (await client(third, "servers", "--json")).splitlines()]
            (owner,) = [each["server"] for each in servers if each["running"]]
            victim = {"a": one, "b": other, "c": third}[owner]
            watching = next(each for each in (third, other) if each is not victim)
            uuid = UUID(await uuid_of(watching))
            seen: dict[str, list[bytes]] = {}

            async def watch() -> None:
                lines: list[bytes] = []
                async with connect(watching, CLIENT) as peer:
                    await peer.send(Observe(uuid=uuid))
                    while isinstance(message := await peer.channel.receive(), Output):  # for as long as it takes
                        lines.append(message.line)
                seen["classic"] = lines[:-1]

            async def follow() -> None:
                run = partial(run_client, watching, "log", "--follow", "--raw", str(uuid), deadline=240.0)
                done = await trio.to_thread.run_sync(run)
                assert done.returncode == 0, done.stderr
                seen["ours"] = done.stdout.splitlines()

            nursery.start_soon(watch)
            nursery.start_soon(follow)
            await trio.sleep(2)
            os.kill(victim.process.pid, number)

            async def has_moved() -> bool:
                told = [json.loads(line) for line in (await client(watching, "servers", "--json")).splitlines()]
                return any(each["running"] and each["server"] != owner for each in told)

            await eventually_async(has_moved, what="a server that takes the build over", deadline=90)
            await trio.sleep(60 if number == signal.SIGSTOP else 5)
            (tmp_path / "end").touch()
            await eventually(lambda: len(seen) == 2, what="the ends", deadline=120)
    for lines in seen.values():
        said = [line for line in lines if line.startswith(b"line ")]
        assert len(said) > 50
        assert said == [b"line %d" % (count + 1) for count in range(len(said))]
    assert [each for each in seen["classic"] if each.startswith(b"line ")] == [
        each for each in seen["ours"] if each.startswith(b"line ")
    ]


async def is_running(server: Server) -> bool:
    return "running" in await client(server, "history")


# --- servers and workers -------------------------------------------------------------------------------------------


async def test_all_servers_and_their_workers_are_told(pair: tuple[Server, Server]) -> None:
    one, other = pair
    async with take_waiting(one, "w1"), take_waiting(other, "w2"):

        async def told() -> Any:
            return [json.loads(line) for line in (await client(other, "workers", "--json")).splitlines()]

        found = await told()
        assert [(each["worker"], each["server"]) for each in found] == [("w1", "a"), ("w2", "b")]
        (page, _) = await replies(one, ListWorkers(count=1))
        assert isinstance(page, WorkersListed)
        assert ([each.place.name for each in page.workers], page.number, page.absent) == (["w1"], 2, ())
        (page, _) = await replies(one, ListWorkers(count=1, behind=page.workers[0].place))
        assert isinstance(page, WorkersListed)
        assert [each.place.name for each in page.workers] == ["w2"]
        assert "SERVER" in await client(one, "workers")

        async def count(server: Server) -> int:
            (looked, *_) = await replies(server, Look(entries=0, results=0))
            assert isinstance(looked, Looked)
            return sum(each.waiting for each in looked.platforms)

        async def are_known() -> bool:
            return [await count(one), await count(other)] == [2, 2]

        await eventually_async(are_known, what="workers that others have told of")
        farm, _ = await replies(other, ListServers())
        assert isinstance(farm, ServersListed)
        assert [(each.name, each.address, each.is_alive, each.workers) for each in farm.servers] == [
            ("a", f"127.0.0.1:{one.port}", True, 1),
            ("b", f"127.0.0.1:{other.port}", True, 1),
        ]
        assert sum(each.keeps_schedule for each in farm.servers) == 1
        assert farm.here == "b"
        assert "Servers: a, b (this one)" in await client(other, "info")
        shown = await client(other, "servers")
        assert shown.splitlines()[0].startswith("Servers")
        one.kill()
        (page, _) = await replies(other, ListWorkers(count=9))
        assert isinstance(page, WorkersListed)
        assert ([each.place.name for each in page.workers], page.absent) == (["w2"], ("a",))


@asynccontextmanager
async def take_waiting(server: Server, name: str, *, may_leave: bool = False) -> AsyncIterator[ScriptedPeer]:
    async with connect(server, OUR_WORKER) as peer:
        await peer.send(AskJob(platform="p1", worker=name, may_leave=may_leave))
        yield peer


async def test_one_server_is_drained(pair: tuple[Server, Server]) -> None:
    one, other = pair
    target = Target(scope=Scope.SERVER, name="a")
    async with take_waiting(one, "w0", may_leave=True) as sent:
        assert "drained" in await client(other, "drain", "a", "--reason", "a new kernel")
        assert (await sent.receive(NoJob)).is_drained
    async with take_waiting(one, "w1") as idle:
        await do(one, schedule("x"))
        with trio.move_on_after(0.3) as waiting:
            await idle.receive_any()
        assert waiting.cancelled_caught
        async with take_waiting(other, "w2") as peer:
            assert (await peer.receive(GiveJob)).job.name == "x"
        await do(one, schedule("y"))
        assert re.search(r"a +works, drained", await client(other, "servers"))
        await client(other, "resume", "--at", "a")
        assert (await idle.receive(GiveJob)).job.name
    async with take_waiting(one, "w3", may_leave=True) as idle:
        await client(one, "drain", "b")
        await client(one, "drain", "a")
        with trio.move_on_after(0.1) as waiting:
            await idle.receive_any()
        assert waiting.cancelled_caught  # there is nowhere to go
    assert await replies(one, Halt(target=Target(scope=Scope.SERVER, name="z"))) == [
        Failure(message="unknown server z")
    ]
    assert target.name == "a"


async def test_a_server_that_never_comes_back_is_forgotten(pair: tuple[Server, Server], database: str) -> None:
    one, other = pair
    await do(one, schedule("a"))
    async with take_job(other) as taken:
        await taken.say(b"here")
        await taken.finish()
    uuid = str(taken.uuid)
    assert "here" in await client(one, "log", uuid)

    def forget(*names: str) -> tuple[str, int]:
        found = CliRunner().invoke(cli.command, [f"--database={database}", "forget-server", *names])
        return str(found.exception or found.output), found.exit_code

    assert "the server b works on it: stop it first" in forget("b")[0]
    await trio.to_thread.run_sync(other.terminate)
    assert forget() == ("b does not work now; builds whose files it has: 1\n", 0)
    assert "no server called c has files of builds" in forget("c")[0]
    assert "never will: builder-server forget-server" in await client(one, "log", uuid, status=3)
    assert forget("b") == ("forgot the server b; builds whose files it had: 1\n", 0)
    assert forget() == ("no server is gone that has files of builds\n", 0)
    assert "the server has no console of" in await client(one, "log", uuid, status=3)
    assert "a" in await client(one, "history")


# --- who may ---------------------------------------------------------------------------------------------------------


async def test_only_servers_relay(pair: tuple[Server, Server], database: str) -> None:
    one, _ = pair
    await do(one, schedule("a"))
    async with take_job(one) as taken:
        await taken.finish()
    wrong = Relay(token="x", server="b", holder="alice", address="10.0.0.1:7", role=HolderRole.OPERATOR)
    (refused,) = await replies(one, wrong)
    assert isinstance(refused, Failure)
    assert refused.message.startswith("Relay needs the token of this server")
    (name,) = re.findall(r"/(t[0-9a-f]+)", database)
    ((token,),) = clusters.shared().execute("SELECT token FROM server WHERE name = 'a'", name)
    async with connect(one, OURS) as peer:
        await peer.send(Relay(token=token, server="b", holder="alice", address="10.0.0.1:7", role=HolderRole.OBSERVER))
        assert await peer.receive(Success) == Success()
        found = await peer.request(ReadConsole(uuid=taken.uuid, follow=False))
        assert isinstance(found[-1], Success)
        (refused,) = await peer.request(Halt(target=Target(scope=Scope.SERVER)))
        assert isinstance(refused, Failure)
        assert refused.message == "Halt needs the role operator; the certificate of alice gives observer"


async def test_servers_show_each_other_their_certificates(tmp_path: Path, database: str) -> None:
    """What is relayed is allowed as to the client who asks."""
    (tmp_path / "ca").mkdir()
    authority = Authority(tmp_path / "ca")
    files = authority.server().files
    tls = (f"--tls-cert={files.certificate}", f"--tls-key={files.key}", f"--tls-client-ca={files.ca}")
    shown = authority.issue("alice", uris=[HolderRole.OBSERVER.uri]).files
    me = (f"--tls-ca={shown.ca}", f"--tls-cert={shown.certificate}", f"--tls-key={shown.key}")
    async with started(tmp_path, database, "a", *tls) as one, started(tmp_path, database, "b", *tls) as other:
        ann = authority.issue("ann", uris=[HolderRole.OPERATOR.uri, HolderRole.WORKER.uri]).files
        hers = (f"--tls-ca={ann.ca}", f"--tls-cert={ann.certificate}", f"--tls-key={ann.key}")
        (tmp_path / "job.sh").write_text("#!/bin/sh\necho said\n")
        await client(one, *hers, "schedule", "a", "p1", str(tmp_path / "job.sh"))
        with running_worker(one, "p1", "--sandbox=none", *hers) as worker:
            await eventually(lambda: worker.process.poll() is not None, what="the end of the worker")
        assert (await client(other, *me, "log", await uuid_of(other, *me), "--raw")).startswith("said\n")
        assert (
            authority.server(usages=[ExtendedKeyUsageOID.SERVER_AUTH]).files == files
        )  # as before there could be several
        await eventually_async(partial(refuses, other, *me), what="the certificate to be read again")


async def uuid_of(server: Server, *given: str) -> str:
    (line,) = (await client(server, *given, "history", "--json")).splitlines()
    return str(json.loads(line)["uuid"])


async def refuses(server: Server, *given: str) -> bool:
    """Return whether a server with a certificate of before can't ask the other, and says what to do."""
    uuid = await uuid_of(server, *given)
    done = await trio.to_thread.run_sync(partial(run_client, server, *given, "log", uuid))
    return b"'builder-server certificates renew server' makes one that is" in done.stderr


async def test_an_upload_is_tried_again_by_the_server_that_has_it(tmp_path: Path, database: str) -> None:
    """Also where the one that is asked uploads nothing."""
    with serving() as endpoint:
        endpoint.status, endpoint.retry_after = 503, "3600"
        option = f"--upload={endpoint.url()}"
        async with started(tmp_path, database, "a", option) as one, started(tmp_path, database, "b") as other:
            for name, named in (("a", False), ("b", True)):
                endpoint.status = 503
                await do(one, schedule(name))
                async with take_job(one) as taken:
                    await taken.finish()
                await eventually_async(partial(are_pending, other, 1), what="an upload that failed")
                endpoint.status = 200
                which = str(taken.uuid) if named else "--all"
                assert "1 upload is tried again" in await client(other, "retry-upload", which)
                await eventually_async(partial(are_pending, other, 0), what="an upload that was tried again")
            assert log_lines(one.log, " by b", f"RetryUploads {taken.uuid}")
            await trio.to_thread.run_sync(one.terminate)
            said = await client(other, "retry-upload", "--all", status=3)
            assert "the server b uploads nothing: it was started without --upload" in said


async def are_pending(server: Server, count: int) -> bool:
    told = [json.loads(line) for line in (await client(server, "uploads", "--json")).splitlines()]
    return len(told) == count and all(each["attempts"] for each in told)


async def test_a_build_is_cancelled_that_has_just_moved(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it was nobody has heard of that yet."""
    monkeypatch.setattr(Attempts, "drop", lambda _self, _uuids: None)
    (tmp_path / "b").mkdir()
    place = Location(url=database)
    async with (
        started(tmp_path, database, "a") as one,
        run_server(tmp_path / "b", database=place, name="b") as other,
        connect(other, OUR_WORKER) as first,
        connect(one, OUR_WORKER) as second,
    ):
        await do(one, schedule("a"))
        job = await ask_job(first)
        assert await job.come_back(second) == Continue(lines=0)
        told = await replies(other, CancelBuilds(target=str(job.uuid)))
        assert told == [BuildCancelled(uuid=job.uuid, name="a", platform="p1"), Success()]
        assert isinstance(await said(second), Gone)


async def test_a_build_is_cancelled_whose_end_is_awaited_already(tmp_path: Path, database: str) -> None:
    """Its server stands still, and ends it when it goes on."""
    async with started(tmp_path, database, "a") as one, started(tmp_path, database, "b") as other:
        await do(one, schedule("a"))
        async with take_job(one) as taken:
            os.kill(one.process.pid, signal.SIGSTOP)
            try:
                assert "Cancelled a on p1" in await client(other, "cancel", str(taken.uuid))
                again = await client(other, "cancel", str(taken.uuid))
            finally:
                os.kill(one.process.pid, signal.SIGCONT)
            assert f"a on p1 ({taken.uuid}) is to end already: it was cancelled by 127.0.0.1:" in again


async def test_a_build_that_has_come_here_without_anybody_knowing(
    tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever observes it waits for its worker, whom the server takes at once."""
    claim = Store.claim
    tries: list[UUID] = []

    async def lost(store: Store, uuid: UUID, secret: bytes) -> object:
        claimed = await claim(store, uuid, secret)
        tries.append(uuid)
        if len(tries) == 1:
            raise Undecided("lost during a commit")
        return claimed

    monkeypatch.setattr(Store, "claim", lost)
    seen: list[Output] = []
    (tmp_path / "b").mkdir()
    async with (
        started(tmp_path, database, "a") as one,
        run_server(tmp_path / "b", database=Location(url=database), name="b") as other,
        trio.open_nursery() as nursery,
    ):
        await do(one, schedule("a"))
        async with connect(one, OUR_WORKER) as peer:
            job = await ask_job(peer)
            await job.say(peer, 0, 3)
        async with connect(other, OUR_WORKER) as peer:
            await peer.send(Return(uuid=job.uuid, secret=job.secret, elapsed=0))
            await peer.wait_closed()

        async def watch() -> None:
            found = await observe(other, job.uuid)
            assert isinstance(found, list), found
            seen.extend(found)

        nursery.start_soon(watch)
        await trio.sleep(0.1)
        async with connect(other, OUR_WORKER) as peer:
            assert await job.come_back(peer) == Continue(lines=0)
            await job.say(peer, 0, 5)
            await job.finish(peer)
    assert [each.line for each in seen] == [*(job.line(number).line for number in range(5)), b"exited 0"]


async def test_servers_are_seen_by_the_clock_of_the_database(tmp_path: Path, database: str) -> None:
    """One whose own clock is wrong would tell that all others have been silent for years."""
    async with run_server(
        tmp_path, database=Location(url=database), name="a", now=Clock(Instant(4_000_000_000_000))
    ) as server:
        listed, _ = await replies(server, ListServers())
        assert isinstance(listed, ServersListed)
        (entry,) = listed.servers
        assert entry.since <= listed.now < entry.since.plus(dt.timedelta(minutes=1))
