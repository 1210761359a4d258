"""The servers that work on one database: who is there, who is counted as dead, and what becomes of that one's builds."""

import json
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import clusters
import databases
import psycopg
import pytest
import sqlalchemy as sa
import trio
from attrs import define, field
from clusters import Cluster
from farm import DEADLINE, eventually
from stores import NOW, opened, queues, script, take, uuid
from test_server_commits import gather

from builder.extension.halting import SERVER
from builder.extension.watching import Changed, What
from builder.history import Outcome
from builder.model import Exited, Period
from builder.runtime import postgres, subscription
from builder.runtime.database import MAX_NOTICE
from builder.runtime.postgres import Location
from builder_server import membership
from builder_server.errors import CommandRefused
from builder_server.membership import ServerMembership
from builder_server.store import LeftBuild, ServerIdentity, Store, StoreError, notices
from builder_server.store.servers import Fenced
from builder_server.store.waking import Woken

pytestmark = pytest.mark.databases(only="postgres")


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have servers look after each other all the time; a lease is as long as ever."""
    monkeypatch.setattr(membership, "RENEWAL", 0.1)
    monkeypatch.setattr(membership, "PATIENCE", 0)


@pytest.fixture
def alone() -> Iterator[Cluster]:
    """A cluster that a test may stop."""
    found = Cluster.make()
    yield found
    found.kill()


def identity(name: str, address: str | None = None) -> ServerIdentity:
    return ServerIdentity(name=name, incarnation=uuid4(), address=address, version="1.0", token="secret")


@define
class Holder:
    """What a server has, in place of its attempts."""

    inherited: list[UUID] = field(factory=list)
    drops: int = 0
    looks: int = 0

    def inherit(self, left: Iterable[LeftBuild]) -> None:
        self.inherited += [build.uuid for build in left]

    def drop_all(self) -> None:
        self.drops += 1

    async def look_again(self) -> None:
        self.looks += 1


@define
class Server:
    store: Store
    holder: Holder


@asynccontextmanager
async def server(path: Path, name: str, place: Location | None = None) -> AsyncIterator[Server]:
    """Have a server without anything that serves."""
    holder = Holder()
    async with opened(path, place) as store:
        member = ServerMembership(store, identity(name, f"{name}.example.org:1234"), holder)
        async with member.held():
            member.attend()
            yield Server(store, holder)


def execute(path: Path, statement: str) -> list[Any]:
    return databases.query(path / "db", statement)


async def end_sessions(path: Path, *names: str) -> None:
    """End the sessions by which servers hear, whatever they do."""
    name = databases._made[path / "db"]
    for key in (subscription.lock_key(f"server {each}") for each in names):
        ended = (
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_locks"
            f" WHERE database = (SELECT oid FROM pg_database WHERE datname = '{name}')"
            f" AND locktype = 'advisory' AND objsubid = 1 AND (classid::bigint << 32) + objid::bigint = {key}"
        )
        await eventually(partial(clusters.shared().execute, ended))


def expire(path: Path, name: str) -> None:
    """Have the lease of a server run out, as it does when that says nothing any more."""
    execute(path, f"UPDATE server SET expires = 0 WHERE name = '{name}'")


async def names(store: Store) -> list[str]:
    return [each.name for each in await store.servers()]


# --- who is there --------------------------------------------------------------------------------------------------


@pytest.mark.databases
async def test_a_server_that_works_on_a_database(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        assert await store.servers() == ()
        member = ServerMembership(store, me := identity("a", "a.example.org:5232"), Holder())
        async with member.held():
            (found,) = await store.servers()
            assert (found.name, found.incarnation, found.address) == ("a", me.incarnation, me.address)
            assert (found.token, found.version, found.crew, found.is_alive) == ("secret", "1.0", "{}", True)
            assert "secret" not in repr(found)
            assert store.owner == "a"
        assert await store.servers() == ()


async def test_what_a_server_says_of_its_workers(tmp_path: Path) -> None:
    crew = '{"number": 7}'
    async with opened(tmp_path) as store, ServerMembership(store, identity("a"), Holder(), lambda: crew).held():
        await eventually(lambda: execute(tmp_path, "SELECT 1 FROM server WHERE crew <> '{}'"))
        assert [each.crew for each in await store.servers()] == [crew]


async def test_one_that_others_can_not_reach_says_so_once_there_are_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path) as store, ServerMembership(store, identity("a"), Holder()).held():
        assert not caplog.text
        async with server(tmp_path, "b"):
            await eventually(lambda: caplog.text)
            said = "b can't hand on who asks for consoles and artifacts of this server: start it with --advertise"
            assert caplog.messages == [said]


async def test_a_server_with_the_name_of_another_one(tmp_path: Path) -> None:
    async with server(tmp_path, "a") as one, opened(tmp_path) as store:
        with pytest.raises(StoreError) as raised:
            async with ServerMembership(store, identity("a"), Holder()).held():
                pass
        assert str(raised.value) == (
            "a server called a works on the database at a.example.org:1234: give each its own --name"
        )
        await one.store.schedule(script("job"), Period.DAILY, NOW)
        async with server(tmp_path, "b"):
            assert await names(one.store) == ["a", "b"]
        assert await names(one.store) == ["a"]


async def test_a_server_that_was_killed_has_its_name_again_at_once(tmp_path: Path) -> None:
    """Its lease has not run out; but its session has ended."""
    async with opened(tmp_path) as store:
        await store.register(identity("a"))
        await store.schedule(script("job"), Period.DAILY, NOW)
        await take(store, 1)
        async with server(tmp_path, "a") as again:
            assert [each.uuid for each in await again.store.running()] == [uuid(1)]
            with pytest.raises(Fenced):
                await store.finish(uuid(1), NOW, Exited(code=0))


async def test_a_server_whose_session_was_ended_keeps_its_name(tmp_path: Path) -> None:
    async with server(tmp_path, "a") as one, opened(tmp_path) as store:
        await end_sessions(tmp_path, "a")
        await eventually(lambda: one.holder.looks)
        with pytest.raises(StoreError, match=r"^a server called a works on the database"):
            async with ServerMembership(store, identity("a"), Holder()).held():
                pass
        assert one.holder.drops == 0


# --- who is dead ---------------------------------------------------------------------------------------------------


async def test_who_is_counted_as_dead_writes_nothing_more(tmp_path: Path) -> None:
    async with opened(tmp_path) as one, opened(tmp_path) as other:
        for store, name in ((one, "one"), (other, "other")):
            await store.register(identity(name))
        await other.schedule(script("a"), Period.DAILY, NOW)
        expire(tmp_path, "other")
        await other.schedule(script("b"), Period.DAILY, NOW)  # nobody has noticed
        await one.take_over(["other"])
        results = await gather(
            lambda: other.schedule(script("c"), Period.DAILY, NOW),
            lambda: other.take("p1", uuid(1), NOW, None),
            lambda: other.note_facts(uuid(1), {}),
        )
        assert [type(result) for result in results] == [Fenced] * 3
        assert str(results[0]) == "the other servers have counted other as dead"
        assert await queues(other) == {"p1": ["a", "b"]}
        await other.register(identity("other"))
        await other.schedule(script("c"), Period.DAILY, NOW)


async def test_a_lease_that_runs_out_between_two_statements(tmp_path: Path) -> None:
    """What has begun is done; who removes the server waits for it, and sees it."""
    async with opened(tmp_path) as one, opened(tmp_path) as other, trio.open_nursery() as nursery:
        for store, name in ((one, "one"), (other, "other")):
            await store.register(identity(name))
        await other.schedule(script("a"), Period.DAILY, NOW)
        found: list[LeftBuild] = []

        async def take_over() -> None:
            found.extend(await one.take_over(["other"]))

        def meanwhile(connection: sa.Connection) -> None:
            connection.exec_driver_sql("SELECT 1")
            expire(tmp_path, "other")
            trio.from_thread.run_sync(nursery.start_soon, take_over)
            while not execute(tmp_path, "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
                pass

        async with trio.open_nursery() as together:  # in one transaction
            together.start_soon(other.take, "p1", uuid(1), NOW, None)
            together.start_soon(other._write, meanwhile)
        await eventually(lambda: found)
        assert [each.uuid for each in found] == [uuid(1)]
        assert await names(one) == ["one"]
        with pytest.raises(Fenced):
            await other.finish(uuid(1), NOW, Exited(code=0))


async def test_who_waits_for_another_one_that_writes_lives_on(tmp_path: Path) -> None:
    """A program that is frozen in the middle of writing stops all, for as long as a lease: that is nobody's death."""
    async with server(tmp_path, "a") as one, opened(tmp_path) as dead:
        await dead.register(identity("dead"))
        with psycopg.connect(databases.postgres_at(tmp_path / "db").url) as frozen:
            frozen.execute(postgres._ALONE)
            expire(tmp_path, "dead")
            waits = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            await eventually(lambda: execute(tmp_path, waits))
            for _ in range(3):
                seen = execute(tmp_path, "SELECT max(expires) FROM server")
                await eventually(
                    partial(lambda seen: execute(tmp_path, "SELECT max(expires) FROM server") > seen, seen)
                )
            assert await names(one.store) == ["a", "dead"]
        await eventually(lambda: execute(tmp_path, "SELECT name FROM server") == [("a",)])


