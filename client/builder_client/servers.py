"""The servers of a farm, as rows, lines and JSON."""

from typing import TYPE_CHECKING

from builder.extension.servers import ListServers, ServerEntry, ServersListed
from builder.model import Instant, printable

from . import words
from .errors import TooOld, Unreachable
from .fitting import Column
from .output import JsonObject, json_text

if TYPE_CHECKING:
    from .remote import Remote

COLUMNS = (
    Column("SERVER"),
    Column("STATE"),
    Column("SEEN", rigid=True, spare=1),
    Column("WORKERS", rigid=True),
    Column("BUILDS", rigid=True),
    Column("UP", rigid=True, spare=2),
    Column("VERSION", rigid=True, spare=3),
    Column("ADDRESS", spare=4),
)
"""The table of servers."""


def listed(remote: "Remote") -> ServersListed:
    """Return the servers by their names. Raises TooOld."""
    (reply,) = remote.request(ListServers(), what="list of servers")
    assert isinstance(reply, ServersListed), "the order of messages sees to it"
    return reply


def by_the_way(remote: "Remote") -> ServersListed | None:
    """Return the same; None where it is not told. Whoever asks does not need it, and is told no error."""
    try:
        return listed(remote)
    except (TooOld, Unreachable):
        return None


# --- words ---------------------------------------------------------------------------------------------------------


def row(entry: ServerEntry, now: Instant) -> tuple[str, ...]:
    """Return the row of a server."""
    return (
        printable(entry.name),
        _state(entry),
        f"{words.duration(now.ms - entry.heard.ms)} ago" if entry.heard else "always",
        str(entry.workers),
        str(entry.run),
        words.duration(now.ms - entry.since.ms) if entry.is_alive else "",
        printable(entry.release),
        printable(entry.address or ""),
    )


def _state(entry: ServerEntry) -> str:
    said = ["works" if entry.is_alive else "gone"]
    if entry.is_drained:
        said.append("drained")
    if entry.keeps_schedule:
        said.append("keeps the schedule")
    return ", ".join(said)


def sentence(found: ServersListed) -> str:
    """Return which servers there are, where there are several; else nothing."""
    if len(found.servers) < 2:
        return ""
    gone = [printable(each.name) for each in found.servers if not each.is_alive]
    names = ", ".join(f"{printable(each.name)}{' (this one)' * (each.name == found.here)}" for each in found.servers)
    return f"Servers: {names}" + (f"; gone: {', '.join(gone)}" if gone else "")


def differing(found: ServersListed) -> str:
    """Return that servers are of different releases; empty if they are not."""
    releases = sorted({printable(each.release) for each in found.servers if each.is_alive})
    return f"The servers run different versions: {', '.join(releases)}" if len(releases) > 1 else ""


def unreachable(found: ServersListed) -> str:
    """Return which servers the others can't reach, since they have told no address; empty if there is none."""
    alive = [each for each in found.servers if each.is_alive]
    names = ", ".join(printable(each.name) for each in alive if not each.address)
    return f"Without --advertise the others can't reach: {names}" if names and len(alive) > 1 else ""


def json(entry: ServerEntry, found: ServersListed) -> JsonObject:
    """Return a server."""
    return {
        "server": json_text(entry.name),
        "address": entry.address and json_text(entry.address),
        "version": json_text(entry.release),
        "since": entry.since.isoformat(),
        "heard": entry.heard and entry.heard.isoformat(),
        "alive": entry.is_alive,
        "keeps_schedule": entry.keeps_schedule,
        "drained": entry.is_drained,
        "workers": entry.workers,
        "running": entry.run,
        "here": entry.name == found.here,
    }
