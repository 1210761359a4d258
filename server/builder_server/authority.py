"""A small authority in a directory: who has a certificate, who had one, and the files in which they are handed out.

``issued`` has every certificate that was ever made, by its serial number, and is the truth about them together with the list
of those that are revoked; the other files are what servers and holders take. Each file is whole and durable, or not there;
one command changes them at a time.
"""

import datetime as dt
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from attrs import frozen
from cryptography import x509

from builder.errors import InvalidName
from builder.model import check_name, printable
from builder.roles import HolderRole, worker_uri
from builder.runtime.files import lock_directory, remove_tree, sync_directory, write_whole
from builder_server import issuing
from builder_server.issuing import Issuer, Mismatch, NotCertified, Revocation
from builder_server.served import check_owner

SERVER = "server"
"""The name under which the server's own certificate is listed and renewed."""

CA, CA_KEY, CRL = "ca.pem", "ca.key", "crl.pem"
_ISSUED, _HOLDERS = "issued", "holders"
_PUBLIC, _PRIVATE = 0o644, 0o600

MAX_NAME = 64
"""Characters of a common name, says RFC 5280."""

_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._@+-]*", re.ASCII)
_SERIAL = re.compile(r"[0-9A-Fa-f]{1,40}", re.ASCII)  # 20 bytes, says RFC 5280


@frozen(kw_only=True)
class Certified:
    """A certificate that was made, and what became of it."""

    certificate: x509.Certificate
    name: str
    revoked: Revocation | None
    is_newest: bool
    """Whether its holder has got none since."""

    @property
    def is_of_server(self) -> bool:
        """Whether it is a server's, and no holder's."""
        return self.name == SERVER

    @property
    def serial(self) -> str:
        """Its serial number, as people see it."""
        return issuing.serial_text(self.certificate.serial_number)

    @property
    def until(self) -> dt.datetime:
        """When it ends."""
        return self.certificate.not_valid_after_utc

    def is_good(self, now: dt.datetime) -> bool:
        """Return whether it opens anything."""
        return self.revoked is None and now <= self.until