async def test_a_lease_that_is_renewed_at_the_last_moment(tmp_path: Path) -> None:
    async with opened(tmp_path) as one, server(tmp_path, "other") as other:
        await one.register(identity("one"))
        assert await one.take_over(["other"]) == ()
        await other.store.schedule(script("a"), Period.DAILY, NOW)


async def test_what_a_dead_server_had_goes_on_at_one_other(tmp_path: Path) -> None:
    async with opened(tmp_path) as dead, server(tmp_path, "a") as one, server(tmp_path, "b") as other:
        await dead.register(identity("dead"))
        for number in range(5):
            await dead.schedule(script(f"j{number}"), Period.DAILY, NOW)
            await take(dead, number)
        await dead.finish(uuid(0), NOW, Exited(code=0))
        expire(tmp_path, "dead")
        await eventually(lambda: len(one.holder.inherited + other.holder.inherited) == 4)
        assert sorted(one.holder.inherited + other.holder.inherited) == [uuid(number) for number in range(1, 5)]
        for each in (one, other):
            assert sorted(build.uuid for build in await each.store.running()) == sorted(each.holder.inherited)
        assert execute(tmp_path, "SELECT owner FROM build WHERE state = 'finished'") == [("dead",)]
        assert await names(one.store) == ["a", "b"]


