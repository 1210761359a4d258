"""One exchange with a farm over a plain blocking socket, whichever of its servers answers.

The program that users wait for has nothing else to do meanwhile, so it needs no event loop; the order of messages is
checked by ``builder.connection``.
"""

import contextlib
from collections.abc import Callable, Iterator
from uuid import UUID

from attrs import field, frozen

from builder.endpoint import Servers
from builder.errors import LocalProtocolError
from builder.extension import Request
from builder.messages import Info, InfoReply, Message, Observe, Output

from .errors import Unreachable
from .link import Line, Link

CONNECT_TIMEOUT = 10.0
"""Seconds for each address of the server to accept."""

REPLY_TIMEOUT = 60.0
"""Seconds without a byte from a server that owes a reply, and for a command to be taken."""


def _nothing() -> None:
    pass


def _nothing_with(_link: object) -> None:
    pass


@frozen(kw_only=True)
class Remote:
    """The servers of a farm. Every method is one connection with one of them; they raise Unreachable, Refused, or ProtocolError."""

    servers: Servers
    connect_timeout: float = field(default=CONNECT_TIMEOUT)
    reply_timeout: float = field(default=REPLY_TIMEOUT)
    on_link: Callable[[Link], None] = field(default=_nothing_with, eq=False)
    """Told of each connection; another thread may abort it."""

    def __str__(self) -> str:
        return str(self.servers)

    def ask(self, command: Message) -> None:
        """Send a command that is answered by success alone."""
        for _ in self._exchange(command, reply_timeout=self.reply_timeout):
            pass

    def info(self) -> InfoReply:
        """Return the server's schedule, queues and running builds."""
        replies = list(self._exchange(Info(), reply_timeout=self.reply_timeout))
        if len(replies) == 1 and isinstance(replies[0], InfoReply):
            return replies[0]
        raise LocalProtocolError("the table of messages allows exactly one info reply")

    def observe(self, uuid: UUID, *, on_wait: Callable[[], None] = _nothing) -> Iterator[Output]:
        """Return the outputs of a build from its begin, as they come; the last one tells the result.

        ``on_wait`` is called before every wait for the network. There is no deadline: a build may be silent for
        hours, and keepalive finds a server that has gone.
        """
        for message in self._exchange(Observe(uuid=uuid), reply_timeout=None, on_wait=on_wait):
            if isinstance(message, Output):
                yield message

    def request(self, request: Request, *, what: str) -> list[Message]:
        """Return the replies to a request of our own protocol.

        Raises TooOld where the server speaks the classic one alone; ``what`` is how the error calls what that has not.
        """
        return list(self.stream(request, what=what))

    def stream(
        self, request: Request, *, what: str, on_wait: Callable[[], None] = _nothing, is_endless: bool = False
    ) -> Iterator[Message]:
        """Yield the replies as they come. ``on_wait`` as in ``observe``; ``is_endless``: without its deadline, too."""
        with self._link(what) as link:
            yield from link.ask(request, None if is_endless else self.reply_timeout, on_wait)

    @contextlib.contextmanager
    def requests(self, *, what: str) -> Iterator[Callable[[Request], list[Message]]]:
        """Have a connection in a block, and what makes requests on it as ``request`` does."""
        with self._link(what) as link:
            yield lambda request: list(link.ask(request, self.reply_timeout, _nothing))

    def _link(self, what: str) -> contextlib.closing[Link]:
        """Have a connection that speaks our own protocol. Raises TooOld."""
        return contextlib.closing(self._first(lambda line: line.ours(what)))

    def _first(self, connect: Callable[[Line], Link]) -> Link:
        """Return a connection with the first server that answers. Raises Unreachable where none does."""
        errors: list[Unreachable] = []
        for server, patience in self.servers.each():
            line = Line(
                server=server,
                connect_timeout=min(patience, self.connect_timeout),
                greeting_timeout=min(patience, self.reply_timeout),
                reply_timeout=self.reply_timeout,
                on_link=self.on_link,
            )
            try:
                return connect(line)
            except Unreachable as error:
                errors.append(error)
        if len(errors) == 1:
            raise errors[0]
        raise Unreachable(f"none of {len(errors)} servers answers: {'; '.join(map(str, errors))}") from errors[-1]

    def _exchange(
        self, command: Message, *, reply_timeout: float | None, on_wait: Callable[[], None] = _nothing
    ) -> Iterator[Message]:
        with contextlib.closing(self._first(Line.classic)) as link:
            yield from link.ask(command, reply_timeout, on_wait)
