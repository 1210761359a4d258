"""The servers that work on one database, seen from one of them."""

import secrets

from attrs import frozen

from builder.extension.servers import Relay
from builder.model import raw
from builder_server import crews
from builder_server.attempts import Attempts
from builder_server.crew import Crew
from builder_server.permission import NotPermitted
from builder_server.store import ServerState, Store


@frozen(kw_only=True)
class Farm:
    """This server, and the others."""

    store: Store
    attempts: Attempts

    async def servers(self) -> tuple[ServerState, ...]:
        """Return all of them by their names. Raises StoreError."""
        return await self.store.servers()

    async def check(self, relay: Relay) -> None:
        """Raise NotPermitted unless another server of the farm asks. Raises StoreError."""
        here = next((each for each in await self.store.servers() if each.name == self.store.owner), None)
        if here is None or not secrets.compare_digest(raw(relay.token), raw(here.token)):
            raise NotPermitted("Relay needs the token of this server, which those that work on its database know")

    async def crew(self) -> Crew:
        """Return what the workers of all of them do, those of the others as far as they have told. Raises StoreError."""
        others = [each.crew for each in await self.store.servers() if each.is_alive and each.name != self.store.owner]
        return crews.together([self.attempts.crew(), *map(crews.of_text, others)])
