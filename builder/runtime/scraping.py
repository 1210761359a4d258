"""Pages over HTTP for programs that look at this one every few seconds: a GET, a reply, the end of the connection.

Nobody else waits for them. There are few seats, and of those that are waited for the first one goes when another comes; each
has a few seconds for all of it, however slowly it sends or reads.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress

import h11
import trio
from attrs import define, field, frozen

from builder.address import format_address
from builder.errors import BuilderError
from builder.runtime.seats import Seat, Seats

logger = logging.getLogger(__name__)

PLACES = 16
"""Connections at once: a few of those that look, and probes. A seat holds no more than a head and a page that all share."""

TIMEOUT = 10.0
"""Seconds for a connection."""

MAX_HEAD = 8192
"""Bytes of a request's head."""

TEXT = "text/plain; charset=utf-8"


@frozen(kw_only=True)
class Page:
    """What is answered."""

    body: bytes
    status: int = 200
    type: str = TEXT


Pages = Mapping[str, Callable[[], Awaitable[Page]]]
"""What makes each page, by its path."""


class CannotServe(BuilderError):
    """The address can't be had; the text says why."""

    exit_code = 3


async def listen(host: str, port: int) -> list[trio.SocketListener]:
    """Return what listens there. Raises CannotServe."""
    try:
        return await trio.open_tcp_listeners(port, host=host)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CannotServe(
            f"can't serve metrics on {format_address(host, port)}: {reason}: name another place with --metrics"
        ) from error


async def show(pages: Pages, host: str, port: int, nursery: trio.Nursery) -> None:
    """Serve pages there until the nursery ends, and say in the log where. Raises CannotServe."""
    listeners = await listen(host, port)
    found = (listener.socket.getsockname()[:2] for listener in listeners)
    logger.info("metrics are at %s", ", ".join(f"http://{format_address(*address)}/metrics" for address in found))
    nursery.start_soon(Scraping(pages).run, listeners)


@define(eq=False)
class Scraping:
    """Serves pages."""

    _pages: Pages
    _seats: Seats = field(factory=lambda: Seats(PLACES))

    async def run(self, listeners: list[trio.SocketListener]) -> None:
        """Serve until cancelled."""
        await trio.serve_listeners(self._serve, listeners)

    async def _serve(self, stream: trio.SocketStream) -> None:
        async with stream:
            if not self._seats.has_room:
                return
            seat = self._seats.take()
            try:
                # whatever goes wrong with it, it is not worth a line: it comes again in seconds
                with (
                    seat.scope,
                    trio.move_on_after(TIMEOUT),
                    suppress(trio.BrokenResourceError, h11.RemoteProtocolError),
                ):
                    await self._answer(stream, seat)
            finally:
                seat.leave()

    async def _answer(self, stream: trio.SocketStream, seat: Seat) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        with seat.waiting():
            while (event := connection.next_event()) is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(MAX_HEAD))
        if not isinstance(event, h11.Request):
            return
        page = await self._page(event)
        headers = [
            ("Content-Type", page.type),
            ("Content-Length", str(len(page.body))),
            ("Connection", "close"),
            ("X-Content-Type-Options", "nosniff"),
        ]
        head = connection.send(h11.Response(status_code=page.status, headers=headers))
        with seat.waiting(has_asked=True):
            await stream.send_all(head or b"")
            if event.method != b"HEAD":
                await stream.send_all(page.body)  # it is not copied: all who read slowly hold the same bytes
            await stream.send_eof()

    async def _page(self, request: h11.Request) -> Page:
        make = self._pages.get(request.target.partition(b"?")[0].decode("ascii", "replace"))
        if make is None:
            return Page(status=404, body=b"there is " + ", ".join(sorted(self._pages)).encode() + b"\n")
        if request.method not in (b"GET", b"HEAD"):
            return Page(status=405, body=b"GET or HEAD\n")
        try:
            return await make()
        except BuilderError as error:
            return Page(status=503, body=f"{error}\n".encode("utf-8", "replace"))
        except Exception:
            logger.exception("a page can't be made")
            return Page(status=500, body=b"internal error\n")
