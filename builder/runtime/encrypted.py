"""A TLS connection over a socket of trio.

trio's own stream either waits for the peer's goodbye or says none itself. Here a goodbye is said whenever the connection
ends in order, and never when it is to end by a reset: whoever takes an end in order for success must not see one then.
"""

import _ssl
import contextlib
import os
import ssl
import sys
from collections.abc import Mapping

import trio
from trio.abc import HalfCloseableStream

from builder.runtime.sockets import ends_by_reset

RECORD_SIZE = 16 * 1024
"""Most bytes that a record carries: OpenSSL hands out no more at once."""

PIECE_SIZE = 2 * RECORD_SIZE
"""Bytes that are sent or received at once: what OpenSSL has once needed for its buffers it keeps."""


class EncryptedStream(HalfCloseableStream):
    """TLS over ``transport``. One task may send while another receives.

    An end without a goodbye is an end: the protocol above knows where a message ends. Raises trio.BrokenResourceError
    for what is wrong with the TLS of the other side.
    """

    def __init__(
        self,
        transport: trio.SocketStream,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
        server_hostname: str | None = None,
    ) -> None:
        self.transport = transport
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname
        )
        self._is_torn = True  # what was sent last may be a part of something: nothing can follow

    async def do_handshake(self) -> None:
        """Agree on keys and check the other side's certificate. Raises ssl.SSLError, which tells what is wrong.

        A client is done before the server has looked at its certificate: it finds that out when it receives.
        """
        self._is_torn = False
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError:
                with contextlib.suppress(trio.BrokenResourceError):
                    await self._flush()  # the other side is told why
                self._is_torn = True
                raise
            else:
                await self._flush()
                return

    @property
    def chain(self) -> list[bytes]:
        """The other side's certificate, and those that lead from it to its authority, in DER."""
        if sys.version_info >= (3, 13):
            return self._tls.get_verified_chain()
        return [each.public_bytes(_ssl.ENCODING_DER) for each in self._tls._sslobj.get_verified_chain()]  # type: ignore[attr-defined]  # noqa: SLF001  it has no other name before

    @property
    def described_certificate(self) -> Mapping[str, object]:
        """What ``SSLSocket.getpeercert`` tells of it."""
        return self._tls.getpeercert() or {}

    # --- the stream ------------------------------------------------------------------------------------------------

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it."""
        view = memoryview(data)
        for start in range(0, len(view), PIECE_SIZE):
            try:
                self._tls.write(view[start : start + PIECE_SIZE])
            except ssl.SSLError as error:
                raise trio.BrokenResourceError from error
            await self._flush()

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the socket takes more."""
        await self.transport.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Wait for some bytes; empty when the other side has ended."""
        while (data := self._read(max_bytes or PIECE_SIZE)) is None:
            await self._fill()  # nothing that comes is answered before this side sends: not in TLS 1.3
        return data

    def _read(self, size: int) -> bytes | None:
        """Return what there is, None if that is nothing yet."""
        pieces: list[bytes] = []
        while size > 0:
            try:
                piece = self._tls.read(min(size, RECORD_SIZE))
            except ssl.SSLWantReadError:
                return b"".join(pieces) if pieces else None
            except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
                break
            except ssl.SSLError as error:
                if pieces:
                    break  # it says so again
                raise trio.BrokenResourceError from error
            if not piece:
                break
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    async def send_eof(self) -> None:
        """Say goodbye; what the other side sends is still received."""
        self._say_goodbye()
        await self._flush()
        with contextlib.suppress(OSError):
            self.transport.socket.shutdown(trio.socket.SHUT_WR)

    async def aclose(self) -> None:
        """Say goodbye, unless it is to end by a reset, and close: nothing is waited for."""
        if not self._is_torn and not ends_by_reset(self.transport):
            self._say_goodbye()
            with contextlib.suppress(OSError):
                os.write(self.transport.socket.fileno(), self._outgoing.read())
        self._is_torn = True
        await self.transport.aclose()

    def _say_goodbye(self) -> None:
        with contextlib.suppress(ssl.SSLError):  # also that the other side has said none yet
            self._tls.unwrap()

    async def _fill(self) -> None:
        data = await self.transport.receive_some(PIECE_SIZE)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        if self._is_torn:
            raise trio.BrokenResourceError("what was sent last was not sent to its end")
        self._is_torn = True
        await self.transport.send_all(self._outgoing.read())
        self._is_torn = False

    # --- the socket ------------------------------------------------------------------------------------------------

    def setsockopt(self, level: int, option: int, value: int | bytes, /) -> None:
        """Set an option of the socket."""
        self.transport.setsockopt(level, option, value)
