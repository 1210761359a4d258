"""Connections as all programs want them. What is TCP's alone, a Unix socket is left without."""

import errno
import socket
import struct
from typing import Protocol

_KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
"""Seconds, seconds, count: a peer that vanished without a word is noticed after two minutes, not two hours."""

USER_TIMEOUT = 120.0
"""Seconds that data may be under way, and a peer with full buffers may read nothing."""


class Tunable(Protocol):
    """A socket, or a stream over one."""

    def setsockopt(self, level: int, option: int, value: int | bytes, /) -> None:
        """Set an option."""


class Readable(Protocol):
    """The same, for what its options are."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        """Return an option."""


def tune(connection: Tunable) -> None:
    """Send at once, and have the kernel find a peer that vanished. Not every system has all options."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in {"TCP_NODELAY": 1, **_KEEPALIVE}.items():
        _set(connection, name, value)


def bound_unsent(connection: Tunable, seconds: float = USER_TIMEOUT) -> None:
    """Have the kernel find a peer that vanished while data is under way, too.

    It also ends a connection to a peer that is alive and reads nothing for so long, once its buffers are full.
    """
    _set(connection, "TCP_USER_TIMEOUT", int(seconds * 1000))


def _set(connection: Tunable, name: str, value: int) -> None:
    if (option := getattr(socket, name, None)) is None:
        return
    try:
        connection.setsockopt(socket.IPPROTO_TCP, option, value)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOPROTOOPT):
            raise


def reset_at_close(connection: Tunable, *, reset: bool) -> None:
    """Have the connection end by a reset, or in order.

    It is the kernel that keeps to it: also when this process is killed, nobody takes the end for a proper one.
    """
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", reset, 0))


def ends_by_reset(connection: Readable) -> bool:
    """Return what the connection was last told of how to end."""
    is_on, seconds = struct.unpack(
        "ii", connection.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.calcsize("ii"))
    )
    return bool(is_on) and seconds == 0
