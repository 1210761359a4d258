"""Many console lines at once, as frames of Output messages of one build: cut out of a buffer, joined into one.

A console is nearly all that a connection carries, and its frames differ in a line, a length and a time only. What
precedes a line is known from the frame's length, so it is compared and not decoded. Both ways say exactly what the
codec says: a frame that is not what this module would write is left to the codec, at the place where it begins.
"""

from collections.abc import Iterator, Sequence
from uuid import UUID

from attrs import frozen

from builder import codec, der
from builder.errors import ProtocolError
from builder.execution import encode_console_line
from builder.framing import frame_header, read_length
from builder.messages import Output
from builder.model import ConsoleLine

_KEPT = 256
"""Lengths of lines for which is kept what precedes them: 100 KB of a build at most, and enough for nearly all lines."""

_LONGEST_TAIL = der.value_size(8)
"""Bytes of the longest timestamps, of which 62 bits may be used."""

_UUID_SIZE = der.value_size(16)
_LENGTH_SIZE = len(frame_header(0))


@frozen(kw_only=True)
class TimedLines:
    """Console lines that came together with their times, in the frames that they travel in."""

    frames: bytes
    count: int
    encoded: int
    """Bytes that they take in the console of an execution."""
    last: int
    """The time of the last one, in nanoseconds since the build began."""


class _Form:
    """What is the same in all frames of one length."""

    __slots__ = ("before", "line", "record", "record_size", "size", "text")

    def __init__(self, uuid: bytes, line: int, tail: int) -> None:
        text = der.header(der.TEXT, line)
        content = len(text) + line + tail
        sequence = der.header(der.SEQUENCE, _UUID_SIZE + content)
        length = der.value_size(len(sequence) + _UUID_SIZE + content)
        tag = der.header(der.context(Output.tag), len(sequence) + _UUID_SIZE + content)
        begin = frame_header(length) + tag + sequence + der.header(der.TEXT, 16) + uuid
        self.before = begin + text
        """What precedes the line."""
        self.text = len(begin)
        """Where the line begins as a value, with its tag and length."""
        self.line = len(self.before)
        """Where its bytes begin."""
        self.size = _LENGTH_SIZE + length
        """The bytes of the frame."""
        self.record = der.header(der.SEQUENCE, content)
        """What precedes timestamp and line in the console of an execution."""
        self.record_size = len(self.record) + content
        """The bytes of all three together."""


class _Forms:
    """The forms of a build's frames in which so many bytes stand behind the line: none, or a timestamp."""

    def __init__(self, uuid: bytes, tail: int) -> None:
        self._uuid = uuid
        self._tail = tail
        self._by_line: dict[int, _Form] = {}
        self._by_length: dict[bytes, _Form] = {}

    def of(self, line: int) -> _Form:
        """Return the form of a frame with a line of that length."""
        form = self._by_line.get(line)
        if form is None:
            if len(self._by_line) == _KEPT:
                self._by_line.clear()
            form = self._by_line[line] = _Form(self._uuid, line, self._tail)
        return form

    def find(self, length: bytes) -> _Form | None:
        """Return the form of a frame whose first 8 bytes these are; None if there is none, or if they are cut off."""
        form = self._by_length.get(length)
        if form is None and (line := self._line_length(length)) >= 0:
            if len(self._by_length) == _KEPT:
                self._by_length.clear()
            form = self._by_length[length] = _Form(self._uuid, line, self._tail)
        return form

    def _line_length(self, length: bytes) -> int:
        size = int.from_bytes(length, "big")
        if len(length) < _LENGTH_SIZE or size > Output.max_size:
            return -1
        content = der.content_size(der.content_size(size)) - _UUID_SIZE
        return der.content_size(content - self._tail)


