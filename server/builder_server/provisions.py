"""What provisioners have told of the workers that they ask for: in memory, each until its time is over.

Servers that work on one database tell it each other: a provisioner tells it to any of them.
"""

from collections.abc import Callable, Iterable, Mapping

from attrs import define, field, frozen

from builder.extension.provisioning import Provision, TellProvision
from builder.model import Instant
from builder_server.errors import CommandRefused

MAX_PROVISIONS = 1000
"""Most that is kept: as many as there may be platforms."""


@frozen(kw_only=True)
class Told:
    """What was told, and when: by the clock of the server that was told."""

    at: Instant
    request: TellProvision

    def is_believed(self, now: Instant) -> bool:
        """Return whether its time is not over."""
        return now.ms < self.at.ms + self.request.keep


@define(eq=False)
class Provisions:
    """What this server was told. ``now`` is the wall clock. ``version`` changes with what is told."""

    _now: Callable[[], Instant]
    version: int = 0
    _told: dict[tuple[str, str], Told] = field(factory=dict)

    def tell(self, request: TellProvision) -> None:
        """Keep it, in place of what the same provisioner told of that platform. Raises CommandRefused."""
        self._forget()
        key = request.platform, request.provision.by
        if key not in self._told and len(self._told) >= MAX_PROVISIONS:
            raise CommandRefused(f"{MAX_PROVISIONS} platforms have a provisioner already")
        self.version += 1
        self._told[key] = Told(at=self._now(), request=request)

    def all(self) -> tuple[Told, ...]:
        """Return all that is believed now."""
        self._forget()
        return tuple(self._told.values())

    def _forget(self) -> None:
        now = self._now()
        self._told = {key: told for key, told in self._told.items() if told.is_believed(now)}


def by_platform(told: Iterable[Told], now: Instant) -> Mapping[str, tuple[Provision, ...]]:
    """Return what is believed now of what servers were told, of each provisioner what it told last."""
    last = {
        (each.request.platform, each.request.provision.by): each for each in sorted(told, key=lambda each: each.at.ms)
    }
    found: dict[str, tuple[Provision, ...]] = {}
    for (platform, _), each in sorted(last.items(), key=lambda item: item[0]):
        if each.is_believed(now):
            found[platform] = (*found.get(platform, ()), each.request.provision)
    return found
