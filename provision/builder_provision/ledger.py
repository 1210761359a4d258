"""What is remembered beyond the engine's own: workers that were asked for, the hours that were used today, what was refused.

It is one small file, written whole: what is not on the disk was not asked for. Times are seconds since the epoch, days are those
of UTC.
"""

import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from attrs import asdict, define, evolve, field, frozen

from builder.errors import InvalidOptions
from builder.needs import Need, of_text, text_of
from builder.runtime.files import write_whole
from builder_provision.errors import UnreadableLedger
from builder_provision.fleet import Asked, EngineState, Ticket
from builder_provision.planning import DAY

MINUTE = 60.0
"""Seconds to which it is written down when a worker was seen: the file changes no more often while nothing happens."""

FIRST_PAUSE, LONGEST_PAUSE = 15.0, 900.0
"""Seconds after which it is tried again to ask for what was refused: after each refusal twice as long."""

DOUBT = 60.0
"""Seconds for which a worker may still come whom nobody has answered for: an engine has no more for an answer."""

MAX_REFUSED = 1000
"""Most sets of needs of which refusals are remembered."""


@frozen(kw_only=True)
class Refusal:
    """That no worker with such needs is asked for until then, and for how long the next refusal will count."""

    until: float
    pause: float
    reason: str


@frozen(kw_only=True)
class Known:
    """A worker as it is remembered, and when it was seen last, and since when it has run.

    One that is not ``settled`` may still come: whoever asked for it was interrupted, or had no answer.
    """

    ticket: Ticket
    seen_at: float
    started_at: float | None = None
    settled: bool = False


