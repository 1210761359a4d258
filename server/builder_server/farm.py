"""The servers that work on one database, seen from one of them: what they do together, and what another one has."""

import contextlib
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from math import inf

import trio
from attrs import define, evolve, field

from builder.extension import Request
from builder.extension.halting import SERVER, Scope, Target
from builder.extension.servers import Relay
from builder.messages import Message
from builder.model import printable, raw
from builder.runtime.nurseries import plain_nursery
from builder_server import crews
from builder_server.attempts import Attempts
from builder_server.crew import Crew
from builder_server.errors import CommandRefused
from builder_server.memory import SharingChannel
from builder_server.permission import NotPermitted, Peer
from builder_server.provisions import Provisions
from builder_server.store import ServerState, Store, StoreError
from builder_server.store.servers import LEASE
from builder_server.upstream import Absent, Upstream, Upstreams

TAKEOVER = LEASE.total_seconds() + 10.0
"""Seconds for which a build that runs may be with a server that does not answer: by then another one has it."""

LOOK_INTERVAL = 5.0
"""Seconds after which a server that is drained looks again whether others have jobs for the workers that have come to it."""

NEWEST = 1.0
"""Seconds for which what is known of the servers is good enough to tell whether one lives."""


@define(eq=False, kw_only=True)
class Farm:
    """This server, and the others."""

    store: Store
    attempts: Attempts
    upstreams: Upstreams
    provisions: Provisions
    _seen: tuple[ServerState, ...] = field(init=False, default=())
    _seen_at: float = field(init=False, default=-inf)

    async def servers(self) -> tuple[ServerState, ...]:
        """Return all of them by their names. Raises StoreError."""
        self._seen, self._seen_at = await self.store.servers(), trio.current_time()
        return self._seen

    def here(self) -> Crew:
        """Return what the workers of this one do, and what provisioners have told it."""
        return evolve(self.attempts.crew(), asked=self.provisions.all())

    async def crew(self) -> Crew:
        """Return what the workers of all of them do, those of the others as far as they have told. Raises StoreError."""
        others = [each.crew for each in await self.others()]
        return crews.together([self.here(), *map(crews.of_text, others)])

    async def others(self) -> list[ServerState]:
        """Return the others that live. Raises StoreError."""
        return [each for each in await self.servers() if each.is_alive and not self.store.is_mine(each.name)]

    async def run(self) -> None:
        """Send workers that wait here to other servers while this one is drained, and not all are; for ever."""
        waking = self.store.waking
        while True:
            halted = waking.halted.next
            is_drained = self._is_drained(self.store.owner)
            if is_drained and await self._has_jobs_elsewhere():
                self.attempts.send_away()
            with trio.move_on_after(LOOK_INTERVAL if is_drained else inf):
                await halted.wait()

    def _is_drained(self, name: str) -> bool:
        return Target(scope=Scope.SERVER, name=name) in self.store.waking.halts

    async def _has_jobs_elsewhere(self) -> bool:
        if SERVER in self.store.waking.halts:
            return False
        try:
            return not all(self._is_drained(each.name) for each in await self.others())
        except StoreError:  # then nobody is given a job
            return False

    async def check(self, relay: Relay) -> None:
        """Raise NotPermitted unless another server of the farm asks. Raises StoreError."""
        here = next((each for each in await self.servers() if self.store.is_mine(each.name)), None)
        if here is None or not secrets.compare_digest(raw(relay.token), raw(here.token)):
            raise NotPermitted("Relay needs the token of this server, which those that work on its database know")

    # --- what another one has --------------------------------------------------------------------------------------

    async def pass_on(
        self, owner: str, client: Peer, request: Request, channel: SharingChannel, what: str, timeout: float
    ) -> None:
        """Send a client what the server answers that has ``what`` it asks for; it takes each part in ``timeout`` seconds.

        Raises CommandRefused, also where that server does not answer, and StoreError.
        """
        try:
            async with self.upstream(owner, client) as upstream:
                await upstream.ask(request)
                await upstream.pass_on(channel, timeout)
        except Absent as error:
            raise self.refusal(what, owner, error) from error

    @asynccontextmanager
    async def upstream(self, owner: str, client: Peer) -> AsyncIterator[Upstream]:
        """Have a connection to another server, for a client of this one. Raises Absent, and StoreError."""
        server = next((each for each in await self.servers() if each.name == owner), None)
        if server is None:
            raise Absent("it does not work now; if it never will: builder-server forget-server")
        if not server.is_alive:
            heard = server.expires and server.expires.plus(-LEASE)
            raise Absent(f"nothing was heard of it since {heard.isoformat() if heard else 'its end'}")
        async with self.upstreams.connected(server, client) as upstream:
            yield upstream

    async def ask_others(self, client: Peer, request: Request) -> tuple[dict[str, Message], tuple[str, ...]]:
        """Return what each of the others answers first, by its name, and which of them do not. Raises StoreError."""
        told: dict[str, Message] = {}
        others = await self.others()

        async def ask(server: ServerState) -> None:
            with contextlib.suppress(Absent, CommandRefused):
                async with self.upstreams.connected(server, client) as upstream:
                    await upstream.ask(request)
                    if (reply := await upstream.only()) is not None:
                        told[server.name] = reply

        async with plain_nursery() as nursery:
            for server in others:
                nursery.start_soon(ask, server)
        return told, tuple(server.name for server in others if server.name not in told)

    async def lives(self, name: str) -> bool:
        """Return whether another server lives, as far as was known a second ago. Raises StoreError."""
        if trio.current_time() > self._seen_at + NEWEST:
            await self.servers()
        return any(each.name == name and each.is_alive for each in self._seen)

    async def follow(self, upstream: Upstream, owner: str, request: Request) -> None:
        """Ask for what may take any time, as long as the server lives that is to answer. Raises Absent."""
        await upstream.ask(request, partial(self.lives, owner))

    def refusal(self, what: str, owner: str, error: Absent) -> CommandRefused:
        """Return what is told where the server that has something does not answer."""
        return CommandRefused(f"{what} is with the server {printable(owner)}, which does not answer: {error}")
