"""A TCP connection: its requests are answered by an ASGI application, one after another.

h11 parses, and does no I/O. What this module keeps to:
- A body is received when the application asks for it and no sooner, so that nothing is buffered. A peer that asks first
  (``Expect: 100-continue``) is told to go on only then: what is refused by its head is never sent.
- An answer may come before the body is at its end. The connection closes after it, but only once the peer had time to read:
  what still arrives is thrown away meanwhile. To close at once would reset the connection, and the answer with it.
- Each wait for the peer has a limit, and none is shielded: the program stops whatever a peer does. Each is told to the seat
  of the connection, which a newcomer may be given meanwhile.
"""

import logging
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import unquote

import h11
import trio
from attrs import define, field, frozen
from starlette.types import ASGIApp, Message, Scope

from builder.address import format_address
from builder.runtime.logs import about
from builder.runtime.seats import Seat
from builder.runtime.shutdown import Shutdown, ShuttingDown

log = logging.getLogger(__name__)

PIECE_SIZE = 256 * 1024
"""Bytes that are received at once, and sent at once."""

MAX_HEAD = 32 * 1024
"""Bytes of a request's line and headers."""


@frozen(kw_only=True)
class Limits:
    """How long a peer is waited for, in seconds."""

    head: float = 60.0
    """For the whole head of a request, from the answer before it on."""
    piece: float = 60.0
    """For the peer to take a piece of an answer."""
    linger: float = 30.0
    """For what still arrives after an early answer."""
    linger_idle: float = 5.0
    """For the next byte of that."""


class PeerGone(OSError):
    """The peer takes no more of the answer."""


@define(eq=False)
class HttpConnection:
    """One connection; ``run`` serves it to its end."""

    _application: ASGIApp
    _stream: trio.SocketStream
    _seat: Seat
    _shutdown: Shutdown
    _limits: Limits = field(factory=Limits)
    _parser: h11.Connection = field(
        init=False, factory=lambda: h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
    )

    async def run(self) -> None:
        """Answer requests until the peer wants no more, is too slow, or the program stops. Raises nothing."""
        try:
            async with self._stream:
                while await self._serve():
                    self._parser.start_next_cycle()
                if self._parser.their_state in (h11.SEND_BODY, h11.ERROR):
                    await self._linger()
        except (PeerGone, ShuttingDown, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        except Exception:
            log.exception("a fault of builder-web")

    async def _serve(self) -> bool:
        """Answer the next request, and return whether there may be another one."""
        try:
            request = await self._next_request()
        except h11.RemoteProtocolError as error:
            await self._refuse(error.error_status_hint, str(error))
            return False
        if request is None:
            return False
        scope = self._scope(request)
        if scope is None:
            await self._refuse(400, "the target is no path")
            return False
        exchange = _Exchange(self, is_head=request.method == b"HEAD")
        try:
            await self._application(scope, exchange.receive, exchange.send)
        except Exception:
            if not exchange.takes_no_more:  # what came of that is no fault
                log.exception("a fault of builder-web")
        return self._parser.our_state is h11.DONE and self._parser.their_state is h11.DONE

    async def _next_request(self) -> h11.Request | None:
        with self._seat.waiting(), self._shutdown.interruptible(), trio.move_on_after(self._limits.head):
            while (event := self._parser.next_event()) is h11.NEED_DATA:
                self._parser.receive_data(await self._stream.receive_some(PIECE_SIZE))
            if isinstance(event, h11.Request):
                if {b"content-length", b"transfer-encoding"} <= {name for name, _ in event.headers}:
                    # a proxy may have believed the one where h11 believes the other
                    raise h11.RemoteProtocolError("both Content-Length and Transfer-Encoding are given")
                if not _has_body(event):
                    self._parser.next_event()  # its end, which is known already
                return event
        return None

    def _scope(self, request: h11.Request) -> Scope | None:
        path, _, query = bytes(request.target).partition(b"?")
        if path.lower().startswith((b"http://", b"https://")):  # the form that is sent to proxies
            path = b"/" + path.split(b"/", 3)[3] if path.count(b"/") > 2 else b"/"
        if not path.startswith(b"/"):
            return None
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": request.http_version.decode(),
            "method": request.method.decode(),
            "scheme": "http",
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": list(request.headers),
            "client": self._peer(),
            "server": self._stream.socket.getsockname()[:2],
        }

    def _peer(self) -> tuple[str, int]:
        """Return address and port. Raises PeerGone."""
        try:
            address, port = self._stream.socket.getpeername()[:2]
        except OSError as error:
            raise PeerGone from error
        return address, port

    async def _refuse(self, status: int, reason: str) -> None:
        """Answer what can't be parsed, if that is possible still."""
        if self._parser.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            return
        with about(peer=format_address(*self._peer())):
            log.info("sent no request: %s", reason)
        body = f"{reason}\n".encode()
        head = h11.Response(
            status_code=status,
            reason=_reason(status),
            headers=[
                ("content-type", "text/plain; charset=utf-8"),
                ("content-length", str(len(body))),
                ("connection", "close"),
            ],
        )
        await self.send(head, h11.Data(data=body), h11.EndOfMessage())

    async def receive_body(self) -> bytes | None:
        """Return the next bytes of a body, or None at its end. Raises h11.RemoteProtocolError if it is cut off."""
        while True:
            if self._parser.they_are_waiting_for_100_continue:
                await self.send(h11.InformationalResponse(status_code=100, headers=[]))
            event = self._parser.next_event()
            if isinstance(event, h11.Data):
                return bytes(event.data)
            if event is not h11.NEED_DATA:
                return None
            try:
                with self._seat.waiting(has_asked=True):
                    self._parser.receive_data(await self._stream.receive_some(PIECE_SIZE))
            except trio.BrokenResourceError:
                self._parser.receive_data(b"")

    @property
    def has_whole_body(self) -> bool:
        """Whether the request has arrived to its end."""
        return self._parser.their_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED)

    async def send(self, *events: h11.Event) -> None:
        """Send in one piece. Raises PeerGone."""
        view = memoryview(b"".join(self._parser.send(event) or b"" for event in events))
        try:
            for start in range(0, len(view), PIECE_SIZE):
                with self._seat.waiting(has_asked=True), trio.fail_after(self._limits.piece):
                    await self._stream.send_all(view[start : start + PIECE_SIZE])
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as error:
            raise PeerGone from error

    async def _linger(self) -> None:
        await self._stream.send_eof()
        with self._seat.waiting(), trio.move_on_after(self._limits.linger):
            while True:
                with trio.move_on_after(self._limits.linger_idle):
                    if await self._stream.receive_some(PIECE_SIZE):
                        continue
                return


