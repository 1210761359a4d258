"""Certificates of a server that runs: its own, those that are shown to it, and those that it refuses.

Files are looked at every second: what has changed counts from then on, for new connections and, where it takes something
away, for open ones. What can't be read any more changes nothing, and is said once.
"""

import logging
import ssl
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

import trio
from attrs import define, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from builder.errors import BuilderError
from builder.model import Instant, printable
from builder.reasons import reason_of
from builder.roles import Identity
from builder.runtime.encrypted import EncryptedStream
from builder.runtime.files import write_whole
from builder.runtime.logs import note
from builder.runtime.tls import InvalidCredentials, TlsFiles
from builder_server.connections import Place
from builder_server.expiry import Expiring
from builder_server.permission import Peer
from builder_server.revocation import RevokedCertificates, Serial, comparable, read_revoked

logger = logging.getLogger(__name__)

T = TypeVar("T")

POLL = 1.0
"""Seconds between looks at the files."""

LOOKS = 60
"""Looks at the files for each at the time."""


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
    """What the server shows, and what it asks for. ``authorities`` are those of the others, in DER."""

    context: ssl.SSLContext
    between_servers: ssl.SSLContext
    expiring: tuple[Expiring, ...]
    authorities: frozenset[bytes]


@define(eq=False)
class Certificates:
    """Lets in those who show a certificate of ``files.ca``, for as long as it is valid. ``now`` is the wall clock.

    ``crl`` is the file of those that are revoked. It need not be there unless it ``must_exist``. The newest lists that were
    seen are in ``seen``, which only ``run`` writes, so that no restart lets in whom they revoke.
    """

    files: TlsFiles
    crl: Path
    _now: Callable[[], Instant]
    must_exist: bool = False
    seen: Path | None = None
    _own: Files[_Own] = field(init=False)
    _revoked: Files[RevokedCertificates] = field(init=False)
    _newest: bytes = field(init=False, default=b"")
    _kept: bytes = field(init=False, default=b"")
    _open: dict[Place, tuple[frozenset[Serial], Identity]] = field(init=False, factory=dict)
    note: Callable[[Expiring], object] = lambda _: None
    """Called with each certificate that is shown."""

    def __attrs_post_init__(self) -> None:
        """Raise InvalidCredentials."""
        self._own = Files((self.files.certificate, self.files.key, self.files.ca), self._read_own)
        try:
            with suppress(FileNotFoundError):
                self._newest = self._kept = self.seen.read_bytes() if self.seen else b""
            self._revoked = Files((self.crl, self.files.ca), self._read_revoked)
        except OSError as error:
            raise InvalidCredentials(f"can't read {error.filename}: {reason_of(error)}") from error

    def _read_own(self) -> _Own:
        context = self.files.server_context()
        try:
            found = x509.load_pem_x509_certificates(self.files.certificate.read_bytes())[0]
            authorities = x509.load_pem_x509_certificates(self.files.ca.read_bytes())
        except ValueError as error:  # which OpenSSL has read
            raise InvalidCredentials(f"{self.files.certificate} and {self.files.ca}: {error}") from error
        _check_usage(found, self.files.certificate)
        own = Expiring(name=str(self.files.certificate), expires=_end_of(found), is_own=True)
        theirs = [
            Expiring(name=f"{each.subject.rfc4514_string()} in {self.files.ca}", expires=_end_of(each))
            for each in authorities
        ]
        known = frozenset(each.public_bytes(Encoding.DER) for each in authorities)
        return _Own(context, self.files.peer_context(), (own, *theirs), known)

    def _read_revoked(self) -> RevokedCertificates:
        is_there = self.must_exist or self.crl.exists()
        found = read_revoked(self.crl if is_there else None, self.files.ca, self._newest)
        self.must_exist = is_there
        self._newest = found.newest
        return found

    def warnings(self) -> tuple[str, ...]:
        """Return what is wrong with the lists of revoked certificates, a line each."""
        if self._newest and not self.must_exist:
            return (f"{self.crl} is gone: whom it revoked stays out; bring it back",)
        return self._revoked.value.older

    @property
    def between_servers(self) -> ssl.SSLContext:
        """How this server speaks TLS with another one, to which it shows its own certificate."""
        return self._own.value.between_servers

    # --- connections -----------------------------------------------------------------------------------------------

    async def admit(self, transport: trio.SocketStream, address: str, place: Place) -> tuple[EncryptedStream, Peer]:
        """Shake hands, and return who is there. Raises ssl.SSLError, InvalidCertificate, CertificateRefused and NoPlace."""
        own = self._own.value
        stream = EncryptedStream(transport, own.context, server_side=True)
        await stream.do_handshake()
        identity = Identity.of(stream.described_certificate)
        serials = frozenset(map(Serial.of, stream.chain))
        note(holder=identity.name)
        if not serials.isdisjoint(self._revoked.value.serials):
            await stream.aclose()
            raise CertificateRefused(f"the certificate of {printable(identity.name)} is revoked")
        if not own.authorities <= self._own.value.authorities:
            await stream.aclose()
            raise CertificateRefused("an authority was removed meanwhile, which may have been the certificate's")
        place.belong_to(identity.name)
        self._open[place] = serials, identity
        place.at_end(lambda: self._open.pop(place, None))
        self.note(_expiring(identity))
        return stream, Peer(address=address, name=identity.name, identity=identity)

    def expiring(self) -> list[Expiring]:
        """Return the server's own certificate, the authorities, and those on open connections, each holder's that ends first."""
        found: dict[str, Expiring] = {}
        for _, identity in self._open.values():
            before = found.get(identity.name)
            if before is None or identity.expires < before.expires:
                found[identity.name] = _expiring(identity)
        return [*self._own.value.expiring, *found.values()]

    # --- time ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look at the files, and at the time, for ever."""
        if not (self.must_exist or self._newest):
            logger.info("nobody is known to be revoked: there is no %s", self.crl)
        await self._note_lists()
        while True:
            for _ in range(LOOKS):
                await trio.sleep(POLL)
                await self._refresh()
            self._close("its certificate has expired", lambda _, identity: identity.expires <= self._now())

    async def _refresh(self) -> None:
        # in a thread, since a file may be anywhere
        before = self._own.value
        if await trio.to_thread.run_sync(self._own.refresh):
            logger.info("%s is read again", self.files.certificate)
            self._close_unknown(before)
        if await trio.to_thread.run_sync(self._revoked.refresh) and self.must_exist:
            revoked = self._revoked.value.serials
            logger.info("%s is read again: %d revoked", self.crl, len(revoked))
            await self._note_lists()
            self._close("its certificate was revoked", lambda serials, _: not serials.isdisjoint(revoked))

    async def _note_lists(self) -> None:
        """Say what is wrong with the lists, and keep the newest ones over a restart."""
        for line in self.warnings():
            logger.warning("%s", line)
        if self.seen is None or self._newest == self._kept:
            return
        newest = self._newest
        try:
            await trio.to_thread.run_sync(write_whole, self.seen, newest, 0o644)
            self._kept = newest
        except OSError as error:
            logger.error("%s: an older list would count after a restart: %s", self.seen, reason_of(error))

    def _close_unknown(self, before: _Own) -> None:
        """Close what may have been let in by an authority that is there no more; whom another one knows comes again."""
        now = self._own.value
        if before.authorities <= now.authorities:
            return
        known = _names(now.authorities) - _names(before.authorities - now.authorities)
        self._close("its authority was removed", lambda serials, _: known.isdisjoint(each.issuer for each in serials))

    def _close(self, reason: str, is_concerned: Callable[[frozenset[Serial], Identity], bool]) -> None:
        for place, (serials, identity) in self._open.items():
            if is_concerned(serials, identity):
                place.close(reason)


def _check_usage(certificate: x509.Certificate, path: Path) -> None:
    """Raise InvalidCredentials for a certificate that says what it is for, and that is no server."""
    with suppress(x509.ExtensionNotFound):
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if ExtendedKeyUsageOID.SERVER_AUTH not in usage:
            raise InvalidCredentials(f"{path} is no certificate of a server: nobody would take it for one")


class CertificateRefused(BuilderError):
    """A certificate that was good once."""


def _names(authorities: Iterable[bytes]) -> set[str]:
    return {comparable(x509.load_der_x509_certificate(each).subject) for each in authorities}


def _end_of(certificate: x509.Certificate) -> Instant:
    return Instant.from_datetime(certificate.not_valid_after_utc)


def _expiring(identity: Identity) -> Expiring:
    return Expiring(name=identity.name, expires=identity.expires, holder=identity.name)
