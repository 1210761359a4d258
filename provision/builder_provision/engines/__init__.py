"""What starts workers: one small interface, and a module for each kind of engine.

An engine knows its workers by what it was told of each: so it finds them again after a restart of this program.
"""

import shlex
from collections.abc import Sequence
from typing import Protocol

from attrs import frozen

from builder.needs import QUANTITIES, TRUTHS, Need
from builder_provision.fleet import Asked, Ticket

TIMEOUT = 60.0
"""Seconds in which an engine answers."""


@frozen(kw_only=True)
class Launch:
    """How a worker is started: ``words`` are its command line.

    ``options`` are the operator's own for the engine, ``features`` what the engine is to look for, and ``pod`` is the template
    of a pod.
    """

    ticket: Ticket
    words: tuple[str, ...]
    options: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    pod: dict[str, object] | None = None

    @property
    def line(self) -> str:
        """The command line as a shell reads it."""
        return shlex.join(self.words)


class Engine(Protocol):
    """Starts workers. Each method raises EngineFailed, and takes TIMEOUT seconds at most."""

    async def ask(self, launch: Launch) -> str:
        """Ask for a worker, and return what the engine calls it, if that is another name than its own."""

    async def list(self, known: Sequence[Ticket]) -> list[Asked]:
        """Return the workers that were asked for and are not gone. ``known`` is what is remembered of them here."""

    async def remove(self, asked: Asked, *, may_have_begun: bool) -> None:
        """Give a worker up, as far as the engine can tell only if it has not started; with ``may_have_begun`` in any case."""


def labels(needs: Sequence[Need]) -> list[str]:
    """Return the labels that a worker is given since it was asked for with these needs: it can't find those out itself."""
    return [
        need.name for need in needs if need.value is None and need.name not in QUANTITIES and need.name not in TRUTHS
    ]
