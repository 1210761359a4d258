"""Peers that show certificates, or come over a Unix socket."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from authorities import Issued
from farm import DEADLINE, Reachable
from scripted import ScriptedPeer

from builder.extension.order import ALL
from builder.messages import Hello
from builder.order import Side
from builder.runtime.channel import Channel
from builder.runtime.encrypted import EncryptedStream

Stream = trio.SocketStream | EncryptedStream


def _peer(stream: Stream) -> ScriptedPeer:
    return ScriptedPeer(stream, Channel(stream, Side.PEER, ALL))  # type: ignore[arg-type]  # as good as a socket's


@asynccontextmanager
async def shown(server: Reachable, holder: Issued, hello: Hello | None = None) -> AsyncIterator[ScriptedPeer]:
    """Connect the holder of a certificate. Raises ssl.SSLError and trio.BrokenResourceError where the server is refused."""
    transport = await trio.open_tcp_stream("127.0.0.1", server.port)
    async with EncryptedStream(transport, holder.context, server_hostname="localhost") as stream:
        peer = _peer(stream)
        with trio.fail_after(DEADLINE):
            await stream.do_handshake()
            if hello is not None:
                await peer.greet(hello)
        yield peer


@asynccontextmanager
async def over_unix(path: Path, hello: Hello | None = None) -> AsyncIterator[ScriptedPeer]:
    """Connect to a Unix socket."""
    async with await trio.open_unix_socket(path) as stream:
        peer = _peer(stream)
        if hello is not None:
            with trio.fail_after(DEADLINE):
                await peer.greet(hello)
        yield peer