async def test_what_a_server_had_that_has_ended_goes_on_at_another(tmp_path: Path) -> None:
    async with server(tmp_path, "a") as one:
        async with server(tmp_path, "b") as other:
            await other.store.schedule(script("job"), Period.DAILY, NOW)
            await take(other.store, 1)
        await eventually(lambda: one.holder.inherited)
        assert one.holder.inherited == [uuid(1)]


async def test_who_is_counted_as_dead_says_that_it_has_removed_what_others_have(tmp_path: Path) -> None:
    async with opened(tmp_path) as one, opened(tmp_path) as other:
        for store, name in ((one, "one"), (other, "other")):
            await store.register(identity(name))
        await one.schedule(script("a"), Period.DAILY, NOW)
        build = await take(one, 1)
        expire(tmp_path, "one")
        await other.take_over(["one"])
        assert await one.left_behind() == {build.uuid: "a"}
        await one.forget_left_behind([build.uuid])
        assert await one.left_behind() == {}


async def test_a_server_that_wakes_up_and_finds_that_it_was_counted_as_dead(tmp_path: Path) -> None:
    async with server(tmp_path, "a") as woken:
        before = woken.store.identity
        execute(tmp_path, "DELETE FROM server")
        await eventually(lambda: woken.store.identity != before)
        await woken.store.schedule(script("job"), Period.DAILY, NOW)
        assert await names(woken.store) == ["a"]
        assert woken.holder.drops == 1


