"""Scripted peers of a server under test: they say exactly what the test wants them to.

``connect`` gives a ScriptedPeer; ``ask``, ``take_job`` and ``build`` are the usual exchanges.
"""

import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TypeVar
from uuid import UUID

import trio
from attrs import frozen
from farm import DEADLINE, Reachable, eventually_async

from builder import codec
from builder.extension import VERSION, Welcome
from builder.extension.order import ALL
from builder.extension.working import Alive, AskJob, Continue, GiveJob, Gone, ResultStored, Return
from builder.framing import frame
from builder.messages import (
    CLIENT_VERSION,
    WORKER_VERSION,
    Failure,
    Hello,
    Info,
    InfoReply,
    JobFinished,
    JobRequested,
    JobSchedule,
    Message,
    Observe,
    Output,
    Role,
    Schedule,
    ServerHello,
    Success,
)
from builder.model import Artifact, Exited, Period, Result, RunningBuild, ScriptJob
from builder.order import Side
from builder.runtime.channel import Channel

T = TypeVar("T")

OURS = Hello(role=Role.CLIENT, version=VERSION)
CLIENT = Hello(role=Role.CLIENT, version=CLIENT_VERSION)
WORKER = Hello(role=Role.WORKER, version=WORKER_VERSION)
OUR_WORKER = Hello(role=Role.WORKER, version=VERSION)


@frozen
class ScriptedPeer:
    """A client or a worker that says what the test wants, in the protocol's order or with ``send_raw`` in none."""

    stream: trio.SocketStream
    channel: Channel

    async def greet(self, hello: Hello) -> None:
        await self.channel.send(hello)
        if hello.version < VERSION:
            await self.receive(ServerHello)
        else:
            assert (await self.receive(Welcome)).version == VERSION

    async def request(self, request: Message) -> list[Message]:
        """Return all that is answered to a request of our own protocol, Success or Failure last."""
        await self.send(request)
        replies = [await self.receive_any()]
        while not isinstance(replies[-1], Success | Failure):
            replies.append(await self.receive_any())
        return replies

    async def send(self, *messages: Message) -> None:
        with trio.fail_after(DEADLINE):
            await self.channel.send(*messages)

    async def send_raw(self, data: bytes) -> None:
        with trio.fail_after(DEADLINE):
            await self.stream.send_all(data)

    async def receive(self, kind: type[T]) -> T:
        """Return the next message, which must be of that kind."""
        with trio.fail_after(DEADLINE):
            message = await self.channel.receive()
        assert isinstance(message, kind), message
        return message

    async def receive_any(self) -> Message:
        with trio.fail_after(DEADLINE):
            message = await self.channel.receive()
        assert not isinstance(message, JobFinished)
        return message  # type: ignore[return-value]  # no server sends a job finished

    async def wait_closed(self, deadline: float = DEADLINE) -> bytes:
        """Wait until the server closes, and return what it still sent."""
        data = b""
        end = time.monotonic() + deadline
        while True:
            try:
                with trio.fail_after(max(0.0, end - time.monotonic())):
                    piece = await self.stream.receive_some(65536)
            except trio.BrokenResourceError:  # it reset the connection, or closed with bytes of ours unread
                return data
            if not piece:
                return data
            data += piece

    async def wait_end(self) -> str:
        """Wait until the server ends the connection without a word, and return how: ``closed`` or ``reset``."""
        try:
            with trio.fail_after(DEADLINE):
                assert await self.stream.receive_some(65536) == b""
        except trio.BrokenResourceError:
            return "reset"
        return "closed"


@asynccontextmanager
async def connect(server: Reachable, hello: Hello | None = None) -> AsyncIterator[ScriptedPeer]:
    """Connect to a server, and greet it with ``hello`` if there is one."""
    with trio.fail_after(DEADLINE):
        stream = await trio.open_tcp_stream("127.0.0.1", server.port)
    async with stream:
        peer = ScriptedPeer(stream, Channel(stream, Side.PEER, ALL))
        if hello is not None:
            with trio.fail_after(DEADLINE):
                await peer.greet(hello)
        yield peer


async def ask(server: Reachable, command: Message) -> Success | Failure:
    """Have a client give one command, and return the server's last word."""
    async with connect(server, CLIENT) as peer:
        await peer.send(command)
        return await peer.receive(Success | Failure)  # type: ignore[arg-type]


async def do(server: Reachable, *commands: Message) -> None:
    """Give commands that must succeed."""
    for command in commands:
        reply = await ask(server, command)
        assert reply == Success(), f"{command}: {reply}"


async def info(server: Reachable) -> InfoReply:
    async with connect(server, CLIENT) as peer:
        await peer.send(Info())
        reply = await peer.receive(InfoReply)
        await peer.receive(Success)
        return reply


def script(name: str, platform: str = "p1", script: bytes = b"#!/bin/sh\nexit 0\n") -> ScriptJob:
    return ScriptJob(name=name, platform=platform, script=script)


def schedule(
    name: str, platform: str = "p1", *, period: Period = Period.DAILY, text: bytes = b"#!/bin/sh\n"
) -> Schedule:
    """Return the command that schedules a script."""
    return Schedule(period=period, job=script(name, platform, text))


async def queues(server: Reachable) -> dict[str, list[str]]:
    """Return the names of the jobs in each queue."""
    return {queue.platform: [job.name for job in queue.jobs] for queue in (await info(server)).queues}


