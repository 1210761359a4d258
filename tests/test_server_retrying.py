"""builder-server's uploads that fail: when they are tried again, in which order, at which receiver, and after a crash."""

import contextlib
import datetime as dt
import itertools
import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
import trio
from attrs import define, field
from clocks import NOW, Clock
from endpoints import Endpoint, serving
from farm import ROOT, environment, eventually, eventually_async
from hypothesis import given
from hypothesis import strategies as st
from stores import opened, uuid

from builder.extension.uploads import ListUploads, UploadEntry, UploadState
from builder.model import Instant
from builder_server import receiver, retrying, upload
from builder_server.receiver import InvalidUploadURL, Receiver, UploadFailed, receivers_at
from builder_server.store import Attempted, Store, Undecided, schema, uploads
from builder_server.upload import Uploader, UploadTiming

SECOND = dt.timedelta(seconds=1)

# --- what follows from an answer -----------------------------------------------------------------------------------


def test_which_answers_are_refusals() -> None:
    refused = {status for status in range(100, 600) if retrying.is_refusal(status)}
    assert refused == set(range(400, 500)) - {401, 403, 408, 409, 425, 429}


def test_pauses_grow_up_to_an_hour() -> None:
    pauses = [retrying.pause(failures, 0.0).total_seconds() for failures in range(1, 10)]
    assert pauses == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]
    assert retrying.pause(10**6, 1.0) == dt.timedelta(minutes=30)


@given(st.integers(1, 10**9), st.floats(0, 1))
def test_chance_makes_a_pause_shorter_by_half_at_most(failures: int, jitter: float) -> None:
    longest = retrying.pause(failures, 0.0)
    assert longest / 2 <= retrying.pause(failures, jitter) <= longest


@given(st.integers(-(10**9), 10**9), st.floats(0, 1))
def test_what_a_receiver_asks_for_is_obeyed_within_bounds(seconds: int, jitter: float) -> None:
    found = retrying.pause(5, jitter, seconds * SECOND)
    asked = min(max(seconds, 1), 86400) * SECOND
    assert asked <= found <= asked * 1.1


AT = Instant.from_datetime(dt.datetime(2026, 11, 20, 17, 0, tzinfo=dt.UTC))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        (" 120 ", 120),
        ("999999999999", 86400),
        ("Fri, 20 Nov 2026 17:05:00 GMT", 300),
        ("Friday, 20-Nov-26 17:05:00 GMT", 300),
        ("Fri Nov 20 17:05:00 2026", 300),
        ("Fri, 20 Nov 2026 16:00:00 GMT", -3600),
        ("Fri, 20 Nov 2026 18:05:00 +0100", 300),
        ("", None),
        ("-5", None),
        ("1.5", None),
        ("١٢", None),
        ("1000000000000000", None),
        ("soon", None),
        ("Fri, 99 Nov 2026 17:05:00 GMT", None),
        ("Fri, 20 Nov 99999999999 17:05:00 GMT", None),
    ],
)
def test_retry_after(value: str, seconds: int | None) -> None:
    found = retrying.parse_retry_after(value, AT)
    assert found == (None if seconds is None else seconds * SECOND)


@given(st.text())
def test_a_retry_after_of_any_kind_is_survived(value: str) -> None:
    retrying.parse_retry_after(value, AT)


# --- receivers -----------------------------------------------------------------------------------------------------


@contextmanager
def endpoints(count: int) -> Iterator[list[Endpoint]]:
    with ExitStack() as stack:
        yield [stack.enter_context(serving()) for _ in range(count)]


def test_a_receiver_is_named_without_what_may_be_secret() -> None:
    first, second = receivers_at(["https://User:pass@Builds.example.org:443/upload?token=1#x", "http://[::1]:80/u"], {})
    assert (first.name, second.name) == ("https://builds.example.org/upload", "http://[::1]/u")


def test_a_crowd_of_receivers() -> None:
    with pytest.raises(InvalidUploadURL, match=r"^there are more than 8 upload URLs$"):
        receivers_at([f"http://host{number}/" for number in range(9)], {})


async def test_an_answer_that_comes_byte_by_byte_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver, "ANSWER_TIMEOUT", 0.3)
    (tmp_path / "full").write_bytes(b"x")

    async def drip(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await stream.send_all(b"HTTP/1.1 ")
            while True:
                await stream.send_all(b"2")
                await trio.sleep(0.05)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, drip, 0, host="127.0.0.1"))
        (slow,) = receivers_at([f"http://127.0.0.1:{listener.socket.getsockname()[1]}/upload"], {})
        with pytest.raises(UploadFailed, match=r"/upload: no answer within 0\.3 s$"):
            await slow.post(tmp_path / "full")
        nursery.cancel_scope.cancel()


