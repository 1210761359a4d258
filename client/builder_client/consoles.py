"""The console of a build, read in parts: its end, from a time on, backwards, or as it grows."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from attrs import frozen

from builder.extension import Request
from builder.extension.logs import ConsoleRange, ReadConsole
from builder.messages import KIB, MIB, Message, Output
from builder.outputs import Outputs

from .errors import TooOld, Unreachable

if TYPE_CHECKING:
    from .remote import Remote

WHAT = "log"
"""What a server of the classic protocol has not."""

RETRY = 1.0
"""Seconds before a server that has gone is tried again."""

_CLOSE = 64 * KIB
"""Bytes that are read rather than halved once more: a connection sends them at once."""

_FEW = 512
"""Bytes in which a line is likely to begin: where none does, the one behind them is asked for."""

_PART = MIB
"""Bytes that are looked through at once from the end on."""

Ask = Callable[[Request], list[Message]]


def _nothing() -> None:
    pass


@frozen(kw_only=True)
class RemoteConsole:
    """The console of a build; ``on_wait`` is called before every wait for the network."""

    remote: "Remote"
    uuid: UUID
    on_wait: Callable[[], None] = _nothing

    def lines(self, *, offset: int = 0, last: int | None = None) -> Iterator[Output]:
        """Yield the lines from an offset on, or the last ones, as many as there are now."""
        asked = ReadConsole(uuid=self.uuid, follow=False, offset=offset, last=last)
        yield from _outputs(self.remote.stream(asked, what=WHAT, on_wait=self.on_wait))

    def follow(self, *, offset: int = 0, last: int | None = None, on_break: Callable[[str], None]) -> Iterator[Output]:
        """Yield the lines as they come, until the build ends; ``on_break`` is told why there are none for a while.

        After a break it goes on behind the last line that has come. Raises Unreachable if nothing has come yet.
        """
        sizes = Outputs(self.uuid)
        asked = ReadConsole(uuid=self.uuid, follow=True, offset=offset, last=last)
        next_line: int | None = None
        is_told = False
        while True:
            try:
                for reply in self.remote.stream(asked, what=WHAT, on_wait=self.on_wait, is_endless=True):
                    is_told = False
                    if isinstance(reply, ConsoleRange):
                        next_line = reply.offset
                    elif isinstance(reply, Output):
                        assert next_line is not None, "the range comes first"
                        next_line += sizes.size(reply)
                        yield reply
            except (Unreachable, TooOld) as error:  # a server that stops, and its successor, look like a classic one
                if next_line is None:
                    raise
                if not is_told:
                    on_break(f"{error}; trying again")
                is_told = True
                asked = ReadConsole(uuid=self.uuid, follow=True, offset=next_line)
            else:
                return
            time.sleep(RETRY)

    def find_time(self, since: int) -> int:
        """Return an offset from which on all lines come that are of a time or later; few others do.

        Times are nanoseconds since the start of the build. It is found by halving.
        """
        with self.remote.requests(what=WHAT) as ask:
            low, high = 0, self._range(ask, 0, 0)[0].size
            while high - low > _CLOSE:
                middle = (low + high) // 2
                place, lines = self._range(ask, middle, _FEW)
                if not lines and place.offset < high:
                    place, lines = self._range(ask, place.offset, 1)
                if place.offset >= high or not lines or (lines[0].timestamp or 0) >= since:
                    high = middle
                else:
                    low = place.offset
        return low

    def last_wanted(
        self, count: int, is_wanted: Callable[[Output], bool], *, offset: int = 0
    ) -> tuple[Sequence[Output], int]:
        """Return the last lines that are wanted, as many, of those from an offset on; and where the next one begins.

        It reads backwards as far as it must.
        """
        found: deque[Output] = deque()
        with self.remote.requests(what=WHAT) as ask:
            size = end = self._range(ask, 0, 0)[0].size
            while end > offset and len(found) < count:
                start = max(offset, end - _PART)
                _, lines = self._range(ask, start, end - start)
                found.extendleft(line for line in reversed(lines) if is_wanted(line))
                end = start
        return [*found][max(0, len(found) - count) :], size

    def _range(self, ask: Ask, offset: int, length: int) -> tuple[ConsoleRange, list[Output]]:
        place, *replies = ask(ReadConsole(uuid=self.uuid, follow=False, offset=offset, length=length))
        assert isinstance(place, ConsoleRange), "the range comes first"
        return place, [*_outputs(replies)]


def _outputs(replies: Iterable[Message]) -> Iterator[Output]:
    return (reply for reply in replies if isinstance(reply, Output))
