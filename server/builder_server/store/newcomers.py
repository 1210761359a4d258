"""Who has made which platforms, by having a worker of them: no holder of a certificate makes so many that others can make none.

It is known as long as the server runs. Whoever has no certificate is trusted, or is nobody that could be told from others.
"""

import datetime as dt

from attrs import define, field

from builder.model import Instant, printable
from builder_server.errors import CommandRefused
from builder_server.store.records import Holder, split_peer

MOST = 100
"""Platforms that one holder makes in a day. The workers of a farm may share a certificate, and have some dozens; to make all takes
a week, in which somebody sees it.
"""

_DAY = dt.timedelta(days=1)


@define(eq=False)
class Newcomers:
    """The platforms that each holder has made, and when; no more than are told are kept."""

    _made: dict[str, dict[str, Instant]] = field(factory=dict)

    def admit(self, worker: Holder | None, platform: str, now: Instant) -> None:
        """Note that a platform is made for a worker, maybe once more. Raises CommandRefused where that makes too many."""
        holder = split_peer(worker.address)[0] if worker else None
        if holder is None:
            return
        for name, made in [*self._made.items()]:
            self._made[name] = {each: at for each, at in made.items() if at <= now < at.plus(_DAY)}
            if not self._made[name]:
                del self._made[name]
        of_holder = self._made.setdefault(holder, {})
        if platform not in of_holder and len(of_holder) >= MOST:
            raise CommandRefused(
                f"{printable(holder)} has had {MOST} new platforms made within a day: schedule a job for {printable(platform)}, "
                "and it may work there"
            )
        of_holder[platform] = now
