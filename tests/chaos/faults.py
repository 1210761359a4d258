"""What is done to the farm: drawn from a seed, one after the other, each mended after a while."""

import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from random import Random
from typing import Protocol

import trio
from attrs import define, field
from endpoints import Endpoint

from chaos.proxy import Proxy


class Target(Protocol):
    """A program of the farm that can be hit."""

    async def kill(self) -> None:
        """End it by SIGKILL."""

    async def restart(self, number: int) -> None:
        """End it by a signal."""

    async def start(self) -> None:
        """Start it again."""

    def send(self, number: int) -> None:
        """Send it a signal."""


@define(eq=False, kw_only=True)
class Faults:
    """Hits the farm at random. ``longest`` is how many seconds a program is away at most."""

    chance: Random
    server: Target
    workers: Sequence[Target]
    proxy: Proxy
    receiver: Endpoint
    clock: Path
    longest: float = 3.0
    done: Counter[str] = field(factory=Counter)
    say: Callable[[str], None] = print

    async def run(self, pause: float) -> None:
        """Hit, until cancelled; what was hit is mended even then."""
        while True:
            await trio.sleep(self.chance.uniform(0, 2 * pause))
            fault = self.chance.choice(
                (
                    *(self._kill_server, self._stop_server, self._freeze_server),
                    *(self._kill_worker, self._kill_worker, self._hand_over, self._freeze_worker),
                    *(self._drop_all, self._drop_some, self._halve, self._slow_down, self._hang),
                    *(self._refuse_uploads, self._hang_uploads, self._set_the_clock),
                )
            )
            name = fault.__name__.strip("_").replace("_", " ")
            self.say(name)
            self.done[name] += 1
            with trio.CancelScope(shield=True):
                await fault()

    def _while(self) -> float:
        return self.chance.uniform(0, self.longest)

    async def _away(self, target: Target, end: Callable[[], Awaitable[None]]) -> None:
        await end()
        await trio.sleep(self._while())
        await target.start()

    async def _kill_server(self) -> None:
        await self._away(self.server, self.server.kill)

    async def _stop_server(self) -> None:
        await self._away(self.server, lambda: self.server.restart(signal.SIGTERM))

    async def _freeze_server(self) -> None:
        await self._freeze(self.server)

    async def _freeze(self, target: Target) -> None:
        target.send(signal.SIGSTOP)
        await trio.sleep(self._while())
        target.send(signal.SIGCONT)

    async def _kill_worker(self) -> None:
        worker = self.chance.choice(self.workers)
        await self._away(worker, worker.kill)

    async def _hand_over(self) -> None:
        worker = self.chance.choice(self.workers)
        await self._away(worker, lambda: worker.restart(signal.SIGUSR1))

    async def _freeze_worker(self) -> None:
        await self._freeze(self.chance.choice(self.workers))

    async def _drop_all(self) -> None:
        self.proxy.drop(1.0, [0.0] * self.proxy.count)

    async def _drop_some(self) -> None:
        self.proxy.drop(0.5, [self.chance.random() for _ in range(self.proxy.count)])

    async def _halve(self) -> None:
        self.proxy.halve()

    async def _slow_down(self) -> None:
        self.proxy.pause = 0.05
        await trio.sleep(self._while())
        self.proxy.pause = 0.0

    async def _hang(self) -> None:
        self.proxy.freeze()
        await trio.sleep(self._while())
        self.proxy.thaw()

    async def _refuse_uploads(self) -> None:
        self.receiver.status = self.chance.choice((500, 503, 429, 401))
        await trio.sleep(self._while())
        self.receiver.status = 201

    async def _hang_uploads(self) -> None:
        self.receiver.go_on.clear()
        await trio.sleep(self._while())
        self.receiver.go_on.set()

    async def _set_the_clock(self) -> None:
        part = self.clock.with_suffix(".part")
        part.write_text(str(self.chance.choice((-7200, -60, 60, 7200))))
        part.replace(self.clock)
        await trio.sleep(self._while())
        part.write_text("0")
        part.replace(self.clock)
