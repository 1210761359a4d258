"""builder-server's reply to info: always how things stand, and read once for as long as they stand so."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from farm import LocalServer, run_server
from scripted import do, info, schedule, take_job

from builder.messages import DropPlatform, Execute, InfoReply, Message, Reschedule, UndropPlatform, Unschedule
from builder.model import Instant, ScriptJob
from builder_server.aside import SMALL
from builder_server.store import Store


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is read of the store for info."""
    found: list[str] = []

    def note(name: str) -> None:
        read: Callable[..., Awaitable[object]] = getattr(Store, name)

        async def noted(*arguments: object) -> object:
            found.append(name)
            return await read(*arguments)

        monkeypatch.setattr(Store, name, noted)

    note("info")
    note("info_within")
    return found


def _names(reply: InfoReply) -> list[str]:
    return [item.job.name for item in reply.schedule]


async def test_info_is_read_once_while_nothing_changes(tmp_path: Path, reads: list[str]) -> None:
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        replies = [await info(server) for _ in range(10)]
        assert reads in (["info_within"], ["info_within"] * 2)  # the ticker looks what is due when a job is scheduled
        assert all(_names(reply) == ["a"] for reply in replies)


def _command(command: Message) -> Callable[[LocalServer], Awaitable[object]]:
    return lambda server: do(server, command)


@pytest.mark.parametrize(
    "change",
    [
        _command(schedule("c")),
        _command(Unschedule(name="a")),
        _command(Reschedule(name="a", next=Instant(0))),
        _command(Execute(name="b")),
        _command(DropPlatform(platform="p1")),
        _command(UndropPlatform(platform="p2")),
    ],
)
async def test_every_change_is_seen_at_once(tmp_path: Path, change: Callable[[LocalServer], Awaitable[object]]) -> None:
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"), schedule("b"), schedule("x", "p2"), DropPlatform(platform="p2"))
        before = await info(server)
        await change(server)
        assert await info(server) != before


async def test_a_build_is_seen_from_its_begin_to_its_end(tmp_path: Path) -> None:
    async with run_server(tmp_path) as server:
        await do(server, schedule("a"))
        assert (await info(server)).running == ()
        async with take_job(server) as taken:
            assert [build.uuid for build in (await info(server)).running] == [taken.uuid]
            await taken.finish()
        assert (await info(server)).running == ()


async def test_what_changes_while_it_is_read_is_not_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Store.info_within

    async def change_after_reading(store: Store, limit: int) -> tuple[int, InfoReply | None]:
        monkeypatch.setattr(Store, "info_within", read)
        found = await read(store, limit)
        await store.unschedule("a")
        return found

    async with run_server(tmp_path) as server:
        await do(server, schedule("a"), schedule("b"))
        monkeypatch.setattr(Store, "info_within", change_after_reading)
        assert _names(await info(server)) == ["a", "b"]
        assert _names(await info(server)) == ["b"]


async def test_a_large_reply_is_not_kept(tmp_path: Path, reads: list[str]) -> None:
    async with run_server(tmp_path) as server:
        await do(server, schedule("a", text=bytes(SMALL)))
        for _ in range(2):
            (item,) = (await info(server)).schedule
            assert isinstance(item.job, ScriptJob)
            assert len(item.job.script) == SMALL
        assert reads == ["info_within", "info"] * 2
