"""Keeps as many workers at one engine as the queues of its platforms have work for: round after round, each from what there is."""

import logging
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import trio
from attrs import define, evolve, field, frozen

from builder.endpoint import Servers
from builder.errors import BuilderError
from builder.quantities import format_duration
from builder.runtime.changes import Change
from builder.runtime.logs import about
from builder_provision import arrivals, telling
from builder_provision.ages import Ages
from builder_provision.arrivals import Arrivals
from builder_provision.configuration import PlatformSettings
from builder_provision.engines import Engine, Launch, labels
from builder_provision.errors import EngineFailed, EngineSilent
from builder_provision.fleet import Asked, EngineState, Order, Ticket
from builder_provision.ledger import FIRST_PAUSE, Ledger
from builder_provision.link import Link
from builder_provision.planning import LATER, Plan, Removal, Situation, plan
from builder_provision.survey import Survey, survey

log = logging.getLogger(__name__)

PAUSE = 2.0
"""Seconds between two rounds, however much happens: an engine has others to serve."""

LONGEST_PAUSE = 60.0
"""The same after rounds that failed: each time twice as long."""


@define
class Counts:
    """What has been done for a platform since the start of the program."""

    asked: int = 0
    refused: int = 0
    removed: int = 0


@frozen(kw_only=True)
class Shown:
    """How a platform was found in the last round."""

    asked: tuple[Asked, ...] = ()
    spent: float = 0.0


