"""Requests about consoles, and what observers of the classic protocol are sent of one."""

import os

import trio

from builder.extension.logs import ConsoleRange, ReadConsole
from builder.messages import Output
from builder_server import console
from builder_server.attempts import Observed
from builder_server.console import ConsoleWriter
from builder_server.errors import CommandRefused
from builder_server.memory import SharingChannel
from builder_server.requests import Asked, Handlers

OBSERVER_TIMEOUT = 3600.0
"""Seconds without progress after which an observer is given up: people stop their terminals and go to lunch."""


async def send_console(channel: SharingChannel, found: Observed, asked: ReadConsole | None = None) -> None:
    """Send the console of an attempt as it is and as it grows, or what was asked for of it. Raises OSError."""
    channel.bound_unsent(OBSERVER_TIMEOUT)
    try:
        file = await trio.open_file(found.console, "rb", buffering=0)
    except FileNotFoundError:
        if asked is not None:
            await channel.send(ConsoleRange(offset=0, size=0))
        return  # the build ended before its console began
    async with file:
        descriptor = file.wrapped.fileno()
        size = found.live.size if found.live else os.fstat(descriptor).st_size
        start, end = 0, size
        if asked is not None:
            start, end = await trio.to_thread.run_sync(_range, descriptor, size, asked)
            await channel.send(ConsoleRange(offset=start, size=size))
        if found.live and (asked is None or asked.follow):
            await _follow(channel, descriptor, found.live, start)
        elif found.live:
            await _copy(channel, descriptor, start, end)
        else:
            old = console.OldConsole(descriptor, end, start, start)
            while data := await trio.to_thread.run_sync(old.read):
                await _send(channel, data)


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


async def _follow(channel: SharingChannel, descriptor: int, live: ConsoleWriter, offset: int) -> None:
    while True:
        # in this order: what is written after a look at the size is seen at the next turn
        changed = None if live.closed else live.changed
        offset = await _copy(channel, descriptor, offset, live.size)
        if changed is None:
            return
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
    found = await asked.attempts.find(request.uuid)
    if found is None:
        raise CommandRefused(f"there is no build {request.uuid}")
    await send_console(asked.channel, found, request)


HANDLERS: Handlers = {ReadConsole: read}
