"""What sessions with workers and with clients have in common."""

from collections.abc import Awaitable, Callable

import trio

from builder.errors import ProtocolError
from builder.runtime.channel import Channel

STEP_TIMEOUT = 30.0
"""Seconds that a peer may take for each step in which it has nothing to wait for; a connection that is silent for
so long right after it was made is closed."""

IDLE_TIMEOUT = 300.0
"""Seconds that a client of the extension may think between two requests, as long as nobody needs its place."""

CONNECTION_ERRORS = (ProtocolError, trio.BrokenResourceError, trio.TooSlowError)
"""What a peer, or the network between, does wrong. It ends that connection and nothing else."""


async def while_connected(channel: Channel, action: Callable[[], Awaitable[None]]) -> None:
    """Do something; cancel it, and raise what happened, when the peer closes or sends anything."""
    errors: list[Exception] = []
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            try:
                await channel.wait_closed()
            except CONNECTION_ERRORS as error:
                errors.append(error)
            nursery.cancel_scope.cancel()

        nursery.start_soon(watch)
        try:
            await action()
        except Exception as error:  # noqa: BLE001 - raised below, outside of the nursery's exception group
            errors.insert(0, error)
        nursery.cancel_scope.cancel()
    if errors:
        raise errors[0]