async def test_a_database_that_was_away_for_longer_than_a_lease(
    alone: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All leases have run out, as when its clock is set, and nobody is dead."""
    monkeypatch.setattr(membership, "PATIENCE", 10)
    place = Location(url=alone.create("db"))
    async with server(tmp_path, "a", place) as one, server(tmp_path, "b", place) as other:
        before = [each.incarnation for each in await one.store.servers()]
        alone.execute("UPDATE server SET expires = 0", "db")
        await trio.to_thread.run_sync(alone.stop)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.store.schedule, script("job"), Period.DAILY, NOW)
            await trio.to_thread.run_sync(alone.start)
        await eventually(lambda: one.holder.looks and other.holder.looks)
        await eventually(lambda: alone.execute("SELECT count(*) FROM server WHERE expires > 0", "db") == [(2,)])
        assert [each.incarnation for each in await one.store.servers()] == before
        assert (one.holder.drops, other.holder.drops) == (0, 0)
        await take(other.store, 1)


async def test_a_server_whose_lease_has_run_out_is_watched_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of the database may have been set: whoever lives says so before long."""
    monkeypatch.setattr(membership, "PATIENCE", DEADLINE)
    async with server(tmp_path, "a") as one, opened(tmp_path) as other:
        await other.register(identity("other"))
        expire(tmp_path, "other")
        for _ in range(3):
            seen = execute(tmp_path, "SELECT max(expires) FROM server")
            await eventually(partial(lambda seen: execute(tmp_path, "SELECT max(expires) FROM server") > seen, seen))
        assert await names(one.store) == ["a", "other"]
        monkeypatch.setattr(membership, "PATIENCE", 0)
        await eventually(lambda: execute(tmp_path, "SELECT name FROM server") == [("a",)])


# --- who keeps the schedule ----------------------------------------------------------------------------------------


async def test_one_server_keeps_the_schedule_and_another_one_follows(tmp_path: Path) -> None:
    async with server(tmp_path, "b") as other:
        await eventually(lambda: other.store.waking.keeps_schedule)
        async with server(tmp_path, "a") as one:
            await other.store.queue_due(NOW)
            assert [(each.name, each.keeps_schedule) for each in await one.store.servers()] == [
                ("a", False),
                ("b", True),
            ]
            told = one.store.waking.schedule.next
            clusters.shared().execute(
                "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid)"
                f" WHERE locktype = 'advisory' AND datname = '{databases._made[tmp_path / 'db']}' AND query LIKE '%pg_try%'"
            )
            await eventually(lambda: one.store.waking.keeps_schedule + other.store.waking.keeps_schedule == 1)
            if one.store.waking.keeps_schedule:
                assert told.is_set()
        await eventually(lambda: other.store.waking.keeps_schedule)
        unwatched = await other.store.unwatched()
        assert unwatched is not None
        assert 0 <= unwatched < 60


@pytest.mark.databases
async def test_a_server_that_is_alone_keeps_the_schedule(tmp_path: Path) -> None:
    async with server(tmp_path, "a") as one:
        await eventually(lambda: one.store.waking.keeps_schedule)
        assert await one.store.unwatched() is None


# --- what they hear ------------------------------------------------------------------------------------------------


async def test_what_one_server_changes_the_others_hear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "PATIENCE", DEADLINE)
    async with server(tmp_path, "a") as one, server(tmp_path, "b") as other:
        point, version = other.store.waking.changes.point, other.store.version
        work = other.store.waking.platform("p1")
        came = work.next
        await one.store.schedule(script("job"), Period.DAILY, NOW)
        await came.wait()
        assert other.store.version > version
        await eventually(lambda: other.store.waking.changes.point > point)
        halted = other.store.waking.halted.next
        await one.store.halt(SERVER, NOW, "me", "why", None)
        await halted.wait()
        assert other.store.waking.is_halted("b", "p1", "w")
        cancelled: dict[UUID, str] = {}
        moved: list[UUID] = []
        one.store.waking.on_cancelled, one.store.waking.on_moved = cancelled.__setitem__, moved.extend
        await one.store.resume(SERVER)
        await take(one.store, 1)
        await other.store.ask_end([uuid(1)], "client")
        await eventually(lambda: cancelled)
        assert cancelled == {uuid(1): "client"}
        execute(tmp_path, "UPDATE build SET owner = 'dead'")
        await other.store.take_over([])
        await eventually(lambda: moved)
        assert moved == [uuid(1)]


