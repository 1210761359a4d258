"""Stopping: what waits for peers is interrupted at once, what is being written may finish."""

from collections.abc import Iterator
from contextlib import contextmanager

import trio
from attrs import define, field


class ShuttingDown(Exception):
    """Raised out of an interruptible block when the server stops."""


@define(eq=False)
class Shutdown:
    """Knows who may be interrupted."""

    requested: trio.Event = field(factory=trio.Event)
    _scopes: set[trio.CancelScope] = field(factory=set)

    def request(self) -> None:
        """Begin to stop: every interruptible block, now and later, raises ShuttingDown."""
        self.requested.set()
        for scope in self._scopes:
            scope.cancel()

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Mark a block that a shutdown need not wait for."""
        with trio.CancelScope() as scope:
            if self.requested.is_set():
                scope.cancel()
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)
        if scope.cancelled_caught:
            raise ShuttingDown
