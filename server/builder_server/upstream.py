"""What another server answers, for a client of this one: a connection to it, and the frames of its answer as they come.

Nothing is held but what one read takes: this side reads no more before its client has taken that.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from ssl import SSLContext
from typing import TypeVar

import trio
from attrs import define, field, frozen

from builder import codec, der
from builder.address import TcpAddress, parse_remote
from builder.errors import BuilderError, LocalProtocolError, ProtocolError
from builder.extension import VERSION, Request, Welcome
from builder.extension.order import CLIENT
from builder.extension.servers import Relay
from builder.framing import StreamedFrame, frame, frame_header, read_length
from builder.messages import Failure, Hello, Message, Output, Role, Success
from builder.order import Protocols
from builder.reasons import reason_of
from builder.runtime.dialling import connect
from builder.runtime.encrypted import EncryptedStream
from builder_server.errors import CommandRefused
from builder_server.memory import Memory, SharingChannel
from builder_server.permission import Peer
from builder_server.store import ServerState

T = TypeVar("T")

PATIENCE = 5.0
"""Seconds in which another server lets this one in."""

LOOK = 5.0
"""Seconds of silence after which it is asked whether a server still lives."""

ANSWER_TIMEOUT = 45.0
"""Seconds without a byte of an answer that can be made at once: clients wait for 60."""

_OLD_CERTIFICATE = (
    "this server's certificate is not for clients: 'builder-server certificates renew server' makes one that is"
)

_PROTOCOLS: Protocols = {(Role.CLIENT, VERSION): CLIENT}

_ENDS = frozenset(map(der.context, (Success.tag, Failure.tag)))
_HEADER = len(frame_header(0))


class Absent(BuilderError):
    """Another server does not answer, or not to the end; the text says why."""


@frozen(kw_only=True)
class Upstreams:
    """Connects to other servers. ``name`` is this one's.

    ``tls`` returns how it is spoken with a host, and None where it is not. It shows the server's own certificate.
    """

    memory: Memory
    name: Callable[[], str]
    tls: Callable[[str], SSLContext | None] = lambda _host: None

    @asynccontextmanager
    async def connected(self, server: ServerState, client: Peer) -> AsyncIterator["Upstream"]:
        """Have a connection on which a server answers as if ``client`` had come to it. Raises Absent."""
        async with AsyncExitStack() as opened:
            try:
                with _told(), trio.move_on_after(PATIENCE) as waiting:
                    stream = await self._open(server)
                    await opened.enter_async_context(stream)
                    upstream = Upstream(SharingChannel(stream, self.memory, _PROTOCOLS))
                    opened.callback(upstream.channel.give_back)
                    await self._greet(upstream, server, client)
            except (ValueError, CommandRefused) as error:  # the former for what can't be a name, or an address
                raise Absent(str(error)) from error
            if waiting.cancelled_caught:
                raise Absent(f"no answer for {PATIENCE:g} s")
            yield upstream

    async def _greet(self, upstream: "Upstream", server: ServerState, client: Peer) -> None:
        await upstream.channel.send(Hello(role=Role.CLIENT, version=VERSION))
        await upstream.channel.receive_expected(Welcome)
        relay = Relay(
            token=server.token, server=self.name(), holder=client.name, address=client.address, role=client.role
        )
        await upstream.ask(relay)
        await upstream.next()

    async def _open(self, server: ServerState) -> trio.SocketStream | EncryptedStream:
        if server.address is None:
            raise Absent("it has told no address: start it with --advertise")
        address = parse_remote(server.address)
        transport = await connect(address)
        if not isinstance(address, TcpAddress) or (context := self.tls(address.host)) is None:
            return transport
        async with AsyncExitStack() as opened:
            await opened.enter_async_context(transport)
            stream = EncryptedStream(transport, context, server_hostname=address.host)
            await stream.do_handshake()
            opened.pop_all()
            return stream


@define(eq=False)
class Upstream:
    """A connection to another server. While it is silent, ``lives`` is asked now and then whether that is still there."""

    channel: SharingChannel
    _lives: Callable[[], Awaitable[bool]] | None = field(init=False, default=None)

    async def ask(self, request: Request, lives: Callable[[], Awaitable[bool]] | None = None) -> None:
        """Ask for something; with ``lives``, for what may take any time. Raises Absent."""
        self._lives = lives
        with _told(), trio.fail_after(ANSWER_TIMEOUT):
            await self.channel.send(request)

    async def next(self) -> Message | None:
        """Return the next message of the answer, None at its end. Raises CommandRefused if that is a refusal, and Absent."""
        return _understood(await self._heard(self.channel.receive))

    async def only(self) -> Message | None:
        """Return the message of an answer that has one at most, when all of it is read; raises what ``next`` does.

        Whoever closed the connection before would break it off for the other server.
        """
        found = await self.next()
        if found is not None:
            await self.next()
        return found

    async def next_frames(self) -> bytes | Message | None:
        """Return the next messages in the frames that have come; one that is too large for that, and the end, as ``next`` does."""
        found = await self._heard(partial(self.channel.receive_outputs, cut))
        return found[0] if isinstance(found, list) else _understood(found)

    async def pass_on(self, channel: SharingChannel, timeout: float) -> int:
        """Send the rest of an answer to a client, which takes each part within ``timeout`` seconds; return its bytes.

        Raises what ``next`` does.
        """
        size = 0
        while part := await self.next_frames():
            frames = part if isinstance(part, bytes) else frame(codec.encode(part))
            with trio.fail_after(timeout):
                await channel.send_bytes(Output, frames)  # where that may stand, any reply may
            size += len(frames)
        return size

    async def _heard(self, receive: Callable[[], Awaitable[T]]) -> T:
        while True:
            with _told(), trio.move_on_after(LOOK if self._lives else ANSWER_TIMEOUT):
                return await receive()
            if not self._lives:
                raise Absent(f"silent for {ANSWER_TIMEOUT:g} s")
            if not await self._lives():
                raise Absent("it is counted as dead")


@contextmanager
def _told() -> Iterator[None]:
    """Have what goes wrong between the servers told as such: it is no fault of the client. Raises Absent."""
    try:
        yield
    except (OSError, ProtocolError, trio.BrokenResourceError, trio.TooSlowError) as error:
        if "UNSUPPORTED_CERTIFICATE" in str(getattr(error.__cause__, "reason", "")):
            raise Absent(_OLD_CERTIFICATE) from error
        raise Absent(reason_of(error)) from error


def _understood(found: Message | StreamedFrame) -> Message | None:
    match found:
        case Success():
            return None
        case Failure(message=reason):
            raise CommandRefused(reason)
        case StreamedFrame():
            raise LocalProtocolError("the table of messages sends no job finished to a client")
    return found


def cut(data: bytes) -> tuple[list[bytes], int]:
    """Return the frames that ``data`` begins with, as one, and where they end: at one that is not whole, or ends the answer."""
    end = 0
    while len(data) - end > _HEADER:
        length, body = read_length(data, end)
        tag = der.read_tag(data, body)
        if tag is None or tag[0] in _ENDS or body + length > len(data):
            break
        end = body + length
    return ([data[:end]] if end else []), end
