"""Requests about the servers of a farm."""

from builder.extension.halting import SERVER, Scope, Target
from builder.extension.servers import ListServers, ServerEntry, ServersListed
from builder_server import crews
from builder_server.requests import Asked, Handlers
from builder_server.store.servers import LEASE


async def list_servers(asked: Asked, _request: ListServers) -> None:
    """Tell of all servers."""
    here = asked.store.owner
    running = await asked.store.count_owned()
    halts = asked.store.waking.halts
    known = await asked.farm.servers()
    servers = tuple(
        ServerEntry(
            name=each.name,
            release=each.version,
            since=each.started,
            is_alive=each.is_alive,
            keeps_schedule=each.keeps_schedule,
            is_drained=not halts.keys().isdisjoint((SERVER, Target(scope=Scope.SERVER, name=each.name))),
            workers=(asked.attempts.crew() if each.name == here else crews.of_text(each.crew)).number,
            run=running.get(each.name, 0),
            address=each.address,
            heard=each.expires and each.expires.plus(-LEASE),
        )
        for each in known
    )
    now = max((each.now for each in known), default=asked.now())  # whatever the clock of this server says
    await asked.channel.send(ServersListed(now=now, here=here, servers=servers))


HANDLERS: Handlers = {ListServers: list_servers}
