"""TLS as clients and workers meet it: with whom they speak it, and what is to be done where that goes wrong.

There is no trio here, since the client does without; whoever speaks no TLS does not import this.
"""

import ssl
from pathlib import Path

from builder.address import TcpAddress
from builder.endpoint import Endpoint
from builder.reasons import reason_of
from builder.runtime.tls import TlsFiles

TlsError = ssl.SSLError

NO_TLS = "it speaks no TLS: leave --tls-ca, --tls-cert and --tls-key out, or name the address at which it does"
"""What is said where a server ends a connection because of a handshake."""

_OTHER_SERVER = "the server's certificate is of another authority: --tls-ca names that of the server"
_OTHER_HOLDER = "this certificate is of another authority: --tls-cert names one that this server's has made"

_OURS = {  # what this side finds wrong, by OpenSSL's number of it
    7: _OTHER_SERVER,
    9: "the server's certificate is not valid yet: set the clocks of both machines",
    10: "the server's certificate has expired: 'builder-server certificates renew server' makes a new one there",
    18: "the server's certificate is of no authority: --tls-ca names that of the server",
    19: _OTHER_SERVER,
    20: _OTHER_SERVER,
    21: _OTHER_SERVER,
    26: "the certificate is no server's: is it a builder-server?",
}

_OTHER_NAMES = (
    "the server's certificate has other names than {}: --tls-name says which of them is meant, and 'builder-server "
    "certificates renew server --name' there gives it others"
)
_NAME, _ADDRESS = 62, 64  # OpenSSL's numbers of a name that does not fit, and of an address

_THEIRS = {  # what the server finds wrong with this side, by the alert that it sends
    "CERTIFICATE_EXPIRED": "this certificate has expired: 'builder-server certificates renew' makes a new one there",
    "CERTIFICATE_REVOKED": "this certificate is revoked: 'builder-server certificates issue' makes a new one there",
    "UNKNOWN_CA": _OTHER_HOLDER,
    "DECRYPT_ERROR": _OTHER_HOLDER,  # of one that is called the same
    "CERTIFICATE_REQUIRED": "a certificate is wanted: give --tls-cert and --tls-key",
    "BAD_CERTIFICATE": "this certificate is not taken: its log says why",
    "UNSUPPORTED_CERTIFICATE": "this certificate is not for clients: --tls-cert names a holder's, no server's",
    "CERTIFICATE_UNKNOWN": "this certificate is not taken: its log says why",
}


def context_of(server: Endpoint) -> tuple[ssl.SSLContext, str]:
    """Return how TLS is spoken with a server, and the name that its certificate must have. Raises InvalidCredentials.

    The files are read, so that what was renewed counts for the next connection.
    """
    tls = server.tls
    assert tls is not None, "it was looked at"
    assert isinstance(server.address, TcpAddress), "others have no TLS"
    files = TlsFiles(ca=Path(tls.ca), certificate=Path(tls.certificate), key=Path(tls.key))
    return files.peer_context(), tls.name or server.address.host.partition("%")[0]


def refusal(error: BaseException) -> str | None:
    """Return what the server says of this side's certificate, and what to do, if it is that."""
    reason = str(getattr(error, "reason", None) or "")
    _, _, alert = reason.rpartition("ALERT_")
    return _THEIRS.get(alert) if alert != reason else None


def why(error: OSError | ValueError) -> str:
    """Return why TLS did not come about, and what to do, as far as that is known.

    A ValueError that is no OSError is of what can't be a name.
    """
    if not isinstance(error, OSError):
        return f"--tls-name: {error}"
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in (_NAME, _ADDRESS):
            return _OTHER_NAMES.format(error.verify_message.partition("not valid for ")[2].strip(".'") or "that")
        return _OURS.get(error.verify_code, reason_of(error))
    reason = getattr(error, "reason", None)
    if reason in _NOT_TLS or isinstance(error, ssl.SSLEOFError | ConnectionResetError | BrokenPipeError):
        return NO_TLS
    if reason in ("TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL"):
        return "it speaks another version of TLS than 1.3: is it a builder-server?"
    return refusal(error) or reason_of(error)


_NOT_TLS = frozenset(
    {"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_MESSAGE", "UNEXPECTED_EOF_WHILE_READING"}
)