@define(kw_only=True)
class Ledger:
    """What is remembered for one engine. Whoever changes it saves it."""

    path: Path | None = None
    day: int = 0
    spent: dict[str, float] = field(factory=dict)
    """Seconds of workers that have gone, by platform, of this day."""
    workers: dict[str, Known] = field(factory=dict)
    refused: dict[tuple[str, tuple[Need, ...]], Refusal] = field(factory=dict)
    _saved: bytes = b""
    _doubted_until: dict[str, float] = field(factory=dict)

    # --- workers ---------------------------------------------------------------------------------------------------

    @property
    def tickets(self) -> list[Ticket]:
        """What is remembered of those that were asked for."""
        return [known.ticket for known in self.workers.values()]

    def ask(self, ticket: Ticket) -> None:
        """Note that a worker is about to be asked for."""
        self.workers[ticket.name] = Known(ticket=ticket, seen_at=ticket.asked_at)

    def settle(self, name: str) -> None:
        """Note that the engine has answered: if it does not list that worker from now on, it is gone."""
        self.workers[name] = evolve(self.workers[name], settled=True)

    def found(self, listed: Iterable[Asked], now: float) -> list[Asked]:
        """Note what the engine has listed: what has come, and who has gone and for how long it was there.

        Return the same with when each has started as it was first told: not every engine can say so after a restart. With
        them are those that may still come.
        """
        self._turn(now)
        there = {each.name: each for each in listed}
        doubted = self._doubted(there, now)
        for name in self.workers.keys() - there.keys() - doubted.keys():
            known = self.workers.pop(name)
            begin = known.started_at if known.started_at is not None else known.seen_at
            self._spend(known.ticket.platform, begin, now)
        for name, each in there.items():
            before = self.workers.get(name)
            ticket = before.ticket if before else _ticket_of(each)
            started = each.started_at if before is None or before.started_at is None else before.started_at
            self.workers[name] = Known(ticket=ticket, seen_at=now, started_at=started, settled=True)
        return [
            *(evolve(each, started_at=self.workers[name].started_at) for name, each in there.items()),
            *doubted.values(),
        ]

    def _doubted(self, there: Collection[str], now: float) -> dict[str, Asked]:
        """Return those that are not listed and may still come: what asks for one may have outlived this program."""
        names = [name for name, known in self.workers.items() if not known.settled and name not in there]
        self._doubted_until = {name: self._doubted_until.get(name, now + DOUBT) for name in names}
        return {
            name: _in_doubt(self.workers[name].ticket) for name, until in self._doubted_until.items() if now < until
        }

    def spent_today(self, platform: str, now: float) -> float:
        """Return the seconds of all workers of a platform on this day, with those that are there."""
        self._turn(now)
        running = (
            now - max(known.started_at, self.day * DAY)
            for known in self.workers.values()
            if known.ticket.platform == platform and known.started_at is not None
        )
        return self.spent.get(platform, 0.0) + sum(max(0.0, each) for each in running)

    def _spend(self, platform: str, begin: float, end: float) -> None:
        self.spent[platform] = self.spent.get(platform, 0.0) + max(0.0, end - max(begin, self.day * DAY))

    def _turn(self, now: float) -> None:
        """Begin a new day. A clock that was set back over midnight begins none; by more than that it had been wrong."""
        if (day := int(now // DAY)) > self.day or day < self.day - 1:
            self.day, self.spent = day, {}

    # --- refusals --------------------------------------------------------------------------------------------------

    def refuse(self, platform: str, needs: tuple[Need, ...], reason: str, now: float) -> Refusal:
        """Note that the engine refused a worker."""
        before = self.refused.get((platform, needs))
        pause = FIRST_PAUSE if before is None else min(2 * before.pause, LONGEST_PAUSE)
        self.refused = {key: each for key, each in self.refused.items() if each.until + LONGEST_PAUSE > now}
        if len(self.refused) < MAX_REFUSED:
            self.refused[platform, needs] = Refusal(until=now + pause, pause=pause, reason=reason)
        return Refusal(until=now + pause, pause=pause, reason=reason)

    def take(self, platform: str, needs: tuple[Need, ...]) -> None:
        """Note that the engine took one."""
        self.refused.pop((platform, needs), None)

    def refusals(self, platform: str, now: float) -> Mapping[tuple[Need, ...], Refusal]:
        """Return what was refused of a platform, but for what a clock that has been set back would have refused for long."""
        return {
            needs: each
            for (where, needs), each in self.refused.items()
            if where == platform and each.until - each.pause <= now
        }

    # --- the file --------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Have all of it on the disk. Raises OSError."""
        if self.path is None:
            return
        data = json.dumps(self._dumped(), indent=1).encode()
        if data != self._saved:
            write_whole(self.path, data, 0o600)
            self._saved = data

    def _dumped(self) -> dict[str, Any]:
        return {
            "day": self.day,
            "spent": {platform: round(seconds) for platform, seconds in self.spent.items()},
            "workers": [
                {
                    **asdict(known.ticket, recurse=False),
                    "needs": text_of(known.ticket.needs),
                    "seen_at": known.seen_at // MINUTE * MINUTE,
                    "started_at": known.started_at,
                    "settled": known.settled,
                }
                for known in self.workers.values()
            ],
            "refused": [
                {"platform": platform, "needs": text_of(needs), **asdict(each)}
                for (platform, needs), each in self.refused.items()
            ],
        }

    @classmethod
    def load(cls, path: Path) -> "Ledger":
        """Return what a file says; nothing is remembered where there is none. Raises OSError and UnreadableLedger."""
        found = cls(path=path)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return found
        try:
            said = json.loads(data)
            found.day = int(said["day"])
            found.spent = {str(platform): float(seconds) for platform, seconds in said["spent"].items()}
            found.workers = {known.ticket.name: known for known in map(_known, said["workers"])}
            found.refused = {
                (str(each["platform"]), of_text(each["needs"])): Refusal(
                    until=float(each["until"]), pause=float(each["pause"]), reason=str(each["reason"])
                )
                for each in said["refused"]
            }
        except (ValueError, TypeError, LookupError, AttributeError, InvalidOptions) as error:
            raise UnreadableLedger(f"{path} is no ledger of builder-provision: move it away") from error
        return found


def _known(said: Mapping[str, Any]) -> Known:
    ticket = Ticket(
        name=str(said["name"]),
        platform=str(said["platform"]),
        needs=of_text(said["needs"]),
        asked_at=float(said["asked_at"]),
        time_limit=float(said["time_limit"]),
        id=str(said["id"]),
    )
    started = said["started_at"]
    return Known(
        ticket=ticket,
        seen_at=float(said["seen_at"]),
        started_at=None if started is None else float(started),
        settled=bool(said["settled"]),
    )


def _in_doubt(ticket: Ticket) -> Asked:
    return Asked(
        name=ticket.name,
        platform=ticket.platform,
        needs=ticket.needs,
        state=EngineState.QUEUED,
        reason="it may have been started",
        asked_at=ticket.asked_at,
        time_limit=ticket.time_limit,
        id=ticket.id,
    )


def _ticket_of(asked: Asked) -> Ticket:
    return Ticket(
        name=asked.name,
        platform=asked.platform,
        needs=asked.needs,
        asked_at=asked.asked_at,
        time_limit=asked.time_limit or 0.0,
        id=asked.id,
    )
