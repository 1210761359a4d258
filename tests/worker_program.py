"""builder-worker as a process, and the smallest server that can talk to it: what the tests of the worker share."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import forked
import trio
from attrs import define, field

from builder import codec
from builder.execution import ArtifactData, ArtifactStart, FinishedHead, FinishedReader
from builder.extension import VERSION, Welcome
from builder.extension.order import ALL
from builder.extension.working import SECRET_SIZE, AskJob, BuildFacts, Continue, GiveJob, Return
from builder.framing import StreamedFrame, frame
from builder.messages import Hello, JobRequested, JobSchedule, Output, ServerHello
from builder.model import Result, ScriptJob, text
from builder.order import Side, State
from builder.runtime.channel import Channel
from builder_worker import dial

ROOT = Path(__file__).parent.parent
UUID_1 = UUID("323b2a40-25d1-4f8e-90af-a4e2b9fd7f22")
DEADLINE = float(os.environ.get("BUILDER_TEST_DEADLINE", "60"))
"""Seconds that no step of a test takes, however busy the machine is; more are set where it is emulated."""


@define(kw_only=True)
class Finished:
    """What a worker delivered."""

    lines: list[bytes] = field(factory=list)
    result: Result | None = None
    artifacts: dict[bytes, bytes] = field(factory=dict)
    order: list[bytes] = field(factory=list)

    @property
    def own_lines(self) -> list[bytes]:
        """The lines of the job itself."""
        return [line for line in self.lines if not line.startswith(b"builder-worker: ")]

    @property
    def remarks(self) -> list[str]:
        """What the worker itself said."""
        return [
            text(line).removeprefix("builder-worker: ") for line in self.lines if line.startswith(b"builder-worker: ")
        ]


class WorkerConnection:
    """The server's end of a worker's connection, played step by step."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self.channel = Channel(stream, Side.SERVER)
        self.platform = ""
        self.facts: dict[str, str] = {}

    async def greet(self) -> None:
        """Greet the worker and wait until it wants a job."""
        await self.channel.receive_expected(Hello)
        await self.channel.send(ServerHello())
        self.platform = (await self.channel.receive_expected(JobRequested)).platform

    async def hand_out(self, script: bytes, *, name: str = "job", uuid: UUID | None = None) -> None:
        """Give the worker a job, greeting it first if that was not done.

        Each has a uuid of its own: by it, what is left of a job is found and killed, also that of another test run.
        """
        if not self.platform:
            await self.greet()
        job = ScriptJob(name=name, platform=self.platform, script=script)
        await self.channel.send(JobSchedule(uuid=uuid or uuid4(), job=job))

    async def read_line(self) -> bytes:
        """Return the next console line."""
        message = await self.next()
        assert isinstance(message, Output)
        return message.line

    async def next(self) -> object:
        """Return what comes next besides how the job is run, which is kept."""
        while isinstance(message := await self.channel.receive(), BuildFacts):
            message.check()
            self.facts = {fact.name: fact.value for fact in message.facts}
        return message

    async def finish(self, *, keep: bool = True) -> Finished:
        """Read all lines and the result; without ``keep``, count contents and lines and forget them."""
        finished = Finished()
        while not isinstance(message := await self.next(), StreamedFrame):
            assert isinstance(message, Output)
            finished.lines.append(message.line if keep else b"")
        reader = FinishedReader()
        while data := await self.channel.receive_body():
            for event in reader.feed(data):
                match event:
                    case FinishedHead():
                        finished.result = event.result
                    case ArtifactStart():
                        finished.order.append(os.fsencode(event.path))
                        finished.artifacts[finished.order[-1]] = b""
                    case ArtifactData() if keep:
                        finished.artifacts[finished.order[-1]] += event.data
        reader.finish()
        return finished


