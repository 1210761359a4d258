"""How a program ends: one line on standard error and an exit status, never a traceback."""

import gc
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import click

from builder.errors import BuilderError, NobodyReads
from builder.model import printable

INTERRUPTED = 128 + signal.SIGINT
"""Exit status after Ctrl-C, as a shell reports a program that the signal ended."""


_WORDS = {
    r"is not a valid integer( range)?$": "is no whole number",
    r"is not a valid integer( range)? \(": "is no whole number (",
    r"is not a valid float( range)?$": "is no number",
    r"is not a valid float( range)? \(": "is no number (",
    r"is not a valid boolean\.?( Recognized values: [^(]*[^( ])?": "is neither true nor false",
}
"""What click says of values that are no numbers, and what is said here."""


def run(command: click.Command, name: str) -> NoReturn:
    """Run a command with the arguments of this process and exit."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # see ``entry``
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        status = command.main(prog_name=name, standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except (NobodyReads, BrokenPipeError):
        status = NobodyReads.exit_code
    except click.exceptions.Abort:  # click's word for KeyboardInterrupt
        status = INTERRUPTED
    except KeyboardInterrupt:
        status = INTERRUPTED
    except click.ClickException as error:
        status = error.exit_code
        tell(name, _click_message(error))
    except BuilderError as error:
        status = error.exit_code
        tell(name, str(error))
    except OSError as error:  # a file, or standard output: what the network does is a BuilderError
        status = BuilderError.exit_code
        where = f"{printable(os.fsdecode(error.filename))}: " if isinstance(error.filename, str | bytes) else ""
        tell(name, f"{where}{error.strerror or error}")
    _leave(status if isinstance(status, int) else 0)


@contextmanager
def importing() -> Iterator[None]:
    """Mark a block that imports much: garbage is not looked for meanwhile, and never among what was imported.

    There is none, and looking takes a tenth of the time.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _leave(status: int) -> NoReturn:
    if status and sys.stdout is not None:
        # what could not be written must not be tried again, and complained about, while the interpreter ends
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(status)


def _click_message(error: click.ClickException) -> str:
    message = said(error)
    context = error.ctx if isinstance(error, click.UsageError) else None
    return f"{message} (see '{context.command_path} --help')" if context else message


def said(error: click.ClickException) -> str:
    """Return what is wrong with the use of a program, in words of people who use it."""
    message = error.format_message().rstrip(".")
    for theirs, ours in _WORDS.items():
        message = re.sub(theirs, ours, message)
    return message


def tell(name: str, message: str) -> None:
    """Say what went wrong, in one line whatever it quotes."""
    line = printable(" ".join(message.split()))
    print(f"{name}: {line}".encode("utf-8", "backslashreplace").decode(), file=sys.stderr)
