"""How long a worker works: for one job or until a signal, with pauses while the server is away."""

import logging
import random
import signal
from collections.abc import AsyncIterator

import trio
from attrs import mutable

from builder.errors import BuilderError, ProtocolError
from builder_worker.nurseries import plain_nursery
from builder_worker.sandbox import SandboxError
from builder_worker.session import Lost, Settings, Unreachable, work_once
from builder_worker.trees import TreeChanged

SHORTEST_PAUSE = 1.0
"""Seconds before the first new attempt: a server that restarts is back in about that time."""

LONGEST_PAUSE = 60.0
"""Seconds between attempts at most: a server that was away for hours has its workers back within a minute."""

log = logging.getLogger("builder_worker")


class Interrupted(BuilderError):
    """SIGINT ended the worker; it killed its job, which the server counts as a loss."""

    exit_code = 128 + signal.SIGINT


class Terminated(Interrupted):
    """SIGTERM ended the worker; it killed its job, which the server counts as a loss."""

    exit_code = 128 + signal.SIGTERM


@mutable(kw_only=True)
class Backoff:
    """Pauses in seconds that double, each cut by up to a half so that many workers do not come back together."""

    _failures: int = 0

    def next_pause(self, chance: float) -> float:
        """Return the next pause; ``chance`` is a random number from 0 to 1."""
        pause = min(SHORTEST_PAUSE * 2.0 ** min(self._failures, 30), LONGEST_PAUSE)
        self._failures += 1
        return pause * (1 - chance / 2)

    def reset(self) -> None:
        """Begin with the shortest pause again."""
        self._failures = 0


async def work(settings: Settings, *, loop: bool) -> None:
    """Work off one job, or jobs for ever. Raises Interrupted on SIGTERM and SIGINT, and what ``work_once`` does."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with plain_nursery() as nursery:
            nursery.start_soon(_wait_signal, signals)
            for line in await settings.backend.clean_up():
                log.warning("%s", line)
            await (_work_forever(settings) if loop else work_once(settings))
            nursery.cancel_scope.cancel()


async def _wait_signal(signals: AsyncIterator[int]) -> None:
    async for number in signals:
        ended = Terminated if number == signal.SIGTERM else Interrupted
        raise ended(f"ended by {signal.Signals(number).name}")


async def _work_forever(settings: Settings) -> None:
    backoff = Backoff()
    while True:
        begin = trio.current_time()
        try:
            await work_once(settings)
        except (Unreachable, ProtocolError, Lost, SandboxError, TreeChanged) as error:
            if trio.current_time() - begin > LONGEST_PAUSE:
                backoff.reset()  # the server was there for a while
            pause = backoff.next_pause(random.random())  # noqa: S311 - it spreads load, it keeps no secret
            log.warning("%s; next attempt in %.0f s", error, pause)
            await trio.sleep(pause)
        else:
            backoff.reset()
