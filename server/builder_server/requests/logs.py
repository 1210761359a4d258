"""Requests about consoles, and what observers of the classic protocol are sent of one."""

import os

import trio
from attrs import define, evolve

from builder import codec
from builder.extension.logs import ConsoleRange, ReadConsole
from builder.framing import frame
from builder.messages import Output
from builder_server import console
from builder_server.attempts import Observed
from builder_server.console import ConsoleWriter
from builder_server.errors import CommandRefused
from builder_server.farm import TAKEOVER
from builder_server.memory import SharingChannel
from builder_server.requests import Asked, Handlers
from builder_server.store import BuildHead
from builder_server.upstream import Absent

OBSERVER_TIMEOUT = 3600.0
"""Seconds without progress after which an observer is given up: people stop their terminals and go to lunch."""

PAUSE = 0.5
"""Seconds after which a server that did not answer is asked again, or the one that has the build instead."""


async def show(asked: Asked, request: ReadConsole, *, tells_range: bool = True) -> Observed | None:
    """Send a console, wherever it is; return the build, None if there is none. ``tells_range``: ConsoleRange comes before it.

    One that is followed goes on where its build goes on, if that moves to another server meanwhile. Raises OSError,
    CommandRefused and StoreError.
    """
    asked.channel.bound_unsent(OBSERVER_TIMEOUT)
    part = _Part(channel=asked.channel, wanted=request, tells_range=tells_range)
    patient_until = trio.current_time() + TAKEOVER
    found: Observed | None = None
    while (there := await asked.attempts.find(request.uuid)) is not None:
        found, trouble = there, None
        if owner := asked.elsewhere(found.owner):
            trouble = await part.relay(asked, owner)
            if part.was_let_in:
                patient_until = trio.current_time() + TAKEOVER
        else:
            await part.send(found)
        if trouble is None and not request.follow:
            break
        build = await asked.store.find_head(request.uuid)
        runs = build is not None and build.state == "running"
        if trouble is None and (not runs or not _may_move(asked, build)):
            break
        may_go_on = runs and (request.follow or part.sent is None) and trio.current_time() < patient_until
        if trouble is not None and not may_go_on:
            raise asked.farm.refusal(f"the console of {request.uuid}", owner or "", trouble) from trouble
        await trio.sleep(PAUSE)
    return found


def _may_move(asked: Asked, build: BuildHead | None) -> bool:
    """Return whether a build that runs, and whose console ended, goes on where this server can send it from.

    One that has just come here is in nobody's hands for a moment.
    """
    may_come = not asked.is_relayed or (build is not None and asked.store.is_mine(build.owner))
    return may_come and asked.store.database.is_shared


@define(kw_only=True)
class _Part:
    """Sends a console part by part: what is ``wanted`` of it follows what was ``sent``, None before the first."""

    channel: SharingChannel
    wanted: ReadConsole
    tells_range: bool
    sent: int | None = None
    was_let_in: bool = False
    """Whether the server that was asked last has answered at all."""

    async def _begin(self, offset: int, size: int) -> bool:
        """Tell where it begins, before the first part; return whether this one follows what was sent."""
        if self.sent is not None:
            return offset >= self.sent
        if self.tells_range:
            await self.channel.send(ConsoleRange(offset=offset, size=size))
        self._note_sent(offset)
        return True

    def _note_sent(self, offset: int) -> None:
        self.sent = offset
        self.wanted = evolve(self.wanted, offset=offset, last=None)

    async def relay(self, asked: Asked, owner: str) -> Absent | None:
        """Send what another server has; return why that was not all."""
        self.was_let_in = False
        try:
            async with asked.farm.upstream(owner, asked.client) as upstream:
                self.was_let_in = True
                if self.wanted.follow:
                    await asked.farm.follow(upstream, owner, self.wanted)
                else:
                    await upstream.ask(self.wanted)
                if not isinstance(told := await upstream.next(), ConsoleRange):
                    return Absent("it does not tell where the console begins")
                offset = told.offset
                if not await self._begin(offset, told.size):
                    return None  # its end was thrown away
                while part := await upstream.next_frames():
                    frames = part if isinstance(part, bytes) else frame(codec.encode(part))
                    await _send(self.channel, frames)
                    offset += len(frames)
                    self._note_sent(offset)
        except Absent as error:
            return error
        return None

    async def send(self, found: Observed) -> None:
        """Send what is here."""
        try:
            file = await trio.open_file(found.console, "rb", buffering=0)
        except FileNotFoundError:
            await self._begin(0, 0)
            return  # the build ended before its console began
        async with file:
            descriptor = file.wrapped.fileno()
            if found.live and self.wanted.follow:
                await _wait_size(found.live, self.wanted.offset)
            size = found.live.size if found.live else os.fstat(descriptor).st_size
            start, end = await trio.to_thread.run_sync(_range, descriptor, size, self.wanted)
            if not await self._begin(start, size):
                return
            if found.live and self.wanted.follow:
                self._note_sent(await _follow(self.channel, descriptor, found.live, start))
            elif found.live:
                await _copy(self.channel, descriptor, start, end)
            else:
                old = console.OldConsole(descriptor, end, start, start)
                while data := await trio.to_thread.run_sync(old.read):
                    await _send(self.channel, data)


async def _wait_size(live: ConsoleWriter, size: int) -> None:
    """Wait until so much is there: a worker that has come back to another server sends all of it again."""
    while live.size < size and not live.closed:
        await live.changed.wait()


def _range(descriptor: int, size: int, asked: ReadConsole) -> tuple[int, int]:
    """Return where the lines that were asked for begin and end."""
    if asked.last is not None:
        return console.last_lines(descriptor, asked.uuid, size, asked.last), size
    offset = asked.offset if asked.offset >= 0 else max(0, size + asked.offset)
    start = console.line_from(descriptor, asked.uuid, size, offset)
    if asked.length is None:
        return start, size
    end = offset + asked.length
    return start, start if end <= start else console.line_from(descriptor, asked.uuid, size, end)


async def _follow(channel: SharingChannel, descriptor: int, live: ConsoleWriter, offset: int) -> int:
    """Send what comes from there on, to the end; return where that is."""
    while True:
        # in this order: what is written after a look at the size is seen at the next turn
        changed = None if live.closed else live.changed
        offset = await _copy(channel, descriptor, offset, live.size)
        if changed is None:
            return offset
        await changed.wait()  # for as long as the job is silent, and that is bounded by its time limit


async def _copy(channel: SharingChannel, descriptor: int, offset: int, end: int) -> int:
    """Send what stands there, as far as there is anything; return where that ends."""
    while offset < end:
        count = min(console.READ_SIZE, end - offset)
        data = await trio.to_thread.run_sync(os.pread, descriptor, count, offset)
        if not data:
            break
        offset += len(data)
        await _send(channel, data)
    return offset


async def _send(channel: SharingChannel, data: bytes) -> None:
    with trio.fail_after(OBSERVER_TIMEOUT):
        await channel.send_bytes(Output, data)


async def read(asked: Asked, request: ReadConsole) -> None:
    """Send a console."""
    request.check()
    if await show(asked, request) is None:
        raise CommandRefused(f"there is no build {request.uuid}")


HANDLERS: Handlers = {ReadConsole: read}
