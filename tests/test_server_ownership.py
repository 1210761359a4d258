"""Of several servers on one database, one at a time has a build: that runs there, and its files are there."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest
from attrs import frozen
from stores import LOST, NOW, expand, opened, script, uuid

from builder.extension.uploads import ListUploads
from builder.model import Exited, Period
from builder_server.recorder import Recorder
from builder_server.results import directory_of
from builder_server.store import AfterLoss, Holder, Store, StoredArtifact

pytestmark = pytest.mark.databases

SECRET = hashlib.sha256(b"its secret").digest()
OTHER = hashlib.sha256(b"another one").digest()
WORKER = Holder(address="127.0.0.1:1", name="w", secret_sha256=SECRET)
RECEIVER = "http://web/"


@frozen
class Servers:
    one: Store
    other: Store


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[Servers]:
    """Return the stores of two servers in one database, in which a job is queued."""
    async with opened(tmp_path) as store:
        await store.schedule(script("job"), Period("hourly"), NOW)
        yield Servers(Store(store.database, owner="one"), Store(store.database, owner="other"))


async def take(store: Store) -> UUID:
    taken = await store.take("p1", uuid(1), NOW, expand, WORKER)
    assert taken.build
    return taken.build.uuid


async def runs_at(store: Store) -> list[UUID]:
    return [build.uuid for build in await store.running()]


async def test_a_build_runs_at_the_server_that_has_taken_it(servers: Servers) -> None:
    build = await take(servers.one)
    assert await runs_at(servers.one) == [build]
    assert await runs_at(servers.other) == []


async def test_whoever_has_the_secret_takes_a_build_along(servers: Servers) -> None:
    build = await take(servers.one)
    assert await servers.other.claim(build, OTHER) is None
    assert await runs_at(servers.one) == [build]
    claimed = await servers.other.claim(build, SECRET)
    assert claimed
    assert (claimed.name, claimed.platform, claimed.holder.name) == ("job", "p1", "w")
    assert await runs_at(servers.one) == []
    assert await runs_at(servers.other) == [build]


async def test_what_has_ended_or_is_unknown_is_not_claimed(servers: Servers) -> None:
    build = await take(servers.one)
    assert await servers.one.finish(build, NOW, Exited(code=0))
    assert await servers.other.claim(build, SECRET) is None
    assert await servers.other.claim(uuid(2), SECRET) is None


async def test_what_was_cancelled_stays_where_that_is_recorded(servers: Servers) -> None:
    build = await take(servers.one)
    await servers.other.ask_end([build], "somebody")
    assert await servers.other.claim(build, SECRET) is None
    (left,) = await servers.one.running()
    assert left.cancelled_by == "somebody"


async def test_who_asks_last_for_the_end_does_not_count(servers: Servers) -> None:
    build = await take(servers.one)
    for by in ("the first", "the second"):
        await servers.other.ask_end([build], by)
    head = await servers.one.find_head(build)
    assert head
    assert head.ended_by == "the first"


async def test_a_server_that_has_a_build_no_more_changes_nothing_of_it(servers: Servers) -> None:
    build = await take(servers.one)
    await servers.other.claim(build, SECRET)
    await servers.one.add_artifacts(build, [StoredArtifact(path="a", size=1, sha256=bytes(32))])
    assert not await servers.one.note_cancel(build, "somebody")
    assert await servers.one.lose(build, NOW, LOST, count=True) is AfterLoss.NOT_RUNNING
    assert not await servers.one.finish(build, NOW, Exited(code=1))
    await servers.other.add_artifacts(build, [StoredArtifact(path="b", size=1, sha256=bytes(32))])
    await servers.one.forget_artifacts(build)
    assert await servers.other.finish(build, NOW, Exited(code=0))
    assert [each.path for each in await servers.one.list_artifacts(build, "", 9)] == ["b"]
    head = await servers.one.find_head(build)
    assert head
    assert (head.result, head.owner) == (Exited(code=0), "other")


async def test_what_a_build_leaves_behind_is_known_until_it_is_removed_or_the_build_is_back(servers: Servers) -> None:
    build = await take(servers.one)
    assert await servers.one.claim(build, SECRET)  # it has it
    assert await servers.one.left_behind() == {}
    for _ in range(2):
        assert await servers.other.claim(build, SECRET)
        assert await servers.one.left_behind() == {build: "job"}
        assert await servers.one.claim(build, SECRET)
        assert await servers.one.left_behind() == {}
        assert await servers.other.left_behind() == {build: "job"}
    await servers.other.forget_left_behind([build])
    assert await servers.other.left_behind() == {}
    assert await servers.one.finish(build, NOW, Exited(code=0))
    assert await servers.one.left_behind() == {}


async def test_what_needs_the_files_of_a_build_is_done_where_they_are(servers: Servers) -> None:
    build = await take(servers.one)
    assert await servers.one.finish(build, NOW, Exited(code=0), receivers=[RECEIVER])
    assert await servers.other.next_upload(RECEIVER, NOW, ()) is None
    assert await servers.other.unsettled_uploads(["http://new/"], None) == []
    assert await servers.other.unsigned(()) == []
    assert await servers.one.unsigned(()) == [build]
    assert await servers.one.unsettled_uploads(["http://new/"], None) == [build]
    await servers.one.drop_upload(build)
    await servers.one.measure({build: 5})
    assert [old.uuid for old in await servers.one.oldest(None)] == [build]
    assert await servers.other.oldest(None) == []
    assert await servers.other.total_size() == 0
    await servers.other.forget([build])
    assert await servers.one.total_size() == 5


async def test_files_go_only_where_another_server_has_the_build(servers: Servers, tmp_path: Path) -> None:
    """Whoever is told that a build has moved may have had its end recorded just before, and not know it."""
    build = await take(servers.one)
    places = []
    for store in (servers.one, servers.other):
        place = Recorder(
            store=store, data_dir=tmp_path / store.owner, now=lambda: NOW, receivers=(), on_recorded=lambda: None
        )
        directory_of(place.data_dir, "job", build).mkdir(parents=True)
        places.append(place)
    await servers.other.claim(build, SECRET)
    assert await servers.other.finish(build, NOW, Exited(code=0))
    assert [await place.remove_if_moved(build) for place in places] == [True, False]
    assert [directory_of(place.data_dir, "job", build).exists() for place in places] == [False, True]
    assert await servers.one.left_behind() == {}


async def test_which_receivers_another_server_has_it_knows_itself(servers: Servers) -> None:
    build = await take(servers.one)
    assert await servers.one.finish(build, NOW, Exited(code=1), receivers=[RECEIVER])
    known: dict[str, list[object]] = {store.owner: [] for store in (servers.one, servers.other)}
    for store in (servers.one, servers.other):
        (entry,) = await store.uploads(ListUploads(count=9), ["http://new/"])
        counted = {state.name: state.is_known for state in await store.count_uploads(["http://new/"])}
        known[store.owner] = [entry.is_known, counted]
    assert known == {
        "one": [False, {"http://new/": True, RECEIVER: False}],
        "other": [True, {"http://new/": True, RECEIVER: True}],
    }
    assert await servers.other.retry_uploads(["http://new/"]) == 0
    assert await servers.one.retry_uploads(["http://new/"]) == 1
    entries = await servers.one.uploads(ListUploads(count=9), ["http://new/"])
    assert [entry.receiver for entry in entries] == ["http://new/", RECEIVER]
