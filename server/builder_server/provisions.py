"""What provisioners have told of the workers that they ask for: in memory, each until its time is over."""

from collections.abc import Mapping

import trio
from attrs import define, field

from builder.extension.provisioning import Provision, TellProvision
from builder_server.errors import CommandRefused

MAX_PROVISIONS = 1000
"""Most that is kept: as many as there may be platforms."""


@define(eq=False)
class Provisions:
    """Times are those of trio's clock. ``version`` changes with what is told."""

    version: int = 0
    _told: dict[tuple[str, str], tuple[float, Provision]] = field(factory=dict)

    def tell(self, told: TellProvision) -> None:
        """Keep it, in place of what the same provisioner told of that platform. Raises CommandRefused."""
        self._forget()
        key = told.platform, told.provision.by
        if key not in self._told and len(self._told) >= MAX_PROVISIONS:
            raise CommandRefused(f"{MAX_PROVISIONS} platforms have a provisioner already")
        self.version += 1
        self._told[key] = trio.current_time() + told.keep / 1000, told.provision

    def by_platform(self) -> Mapping[str, tuple[Provision, ...]]:
        """Return all that is believed now."""
        self._forget()
        found: dict[str, tuple[Provision, ...]] = {}
        for (platform, _), (_, provision) in sorted(self._told.items(), key=lambda item: item[0]):
            found[platform] = (*found.get(platform, ()), provision)
        return found

    def _forget(self) -> None:
        now = trio.current_time()
        self._told = {key: (until, told) for key, (until, told) in self._told.items() if until > now}
