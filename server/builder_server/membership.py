"""A server among those that work on one database: it says that it lives, hears the others, and takes over from dead ones.

Where it has its database for itself there is nothing of that to do.
"""

import logging
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

import trio
from attrs import define, evolve, field

from builder.runtime.nurseries import plain_nursery
from builder_server.store import LeftBuild, ServerIdentity, Store, StoreError, servers
from builder_server.store.notices import CHANNEL
from builder_server.store.servers import SCHEDULE

if TYPE_CHECKING:
    from builder.runtime.subscription import Subscription  # its library need not be there

logger = logging.getLogger(__name__)

RENEWAL = 5.0
"""Seconds after which a server says again that it lives: two of three times it may fail."""

PATIENCE = 1.5 * RENEWAL
"""Seconds for which a server is watched whose lease has run out, before it is counted as dead. When the database was away, or
its clock was set, all leases may have run out: by then whoever lives has said so."""

NAME_WAIT = 20.0
"""Seconds for which a server that starts waits for the end of the one before it, which PostgreSQL may notice late."""

COMPLAINT = 60.0
"""Seconds after which it is told again that the database does not answer."""

LOOK_INTERVAL = 60.0
"""Seconds after which it is looked whether all that runs here is known here: nothing should be found."""

_PAUSE = 0.2
"""Seconds between attempts."""


class OwnBuilds(Protocol):
    """What has the builds that run at a server."""

    def inherit(self, left: Iterable[LeftBuild]) -> object:
        """Have builds that other servers have left."""

    def drop_all(self) -> None:
        """Leave all builds to other servers."""

    async def look_again(self) -> None:
        """See that the builds here are those that the database has as such. Raises StoreError."""


