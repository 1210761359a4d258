"""Addresses as people write them: ``HOST:PORT``, ``HOST``, ``[::1]:1234``, ``::1``, ``unix:PATH``, or several with commas
between them. No names are looked up here.
"""

import ipaddress
import re

from attrs import frozen

from builder.errors import InvalidAddress
from builder.model import printable, raw

DEFAULT_PORT = 1234
"""The port of the original's server."""

UNIX = "unix:"
"""What stands before the path of a Unix socket."""

_MAX_PATH = 103  # bytes: what the systems have room for in the address of a socket differs, FreeBSD has least
_MAX_HOST = 253  # characters of the longest name that DNS can hold (RFC 1035, section 2.3.4)
_HOST = re.compile(r"[0-9A-Za-z_](?:[0-9A-Za-z_.-]*[0-9A-Za-z_.])?")
_SCOPE = re.compile(r"[^%]*(?:%[0-9A-Za-z_.-]+)?")  # the interface of a link-local address, as in fe80::1%eth0
_PORT = re.compile(r"[0-9]{1,5}")


def parse_address(text: str, *, default_port: int = DEFAULT_PORT) -> tuple[str, int]:
    """Return host and port of an address; the host is a name, an IPv4 or an IPv6 address without brackets.

    An IPv6 address that is followed by a port needs its brackets. Raises InvalidAddress, which says what to write.
    """

    def refuse(reason: str) -> InvalidAddress:
        return InvalidAddress(f"invalid address {printable(text[:300])!r}: {reason}; write HOST:PORT or [IPV6]:PORT")

    if "://" in text:
        raise refuse(f"leave {printable(text[:20].partition('://')[0])}:// out")
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket:
            raise refuse("the closing bracket is missing")
        if rest and not rest.startswith(":"):
            raise refuse("only :PORT may follow the bracket")
        port, is_ipv6 = rest[1:] if rest else None, True
    elif text.count(":") > 1:
        host, port, is_ipv6 = text, None, True
    else:
        host, colon, rest = text.partition(":")
        port, is_ipv6 = rest if colon else None, False

    if is_ipv6:
        try:
            ipaddress.IPv6Address(host)
        except ValueError as error:
            raise refuse("that is no IPv6 address") from error
        if not _SCOPE.fullmatch(host):
            raise refuse("that is no name of an interface")
    elif not host:
        raise refuse("the host is missing")
    elif len(host) > _MAX_HOST or not _HOST.fullmatch(host):
        raise refuse("that is no host name")

    if port is None:
        return host, default_port
    if not _PORT.fullmatch(port) or not 1 <= int(port) <= 65535:
        raise refuse("the port must be a number from 1 to 65535")
    return host, int(port)


def format_address(host: str, port: int) -> str:
    """Return the text that ``parse_address`` reads as this host and port."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@frozen
class TcpAddress:
    """A host and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return format_address(self.host, self.port)


@frozen
class UnixAddress:
    """A socket of this machine, by its path."""

    path: str

    def __str__(self) -> str:
        return f"{UNIX}{printable(self.path)}"


Address = TcpAddress | UnixAddress
"""Where a server is reached."""


def parse_remote(text: str) -> Address:
    """Return the address of a server: what ``parse_address`` reads, or ``unix:PATH``. Raises InvalidAddress."""
    if not text.startswith(UNIX):
        if text.startswith(("/", "./")):
            raise InvalidAddress(
                f"invalid address {printable(text[:300])!r}: of a socket write {UNIX}{printable(text[:300])}"
            )
        return TcpAddress(*parse_address(text))
    path = text.removeprefix(UNIX)
    if not path or "\0" in path or len(raw(path)) > _MAX_PATH:
        raise InvalidAddress(
            f"invalid address {printable(text[:300])!r}: write unix:PATH, the path with at most {_MAX_PATH} bytes"
        )
    return UnixAddress(path)


def parse_remotes(text: str) -> tuple[Address, ...]:
    """Return the addresses of several servers, each once; a path with a comma can't be among them. Raises InvalidAddress."""
    return tuple(dict.fromkeys(parse_remote(part.strip()) for part in text.split(",")))
