"""One exchange with a server over a plain blocking socket.

The program that users wait for has nothing else to do meanwhile, so it needs no event loop; the order of messages is
checked by ``builder.connection``.
"""

import contextlib
import socket
from collections.abc import Callable, Iterator
from uuid import UUID

from attrs import field, frozen

from builder.address import TcpAddress
from builder.connection import Connection
from builder.endpoint import CLOSED, UNSAID, WANTS_TLS, Endpoint
from builder.errors import BuilderError, ConnectionEnded, LocalProtocolError, ProtocolError, SpeaksTls
from builder.extension import VERSION, Request
from builder.extension.logs import ReadConsole
from builder.extension.order import ALL
from builder.framing import StreamedFrame
from builder.messages import CLIENT_VERSION, Failure, Hello, Info, InfoReply, Message, Observe, Output, Role, Success
from builder.model import printable
from builder.order import Side
from builder.outputs import Outputs
from builder.reasons import reason_of
from builder.runtime.sockets import tune

from .errors import ConnectionLost, Refused, TooOld, Unreachable, UnusableTls

CONNECT_TIMEOUT = 10.0
"""Seconds for each address of the server to accept."""

REPLY_TIMEOUT = 60.0
"""Seconds without a byte from a server that owes a reply, and for a command to be taken."""

RECEIVE_SIZE = 256 * 1024
"""Most bytes taken from the socket at once: a few hundred console lines."""


def _nothing() -> None:
    pass


def _nothing_with(_link: object) -> None:
    pass


@frozen(kw_only=True)
class Remote:
    """A server. Every method is one connection; they raise Unreachable, Refused, or ProtocolError."""

    server: Endpoint
    connect_timeout: float = field(default=CONNECT_TIMEOUT)
    reply_timeout: float = field(default=REPLY_TIMEOUT)
    on_link: "Callable[[Link], None]" = field(default=_nothing_with, eq=False)
    """Told of each connection; another thread may abort it."""

    def __str__(self) -> str:
        return str(self.server)

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

    @contextlib.contextmanager
    def _link(self, what: str) -> Iterator["Link"]:
        """Have a connection that speaks our own protocol. Raises TooOld."""
        with contextlib.closing(self._connect()) as link:
            try:
                link.greet(VERSION)
            except ConnectionLost as error:
                # a classic server says nothing to such a hello, as one that stops or is no server says nothing to any
                with self._classic_link():
                    raise TooOld(f"{self} speaks only the classic protocol, which has no {what}") from error
            yield link

    @contextlib.contextmanager
    def _classic_link(self) -> Iterator["Link"]:
        """Have a connection that speaks the classic protocol, as every server does. Raises Unreachable."""
        with contextlib.closing(self._connect()) as link:
            try:
                link.greet(CLIENT_VERSION)
            except ConnectionLost as error:
                asked = UNSAID if self.server.tls else f"{CLOSED} that speaks client version {CLIENT_VERSION}"
                raise Unreachable(f"{self} closed the connection at once: {asked}") from error
            yield link

    def _exchange(
        self, command: Message, *, reply_timeout: float | None, on_wait: Callable[[], None] = _nothing
    ) -> Iterator[Message]:
        with self._classic_link() as link:
            yield from link.ask(command, reply_timeout, on_wait)

    def _connect(self) -> "Link":
        try:
            sock = self._open()
        except (OSError, UnicodeError) as error:
            raise Unreachable(f"can't reach the server at {self}: {reason_of(error)}") from error
        tune(sock)
        if self.server.tls:
            sock = self._encrypted(sock)
        sock.settimeout(self.reply_timeout)
        link = Link(sock, str(self), speaks_tls=self.server.tls is not None)
        self.on_link(link)
        return link

    def _open(self) -> socket.socket:
        address = self.server.address
        if isinstance(address, TcpAddress):
            return socket.create_connection((address.host, address.port), self.connect_timeout)
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(self.connect_timeout)
            sock.connect(address.path)
        except BaseException:
            sock.close()
            raise
        return sock

    def _encrypted(self, sock: socket.socket) -> socket.socket:
        """Return the same connection with TLS over it."""
        from builder.runtime import reaching  # which imports ssl: 15 ms for those who need it

        try:
            context, name = reaching.context_of(self.server)
            return context.wrap_socket(sock, server_hostname=name)
        except BuilderError as error:
            sock.close()
            raise UnusableTls(str(error)) from error
        except TimeoutError as error:
            sock.close()
            raise Unreachable(f"{self} did not answer within {self.connect_timeout:g} s") from error
        except (OSError, ValueError) as error:  # the latter for what can't be a name
            sock.close()
            reason = reaching.why(error) if isinstance(error, OSError) else f"--tls-name: {error}"
            raise Unreachable(f"no TLS with the server at {self}: {reason}") from error