@frozen(kw_only=True)
class Authority:
    """The authority in a directory; its key may be elsewhere."""

    directory: Path
    key: Path
    certificate: x509.Certificate

    @classmethod
    def init(cls, directory: Path, key: Path | None, hosts: Sequence[str], *, days: int, now: dt.datetime) -> Self:
        """Make an authority, and the certificate of a server that is reached by these names. Raises NotCertified and OSError.

        The directory is there when all in it is.
        """
        names = [issuing.host_name(host) for host in hosts]
        if not directory.parent.is_dir():  # a typo must not make a tree of directories
            raise NotCertified(f"{directory.parent} is no directory: create it, or name another one with --directory")
        with _alone_in(directory.parent):
            if os.path.lexists(directory) and not (directory.is_dir() and not any(directory.iterdir())):
                raise NotCertified(f"{directory} is there already: 'issue' and 'renew' make more certificates in it")
            part = directory.with_name(f".{directory.name}.part")
            remove_tree(part)
            for each in (part, part / _ISSUED, part / _HOLDERS):
                each.mkdir(mode=0o700)
                each.chmod(0o700)  # whatever the umask has taken away
            signer = Issuer.new(now)
            if key is None:
                write_whole(part / CA_KEY, issuing.key_pem(signer.key), _PRIVATE)
            elif key.exists():
                raise NotCertified(f"{key} is there already: it may be the key of another authority")
            else:
                write_whole(key, issuing.key_pem(signer.key), _PRIVATE)
            write_whole(part / CA, issuing.pem(signer.certificate), _PUBLIC)
            made = cls(directory=part, key=key or part / CA_KEY, certificate=signer.certificate)
            made._write_list(signer, [], 1, now)
            server_key = issuing.new_key()
            write_whole(part / f"{SERVER}.key", issuing.key_pem(server_key), _PRIVATE)
            signed = signer.sign(
                hosts[0][:MAX_NAME], server_key.public_key(), names, is_of_server=True, now=now, days=days
            )
            made._keep(signed, part / f"{SERVER}.pem")
            part.chmod(0o755)
            part.rename(directory)
            sync_directory(directory.parent)
        return cls.open(directory, key)

    @classmethod
    def open(cls, directory: Path, key: Path | None) -> Self:
        """Return the authority that is there. Raises NotCertified."""
        path = directory / CA
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
        except FileNotFoundError as error:
            raise NotCertified(
                f"there is no authority in {directory}: 'init' makes one, --directory names another"
            ) from error
        except ValueError as error:
            raise NotCertified(f"{path} is damaged: bring it back from a backup") from error
        return cls(directory=directory, key=key or directory / CA_KEY, certificate=certificate)

    def issue(
        self, name: str, roles: Sequence[HolderRole], platforms: Sequence[str], *, days: int, now: dt.datetime
    ) -> Certified:
        """Make a certificate for a holder, with a new key. Raises NotCertified and OSError."""
        _check_holder(name)
        uris = _uris(roles, platforms)
        with self._changing() as signer:
            if any(each.name == name and each.is_good(now) for each in self._listed()):
                raise NotCertified(f"{name} has a certificate: 'renew' makes it last longer, 'revoke' ends it first")
            key = issuing.new_key()
            self.certificate_of(name).unlink(missing_ok=True)  # it is no pair with the new key
            write_whole(self.key_of(name), issuing.key_pem(key), _PRIVATE)
            names = [x509.UniformResourceIdentifier(uri) for uri in uris]
            certificate = signer.sign(name, key.public_key(), names, is_of_server=False, now=now, days=days)
            self._keep(certificate, self.certificate_of(name))
        return Certified(certificate=certificate, name=name, revoked=None, is_newest=True)

    def renew(self, name: str, hosts: Sequence[str], *, days: int, now: dt.datetime) -> Certified:
        """Make a certificate that lasts longer, for the same key. A server's may get other names.

        The one before counts until its end. Raises NotCertified and OSError.
        """
        with self._changing() as signer:
            last = next((each for each in self._listed() if each.name == name and each.is_newest), None)
            if last is None:
                raise NotCertified(f"{printable(name)} has no certificate: 'issue' makes one, 'list' shows all")
            if last.revoked:
                raise NotCertified(f"that of {name} is revoked, and its key stays so: 'issue' makes a new one")
            if hosts and not last.is_of_server:
                raise NotCertified(f"{name} is no server: --name is for the addresses of one")
            before = last.certificate
            names = [issuing.host_name(host) for host in hosts] or issuing.alternatives(before)
            common = hosts[0][:MAX_NAME] if hosts else issuing.common_name(before)
            key = before.public_key()
            certificate = signer.sign(common, key, names, is_of_server=last.is_of_server, now=now, days=days)  # type: ignore[arg-type]  # made above
            self._keep(certificate, self.certificate_of(name))
        return Certified(certificate=certificate, name=name, revoked=None, is_newest=True)

    def revoke(self, target: str, reason: x509.ReasonFlags, *, now: dt.datetime) -> list[Certified]:
        """Revoke all that a holder has, or one by its serial number. Raises NotCertified and OSError."""
        with self._changing() as signer:
            listed = self._listed()
            found = [each for each in listed if each.name == target]
            digits = target.replace(":", "")  # as OpenSSL writes them
            if not found and _SERIAL.fullmatch(digits):
                found = [each for each in listed if each.certificate.serial_number == int(digits, 16)]
            if not found:
                raise NotCertified(f"there is no certificate of {printable(target[:100])}: 'list' shows all")
            if any(each.is_of_server for each in found):
                raise NotCertified(
                    "clients do not ask whether the server's is revoked: if its key was seen, make a new authority"
                )
            found = [each for each in found if each.revoked is None and now <= each.until]
            if not found:
                raise NotCertified(f"all of {target} is revoked or expired already")
            crl = self._list()
            revoked = [
                Revocation(serial=each.certificate.serial_number, date=now, reason=reason) for each in reversed(found)
            ]
            number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
            self._write_list(signer, [*issuing.read_list(crl), *revoked], number + 1, now)
        return found

    def listed(self) -> list[Certified]:
        """Return all certificates, by their names, the newest of each first. Raises NotCertified and OSError."""
        with self._locked(shared=True):
            return self._listed()

    def list_ends(self) -> dt.datetime | None:
        """Return when the list of those that are revoked must be made anew. Raises NotCertified and OSError."""
        return self._list().next_update_utc

    def certificate_of(self, name: str) -> Path:
        """Return where the newest certificate of a holder is, or the server's."""
        return (self.directory if name == SERVER else self.directory / _HOLDERS) / f"{name}.pem"

    def key_of(self, name: str) -> Path:
        """Return where a holder's key is, unless it was moved to its holder."""
        return self.certificate_of(name).with_suffix(".key")

    @contextmanager
    def _changing(self) -> Iterator[Issuer]:
        """Have the authority's key in a block, and nobody else change anything."""
        check_owner(self.directory, NotCertified)
        with self._locked():
            try:
                data = self.key.read_bytes()
            except FileNotFoundError as error:
                raise NotCertified(f"the key of the authority is not at {self.key}: name it with --ca-key") from error
            try:
                signer = Issuer.load(self.certificate, data)
            except (ValueError, TypeError) as error:
                raise NotCertified(f"{self.key}: it is not the key of the authority in {self.directory}") from error
            yield signer

    @contextmanager
    def _locked(self, *, shared: bool = False) -> Iterator[None]:
        """Keep others from changing anything in a block. Raises NotCertified.

        Whoever can open a directory can lock it: this one is closed to others, who could keep a certificate from being revoked.
        """
        try:
            descriptor = lock_directory(self.directory / _ISSUED, shared=shared, wait=True)
        except FileNotFoundError as error:
            raise NotCertified(f"{self.directory / _ISSUED} is missing: bring it back from a backup") from error
        assert descriptor is not None, "it was waited for, as long as a few files take"
        try:
            yield
        finally:
            os.close(descriptor)

    def _listed(self) -> list[Certified]:
        revoked = {each.serial: each for each in issuing.read_list(self._list())}
        found: dict[str, list[Certified]] = {}
        for certificate in reversed(self._issued()):
            name = SERVER if issuing.is_of_server(certificate) else issuing.common_name(certificate)
            of_holder = found.setdefault(name, [])
            of_holder.append(
                Certified(
                    certificate=certificate,
                    name=name,
                    revoked=revoked.get(certificate.serial_number),
                    is_newest=not of_holder,
                )
            )
        return [each for name in sorted(found, key=lambda name: (name != SERVER, name)) for each in found[name]]

    def _issued(self) -> list[x509.Certificate]:
        """Return all certificates in the order in which they were made."""
        found = []
        for path in (self.directory / _ISSUED).glob("*.pem"):
            try:
                certificate = x509.load_pem_x509_certificate(path.read_bytes())
            except ValueError as error:
                raise NotCertified(f"{path} is damaged: bring it back from a backup") from error
            found.append(
                (certificate.not_valid_before_utc, path.stat().st_mtime_ns, certificate.serial_number, certificate)
            )
        return [certificate for *_, certificate in sorted(found, key=lambda each: each[:3])]

    def _list(self) -> x509.CertificateRevocationList:
        path = self.directory / CRL
        try:
            crl = x509.load_pem_x509_crl(path.read_bytes())
            issuing.check_signed(crl, self.certificate)
        except FileNotFoundError as error:
            raise NotCertified(f"{path} is missing, and says who is revoked: bring it back from a backup") from error
        except Mismatch as error:
            raise NotCertified(f"{path}: {error}") from error
        except ValueError as error:
            raise NotCertified(f"{path} is damaged: bring it back from a backup") from error
        return crl

    def _write_list(self, signer: Issuer, revoked: Sequence[Revocation], number: int, now: dt.datetime) -> None:
        write_whole(self.directory / CRL, issuing.pem(signer.sign_list(revoked, number, now)), _PUBLIC)

    def _keep(self, certificate: x509.Certificate, path: Path) -> None:
        """Write down a certificate, then hand it out: whoever has one can be revoked."""
        serial = issuing.serial_text(certificate.serial_number)
        write_whole(self.directory / _ISSUED / f"{serial}.pem", issuing.pem(certificate), _PUBLIC)
        write_whole(path, issuing.pem(certificate), _PUBLIC)


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Have a directory to oneself in a block. Raises NotCertified where others have it, who may be anybody."""
    descriptor = lock_directory(directory)
    if descriptor is None:
        raise NotCertified(f"another program has {directory} locked: try again when it has ended")
    try:
        yield
    finally:
        os.close(descriptor)


def _check_holder(name: str) -> None:
    """See that a name can be a holder's, in a certificate, in a log and of a file. Raises NotCertified."""
    shown = printable(name[:MAX_NAME])
    if name == SERVER:
        raise NotCertified(f"the name {SERVER} is the server's: 'renew {SERVER}' makes a new certificate for it")
    if not _NAME.fullmatch(name):
        raise NotCertified(
            f"{shown!r} can't be a name: it has letters, digits and . _ @ + - and begins with one of the first two"
        )
    if len(name) > MAX_NAME:
        raise NotCertified(f"the name {shown}... is too long: it may have {MAX_NAME} characters")


def _uris(roles: Sequence[HolderRole], platforms: Sequence[str]) -> list[str]:
    """Return how a certificate says what its holder may do. Raises NotCertified."""
    if not roles:
        raise NotCertified("say what the holder may do: --role worker, operator or observer")
    if platforms and HolderRole.WORKER not in roles:
        raise NotCertified("--platform is for workers: it needs --role worker")
    for platform in platforms:
        try:
            check_name(platform, what="platform")
        except InvalidName as error:
            raise NotCertified(str(error)) from error
    found = [role.uri for role in dict.fromkeys(roles) if not (platforms and role is HolderRole.WORKER)]
    return [*found, *map(worker_uri, dict.fromkeys(platforms))]
