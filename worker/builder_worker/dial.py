"""How a connection with one server comes about: the hello, and which protocol is spoken from there on."""

import functools
import logging
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import trio
from attrs import frozen

from builder import __version__, codec
from builder.address import TcpAddress
from builder.endpoint import CLOSED, UNSAID, WANTS_TLS, Endpoint
from builder.errors import BuilderError, ConnectionEnded, ProtocolError, SpeaksTls
from builder.extension import VERSION, Welcome
from builder.extension.worker import WORKERS
from builder.messages import WORKER_VERSION, Hello, Role, ServerHello
from builder.model import printable
from builder.order import Side
from builder.reasons import reason_of
from builder.runtime.channel import Channel
from builder.runtime.sockets import tune

if TYPE_CHECKING:  # it imports ssl
    from builder.runtime.encrypted import EncryptedStream

    Stream = trio.SocketStream | EncryptedStream

log = logging.getLogger("builder_worker")


@functools.cache  # which has it said once for each release, however many slots there are and connections they make
def _tell_release(release: str) -> None:
    log.warning(
        "the server is release %s, this worker %s: upgrade the older one", printable(release[:100]), __version__
    )


class NotConnected(BuilderError):
    """There is no connection to the server."""

    exit_code = 3


class NotGreeted(ProtocolError):
    """Something else than a server answers there."""


class Unanswered(NotGreeted):
    """The server closed the connection instead of greeting."""


OURS, CLASSIC = Hello(role=Role.WORKER, version=VERSION), Hello(role=Role.WORKER, version=WORKER_VERSION)


def load() -> None:
    """Load what the first message would have to wait for."""
    codec.encode(OURS)


@frozen(kw_only=True)
class Dial:
    """The way to a server: seconds for the look-up of its name and the connection together, and for its hello."""

    server: Endpoint
    timeout: float
    hello_timeout: float

    async def ours(self) -> Channel:
        """Return a connection that speaks our own protocol. Raises NotConnected and NotGreeted."""
        return await self._greeted(OURS)

    async def classic(self) -> Channel:
        """Return a connection that speaks the classic protocol. Raises NotConnected and NotGreeted."""
        return await self._greeted(CLASSIC)

    async def _greeted(self, hello: Hello) -> Channel:
        async with AsyncExitStack() as opened:
            stream = await self._open()
            channel = Channel(await opened.enter_async_context(stream), Side.PEER, WORKERS)
            try:
                with trio.fail_after(self.hello_timeout):
                    await channel.send(hello)
                    welcome = await channel.receive_expected(Welcome if hello is OURS else ServerHello)
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
                raise NotGreeted(f"{self.server} does not answer this worker: {WANTS_TLS}") from error
            except ProtocolError as error:
                raise NotGreeted(f"{self.server} does not answer as a builder-server: {error}") from error
            opened.pop_all()
            if isinstance(welcome, Welcome) and welcome.release and welcome.release != __version__:
                _tell_release(welcome.release)
            return channel

    async def _check_refused(self, stream: "Stream", error: BaseException) -> None:
        """Raise NotGreeted if the server has told that it does not take this worker's certificate."""
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
            raise NotGreeted(f"{self.server} refuses this worker: {reason}") from error

    async def _open(self) -> "Stream":
        address = self.server.address
        try:
            with trio.fail_after(self.timeout):
                if isinstance(address, TcpAddress):
                    transport = await trio.open_tcp_stream(address.host, address.port)
                else:
                    transport = await trio.open_unix_socket(address.path)
                tune(transport)
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
            except (OSError, ValueError) as error:  # the latter for what can't be a name
                reason = reaching.why(error) if isinstance(error, OSError) else f"--tls-name: {error}"
                raise NotConnected(f"no TLS with {self.server}: {reason}") from error
            opened.pop_all()
            return stream
