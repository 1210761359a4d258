"""What clients ask for in our own protocol, a module for each group of requests.

A handler answers a request: it sends the replies, and the session ends the answer with Success. What can't be done it raises
as CommandRefused or InvalidOptions, and then nothing has changed.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from attrs import frozen

from builder.messages import Kind
from builder.model import Instant
from builder_server.attempts import Attempts
from builder_server.attesting import Signer
from builder_server.errors import Elsewhere
from builder_server.farm import Farm
from builder_server.looks import Looks
from builder_server.memory import SharingChannel
from builder_server.permission import Peer
from builder_server.store import Store
from builder_server.upload import Uploader


@frozen(kw_only=True)
class Asked:
    """What a handler has besides the request. ``now`` is the wall clock.

    ``is_relayed``: another server asks for a client of its own, and wants to know what is here alone.
    """

    channel: SharingChannel
    client: Peer
    is_relayed: bool
    store: Store
    attempts: Attempts
    looks: Looks
    uploader: Uploader
    signer: Signer
    farm: Farm
    now: Callable[[], Instant]

    @property
    def peer(self) -> str:
        """What the client is called."""
        return str(self.client)

    def elsewhere(self, owner: str | None) -> str | None:
        """Return which other server is asked for what ``owner`` has; None: this one answers. Raises Elsewhere."""
        if self.store.is_mine(owner):
            return None
        if self.is_relayed:
            raise Elsewhere("it is with another server by now")
        return owner


Handler = Callable[[Asked, Any], Awaitable[None]]

Handlers = Mapping[Kind, Handler]
"""The handler of each request."""