@frozen(kw_only=True)
class Taken:
    """A job that a scripted worker has."""

    peer: ScriptedPeer
    uuid: UUID
    job: ScriptJob

    async def say(self, *lines: bytes) -> None:
        """Send console lines."""
        await self.peer.send(*(Output(uuid=self.uuid, line=line) for line in lines))

    async def finish(self, result: Result | None = None, artifacts: Iterable[Artifact] = ()) -> None:
        """Send the result, and wait until the server has recorded it and closes in order."""
        await self.send_result(result, artifacts)
        if await self.peer.wait_end() != "closed":
            raise trio.BrokenResourceError("the server has reset the connection")

    async def send_result(self, result: Result | None = None, artifacts: Iterable[Artifact] = ()) -> None:
        body = codec.encode(JobFinished(uuid=self.uuid, result=result or Exited(code=0), artifacts=tuple(artifacts)))
        with trio.fail_after(DEADLINE):
            await self.peer.channel.send_bytes(JobFinished, frame(body))


@asynccontextmanager
async def waiting_worker(server: Reachable, platform: str = "p1") -> AsyncIterator[ScriptedPeer]:
    """Connect a worker that asks for a job; it may have to wait."""
    async with connect(server, WORKER) as peer:
        await peer.send(JobRequested(platform=platform))
        yield peer


async def given_job(peer: ScriptedPeer) -> Taken:
    """Wait for the job of a worker that asked."""
    message = await peer.receive(JobSchedule)
    return Taken(peer=peer, uuid=message.uuid, job=message.job)


@asynccontextmanager
async def take_job(server: Reachable, platform: str = "p1") -> AsyncIterator[Taken]:
    """Connect a worker and get a job."""
    async with waiting_worker(server, platform) as peer:
        yield await given_job(peer)


async def build(
    server: Reachable,
    platform: str = "p1",
    *,
    lines: Iterable[bytes] = (),
    result: Result | None = None,
    artifacts: Iterable[Artifact] = (),
) -> tuple[UUID, ScriptJob]:
    """Have a worker do a whole job; return the uuid of the build and the job."""
    async with take_job(server, platform) as taken:
        for line in lines:
            await taken.say(line)
        await taken.finish(result, artifacts)
        return taken.uuid, taken.job


async def lose_worker(server: Reachable, platform: str = "p1") -> UUID:
    """Have a worker take a job and vanish; return the uuid when the server no longer counts it as running."""
    async with take_job(server, platform) as taken:
        uuid = taken.uuid

    async def gone() -> bool:
        return uuid not in [build.uuid for build in (await info(server)).running]

    await eventually_async(gone, what="the end of the lost build")
    return uuid


async def running(server: Reachable) -> tuple[RunningBuild, ...]:
    return (await info(server)).running


async def observe(server: Reachable, uuid: UUID) -> list[Output] | Failure:
    """Observe a build until its end; the last output is the result."""
    async with connect(server, CLIENT) as peer:
        await peer.send(Observe(uuid=uuid))
        found: list[Output] = []
        while isinstance(message := await peer.receive_any(), Output):
            found.append(message)
        assert isinstance(message, Success | Failure)
        return found if isinstance(message, Success) else message


# --- workers of our own protocol -----------------------------------------------------------------------------------


@frozen(kw_only=True)
class Given:
    """A job that a scripted worker of our own protocol has. Its lines are numbered, and come a microsecond apart."""

    uuid: UUID
    job: ScriptJob
    secret: bytes
    time_limit: int | None = None
    max_silent: int | None = None

    def line(self, number: int) -> Output:
        return Output(uuid=self.uuid, line=b"line %d" % number, timestamp=1000 * number)

    async def say(self, peer: ScriptedPeer, begin: int, end: int) -> None:
        """Send the lines of a range."""
        await peer.send(*map(self.line, range(begin, end)))

    async def send_result(
        self, peer: ScriptedPeer, result: Result | None = None, artifacts: Iterable[Artifact] = ()
    ) -> None:
        body = codec.encode(JobFinished(uuid=self.uuid, result=result or Exited(code=0), artifacts=tuple(artifacts)))
        with trio.fail_after(DEADLINE):
            await peer.channel.send_bytes(JobFinished, frame(body))

    async def finish(
        self, peer: ScriptedPeer, result: Result | None = None, artifacts: Iterable[Artifact] = ()
    ) -> None:
        """Send the result, and wait until it is recorded."""
        await self.send_result(peer, result, artifacts)
        assert await said(peer) == ResultStored(uuid=self.uuid)

    async def come_back(
        self, peer: ScriptedPeer, *, elapsed: int = 0, has_ended: bool = False, secret: bytes | None = None
    ) -> Message:
        """Say that the worker is back, and return the answer."""
        await peer.send(Return(uuid=self.uuid, secret=secret or self.secret, elapsed=elapsed, has_ended=has_ended))
        return await peer.receive(Continue | ResultStored | Gone)  # type: ignore[arg-type]


async def said(peer: ScriptedPeer) -> Message:
    """Return what a server says next besides that it lives."""
    while isinstance(message := await peer.receive_any(), Alive):
        pass
    return message


async def ask_job(peer: ScriptedPeer, platform: str = "p1") -> Given:
    """Ask for a job, and wait for it."""
    await peer.send(AskJob(platform=platform, worker="w"))
    given = await peer.receive(GiveJob)
    return Given(
        uuid=given.uuid,
        job=given.job,
        secret=given.secret,
        time_limit=given.time_limit,
        max_silent=given.max_silent,
    )
