"""Uploads what is pending below a folder, and may die before or after a step of the disk.

    python dying_uploader.py URL...

Each line on standard input is ``STEP FOLDER``: a process of its own uploads until nothing is left, or dies at that step; 0
is none. A line of JSON on standard output says what it died at, or nothing.
"""

import itertools
import json
import os
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import trio

from builder.model import Instant
from builder_server.receiver import receivers_at
from builder_server.store import Store, schema
from builder_server.upload import Uploader, UploadTiming

HOUR = 3_600_000


def die_at(step: int, told: int) -> None:
    """Have this process die at a step, and write what that is to a descriptor."""
    steps = itertools.count(1)
    write, unlink = Store._write, Path.unlink

    def see(what: str) -> None:
        if next(steps) == step:
            os.write(told, what.encode())
            os._exit(9)

    async def seen_write(self: Store, action: Any, **options: Any) -> Any:
        see(f"before {action.func.__name__}")
        value = await write(self, action, **options)
        see(f"after {action.func.__name__}")
        return value

    def seen_unlink(self: Path, *, missing_ok: bool = False) -> None:
        see("before unlink")
        unlink(self, missing_ok=missing_ok)
        see("after unlink")

    Store._write, Path.unlink = seen_write, seen_unlink  # type: ignore[method-assign, assignment]


def in_process(action: Callable[[], Awaitable[None]], step: int) -> str:
    """Do something in a process of its own, and return what it died at, or nothing."""
    ours, theirs = os.pipe()
    if not (child := os.fork()):
        os.close(ours)
        die_at(step, theirs)
        trio.run(action)
        os._exit(0)
    os.close(theirs)
    with open(ours, "rb") as told:  # noqa: PTH123 - a descriptor
        died_at = told.read().decode()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == (9 if died_at else 0)
    return died_at


async def upload(root: Path, urls: list[str], begin: int) -> None:
    """Upload what is pending; each look at the clock is an hour later, so that no pause is waited for."""
    hours = itertools.count(begin)
    timing = UploadTiming(now=lambda: Instant(next(hours) * HOUR), jitter=lambda: 0.0)
    store = Store.open(root / "db")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        nursery.start_soon(Uploader(store, root, receivers_at(urls, {}), timing).run)
        while await store.database.read(_is_left):  # noqa: ASYNC110 - the database tells nobody
            await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    store.close()


def _is_left(connection: sa.Connection) -> bool:
    return connection.scalar(sa.select(sa.func.count()).where(schema.build.c.upload != "done")) != 0


def main(urls: list[str]) -> None:
    for number, line in enumerate(sys.stdin):
        step, _, root = line.strip().partition(" ")
        died_at = in_process(partial(upload, Path(root), urls, 500_000 + 1000 * number), int(step))
        print(json.dumps(died_at), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
