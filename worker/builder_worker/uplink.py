"""How a slot of the worker reaches its server: the connection, the hello, and which protocol they speak from there on."""

import functools
import logging
from contextlib import AsyncExitStack, suppress
from math import inf
from typing import TYPE_CHECKING, Self

import trio
from attrs import define, field

from builder import __version__, codec
from builder.address import TcpAddress
from builder.endpoint import CLOSED, UNSAID, WANTS_TLS, Endpoint
from builder.errors import BuilderError, ConnectionEnded, ProtocolError, SpeaksTls
from builder.extension import VERSION, Welcome
from builder.extension.worker import WORKER, WORKERS
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

CONNECT_TIMEOUT = 30.0
"""Seconds for the look-up of the name and the connection together."""

HELLO_TIMEOUT = 30.0
"""Seconds in which a server answers a hello."""

CLASSIC_FOR = 300.0
"""Seconds for which a server that speaks the classic protocol alone is not asked again whether it speaks ours: it may have
been replaced."""


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


class Lost(BuilderError):
    """The server went away before it had the result of a job, or while this worker waited for one."""

    exit_code = 5


class NotAllowed(BuilderError):
    """The server has told this worker that it may not work there."""

    exit_code = 4


OURS, CLASSIC = Hello(role=Role.WORKER, version=VERSION), Hello(role=Role.WORKER, version=WORKER_VERSION)


def load() -> None:
    """Load what the first message would have to wait for."""
    codec.encode(OURS)


@define(eq=False)
class Uplink:
    """One connection after the other to a server, or one for long. Use it as a context manager, which closes the last one."""

    _server: Endpoint
    is_refused: bool = field(init=False, default=False)
    """The server has refused this worker, which was said: that it asks again is no news."""

    _channel: Channel | None = field(init=False, default=None)
    _classic_until: float = field(init=False, default=-inf)

    def __str__(self) -> str:
        return str(self._server)

    @property
    def connection(self) -> Channel:
        """The connection that there is."""
        assert self._channel is not None, "it was opened"
        return self._channel

    @property
    def is_ours(self) -> bool:
        """Whether there is one on which our own protocol is spoken."""
        return self._channel is not None and self._channel.connection.protocol is WORKER

    async def open(self) -> None:
        """See that there is a connection. Raises NotConnected and NotGreeted."""
        if self._channel is not None:
            return
        if trio.current_time() >= self._classic_until:
            with suppress(Unanswered):  # as of a classic server, and of one that stops
                await self.connect()
                return
        self._channel = await self._greeted(CLASSIC)
        self._classic_until = trio.current_time() + CLASSIC_FOR

    async def connect(self, timeout: float = CONNECT_TIMEOUT) -> Channel:
        """Return a new connection of our own protocol, instead of the one before. Raises NotConnected and NotGreeted."""
        await self.close()
        self._channel = await self._greeted(OURS, timeout)
        return self._channel

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self._channel is not None:
            channel, self._channel = self._channel, None
            await channel.aclose()

    async def _greeted(self, hello: Hello, timeout: float = CONNECT_TIMEOUT) -> Channel:
        async with AsyncExitStack() as opened:
            stream = await self._open(timeout)
            channel = Channel(await opened.enter_async_context(stream), Side.PEER, WORKERS)
            try:
                with trio.fail_after(HELLO_TIMEOUT):
                    await channel.send(hello)
                    welcome = await channel.receive_expected(Welcome if hello is OURS else ServerHello)
            except trio.TooSlowError as error:
                raise NotGreeted(
                    f"{self} does not answer as a builder-server: silent for {HELLO_TIMEOUT:g} s"
                ) from error
            except trio.BrokenResourceError as error:
                await self._check_refused(stream, error)
                raise Unanswered(f"{self} broke the connection before its hello: {reason_of(error)}") from error
            except ConnectionEnded as error:
                asked = UNSAID if self._server.tls else CLOSED
                raise Unanswered(f"{self} closed the connection without a hello: {asked}") from error
            except SpeaksTls as error:
                raise NotGreeted(f"{self} does not answer this worker: {WANTS_TLS}") from error
            except ProtocolError as error:
                raise NotGreeted(f"{self} does not answer as a builder-server: {error}") from error
            opened.pop_all()
            if isinstance(welcome, Welcome) and welcome.release and welcome.release != __version__:
                _tell_release(welcome.release)
            return channel

    async def _check_refused(self, stream: "Stream", error: BaseException) -> None:
        """Raise NotGreeted if the server has told that it does not take this worker's certificate."""
        if not self._server.tls:
            return
        from builder.runtime import reaching

        if not (reason := reaching.refusal(error.__cause__ or error)):
            try:  # what was sent found nobody: what came before that may say why
                with trio.move_on_after(1):
                    await stream.receive_some(1)
            except trio.BrokenResourceError as told:
                reason = reaching.refusal(told.__cause__ or told)
        if reason:
            raise NotGreeted(f"{self} refuses this worker: {reason}") from error

    async def _open(self, timeout: float) -> "Stream":
        address = self._server.address
        try:
            with trio.fail_after(timeout):
                if isinstance(address, TcpAddress):
                    transport = await trio.open_tcp_stream(address.host, address.port)
                else:
                    transport = await trio.open_unix_socket(address.path)
                tune(transport)
                return await self._encrypted(transport) if self._server.tls else transport
        except trio.TooSlowError as error:
            raise NotConnected(f"cannot reach {self}: no answer for {timeout:g} s") from error
        except OSError as error:
            raise NotConnected(f"cannot reach {self}: {reason_of(error)}") from error

    async def _encrypted(self, transport: trio.SocketStream) -> "Stream":
        """Return the same connection with TLS over it. Raises NotConnected."""
        from builder.runtime import reaching
        from builder.runtime.encrypted import EncryptedStream

        async with AsyncExitStack() as opened:
            await opened.enter_async_context(transport)
            try:
                context, name = reaching.context_of(self._server)
                stream = EncryptedStream(transport, context, server_hostname=name)
                await stream.do_handshake()
            except trio.BrokenResourceError as error:
                raise NotConnected(f"no TLS with {self}: {reaching.NO_TLS}") from error
            except (OSError, ValueError) as error:  # the latter for what can't be a name
                reason = reaching.why(error) if isinstance(error, OSError) else f"--tls-name: {error}"
                raise NotConnected(f"no TLS with {self}: {reason}") from error
            opened.pop_all()
            return stream

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
