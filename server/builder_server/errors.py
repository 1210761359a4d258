"""What the server's parts refuse."""

import contextlib
from collections.abc import Iterator

from builder.errors import BuilderError, InvalidName, InvalidOptions


class CommandRefused(BuilderError):
    """What a peer asked for can't be done; the text is the failure reply."""


@contextlib.contextmanager
def about_job(name: str) -> Iterator[None]:
    """Have what is refused in a block name the job, where a request is about many."""
    try:
        yield
    except (CommandRefused, InvalidName, InvalidOptions) as error:
        raise CommandRefused(f"job {name}: {error}") from error


class Elsewhere(BuilderError):
    """Another server asks for what this one has no more. It is not answered, and looks again where that is."""
