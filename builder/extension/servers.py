"""Messages about the servers of a farm, tags 220 to 222, and what one server says to another."""

from typing import ClassVar

from attrs import field, frozen

from builder.extension import Reply, Request
from builder.messages import MIB, message
from builder.model import Instant
from builder.roles import HolderRole


@message
@frozen(kw_only=True)
class Relay(Request):
    """Have what follows on this connection answered as if a client of another server had asked for it here.

    ``token`` is what the database has of the server that is asked: it shows that who asks works on that, too. ``server`` is
    the one that asks; ``holder`` and ``address`` are how it calls its client, which may do there what ``role`` may.
    """

    tag: ClassVar[int] = 220
    token: str = field(repr=False)
    server: str
    holder: str
    address: str
    role: HolderRole


@message
@frozen(kw_only=True)
class ListServers(Request):
    """Ask which servers work on the database."""

    tag: ClassVar[int] = 221


@frozen(kw_only=True)
class ServerEntry:
    """A server: where others reach it, the release of its program, since when it works, and when it was ``heard`` last.

    ``heard`` is None where there can be no other. It has so many ``workers``, and so many builds ``run`` there, of which some
    may be without a worker. All times are the database's.
    """

    numbered: ClassVar[bool] = True
    name: str
    release: str
    since: Instant
    is_alive: bool
    keeps_schedule: bool
    is_drained: bool
    workers: int
    run: int
    address: str | None = None
    heard: Instant | None = None


@message
@frozen(kw_only=True)
class ServersListed(Reply):
    """The servers by their names; ``here`` is the one that answers, ``now`` the clock of their database."""

    tag: ClassVar[int] = 222
    max_size: ClassVar[int] = MIB
    now: Instant
    here: str
    servers: tuple[ServerEntry, ...] = ()
