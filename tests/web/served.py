"""Sites and applications in the process of a test, behind real sockets."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import frozen
from sites import InProcess, open_site
from starlette.types import ASGIApp

from builder.runtime.seats import Seat
from builder.runtime.shutdown import Shutdown
from builder_web import server
from builder_web.directory import DataDirectory
from builder_web.serving.connection import HttpConnection, Limits
from builder_web.serving.listening import accept, listen

DEADLINE = 20.0


@frozen
class Served:
    """An application that listens."""

    port: int
    shutdown: Shutdown
    connections: trio.Nursery

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def exchange(self, *sent: bytes) -> bytes:
        """Send bytes, and return all that comes until the connection ends."""
        async with await self.connect() as stream:
            for data in sent:
                await stream.send_all(data)
            return await read_all(stream)


async def read_all(stream: trio.SocketStream) -> bytes:
    return b"".join([piece async for piece in stream])


async def read_until(stream: trio.SocketStream, end: bytes) -> bytes:
    found = b""
    while not found.endswith(end):
        piece = await stream.receive_some()
        assert piece, found
        found += piece
    return found


@asynccontextmanager
async def serving(
    application: ASGIApp, limits: Limits | None = None, *, deadline: float = DEADLINE
) -> AsyncIterator[Served]:
    """Serve an application until the block ends."""
    shutdown = Shutdown()
    listeners = listen(["127.0.0.1"], 0)
    port = listeners[0].getsockname()[1]

    async def serve(stream: trio.SocketStream, seat: Seat) -> None:
        await HttpConnection(application, stream, seat, shutdown, limits or Limits()).run()

    with trio.fail_after(deadline):
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as accepting:
                accepting.start_soon(accept, listeners, serve, nursery)
                yield Served(port, shutdown, nursery)
                accepting.cancel_scope.cancel()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def serving_site(
    directory: DataDirectory, limits: Limits | None = None, **options: Any
) -> AsyncIterator[tuple[InProcess, Served]]:
    """Open a site on a data directory, and serve it."""
    async with open_site(directory, **options) as site:
        application = server.make_application(site.site, site.settings)
        async with serving(application, limits) as served:
            yield site, served
