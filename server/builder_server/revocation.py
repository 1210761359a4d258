"""Lists of certificates that are revoked."""

from pathlib import Path

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

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


def read_revoked(path: Path, ca: Path) -> frozenset[Serial]:
    """Return what the lists in a file revoke; each must be signed by one of the authorities. Raises InvalidCredentials
    and OSError.

    A list that should have been renewed counts still: to refuse everybody would help no one.
    """
    try:
        authorities = x509.load_pem_x509_certificates(ca.read_bytes())
        blocks = path.read_bytes().split(_BEGIN)[1:]
        lists = [x509.load_pem_x509_crl(_BEGIN + block) for block in blocks]
    except ValueError as error:
        raise InvalidCredentials(f"{path} is no list of revoked certificates in PEM") from error
    if not lists:
        raise InvalidCredentials(f"{path}: there is no list of revoked certificates in it")
    if not all(any(_is_signed(each, authority) for authority in authorities) for each in lists):
        raise InvalidCredentials(f"{path} was not signed by an authority of {ca}")
    return frozenset(
        Serial(issuer, revoked.serial_number)
        for each, issuer in ((each, comparable(each.issuer)) for each in lists)
        for revoked in each
    )


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
