"""Old builds are removed once a day, by the operator's policy."""

import logging
from collections.abc import Callable
from functools import partial

import trio

from builder.model import Instant
from builder.runtime.database import StoreError
from builder_web import removing
from builder_web.directory import DataDirectory
from builder_web.store import removal
from builder_web.store.removal import Policy
from builder_web.store.store import Store

log = logging.getLogger(__name__)

DAY = 24 * 3600.0
"""Seconds; the first time is at the start."""


async def vacuum_daily(store: Store, directory: DataDirectory, policy: Policy, now: Callable[[], Instant]) -> None:
    """Remove what a policy does not keep, until cancelled."""
    while True:
        try:
            count = await vacuum(store, directory, policy, now())
        except (StoreError, OSError) as error:
            log.error("old builds can't be removed, trying again in a day: %s", error)
        else:
            log.info("removed %d builds that --vacuum does not keep", count)
        await trio.sleep(DAY)


async def vacuum(store: Store, directory: DataDirectory, policy: Policy, now: Instant) -> int:
    """Remove what a policy does not keep, and return how many builds that were. Raises StoreError and OSError."""
    gone = await store.ask(removal.beyond, policy, now)
    for part in removing.parts(gone):
        await store.database.write(partial(removal.remove, gone=part))
        await store.database.write(partial(removing.remove_files, directory=directory))
    return len(gone)
