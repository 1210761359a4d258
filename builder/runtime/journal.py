"""The journal of systemd, and the protocol in which it takes records with fields.

See sd-daemon(3) and https://systemd.io/JOURNAL_NATIVE_PROTOCOL. The libraries that speak it are C, or more than this.
"""

import errno
import fcntl
import os
import socket
from array import array
from collections.abc import Mapping
from pathlib import Path

from attrs import define, field

SOCKET = Path("/run/systemd/journal/socket")

_TOO_LARGE = errno.EMSGSIZE, errno.ENOBUFS
"""What is said of a record that no datagram holds."""


def is_standard_error(environ: Mapping[str, str]) -> bool:
    """Return whether what is written to standard error gets into the journal: it may have been redirected."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def encode(fields: Mapping[str, str]) -> bytes:
    """Return a record. The names are upper-case letters, digits and underscores; the journal leaves out any other field."""
    return b"".join(_encode(name.encode("ascii"), value.encode("utf-8", "replace")) for name, value in fields.items())


def _encode(name: bytes, value: bytes) -> bytes:
    if b"\n" in value:
        return b"%s\n%s%s\n" % (name, len(value).to_bytes(8, "little"), value)
    return b"%s=%s\n" % (name, value)


@define(eq=False)
class Journal:
    """A way to the journal. ``send`` waits while that takes nothing, as a write to standard error would."""

    _path: Path
    _socket: socket.socket = field(init=False, factory=lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))

    def send(self, fields: Mapping[str, str]) -> None:
        """Add a record. Raises OSError."""
        record = encode(fields)
        try:
            self._socket.sendto(record, str(self._path))
        except OSError as error:
            if error.errno not in _TOO_LARGE:
                raise
            self._send_large(record)

    def close(self) -> None:
        """Send nothing more."""
        self._socket.close()

    def _send_large(self, record: bytes) -> None:
        descriptor = os.memfd_create("journal-record", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with open(descriptor, "wb", closefd=False) as file:
                file.write(record)
            # the journal reads it in place, and so takes only what nobody can change any more
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [descriptor]))]
            self._socket.sendmsg([], rights, 0, str(self._path))
        finally:
            os.close(descriptor)
