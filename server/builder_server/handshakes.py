"""Why a handshake of TLS came to nothing, as it is told to the server's operator. What OpenSSL says is meant for programmers."""

import ssl

from builder.reasons import reason_of

_THEIRS = "it does not take this server's certificate"

_OTHER = f"{_THEIRS}: its --tls-ca is of another authority"

_ALERTS = {
    "UNKNOWN_CA": _OTHER,
    "DECRYPT_ERROR": _OTHER,  # of one that is called the same
    "BAD_CERTIFICATE": f"{_THEIRS}: it calls this server by a name that is not in it",
    "CERTIFICATE_EXPIRED": f"{_THEIRS}: it has expired, by its clock",
    "CERTIFICATE_UNKNOWN": _THEIRS,
    "UNSUPPORTED_CERTIFICATE": f"{_THEIRS}: that is none of a server",
    "PROTOCOL_VERSION": "it speaks no TLS 1.3",
}
"""What the other side found wrong, by the alert that it sent."""

_REASONS = {
    "WRONG_VERSION_NUMBER": "it speaks no TLS",
    "RECORD_LAYER_FAILURE": "it speaks no TLS",
    "HTTP_REQUEST": "it speaks HTTP, and no TLS",
    "HTTPS_PROXY_REQUEST": "it speaks HTTP, and no TLS",
    "UNSUPPORTED_PROTOCOL": "it speaks no TLS 1.3",
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "it shows no certificate",
    "UNEXPECTED_EOF_WHILE_READING": "it has closed the connection within the handshake",
}
"""What this side found wrong."""


def why(error: BaseException) -> str:
    """Return why somebody was not let in."""
    while not isinstance(error, ssl.SSLError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, ssl.SSLEOFError):
        return _REASONS["UNEXPECTED_EOF_WHILE_READING"]
    reason = getattr(error, "reason", None) if isinstance(error, ssl.SSLError) else None
    if not isinstance(reason, str):
        return reason_of(error)
    _, _, alert = reason.rpartition("ALERT_")
    return _REASONS.get(reason) or (_ALERTS.get(alert) if alert != reason else None) or reason_of(error)
