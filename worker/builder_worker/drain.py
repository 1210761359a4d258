"""The end of a worker that first finishes what it has begun."""

from collections.abc import Iterator
from contextlib import contextmanager

import trio


class Drain:
    """Whether the worker takes no more jobs. Whatever waits for one does so within ``idle``."""

    def __init__(self) -> None:
        self.begun = False
        self._idle: set[trio.CancelScope] = set()

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

    def begin(self) -> None:
        """End all that is idle, now and later."""
        self.begun = True
        for scope in self._idle:
            scope.cancel()
