"""builder-client about uploads, against a real server and real receivers: uploads, retry-upload, and what info and result say."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from client_harness import assert_one_line
from endpoints import USER, Endpoint, one_build, serving, wait_failed, wait_state
from farm import Server, eventually, run_client, start_server

from builder.extension.uploads import ListUploads, ReceiverState, UploadEntry, UploadsListed, UploadState
from builder.model import Instant
from builder_client import uploads


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving() as endpoint:
        yield endpoint


@pytest.fixture
def other_endpoint() -> Iterator[Endpoint]:
    with serving() as endpoint:
        yield endpoint


def client(server: Server, *arguments: str, status: int = 0) -> str:
    done = run_client(server, *arguments)
    assert done.returncode == status, (done.stdout, done.stderr)
    if status:
        assert_one_line(done.stderr)
        return done.stderr.decode()
    return done.stdout.decode()


def rows(server: Server, *arguments: str) -> list[Any]:
    return [json.loads(line) for line in client(server, *arguments, "--json").splitlines()]


def name(endpoint: Endpoint) -> str:
    return f"http://127.0.0.1:{endpoint.port}/upload"


async def test_a_person_sees_what_does_not_get_on_and_has_it_tried_again(
    tmp_path: Path, endpoint: Endpoint, other_endpoint: Endpoint
) -> None:
    endpoint.status, endpoint.retry_after, other_endpoint.status = 503, "3600", 413
    async with start_server(tmp_path, f"--upload={endpoint.url()}", f"--upload={other_endpoint.url()}") as server:
        uuid = await one_build(server)
        await eventually(lambda: server.query("select count(*) from upload where attempts = 1") == [(2,)])
        by_receiver = {each["receiver"]: each for each in rows(server, "uploads")}
        pending, refused = by_receiver[name(endpoint)], by_receiver[name(other_endpoint)]
        assert (pending["uuid"], pending["job"], pending["state"], pending["known"]) == (
            str(uuid),
            "a",
            "pending",
            True,
        )
        assert (refused["state"], refused["next_attempt"], refused["attempts"]) == ("refused", None, 1)
        assert refused["reason"].startswith(f"{name(other_endpoint)} answered HTTP 413 ")
        assert rows(server, "uploads", "--limit", "1") == rows(server, "uploads")[:1]
        info = client(server, "info")
        assert f"Warning: 1 upload to {name(endpoint)} is pending, the oldest since 2" in info
        assert f"last error: {name(endpoint)} answered HTTP 503 Service Unavailable; next attempt in 1 h" in info
        assert f"Warning: 1 upload to {name(other_endpoint)} was refused; see 'uploads'" in info
        assert {each["failures"] for each in json.loads(client(server, "info", "--json"))["uploads"]} == {0, 1}
        result = client(server, "result", str(uuid))
        assert f"upload:     pending at {name(endpoint)}, 1 failed attempt, next in 1 h" in result
        assert f"upload:     refused at {name(other_endpoint)}, 1 failed attempt: " in result
        assert len(rows(server, "result", str(uuid))[0]["uploads"]) == 2
        for said in (info, result, client(server, "uploads"), server.log):
            assert USER not in said
            assert "token" not in said
        endpoint.status, other_endpoint.status = 201, 201
        assert client(server, "retry-upload", str(uuid)[:8]) == (
            "2 uploads are tried again; 'uploads' shows what comes of it\n"
        )
        await wait_state(server, uuid, "done")
        assert client(server, "uploads") == "Uploads: none waits\n"
        assert "Warning" not in client(server, "info")
        assert rows(server, "retry-upload", "--all") == [{"count": 0}]
        assert "is uploaded already" in client(server, "retry-upload", str(uuid), status=3)


async def test_an_upload_is_given_up(tmp_path: Path, endpoint: Endpoint) -> None:
    endpoint.status = 413
    async with start_server(tmp_path, f"--upload={endpoint.url()}") as server:
        uuid = await one_build(server)
        await wait_state(server, uuid, "failed")
        assert client(server, "drop-upload", str(uuid)[:8]) == ""
        assert rows(server, "uploads") == []
        assert server.query("select upload from build") == [(None,)]
        assert server.full("a", uuid).exists()
        assert "is not to be uploaded" in client(server, "drop-upload", str(uuid), status=3)
        endpoint.status = 201
        assert rows(server, "retry-upload", str(uuid)) == [{"count": 1}]
        await wait_state(server, uuid, "done")


async def test_what_a_receiver_was_to_get_that_is_no_longer_there(
    tmp_path: Path, endpoint: Endpoint, other_endpoint: Endpoint
) -> None:
    endpoint.status = 503
    async with start_server(tmp_path, f"--upload={endpoint.url()}") as server:
        uuid = await one_build(server)
        await wait_failed(server, uuid)
    async with start_server(tmp_path, f"--upload={other_endpoint.url()}") as server:
        await wait_state(server, await one_build(server, "b"), "done")
        (left,) = rows(server, "uploads")
        assert (left["receiver"], left["known"], left["state"]) == (name(endpoint), False, "pending")
        assert "never: the server was started without this receiver" in client(server, "uploads")
        assert f"1 upload to {name(endpoint)} is pending, which the server was started" in client(server, "info")
        assert rows(server, "retry-upload", "--all") == [{"count": 1}]
        await wait_state(server, uuid, "done")
        assert rows(server, "uploads") == []


async def test_a_server_that_uploads_nothing(tmp_path: Path, endpoint: Endpoint) -> None:
    async with start_server(tmp_path) as server:
        uuid = await one_build(server)
        assert rows(server, "uploads") == []
        assert json.loads(client(server, "info", "--json"))["uploads"] == []
        said = client(server, "retry-upload", str(uuid), status=3)
        assert said.endswith("this server uploads nothing: it was started without --upload\n")
    async with start_server(tmp_path, f"--upload={endpoint.url()}") as server:
        assert endpoint.requests == []
        assert "no build has a uuid that begins with aaaa" in client(server, "retry-upload", "aaaa", status=3)
        assert rows(server, "retry-upload", str(uuid)) == [{"count": 1}]
        await wait_state(server, uuid, "done")
        gone = await one_build(server, "b")
        await wait_state(server, gone, "done")


@pytest.mark.parametrize("arguments", [(), ("323b", "--all")])
async def test_one_build_or_all(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    async with start_server(tmp_path) as server:
        assert "name a build, or --all of them" in client(server, "retry-upload", *arguments, status=2)


NOW = Instant(1_795_194_796_123)


def test_what_merely_waits_is_no_warning() -> None:
    waiting = ReceiverState(name="r", is_known=True, pending=2, refused=0, failures=0, oldest=NOW)
    assert list(uploads.warnings((waiting,), NOW)) == []


def test_pages_are_joined() -> None:
    entries = [
        UploadEntry(
            uuid=UUID(int=number), job="a", platform="p", receiver="r", state=UploadState.PENDING,
            is_known=True, since=NOW, attempts=0,
        )
        for number in range(3)
    ]  # fmt: skip

    class Remote:
        def request(self, asked: ListUploads, *, what: str) -> list[UploadsListed]:
            behind = asked.behind.uuid.int if asked.behind else -1
            return [UploadsListed(uploads=tuple(each for each in entries if each.uuid.int > behind)[:1])]

    assert list(uploads.entries(Remote())) == entries  # type: ignore[arg-type]
    assert list(uploads.entries(Remote(), limit=2)) == entries[:2]  # type: ignore[arg-type]
