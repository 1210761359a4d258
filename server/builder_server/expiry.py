"""What ends at a time, and has to be renewed before: certificates, and the keys that sign builds. It is said 30 days before."""

import datetime as dt
import logging
from collections.abc import Callable, Iterable

import trio
from attrs import define, field, frozen

from builder.extension import MAX_PAGE
from builder.extension.watching import EndingState
from builder.model import Instant, printable
from builder.provenance import KeysUnusable
from builder_server.keyring import Keyring

logger = logging.getLogger(__name__)

LOOK_INTERVAL = 60.0
"""Seconds between looks."""

SAID_BEFORE = dt.timedelta(days=30)
"""How long before its end something is said to end, once a day."""

_DAY = dt.timedelta(days=1)

_MAX_SAID = 10_000
"""Names of which it is known when they were last said."""


@frozen(kw_only=True)
class Expiring:
    """What ends: the certificate of a holder or an authority, or, with ``is_own``, of the server; or, with ``is_key``, all that
    signs.
    """

    name: str
    expires: Instant
    is_own: bool = False
    is_key: bool = False
    holder: str | None = None

    def __str__(self) -> str:
        if self.is_key:
            return "the key that signs builds"  # by now there may be several, of which it is the last
        return f"the server's certificate {self.name}" if self.is_own else f"the certificate of {self.name}"


@define(eq=False)
class Expiry:
    """Says in the log what ends, and tells it to whoever asks. ``now`` is the wall clock."""

    _now: Callable[[], Instant]
    _keyring: Keyring
    certificates: Callable[[], Iterable[Expiring]] = tuple
    """Those of the server, and of holders who are connected."""
    _keys: tuple[Expiring, ...] = ()
    _said: dict[str, Instant] = field(init=False, factory=dict)

    def all(self) -> list[Expiring]:
        """Return all of it."""
        return [*self._keys, *self.certificates()]

    def soon(self) -> list[EndingState]:
        """Return what has to be renewed, what ends first before the others."""
        found = sorted(filter(self._is_soon, self.all()), key=lambda each: each.expires)
        return [
            EndingState(name=each.name, expires=each.expires, is_own=each.is_own, is_key=each.is_key)
            for each in found[:MAX_PAGE]
        ]

    def _is_soon(self, each: Expiring) -> bool:
        return each.expires <= self._now().plus(SAID_BEFORE)

    def say(self, *found: Expiring) -> None:
        """Say in the log which of these end soon, unless that was said within a day."""
        now = self._now()
        for each in filter(self._is_soon, found):
            said = self._said.get(str(each))
            if said is None or not said <= now < said.plus(_DAY):  # nor where the clock was ahead then
                self._said[str(each)] = now
                ends = "ends" if each.expires > now else "has ended"
                mend = "make another with `builder-server keys rotate`" if each.is_key else "renew it"
                fields = {} if each.holder is None else {"holder": each.holder}
                what = printable(str(each))
                logger.warning("%s %s on %s: %s", what, ends, each.expires.isoformat(), mend, extra={"fields": fields})
        if len(self._said) > _MAX_SAID:
            self._said.clear()

    async def run(self) -> None:
        """Look again and again, for ever."""
        while True:
            self._keys = await trio.to_thread.run_sync(self._read_keys)
            self.say(*self.all())
            await trio.sleep(LOOK_INTERVAL)

    def _read_keys(self) -> tuple[Expiring, ...]:
        try:
            last = self._keyring.last_end()
        except KeysUnusable:  # which is said where something is to be signed
            return ()
        return () if last is None else (Expiring(name=last[0], expires=last[1], is_own=True, is_key=True),)
