"""PNG files with a palette: pictures of text have few colours, and take a third of the room so."""

import struct
import zlib
from collections import Counter
from collections.abc import Iterator

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOURS = 256
_ALIKE = 100
"""Square of the distance of two colours that nobody tells apart: rare ones need their places too."""
Colour = tuple[int, int, int]


def shrink(data: bytes) -> bytes:
    """Return a picture of red, green and blue, 8 bits each, with colours that are far enough from each other; others are the nearest of these."""
    chunks = list(_chunks(data))
    width, height, depth, kind = struct.unpack(">IIBB", chunks[0][1][:10])
    assert (depth, kind) == (8, 2), "chromium's pictures have 8 bits of red, green and blue"
    packed = b"".join(content for name, content in chunks if name == b"IDAT")
    rows = list(_rows(zlib.decompress(packed), width * 3))
    pixels = [list(zip(row[::3], row[1::3], row[2::3], strict=True)) for row in rows]
    counts = Counter(colour for row in pixels for colour in row)
    palette: list[Colour] = []
    for colour, _ in counts.most_common():
        if len(palette) < _COLOURS and (not palette or _distance(colour, palette[_nearest(colour, palette)]) > _ALIKE):
            palette.append(colour)
    index = {colour: _nearest(colour, palette) for colour in counts}
    content = b"".join(b"\0" + bytes(index[colour] for colour in row) for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    made = [
        (b"IHDR", header),
        (b"PLTE", b"".join(map(bytes, palette))),
        (b"IDAT", zlib.compress(content, 9)),
        (b"IEND", b""),
    ]
    return _SIGNATURE + b"".join(_chunk(name, content) for name, content in made)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = len(_SIGNATURE)
    while place < len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        yield name, data[place + 8 : place + 8 + length]
        place += length + 12


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _rows(data: bytes, size: int) -> Iterator[bytes]:
    """Yield rows without their filters: see the PNG specification, 9.2."""
    above = bytearray(size)
    for start in range(0, len(data), size + 1):
        kind, row = data[start], bytearray(data[start + 1 : start + 1 + size])
        for place in range(size) if kind else ():
            left = row[place - 3] if place >= 3 else 0
            if kind == 1:
                guess = left
            elif kind == 2:
                guess = above[place]
            elif kind == 3:
                guess = (left + above[place]) // 2
            else:
                guess = _paeth(left, above[place], above[place - 3] if place >= 3 else 0)
            row[place] = (row[place] + guess) & 255
        yield bytes(row)
        above = row


def _paeth(left: int, above: int, corner: int) -> int:
    guess = left + above - corner
    return min((left, above, corner), key=lambda value: abs(guess - value))


def _nearest(colour: Colour, palette: list[Colour]) -> int:
    return min(range(len(palette)), key=lambda index: _distance(colour, palette[index]))


def _distance(one: Colour, other: Colour) -> int:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))