class Outputs:
    """The Output frames of one build, in bulk."""

    def __init__(self, uuid: UUID) -> None:
        self._uuid = uuid
        self._forms: dict[int, _Forms] = {}
        self._tail = 0  # of the output that was decoded last: the next one is likely to have one as long

    def _with_tail(self, size: int) -> _Forms:
        if size not in self._forms:
            self._forms[size] = _Forms(self._uuid.bytes, size)
        return self._forms[size]

    def join(self, lines: Sequence[bytes], timestamp: int | None = None) -> bytes:
        """Return the frames of lines, all with that timestamp in nanoseconds or with none.

        Raises ProtocolError for a timestamp that the original could not read.
        """
        tail = b"" if timestamp is None else codec.encode_console_integer(timestamp)
        of = self._with_tail(len(tail)).of
        parts = [tail] * (3 * len(lines))
        parts[0::3] = [of(len(line)).before for line in lines]
        parts[1::3] = lines
        return b"".join(parts)

    def size(self, output: Output) -> int:
        """Return how many bytes such a line takes with its frame."""
        return self._with_tail(_tail_size(output.timestamp)).of(len(output.line)).size

    def records_size(self, lines: Sequence[bytes], timestamp: int) -> int:
        """Return how many bytes such lines take in the console of an execution."""
        of = self._with_tail(_tail_size(timestamp)).of
        return sum([of(len(line)).record_size for line in lines])

    def timed(self, lines: Sequence[bytes], timestamp: int) -> TimedLines:
        """Return lines that have come at that time. Raises ProtocolError as ``join`` does."""
        frames, encoded = self.join(lines, timestamp), self.records_size(lines, timestamp)
        return TimedLines(frames=frames, count=len(lines), encoded=encoded, last=timestamp)

    def cut(self, data: bytes) -> tuple[list[bytes], int]:
        """Return the lines of the frames without a timestamp that ``data`` begins with, and where those end.

        That is at a frame that is not whole, or of anything else, or in a form that is not the usual one.
        """
        lines: list[bytes] = []
        find = self._with_tail(0).find
        limit = len(data)
        start = 0
        while form := find(data[start : start + _LENGTH_SIZE]):
            end = start + form.size
            if end > limit or not data.startswith(form.before, start):
                break
            lines.append(data[start + form.line : end])
            start = end
        return lines, start

    def cut_timed(self, data: bytes, since: int) -> tuple[list[TimedLines], int]:
        """Return the frames that ``data`` begins with, as one, each with a time of its own, and where they end.

        That is at what ends ``cut``, or at a time before ``since``, or before that of the line before.
        """
        start = count = encoded = 0
        last, tail = since, self._tail
        while True:
            for form, middle, end in self._frames(data, start, tail) if tail else ():
                if (time := int.from_bytes(data[middle + 2 : end], "big")) < last:
                    break
                start, last = end, time
                count += 1
                encoded += form.record_size
            output, end = self._decode(data, start)
            if output is None or output.timestamp is None or output.timestamp < last:
                break
            one = self.timed([output.line], output.timestamp)
            if one.frames != data[start:end]:
                break
            start, last, tail = end, one.last, _tail_size(one.last)
            count += 1
            encoded += one.encoded
            self._tail = tail
        if not count:
            return [], 0
        return [TimedLines(frames=data[:start], count=count, encoded=encoded, last=last)], start

    def read(self, data: bytes) -> tuple[list[Output], int]:
        """Return the outputs that ``data`` begins with, and where those end: at a frame that is not whole or is no Output."""
        found: list[Output] = []
        start, tail = 0, self._tail
        while True:
            for form, middle, end in self._frames(data, start, tail):
                time = int.from_bytes(data[middle + 2 : end], "big") if tail else None
                found.append(Output(uuid=self._uuid, line=data[start + form.line : middle], timestamp=time))
                start = end
            output, end = self._decode(data, start)
            if output is None:
                return found, start
            found.append(output)
            start, tail = end, _tail_size(output.timestamp)
            self._tail = tail

    def records(self, data: bytes) -> tuple[list[bytes], int]:
        """Return the lines that ``data`` begins with, each with its timestamp as the console of an execution has it.

        They end, at the offset that is returned too, with a frame that is not whole or is none with a timestamp.
        """
        records: list[bytes] = []
        start = tail = 0
        while True:
            for form, middle, end in self._frames(data, start, tail) if tail else ():
                records.append(form.record + data[middle:end] + data[start + form.text : middle])
                start = end
            output, end = self._decode(data, start)
            if output is None or output.timestamp is None:
                return records, start
            records.append(encode_console_line(ConsoleLine(delta=output.timestamp, line=output.line)))
            start, tail = end, _tail_size(output.timestamp)

    def _frames(self, data: bytes, start: int, tail: int) -> Iterator[tuple[_Form, int, int]]:
        """Yield the form of each frame whose timestamp takes ``tail`` bytes, where that begins, and where it ends."""
        find = self._with_tail(tail).find
        least, most = b"", b"\0"
        if tail:  # one that is positive, in its shortest form and below 62 bits, is known by its first bytes
            begin = bytes((der.INTEGER, tail - 2))
            least, most = begin + b"\0\x80", begin + (b"\x40" if tail == _LONGEST_TAIL else b"\x80")
        limit = len(data)
        while form := find(data[start : start + _LENGTH_SIZE]):
            end = start + form.size
            if end > limit or not data.startswith(form.before, start):
                return
            middle = end - tail
            if not least <= data[middle:end] < most:
                return
            yield form, middle, end
            start = end

    def _decode(self, data: bytes, start: int) -> tuple[Output | None, int]:
        """Return the Output of this build whose frame begins there, and where it ends."""
        if len(data) - start < _LENGTH_SIZE:
            return None, start
        length, body = read_length(data, start)
        end = body + length
        if end > len(data) or length > Output.max_size:
            return None, start
        try:
            message = codec.decode(data[body:end])
        except ProtocolError:
            return None, start
        return (message, end) if isinstance(message, Output) and message.uuid == self._uuid else (None, start)


def _tail_size(timestamp: int | None) -> int:
    """Return how many bytes a timestamp takes."""
    return 0 if timestamp is None else len(codec.encode_console_integer(timestamp))
