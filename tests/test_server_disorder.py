"""builder-server with several peers of both protocols that say anything in any order, and an account of all jobs."""

import contextlib
import datetime as dt
import logging
import socket
import struct
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from uuid import UUID

import pytest
import trio
import trio.testing
from attrs import define, field
from farm import DEADLINE, LocalServer, eventually_async, run_server
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import CLIENT, OUR_WORKER, OURS, WORKER, build, connect, do, info, queues, schedule, take_job

from builder import codec
from builder.extension import Welcome
from builder.extension.builds import CancelBuilds, ShowBuild
from builder.extension.working import Alive, AskJob, Continue, GiveJob, GiveUp, ResultStored, Return
from builder.framing import frame, read_length
from builder.messages import (
    DropPlatform,
    Execute,
    Hello,
    Info,
    JobFinished,
    JobRequested,
    JobSchedule,
    Message,
    Observe,
    Output,
    Role,
    Success,
    UndropPlatform,
    Unschedule,
)
from builder.model import Aborted, Artifact, Exited, Period
from builder_server import server as server_module
from builder_server.store import builds

GRACE = 0.2
"""Seconds that a worker of ours may be away: what it had is queued again within the test."""

PATIENCE = 0.2
"""Seconds in which a peer waits for what it may be answered; none of it need come."""

PEERS = 3

HELLOS = {
    "classic client": CLIENT,
    "client": OURS,
    "classic worker": WORKER,
    "worker": OUR_WORKER,
    "unknown": Hello(role=Role.CLIENT, version=99),
}

NOBODY = UUID(int=7)

OF_CLIENTS = ("info", "observe", "show", "cancel", "schedule", "unschedule", "execute", "drop", "undrop")
OF_WORKERS = (
    *("job requested", "ask job", "line", "old line", "line of another", "result", "failure", "result of another"),
    *("return", "wrong return", "give up", "alive"),
)
ENDS = ("garbage", "part", "success", "half-close", "close", "reset")
SAYINGS = (*OF_CLIENTS, *OF_WORKERS, "success")

USUAL = (
    ("worker", "ask job", "wait"),
    ("worker", "ask job", "wait", "line", "result", "wait"),
    ("worker", "return", "wait"),
    ("worker", "return", "wait", "line", "result", "wait"),
    ("worker", "ask job", "wait", "line", "worker", "return", "wait", "line"),
    ("worker", "ask job", "wait", "line", "close", "worker", "return", "wait"),
    ("worker", "wrong return", "wait"),
    ("classic worker", "job requested", "wait"),
    ("classic worker", "job requested", "wait", "line", "result", "wait"),
    ("client", "show", "wait", "cancel", "wait"),
    ("classic client", "info", "wait"),
    ("classic client", "observe", "wait"),
)
"""What is said in its turn, so that there is something to disturb."""

Step = tuple[int, str]
"""The number of a peer, and what it does."""

RESTART: Step = (0, "restart")


def said_by(peer: int, words: Iterable[str]) -> list[Step]:
    return [(peer, word) for word in words]


NUMBERS = st.integers(0, PEERS - 1)
WORDS = st.sampled_from([*HELLOS, *SAYINGS, *ENDS]).map(lambda word: (word,))
OF_ALL = st.sampled_from(["job", "line of the bystander", "settle", "restart"]).map(lambda word: (word,))

STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.one_of(
        st.builds(said_by, NUMBERS, st.sampled_from(USUAL)),
        st.builds(said_by, NUMBERS, WORDS),
        st.builds(said_by, NUMBERS, st.sampled_from(OF_WORKERS).map(lambda word: (word,))),
        st.builds(said_by, st.just(0), OF_ALL),
    ),
    min_size=8,
    max_size=40,
).map(lambda found: [(0, "job"), (0, "job"), *chain.from_iterable(found)])