@define(eq=False)
class _Exchange:
    """A request and its answer, as the application sees them: see the ASGI specification."""

    _connection: HttpConnection
    is_head: bool = field(kw_only=True)
    is_answered: trio.Event = field(init=False, factory=trio.Event)
    takes_no_more: bool = field(init=False, default=False)
    """Whether the application was told that nothing more is taken: it may have ended in an error."""
    _has_end: bool = field(init=False, default=False)
    _head: h11.Response | None = field(init=False, default=None)
    _has_no_body: bool = field(init=False, default=False)

    async def receive(self) -> Message:
        """Return the next piece of the body; after the last one, the end of the exchange."""
        if self._has_end:
            await self.is_answered.wait()
            return {"type": "http.disconnect"}
        if self._connection.has_whole_body:
            data = None
        else:
            try:
                data = await self._connection.receive_body()
            except h11.RemoteProtocolError:
                self._has_end = True
                return {"type": "http.disconnect"}
        self._has_end = data is None
        return {"type": "http.request", "body": data or b"", "more_body": data is not None}

    async def send(self, message: Message) -> None:
        """Send a part of the answer. Raises PeerGone."""
        if message["type"] == "http.response.start":
            self._head = self._made(message)
            return
        if self.is_answered.is_set():  # what has no body need not be made to its end
            self.takes_no_more = True
            raise PeerGone
        events: list[h11.Event] = []
        if self._head is not None:  # in one piece with what follows
            events.append(self._head)
            self._head = None
        if (data := message.get("body", b"")) and not self._has_no_body:
            events.append(h11.Data(data=data))
        is_last = self._has_no_body or not message.get("more_body", False)
        if is_last:
            events.append(h11.EndOfMessage())
        try:
            await self._connection.send(*events)
        except PeerGone:
            self.takes_no_more = True
            raise
        if is_last:
            self.is_answered.set()

    def _made(self, message: Message) -> h11.Response:
        status = message["status"]
        headers = [*message.get("headers", ()), (b"date", formatdate(usegmt=True).encode())]
        if not self._connection.has_whole_body:
            headers.append((b"connection", b"close"))
        self._has_no_body = self.is_head or status in (204, 304)
        return h11.Response(status_code=status, headers=headers, reason=_reason(status))


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _has_body(request: h11.Request) -> bool:
    framing = {name: value for name, value in request.headers if name in (b"content-length", b"transfer-encoding")}
    return b"transfer-encoding" in framing or framing.get(b"content-length", b"0") != b"0"
