"""Lists of certificates that are revoked. One that is older than what was seen lets nobody in again: what either revokes is."""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from builder.model import printable
from builder.runtime.tls import InvalidCredentials

_BEGIN = b"-----BEGIN X509 CRL-----"


@frozen
class Serial:
    """What tells a certificate from all others: who issued it, and its number there.

    The name of who issued it is kept as OpenSSL compares names: in a list it may be written in another way than in
    certificates.
    """

    issuer: str
    number: int

    @classmethod
    def of(cls, certificate: bytes) -> "Serial":
        """Return that of a certificate in DER. Raises ValueError."""
        found = x509.load_der_x509_certificate(certificate)
        return cls(comparable(found.issuer), found.serial_number)


@frozen(kw_only=True)
class RevokedCertificates:
    """What lists revoke. ``newest`` are the newest ones of each authority, in PEM; ``older`` has a line for each that is older
    than one that was seen before.
    """

    serials: frozenset[Serial] = frozenset()
    newest: bytes = b""
    older: tuple[str, ...] = ()


def read_revoked(path: Path | None, ca: Path, seen: bytes = b"") -> RevokedCertificates:
    """Return what the lists in a file revoke, and those that were ``seen`` before, as far as they are newer; each must be
    signed by one of the authorities. Raises InvalidCredentials and OSError.

    A list that should have been renewed counts still: to refuse everybody would help no one.
    """
    try:
        authorities = x509.load_pem_x509_certificates(ca.read_bytes())
        lists = [] if path is None else _lists(path.read_bytes())
    except ValueError as error:
        raise InvalidCredentials(f"{path} is no list of revoked certificates in PEM") from error
    try:
        known = _lists(seen)
    except ValueError as error:
        raise InvalidCredentials("builder.crl in the server's directory is damaged: remove it") from error
    if path is not None and not lists:
        raise InvalidCredentials(f"{path}: there is no list of revoked certificates in it")
    given = _by_authority(lists, authorities)
    if sum(map(len, given.values())) != len(lists):
        raise InvalidCredentials(f"{path} was not signed by an authority of {ca}")
    before = _by_authority(known, authorities)  # one of an authority that was removed has nobody left to refuse
    older = {key for key, found in given.items() if key in before and _Age.of(found) < _Age.of(before[key])}
    newest = before | {key: found for key, found in given.items() if key not in older}
    return RevokedCertificates(
        serials=frozenset(
            Serial(comparable(each.issuer), revoked.serial_number)
            for found in (*given.values(), *newest.values())
            for each in found
            for revoked in each
        ),
        newest=b"".join(each.public_bytes(Encoding.PEM) for found in newest.values() for each in found),
        older=tuple(
            f"{path} has an older list of {printable(given[key][0].issuer.rfc4514_string())}, {_Age.of(given[key])}, than the "
            f"one seen before, {_Age.of(before[key])}: whom either revokes stays out; bring the newer one back"
            for key in given
            if key in older
        ),
    )


def _lists(data: bytes) -> list[x509.CertificateRevocationList]:
    return [x509.load_pem_x509_crl(_BEGIN + block) for block in data.split(_BEGIN)[1:]]


def _by_authority(
    lists: Iterable[x509.CertificateRevocationList], authorities: Iterable[x509.Certificate]
) -> dict[bytes, list[x509.CertificateRevocationList]]:
    """Return lists by who has signed them, without those that nobody of these has."""
    found = defaultdict(list)
    for each in lists:
        signer = next((authority for authority in authorities if _is_signed(each, authority)), None)
        if signer is not None:
            found[signer.public_bytes(Encoding.DER)].append(each)
    return dict(found)


@frozen(kw_only=True)
class _Age:
    """How new the lists of an authority are: by their number (RFC 5280, 5.2.3), where both have one, else by their time."""

    number: int | None
    made: dt.datetime

    @classmethod
    def of(cls, lists: Iterable[x509.CertificateRevocationList]) -> Self:
        ages = [cls(number=_number(each), made=each.last_update_utc) for each in lists]
        return max(ages, key=lambda age: (age.number or 0, age.made))

    def __lt__(self, other: "_Age") -> bool:
        if self.number is None or other.number is None:
            return self.made < other.made
        return (self.number, self.made) < (other.number, other.made)

    def __str__(self) -> str:
        number = "" if self.number is None else f"number {self.number} "
        return f"{number}of {self.made:%Y-%m-%dT%H:%M:%SZ}"


def _number(crl: x509.CertificateRevocationList) -> int | None:
    try:
        return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except x509.ExtensionNotFound:
        return None


def comparable(name: x509.Name) -> str:
    """Return a name as OpenSSL compares names."""
    return " ".join(name.rfc4514_string().casefold().split())


def _is_signed(crl: x509.CertificateRevocationList, authority: x509.Certificate) -> bool:
    if comparable(crl.issuer) != comparable(authority.subject):
        return False
    try:
        return crl.is_signature_valid(authority.public_key())  # type: ignore[arg-type]  # what it can't be is refused
    except (InvalidSignature, UnsupportedAlgorithm, TypeError):
        return False
