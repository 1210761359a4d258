"""The reply to info, which is made once for as long as nothing changes: people, and programs, ask again and again."""

import trio
from attrs import define, field

from builder import codec
from builder.framing import frame
from builder.messages import InfoReply
from builder_server.aside import SMALL, Aside
from builder_server.memory import Memory, SharingChannel
from builder_server.shared import Shared
from builder_server.store import Store


@define(eq=False)
class Informer:
    """Sends replies to info."""

    _store: Store
    _memory: Memory
    _shared: Shared[None] = field(init=False)

    @_shared.default
    def _share(self) -> Shared[None]:
        return Shared(lambda: self._store.version, self._make)

    async def send(self, channel: SharingChannel) -> None:
        """Send how things stand. Raises StoreError, CommandRefused, one of CONNECTION_ERRORS, and Crowded."""
        async with self._shared.reply(None) as aside:
            await channel.send_aside(InfoReply, aside)

    async def _make(self, _: None) -> Aside:
        size, reply = await self._store.info_within(SMALL)
        # threads, since the schedule of a large farm takes seconds
        if reply is not None:
            return await self._memory.replies.put(await trio.to_thread.run_sync(_framed, reply))
        grant = await self._memory.grant(size)
        try:
            return await self._memory.replies.put(await trio.to_thread.run_sync(_framed, await self._store.info()))
        finally:
            self._memory.give_back(grant)


def _framed(reply: InfoReply) -> bytes:
    return frame(codec.encode(reply))