async def test_a_receiver_that_answers_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiver, "_TIMEOUT", httpx.Timeout(connect=30, write=30, read=0.1, pool=None))
    (tmp_path / "full").write_bytes(b"x")
    with endpoints(1) as (endpoint,):
        endpoint.go_on.clear()
        (silent,) = receivers_at([endpoint.url()], {})
        with pytest.raises(UploadFailed, match=r"/upload: no answer within 1800 s$") as failed:
            await silent.post(tmp_path / "full")
        assert not failed.value.concerns_all


def test_receivers_that_can_not_be_told_apart() -> None:
    with pytest.raises(InvalidUploadURL, match=r"^http://a/u is given twice") as refused:
        receivers_at(["http://one:secret@a/u", "http://b/u", "http://two:secret@a/u?token"], {})
    assert "secret" not in str(refused.value)


# --- the uploader --------------------------------------------------------------------------------------------------


BUILD = {
    "job_id": 1, "name": "a", "platform": "p1", "script": b"", "state": "finished", "losses": 0, "started": NOW.ms,
}  # fmt: skip


@define
class Site:
    """A store with builds that have records, and an uploader to endpoints, with a clock that stands where a test sets it."""

    store: Store
    path: Path
    clock: Clock = field(factory=Clock)

    def receivers(self, *endpoints: Endpoint) -> tuple[Receiver, ...]:
        return receivers_at([endpoint.url() for endpoint in endpoints], {})

    async def finish(self, *numbers: int, to: Sequence[Endpoint]) -> None:
        """Have builds end, and their records wait for endpoints."""
        names = [receiver.name for receiver in self.receivers(*to)]
        for number in numbers:
            self.full(number).parent.mkdir(parents=True)
            self.full(number).write_bytes(str(number).encode())

        def step(connection: sa.Connection) -> None:
            for number in numbers:
                end = NOW.ms + number
                values = BUILD | {"uuid": str(uuid(number)), "finished": end, "upload": "pending" if to else None}
                connection.execute(sa.insert(schema.build), values)
                uploads.add(connection, uuid(number), names, end)

        await self.store.database.write(step)

    @asynccontextmanager
    async def uploading(self, *endpoints: Endpoint) -> AsyncIterator[Uploader]:
        """Run an uploader for the time of a block."""
        timing = UploadTiming(now=self.clock, jitter=lambda: 0.0)
        uploader = Uploader(self.store, self.path, self.receivers(*endpoints), timing)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(uploader.run)
            yield uploader
            nursery.cancel_scope.cancel()

    def later(self, uploader: Uploader, **duration: float) -> None:
        """Let time pass, and have the uploader look at the clock."""
        self.clock.now = self.clock.now.plus(dt.timedelta(**duration))
        uploader.wake()

    async def entries(self, *endpoints: Endpoint) -> list[UploadEntry]:
        return await self.store.uploads(ListUploads(count=1000), [each.name for each in self.receivers(*endpoints)])

    async def wait_attempts(self, number: int, attempts: int) -> UploadEntry:
        """Wait until the only upload of a build that waits has failed so often."""

        async def look() -> list[UploadEntry]:
            entries = [each for each in await self.entries() if each.uuid == uuid(number)]
            return [each for each in entries if each.attempts == attempts]

        (entry,) = await eventually_async(look, what=f"attempt {attempts}")
        return entry

    async def state(self, number: int) -> str | None:
        found = sa.select(schema.build.c.upload).where(schema.build.c.uuid == str(uuid(number)))
        return await self.store.database.read(lambda connection: connection.scalar(found))

    async def wait_state(self, number: int, state: str) -> None:
        async def look() -> bool:
            return await self.state(number) == state

        await eventually_async(look, what=f"upload {state}")

    def full(self, number: int) -> Path:
        return self.path / "a" / str(uuid(number)) / "full"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with opened(tmp_path) as store:
        yield Site(store, tmp_path)


def taken(endpoint: Endpoint) -> list[int]:
    """Return the builds that an endpoint has taken, in that order."""
    return [int(body) for body in endpoint.taken]


