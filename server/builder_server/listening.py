"""Where the server listens, and whom each place lets in.

Trust is by listener: whoever reaches a loopback address may ask for everything, and so may some users of this machine over
a Unix socket; whoever else comes shows a certificate, unless the operator wants to do without.
"""

import errno
import ipaddress
import logging
import os
import pwd
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio
from attrs import define, field, frozen

from builder.address import format_address
from builder.errors import BuilderError
from builder.reasons import reason_of
from builder.runtime import service
from builder.runtime.encrypted import EncryptedStream
from builder.runtime.logs import note
from builder_server.certified import Certificates
from builder_server.connections import Place
from builder_server.permission import Peer

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
"""Where it listens if nothing is said."""

UNIX = "unix:"
"""What stands before the path of a Unix socket where addresses are told."""

REFUSALS_PAUSE = 60.0
"""Seconds after which it is said again that somebody was not let in, for the same reason."""

MAX_REASONS = 20
"""Reasons that are told apart meanwhile: who is not let in may choose what is wrong, such as the length of a message."""

OTHER_REASONS = "for one of many reasons"

Stream = trio.SocketStream | EncryptedStream

Admit = Callable[[trio.SocketStream, Place], Awaitable[tuple[Stream, Peer]]]
"""Finds out who has connected. Raises BuilderError, OSError and trio.BrokenResourceError."""


class CannotListen(BuilderError):
    """An address can't be had, or is not to be had like this."""

    exit_code = 3


class NotAdmitted(BuilderError):
    """Somebody who has connected is not let in."""


class UserRefused(BuilderError):
    """A user of this machine who may not use the Unix socket."""


@frozen(kw_only=True)
class Listening:
    """Where to listen. ``addresses`` are of TCP, and share a port; ``users`` are those of the Unix socket, by name or number,
    besides the server's own and root.

    ``is_insecure``: whoever reaches any of the addresses may ask for everything. ``loopback_is_plain``: whoever reaches a
    loopback address may, also where others show certificates.
    """

    addresses: tuple[str, ...] = ()
    port: int = 0
    unix: Path | None = None
    users: tuple[str, ...] = ()
    is_insecure: bool = False
    loopback_is_plain: bool = False


@frozen(kw_only=True)
class Listener:
    """A socket that listens. ``name`` is how it is announced."""

    name: str
    accepting: trio.SocketListener
    admit: Admit
    is_encrypted: bool = False


@asynccontextmanager
async def opened(wanted: Listening, certificates: Certificates | None) -> AsyncIterator[list[Listener]]:
    """Listen until the end of the block, on all that is wanted and all that the service manager hands over.

    Raises CannotListen.
    """
    async with AsyncExitStack() as held:
        found: list[trio.SocketListener] = []

        async def hold(listener: trio.SocketListener) -> None:
            found.append(await held.enter_async_context(listener))

        for _, handed_over in service.passed_sockets():
            await hold(trio.SocketListener(trio.socket.from_stdlib_socket(handed_over)))
        port = wanted.port
        for address in wanted.addresses or (() if found or wanted.unix else (LOOPBACK,)):
            for listener in await _listen(address, port):
                await hold(listener)
                port = listener.socket.getsockname()[1]  # all share it, also a free one that the first was given
        if wanted.unix:
            await hold(_listen_unix(wanted.unix))
            held.callback(wanted.unix.unlink, missing_ok=True)
        listeners = [_listener(each, wanted, certificates) for each in found]
        if certificates and not any(each.is_encrypted for each in listeners):
            logger.warning("nobody is asked for a certificate: there is no address for that, which --ip would name")
        yield listeners


async def _listen(address: str, port: int) -> list[trio.SocketListener]:
    found: list[trio.SocketListener] = []
    try:
        for host in await _resolve(address):
            found += await trio.open_tcp_listeners(port, host=host)
            port = found[0].socket.getsockname()[1]
    except (OSError, ValueError, UnicodeError) as error:
        for each in found:
            await each.aclose()
        raise CannotListen(f"can't listen on {_named(address, port)}: {why_not(address, error)}") from error
    return found


def _named(address: str, port: int) -> str:
    return address if is_with_port(address) else format_address(address, port)


def is_with_port(address: str) -> bool:
    """Return whether somebody has written a port where a host belongs."""
    host, _, port = address.rpartition(":")
    return port.isdecimal() and (":" not in host or host.endswith("]"))


def why_not(address: str, error: OSError | ValueError) -> str:
    """Return why nobody can listen on an address, and what to do."""
    if is_with_port(address):
        return "its port stands in --port, which all addresses share"
    number = getattr(error, "errno", None)
    advice = _ADVICE.get(number, "") if isinstance(number, int) else ""
    return reason_of(error) + advice


_ADVICE = {
    errno.EADDRINUSE: ": stop what listens there, or take another --port",
    errno.EADDRNOTAVAIL: ": it is none of this machine's",
    errno.EACCES: ": take a --port from 1024 on",
}


async def _resolve(address: str) -> list[str]:
    """Return the addresses of a host name, or the one that was given. Raises OSError and UnicodeError."""
    found = await trio.socket.getaddrinfo(address, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys(socket.getnameinfo(info[4], socket.NI_NUMERICHOST)[0] for info in found))


