"""The reply to info, which is made once for as long as nothing changes: people, and programs, ask again and again."""

import trio
from attrs import define

from builder import codec
from builder.framing import frame
from builder.messages import InfoReply
from builder_server.memory import SMALL, SharingChannel
from builder_server.store import Store


@define(eq=False)
class Informer:
    """Sends replies to info. It keeps the last one, if that is small."""

    _store: Store
    _version: int = -1
    _kept: bytes = b""

    async def send(self, channel: SharingChannel) -> None:
        """Send how things stand. Raises StoreError, one of CONNECTION_ERRORS, and Crowded."""
        # taken before reading: what is read may be newer, and is then thrown away too early, but never kept too long
        version = self._store.version
        if version == self._version:
            await channel.send_bytes(InfoReply, self._kept)
            return
        size, reply = await self._store.info_within(SMALL)
        if reply is None:
            await channel.send_large(InfoReply, size, self._make)
        else:
            self._kept, self._version = await trio.to_thread.run_sync(_framed, reply), version
            await channel.send_bytes(InfoReply, self._kept)

    async def _make(self) -> bytes:
        # in a thread, since the schedule of a large farm takes seconds
        return await trio.to_thread.run_sync(_framed, await self._store.info())


def _framed(reply: InfoReply) -> bytes:
    return frame(codec.encode(reply))
