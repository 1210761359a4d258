"""How a connection with one server comes about, up to the end of the hello. Workers and provisioners reach it so; the client does
without trio.
"""

import functools
import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import trio
from attrs import frozen

from builder import __version__
from builder.address import Address, TcpAddress
from builder.endpoint import CLOSED, UNSAID, WANTS_TLS, Endpoint
from builder.errors import BuilderError, ConnectionEnded, ProtocolError, SpeaksTls
from builder.extension import Welcome
from builder.messages import Hello, ServerHello
from builder.model import printable
from builder.order import Protocols, Side
from builder.reasons import reason_of
from builder.runtime.channel import Channel
from builder.runtime.sockets import tune

if TYPE_CHECKING:  # it imports ssl
    from builder.runtime.encrypted import EncryptedStream

    Stream = trio.SocketStream | EncryptedStream

log = logging.getLogger(__name__)


@functools.cache  # which has it said once for each release, however many slots there are and connections they make
def _tell_release(release: str, program: str) -> None:
    said = printable(release[:100])
    log.warning("the server is release %s, this %s %s: upgrade the older one", said, program, __version__)


class NotConnected(BuilderError):
    """There is no connection to the server."""

    exit_code = 3


class NotGreeted(ProtocolError):
    """Something else than a server answers there."""


class Unanswered(NotGreeted):
    """The server closed the connection instead of greeting."""


async def connect(address: Address) -> trio.SocketStream:
    """Return a connection to an address, before anything is said on it. Raises OSError."""
    if isinstance(address, TcpAddress):
        transport = await trio.open_tcp_stream(address.host, address.port)
    else:
        transport = await trio.open_unix_socket(address.path)
    tune(transport)
    return transport


@frozen(kw_only=True)
class Dialling:
    """The way to a server: seconds for the look-up of its name and the connection together, and for its hello.

    ``program`` is what this side is called where something goes wrong.
    """

    server: Endpoint
    timeout: float
    hello_timeout: float
    program: str

    async def greeted(self, hello: Hello, welcome: type[Welcome | ServerHello], protocols: Protocols) -> Channel:
        """Return a connection that begins so. Raises NotConnected and NotGreeted."""
        async with AsyncExitStack() as opened:
            stream = await self._open()
            channel = Channel(await opened.enter_async_context(stream), Side.PEER, protocols)
            try:
                with trio.fail_after(self.hello_timeout):
                    await channel.send(hello)
                    answer = await channel.receive_expected(welcome)
            except trio.TooSlowError as error:
                raise NotGreeted(
                    f"{self.server} does not answer as a builder-server: silent for {self.hello_timeout:g} s"
                ) from error
            except trio.BrokenResourceError as error:
                await self._check_refused(stream, error)
                raise Unanswered(f"{self.server} broke the connection before its hello: {reason_of(error)}") from error
            except ConnectionEnded as error:
                asked = UNSAID if self.server.tls else CLOSED
                raise Unanswered(f"{self.server} closed the connection without a hello: {asked}") from error
            except SpeaksTls as error:
                raise NotGreeted(f"{self.server} does not answer this {self.program}: {WANTS_TLS}") from error
            except ProtocolError as error:
                raise NotGreeted(f"{self.server} does not answer as a builder-server: {error}") from error
            opened.pop_all()
            if isinstance(answer, Welcome) and answer.release and answer.release != __version__:
                _tell_release(answer.release, self.program)
            return channel

    async def _check_refused(self, stream: "Stream", error: BaseException) -> None:
        """Raise NotGreeted if the server has told that it does not take this side's certificate."""
        if not self.server.tls:
            return
        from builder.runtime import reaching

        if not (reason := reaching.refusal(error.__cause__ or error)):
            try:  # what was sent found nobody: what came before that may say why
                with trio.move_on_after(1):
                    await stream.receive_some(1)
            except trio.BrokenResourceError as told:
                reason = reaching.refusal(told.__cause__ or told)
        if reason:
            raise NotGreeted(f"{self.server} refuses this {self.program}: {reason}") from error

    async def _open(self) -> "Stream":
        try:
            with trio.fail_after(self.timeout):
                transport = await connect(self.server.address)
                return await self._encrypted(transport) if self.server.tls else transport
        except trio.TooSlowError as error:
            raise NotConnected(f"cannot reach {self.server}: no answer for {self.timeout:g} s") from error
        except OSError as error:
            raise NotConnected(f"cannot reach {self.server}: {reason_of(error)}") from error

    async def _encrypted(self, transport: trio.SocketStream) -> "Stream":
        """Return the same connection with TLS over it. Raises NotConnected."""
        from builder.runtime import reaching
        from builder.runtime.encrypted import EncryptedStream

        async with AsyncExitStack() as opened:
            await opened.enter_async_context(transport)
            try:
                context, name = reaching.context_of(self.server)
                stream = EncryptedStream(transport, context, server_hostname=name)
                await stream.do_handshake()
            except trio.BrokenResourceError as error:
                raise NotConnected(f"no TLS with {self.server}: {reaching.NO_TLS}") from error
            except (OSError, ValueError) as error:
                raise NotConnected(f"no TLS with {self.server}: {reaching.why(error)}") from error
            opened.pop_all()
            return stream
