"""A connection with one server: how it comes about, and one exchange after the other on it."""

import contextlib
import socket
from collections.abc import Callable, Iterator

from attrs import frozen

from builder.address import TcpAddress
from builder.connection import Connection
from builder.endpoint import CLOSED, UNSAID, WANTS_TLS, Endpoint
from builder.errors import BuilderError, ConnectionEnded, LocalProtocolError, ProtocolError, SpeaksTls
from builder.extension import VERSION
from builder.extension.logs import ReadConsole
from builder.extension.order import ALL
from builder.framing import StreamedFrame
from builder.messages import CLIENT_VERSION, Failure, Hello, Message, Observe, Role, Success
from builder.model import printable
from builder.order import Side
from builder.outputs import Outputs
from builder.reasons import reason_of
from builder.runtime.sockets import tune

from .errors import ConnectionLost, Refused, TooOld, Unreachable, UnusableTls

RECEIVE_SIZE = 256 * 1024
"""Most bytes taken from the socket at once: a few hundred console lines."""


@frozen(kw_only=True)
class Line:
    """The way to a server: seconds for each of its addresses to accept, for its greeting, and for its replies."""

    server: Endpoint
    connect_timeout: float
    greeting_timeout: float
    reply_timeout: float
    on_link: "Callable[[Link], None]"
    """Told of each connection, before anything is said on it."""

    def ours(self, what: str) -> "Link":
        """Return a connection that speaks our own protocol. Raises Unreachable, and TooOld, which says that it has no ``what``."""
        try:
            return self._greeted(VERSION)
        except ConnectionLost as error:
            # a classic server says nothing to such a hello, as one that stops or is no server says nothing to any
            with contextlib.closing(self.classic()):
                raise TooOld(f"{self.server} speaks only the classic protocol, which has no {what}") from error

    def classic(self) -> "Link":
        """Return a connection that speaks the classic protocol, as every server does. Raises Unreachable."""
        try:
            return self._greeted(CLIENT_VERSION)
        except ConnectionLost as error:
            asked = UNSAID if self.server.tls else f"{CLOSED} that speaks client version {CLIENT_VERSION}"
            raise Unreachable(f"{self.server} closed the connection at once: {asked}") from error

    def _greeted(self, version: int) -> "Link":
        """Raises ConnectionLost where the connection ends instead of a greeting, and Unreachable."""
        link = self._connect()
        try:
            link.greet(version, self.greeting_timeout)
        except BaseException:
            link.close()
            raise
        return link

    def _connect(self) -> "Link":
        try:
            sock = self._open()
        except (OSError, UnicodeError) as error:
            raise Unreachable(f"can't reach the server at {self.server}: {reason_of(error)}") from error
        tune(sock)
        if self.server.tls:
            sock = self._encrypted(sock)
        link = Link(sock, str(self.server), self.reply_timeout, speaks_tls=self.server.tls is not None)
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
            raise Unreachable(f"{self.server} did not answer within {self.connect_timeout:g} s") from error
        except (OSError, ValueError) as error:
            sock.close()
            raise Unreachable(f"no TLS with the server at {self.server}: {reaching.why(error)}") from error


class Link:
    """A connected socket and the state of its exchange; says in its errors which server they are about."""

    def __init__(self, sock: socket.socket, name: str, reply_timeout: float, *, speaks_tls: bool = False) -> None:
        self._sock = sock
        self._name = name
        self._reply_timeout = reply_timeout
        self._speaks_tls = speaks_tls
        self._connection = Connection(Side.PEER, ALL)

    def close(self) -> None:
        self._sock.close()

    def abort(self) -> None:
        """End the exchange, from any thread: who waits for more finds that the connection is lost."""
        with contextlib.suppress(OSError):
            # not what a socket with TLS makes of it: whoever reads there would be given what is encrypted as it came
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def greet(self, version: int, timeout: float) -> None:
        """Say the version that is spoken from here on. Raises ConnectionLost where that is not answered."""
        self._sock.settimeout(timeout)
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
        self._sock.settimeout(self._reply_timeout)
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
