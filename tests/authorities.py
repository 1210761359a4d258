"""Certificates for tests, of authorities that live as long as a test: good ones, and every kind of bad one."""

import datetime as dt
import ssl
from collections.abc import Iterable
from ipaddress import ip_address
from pathlib import Path

from attrs import define, field, frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from builder.runtime.tls import TlsFiles

DAY = dt.timedelta(days=1)


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@frozen(kw_only=True)
class Issued:
    """A certificate, the files of its holder, and what it trusts."""

    certificate: x509.Certificate
    files: TlsFiles

    @property
    def serial(self) -> int:
        return self.certificate.serial_number

    @property
    def context(self) -> ssl.SSLContext:
        """How a client that has it speaks TLS."""
        return self.files.peer_context()


def name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


@define(eq=False)
class Authority:
    """An authority in a directory: ``ca.pem`` is its certificate, ``crl.pem`` what it has revoked once there is any.

    It may be one of another authority, ``above`` it; then its holders show its certificate beside their own.
    """

    directory: Path
    common: str = "farm"
    key: ec.EllipticCurvePrivateKey = field(factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    certificate: x509.Certificate = field(init=False)
    revoked: list[int] = field(factory=list)
    above: "Authority | None" = None

    def __attrs_post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        signer = self.above or self
        builder = self._builder(name(self.common), self.key, now() - DAY, now() + 3650 * DAY, signer.common)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        self.certificate = builder.sign(signer.key, hashes.SHA256())
        self.ca.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    @property
    def ca(self) -> Path:
        return self.directory / "ca.pem"

    @property
    def crl(self) -> Path:
        return self.directory / "crl.pem"

    def _builder(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        begin: dt.datetime,
        end: dt.datetime,
        issuer: str | None = None,
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(name(issuer or self.common))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
        )

    def issue(
        self,
        common: str,
        *,
        uris: Iterable[str] = (),
        hosts: Iterable[str] = (),
        usages: Iterable[x509.ObjectIdentifier] = (ExtendedKeyUsageOID.CLIENT_AUTH,),
        begin: dt.datetime | None = None,
        end: dt.datetime | None = None,
        is_self_signed: bool = False,
        file: str | None = None,
        trusted: Path | None = None,
    ) -> Issued:
        """Write NAME.pem and NAME.key. ``hosts`` are names or addresses; it trusts this authority, or what is ``trusted``."""
        key = ec.generate_private_key(ec.SECP256R1())
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris]
        for host in hosts:
            try:
                names.append(x509.IPAddress(ip_address(host)))
            except ValueError:
                names.append(x509.DNSName(host))
        issuer = common if is_self_signed else self.common
        builder = self._builder(name(common), key, begin or now() - DAY, end or now() + 365 * DAY, issuer)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(key if is_self_signed else self.key, hashes.SHA256())
        path = self.directory / f"{file or common}.pem"
        shown = [certificate, *([self.certificate] if self.above else [])]
        path.write_bytes(b"".join(each.public_bytes(serialization.Encoding.PEM) for each in shown))
        key_path = path.with_suffix(".key")
        key_path.touch(0o600)
        key_path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return Issued(certificate=certificate, files=TlsFiles(certificate=path, key=key_path, ca=trusted or self.ca))

    def server(self, **options: object) -> Issued:
        """Issue a server's certificate, for this machine."""
        given: dict[str, object] = {
            "hosts": ["localhost", "127.0.0.1", "::1"],
            "usages": [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
        }
        return self.issue("server", **(given | options))  # type: ignore[arg-type]

    def revoke(
        self, *certificates: "Issued | Authority", called: x509.Name | None = None, number: int | None = None
    ) -> None:
        """Write a list of all that are revoked. ``called`` is how the list calls this authority, ``number`` that of the list."""
        self.revoked += [each.certificate.serial_number for each in certificates]
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(called or name(self.common))
            .last_update(now() - DAY)
            .next_update(now() + 30 * DAY)
        )
        if number is not None:
            builder = builder.add_extension(x509.CRLNumber(number), critical=False)
        for serial in self.revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now()).build()
            )
        crl = builder.sign(self.key, hashes.SHA256())
        part = self.crl.with_suffix(".part")
        part.write_bytes(crl.public_bytes(serialization.Encoding.PEM))
        part.replace(self.crl)
