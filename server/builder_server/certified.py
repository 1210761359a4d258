"""Certificates of a server that runs: its own, those that are shown to it, and those that it refuses.

Files are looked at every second: what has changed counts from then on, for new connections and, where it takes something
away, for open ones. What can't be read any more changes nothing, and is said once.
"""

import datetime as dt
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import trio
from attrs import define, field, frozen
from cryptography import x509

from builder.errors import BuilderError
from builder.extension import MAX_PAGE
from builder.extension.watching import EndingState
from builder.model import Instant, printable
from builder.reasons import reason_of
from builder.roles import Identity
from builder.runtime.encrypted import EncryptedStream
from builder.runtime.tls import InvalidCredentials, TlsFiles
from builder_server.connections import Place
from builder_server.permission import Peer
from builder_server.revocation import Serial, read_revoked

logger = logging.getLogger(__name__)

T = TypeVar("T")

POLL = 1.0
"""Seconds between looks at the files."""

LOOKS = 60
"""Looks at the files for each at the time."""

SAID_BEFORE = dt.timedelta(days=30)
"""How long before its end that of a certificate is said, once a day."""

_DAY = dt.timedelta(days=1)


@frozen(kw_only=True)
class Expiring:
    """A certificate that ends: whose it is, and when. ``is_own``: it is the server's."""

    name: str
    expires: Instant
    is_own: bool = False


@define(eq=False)
class Files(Generic[T]):
    """What was read from files, and is read again when they change."""

    paths: tuple[Path, ...]
    read: Callable[[], T]
    value: T = field(init=False)
    _seen: object = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._seen = self._look()
        self.value = self.read()

    def _look(self) -> object:
        return tuple(_state(path) for path in self.paths)

    def refresh(self) -> bool:
        """Read them again if they have changed, and return whether they were read."""
        if (seen := self._look()) == self._seen:
            return False
        self._seen = seen  # before they are read: what is half written now changes once more
        try:
            self.value = self.read()
        except (BuilderError, OSError) as error:
            named = " and ".join(map(str, self.paths))
            logger.error("%s: what was there before is kept: %s", named, reason_of(error))
            return False
        return True


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


@frozen
class _Own:
    context: ssl.SSLContext
    expiring: Expiring


@define(eq=False)
class Certificates:
    """Lets in those who show a certificate of ``files.ca``, for as long as it is valid. ``now`` is the wall clock.

    ``crl`` is the file of those that are revoked. It need not be there unless it ``must_exist``.
    """

    files: TlsFiles
    crl: Path
    _now: Callable[[], Instant]
    must_exist: bool = False
    _own: Files[_Own] = field(init=False)
    _revoked: Files[frozenset[Serial]] = field(init=False)
    _open: dict[Place, tuple[frozenset[Serial], Identity]] = field(init=False, factory=dict)
    _said: dict[str, Instant] = field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        """Raise InvalidCredentials."""
        self._own = Files((self.files.certificate, self.files.key, self.files.ca), self._read_own)
        try:
            self._revoked = Files((self.crl, self.files.ca), self._read_revoked)
        except OSError as error:
            raise InvalidCredentials(f"can't read {self.crl}: {reason_of(error)}") from error
        self.must_exist = self.must_exist or bool(self._revoked.value)

    def _read_own(self) -> _Own:
        context = self.files.server_context()
        found = x509.load_pem_x509_certificates(self.files.certificate.read_bytes())[0]
        expires = Instant.from_datetime(found.not_valid_after_utc)
        return _Own(context, Expiring(name=str(self.files.certificate), expires=expires, is_own=True))

    def _read_revoked(self) -> frozenset[Serial]:
        if not self.must_exist and not self.crl.exists():
            return frozenset()
        self.must_exist = True
        return read_revoked(self.crl, self.files.ca)

    # --- connections -----------------------------------------------------------------------------------------------

    async def admit(self, transport: trio.SocketStream, address: str, place: Place) -> tuple[EncryptedStream, Peer]:
        """Shake hands, and return who is there. Raises ssl.SSLError, InvalidCertificate, CertificateRefused and NoPlace."""
        stream = EncryptedStream(transport, self._own.value.context, server_side=True)
        await stream.do_handshake()
        identity = Identity.of(stream.described_certificate)
        serials = frozenset(map(Serial.of, stream.chain))
        if not serials.isdisjoint(self._revoked.value):
            await stream.aclose()
            raise CertificateRefused(f"the certificate of {printable(identity.name)} is revoked")
        place.belong_to(identity.name)
        self._open[place] = serials, identity
        place.at_end(lambda: self._open.pop(place, None))
        self._say_expiring(_expiring(identity))
        return stream, Peer(address=address, name=identity.name, identity=identity)

    def expiring(self) -> list[Expiring]:
        """Return the server's own certificate, and those on open connections, each holder's that ends first."""
        found: dict[str, Expiring] = {}
        for _, identity in self._open.values():
            before = found.get(identity.name)
            if before is None or identity.expires < before.expires:
                found[identity.name] = _expiring(identity)
        return [self._own.value.expiring, *found.values()]

    def ending_soon(self) -> list[EndingState]:
        """Return those of them that have to be renewed, what ends first before the others."""
        soon = sorted(filter(self._is_soon, self.expiring()), key=lambda each: each.expires)
        return [EndingState(name=each.name, expires=each.expires, is_own=each.is_own) for each in soon[:MAX_PAGE]]

    def _is_soon(self, each: Expiring) -> bool:
        return each.expires <= self._now().plus(SAID_BEFORE)

    # --- time ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look at the files, and at the time, for ever."""
        while True:
            self._say_expiring(*self.expiring())
            for _ in range(LOOKS):
                await trio.sleep(POLL)
                await self._refresh()
            self._close("its certificate has expired", lambda _, identity: identity.expires <= self._now())

    async def _refresh(self) -> None:
        # in a thread, since a file may be anywhere
        if await trio.to_thread.run_sync(self._own.refresh):
            logger.info("%s is read again", self.files.certificate)
        if await trio.to_thread.run_sync(self._revoked.refresh):
            revoked = self._revoked.value
            logger.info("%s is read again: %d revoked", self.crl, len(revoked))
            self._close("its certificate was revoked", lambda serials, _: not serials.isdisjoint(revoked))

    def _close(self, reason: str, is_concerned: Callable[[frozenset[Serial], Identity], bool]) -> None:
        for place, (serials, identity) in self._open.items():
            if is_concerned(serials, identity):
                place.close(reason)

    def _say_expiring(self, *all_: Expiring) -> None:
        now = self._now()
        for each in all_:
            said = self._said.get(each.name)
            was_said = said is not None and said <= now < said.plus(_DAY)  # not where the clock was ahead then
            if self._is_soon(each) and not was_said:
                self._said[each.name] = now
                whose = f"the server's certificate {each.name}" if each.is_own else f"the certificate of {each.name}"
                logger.warning("%s ends on %s: renew it", printable(whose), each.expires.isoformat())
        if len(self._said) > _MAX_SAID:
            self._said.clear()


class CertificateRefused(BuilderError):
    """A certificate that was good once."""


_MAX_SAID = 10_000
"""Holders of whom it is known when they were last told of."""


def _expiring(identity: Identity) -> Expiring:
    return Expiring(name=identity.name, expires=identity.expires)
