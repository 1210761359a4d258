"""Sockets that listen, and the connections that they accept."""

import errno
import logging
import resource
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence

import trio

from builder.address import format_address
from builder.errors import BuilderError
from builder.runtime import sockets
from builder.runtime.seats import Seat, Seats

log = logging.getLogger(__name__)

MAX_CONNECTIONS = 1000
"""Connections at once, as far as there are descriptors for them. A newcomer takes the seat of one whose peer is waited for."""

_DESCRIPTORS_EACH = 3  # the socket, and two files
_OTHER_DESCRIPTORS = 100

_NO_MORE = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_RETRY = 0.1

_AT_ONCE = 8
"""Connections that are accepted in one round of all tasks. A round takes long while some upload, so with one in each a crowd
would wait before it is served; with all of a crowd in one, uploads would wait for these."""


class CannotListen(BuilderError):
    """An address can't be had; the text says why."""

    exit_code = 3


def listen(hosts: Sequence[str], port: int) -> list[socket.socket]:
    """Return sockets that listen on all addresses of all hosts; with port 0 on the same free port. Raises CannotListen."""
    listeners: list[socket.socket] = []
    try:
        for host in hosts:
            for address in _addresses(host, port):
                # the first takes a free port, and the others the same
                taken = port or (listeners[0].getsockname()[1] if listeners else 0)
                listeners.append(_listen(address[0], (address[1][0], taken, *address[1][2:])))
    except OSError as error:
        for listener in listeners:
            listener.close()
        raise CannotListen(f"can't listen on {host} port {port}: {error.strerror or error}") from error
    return listeners


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, tuple[str, ...]]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))  # type: ignore[misc]


def _listen(family: socket.AddressFamily, address: tuple[object, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # connections have these from the socket that accepts them
        sockets.tune(listener)
        sockets.bound_unsent(listener)
        listener.bind(address)
        listener.listen(socket.SOMAXCONN)
    except BaseException:
        listener.close()
        raise
    return listener


def max_connections() -> int:
    """Return how many connections this process has descriptors for."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return MAX_CONNECTIONS
    return max(1, min(MAX_CONNECTIONS, (descriptors - _OTHER_DESCRIPTORS) // _DESCRIPTORS_EACH))


def url_of(listener: socket.socket) -> str:
    """Return the address of the site as a peer on this machine would write it."""
    host, port = listener.getsockname()[:2]
    return f"http://{format_address(host, port)}"


async def accept(
    listeners: Sequence[socket.socket],
    serve: Callable[[trio.SocketStream, Seat], Awaitable[None]],
    connections: trio.Nursery,
) -> None:
    """Accept connections, and serve each in a nursery, until cancelled. The listeners are closed then."""
    seats = Seats(max_connections())

    async def serve_one(stream: trio.SocketStream, seat: Seat) -> None:
        try:
            with seat.scope:
                await serve(stream, seat)
        finally:
            seat.leave()

    async def accept_from(listener: socket.socket) -> None:
        async with trio.SocketListener(trio.socket.from_stdlib_socket(listener)) as waiting:
            while True:
                await seats.wait_room()
                try:
                    stream = await waiting.accept()
                except OSError as error:
                    if error.errno not in _NO_MORE:
                        raise
                    log.error("connections can't be accepted: %s", error.strerror)
                    await trio.sleep(_RETRY)
                    continue
                connections.start_soon(serve_one, stream, seats.take())
                for another in _accept_more(listener, seats):
                    connections.start_soon(serve_one, another, seats.take())

    async with trio.open_nursery() as nursery:
        for listener in listeners:
            nursery.start_soon(accept_from, listener)


def _accept_more(listener: socket.socket, seats: Seats) -> Iterator[trio.SocketStream]:
    """Return some of the connections that need not be waited for, as far as there is room for them."""
    for _ in range(_AT_ONCE - 1):
        if not seats.has_room:
            return
        try:
            accepted, _ = listener.accept()
        except OSError:  # there is none, or what whoever waits for the next one is told
            return
        yield trio.SocketStream(trio.socket.from_stdlib_socket(accepted))
