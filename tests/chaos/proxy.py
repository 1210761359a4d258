"""A TCP proxy between peers and a server, which does to connections what networks do."""

import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from attrs import define, field

RECEIVE_SIZE = 16 * 1024


@define(eq=False)
class Proxy:
    """Passes what comes on its port on to another one."""

    port: int
    _to: int
    _links: "set[_Link]" = field(factory=set)
    _open: trio.Event = field(factory=trio.Event)
    pause: float = 0.0
    """Seconds that every piece waits: a slow connection."""

    def __attrs_post_init__(self) -> None:
        self._open.set()

    def freeze(self) -> None:
        """Pass nothing on, for both sides to wait."""
        self._open = trio.Event()

    def thaw(self) -> None:
        """Go on after ``freeze``."""
        self._open.set()

    def drop(self, share: float, chance: "list[float]") -> int:
        """Reset a share of the connections; ``chance`` has a number from 0 to 1 for each."""
        found = [link for link, each in zip(self._links, chance, strict=False) if each < share]
        for link in found:
            link.reset()
        return len(found)

    def halve(self) -> int:
        """Close the server's half of all connections, as a server that has said all does."""
        links = list(self._links)
        for link in links:
            link.halve()
        return len(links)

    @property
    def count(self) -> int:
        """How many connections there are."""
        return len(self._links)

    async def _serve(self, near: trio.SocketStream) -> None:
        try:
            far = await trio.open_tcp_stream("127.0.0.1", self._to)
        except OSError:
            _reset(near)
            return
        link = _Link(near, far)
        self._links.add(link)
        try:
            async with trio.open_nursery() as nursery:
                link.scope = nursery.cancel_scope
                nursery.start_soon(self._pass, link.near, link.far, nursery.cancel_scope)
                nursery.start_soon(self._pass, link.far, link.near, nursery.cancel_scope)
        finally:
            self._links.discard(link)
            for stream in (near, far):
                with trio.CancelScope(shield=True):
                    await trio.aclose_forcefully(stream)

    async def _pass(self, source: trio.SocketStream, target: trio.SocketStream, scope: trio.CancelScope) -> None:
        try:
            while data := await source.receive_some(RECEIVE_SIZE):
                await self._open.wait()
                if self.pause:
                    await trio.sleep(self.pause)
                await target.send_all(data)
            await target.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            for stream in (source, target):
                _reset(stream)
            scope.cancel()


@define(eq=False)
class _Link:
    near: trio.SocketStream
    far: trio.SocketStream
    scope: trio.CancelScope | None = None

    def reset(self) -> None:
        for stream in (self.near, self.far):
            _reset(stream)
        if self.scope:
            self.scope.cancel()

    def halve(self) -> None:
        with contextlib.suppress(OSError):  # it has ended
            self.near.socket.shutdown(socket.SHUT_WR)


def _reset(stream: trio.SocketStream) -> None:
    try:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        return
    stream.socket.close()


@asynccontextmanager
async def proxied(to: int) -> AsyncIterator[Proxy]:
    """Run a proxy in front of a port until the block ends."""
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        proxy = Proxy(listener.socket.getsockname()[1], to)
        nursery.start_soon(trio.serve_listeners, proxy._serve, [listener])
        yield proxy
        nursery.cancel_scope.cancel()