class Link:
    """A connected socket and the state of its exchange; says in its errors which server they are about."""

    def __init__(self, sock: socket.socket, name: str, *, speaks_tls: bool = False) -> None:
        self._sock = sock
        self._name = name
        self._speaks_tls = speaks_tls
        self._connection = Connection(Side.PEER, ALL)

    def close(self) -> None:
        self._sock.close()

    def abort(self) -> None:
        """End the exchange, from any thread: who waits for more finds that the connection is lost."""
        with contextlib.suppress(OSError):
            # not what a socket with TLS makes of it: whoever reads there would be given what is encrypted as it came
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def greet(self, version: int) -> None:
        """Say the version that is spoken from here on. Raises ConnectionLost where that is not answered."""
        try:
            self.send(Hello(role=Role.CLIENT, version=version))
            self.receive()
        except SpeaksTls as error:
            raise Unreachable(f"can't talk to the server at {self._name}: {WANTS_TLS}") from error

    def send(self, message: Message) -> None:
        with self._lost():
            self._sock.sendall(self._connection.send(message))

    def received(self) -> Message | None:
        """Return the next message that has arrived."""
        try:
            message = self._connection.next_message()
        except ConnectionEnded as error:
            raise ConnectionLost(f"{self._name} closed the connection before it had answered in full") from error
        except SpeaksTls:
            raise
        except ProtocolError as error:
            raise ProtocolError(f"{self._name} does not follow the protocol: {error}") from error
        if isinstance(message, StreamedFrame):
            raise LocalProtocolError("the table of messages sends no job finished to a client")
        return message

    def ask(self, command: Message, reply_timeout: float | None, on_wait: Callable[[], None]) -> Iterator[Message]:
        """Send a command, and yield what comes before the Success that ends its answer. Raises Refused."""
        self.send(command)
        self._sock.settimeout(reply_timeout)
        outputs = Outputs(command.uuid) if isinstance(command, Observe | ReadConsole) else None
        while True:
            if outputs and (lines := self._connection.take_outputs(outputs.read)):
                yield from lines
                continue
            match message := self.received():
                case None:
                    on_wait()
                    self.wait()
                case Success():
                    return
                case Failure(message=reason):
                    raise Refused(printable(reason), request=command)
                case _:
                    yield message

    def wait(self) -> None:
        """Wait for more bytes, or the end."""
        with self._lost():
            self._connection.receive_data(self._sock.recv(RECEIVE_SIZE))

    def receive(self) -> Message:
        """Wait for the next message."""
        while (message := self.received()) is None:
            self.wait()
        return message

    @contextlib.contextmanager
    def _lost(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise Unreachable(f"{self._name} did not answer within {self._sock.gettimeout():g} s") from error
        except OSError as error:
            if self._speaks_tls and (reason := self._refusal(error)):
                raise Refused(f"{self._name} refuses this client: {reason}") from error
            raise ConnectionLost(f"lost the connection to {self._name}: {reason_of(error)}") from error

    def _refusal(self, error: OSError) -> str | None:
        """Return why the server does not take this side's certificate, if it has told that."""
        from builder.runtime import reaching

        if not isinstance(error, reaching.TlsError):  # what was sent found nobody: what came before that may say why
            try:
                self._sock.recv(1)
            except OSError as told:
                error = told
        return reaching.refusal(error)
