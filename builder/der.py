"""The few rules of DER that are needed to walk, bound and write values without holding them whole.

Tags are single bytes: no type of this protocol needs the multi-byte form, and it is refused.
"""

from builder.errors import ProtocolError

SEQUENCE = 0x30
INTEGER = 0x02
TEXT = 0x0C
"""What the protocol calls UTF8String: any bytes."""

MAX_HEADER = 9
"""Bytes of the longest tag and length that are read: the length in up to 7 bytes."""

MAX_DEPTH = 16
"""Deepest nesting that is walked; the deepest value of the protocol, an info reply, has 10 levels."""


def context(number: int) -> int:
    """Return the tag byte of an EXPLICIT context tag."""
    return 0xA0 | number


def header(tag: int, length: int) -> bytes:
    """Return the tag and length that begin a value with ``length`` bytes of content."""
    if length < 0x80:
        return bytes((tag, length))
    size = (length.bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + length.to_bytes(size, "big")


def header_size(length: int) -> int:
    """Return how many bytes ``header`` takes for that length."""
    return 2 if length < 0x80 else 2 + (length.bit_length() + 7) // 8


def value_size(length: int) -> int:
    """Return the bytes of a whole value with ``length`` bytes of content."""
    return header_size(length) + length


def integer(value: int) -> bytes:
    """Return an INTEGER in its shortest two's complement form."""
    size = ((value if value >= 0 else ~value).bit_length()) // 8 + 1
    return header(INTEGER, size) + value.to_bytes(size, "big", signed=True)


def read_header(data: bytes | bytearray | memoryview, offset: int) -> tuple[int, int, int] | None:
    """Return the tag, the length of the content, and the offset where it begins; None while bytes are missing.

    Raises ProtocolError for a header that is not DER.
    """
    if len(data) < offset + 2:
        return None
    tag, first = data[offset], data[offset + 1]
    if tag & 0x1F == 0x1F:
        raise ProtocolError("unknown tag in multi-byte form")
    if first < 0x80:
        return tag, first, offset + 2
    size = first & 0x7F
    if size == 0:
        raise ProtocolError("indefinite length")
    if size > MAX_HEADER - 2:
        raise ProtocolError("length of more than 7 bytes")
    start = offset + 2 + size
    if len(data) < start:
        return None
    length = int.from_bytes(data[offset + 2 : start], "big")
    if length < 0x80 or length < 1 << (8 * (size - 1)):
        raise ProtocolError("length that is not in its shortest form")
    return tag, length, start


def check(data: bytes, *, max_elements: int) -> None:
    """Raise ProtocolError unless ``data`` is one well-formed value of at most that many elements, in bounded depth.

    It looks at tags and lengths only, in one pass without recursion, so that the decoder behind it meets neither
    deep nesting nor a small frame that unfolds to millions of objects.
    """
    if not data:
        raise ProtocolError("the value is cut off")
    ends = [len(data)]
    offset = 0
    elements = 0
    while True:
        while offset == ends[-1]:
            ends.pop()
            if not ends:
                return
            if len(ends) == 1 and offset != ends[0]:
                raise ProtocolError("bytes after the end of the value")
        found = read_header(data, offset)
        if found is None:
            raise ProtocolError("the value is cut off")
        tag, length, start = found
        end = start + length
        if end > ends[-1]:
            raise ProtocolError("an element is longer than what contains it")
        elements += 1
        if elements > max_elements:
            raise ProtocolError(f"more than {max_elements} elements")
        if tag & 0x20:
            if len(ends) > MAX_DEPTH:
                raise ProtocolError(f"nested deeper than {MAX_DEPTH} levels")
            ends.append(end)
            offset = start
        else:
            if len(ends) == 1 and end != ends[0]:
                raise ProtocolError("bytes after the end of the value")
            offset = end
