"""The servers that work on one database: who is there, who is counted as dead, and what becomes of that one's builds."""

from pathlib import Path
from uuid import uuid4

import pytest
from stores import opened

from builder_server.store import Identity

pytestmark = pytest.mark.databases


def identity(name: str, address: str | None = None) -> Identity:
    return Identity(name=name, incarnation=uuid4(), address=address, version="1.0", token="secret")


async def test_a_server_that_works_on_a_database(tmp_path: Path) -> None:
    me = identity("a", "a.example.org:5232")
    async with opened(tmp_path) as store:
        assert await store.servers() == ()
        await store.register(me)
        (found,) = await store.servers()
        assert (found.name, found.incarnation, found.address, found.version) == ("a", me.incarnation, me.address, "1.0")
        assert (found.token, found.crew, found.is_alive, found.keeps_schedule) == ("secret", "{}", True, False)
        assert "secret" not in repr(found)
        await store.leave()
        assert await store.servers() == ()