class OurConnection(WorkerConnection):
    """The same in our own protocol."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream  # type: ignore[assignment]  # no socket in some tests
        self.channel = Channel(stream, Side.SERVER, ALL)

    async def hear(self) -> AskJob | Return:
        """Greet the worker, if that was not done, and return what it wants."""
        if self.channel.connection.states[Side.PEER] is State.OPENING:
            assert await self.channel.receive_expected(Hello) == dial.OURS
            await self.channel.send(Welcome(version=VERSION))
        wish = await self.channel.receive()
        assert isinstance(wish, AskJob | Return)
        return wish

    async def give(self, script: bytes, *, time_limit: int | None = None, max_silent: int | None = None) -> GiveJob:
        """Wait until the worker wants a job, and give it one."""
        wish = await self.hear()
        assert isinstance(wish, AskJob)
        job = ScriptJob(name="job", platform=wish.platform, script=script)
        given = GiveJob(
            uuid=uuid4(), job=job, secret=os.urandom(SECRET_SIZE), time_limit=time_limit, max_silent=max_silent
        )
        await self.channel.send(given)
        return given

    async def go_on(self, given: GiveJob, lines: int) -> Return:
        """Wait until the worker comes back to its job, and let it go on with a line."""
        wish = await self.hear()
        assert isinstance(wish, Return)
        assert (wish.uuid, wish.secret) == (given.uuid, given.secret)
        await self.channel.send(Continue(lines=lines))
        return wish


_OURS = frame(codec.encode(dial.OURS))


async def _first_bytes(stream: trio.SocketStream) -> bytes:
    """Return what has come first, and leave it there."""
    return await stream.socket.recv(len(_OURS), socket.MSG_PEEK)


class Server:
    """Listens on a free loopback port and hands its connections to the test one by one."""

    def __init__(self, listener: trio.SocketListener) -> None:
        self._listener = listener
        self.address = f"127.0.0.1:{listener.socket.getsockname()[1]}"

    @asynccontextmanager
    async def accept(self) -> AsyncIterator[WorkerConnection]:
        """Take the next connection of the classic protocol, and close it in the end: it speaks no other."""
        stream = await self._listener.accept()
        while await _first_bytes(stream) == _OURS:
            await stream.aclose()
            stream = await self._listener.accept()
        async with stream:
            yield WorkerConnection(stream)

    @asynccontextmanager
    async def accept_ours(self) -> AsyncIterator[OurConnection]:
        """Take the next connection, of our own protocol, and close it in the end."""
        async with await self._listener.accept() as stream:
            yield OurConnection(stream)

    async def aclose(self) -> None:
        """Stop listening."""
        await self._listener.aclose()

    async def listen_again(self) -> None:
        """Listen at the same address."""
        port = int(self.address.rpartition(":")[2])
        (self._listener,) = await trio.open_tcp_listeners(port, host="127.0.0.1")


@asynccontextmanager
async def open_server() -> AsyncIterator[Server]:
    """Listen; everything within has one deadline."""
    with trio.fail_after(DEADLINE):
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        server = Server(listener)
        try:
            yield server
        finally:
            await server.aclose()


def without_leftovers(log: str) -> str:
    """Return a worker's log without what it says of control groups that it removed: those of other tests' workers."""
    return "".join(line for line in log.splitlines(keepends=True) if "removed the control group" not in line)


Running = forked.Process | subprocess.Popen[bytes]


class Worker:
    """A running builder-worker."""

    def __init__(self, process: Running, log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        """What it has written to standard error, but of what others have left."""
        return without_leftovers(self._log.read_text())

    async def wait(self) -> int:
        """Wait for its end and return its exit status."""
        await wait_gone(self.process.pid)
        return self.process.wait()


@asynccontextmanager
async def run_worker(
    directory: Path,
    *arguments: str,
    platform: str = "p1",
    environment: dict[str, str] | None = None,
    sandbox: str | None = "none",
    prefix: Sequence[str] = (),
    keeps_jobs: bool = False,
) -> AsyncIterator[Worker]:
    """Run builder-worker, by another program that ``prefix`` names, with its jobs' directories below ``directory``;
    kill it in the end, and its jobs, unless those are for another one.
    """
    if sandbox:
        arguments = ("--sandbox", sandbox, *arguments)
    log = directory / "worker.log"
    work = directory / "work"
    work.mkdir(exist_ok=True)
    path = os.pathsep.join(entry for entry in sys.path if entry)
    start: Callable[..., Running] = partial(forked.start, "builder_worker")
    if prefix:
        start = partial(_start, prefix)
    with log.open("ab") as output:
        process = start(
            platform,
            "--work-dir",
            str(work),
            *arguments,
            stdout=output,
            stderr=output,
            env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONPATH": path, **(environment or {})},
            cwd=directory,
        )
    try:
        yield Worker(process, log)
    finally:
        process.kill()
        process.wait()
        if not keeps_jobs:
            end_jobs(work)


def end_jobs(work: Path) -> None:
    """End the jobs that a worker has left in its place: a supervisor ends with its job."""
    for record in work.glob("builder-*/record"):
        with suppress(ProcessLookupError):
            os.kill(json.loads(record.read_text())["supervisor"], signal.SIGKILL)


def _start(prefix: Sequence[str], *arguments: str, **options: Any) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [*prefix, sys.executable, "-m", "builder_worker", *arguments], stdin=subprocess.DEVNULL, **options
    )


async def wait_gone(pid: int) -> None:
    """Wait until a process has ended. It need not be a child."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        await trio.lowlevel.wait_readable(fd)
    finally:
        os.close(fd)


async def run_script(
    directory: Path,
    script: bytes,
    *arguments: str,
    prefix: Sequence[str] = (),
    environment: dict[str, str] | None = None,
) -> Finished:
    """Run one script through a worker and return what it delivered."""
    async with (
        open_server() as server,
        run_worker(directory, "-r", server.address, *arguments, prefix=prefix, environment=environment) as worker,
    ):
        async with server.accept() as connection:
            await connection.hand_out(script)
            finished = await connection.finish()
        status = await worker.wait()
        assert status == 0, worker.log
        assert not list((directory / "work").iterdir()), "the job's directory is left"
        return finished


def interrupt(worker: Worker, number: signal.Signals = signal.SIGTERM) -> None:
    """Send the worker a signal."""
    worker.process.send_signal(number)
