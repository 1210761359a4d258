"""builder-server's uploads to a real HTTP endpoint, which takes them, refuses them, is slow, or drops them."""

import datetime as dt
import logging
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa
import trio
from clocks import Clock
from endpoints import CREDENTIALS, SOME, USER, Endpoint, one_build, serving, wait_failed, wait_state
from farm import DEADLINE, eventually, free_port, launch_server, log_lines, run_server, start_server
from scripted import info
from stores import NOW, database, opened, script, take, uuid

from builder.model import Exited, Instant, Period
from builder_server import upload
from builder_server.receiver import InvalidUploadURL, Receiver
from builder_server.store import PendingUpload, schema
from builder_server.upload import Uploader, UploadTiming

SECRETS = ("se/cret", "se%2Fcret", "us er", "us%20er", CREDENTIALS.split()[1], "token")


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving() as endpoint:
        yield endpoint


@pytest.fixture
def other_endpoint() -> Iterator[Endpoint]:
    with serving() as endpoint:
        yield endpoint


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log of a server in this process, in its wordiest form."""
    caplog.set_level(logging.DEBUG, "builder_server")
    return caplog


def check_log(log: str) -> None:
    """It has no secret and no traceback."""
    assert not [secret for secret in SECRETS if secret in log], log
    assert "Traceback" not in log


async def test_what_was_taken_is_not_kept(tmp_path: Path, endpoint: Endpoint) -> None:
    async with start_server(tmp_path, "-vv", f"--upload={endpoint.url()}") as server:
        for status in (200, 201, 204, 409):
            endpoint.status = status
            uuid = await one_build(server, str(status))
            await wait_state(server, uuid, "done")
            assert not server.full(str(status), uuid).exists()
            request = endpoint.requests[-1]
            assert request.path == "/upload?token=1"
            assert request.headers["Authorization"] == CREDENTIALS
            assert request.headers["Content-Length"] == str(len(request.body))
            assert request.headers["Host"] == f"127.0.0.1:{endpoint.port}"
            assert "Transfer-Encoding" not in request.headers
            assert "Expect" not in request.headers
            assert (request.execution.uuid, request.execution.artifacts) == (uuid, SOME)
            assert [line.line for line in request.execution.console] == [b"one"]
            await server.wait_for_log(f"uploaded (HTTP {status})")
        assert len(endpoint.requests) == 4
        check_log(server.log)


async def test_what_was_refused_is_kept_and_said_so(tmp_path: Path, endpoint: Endpoint) -> None:
    async with start_server(tmp_path, "-vv", f"--upload={endpoint.url()}") as server:
        uuids = []
        for status in (400, 404, 413, 422, 499):
            endpoint.status = status
            name = str(status)
            uuids.append(await one_build(server, name))
            await wait_state(server, uuids[-1], "failed")
            (line,) = log_lines(server.log, "not uploaded", name, f"HTTP {status}")
            full = server.full(name, uuids[-1])
            assert f"it stays at {full}: http://127.0.0.1:{endpoint.port}/upload answered" in line
            assert "until `builder-client retry-upload` it is not tried again" in line
            assert full.read_bytes() == endpoint.requests[-1].body
        check_log(server.log)
        assert [request.execution.uuid for request in endpoint.requests] == uuids  # none is tried again
        assert set(server.query("select state, attempts from upload")) == {("refused", 1)}


@pytest.mark.parametrize("status", [401, 403, 408, 425, 429, 500, 503, 304])
async def test_what_is_no_refusal_is_tried_again(
    tmp_path: Path, endpoint: Endpoint, log: pytest.LogCaptureFixture, status: int
) -> None:
    clock, endpoint.status = Clock(), status
    async with run_server(tmp_path, upload=endpoint.url(), now=clock) as server:
        first = await one_build(server)
        url = f"http://127.0.0.1:{endpoint.port}/upload"
        assert (await wait_failed(server, first)).startswith(f"{url} answered HTTP {status}")
        assert log_lines(log.text, "not uploaded, it stays at ", "; tried again in ")
        endpoint.status = 201
        clock.now = clock.now.plus(dt.timedelta(seconds=31))
        second = await one_build(server, "b")
        await wait_state(server, second, "done")
        await wait_state(server, first, "done")
        check_log(log.text)
    assert Counter(request.execution.uuid for request in endpoint.requests) == {first: 2, second: 1}


async def test_without_a_password_there_is_no_authorization(tmp_path: Path, endpoint: Endpoint) -> None:
    async with run_server(tmp_path, upload=endpoint.url("")) as server:
        await wait_state(server, await one_build(server), "done")
        assert "Authorization" not in endpoint.requests[0].headers


async def test_nobody_waits_for_a_slow_endpoint(tmp_path: Path, endpoint: Endpoint) -> None:
    endpoint.go_on.clear()
    async with run_server(tmp_path, upload=endpoint.url()) as server:
        uuids = [await one_build(server, name) for name in "abcde"]
        await eventually(lambda: [request for request in endpoint.requests if request.body])
        assert (await info(server)).running == ()
        assert all(server.full(name, uuid).exists() for name, uuid in zip("abcde", uuids, strict=True))
        endpoint.go_on.set()
        for uuid in uuids:
            await wait_state(server, uuid, "done")
        assert {request.execution.uuid for request in endpoint.requests} == set(uuids)
        assert not list(server.data_dir.glob("*/*/full"))


@pytest.mark.databases
async def test_of_many_that_are_pending_only_those_under_way_are_in_memory(tmp_path: Path, endpoint: Endpoint) -> None:
    size, count = 200_000, 50
    endpoint.go_on.clear()
    row = {"job_id": 1, "name": "job", "platform": "p1", "script": bytes(size), "state": "finished", "losses": 0}
    rows = [row | {"uuid": str(uuid(n)), "started": n, "finished": n, "upload": "pending"} for n in range(count)]
    for number in range(2):
        (tmp_path / "job" / str(uuid(number))).mkdir(parents=True)
        (tmp_path / "job" / str(uuid(number)) / "full").write_bytes(b"full")
    async with opened(tmp_path) as store, trio.open_nursery() as nursery:
        await store.database.write(lambda connection: connection.execute(sa.insert(schema.build), rows).rowcount)
        uploader = Uploader(store, tmp_path, (Receiver.at(endpoint.url(), {}),), UploadTiming(now=Clock()))
        tracemalloc.start()
        nursery.start_soon(uploader.run)
        await eventually(lambda: len(endpoint.requests) == 2)
        uploader.wake()
        await trio.testing.wait_all_tasks_blocked(0.05)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        nursery.cancel_scope.cancel()
        endpoint.go_on.set()
    assert peak < 20 * size


@pytest.mark.databases
async def test_the_oldest_is_uploaded_first(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        for number, finished in ((1, 30), (2, 10), (3, 20)):
            await store.schedule(script(f"j{number}"), Period.DAILY, NOW)
            await take(store, number)
            await store.finish(uuid(number), Instant(NOW.ms + finished), Exited(code=0), receivers=["r"])
        found: list[UUID] = []
        while isinstance(upload := await store.next_upload("r", NOW, found), PendingUpload):
            found.append(upload.uuid)
        assert found == [uuid(2), uuid(3), uuid(1)]


@pytest.mark.databases
async def test_an_upload_is_noted_once_the_database_takes_it(
    tmp_path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(upload, "RETRY_DATABASE", 0.01)
    async with opened(tmp_path) as store, trio.open_nursery() as nursery:
        await store.schedule(script("a"), Period.DAILY, NOW)
        await take(store, 1)
        receiver = Receiver.at(endpoint.url(), {})
        await store.finish(uuid(1), NOW, Exited(code=0), receivers=[receiver.name])
        (tmp_path / "a" / str(uuid(1))).mkdir(parents=True)
        (tmp_path / "a" / str(uuid(1)) / "full").write_bytes(b"full")
        broken: list[bool] = []
        endpoint.go_on.clear()

        @sa.event.listens_for(database(store)._writer, "commit")
        def fail(_connection: sa.Connection) -> None:
            if broken:
                raise OSError("disk I/O error")

        nursery.start_soon(Uploader(store, tmp_path, (receiver,), UploadTiming(now=Clock())).run)
        await eventually(lambda: endpoint.requests)
        broken.append(True)
        endpoint.go_on.set()
        await eventually(lambda: caplog.text.count("its upload can't be noted, trying again: ") > 1)
        broken.clear()
        await eventually(lambda: not (tmp_path / "a" / str(uuid(1)) / "full").exists())
        assert len(endpoint.requests) == 1
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("after", [0, 100_000])
async def test_an_endpoint_that_drops_the_connection(
    tmp_path: Path, endpoint: Endpoint, log: pytest.LogCaptureFixture, after: int
) -> None:
    endpoint.drop_after = after
    async with run_server(tmp_path, upload=endpoint.url()) as server:
        uuid = await one_build(server)
        await wait_failed(server, uuid)
        assert server.execution("a", uuid).artifacts == SOME
        assert log.text.count("not uploaded, it stays at ") == 1
        check_log(log.text)


async def test_nobody_listens(tmp_path: Path, log: pytest.LogCaptureFixture) -> None:
    url = f"http://{USER}127.0.0.1:{free_port()}/upload?token=1"
    async with run_server(tmp_path, upload=url) as server:
        uuid = await one_build(server)
        await wait_failed(server, uuid)
        assert server.full("a", uuid).exists()
        check_log(log.text)


async def test_a_redirect_is_posted_again_without_the_password(
    tmp_path: Path, endpoint: Endpoint, other_endpoint: Endpoint, log: pytest.LogCaptureFixture
) -> None:
    endpoint.location = f"http://x:y@127.0.0.1:{other_endpoint.port}/elsewhere?token=2"
    async with run_server(tmp_path, upload=endpoint.url()) as server:
        for status in (301, 302, 303, 307, 308):
            endpoint.status = status
            uuid = await one_build(server, str(status))
            await wait_state(server, uuid, "done")
            request = other_endpoint.requests[-1]
            assert request.path == "/elsewhere?token=2"
            assert (request.body, request.execution.uuid) == (endpoint.requests[-1].body, uuid)
            assert "Authorization" not in request.headers
        check_log(log.text)


async def test_a_redirect_on_the_same_host_keeps_the_password(
    tmp_path: Path, endpoint: Endpoint, log: pytest.LogCaptureFixture
) -> None:
    endpoint.status = 307
    endpoint.location = "/upload?again"
    async with run_server(tmp_path, upload=endpoint.url()) as server:
        uuid = await one_build(server)
        await wait_failed(server, uuid)
        assert [request.headers["Authorization"] for request in endpoint.requests] == [CREDENTIALS] * 6
        assert "redirects more than 5 times" in log.text
        assert server.full("a", uuid).exists()
        check_log(log.text)


async def test_a_redirect_to_nowhere(tmp_path: Path, endpoint: Endpoint, log: pytest.LogCaptureFixture) -> None:
    endpoint.status = 307
    for name, location in enumerate(("http://[::1", "ftp://example.org/", "http://x:99999999/", "http:///")):
        endpoint.location = location
        (tmp_path / str(name)).mkdir()
        async with run_server(tmp_path / str(name), upload=endpoint.url()) as server:
            uuid = await one_build(server)
            await wait_failed(server, uuid)
            assert server.full("a", uuid).exists()
    check_log(log.text)


async def test_an_upload_that_a_kill_interrupted_begins_again(tmp_path: Path, endpoint: Endpoint) -> None:
    endpoint.go_on.clear()
    async with start_server(tmp_path, f"--upload={endpoint.url()}") as server:
        uuid = await one_build(server)
        await eventually(lambda: [request for request in endpoint.requests if request.body])
        server.kill()
    endpoint.status = 409  # it has it already
    endpoint.go_on.set()
    async with start_server(tmp_path, f"--upload={endpoint.url()}") as server:
        await wait_state(server, uuid, "done")
        assert not server.full("a", uuid).exists()
        assert [request.execution.uuid for request in endpoint.requests] == [uuid, uuid]


async def test_an_upload_does_not_hold_up_a_stop(tmp_path: Path, endpoint: Endpoint) -> None:
    endpoint.go_on.clear()
    async with start_server(tmp_path, f"--upload={endpoint.url()}") as server:
        uuid = await one_build(server)
        await eventually(lambda: [request for request in endpoint.requests if request.body])
        server.process.terminate()
        assert await server.wait_async(10) == 0
        assert server.full("a", uuid).exists()
        assert server.query("select upload from build") == [("pending",)]


async def test_a_copy_that_can_not_be_removed_harms_nobody(tmp_path: Path, endpoint: Endpoint) -> None:
    endpoint.go_on.clear()
    async with start_server(tmp_path, f"--upload={endpoint.url()}") as server:
        uuid = await one_build(server)
        await eventually(lambda: [request for request in endpoint.requests if request.body])
        full = server.full("a", uuid)
        full.unlink()
        full.mkdir()
        endpoint.go_on.set()
        await server.wait_for_log("uploaded, but ")
        await wait_state(server, uuid, "uploaded")
        await wait_state(server, await one_build(server, "b"), "done")
        server.kill()
    full.rmdir()
    async with start_server(tmp_path, f"--upload={endpoint.url()}") as server:
        await wait_state(server, uuid, "done")
        assert len(endpoint.requests) == 2


async def test_a_file_that_is_gone(tmp_path: Path, endpoint: Endpoint) -> None:
    async with run_server(tmp_path) as server:
        uuid = await one_build(server)
        server.full("a", uuid).unlink()
    async with run_server(tmp_path, upload=endpoint.url()) as server:
        await wait_state(server, await one_build(server, "b"), "done")
    assert len(endpoint.requests) == 1  # what was finished before there was an endpoint stays where it is


def test_a_wrong_url_stops_the_start_without_being_told(tmp_path: Path) -> None:
    server = launch_server(tmp_path, "--upload=http://us%20er:se%2Fcret@h:x/")
    output, _ = server.process.communicate(timeout=DEADLINE)
    assert (server.process.returncode, output) == (2, b"")
    assert server.log.startswith("builder-server: the upload URL ")
    assert server.log.count("\n") == 1
    check_log(server.log)


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "ftp://us%20er:se%2Fcret@host/",
        "http://",
        "http://us%20er:se%2Fcret@h:x/",
        "http://us%20er:se%2Fcret@h/\udcff",
    ],
)
def test_a_wrong_url_is_refused_without_being_told(url: str) -> None:
    with pytest.raises(InvalidUploadURL, match=r"^the upload URL .*$") as refused:
        Receiver.at(url, {})
    check_log(str(refused.value))
