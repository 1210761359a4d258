"""What goes on when the connection to a server breaks: how long to wait before the next attempt, and consoles."""

import itertools
import time
from collections.abc import Callable, Iterator

from builder.errors import BuilderError
from builder.messages import Output

from .errors import ConnectionLost, Unreachable

LONGEST_PAUSE = 15.0
"""Seconds between two attempts, once there were some: the first comes after one, and each pause is twice the one before."""

CONSOLE_ATTEMPTS = 8
"""Attempts to take up a console, over more than a minute: who waits for a build's end is told at last that nobody knows."""


def pauses() -> Iterator[float]:
    """Yield the seconds before each attempt, for ever."""
    return (min(2.0**number, LONGEST_PAUSE) for number in itertools.count())


def console(
    ask: Callable[[], Iterator[Output]],
    *,
    on_break: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Output]:
    """Yield the outputs of a build, through breaks: each once, none left out.

    ``ask`` connects and yields them from the first on: what was yielded before a break is passed over. ``on_break`` is told
    why there are none for a while. Raises what broke it where it can't be taken up: the build is not known any more, or
    its console is another one.
    """
    count, last = 0, None
    broken: Unreachable | None = None
    waits = _attempts()
    while True:
        try:
            for output in _behind(ask(), count, last):
                count, last, broken, waits = count + 1, output, None, _attempts()
                yield output
        except Unreachable as error:
            wait = next(waits, None) if broken or isinstance(error, ConnectionLost) else None
            if wait is None:
                raise
            broken = broken or error
            on_break(f"{error}; trying again in {wait:g} s")
            sleep(wait)
        except BuilderError as error:
            raise broken or error from error
        else:
            return


def _attempts() -> Iterator[float]:
    return itertools.islice(pauses(), CONSOLE_ATTEMPTS)


def _behind(outputs: Iterator[Output], count: int, last: Output | None) -> Iterator[Output]:
    """Pass over so many outputs, and yield the others. Raises BuilderError where the last of them is another one."""
    for passed in itertools.islice(outputs, count - 1, count) if count else ():
        if passed != last:
            raise BuilderError("it is another console")
    yield from outputs