async def test_what_several_steps_change_at_once_is_heard_of_each(tmp_path: Path) -> None:
    """They share a transaction, and what is told by it is told in one go."""
    async with server(tmp_path, "a") as one, server(tmp_path, "b") as other:
        works = [other.store.waking.platform(name) for name in ("p1", "p2")]
        came = [work.next for work in works]
        await gather(
            lambda: one.store.schedule(script("first", "p1"), Period.DAILY, NOW),
            lambda: one.store.unschedule("unknown"),
            lambda: one.store.schedule(script("second", "p2"), Period.DAILY, NOW),
        )
        for event in came:
            await event.wait()


async def test_nobody_hears_what_he_has_said(tmp_path: Path) -> None:
    async with server(tmp_path, "a") as one:
        await one.store.schedule(script("job"), Period.DAILY, NOW)
        point, heard = one.store.waking.changes.point, one.store.waking.heard
        async with server(tmp_path, "b"):
            await eventually(lambda: one.store.waking.heard > heard)
        assert one.store.waking.changes.point == point


async def test_what_was_not_heard_since_the_session_was_ended(tmp_path: Path) -> None:
    async with server(tmp_path, "a") as one, server(tmp_path, "b") as other:
        for number in range(3):
            work = other.store.waking.platform("p1")
            came, looks, halted = work.next, other.holder.looks, other.store.waking.halted.next
            await end_sessions(tmp_path, "a", "b")
            await one.store.schedule(script(f"j{number}"), Period.DAILY, NOW)
            await came.wait()
            await halted.wait()
            await eventually(partial(lambda before: other.holder.looks > before, looks))
        assert (one.holder.drops, other.holder.drops) == (0, 0)


async def test_more_is_told_than_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription, "MAX_HEARD", 1)
    async with server(tmp_path, "a") as one, server(tmp_path, "b") as other:
        work = other.store.waking.platform("p1")
        came = work.next
        await one.store.schedule(script("job"), Period.DAILY, NOW)
        await came.wait()
        await eventually(lambda: other.holder.looks)


WOKEN = Woken(
    work={("p1", ""), ("p2", "arch=x")},
    platforms={"p\u20ac"},
    schedule=True,
    servers=True,
    changes=[
        Changed(point=0, what=What.QUEUED, job="j", platform="p1"),
        Changed(point=0, what=What.FINISHED, job="j", platform="p1", uuid=uuid(1), outcome=Outcome.FAILED),
    ],
    moved={uuid(2)},
    cancelled={uuid(3): "client 'x'"},
)


@pytest.mark.parametrize("woken", [Woken(), WOKEN])
def test_a_notice_says_what_was_changed(woken: Woken) -> None:
    notice = notices.decode(notices.encode(woken, "me", MAX_NOTICE))
    assert (notice.sender, notice.woken, notice.has_halts) == ("me", woken, False)
    assert notices.decode(notices.encode(Woken(halts={}), "me", MAX_NOTICE)).has_halts


def test_a_notice_of_too_much_says_that_anything_may_have_changed() -> None:
    for woken in (
        Woken(platforms={f"platform {number}" for number in range(1000)}),
        Woken(changes=[Changed(point=0, what=What.QUEUED)] * 201),
    ):
        told = notices.encode(woken, "me", MAX_NOTICE)
        assert len(told) < 100
        assert notices.decode(told).woken is None