@define(eq=False)
class Peer:
    """Whoever says anything. What the server says is read at once, and what of it matters is noted."""

    stream: trio.SocketStream
    heard: trio.Event = field(factory=trio.Event)
    """Something was heard since it was waited for."""

    uuid: UUID = NOBODY
    secret: bytes = bytes(32)
    is_ours: bool = False
    stored: list[UUID] = field(factory=list)
    is_wrong: bool = False
    """It came back with a secret that is not that of its attempt."""

    def reset(self) -> None:
        """Have the connection end without the rest of what was sent, when it is closed."""
        with contextlib.suppress(OSError):
            self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def wait(self) -> None:
        """Wait for what may be answered."""
        with trio.move_on_after(PATIENCE):
            await self.heard.wait()
        self.heard = trio.Event()

    async def read(self) -> None:
        """Read until the end of the connection."""
        data = b""
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            while piece := await self.stream.receive_some(65536):
                data += piece
                while len(data) >= 8 and len(data) >= (length := read_length(data, 0)[0]) + 8:
                    self._hear(codec.decode(data[8 : 8 + length]))
                    self.heard.set()
                    data = data[8 + length :]
        self.heard.set()

    def _hear(self, message: Message | JobFinished) -> None:
        match message:
            case Welcome():
                self.is_ours = True
            case GiveJob(uuid=uuid, secret=secret):
                self.uuid, self.secret = uuid, secret
            case JobSchedule(uuid=uuid):
                self.uuid = uuid
            case ResultStored(uuid=uuid):
                self.stored.append(uuid)
            case Continue():
                assert not self.is_wrong, "whoever does not know the secret was let in"

    def says(self, what: str, others: UUID) -> Message | JobFinished:
        """Return a message."""
        match what:
            case "info":
                return Info()
            case "observe":
                return Observe(uuid=others)
            case "show":
                return ShowBuild(target=others.hex[:8])
            case "cancel":
                return CancelBuilds(target=others.hex)
            case "schedule":
                return schedule("x", "p2", period=Period.HOURLY)
            case "unschedule":
                return Unschedule(name="x")
            case "execute":
                return Execute(name="x")
            case "drop":
                return DropPlatform(platform="p2")
            case "undrop":
                return UndropPlatform(platform="p2")
            case "success":
                return Success()
            case "job requested":
                return JobRequested(platform="p1")
            case "ask job":
                return AskJob(platform="p1", worker="w")
            case "line":
                return Output(uuid=self.uuid, line=b"line", timestamp=10**9 if self.is_ours else None)
            case "old line":
                return Output(uuid=self.uuid, line=b"line", timestamp=1)
            case "line of another":
                return Output(uuid=others, line=b"line")
            case "result":
                return JobFinished(
                    uuid=self.uuid, result=Exited(code=0), artifacts=(Artifact(path="a", content=bytes(70_000)),)
                )
            case "failure":
                return JobFinished(uuid=self.uuid, result=Aborted(message="x"), artifacts=())
            case "result of another":
                return JobFinished(uuid=others, result=Exited(code=0), artifacts=())
            case "return":
                return Return(uuid=self.uuid, secret=self.secret, elapsed=1)
            case "wrong return":
                self.is_wrong = True
                return Return(uuid=self.uuid, secret=b"w" * 32, elapsed=1)
            case "give up":
                return GiveUp(uuid=self.uuid, reason="tired")
            case "alive":
                return Alive()
        raise AssertionError(what)


