"""Whether the workers of a platform come to the server at all: where they end before, more are asked for less and less often.

Times are seconds since the epoch.
"""

from collections.abc import Collection

from attrs import define, field

from builder_provision.fleet import Asked
from builder_provision.ledger import FIRST_PAUSE, LONGEST_PAUSE

REASON = "workers end before they have come to the server: see what builder-worker says where they run"


@define
class Arrivals:
    """Of one platform. Nobody is asked for before ``until``.

    A worker may come, do a short job and go between two rounds: so none counts as lost during whose time a job was begun.
    """

    until: float = 0.0
    _begun: int = 0
    _coming: dict[str, int] = field(factory=dict)
    """Who has not been seen at the server, and how many jobs had been begun when it was asked for."""

    _losses: int = 0
    """Rounds in which some had ended, without a job that was begun between them."""

    def ask(self, name: str) -> None:
        """Note that the engine has taken a worker."""
        self._coming[name] = self._begun

    def give_up(self, name: str) -> None:
        """Note that one is removed, which is no loss."""
        self._coming.pop(name, None)

    def begin(self) -> None:
        """Note that a job was begun, or may have been: some worker came."""
        self._begun += 1
        self._losses, self.until = 0, 0.0

    def note(self, asked: Collection[Asked], now: float) -> bool:
        """Note who is there. Return whether it is new that they end before they come: a single one may have had bad luck."""
        is_coming = {each.name: each.is_coming for each in asked}
        if any(not is_coming.get(name, True) for name in self._coming):
            self.begin()
        lost = [name for name, begun in self._coming.items() if name not in is_coming and begun == self._begun]
        self._coming = {name: begun for name, begun in self._coming.items() if is_coming.get(name)}
        if not lost:
            return False
        self._losses += 1
        if self._losses > 1:
            self.until = now + min(FIRST_PAUSE * 2 ** min(self._losses - 2, 10), LONGEST_PAUSE)
        return self._losses == 2
