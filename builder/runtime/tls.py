"""TLS between programs of ours: version 1.3 alone, with a certificate on each side.

That version has neither renegotiation nor compression. Sessions are not resumed either: so each connection shows its
certificate, and none is let in by what was true before. There is no trio here, since the client does without.
"""

import ssl
from pathlib import Path
from typing import NoReturn

from attrs import frozen

from builder.errors import BuilderError
from builder.reasons import reason_of
from builder.runtime.secrecy import exposure


class InvalidCredentials(BuilderError):
    """A certificate, a key or an authority that can't be used; the text names the file."""

    exit_code = 3


@frozen(kw_only=True)
class TlsFiles:
    """The files of one side, in PEM: its certificate with what leads to its authority, its key, and the authorities that
    the other side's certificate must be of.
    """

    certificate: Path
    key: Path
    ca: Path

    def server_context(self) -> ssl.SSLContext:
        """Return how a server speaks TLS: with clients that show a certificate. Raises InvalidCredentials."""
        context = self._context(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        context.num_tickets = 0
        return context

    def peer_context(self) -> ssl.SSLContext:
        """Return how a client or a worker does: with a server of the name that it asks for. Raises InvalidCredentials."""
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def _context(self, protocol: int) -> ssl.SSLContext:
        for path in (self.certificate, self.key, self.ca):
            try:
                path.read_bytes()
                if path == self.key and (what_to_do := exposure(path)):
                    raise InvalidCredentials(what_to_do)
            except OSError as error:  # ssl's own does not say of which file
                raise InvalidCredentials(f"can't read {path}: {reason_of(error)}") from error
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        try:
            context.load_cert_chain(self.certificate, self.key, self._refuse_password)
        except (ssl.SSLError, OSError, ValueError) as error:
            raise InvalidCredentials(f"{self.certificate} and {self.key}: {_told(error)}") from error
        try:
            context.load_verify_locations(self.ca)
        except (ssl.SSLError, OSError, ValueError) as error:
            raise InvalidCredentials(f"{self.ca}: {_told(error)}") from error
        return context

    def _refuse_password(self) -> NoReturn:
        raise InvalidCredentials(f"{self.key} is encrypted: nobody is there to give its password")


def _told(error: Exception) -> str:
    match getattr(error, "reason", None):
        case "KEY_VALUES_MISMATCH":
            return "the key is not that of the certificate"
        case "NO_CERTIFICATE_OR_CRL_FOUND" | "NO_START_LINE":
            return "there is no certificate in it"
        case None if "PEM" in str(error):  # that a file has something else in it has no code
            return "there is no certificate in the one, or no key in the other"
        case _:
            return reason_of(error)
