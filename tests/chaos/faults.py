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

from chaos.database import Postgres
from chaos.proxy import Proxy

HELD = 20.0
"""Seconds for which a server stands still now and then: longer than its lease."""


class Target(Protocol):
    """A program of the farm that can be hit."""

    async def kill(self) -> None:
        """End it by SIGKILL."""

    async def restart(self, number: int) -> None:
        """End it by a signal."""

    async def start(self) -> object:
        """Start it again."""

    def send(self, number: int) -> None:
        """Send it a signal."""


@define(eq=False, kw_only=True)
class Faults:
    """Hits the farm at random. ``longest`` is how many seconds a program is away at most."""

    chance: Random
    servers: Sequence[Target]
    workers: Sequence[Target]
    database: Postgres | None
    proxies: Sequence[Proxy]
    receiver: Endpoint
    clocks: Sequence[Path]
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
                    *(self._refuse_uploads, self._hang_uploads, self._set_a_clock),
                    *self._of_several(),
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

    def _of_several(self) -> Sequence[Callable[[], Awaitable[None]]]:
        """Return what is done to several servers and their database."""
        if self.database is None:
            return ()
        return (
            *(self._kill_server, self._hold_a_server, self._hold_a_server, self._kill_all_servers),
            *(self._kill_the_database, self._restart_the_database, self._crash_the_database, self._freeze_the_database),
        )

    async def _kill_server(self) -> None:
        server = self.chance.choice(self.servers)
        await self._away(server, server.kill)

    async def _stop_server(self) -> None:
        server = self.chance.choice(self.servers)
        await self._away(server, lambda: server.restart(signal.SIGTERM))

    async def _freeze_server(self) -> None:
        await self._freeze(self.chance.choice(self.servers))

    async def _hold_a_server(self) -> None:
        await self._freeze(self.chance.choice(self.servers), HELD)

    async def _kill_all_servers(self) -> None:
        for server in self.servers:
            await server.kill()
        await trio.sleep(self._while())
        async with trio.open_nursery() as nursery:
            for server in self.servers:
                nursery.start_soon(server.start)

    async def _kill_the_database(self) -> None:
        assert self.database
        await self._away(self.database, self.database.kill)

    async def _restart_the_database(self) -> None:
        database = self.database
        assert database
        await self._away(database, lambda: database.restart(signal.SIGINT))

    async def _crash_the_database(self) -> None:
        assert self.database
        self.database.crash(self.chance)
        await self.database.start()

    async def _freeze_the_database(self) -> None:
        assert self.database
        await self._freeze(self.database)

    async def _freeze(self, target: Target, seconds: float | None = None) -> None:
        target.send(signal.SIGSTOP)
        await trio.sleep(self._while() if seconds is None else seconds)
        target.send(signal.SIGCONT)

    async def _kill_worker(self) -> None:
        worker = self.chance.choice(self.workers)
        await self._away(worker, worker.kill)

    async def _hand_over(self) -> None:
        worker = self.chance.choice(self.workers)
        await self._away(worker, lambda: worker.restart(signal.SIGUSR1))

    async def _freeze_worker(self) -> None:
        await self._freeze(self.chance.choice(self.workers))

    @property
    def _proxy(self) -> Proxy:
        return self.chance.choice(self.proxies)

    async def _drop_all(self) -> None:
        proxy = self._proxy
        proxy.drop(1.0, [0.0] * proxy.count)

    async def _drop_some(self) -> None:
        proxy = self._proxy
        proxy.drop(0.5, [self.chance.random() for _ in range(proxy.count)])

    async def _halve(self) -> None:
        self._proxy.halve()

    async def _slow_down(self) -> None:
        proxy = self._proxy
        proxy.pause = 0.05
        await trio.sleep(self._while())
        proxy.pause = 0.0

    async def _hang(self) -> None:
        proxy = self._proxy
        proxy.freeze()
        await trio.sleep(self._while())
        proxy.thaw()

    async def _refuse_uploads(self) -> None:
        self.receiver.status = self.chance.choice((500, 503, 429, 401))
        await trio.sleep(self._while())
        self.receiver.status = 201

    async def _hang_uploads(self) -> None:
        self.receiver.go_on.clear()
        await trio.sleep(self._while())
        self.receiver.go_on.set()

    async def _set_a_clock(self) -> None:
        clock = self.chance.choice(self.clocks)
        part = clock.with_suffix(".part")
        part.write_text(str(self.chance.choice((-7200, -60, 60, 7200))))
        part.replace(clock)
        await trio.sleep(self._while())
        part.write_text("0")
        part.replace(clock)