@pytest.mark.parametrize(
    "told",
    [
        "",
        "[]",
        "{",
        '{"work": 1}',
        '{"from": "x", "changes": [{"what": "of a newer version"}]}',
        '{"from": "x", "moved": ["?"]}',
    ],
)
def test_a_notice_that_is_not_understood_says_the_same(told: str) -> None:
    assert notices.decode(told).woken is None


def test_a_notice_of_a_newer_version_is_understood_in_part() -> None:
    told = json.loads(notices.encode(WOKEN, "me", MAX_NOTICE)) | {"new": [1]}
    assert notices.decode(json.dumps(told)).woken == WOKEN


# --- what they do together -----------------------------------------------------------------------------------------


async def test_four_servers_take_from_one_platform(tmp_path: Path) -> None:
    """No job twice, and none is left."""
    async with (
        server(tmp_path, "a") as a, server(tmp_path, "b") as b, server(tmp_path, "c") as c, server(tmp_path, "d") as d,
    ):  # fmt: skip
        jobs = [script(f"j{number:02}") for number in range(60)]
        await gather(*(partial(a.store.schedule, job, Period.DAILY, NOW) for job in jobs))
        taken: list[tuple[str, str]] = []

        async def worker(of: Server) -> None:
            while (build := (await of.store.take("p1", uuid4(), NOW, None)).build) is not None:
                taken.append((build.job.name, of.store.owner))

        async with trio.open_nursery() as nursery:
            for each in (a, b, c, d):
                for _ in range(3):
                    nursery.start_soon(worker, each)
        assert sorted(name for name, _ in taken) == [job.name for job in jobs]
        assert len({owner for _, owner in taken}) > 1
        assert dict(execute(tmp_path, "SELECT name, owner FROM build")) == dict(taken)


async def test_an_entry_that_another_server_is_about_to_take(tmp_path: Path) -> None:
    """The next one is taken; where there is none, the other one is waited for, since it may leave its own."""
    async with opened(tmp_path) as one, opened(tmp_path) as other:
        for name in ("a", "b"):
            await one.schedule(script(name), Period.DAILY, NOW)
        locked, go_on = trio.Event(), trio.Event()

        def lock(connection: sa.Connection) -> None:
            connection.exec_driver_sql("SELECT 1 FROM queue ORDER BY position, id LIMIT 1 FOR UPDATE")
            trio.from_thread.run_sync(locked.set)
            trio.from_thread.run(go_on.wait)
            raise CommandRefused("left")

        async def refused() -> None:
            with pytest.raises(CommandRefused):
                await other.database.write(lock, shared=True)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(refused)
            await locked.wait()
            assert (await take(one, 1)).job.name == "b"
            found: list[str] = []

            async def wait() -> None:
                found.append((await take(one, 2)).job.name)

            nursery.start_soon(wait)
            waits = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            await eventually(lambda: execute(tmp_path, waits))
            assert not found
            go_on.set()
        assert found == ["a"]


async def test_a_platform_that_two_servers_hear_of_at_the_same_time(tmp_path: Path) -> None:
    async with opened(tmp_path) as one, opened(tmp_path) as other:
        takes = [partial(store.take, f"p{n}", uuid4(), NOW, None) for n in range(5) for store in (one, other)]
        assert not [each for each in await gather(*takes) if isinstance(each, Exception)]
        assert sorted(await queues(one)) == [f"p{number}" for number in range(5)]


async def test_commands_at_two_servers_are_done_one_after_the_other(tmp_path: Path) -> None:
    async with server(tmp_path, "a") as one, server(tmp_path, "b") as other:
        results = await gather(
            *(
                partial(each.store.schedule, script(f"j{number}"), Period.DAILY, NOW)
                for number in range(20)
                for each in (one, other)
            )
        )
        assert [str(result) for result in results if result is not None] == ["job name already used"] * 20
        assert len((await other.store.info()).schedule) == 20
        results = await gather(
            *(partial(each.store.unschedule, f"j{number}") for number in range(20) for each in (one, other))
        )
        assert len([result for result in results if isinstance(result, CommandRefused)]) == 20
        assert (await one.store.info()).schedule == ()