def _listen_unix(path: Path) -> trio.SocketListener:
    """Listen at a path, also where an earlier server has left its socket."""
    if path.exists() and not path.is_socket():
        raise CannotListen(f"can't listen on {path}: it is there, and no socket: name another path with --unix")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if _is_left(path):
            path.unlink()
        listening.bind(str(path))
        path.chmod(0o666)  # who may use it is looked at when somebody does
        listening.listen(socket.SOMAXCONN)
    except (OSError, ValueError) as error:
        listening.close()
        raise CannotListen(f"can't listen on {path}: {reason_of(error)}") from error
    return trio.SocketListener(trio.socket.from_stdlib_socket(listening))


def _is_left(path: Path) -> bool:
    """Return whether there is a socket on which nobody listens."""
    if not path.is_socket():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as visitor:
        try:
            visitor.connect(str(path))
        except ConnectionRefusedError:
            return True
    return False


# --- whom each lets in ---------------------------------------------------------------------------------------------


def _listener(accepting: trio.SocketListener, wanted: Listening, certificates: Certificates | None) -> Listener:
    address = accepting.socket.getsockname()
    if accepting.socket.family == socket.AF_UNIX:
        name = os.fsdecode(address)
        return Listener(name=f"{UNIX}{name}", accepting=accepting, admit=Users.of(wanted.users).admit)
    name = format_address(*address[:2])
    is_loopback = _is_loopback(address[0])
    if certificates and not (is_loopback and wanted.loopback_is_plain):
        return Listener(name=name, accepting=accepting, admit=_by_certificate(certificates), is_encrypted=True)
    if not is_loopback:
        if not wanted.is_insecure:
            refuse_strangers(address[0], name)
        logger.warning("%s is insecure: whoever reaches it can change the schedule and run jobs on all workers", name)
    return Listener(name=name, accepting=accepting, admit=_all)


def refuse_strangers(host: str, name: str) -> None:
    """Raise CannotListen unless an address where all are let in is of this machine alone."""
    if not _is_loopback(host):
        raise CannotListen(
            f"others could reach {name} and do everything: let them show certificates (--tls-cert, --tls-key, "
            "--tls-client-ca), or listen on a loopback address or a Unix socket (--unix) alone, or say --insecure"
        )


def is_loopback(host: str) -> bool:
    """Return whether an address is of this machine alone; a name is none, whatever it stands for."""
    try:
        return _is_loopback(host)
    except ValueError:
        return host == "localhost"


def _is_loopback(host: str) -> bool:
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


async def _all(transport: trio.SocketStream, _place: Place) -> tuple[Stream, Peer]:
    return transport, Peer(address=address_of(transport))


def _by_certificate(certificates: Certificates) -> Admit:
    async def admit(transport: trio.SocketStream, place: Place) -> tuple[Stream, Peer]:
        return await certificates.admit(transport, address_of(transport), place)

    return admit


def address_of(transport: trio.SocketStream) -> str:
    """Return what a peer is called by before more is known of it. Raises OSError."""
    if transport.socket.family == socket.AF_UNIX:
        return "Unix socket"
    return format_address(*transport.socket.getpeername()[:2])


@frozen
class Users:
    """Users of this machine, by number."""

    numbers: frozenset[int]

    @classmethod
    def of(cls, names: Iterable[str]) -> "Users":
        """Return users by names or numbers, with the server's own and root. Raises CannotListen for an unknown one."""
        return cls(frozenset({0, os.geteuid(), *map(_number, names)}))

    async def admit(self, transport: trio.SocketStream, _place: Place) -> tuple[Stream, Peer]:
        """Raises UserRefused."""
        number = _peer_user(transport)
        name = _name(number)
        note(holder=name)
        if number not in self.numbers:
            raise UserRefused(f"user {name} may not use the Unix socket: name it with --allow-user")
        return transport, Peer(address=address_of(transport), name=name)


def _number(name: str) -> int:
    try:
        return int(name) if name.isdecimal() else pwd.getpwnam(name).pw_uid
    except KeyError as error:
        raise CannotListen(f"--allow-user: there is no user {name} here") from error


def _name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def _peer_user(transport: trio.SocketStream) -> int:
    """Return the number of the user who has connected, as the kernel knows it."""
    if option := getattr(socket, "SO_PEERCRED", None):
        _, user, _ = _UCRED.unpack(transport.socket.getsockopt(socket.SOL_SOCKET, option, _UCRED.size))
    else:
        _, user = _XUCRED.unpack_from(transport.socket.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_SIZE))
    return int(user)


_UCRED = struct.Struct("iII")
"""Process, user and group: see unix(7) of Linux."""

_XUCRED, _XUCRED_SIZE = struct.Struct("II"), 256
"""Version and user, and more that is not needed: see unix(4) of FreeBSD."""

_SOL_LOCAL, _LOCAL_PEERCRED = 0, 1


# --- who is not let in ---------------------------------------------------------------------------------------------


@define
class _Told:
    at: float
    more: int = 0


@define(eq=False)
class Refusals:
    """Says why somebody was not let in, of each reason only now and then: a scanner has many, and comes again."""

    _told: dict[str, _Told] = field(factory=dict)

    def say(self, reason: str) -> None:
        """Say it, or count it."""
        now = trio.current_time()
        if reason not in self._told and len(self._told) >= MAX_REASONS:
            self._told = {each: told for each, told in self._told.items() if now < told.at + REFUSALS_PAUSE}
            if len(self._told) >= MAX_REASONS:
                reason = OTHER_REASONS
        told = self._told.get(reason)
        if told and now < told.at + REFUSALS_PAUSE:
            told.more += 1
            logger.debug("not let in: %s", reason)
            return
        self._told[reason] = _Told(at=now)
        more = told.more if told else 0
        logger.warning("not let in: %s%s", reason, f" ({more} more since the last)" if more else "")
