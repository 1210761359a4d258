"""The end of a worker that first finishes what it has begun."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import trio


class Leavable(Protocol):
    """A job that runs, or whose result is being delivered."""

    def leave(self) -> bool:
        """Let go of it, if a worker that comes later can adopt it; return whether it can."""


class Drain:
    """Whether the worker takes no more jobs. Whatever waits for one does so within ``idle``."""

    def __init__(self) -> None:
        self.begun = False
        self._running: set[Leavable] = set()
        self._idle: set[trio.CancelScope] = set()

    @property
    def is_working(self) -> bool:
        """Whether a job runs, or its result is being delivered."""
        return bool(self._running)

    @contextmanager
    def idle(self) -> Iterator[None]:
        """Be left as soon as the worker drains, at whatever is waited for."""
        with trio.CancelScope() as scope:
            self._idle.add(scope)
            if self.begun:
                scope.cancel()
            try:
                yield
            finally:
                self._idle.discard(scope)

    @contextmanager
    def running(self, assignment: Leavable) -> Iterator[None]:
        """Have a job that can be left."""
        self._running.add(assignment)
        try:
            yield
        finally:
            self._running.discard(assignment)

    def leave(self) -> int:
        """Let go of all jobs that a worker that comes later can adopt; return how many these are."""
        self.begin()
        return sum(assignment.leave() for assignment in self._running)

    def begin(self) -> None:
        """End all that is idle, now and later."""
        self.begun = True
        for scope in self._idle:
            scope.cancel()
