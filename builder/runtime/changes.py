"""Something that changes again and again, and whoever waits for the next change."""

import trio
from attrs import define, field


@define(eq=False)
class Change:
    """Take ``next`` before looking at what may change; then wait for it: no change is missed."""

    _next: trio.Event = field(factory=trio.Event)

    @property
    def next(self) -> trio.Event:
        """The event of the next change."""
        return self._next

    def announce(self) -> None:
        """Wake all who wait."""
        event, self._next = self._next, trio.Event()
        event.set()
