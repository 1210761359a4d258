"""Whom a change wakes: those who wait for a job of a platform, and who waits for the next run of any job.

A step notes it in its Woken; what is noted is announced once the step's change is on the disk, and not before.
"""

from weakref import WeakValueDictionary

from attrs import define, field

from builder.runtime.changes import Change


@define
class Woken:
    """What a step has changed for those who wait: platforms that got work, or came back; an earlier next run."""

    platforms: set[str] = field(factory=set)
    schedule: bool = False


@define(eq=False)
class Waking:
    """Take a change's ``next`` before looking at the store, then wait for it."""

    schedule: Change = field(factory=Change)
    """The next run of any job is earlier than it was. One that became later wakes nobody."""

    _platforms: WeakValueDictionary[str, Change] = field(factory=WeakValueDictionary)

    def platform(self, name: str) -> Change:
        """Return what tells that a platform got work. Hold it while you wait: names are any, and none is kept."""
        return self._platforms.setdefault(name, Change())

    def announce(self, woken: Woken) -> None:
        """Wake them."""
        if woken.schedule:
            self.schedule.announce()
        for name in woken.platforms:
            if (change := self._platforms.get(name)) is not None:
                change.announce()
