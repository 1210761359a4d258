"""Who may do what: the roles that a certificate gives its holder, and how they are written in it.

A certificate says them in its subjectAltName, as URIs: ``urn:builder:operator``, ``urn:builder:observer``, ``urn:builder:provisioner``,
``urn:builder:worker`` for a worker of any platform, ``urn:builder:worker:PLATFORM`` for one of that platform, with the
name percent-encoded. The holder is called by the common name.
"""

import datetime as dt
import enum
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

from attrs import frozen

from builder.errors import BuilderError
from builder.model import Instant, raw, text

_PREFIX = "urn:builder:"

_TIME = "%b %d %H:%M:%S %Y GMT"
"""How OpenSSL writes the end of a certificate's validity."""


class InvalidCertificate(BuilderError):
    """A certificate that does not say who its holder is."""


class HolderRole(enum.Enum):
    """What the holder of a certificate may do. What a peer *is* stands in its hello: ``messages.Role``."""

    WORKER = "worker"
    OPERATOR = "operator"
    """Everything that a client asks for."""

    OBSERVER = "observer"
    """What changes nothing."""

    PROVISIONER = "provisioner"
    """The same, and telling what was asked of an engine."""

    @property
    def uri(self) -> str:
        """How a certificate says it."""
        return f"{_PREFIX}{self.value}"


_WITHIN: Mapping[HolderRole, tuple[HolderRole, ...]] = {
    HolderRole.OPERATOR: (HolderRole.OBSERVER, HolderRole.PROVISIONER),
    HolderRole.PROVISIONER: (HolderRole.OBSERVER,),
}


def worker_uri(platform: str) -> str:
    """Return how a certificate says that its holder may be a worker of one platform."""
    return f"{HolderRole.WORKER.uri}:{quote_from_bytes(raw(platform), safe='')}"


@frozen(kw_only=True)
class Identity:
    """The holder of a certificate: its name, and what it may do until ``expires``.

    ``platforms`` are those of which it may be a worker; None stands for any.
    """

    name: str
    roles: frozenset[HolderRole]
    platforms: frozenset[str] | None
    serial: int
    expires: Instant

    @classmethod
    def of(cls, certificate: Mapping[str, Any]) -> "Identity":
        """Return who holds a certificate, as ``SSLSocket.getpeercert`` tells of one that was checked.

        URIs that mean nothing here give nothing. Raises InvalidCertificate.
        """
        names = [value for part in certificate["subject"] for key, value in part if key == "commonName"]
        if not names:
            raise InvalidCertificate("the certificate names nobody: its subject has no common name")
        uris = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
        platforms = _platforms(uris)
        roles = {role for role in HolderRole if role.uri in uris} | ({HolderRole.WORKER} if platforms else set())
        expires = dt.datetime.strptime(certificate["notAfter"], _TIME).replace(tzinfo=dt.UTC)
        return cls(
            name=names[-1],
            roles=frozenset(roles),
            platforms=None if HolderRole.WORKER.uri in uris else platforms,
            serial=int(certificate["serialNumber"], 16),
            expires=Instant.from_datetime(expires),
        )

    def may_be(self, role: HolderRole) -> bool:
        """Return whether it has a role, or another one that has all of its rights."""
        return role in self.roles or any(role in _WITHIN.get(each, ()) for each in self.roles)

    def may_work_for(self, platform: str) -> bool:
        """Return whether it may be a worker of a platform."""
        return self.may_be(HolderRole.WORKER) and (self.platforms is None or platform in self.platforms)


def _platforms(uris: Iterable[str]) -> frozenset[str]:
    prefix = f"{HolderRole.WORKER.uri}:"
    return frozenset(text(unquote_to_bytes(uri.removeprefix(prefix))) for uri in uris if uri.startswith(prefix))
