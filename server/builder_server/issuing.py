"""What an authority signs: its own certificate, those of server and holders, and the list of those that are revoked."""

import contextlib
import datetime as dt
import ipaddress
import secrets
from collections.abc import Iterable, Sequence
from typing import ClassVar, Self

from attrs import frozen
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from builder.address import parse_address
from builder.errors import BuilderError, InvalidAddress
from builder.roles import Identity

AUTHORITY_DAYS = 3650
"""How long an authority lasts: all who trust it have to be visited before its end."""

SKEW = dt.timedelta(hours=1)
"""By how much the clocks of those who look at a certificate may be behind the authority's."""

_SERIAL_BITS = 79  # enough that none comes twice; as short as a table likes it, and always of 20 digits in hex
_USAGE = dict.fromkeys(
    (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
        "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    ),
    False,
)  # fmt: skip

Key = ec.EllipticCurvePrivateKey
"""On P-256: what every TLS library knows."""


class NotCertified(BuilderError):
    """A certificate can't be made, found or revoked; the text says what to do instead."""

    exit_code: ClassVar[int] = 8


class Mismatch(ValueError):
    """A key or a list that is not of this authority's certificate."""


def new_key() -> Key:
    """Return a new private key."""
    return ec.generate_private_key(ec.SECP256R1())


def key_pem(key: Key) -> bytes:
    """Return a private key as a file has it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def pem(signed: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    """Return what was signed as a file has it."""
    return signed.public_bytes(serialization.Encoding.PEM)


def serial_text(serial: int) -> str:
    """Return a serial number as people see it, here and in what OpenSSL prints."""
    digits = f"{serial:X}"
    return digits.zfill(len(digits) + len(digits) % 2)


def host_name(host: str) -> x509.GeneralName:
    """Return the name of a server as a certificate says it. Raises NotCertified."""
    try:
        address = ipaddress.ip_address(host)
        if not getattr(address, "scope_id", None):
            return x509.IPAddress(address)
    except ValueError:
        with contextlib.suppress(InvalidAddress):
            if parse_address(host)[0] == host:
                return x509.DNSName(host)
    raise NotCertified(f"{host!r} is no host name and no address; write one as others reach it, without a port")


def common_name(certificate: x509.Certificate) -> str:
    """Return whose certificate it is."""
    (name,) = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(name.value)


def alternatives(certificate: x509.Certificate) -> list[x509.GeneralName]:
    """Return what its subjectAltName says."""
    return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)


_PURPOSES = {
    True: [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],  # it asks other servers of its farm
    False: [ExtendedKeyUsageOID.CLIENT_AUTH],
}


def is_of_server(certificate: x509.Certificate) -> bool:
    """Return whether it is a server's, and no holder's."""
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    return ExtendedKeyUsageOID.SERVER_AUTH in usage


def identity(certificate: x509.Certificate) -> Identity:
    """Return who its holder is, as the server will read it."""
    uris = [name.value for name in alternatives(certificate) if isinstance(name, x509.UniformResourceIdentifier)]
    return Identity.of(
        {
            "subject": ((("commonName", common_name(certificate)),),),
            "subjectAltName": tuple(("URI", uri) for uri in uris),
            "serialNumber": serial_text(certificate.serial_number),
            "notAfter": certificate.not_valid_after_utc.strftime("%b %d %H:%M:%S %Y GMT"),
        }
    )


@frozen(kw_only=True)
class Revocation:
    """A certificate that counts no more, since when, and why."""

    serial: int
    date: dt.datetime
    reason: x509.ReasonFlags


def read_list(crl: x509.CertificateRevocationList) -> list[Revocation]:
    """Return what a list says."""
    found = []
    for each in crl:
        try:
            reason = each.extensions.get_extension_for_class(x509.CRLReason).value.reason
        except x509.ExtensionNotFound:
            reason = x509.ReasonFlags.unspecified
        found.append(Revocation(serial=each.serial_number, date=each.revocation_date_utc, reason=reason))
    return found


@frozen(kw_only=True)
class Issuer:
    """The certificate of an authority, and its key."""

    certificate: x509.Certificate
    key: Key

    @classmethod
    def new(cls, now: dt.datetime) -> Self:
        """Make an authority. Its name is its own, so that it is not mistaken for an earlier one of the same server."""
        key = new_key()
        name = _name(f"builder authority {secrets.token_hex(4)}")
        builder = (
            _begun(name, name, key.public_key(), now, now + dt.timedelta(days=AUTHORITY_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.KeyUsage(**_USAGE | {"key_cert_sign": True, "crl_sign": True}), critical=True)
        )
        return cls(certificate=builder.sign(key, hashes.SHA256()), key=key)

    @classmethod
    def load(cls, certificate: x509.Certificate, key: bytes) -> Self:
        """Return one whose key is in PEM. Raises ValueError."""
        found = serialization.load_pem_private_key(key, None)
        if not isinstance(found, ec.EllipticCurvePrivateKey) or found.public_key() != certificate.public_key():
            raise Mismatch("it is not the key of this authority")
        return cls(certificate=certificate, key=found)

    def sign(
        self,
        name: str,
        key: ec.EllipticCurvePublicKey,
        names: Sequence[x509.GeneralName],
        *,
        is_of_server: bool,
        now: dt.datetime,
        days: int,
    ) -> x509.Certificate:
        """Return a certificate for who has a key; it ends with its authority, if that is sooner. Raises NotCertified."""
        last = self.certificate.not_valid_after_utc
        if now >= last:
            raise NotCertified(
                f"the authority itself has ended, on {last:%Y-%m-%d}: make a new one in another directory"
            )
        until = last if (last - now).days < days else now + dt.timedelta(days=days)
        issuer = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = (
            _begun(_name(name), self.certificate.subject, key, now, until)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**_USAGE | {"digital_signature": True}), critical=True)
            .add_extension(x509.ExtendedKeyUsage(_PURPOSES[is_of_server]), critical=False)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
        )
        return builder.sign(self.key, hashes.SHA256())

    def sign_list(self, revoked: Iterable[Revocation], number: int, now: dt.datetime) -> x509.CertificateRevocationList:
        """Return the list of that number. It is good for as long as its authority: nobody is shut out because no new one was
        made in time, and a server takes a new one within a second.
        """
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - SKEW)
            .next_update(max(self.certificate.not_valid_after_utc, now))
            .add_extension(x509.CRLNumber(number), critical=False)
        )
        for each in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(each.serial).revocation_date(each.date)
            if each.reason is not x509.ReasonFlags.unspecified:  # which a list leaves out, says RFC 5280
                entry = entry.add_extension(x509.CRLReason(each.reason), critical=False)
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(self.key, hashes.SHA256())


def check_signed(signed: x509.CertificateRevocationList | x509.Certificate, authority: x509.Certificate) -> None:
    """See that an authority has signed it. Raises Mismatch."""
    try:
        if isinstance(signed, x509.Certificate):
            signed.verify_directly_issued_by(authority)
            return
        key = authority.public_key()
        if isinstance(key, ec.EllipticCurvePublicKey) and signed.is_signature_valid(key):
            return
    except (InvalidSignature, ValueError, TypeError):
        pass
    raise Mismatch("it is not of this authority")


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: dt.datetime, until: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(1 << _SERIAL_BITS | secrets.randbits(_SERIAL_BITS))
        .not_valid_before(now - SKEW)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )
