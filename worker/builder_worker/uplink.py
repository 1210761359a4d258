"""How a slot of the worker reaches its server: the connection, the hello, and which protocol they speak from there on."""

from contextlib import AsyncExitStack, suppress
from math import inf
from typing import Self

import trio
from attrs import define, field

from builder import codec
from builder.address import format_address
from builder.errors import BuilderError, ConnectionEnded, ProtocolError
from builder.extension import VERSION, Welcome
from builder.extension.worker import WORKER, WORKERS
from builder.messages import WORKER_VERSION, Hello, Role, ServerHello
from builder.order import Side
from builder.reasons import reason_of
from builder.runtime.channel import Channel
from builder.runtime.sockets import tune

CONNECT_TIMEOUT = 30.0
"""Seconds for the look-up of the name and the connection together."""

HELLO_TIMEOUT = 30.0
"""Seconds in which a server answers a hello."""

CLASSIC_FOR = 300.0
"""Seconds for which a server that speaks the classic protocol alone is not asked again whether it speaks ours: it may have
been replaced."""


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

    exit_code = 5


OURS, CLASSIC = Hello(role=Role.WORKER, version=VERSION), Hello(role=Role.WORKER, version=WORKER_VERSION)


def load() -> None:
    """Load what the first message would have to wait for."""
    codec.encode(OURS)


@define(eq=False)
class Uplink:
    """One connection after the other to a server, or one for long. Use it as a context manager, which closes the last one."""

    _host: str
    _port: int
    _channel: Channel | None = field(init=False, default=None)
    _classic_until: float = field(init=False, default=-inf)

    def __str__(self) -> str:
        return format_address(self._host, self._port)

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
                    await channel.receive_expected(Welcome if hello is OURS else ServerHello)
            except trio.TooSlowError as error:
                raise NotGreeted(
                    f"{self} does not answer as a builder-server: silent for {HELLO_TIMEOUT:g} s"
                ) from error
            except trio.BrokenResourceError as error:
                raise Unanswered(f"{self} broke the connection before its hello: {reason_of(error)}") from error
            except ConnectionEnded as error:
                raise Unanswered(f"{self} closed the connection without a hello: is it a builder-server?") from error
            except ProtocolError as error:
                raise NotGreeted(f"{self} does not answer as a builder-server: {error}") from error
            opened.pop_all()
            return channel

    async def _open(self, timeout: float) -> trio.SocketStream:
        try:
            with trio.fail_after(timeout):
                stream = await trio.open_tcp_stream(self._host, self._port)
        except trio.TooSlowError as error:
            raise NotConnected(f"cannot reach {self}: no answer for {timeout:g} s") from error
        except OSError as error:
            raise NotConnected(f"cannot reach {self}: {reason_of(error)}") from error
        tune(stream)
        return stream

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
