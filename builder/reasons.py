"""Why something failed, in the words of whoever met it first."""

import os


def reason_of(error: BaseException) -> str:
    """Return what is to be said of an error: of several the last one, of a chain of causes the first."""
    while True:
        if isinstance(error, BaseExceptionGroup):
            error = error.exceptions[-1]
        elif error.__cause__ is not None:
            error = error.__cause__
        else:
            break
    if isinstance(error, OSError):
        if error.errno and error.errno > 0:  # those of name look-ups are negative
            return os.strerror(error.errno)
        if error.strerror:
            return error.strerror
    return str(error) or type(error).__name__
