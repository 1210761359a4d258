"""The live view: threads that keep up with a server, and a loop that draws and reads keys.

The threads end with the program; what they wait for on the network is ended by closing it. The terminal is restored whatever
happens, also by SIGTERM.
"""

import contextlib
import os
import re
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

from attrs import define, evolve, field
from rich.console import Console
from rich.live import Live

from builder.errors import BuilderError
from builder.model import printable, text

from . import breaks, clock
from .errors import Unreachable
from .looking import look
from .screen import Watched, draw
from .subscription import changes

if TYPE_CHECKING:
    from .link import Link
    from .remote import Remote

ENTRIES, RESULTS = 20, 30
"""Entries of each queue, and results, that the view asks for."""

LOOK_PAUSE = 0.5
"""Seconds between two looks, however much happens."""

DRAW_PAUSE = 1.0
"""Seconds after which it is drawn again if nothing happens: times go on."""

BUSY_PAUSE = 0.05
"""Seconds after which it is drawn again at the earliest, unless a key is pressed: a console may have any number of lines."""

_KEY = re.compile(rb"\x1b[\[O].|.", re.DOTALL)
_STEPS = {b"k": -1, b"\x1b[A": -1, b"\x1bOA": -1, b"j": 1, b"\x1b[B": 1, b"\x1bOB": 1}
_QUIT = {b"q", b"Q", b"\x03", b"\x04"}


class _Ended(Exception):
    """SIGTERM, or SIGHUP, whose number it has: the terminal is restored on the way out."""


class _Another(Exception):
    """Another build's console is shown meanwhile."""


@define(eq=False)
class _Feed:
    """Keeps a view up to date, in threads. ``lock`` is held by whoever reads or changes the view."""

    remote: "Remote"
    view: Watched
    lock: threading.Lock = field(factory=threading.Lock)
    error: BuilderError | None = None
    _dirty: threading.Event = field(factory=threading.Event)
    _wake: int = -1
    _console: "Link | None" = None

    def start(self, wake: int) -> None:
        """Begin; a byte is written to ``wake`` whenever there is something to draw."""
        self._wake = wake
        for task in (self._watch, self._look):
            threading.Thread(target=task, daemon=True).start()

    def _announce(self) -> None:
        with contextlib.suppress(BlockingIOError):  # it is awake already
            os.write(self._wake, b"\0")

    def _watch(self) -> None:
        try:
            for _ in changes(self.remote, on_break=self._tell, looks=True):
                self._tell("")
                self._dirty.set()
        except BuilderError as error:
            self.error = error
            self._announce()

    def _tell(self, trouble: str) -> None:
        with self.lock:
            if trouble != self.view.trouble:
                self.view.trouble = trouble
                self._announce()

    def _look(self) -> None:
        pause = threading.Event()
        while self._dirty.wait():
            self._dirty.clear()
            try:
                looked = look(self.remote, entries=ENTRIES, results=RESULTS)
            except Unreachable:
                pass  # the other thread says so, and when the server is there again
            except BuilderError as error:
                self._tell(str(error))
            else:
                with self.lock:
                    self.view.take(looked)
                self._announce()
            pause.wait(LOOK_PAUSE)

    def follow(self, uuid: UUID | None) -> None:
        """Follow the console of that build, and no other any more."""
        with self.lock:
            if not self.view.follow(uuid):
                return
            before, self._console = self._console, None
        if before is not None:
            before.abort()
        if uuid is not None:
            threading.Thread(target=self._follow, args=(uuid,), daemon=True).start()

    def _follow(self, uuid: UUID) -> None:
        def opened(link: "Link") -> None:
            with self.lock:
                if self.view.following == uuid:
                    self._console = link
                    return
            link.abort()

        def say(line: str) -> None:
            with self.lock:
                if self.view.following != uuid:
                    raise _Another
                self.view.lines.append(printable(line))
            self._announce()

        ask = partial(evolve(self.remote, on_link=opened).observe, uuid)
        with contextlib.suppress(_Another):
            while True:
                try:
                    for output in breaks.console(ask, on_break=say):
                        say(text(output.line))
                except Unreachable as error:  # also where it could not be begun with
                    say(str(error))
                    time.sleep(breaks.LONGEST_PAUSE)
                    self._clear(uuid)
                except BuilderError as error:
                    say(str(error))
                    return
                else:
                    return

    def _clear(self, uuid: UUID) -> None:
        with self.lock:
            if self.view.following == uuid:
                self.view.lines.clear()


def show(remote: "Remote", *, color: bool) -> None:
    """Show a server until the person quits. Raises Unreachable and TooOld."""
    feed = _Feed(remote, Watched(server=str(remote)))
    size = ("COLUMNS", "LINES")  # those of the shell do not change with the window
    environ = {name: value for name, value in os.environ.items() if name not in size}
    console = Console(no_color=None if color else True, _environ=environ)
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # an old locale has no lines to draw
    with (
        _signals() as (awake, wake),
        _raw(sys.stdin.fileno()),
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        feed.start(wake)
        while True:
            with feed.lock:
                if feed.error is not None:
                    raise feed.error
                selected = feed.view.selected
            feed.follow(selected)
            with feed.lock:
                width, height = console.size
                live.update(draw(feed.view, clock.now(), width=width, height=height), refresh=True)
            if not _wait(feed, awake):
                return


def _wait(feed: _Feed, awake: int) -> bool:
    """Wait for something to draw, and deal with keys; return False at the end."""
    stdin = sys.stdin.fileno()
    if not select.select([stdin], [], [], BUSY_PAUSE)[0]:
        select.select([stdin, awake], [], [], DRAW_PAUSE)
    ready, _, _ = select.select([stdin, awake], [], [], 0)
    if awake in ready and (ends := {signal.SIGTERM, signal.SIGHUP} & {*os.read(awake, 4096)}):
        raise _Ended(min(ends))
    if stdin not in ready:
        return True
    keys = _KEY.findall(os.read(stdin, 1024))
    if not keys or _QUIT & {*keys}:
        return False
    with feed.lock:
        feed.view.select(sum(_STEPS.get(key, 0) for key in keys))
    return True


@contextmanager
def _raw(terminal: int) -> Iterator[None]:
    """Have keys as they are typed, without an echo. Ctrl-Z is one of them: a stopped view would leave its screen behind."""
    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal)
        modes = termios.tcgetattr(terminal)
        modes[6][termios.VSUSP] = os.fpathconf(terminal, "PC_VDISABLE").to_bytes(1, "little")
        termios.tcsetattr(terminal, termios.TCSANOW, modes)
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


@contextmanager
def _signals() -> Iterator[tuple[int, int]]:
    """Have signals written to a pipe, whose two ends are returned: a new size of the window, and the end."""
    awake, wake = os.pipe()
    os.set_blocking(wake, False)
    numbers = (signal.SIGTERM, signal.SIGHUP, signal.SIGWINCH)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    pipe = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    try:
        yield awake, wake
    except _Ended as error:
        raise SystemExit(128 + error.args[0]) from None
    except KeyboardInterrupt:
        pass  # Ctrl-C quits, as q does
    finally:
        signal.set_wakeup_fd(pipe)
        for number, handler in before.items():
            signal.signal(number, handler)