@define(eq=False)
class ServerMembership:
    """Who this server is, and what it does for the others. ``crew`` returns what its workers do, in JSON."""

    _store: Store
    _me: ServerIdentity
    _builds: OwnBuilds
    _crew: Callable[[], str] = field(default=lambda: "{}")
    _told_crew: str = ""
    _dead: Sequence[str] = ()
    _is_attended: bool = False
    _is_behind: bool = False
    """Whether something may not have been heard."""
    _complained: float = -math.inf
    _can_be_reached: bool = field(init=False)
    """Whether the others can reach this one, or it was said that they can't."""
    _nursery: trio.Nursery = field(init=False)
    _doing: set[Callable[[], Awaitable[None]]] = field(factory=set)

    @_can_be_reached.default
    def _has_address(self) -> bool:
        return self._me.address is not None

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Be one of the servers in a block. Raises StoreError where another one has this name."""
        async with plain_nursery() as self._nursery:
            if self._store.database.is_shared:
                await self._nursery.start(self._run)
            else:
                await self._store.register(self._me)
            yield
            self._nursery.cancel_scope.cancel()
        try:
            await self._store.leave()
        except StoreError as error:
            logger.warning("the other servers will have to notice that this one is gone: %s", error)

    def attend(self) -> None:
        """From now on take over what other servers leave: what was here before is here again."""
        self._is_attended = True

    async def _run(self, task_status: trio.TaskStatus[None]) -> None:
        """Be one of them until cancelled, through all that may happen to the database meanwhile."""
        self._store.waking.keep_schedule(keeps=False)
        is_known = False
        while True:
            try:
                async with self._store.database.subscribed(CHANNEL) as subscription:
                    if not is_known:
                        await self._register(subscription)
                        is_known = True
                        task_status.started()
                    await self._attend_to(subscription)
            except StoreError as error:
                if not is_known:
                    raise
                self._complain(error)
            finally:
                self._store.waking.keep_schedule(keeps=False)
                self._is_behind = True
            await trio.sleep(_PAUSE)

    @property
    def _name_lock(self) -> str:
        return f"server {self._me.name}"

    async def _register(self, subscription: "Subscription") -> None:
        """Wait until nobody else has this name, and take it. Raises StoreError where another server has it, and lives."""
        deadline = trio.current_time() + NAME_WAIT
        first = None
        while not await subscription.has_lock(self._name_lock):
            there = {each.name: each for each in await self._store.servers()}.get(self._me.name)
            first = first or there
            # what was said since this one looked was not said by one that has died
            if (there and first and there.expires != first.expires) or trio.current_time() > deadline:
                where = f" at {there.address}" if there and there.address else ""
                raise StoreError(
                    f"a server called {self._me.name} works on the database{where}: give each its own --name"
                )
            await trio.sleep(_PAUSE)
        await self._store.register(self._me)
        self._told_crew = ""

    async def _attend_to(self, subscription: "Subscription") -> None:
        """Say that this server lives, and hear what others say, until the session is lost.

        Whatever may take longer is done aside.
        """
        looked = trio.current_time()
        silent: dict[tuple[str, int], float] = {}
        while True:
            await self._renew(subscription)
            await subscription.has_lock(self._name_lock)  # the session before had it
            if await subscription.has_lock(SCHEDULE):
                self._store.waking.keep_schedule(keeps=True)
            if not self._can_be_reached:
                self._start(self._see_who_needs_it)
            if self._is_behind:
                self._start(self._catch_up)
            if self._is_attended:
                found, has_left = await subscription.run(servers.find_silent)
                silent = {each: silent.get(each, trio.current_time()) for each in found}
                self._dead = [name for (name, _), since in silent.items() if trio.current_time() >= since + PATIENCE]
                if self._dead or has_left:
                    self._start(self._take_over)
                if trio.current_time() > looked + LOOK_INTERVAL:
                    looked = trio.current_time()
                    self._start(self._builds.look_again)
            await self._hear(subscription, trio.current_time() + RENEWAL)

    async def _renew(self, subscription: "Subscription") -> None:
        crew = self._crew()
        changed = crew if crew != self._told_crew else None
        if await subscription.run(partial(servers.renew, me=self._me, crew=changed)):
            self._told_crew = crew
            return
        logger.warning("the other servers have counted this one as dead: it begins anew, and its workers come back")
        self._builds.drop_all()
        self._me = evolve(self._me, incarnation=uuid4())
        await self._register(subscription)

    async def _hear(self, subscription: "Subscription", until: float) -> None:
        """Hear what others say, until then, or until one of them has come or gone."""
        while True:
            heard: list[str] = []
            with trio.move_on_at(until):
                heard = await subscription.hear()
            found = [notice for told in heard if (notice := self._store.hear(told))]
            if any(notice.woken is None or notice.has_halts for notice in found):
                self._is_behind = True
                return
            if not heard or any(notice.woken and notice.woken.servers for notice in found):
                return

    def _start(self, task: Callable[[], Awaitable[None]]) -> None:
        """Have something done, unless it is being done: nothing of it may keep this server from saying that it lives."""

        async def run() -> None:
            try:
                await task()
            except StoreError as error:
                self._complain(error)
            finally:
                self._doing.discard(task)

        if task not in self._doing:
            self._doing.add(task)
            self._nursery.start_soon(run)

    async def _see_who_needs_it(self) -> None:
        """Say, once there are others, that they can't reach this one."""
        names = [each.name for each in await self._store.servers() if each.is_alive and each.name != self._me.name]
        if names:
            self._can_be_reached = True
            logger.warning(
                "%s can't hand on who asks for consoles and artifacts of this server: start it with --advertise",
                ", ".join(names),
            )

    def _complain(self, error: StoreError) -> None:
        if trio.current_time() > self._complained + COMPLAINT:
            logger.warning("other servers are not heard, trying again: %s", error)
            self._complained = trio.current_time()

    async def _catch_up(self) -> None:
        """Have everybody look again, since nothing was heard for a while, or too much."""
        self._is_behind = False
        try:
            await self._store.hear_anything()
            if self._is_attended:
                await self._builds.look_again()
        except StoreError:
            self._is_behind = True
            raise

    async def _take_over(self) -> None:
        dead = self._dead
        left = await self._store.take_over(dead)
        if dead:
            logger.warning("counted as dead, since nothing was heard of it for long: %s", ", ".join(dead))
        if left:
            logger.warning("builds of servers that are gone go on here: %d", len(left))
        self._builds.inherit(left)