async def test_many_wait_for_a_receiver_that_comes_back_and_go_in_order(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "PARALLEL", 1)
    with endpoints(1) as (endpoint,):
        endpoint.status = 503
        await site.finish(*range(1, 31), to=[endpoint])
        async with site.uploading(endpoint) as uploader:
            for attempt, pause in enumerate((30, 60, 120, 240), 1):
                await site.wait_attempts(1, attempt)
                assert [body.body for body in endpoint.requests] == [b"1"] * attempt
                site.later(uploader, seconds=pause - 1)
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert len(endpoint.requests) == attempt
                site.later(uploader, seconds=1)
            await site.wait_attempts(1, 5)
            endpoint.status = 201
            site.later(uploader, hours=1)
            await site.wait_state(30, "done")
        assert taken(endpoint) == list(range(1, 31))
        assert not list(site.path.glob("a/*/full"))


async def test_executions_that_a_receiver_can_not_digest_hold_up_no_others(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upload, "PARALLEL", 1)
    with endpoints(1) as (endpoint,):
        endpoint.indigestible = (b"1", b"2", b"5")
        await site.finish(*range(1, 11), to=[endpoint])
        async with site.uploading(endpoint) as uploader:
            await site.wait_attempts(1, 1)
            site.later(uploader, seconds=30)
            await site.wait_attempts(2, 1)
            site.later(uploader, seconds=60)
            await site.wait_attempts(5, 1)  # it comes when 3 and 4 are gone, and the receiver has failed once since
            site.later(uploader, seconds=30)
            await site.wait_state(10, "done")
            assert taken(endpoint) == [3, 4, 6, 7, 8, 9, 10]
            await site.wait_attempts(1, 2)  # what failed by itself goes in the order in which it is due
            endpoint.indigestible = ()
            site.later(uploader, hours=1)
            for number in (1, 2, 5):
                await site.wait_state(number, "done")
        assert taken(endpoint)[-3:] == [2, 5, 1]


async def test_a_receiver_that_hangs_holds_up_no_other_one(site: Site) -> None:
    with endpoints(2) as (hanging, well):
        hanging.go_on.clear()
        await site.finish(*range(1, 6), to=[hanging, well])
        async with site.uploading(hanging, well):
            await eventually(lambda: len(well.taken) == 5)
            assert len(hanging.requests) == upload.PARALLEL
            assert all(site.full(number).exists() for number in range(1, 6))
            await eventually_async(lambda: _waits_for(site, hanging))
            hanging.go_on.set()
            await site.wait_state(5, "done")
        assert sorted(taken(hanging)) == [1, 2, 3, 4, 5]


async def _waits_for(site: Site, endpoint: Endpoint) -> bool:
    """Say whether nobody else is waited for."""
    return {each.receiver for each in await site.entries()} == {each.name for each in site.receivers(endpoint)}


async def test_a_refusal_holds_up_nobody_and_waits_for_a_person(site: Site) -> None:
    with endpoints(1) as (endpoint,):
        await site.finish(*range(1, 4), to=[endpoint])
        endpoint.first = [413, 413, 413]
        async with site.uploading(endpoint) as uploader:
            for number in range(1, 4):
                await site.wait_state(number, "failed")
            site.later(uploader, days=30)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert len(endpoint.requests) == 3
            assert {each.next_attempt for each in await site.entries(endpoint)} == {None}
            assert await site.store.retry_uploads(uploader.names) == 3
            uploader.wake()
            for number in range(1, 4):
                await site.wait_state(number, "done")


