"""Stopping: what waits for peers is interrupted at once, what is being written may finish."""

import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import trio
from attrs import define, field

from builder.runtime import entry

logger = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def outlive_hangups(told: str) -> None:
    """Have a SIGHUP do nothing, and end nothing either. What is ``told`` of it in the log is what is read again, and when."""
    with trio.open_signal_receiver(signal.SIGHUP) as signals:
        entry.deliver()
        async for _ in signals:
            logger.info("SIGHUP: %s", told)


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
    def requested_by_signals(self) -> Iterator[None]:
        """Begin to stop on SIGTERM and SIGINT. More of them change nothing, not even after the block: the process ends.

        A receiver of trio's would hand on what comes late, and that would be the end of the process instead of 0.
        """
        token = trio.lowlevel.current_trio_token()
        before = {number: signal.getsignal(number) for number in SIGNALS}
        for number in SIGNALS:
            signal.signal(number, lambda number, _frame: token.run_sync_soon(self._on_signal, number, idempotent=True))
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_IGN if self.requested.is_set() else handler)

    def _on_signal(self, number: int) -> None:
        name = signal.Signals(number).name
        if self.requested.is_set():
            logger.info("%s: stopping already", name)
        else:
            logger.info("stopping on %s", name)
            self.request()

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
