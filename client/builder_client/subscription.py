"""A server's changes as they come, through breaks of the connection."""

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from builder.extension.watching import Changed, LookAgain, Watch
from builder.model import printable

from .breaks import pauses
from .errors import TooOld, Unreachable
from .output import JsonObject, Printer, json_text, note

if TYPE_CHECKING:
    from .remote import Remote


def _nothing() -> None:
    pass


def changes(
    remote: "Remote",
    *,
    on_break: Callable[[str], None],
    on_wait: Callable[[], None] = _nothing,
    looks: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Changed | LookAgain]:
    """Yield changes for ever. ``on_break`` is told why there are none for a while.

    After a break they go on where they broke off; who ``looks`` begins anew then, with a LookAgain at once.
    Raises Unreachable where not even the first connection is made, and TooOld.
    """
    since: int | None = None
    has_begun = False
    waits = pauses()
    while True:
        trouble = f"{remote} closed the connection"
        try:
            for message in remote.stream(Watch(since=since), what="watching", on_wait=on_wait, is_endless=True):
                if isinstance(message, Changed | LookAgain):
                    has_begun = True
                    since = None if looks else message.point
                    waits = pauses()
                    yield message
        except (Unreachable, TooOld) as error:  # a server that stops, and its successor, look like a classic one
            if not has_begun:
                raise
            trouble = str(error)
        wait = next(waits)
        on_break(f"{trouble}; trying again in {wait:g} s")
        sleep(wait)


def change_json(change: Changed | LookAgain) -> JsonObject:
    """Return a change as ``watch --json`` prints it."""
    if isinstance(change, LookAgain):
        return {"type": "look-again"}
    return {
        "type": change.what.value,
        "job": None if change.job is None else json_text(change.job),
        "platform": None if change.platform is None else json_text(change.platform),
        "uuid": change.uuid and str(change.uuid),
        "outcome": change.outcome and change.outcome.value,
    }


def print_changes(remote: "Remote", printer: Printer) -> None:
    """Print all changes, an object a line."""
    for change in changes(remote, on_break=lambda why: note(printable(why)), on_wait=printer.flush):
        printer.json(change_json(change))