async def test_a_record_goes_also_where_the_answer_of_the_database_was_lost(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    note_attempt = Store.note_attempt
    tries: list[bool] = []

    async def lost(store: Store, *arguments: Any) -> bool:
        tries.append(await note_attempt(store, *arguments))
        if len(tries) == 1:
            raise Undecided("lost during a commit")
        return tries[-1]

    monkeypatch.setattr(Store, "note_attempt", lost)
    monkeypatch.setattr(upload, "RETRY_DATABASE", 0)
    with endpoints(1) as (endpoint,):
        await site.finish(1, to=[endpoint])
        async with site.uploading(endpoint):
            await site.wait_state(1, "done")
    assert tries == [True, True]
    assert not site.full(1).exists()


async def test_what_is_told_of_a_receiver_is_about_what_is_pending(site: Site) -> None:
    with endpoints(1) as (endpoint,):
        await site.finish(1, 2, 3, to=[endpoint])
        (name,) = [each.name for each in site.receivers(endpoint)]
        refused = Attempted(state=UploadState.REFUSED, at=NOW, reason="no", failures=0)
        await site.store.note_attempt(uuid(1), name, refused, [name])
        (state,) = await site.store.count_uploads([name])
        assert (state.pending, state.refused, state.oldest, state.reason) == (2, 1, Instant(NOW.ms + 2), None)
        failed = Attempted(state=UploadState.PENDING, at=NOW, reason="later", failures=4, resume=NOW.plus(SECOND))
        await site.store.note_attempt(uuid(3), name, failed, [name])
        (state,) = await site.store.count_uploads([name])
        assert (state.failures, state.resume, state.reason) == (4, NOW.plus(SECOND), "later")


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [("7", 7), ("Fri, 20 Nov 2026 17:23:16 GMT", 599.877), ("nonsense", 30), ("0", 1), ("10000000", 86400)],
)
async def test_a_receiver_is_left_alone_for_as_long_as_it_asks(site: Site, retry_after: str, seconds: float) -> None:
    with endpoints(1) as (endpoint,):
        endpoint.status, endpoint.retry_after = 429, retry_after
        await site.finish(1, to=[endpoint])
        async with site.uploading(endpoint) as uploader:
            entry = await site.wait_attempts(1, 1)
            await site.finish(2, to=[endpoint])
            endpoint.status = 201
            site.later(uploader, seconds=seconds - 0.5)  # the uploader sleeps for the rest, by a real clock
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert len(endpoint.requests) == 1  # a new build does not go there either
            assert {each.next_attempt for each in await site.entries(endpoint)} == {NOW.plus(seconds * SECOND)}
            assert entry.reason is not None
            assert entry.reason.endswith("answered HTTP 429 Too Many Requests")
            site.later(uploader, seconds=0.5)
            await site.wait_state(2, "done")


async def test_a_pause_outlives_the_server(site: Site) -> None:
    with endpoints(1) as (endpoint,):
        endpoint.status = 503
        await site.finish(1, to=[endpoint])
        async with site.uploading(endpoint):
            await site.wait_attempts(1, 1)
        for attempts, pause in ((1, 30), (2, 60), (3, 120)):
            site.clock.now = site.clock.now.plus((pause - 1) * SECOND)
            async with site.uploading(endpoint) as uploader:
                await trio.testing.wait_all_tasks_blocked(0.01)
                assert len(endpoint.requests) == attempts
                site.later(uploader, seconds=1)
                assert (await site.wait_attempts(1, attempts + 1)).tried == site.clock.now


async def test_a_clock_that_was_ahead_postpones_nothing(site: Site) -> None:
    with endpoints(1) as (endpoint,):
        endpoint.status = 503
        await site.finish(1, to=[endpoint])
        async with site.uploading(endpoint) as uploader:
            site.later(uploader, days=3650)
            await eventually(lambda: len(endpoint.requests) > 0)
            attempts = len(endpoint.requests)
            await site.wait_attempts(1, attempts)
            endpoint.status = 201
            site.later(uploader, days=-3650)
            await site.wait_state(1, "done")


async def test_a_record_that_is_gone_is_said_so_and_harms_no_other(site: Site) -> None:
    with endpoints(1) as (endpoint,):
        await site.finish(1, 2, to=[endpoint])
        site.full(1).unlink()
        async with site.uploading(endpoint):
            await site.wait_state(2, "done")
            await site.wait_state(1, "failed")
        (entry,) = await site.entries(endpoint)
        assert (entry.state.value, entry.reason) == ("refused", "No such file or directory")


