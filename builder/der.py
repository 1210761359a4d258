"""The few rules of DER that are needed to walk, bound and write values without holding them whole.

A tag is held as the number that its identifier octets make: 0x30, or 0xBF40 for the context tag 64.
"""

from builder.errors import ProtocolError

SEQUENCE = 0x30
INTEGER = 0x02
TEXT = 0x0C
"""What the protocol calls UTF8String: any bytes."""

_MAX_LENGTH = 7
"""Bytes of the longest length, besides the one that counts them."""

_MAX_TAG = 3
"""Bytes of the longest tag: context tags up to 16383."""

MAX_DEPTH = 16
"""Deepest nesting that is walked; the deepest value of the protocol, an info reply, has 10 levels."""


def context(number: int) -> int:
    """Return an EXPLICIT context tag; ``number`` is less than 16384."""
    if number < 0x1F:
        return 0xA0 | number
    if number < 0x80:
        return 0xBF00 | number
    return 0xBF0000 | (0x80 | number >> 7) << 8 | (number & 0x7F)


def context_number(tag: int) -> int | None:
    """Return the number of an EXPLICIT context tag, None for another tag: the inverse of ``context``."""
    if tag >> 8 == 0:
        return tag & 0x1F if tag & 0xE0 == 0xA0 else None
    if tag >> 16 == 0:
        return tag & 0x7F if tag >> 8 == 0xBF else None
    return (tag >> 8 & 0x7F) << 7 | (tag & 0x7F) if tag >> 16 == 0xBF else None


def read_tag(data: bytes | bytearray | memoryview, offset: int) -> tuple[int, int] | None:
    """Return the tag and the offset behind it; None while bytes are missing. Raises ProtocolError if it is not DER."""
    if len(data) <= offset:
        return None
    tag = data[offset]
    if tag & 0x1F != 0x1F:
        return tag, offset + 1
    for end in range(offset + 1, offset + _MAX_TAG):
        if len(data) <= end:
            return None
        tag = tag << 8 | data[end]
        if data[end] < 0x80:
            if end == offset + 1 and data[end] < 0x1F:
                break
            return tag, end + 1
        if data[offset + 1] == 0x80:
            break
    raise ProtocolError("tag that is too long, or not in its shortest form")


def header(tag: int, length: int) -> bytes:
    """Return the tag and length that begin a value with ``length`` bytes of content."""
    identifier = tag.to_bytes((tag.bit_length() + 7) // 8, "big")
    if length < 0x80:
        return identifier + bytes((length,))
    size = (length.bit_length() + 7) // 8
    return identifier + bytes((0x80 | size,)) + length.to_bytes(size, "big")


def header_size(length: int) -> int:
    """Return how many bytes ``header`` takes for that length and a tag of one byte."""
    return 2 if length < 0x80 else 2 + (length.bit_length() + 7) // 8


def value_size(length: int) -> int:
    """Return the bytes of a whole value with ``length`` bytes of content."""
    return header_size(length) + length


def content_size(size: int) -> int:
    """Return how many bytes of content a whole value of that size has, with a tag of one byte; -1 if none has that size."""
    for header_ in range(2, min(size, 2 + _MAX_LENGTH) + 1):
        if header_size(size - header_) == header_:
            return size - header_
    return -1


def integer(value: int) -> bytes:
    """Return an INTEGER in its shortest two's complement form."""
    size = ((value if value >= 0 else ~value).bit_length()) // 8 + 1
    return header(INTEGER, size) + value.to_bytes(size, "big", signed=True)


def read_header(data: bytes | bytearray | memoryview, offset: int) -> tuple[int, int, int] | None:
    """Return the tag, the length of the content, and the offset where it begins; None while bytes are missing.

    Raises ProtocolError for a header that is not DER.
    """
    found = read_tag(data, offset)
    if found is None or len(data) <= found[1]:
        return None
    tag, offset = found
    first = data[offset]
    if first < 0x80:
        return tag, first, offset + 1
    size = first & 0x7F
    if size == 0:
        raise ProtocolError("indefinite length")
    if size > _MAX_LENGTH:
        raise ProtocolError(f"length of more than {_MAX_LENGTH} bytes")
    start = offset + 1 + size
    if len(data) < start:
        return None
    length = int.from_bytes(data[offset + 1 : start], "big")
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
        _, length, start = found
        is_constructed = data[offset] & 0x20
        end = start + length
        if end > ends[-1]:
            raise ProtocolError("an element is longer than what contains it")
        elements += 1
        if elements > max_elements:
            raise ProtocolError(f"more than {max_elements} elements")
        if is_constructed:
            if len(ends) > MAX_DEPTH:
                raise ProtocolError(f"nested deeper than {MAX_DEPTH} levels")
            ends.append(end)
            offset = start
        else:
            if len(ends) == 1 and end != ends[0]:
                raise ProtocolError("bytes after the end of the value")
            offset = end
