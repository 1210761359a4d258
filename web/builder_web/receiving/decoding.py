"""Content-Encoding of a body: gzip, zstd or none, and the bound of what comes out."""

import zlib
from collections.abc import Iterator

import zstandard

from builder.errors import BuilderError

PIECE_SIZE = 1024 * 1024
"""Bytes that come out of gzip at once."""

ZSTD_INPUT = 128
"""Bytes that go into zstd at once: four of them make 128 KiB at most, so that 4 MiB come out."""

ZSTD_WINDOW = 8 * 1024 * 1024
"""Bytes that a decoder of the encoding "zstd" must have at hand, and need not have more of: RFC 9659."""

_GZIP = 16 + zlib.MAX_WBITS


class NotDecodable(BuilderError):
    """A body that is not what its Content-Encoding says, or of one that is not known."""


class TooLarge(BuilderError):
    """A body longer than what is taken."""


class Decoder:
    """Decodes a body piece by piece. ``limit`` is in bytes, of what comes out.

    ``announced`` is how many are to come in, as far as that is known. Raises NotDecodable and TooLarge.
    """

    def __init__(self, encoding: str | None, limit: int, *, announced: int = 0) -> None:
        self._limit = limit
        self._size = 0
        self._gzip = self._zstd = None
        match (encoding or "identity").strip().lower():
            case "identity":
                self._check(announced)
            case "gzip" | "x-gzip":
                self._gzip = zlib.decompressobj(_GZIP)
            case "zstd":
                self._zstd = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).decompressobj()
            case other:
                raise NotDecodable(f"Content-Encoding {other[:40]!r} is not known; there are gzip and zstd")

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Return what comes out of the next bytes, in pieces. Raises NotDecodable and TooLarge."""
        for piece in self._decoded(data):
            self._size += len(piece)
            self._check(self._size)
            yield piece

    def finish(self) -> None:
        """Raise NotDecodable if the end is missing."""
        if (self._gzip and not self._gzip.eof) or (self._zstd and not self._zstd.eof):
            raise NotDecodable("the compressed body is cut off")

    def _check(self, size: int) -> None:
        if size > self._limit:
            raise TooLarge(f"the upload has more than {self._limit} bytes")

    def _decoded(self, data: bytes) -> Iterator[bytes]:
        if self._gzip:
            while data and not self._gzip.eof:
                try:
                    yield self._gzip.decompress(data, PIECE_SIZE)
                except zlib.error as error:
                    raise NotDecodable(f"the body is not gzip: {error}") from error
                data = self._gzip.unconsumed_tail
            if self._gzip.eof and (data or self._gzip.unused_data):
                raise NotDecodable("bytes after the end of the compressed body")
        elif self._zstd:
            # it has no bound of its own for what comes out of one call: small pieces go in
            for start in range(0, len(data), ZSTD_INPUT):
                try:
                    yield self._zstd.decompress(data[start : start + ZSTD_INPUT])
                except (zstandard.ZstdError, EOFError) as error:
                    raise NotDecodable(f"the body is not zstd: {error}") from error
        else:
            yield data
