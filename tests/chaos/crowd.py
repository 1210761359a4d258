"""Who is at work while faults come: clients that schedule and cancel, workers of the classic protocol, observers.

What a peer was told is noted, for the account. What the connection does to it is no fault of the farm.
"""

from collections.abc import Sequence
from random import Random
from uuid import UUID

import trio
from attrs import define, field
from scripted import CLIENT, OURS, ScriptedPeer, Taken

from builder.errors import ProtocolError
from builder.extension.builds import BuildCancelled, CancelBuilds
from builder.extension.order import ALL
from builder.messages import (
    WORKER_VERSION,
    Failure,
    Hello,
    Info,
    InfoReply,
    JobRequested,
    JobSchedule,
    Message,
    Observe,
    Output,
    Role,
    Schedule,
    Success,
)
from builder.model import Period
from builder.order import Side
from builder.runtime.channel import Channel
from chaos.jobs import Work, own

OURS_PLATFORM, CLASSIC_PLATFORM = "ours", "classic"

BROKEN = (OSError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError, ProtocolError)
"""What a peer meets whose connection, or whose server, has gone."""

PATIENCE = 10.0
"""Seconds that a peer waits for an answer."""


@define(eq=False, kw_only=True)
class Told:
    """What peers were told, by the names of jobs."""

    accepted: dict[str, Work] = field(factory=dict)
    unknown: dict[str, Work] = field(factory=dict)
    """Asked for, and nobody knows whether the server has heard it."""

    cancelled: set[UUID] = field(factory=set)
    recorded: set[UUID] = field(factory=set)
    """By workers of the classic protocol, whose connection was closed in order."""

    observed: int = 0
    wrong: list[str] = field(factory=list)
    """What nobody should ever have been told."""

    def work(self, name: str) -> Work | None:
        """Return what a job was to do."""
        return self.accepted.get(name) or self.unknown.get(name)


@define(eq=False, kw_only=True)
class Crowd:
    """The peers; ``ports`` are those of the proxies, in front of a server each."""

    ports: Sequence[int]
    chance: Random
    told: Told = field(factory=Told)
    is_over: bool = False
    """No more work comes."""

    _count: int = 0

    async def connect(self, hello: Hello) -> ScriptedPeer:
        """Return a peer that was greeted. Raises one of BROKEN."""
        with trio.fail_after(PATIENCE):
            stream = await trio.open_tcp_stream("127.0.0.1", self.chance.choice(self.ports))
            peer = ScriptedPeer(stream, Channel(stream, Side.PEER, ALL))
            try:
                await peer.channel.send(hello)
                await peer.channel.receive()
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
        return peer

    async def schedule(self, pause: float) -> None:
        """Schedule jobs, one after the other, that run once."""
        while not self.is_over:
            self._count += 1
            work = Work(
                name=f"job{self._count}",
                platform=self.chance.choice((OURS_PLATFORM, OURS_PLATFORM, CLASSIC_PLATFORM)),
                lines=self.chance.choice((1, 20, 300, 2000)),
                every=self.chance.choice((20, 100, 1000)),
            )
            await self.ask_for(work)
            await trio.sleep(self.chance.uniform(0, 2 * pause))

    async def ask_for(self, work: Work) -> bool:
        """Schedule a job that runs once; return whether it was accepted for certain."""
        self.told.unknown[work.name] = work
        try:
            reply = await self._ask(Schedule(period=Period.NEVER, job=work.job))
        except BROKEN:
            return False
        if reply == Success():
            self.told.accepted[work.name] = self.told.unknown.pop(work.name)
        elif isinstance(reply, Failure) and "the server failed" not in reply.message:
            self.told.wrong.append(f"{work.name} was refused: {reply.message}")
        return reply == Success()

    async def _ask(self, request: Message) -> Message:
        peer = await self.connect(CLIENT)
        async with peer.stream:
            with trio.fail_after(PATIENCE):
                await peer.channel.send(request)
                reply = await peer.channel.receive()
                assert isinstance(reply, Success | Failure), reply
                return reply

    async def cancel(self, pause: float) -> None:
        """Cancel what runs, now and then."""
        while not self.is_over:
            await trio.sleep(self.chance.uniform(0, 2 * pause))
            try:
                if running := (await self._running()):
                    uuid = self.chance.choice(running)
                    peer = await self.connect(OURS)
                    async with peer.stream:
                        with trio.fail_after(PATIENCE):
                            replies = await peer.request(CancelBuilds(target=uuid.hex))
                    if replies[-1] == Success():
                        self.told.cancelled.update(one.uuid for one in replies if isinstance(one, BuildCancelled))
            except (*BROKEN, AssertionError):
                pass

    async def _running(self) -> list[UUID]:
        peer = await self.connect(CLIENT)
        async with peer.stream:
            with trio.fail_after(PATIENCE):
                await peer.channel.send(Info())
                reply = await peer.channel.receive()
                return [build.uuid for build in reply.running] if isinstance(reply, InfoReply) else []

    async def observe(self) -> None:
        """Observe what runs, and hold what comes against what the job says."""
        while not self.is_over:
            await trio.sleep(self.chance.uniform(0, 0.5))
            try:
                if running := await self._running():
                    await self._observe(self.chance.choice(running))
            except BROKEN:
                pass

    async def _observe(self, uuid: UUID) -> None:
        peer = await self.connect(CLIENT)
        lines: list[bytes] = []
        async with peer.stream:
            await peer.channel.send(Observe(uuid=uuid))
            with trio.move_on_after(self.chance.uniform(0, PATIENCE)):
                try:
                    while isinstance(message := await peer.channel.receive(), Output):
                        lines.append(message.line)
                    self.told.observed += 1
                    lines = lines[:-1] if message == Success() else lines  # the last one is the result
                except BROKEN:
                    pass
        found = own(lines)
        work = self.told.work(found[0].split()[0].decode()) if found else None
        if work and found != work.says()[: len(found)]:
            self.told.wrong.append(
                f"an observer of {uuid} ({work.name}) saw lines that are not the first in their order"
            )

    async def work_classic(self) -> None:
        """Be a worker of the classic protocol, which does what the jobs would do."""
        while True:
            try:
                peer = await self.connect(Hello(role=Role.WORKER, version=WORKER_VERSION))
                async with peer.stream:
                    await peer.channel.send(JobRequested(platform=CLASSIC_PLATFORM))
                    given = await peer.channel.receive()
                    assert isinstance(given, JobSchedule)
                    await self._do(Taken(peer=peer, uuid=given.uuid, job=given.job))
            except (*BROKEN, AssertionError):
                await trio.sleep(self.chance.uniform(0, 0.5))

    async def _do(self, taken: Taken) -> None:
        work = self.told.work(taken.job.name)
        assert work, "it was asked for here"
        lines = work.says()
        for first in range(0, len(lines), work.every):
            await taken.say(*lines[first : first + work.every])
            await trio.sleep(0.05)
        await taken.finish(artifacts=work.artifacts)
        self.told.recorded.add(taken.uuid)
