"""A program on a real pseudo-terminal, whose screen can be read."""

import contextlib
import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import forked
import pyte
from attrs import define
from farm import DEADLINE, environment

Size = tuple[int, int]
"""Columns and lines."""


@define(eq=False)
class Terminal:
    """What a person sees and types."""

    process: "forked.Process | subprocess.Popen[bytes]"
    descriptor: int
    screen: pyte.Screen
    stream: pyte.ByteStream
    modes_before: int
    """The local modes that it had when the program began."""

    raw: bytes = b""

    def type(self, keys: bytes) -> None:
        os.write(self.descriptor, keys)

    def resize(self, size: Size) -> None:
        columns, lines = size
        fcntl.ioctl(self.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.screen.resize(lines, columns)

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display)

    @property
    def modes(self) -> int:
        """The local modes of the terminal, such as ECHO."""
        return _modes(self.descriptor)

    def read(self, seconds: float) -> bool:
        """Take what has come; return False once nobody writes any more."""
        if not select.select([self.descriptor], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.descriptor, 65536)
        except OSError:  # EIO: nobody has it open
            return False
        self.raw += data
        self.stream.feed(data)
        return bool(data)

    def wait_for(self, check: Callable[[str], object]) -> str:
        """Wait until the screen shows what is wanted, and return it."""
        end = time.monotonic() + DEADLINE
        while not check(self.text):
            assert time.monotonic() < end, f"not to be seen:\n{self.text}"
            if not self.read(0.1):
                assert check(self.text), f"it ended:\n{self.text}"
        return self.text

    def wait(self) -> int:
        """Wait for the end, and return the exit status."""
        end = time.monotonic() + DEADLINE
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it does not end:\n{self.text}"
            self.read(0.05)
        return self.process.wait()


def _modes(descriptor: int) -> int:
    modes: int = termios.tcgetattr(descriptor)[3]
    return modes


@contextlib.contextmanager
def on_terminal(
    *arguments: str, size: Size = (100, 30), module: str = "builder_client", **variables: str
) -> Iterator[Terminal]:
    """Run one of our programs on a terminal until the block ends."""
    start = partial(forked.start, module, *arguments)
    with _shown(start, size, variables) as terminal:
        yield terminal


@contextlib.contextmanager
def terminal_of(*argv: str, size: Size = (100, 30), **variables: str) -> Iterator[Terminal]:
    """Run any program on a terminal until the block ends."""
    with _shown(partial(subprocess.Popen, argv), size, variables) as terminal:
        yield terminal


@contextlib.contextmanager
def _shown(start: Callable[..., Any], size: Size, variables: dict[str, str]) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    screen = pyte.Screen(*size)
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    before = _modes(ours)
    with start(
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(**{"TERM": "xterm-256color", "COLUMNS": "", "LINES": ""} | variables),
        start_new_session=True,
    ) as process:
        try:
            yield Terminal(
                process=process,
                descriptor=ours,
                screen=screen,
                stream=pyte.ByteStream(screen),
                modes_before=before,
            )
        finally:
            if process.poll() is None:
                process.kill()
            os.close(theirs)
            os.close(ours)
