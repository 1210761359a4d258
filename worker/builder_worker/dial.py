"""How a connection of a worker begins: in our own protocol, or in the classic one."""

from builder import codec
from builder.extension import VERSION, Welcome
from builder.extension.worker import WORKERS
from builder.messages import WORKER_VERSION, Hello, Role, ServerHello
from builder.runtime.channel import Channel
from builder.runtime.dialling import Dialling

OURS, CLASSIC = Hello(role=Role.WORKER, version=VERSION), Hello(role=Role.WORKER, version=WORKER_VERSION)


def load() -> None:
    """Load what the first message would have to wait for."""
    codec.encode(OURS)


class Dial(Dialling):
    """The way of a worker to a server."""

    async def ours(self) -> Channel:
        """Return a connection that speaks our own protocol. Raises NotConnected and NotGreeted."""
        return await self.greeted(OURS, Welcome, WORKERS)

    async def classic(self) -> Channel:
        """Return a connection that speaks the classic protocol. Raises NotConnected and NotGreeted."""
        return await self.greeted(CLASSIC, ServerHello, WORKERS)