@define(eq=False, kw_only=True)
class Keeper:
    """Keeps the workers of one engine. ``name`` is what the operator calls that, ``now`` is the wall clock.

    ``elapsed`` is a clock that nobody sets, in seconds.
    """

    name: str
    label: str
    engine: Engine
    platforms: Mapping[str, PlatformSettings]
    pods: Mapping[str, dict[str, object]] = field(factory=dict)
    servers: Servers
    ledger: Ledger
    now: Callable[[], float]
    elapsed: Callable[[], float] = time.monotonic
    pause: float = PAUSE
    changed: Change = field(factory=Change)
    """Is announced when something may have to be done."""
    counts: dict[str, Counts] = field(init=False)
    shown: dict[str, Shown] = field(init=False, factory=dict)
    trouble: str = ""
    """Why the last round failed; empty if it did not."""
    rounds: int = 0
    """So many did not fail."""

    arrivals: dict[str, Arrivals] = field(init=False)
    """Who of those that were asked for has come."""

    _ages: Ages = field(init=False, factory=Ages)
    _unneeded: dict[str, Mapping[str, float]] = field(init=False, factory=dict)
    _left: dict[str, dict[str, float | None]] = field(
        init=False, factory=dict
    )  # who has come, and when it had gone again

    _removed: dict[str, set[str]] = field(
        init=False, factory=dict
    )  # who was given up and is still there, and what was said

    @counts.default
    def _no_counts(self) -> dict[str, Counts]:
        return {platform: Counts() for platform in self.platforms}

    @arrivals.default
    def _no_arrivals(self) -> dict[str, Arrivals]:
        return {platform: Arrivals() for platform in self.platforms}

    async def run(self) -> None:
        """Do one round after the other, for ever."""
        pause = self.pause
        async with Link(self.servers) as link:
            while True:
                changed = self.changed.next
                try:
                    look_at = await self.round(link)
                except (BuilderError, OSError) as error:
                    self._fail(str(error))
                    await self._tell_trouble(link)
                    pause = min(2 * pause, LONGEST_PAUSE)
                    await trio.sleep(pause)
                else:
                    if self.trouble:
                        log.info("%s: goes on", self.name)
                        self.trouble = ""
                    self.rounds += 1
                    pause = self.pause
                    await trio.sleep(self.pause)
                    with trio.move_on_after(min(max(look_at - self.now(), 0.0), LATER)):
                        await changed.wait()

    def _fail(self, reason: str) -> None:
        """Say what is wrong, once for as long as it is."""
        if reason != self.trouble:
            log.warning("%s: %s", self.name, reason)
        self.trouble = reason

    async def _tell_trouble(self, link: Link) -> None:
        """Have those who look see why no workers come, if the server can be told."""
        try:
            for platform in self.platforms:
                looked = await link.look(platform)
                told = telling.provision(
                    self.label, self.name, (), [self.trouble], now=self.now(), server_now=looked.now
                )
                await link.tell(platform, told)
        except BuilderError:
            return

    # --- a round ---------------------------------------------------------------------------------------------------

    async def round(self, link: Link) -> float:
        """Look at engine and server, do what is to be done, and return when to look again. Raises BuilderError and OSError."""
        now = self.now()
        listed = self._ages.told(
            self.ledger.found(await self.engine.list(self.ledger.tickets), now), now, self.elapsed()
        )
        self._removed = {name: said for name, said in self._removed.items() if name in self.ledger.workers}
        await self._save()
        return min([await self._keep(platform, link, listed) for platform in self.platforms])

    async def _keep(self, platform: str, link: Link, listed: Sequence[Asked]) -> float:
        with about(platform=platform):
            looked, workers = await link.look(platform), []
            if looked.queued or any(each.platform == platform for each in listed):  # there may be thousands of workers
                workers = await link.workers(platform)
                looked = await link.look(platform)  # last: of what was taken meanwhile, nobody is asked for
            now = self.now()
            stands = self._noted(platform, survey(platform, looked, workers, listed, now), now)
            if self.arrivals[platform].note(stands.asked, now):
                log.warning(
                    "%s: %s; next attempt in %g s, then each within 15 min", self.name, arrivals.REASON, FIRST_PAUSE
                )
            found = self._plan(platform, stands, now)
            self._unneeded[platform] = found.unneeded
            for removal in found.remove:
                await self._remove(platform, removal)
            gone = {removal.asked.name for removal in found.remove}
            there = [each for each in stands.asked if each.name not in gone]
            there += await self._ask(platform, found.ask)
            self.shown[platform] = Shown(asked=tuple(there), spent=self.ledger.spent_today(platform, now))
            refusals = [
                f"{self.name} refused: {each.reason}"
                for each in self.ledger.refusals(platform, now).values()
                if each.until > now
            ]
            if self.arrivals[platform].until > now:
                refusals.append(arrivals.REASON)
            why_not = list(dict.fromkeys([*found.why_not, *refusals]))
            told = telling.provision(self.label, self.name, there, why_not, now=now, server_now=looked.now)
            await link.tell(platform, told)
            return found.look_at

    def _noted(self, platform: str, stands: Survey, now: float) -> Survey:
        """Return the same with who was at the server before, and is not any more."""
        before = self._left.get(platform, {})
        left = {
            each.name: before.get(each.name) or now if each.doing is None else None
            for each in stands.asked
            if each.doing is not None or each.name in before
        }
        self._left[platform] = left
        return evolve(stands, asked=tuple(evolve(each, left_at=left.get(each.name)) for each in stands.asked))

    def _plan(self, platform: str, stands: Survey, now: float) -> Plan:
        terms = self.platforms[platform].terms
        if stands.is_closed:
            terms = evolve(terms, least=0)
        found = plan(
            terms,
            Situation(
                now=now,
                waiting=() if stands.is_closed else stands.waiting,
                standing=stands.standing,
                asked=stands.asked,
                spent=self.ledger.spent_today(platform, now),
                refused={needs: each.until for needs, each in self.ledger.refusals(platform, now).items()},
                unneeded=self._unneeded.get(platform, {}),
            ),
        )
        until = self.arrivals[platform].until
        return evolve(found, ask=(), look_at=min(found.look_at, until)) if until > now else found

    async def _remove(self, platform: str, removal: Removal) -> None:
        """Give a worker up. What can't be done is said once, and tried again in the next round: nobody else has to wait for it."""
        self.arrivals[platform].give_up(removal.asked.name)
        said = self._removed.setdefault(removal.asked.name, set())
        if not said:
            log.warning("%s is removed: %s", removal.asked.name, removal.reason)
            self.counts[platform].removed += 1
            said.add(removal.reason)
        try:
            await self.engine.remove(removal.asked, may_have_begun=removal.may_have_begun)
        except EngineFailed as error:
            if str(error) not in said:
                log.warning("%s can't be removed: %s", removal.asked.name, error)
                said.add(str(error))

    async def _ask(self, platform: str, orders: Sequence[Order]) -> list[Asked]:
        """Ask for workers, and return those that the engine took."""
        launches = [self._launch(platform, order) for order in orders]
        for launch in launches:
            self.ledger.ask(launch.ticket)
        await self._save()  # before anybody is asked: whom a crash leaves behind is known
        taken = []
        refused = set()
        for launch in launches:
            ticket = launch.ticket
            if ticket.needs in refused:
                self.ledger.workers.pop(ticket.name)
                continue
            try:
                engine_id = await self._ask_one(launch)
            except EngineFailed as error:
                if not isinstance(error, EngineSilent):
                    self.ledger.settle(ticket.name)
                refused.add(ticket.needs)
                self._refuse(ticket, str(error))
                continue
            self.counts[platform].asked += 1
            self.arrivals[platform].ask(ticket.name)
            taken.append(
                Asked(
                    name=ticket.name,
                    platform=platform,
                    needs=ticket.needs,
                    state=EngineState.QUEUED,
                    asked_at=ticket.asked_at,
                    time_limit=ticket.time_limit,
                    id=engine_id,
                )
            )
        for needs, count in Counter(each.needs for each in taken).items():
            log.info("asked %s for %d more%s", self.name, count, f" with {' '.join(map(str, needs))}" if needs else "")
        await self._save()
        return taken

    async def _ask_one(self, launch: Launch) -> str:
        """Ask for a worker to the end, also while the program stops: its id is known to nobody else. Raises EngineFailed."""
        await trio.lowlevel.checkpoint()
        engine_id = ""
        with trio.CancelScope(shield=True):
            engine_id = await self.engine.ask(launch)
            self.ledger.take(launch.ticket.platform, launch.ticket.needs)
            self.ledger.ask(evolve(launch.ticket, id=engine_id))
            self.ledger.settle(launch.ticket.name)
            if engine_id:
                await self._save()
        return engine_id

    def _refuse(self, ticket: Ticket, reason: str) -> None:
        known = self.ledger.refusals(ticket.platform, self.now()).get(ticket.needs)
        refusal = self.ledger.refuse(ticket.platform, ticket.needs, reason, self.now())
        self.counts[ticket.platform].refused += 1
        if known is None or known.reason != reason:
            log.warning(
                "%s refused a worker: %s; next attempt in %g s, then each within 15 min",
                self.name,
                reason,
                refusal.pause,
            )

    def _launch(self, platform: str, order: Order) -> Launch:
        settings = self.platforms[platform]
        ticket = Ticket(
            name=f"{self.label}-{secrets.token_hex(5)}",
            platform=platform,
            needs=order.needs,
            asked_at=self.now(),
            time_limit=order.time_limit,
        )
        wanted = [settings.features[str(need)] for need in order.needs if str(need) in settings.features]
        return Launch(
            ticket=ticket,
            words=(
                *settings.command,
                "work",
                f"--name={ticket.name}",
                f"--wait={format_duration(round(settings.cool_down * 1000))}",
                *(f"--label={name}" for name in labels(order.needs)),
                *settings.worker,
                "--",
                platform,
            ),
            options=settings.options,
            features=(*([settings.constraint] if settings.constraint else []), *wanted),
            pod=self.pods.get(platform),
        )

    async def _save(self) -> None:
        await trio.to_thread.run_sync(self.ledger.save)
