"""Why something failed, in the words of whoever met it first."""

import os

from builder.errors import BuilderError


def reason_of(error: BaseException) -> str:
    """Return what is to be said of an error: of several the last one, of a chain of causes the first.

    What was being handled when an error was raised counts as its cause if the error says nothing itself. Ours are made
    to be read, so that no cause of theirs is asked for.
    """
    while not isinstance(error, BuilderError) and (deeper := _cause(error)) is not None:
        error = deeper
    if isinstance(error, OSError):
        return _of_system(error)
    return str(error) or type(error).__name__


def _cause(error: BaseException) -> BaseException | None:
    if isinstance(error, BaseExceptionGroup):
        last: BaseException = error.exceptions[-1]
        return last
    if error.__cause__ is not None:
        return error.__cause__
    if error.args and isinstance(error.args[0], Exception):  # httpcore's, which takes the cause away again
        return error.args[0]
    # an error that another one interrupted, or a cancellation, is no reason: it was raised for something else
    if str(error) or error.__suppress_context__ or not isinstance(error.__context__, Exception):
        return None
    return error.__context__


def _of_system(error: OSError) -> str:
    if hasattr(error, "library"):  # an SSLError: its number is no errno
        return _of_tls(error)
    if error.errno and error.errno > 0:  # those of name look-ups are negative
        return os.strerror(error.errno)
    return error.strerror or str(error) or type(error).__name__


def _of_tls(error: OSError) -> str:
    if message := getattr(error, "verify_message", None):
        return f"certificate verify failed: {message.rstrip('.')}"
    code: str | None = getattr(error, "reason", None)
    return f"TLS: {code.replace('_', ' ').lower() if code else error.strerror or error}"
