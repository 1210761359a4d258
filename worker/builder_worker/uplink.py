"""How a slot of the worker reaches its servers: connections with any of them, one after the other."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from math import inf
from typing import Self

import trio
from attrs import define, field

from builder.endpoint import Endpoint, Servers
from builder.errors import BuilderError
from builder.extension.worker import WORKER
from builder.runtime.channel import Channel
from builder.runtime.dialling import NotConnected, NotGreeted, Unanswered
from builder_worker.dial import Dial

CONNECT_TIMEOUT = 30.0
"""Seconds for the look-up of the name and the connection together."""

HELLO_TIMEOUT = 30.0
"""Seconds in which a server answers a hello."""

CLASSIC_FOR = 300.0
"""Seconds for which a server that speaks the classic protocol alone is not asked again whether it speaks ours: it may have
been replaced."""


class Lost(BuilderError):
    """The server went away before it had the result of a job, or while this worker waited for one."""

    exit_code = 5


class NotAllowed(BuilderError):
    """The server has told this worker that it may not work there."""

    exit_code = 4


@define(eq=False)
class Uplink:
    """One connection after the other to any of the servers, or one for long. Use it as a context manager, which closes the last one.

    It is called as the server that answered last.
    """

    _servers: Servers
    is_refused: bool = field(init=False, default=False)
    """The server has refused this worker, which was said: that it asks again is no news."""

    _server: Endpoint | None = field(init=False, default=None)
    _channel: Channel | None = field(init=False, default=None)
    _classic_until: dict[Endpoint, float] = field(init=False, factory=dict)

    def __str__(self) -> str:
        return str(self._server or self._servers)

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
        """See that there is a connection. Raises NotConnected and NotGreeted, where no server will do."""
        if self._channel is None:
            await self._connect(self._greeted_either_way, CONNECT_TIMEOUT)

    async def connect(self, timeout: float = CONNECT_TIMEOUT) -> Channel:
        """Return a new connection of our own protocol, instead of the one before. Raises NotConnected and NotGreeted."""
        await self.close()
        return await self._connect(Dial.ours, timeout)

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self._channel is not None:
            channel, self._channel = self._channel, None
            await channel.aclose()

    @property
    def has_others(self) -> bool:
        """Whether there are other servers."""
        return len(self._servers.all) > 1

    async def leave(self) -> None:
        """Close the connection, and have the other servers tried first."""
        assert self._server is not None, "there is a connection"
        self._servers.put_last(self._server)
        await self.close()

    async def _connect(self, greet: Callable[[Dial], Awaitable[Channel]], timeout: float) -> Channel:
        """Return what ``greet`` makes of the first server that will do."""
        errors: list[BuilderError] = []
        for server, patience in self._servers.each():
            dial = Dial(
                server=server,
                timeout=min(timeout, patience),
                hello_timeout=min(HELLO_TIMEOUT, patience),
                program="worker",
            )
            try:
                self._channel = await greet(dial)
            except (NotConnected, NotGreeted) as error:
                errors.append(error)
            else:
                self._server = server
                return self._channel
        if len(errors) == 1:
            raise errors[0]
        reasons = "; ".join(map(str, errors))
        if all(isinstance(error, NotGreeted) for error in errors):
            raise NotGreeted(f"none of {len(errors)} servers takes this worker: {reasons}") from errors[-1]
        raise NotConnected(f"none of {len(errors)} servers answers: {reasons}") from errors[-1]

    async def _greeted_either_way(self, dial: Dial) -> Channel:
        """Return a connection of our own protocol, or of the classic one where the server knows no other."""
        if trio.current_time() >= self._classic_until.get(dial.server, -inf):
            with suppress(Unanswered):  # as of a classic server, and of one that stops
                return await dial.ours()
        channel = await dial.classic()
        self._classic_until[dial.server] = trio.current_time() + CLASSIC_FOR
        return channel

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
