"""The reason of an error is what its first cause says, whatever a library makes of it on the way."""

import errno
import socket
import ssl

import pytest
import trio

from builder.errors import ProtocolError
from builder.reasons import reason_of


class LibraryError(Exception):
    """An error as libraries wrap others in."""


REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")


def caused(error: Exception, cause: Exception | None) -> Exception:
    error.__cause__ = cause
    return error


def meanwhile(error: Exception, context: BaseException) -> Exception:
    """Return an error that was raised while another was handled, without `from`."""
    error.__context__ = context
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (REFUSED, "Connection refused"),
        (caused(LibraryError("it failed"), REFUSED), "Connection refused"),
        (caused(LibraryError(), caused(trio.BrokenResourceError(), REFUSED)), "Connection refused"),
        (caused(OSError("all attempts failed"), ExceptionGroup("", [OSError("a"), REFUSED])), "Connection refused"),
        (ExceptionGroup("", [ExceptionGroup("", [caused(LibraryError(), REFUSED)])]), "Connection refused"),
        (meanwhile(LibraryError(), REFUSED), "Connection refused"),
        (meanwhile(LibraryError(), caused(LibraryError(), meanwhile(LibraryError(), REFUSED))), "Connection refused"),
        (LibraryError(caused(trio.BrokenResourceError(), REFUSED)), "Connection refused"),
        (meanwhile(LibraryError("its own words"), REFUSED), "its own words"),
        (meanwhile(OSError(errno.EPIPE, "x"), KeyError("a lookup")), "Broken pipe"),
        (meanwhile(LibraryError(), KeyboardInterrupt()), "LibraryError"),
        (caused(LibraryError(), None), "LibraryError"),
        (caused(ProtocolError("our own words"), REFUSED), "our own words"),
        (caused(LibraryError(), caused(ProtocolError("our own words"), REFUSED)), "our own words"),
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "Name or service not known"),
        (OSError("no results"), "no results"),
        (OSError(), "OSError"),
        (trio.TooSlowError(), "TooSlowError"),
        (ValueError("wrong"), "wrong"),
    ],
)
def test_the_reason(error: BaseException, reason: str) -> None:
    assert reason_of(error) == reason


def test_a_cause_that_was_hidden_stays_so() -> None:
    def hide() -> None:
        try:
            raise REFUSED
        except OSError:
            raise LibraryError from None

    with pytest.raises(LibraryError) as caught:
        hide()
    assert reason_of(caught.value) == "LibraryError"


def test_tls_is_told_in_words_and_not_by_its_numbers() -> None:
    client, server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client.write(b"HTTP/1.1 400 Bad Request\r\n")
    with pytest.raises(ssl.SSLError) as caught:
        ssl.create_default_context().wrap_bio(client, server, server_hostname="a").do_handshake()
    assert reason_of(caught.value) == "TLS: wrong version number"