async def test_a_fault_of_ours_is_told_and_tried_again(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> int:
        raise AssertionError("a fault")

    with endpoints(1) as (endpoint,):
        await site.finish(1, to=[endpoint])
        with monkeypatch.context() as patch:
            patch.setattr(Receiver, "post", broken)
            async with site.uploading(endpoint):
                entry = await site.wait_attempts(1, 1)
            assert entry.reason == "a fault"
            assert "AssertionError" in caplog.text
        site.clock.now = site.clock.now.plus(dt.timedelta(hours=1))
        async with site.uploading(endpoint):
            await site.wait_state(1, "done")


# --- receivers come and go -----------------------------------------------------------------------------------------


async def test_a_new_receiver_gets_what_ends_from_then_on(site: Site) -> None:
    with endpoints(2) as (old, new):
        old.status = 503
        await site.finish(1, to=[old])
        async with site.uploading(old):
            await site.wait_attempts(1, 1)
        await site.finish(2, to=[old, new])
        old.status = 201
        site.clock.now = site.clock.now.plus(dt.timedelta(hours=1))
        async with site.uploading(old, new):
            for number in (1, 2):
                await site.wait_state(number, "done")
        assert (sorted(taken(old)), taken(new)) == ([1, 2], [2])


async def test_a_receiver_that_is_gone_holds_nothing_up_that_another_has(site: Site) -> None:
    with endpoints(2) as (one, other):
        other.status = 503
        await site.finish(1, to=[one, other])
        async with site.uploading(one, other):
            await site.wait_attempts(1, 1)
            await eventually(lambda: taken(one) == [1])
        assert site.full(1).exists()
        async with site.uploading(one):
            await site.wait_state(1, "done")
        assert not site.full(1).exists()
        assert await site.entries() == []


async def test_what_nobody_has_stays_when_its_receiver_is_gone(site: Site) -> None:
    with endpoints(2) as (old, new):
        old.first = [413]
        old.status = 503
        await site.finish(1, 2, to=[old])
        async with site.uploading(old):
            await eventually_async(lambda: _all_tried(site, 2))
        async with site.uploading(new) as uploader:
            await site.finish(3, to=[new])
            uploader.wake()
            await site.wait_state(3, "done")
            assert taken(new) == [3]
            assert {each.is_known for each in await site.entries(new)} == {False}
            assert sorted(filter(None, [await site.state(1), await site.state(2)])) == ["failed", "pending"]
            assert await site.store.retry_uploads(uploader.names) == 2
            uploader.wake()
            for number in (1, 2):
                await site.wait_state(number, "done")
        assert await site.entries() == []


async def _all_tried(site: Site, count: int) -> bool:
    return sum(each.attempts > 0 for each in await site.entries()) == count


async def test_what_a_release_before_left_goes_to_all_receivers(site: Site) -> None:
    with endpoints(2) as both:
        await site.finish(1, 2, 3, to=[])
        await site.store.set_upload(uuid(1), "pending")
        await site.store.set_upload(uuid(2), "failed")
        async with site.uploading(*both):
            for number in (1, 2):
                await site.wait_state(number, "done")
        assert [sorted(taken(each)) for each in both] == [[1, 2], [1, 2]]
        assert site.full(3).exists()
        assert await site.state(3) is None


async def test_without_receivers_all_stays_as_it_is(site: Site) -> None:
    with endpoints(2) as (one, other):
        other.status = 413
        await site.finish(1, to=[one, other])
        async with site.uploading(one, other):
            await site.wait_state(1, "failed")
        async with site.uploading():
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert site.full(1).exists()
        assert await site.state(1) == "failed"


# --- kill -9 -------------------------------------------------------------------------------------------------------


async def test_a_death_at_any_step_loses_no_upload_and_no_record(tmp_path: Path) -> None:
    """The uploader dies before and after each step that persists something; afterwards another one goes on."""
    with endpoints(2) as (one, other):
        template = tmp_path / "template"
        template.mkdir()
        async with opened(template) as store:
            await Site(store, template).finish(1, to=[one, other])
        argv = [sys.executable, str(ROOT / "tests/dying_uploader.py"), one.url(), other.url()]
        with subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(), bufsize=1
        ) as process:
            try:
                seen = await trio.to_thread.run_sync(die_everywhere, process, template, one, other)
            finally:
                process.kill()
    assert {"before note", "after note", "before unlink", "after unlink", "before set_state", "after set_state"} <= seen


def die_everywhere(process: "subprocess.Popen[str]", template: Path, one: Endpoint, other: Endpoint) -> set[str]:
    assert process.stdin
    assert process.stdout
    seen: set[str] = set()
    for step in itertools.count(1):
        root = template.with_name(f"{step}")
        shutil.copytree(template, root)
        for endpoint in (one, other):
            endpoint.taken.clear()
        one.first = [503]
        print(step, root, file=process.stdin)
        died_at = json.loads(process.stdout.readline())
        (full,) = [root / "a" / str(uuid(1)) / "full"]
        assert full.exists() or (one.taken and other.taken), died_at
        if not died_at:
            return seen
        seen.add(died_at)
        one.first = []
        print(0, root, file=process.stdin)
        assert json.loads(process.stdout.readline()) == ""
        assert not full.exists()
        assert one.taken
        assert other.taken
        with contextlib.closing(sqlite3.connect(root / "db")) as connection:
            assert connection.execute("select upload from build").fetchall() == [("done",)]
            for table in ("upload", "receiver"):
                assert connection.execute(f"select * from {table}").fetchall() == []
    raise AssertionError
