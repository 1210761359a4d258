"""The provisioner as a client of a server: requests on one connection, changes on another."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Self

import trio
from attrs import define, evolve, field

from builder.endpoint import Endpoint, Servers
from builder.errors import BuilderError, ConnectionEnded, ProtocolError
from builder.extension import VERSION, Request, Welcome
from builder.extension.crew import MAX_WORKERS, ListWorkers, WorkerEntry, WorkersListed
from builder.extension.order import ALL
from builder.extension.provisioning import Provision, TellProvision
from builder.extension.watching import MAX_SHOWN, Changed, Look, LookAgain, Looked, Watch
from builder.messages import Failure, Hello, Message, Role, Success
from builder.model import printable
from builder.reasons import reason_of
from builder.runtime.channel import Channel
from builder.runtime.dialling import Dialling, NotConnected
from builder_provision.errors import NotAllowedThere

TIMEOUT = 30.0
"""Seconds for a connection, for a hello, and for a whole answer."""

KEEP = 300_000
"""Milliseconds for which the server believes what it was told: some rounds may fail meanwhile."""

_HELLO = Hello(role=Role.CLIENT, version=VERSION)


@define(eq=False)
class Link:
    """A connection for requests, made when it is needed. Use it as a context manager, which closes it.

    Each method raises NotConnected, ProtocolError, or NotAllowedThere.
    """

    servers: Servers
    _channel: Channel | None = field(init=False, default=None)

    async def look(self, platform: str) -> Looked:
        """Return how things stand on a platform, all pages in one."""
        pages = [
            page
            for page in await self.request(Look(entries=MAX_SHOWN, results=0, platform=platform))
            if isinstance(page, Looked)
        ]
        return evolve(
            pages[0],
            platforms=tuple(each for page in pages for each in page.platforms),
            running=tuple(each for page in pages for each in page.running),
            queued=tuple(each for page in pages for each in page.queued),
            halts=tuple(each for page in pages for each in page.halts),
        )

    async def workers(self, platform: str) -> list[WorkerEntry]:
        """Return the workers of a platform."""
        found: list[WorkerEntry] = []
        while True:
            behind = found[-1].place if found else None
            (page,) = await self.request(ListWorkers(count=MAX_WORKERS, platform=platform, behind=behind))
            assert isinstance(page, WorkersListed), "a server answers so"
            found += page.workers
            if len(page.workers) < MAX_WORKERS:
                return found

    async def tell(self, platform: str, provision: Provision) -> None:
        """Have those who look see what was asked for."""
        await self.request(TellProvision(platform=platform, provision=provision, keep=KEEP))

    async def request(self, request: Request) -> list[Message]:
        """Return the replies to a request."""
        try:
            with trio.fail_after(TIMEOUT):
                return await self._request(request)
        except BaseException as error:
            if not isinstance(error, NotAllowedThere):
                await self._close()  # it may be within an answer
            if isinstance(error, trio.TooSlowError):
                raise NotConnected(f"{self.servers} does not answer within {TIMEOUT:g} s") from error
            if isinstance(error, ConnectionEnded | trio.BrokenResourceError | trio.ClosedResourceError):
                raise NotConnected(f"{self.servers} closed the connection") from error
            raise

    async def _request(self, request: Request) -> list[Message]:
        if self._channel is None:
            self._channel = await connect(self.servers)
        await self._channel.send(request)
        replies: list[Message] = []
        while True:
            match await self._channel.receive():
                case Success():
                    return replies
                case Failure(message=reason):
                    raise NotAllowedThere(f"{self.servers} refuses {type(request).__name__}: {printable(reason)}")
                case Message() as reply:
                    replies.append(reply)

    async def _close(self) -> None:
        if self._channel is not None:
            channel, self._channel = self._channel, None
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await channel.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()


async def watch(servers: Servers, on_change: Callable[[Changed | LookAgain], None]) -> None:
    """Tell what changes on a server, until its connection ends. Raises NotConnected and ProtocolError."""
    async with AsyncExitStack() as opened:
        channel = await connect(servers)
        opened.push_async_callback(channel.aclose)
        try:
            await channel.send(Watch())
            while True:
                match await channel.receive():
                    case Changed() | LookAgain() as change:
                        on_change(change)
                    case Failure(message=reason):
                        raise NotAllowedThere(f"{servers} refuses to be watched: {printable(reason)}")
        except (ConnectionEnded, trio.BrokenResourceError) as error:
            raise NotConnected(f"{servers} closed the connection: {reason_of(error)}") from error


async def connect(servers: Servers) -> Channel:
    """Return a connection to any of the servers. Raises NotConnected and ProtocolError, where none will do."""
    errors: list[BuilderError] = []
    for server, patience in servers.each():
        try:
            return await _dialled(server, patience)
        except (NotConnected, ProtocolError) as error:
            errors.append(error)
    raise errors[-1] if len(errors) == 1 else NotConnected(f"no server answers: {'; '.join(map(str, errors))}")


async def _dialled(server: Endpoint, patience: float) -> Channel:
    timeout = min(TIMEOUT, patience)
    dialling = Dialling(server=server, timeout=timeout, hello_timeout=timeout, program="provisioner")
    return await dialling.greeted(_HELLO, Welcome, ALL)
