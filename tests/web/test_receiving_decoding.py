"""What comes out of a compressed body: all of it, in pieces that are bounded, and not more than was allowed."""

import gzip
import random
import tracemalloc
import zlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from builder_web.receiving.decoding import PIECE_SIZE, ZSTD_WINDOW, Decoder, NotDecodable, TooLarge

MB = 1024 * 1024


def decoded(decoder: Decoder, data: bytes, step: int) -> bytes:
    found = b"".join(piece for start in range(0, len(data), step) for piece in decoder.feed(data[start : start + step]))
    decoder.finish()
    return found


@given(
    st.binary(max_size=5000),
    st.integers(1, 700),
    st.sampled_from(["gzip", "x-gzip", "GZIP ", "zstd", "identity", None]),
)
def test_all_comes_out_however_it_arrives(data: bytes, step: int, encoding: str | None) -> None:
    name = (encoding or "").strip().lower()
    encoded = gzip.compress(data) if "gzip" in name else zstandard.compress(data) if name == "zstd" else data
    assert decoded(Decoder(encoding, len(data)), encoded, step) == data


@pytest.mark.parametrize("encoding", ["gzip", "zstd", None])
def test_one_byte_more_than_is_allowed(encoding: str | None) -> None:
    data = random.Random(1).randbytes(3000)
    encoded = gzip.compress(data) if encoding == "gzip" else zstandard.compress(data) if encoding else data
    assert decoded(Decoder(encoding, 3000), encoded, 100) == data
    with pytest.raises(TooLarge):
        decoded(Decoder(encoding, 2999), encoded, 100)


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_a_bomb_takes_little_memory(encoding: str) -> None:
    zeros = bytes(64 * MB)
    bomb = gzip.compress(zeros, 9) if encoding == "gzip" else zstandard.ZstdCompressor(level=19).compress(zeros)
    del zeros
    tracemalloc.start()
    largest = count = 0
    for piece in Decoder(encoding, 64 * MB).feed(bomb):
        largest, count = max(largest, len(piece)), count + len(piece)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 64 * MB
    assert largest <= 4 * MB + PIECE_SIZE
    assert peak < 16 * MB


def test_a_window_larger_than_the_standard_wants_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=24)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = random.Random(1).randbytes(ZSTD_WINDOW + 1)
    with pytest.raises(NotDecodable, match="memory"):
        decoded(Decoder("zstd", 2**30), compressor.compress(data) + compressor.flush(), MB)


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, gzip", "", "x" * 100])
def test_encodings_that_are_not_known(encoding: str) -> None:
    if not encoding:
        Decoder(encoding, 1)  # as if it was not there
        return
    with pytest.raises(NotDecodable, match="gzip and zstd"):
        Decoder(encoding, 1)


@pytest.mark.parametrize("tail", [b"x", gzip.compress(b"more", mtime=0)])
def test_what_follows_a_compressed_body_is_refused(tail: bytes) -> None:
    with pytest.raises(NotDecodable, match="after the end"):
        decoded(Decoder("gzip", 1000), gzip.compress(b"body") + tail, 1000)
    with pytest.raises(NotDecodable):
        decoded(Decoder("zstd", 1000), zstandard.compress(b"body") + zstandard.compress(b"more"), 5)


def test_a_checksum_that_is_wrong() -> None:
    damaged = bytearray(gzip.compress(b"body" * 100))
    damaged[-8:-4] = zlib.crc32(b"other").to_bytes(4, "little")
    with pytest.raises(NotDecodable, match="not gzip"):
        decoded(Decoder("gzip", 1000), bytes(damaged), 50)
