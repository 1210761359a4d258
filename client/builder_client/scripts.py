"""Scripts as they are read from files, before they are sent."""

from typing import BinaryIO

from builder.errors import BuilderError
from builder.messages import MAX_SCRIPT, MIB


class ScriptTooLarge(BuilderError):
    """A script of more bytes than a server takes."""

    exit_code = 2


class ScriptEmpty(BuilderError):
    """A script of no bytes, such as of a program that failed to make one: a job of it would always succeed."""

    exit_code = 2


def read_script(file: BinaryIO) -> bytes:
    """Return the script in a file. Raises ScriptTooLarge and ScriptEmpty."""
    content = file.read(MAX_SCRIPT + 1)
    if len(content) > MAX_SCRIPT:
        raise ScriptTooLarge(f"the script has more than {MAX_SCRIPT // MIB} MiB; let it fetch what it needs")
    if not content:
        raise ScriptEmpty("the script is empty")
    return content