@define(eq=False, kw_only=True)
class World:
    """Who talks to the server, and what it has accepted."""

    readers: trio.Nursery
    peers: dict[int, Peer] = field(factory=dict)
    left: list[Peer] = field(factory=list)
    """Those that say nothing any more, and do not close either."""

    accepted: list[str] = field(factory=list)
    lives: int = 0
    """How many servers there were, one after the other."""

    async def play(self, server: LocalServer, steps: list[Step]) -> None:
        """Take the steps, while somebody else works in peace."""
        self.lives += 1
        await do(server, schedule(f"bystander{self.lives}", "p3", period=Period.NEVER))
        async with take_job(server, "p3") as taken, connect(server, CLIENT) as observer:
            await observer.send(Observe(uuid=taken.uuid))
            for number, what in steps:
                match what:
                    case "job":
                        self.accepted.append(f"job{len(self.accepted)}")
                        await do(server, schedule(self.accepted[-1], period=Period.NEVER))
                    case "line of the bystander":
                        await taken.say(b"line")
                        assert (await observer.receive(Output)).line == b"line"
                    case "settle":
                        await trio.testing.wait_all_tasks_blocked(0.005)
                        await info(server)
                    case _:
                        await self._step(server, number, what)
            await taken.finish()
            assert (await observer.receive(Output)).line == b"exited 0"
            await observer.receive(Success)

    async def _step(self, server: LocalServer, number: int, what: str) -> None:
        peer = self.peers.get(number)
        if what in HELLOS:
            await self._connect(server, number)
            await self._send(number, framed(HELLOS[what]))
            await self.peers[number].wait()
        elif peer is None:
            return
        elif what in SAYINGS:
            others = self.peers.get((number + 1) % PEERS, peer).uuid
            await self._send(number, framed(peer.says(what, others)))
        elif what == "wait":
            await peer.wait()
        elif what == "garbage":
            await self._send(number, bytes(range(255, 0, -1)))
        elif what == "part":
            data = framed(peer.says("result", NOBODY))
            await self._send(number, data[: len(data) // 2])
        elif what == "half-close":
            with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                await peer.stream.send_eof()
        else:
            if what == "reset":
                peer.reset()
            await trio.aclose_forcefully(peer.stream)

    async def _connect(self, server: LocalServer, number: int) -> None:
        """Have a new connection; who has said something on another one before still knows what it heard there."""
        peer = Peer(await trio.open_tcp_stream("127.0.0.1", server.port))
        self.readers.start_soon(peer.read)
        if before := self.peers.get(number):
            self.left.append(before)
            peer.uuid, peer.secret = before.uuid, before.secret
        self.peers[number] = peer

    async def _send(self, number: int, data: bytes) -> None:
        try:
            with trio.fail_after(DEADLINE):
                await self.peers[number].stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await trio.aclose_forcefully(self.peers[number].stream)

    async def settle(self, server: LocalServer) -> None:
        """Have all go, and a worker that does what is left; then everything is accounted for."""
        everybody = (*self.left, *self.peers.values())
        for peer in everybody:
            await trio.aclose_forcefully(peer.stream)
        await eventually_async(lambda: is_quiet(server), what="the end of what ran")
        while (await queues(server)).get("p1"):
            await build(server)
        ends = server.query("select name, uuid from build where state = 'finished'")
        assert sorted(name for name, _ in ends if name in self.accepted) == sorted(self.accepted)
        stored = {str(uuid) for peer in everybody for uuid in peer.stored}
        assert stored <= {uuid for _, uuid in ends}, "a worker was told that it is stored"


async def is_quiet(server: LocalServer) -> bool:
    return not (await info(server)).running


def framed(message: Message | JobFinished) -> bytes:
    return frame(codec.encode(message))


async def play(root: Path, steps: list[Step]) -> None:
    """Take the steps; the server is stopped and started where they say so."""
    async with trio.open_nursery() as readers:
        world = World(readers=readers)
        while RESTART in steps:
            end = steps.index(RESTART)
            async with run_server(root, grace=GRACE) as server:
                await world.play(server, steps[:end])
            steps = steps[end + 1 :]
        async with run_server(root, grace=GRACE) as server:
            await world.play(server, steps)
            await world.settle(server)


class Faults(logging.Handler):
    """Those of the server's own that it logs."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info or "internal error" in record.getMessage():
            self.found.append(self.format(record))


def check(root: Path, steps: list[Step]) -> None:
    faults = Faults()
    logging.getLogger().addHandler(faults)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(builds, "PAUSE", dt.timedelta())
            patch.setattr(server_module, "SHUTDOWN_TIMEOUT", 0.2)
            trio.run(play, root, steps)
    finally:
        logging.getLogger().removeHandler(faults)
    assert faults.found == []


@given(STEPS)
@settings(max_examples=8)
def test_nothing_is_lost_whatever_peers_say(tmp_path_factory: pytest.TempPathFactory, steps: list[Step]) -> None:
    check(tmp_path_factory.mktemp("server"), steps)


@pytest.mark.long
@given(STEPS)
@settings(max_examples=400)
def test_nor_is_it_in_many_more_cases(tmp_path_factory: pytest.TempPathFactory, steps: list[Step]) -> None:
    check(tmp_path_factory.mktemp("server"), steps)
