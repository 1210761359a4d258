"""The servers that work on one database: who is there, and who is counted as dead."""

from pathlib import Path
from uuid import uuid4

import pytest
from attrs import evolve
from stores import opened

from builder_server.store import Identity, StoreError

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
        await store.leave(evolve(me, incarnation=uuid4()))
        assert len(await store.servers()) == 1
        await store.leave(me)
        assert await store.servers() == ()


@pytest.mark.databases(only="postgres")
async def test_two_servers_with_one_name(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        await store.register(identity("a", "a.example.org:5232"))
        await store.register(identity("b"))
        with pytest.raises(
            StoreError, match=r"^a server called a works on it already at a.example.org:5232: give each"
        ):
            await store.register(identity("a"))
        assert [each.name for each in await store.servers()] == ["a", "b"]
