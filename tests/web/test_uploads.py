"""What builder-web promises to those who upload: what is taken, what is refused and how, and that nothing is left of it."""

import gzip
import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
import zstandard
from bodies import body, large, uuid_of
from served import read_until, serving_site
from sites import InProcess, authorization, make_directory, open_site

from builder.runtime import files, syncing
from builder.runtime.database import StoreError
from builder_server.receiver import Receiver, UploadFailed, UploadRefused
from builder_web.receiving import execution, staging
from builder_web.serving.connection import Limits
from builder_web.store import builds, opening, users
from builder_web.verification import DataDirectoryCheck
from builder_web.views import uploads

ADMIN = authorization("admin")


@pytest.fixture
async def site(tmp_path: Path) -> Any:
    async with open_site(make_directory(tmp_path / "data")) as site:
        yield site


async def post(site: InProcess, content: bytes, **headers: str) -> tuple[int, str]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await site.client.request("POST", "/upload", content=content, headers={**ADMIN, **named})
    return answer.status, answer.text.strip()


def faults(site: InProcess) -> list[str]:
    """Return what verify-data-dir says, and what is staged."""
    with opening.reading(site.directory.database) as connection:
        found = list(DataDirectoryCheck(site.directory).faults(connection))
    if site.directory.staging.exists():
        found += [path.name for path in site.directory.staging.iterdir()]
    return found


async def builds_of(site: InProcess, job: str = "hello") -> int:
    return len(await site.store.ask(builds.newest, job, None, 1000))


async def test_a_build_is_kept_whole(site: InProcess) -> None:
    assert await post(site, body(1, console=(b"first", b"\xffsecond"))) == (201, "")
    build = site.directory.build("hello", str(uuid_of(1)))
    assert (build / "script.txt").read_bytes() == b"#!/bin/sh\nmake\n"
    assert (build / "console.txt").read_bytes() == b"0.000s:first\n0.000s:\xffsecond\n"
    assert site.directory.content(hashlib.sha256(b"binary 1").digest()).read_bytes() == b"binary 1"
    assert [new.uuid for new in site.recorded] == [str(uuid_of(1))]
    assert faults(site) == []


@pytest.mark.parametrize("make", [gzip.compress, zstandard.compress, lambda data: data], ids=["gzip", "zstd", "plain"])
async def test_a_body_may_be_compressed(site: InProcess, make: Callable[[bytes], bytes]) -> None:
    encoding = {gzip.compress: "gzip", zstandard.compress: "zstd"}.get(make, "identity")
    assert await post(site, make(body()), content_encoding=encoding) == (201, "")
    assert faults(site) == []


BAD = {
    "nothing": (b"", "cut off"),
    "cut off": (body()[:-1], "cut off"),
    "more": (body() + b"x", "after"),
    "nonsense": (b"x" * 1000, "tag"),
    "no job": (body(job=""), "job name"),
    "job of two parts": (body(job="a/b"), "job name"),
    "job outside": (body(job=".."), "job name"),
    "job that is a folder": (body(job="_artifacts"), "job name"),
    "job that is a file": (body(job="builder.sqlite3-wal"), "job name"),
    "platform of two lines": (body(platform="a\nb"), "platform"),
    "no platform": (body(platform=""), "platform"),
    "artifact outside": (body(artifacts={"../x": b""}), "artifact path"),
    "artifact at the root": (body(artifacts={"/etc/passwd": b""}), "artifact path"),
    "artifact without a name": (body(artifacts={"a//b": b""}), "artifact path"),
    "artifact with a zero": (body(artifacts={"a\0b": b""}), "artifact path"),
    "artifact that is no text": (body(artifacts={"a\udcff": b""}), "not UTF-8"),
}


@pytest.mark.parametrize("name", BAD)
async def test_what_can_not_be_taken_is_refused_with_the_reason(site: InProcess, name: str) -> None:
    content, reason = BAD[name]
    status, text = await post(site, content)
    assert (status, reason in text) == (400, True), text
    assert faults(site) == []
    assert sorted(path.name for path in site.directory.root.parent.iterdir()) in (
        ["data"],
        ["data", "data-template.sqlite3"],
    )


async def test_the_number_of_artifacts_is_bounded(site: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "MAX_ARTIFACTS", 3)
    files = {f"file-{index}": b"" for index in range(4)}
    assert await post(site, body(artifacts=files)) == (400, "Bad upload: more than 3 artifacts")
    del files["file-3"]
    assert await post(site, body(artifacts=files)) == (201, "")


async def test_of_many_readmes_one_is_kept_in_memory(site: InProcess) -> None:
    files = {f"{index}/README.md": b"deep" for index in range(9)} | {"README.md": b"# Hello"}
    assert await post(site, body(artifacts=files)) == (201, "")
    assert site.recorded[0].tags["readme.md"] == "# Hello"
    assert site.recorded[0].artifacts == ()


@pytest.mark.parametrize(
    ("encoding", "content", "reason"),
    [
        ("br", b"", "is not known"),
        ("gzip", b"no", "is not gzip"),
        ("gzip", gzip.compress(body())[:-1], "cut off"),
        ("gzip", gzip.compress(body()) + b"x", "after the end"),
        ("zstd", b"no zstd at all", "is not zstd"),
        ("zstd", zstandard.compress(body())[:-1], "cut off"),
    ],
)
async def test_a_body_that_is_not_what_its_encoding_says(
    site: InProcess, encoding: str, content: bytes, reason: str
) -> None:
    status, text = await post(site, content, content_encoding=encoding)
    assert (status, reason in text) == (400, True), text
    assert faults(site) == []


@pytest.mark.parametrize("compress", [None, gzip.compress, zstandard.compress])
async def test_a_body_beyond_the_limit_is_refused(tmp_path: Path, compress: Any) -> None:
    content = body(artifacts={"zeros": bytes(4 * 1024 * 1024)})
    async with open_site(make_directory(tmp_path / "data"), max_upload=1024 * 1024) as site:
        encoding = {gzip.compress: "gzip", zstandard.compress: "zstd"}.get(compress, "identity")
        status, text = await post(site, compress(content) if compress else content, content_encoding=encoding)
        assert (status, text) == (413, "the upload has more than 1048576 bytes")
        assert faults(site) == []


async def test_without_the_right_password_nothing_is_read(site: InProcess) -> None:
    for headers in ({}, authorization("admin", "wrong"), authorization("nobody", "x"), {"authorization": "Bearer x"}):
        answer = await site.client.request("POST", "/upload", content=body(), headers=headers)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Basic realm="builder-web"')
    assert faults(site) == []


async def test_a_restricted_user_may_upload_what_is_on_its_list(site: InProcess) -> None:
    limited = authorization("limited")
    answer = await site.client.request("POST", "/upload", content=body(1), headers=limited)
    assert (answer.status, "www-authenticate" in answer.headers) == (401, False)
    assert await post(site, body(1)) == (201, "")
    answer = await site.client.request("POST", "/upload", content=body(1), headers=limited)
    assert answer.status == 401  # and not that it exists
    with opening.writing(site.directory.database) as connection:
        users.allow(connection, "limited", "hello")
    assert (await site.client.request("POST", "/upload", content=body(2), headers=limited)).status == 201
    assert faults(site) == []


async def test_who_was_removed_while_it_uploaded_has_uploaded_nothing(
    site: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = execution.Reception.finish

    def remove_user_first(self: Any) -> Any:
        with opening.writing(site.directory.database) as connection:
            users.remove(connection, "admin")
        return finish(self)

    monkeypatch.setattr(execution.Reception, "finish", remove_user_first)
    assert await post(site, body()) == (401, "Unauthorized!")
    assert faults(site) == []


async def test_one_of_two_uploads_of_the_same_build_is_kept(site: InProcess) -> None:
    statuses: list[int] = []

    async def upload(content: bytes) -> None:
        statuses.append((await post(site, content))[0])

    for round_ in range(5):
        async with trio.open_nursery() as nursery:
            for index in range(4):
                files = {"bin/x": b"%d" % index, "same": b"same", f"{index}": b"of its own %d" % index}
                nursery.start_soon(upload, body(round_, artifacts=files))
        assert faults(site) == []
    assert sorted(statuses) == [201] * 5 + [409] * 15


async def test_many_uploads_of_the_same_contents_at_once(site: InProcess) -> None:
    async with trio.open_nursery() as nursery:
        for index in range(30):
            files = {"bin/x": b"same", "empty": b"", "also empty": b"", "own": b"%d" % index}
            nursery.start_soon(post, site, body(index, job=f"job-{index % 3}", artifacts=files))
    assert sum([await builds_of(site, f"job-{index}") for index in range(3)]) == 30
    assert len(site.recorded) == 30
    assert faults(site) == []


async def test_a_binary_alone_becomes_a_build(site: InProcess) -> None:
    target = "/job/hand/platform/arm64/upload"
    answer = await site.client.request("POST", f"{target}?binary_name=x.hvt", content=b"\x7fELF", headers=ADMIN)
    assert answer.status == 201
    assert [file.path for file in site.recorded[0].artifacts] == ["bin/x.hvt"]
    assert (await site.client.request("POST", target, content=b"", headers=ADMIN)).status == 201
    for name in ("", ".", "..", "a/b", "a%0Ab", "%00"):
        answer = await site.client.request("POST", f"{target}?binary_name={name}", content=b"", headers=ADMIN)
        assert answer.status == 400, name
    assert (await site.client.request("POST", "/job/_cache/platform/x/upload", headers=ADMIN)).status == 400
    assert (await site.client.request("POST", target, content=b"")).status == 401
    answer = await site.client.request("POST", target, content=b"", headers=authorization("limited"))
    assert (answer.status, "www-authenticate" in answer.headers) == (401, False)
    assert faults(site) == []


async def test_a_full_disk_leaves_nothing(site: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: Any, **_options: Any) -> None:
        raise OSError(28, "No space left on device")

    for target, name in (
        (staging.ContentWriter, "write"),
        (staging.ContentWriter, "finish"),
        (staging.Staging, "new_content"),
        (files, "sync_directory"),
        (syncing, "sync_together"),
        (os, "fsync"),
        (os, "link"),
        (Path, "write_bytes"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, full)
            assert await post(site, body()) == (507, "The disk is full"), name
        assert faults(site) == [], name
    assert await post(site, body()) == (201, "")


async def test_files_are_synced_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    all_at_once = threading.Barrier(3)
    monkeypatch.setattr(os, "fsync", lambda _descriptor: all_at_once.wait(timeout=20))
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    await trio.to_thread.run_sync(syncing.sync_together, [tmp_path, tmp_path / "file", tmp_path / "folder"])
    with pytest.raises(FileNotFoundError):
        syncing.sync_together([tmp_path / "none"])


async def test_a_database_that_can_not_be_used_is_said_so(site: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_args: Any) -> None:
        raise StoreError("database is locked")

    with monkeypatch.context() as patch:
        patch.setattr(type(site.site.recorder), "record", fail)
        answer = await site.client.request("POST", "/upload", content=body(), headers=ADMIN)
    assert (answer.status, answer.headers["retry-after"]) == (503, "30")
    assert faults(site) == []


# --- over real connections ----------------------------------------------------------------------------------------


def head(length: int, *headers: str, user: str = "admin", password: str | None = None) -> bytes:
    given = f"authorization: {authorization(user, password)['authorization']}"
    lines = ["POST /upload HTTP/1.1", "Host: x", f"Content-Length: {length}", given, *headers, "", ""]
    return "\r\n".join(lines).encode()


async def test_what_is_known_is_refused_before_its_body_has_come(tmp_path: Path) -> None:
    async with serving_site(make_directory(tmp_path / "data")) as (site, served):
        assert (await post(site, body(1)))[0] == 201
        async with await served.connect() as stream:
            await stream.send_all(head(10**9) + b"".join(large(1, size=10**8 // 2**18 * 2**18))[:200])
            assert (await read_until(stream, b"\n")).startswith(b"HTTP/1.1 409 Conflict")
        assert faults(site) == []


async def test_who_is_refused_by_its_password_is_not_asked_for_its_body(tmp_path: Path) -> None:
    async with serving_site(make_directory(tmp_path / "data"), Limits(linger=0.1)) as (_, served):
        answer = await served.exchange(head(10**9, "Expect: 100-continue", password="wrong"))
        assert answer.startswith(b"HTTP/1.1 401 ")


async def test_a_dropped_connection_leaves_nothing(tmp_path: Path) -> None:
    content = body(artifacts={"bin/x": bytes(3 * 1024 * 1024)})
    async with serving_site(make_directory(tmp_path / "data")) as (site, served):
        for kept in (1, 100, len(content) // 2, len(content) - 1):
            async with await served.connect() as stream:
                await stream.send_all(head(len(content)) + content[:kept])
                await stream.send_eof()
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 400 ")
            await wait_until(lambda: not list(site.directory.staging.glob("*")))
            assert faults(site) == []
        async with await served.connect() as stream:
            await stream.send_all(head(len(content)) + content[:-1])
            await wait_until(lambda: any(site.directory.staging.iterdir()))
        await wait_until(lambda: not any(site.directory.staging.iterdir()))
        assert faults(site) == []


async def wait_until(is_so: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not is_so():  # noqa: ASYNC110 - it is the disk that changes
            await trio.sleep(0.01)


async def test_a_fault_is_answered_while_the_next_piece_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "PIECE_SIZE", 1000)
    content = body(artifacts={"a": bytes(10_000), "../x": b"", "b": bytes(10_000)})
    begin, rest = content[:100], content[100:-5000]
    async with serving_site(make_directory(tmp_path / "data"), Limits(linger=0.1)) as (site, served):
        answer = await served.exchange(head(len(content)) + begin, rest)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"artifact path" in answer
        assert faults(site) == []


async def test_an_upload_that_stalls_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "STALLED", 0.2)
    async with serving_site(make_directory(tmp_path / "data"), Limits(linger=0.1)) as (site, served):
        assert (await served.exchange(head(1000) + body()[:50])).startswith(b"HTTP/1.1 408 ")
        assert faults(site) == []


async def test_what_is_announced_as_too_large_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    async with serving_site(make_directory(tmp_path / "data"), Limits(linger=0.1), max_upload=1000) as (site, served):
        answer = await served.exchange(head(1001).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert faults(site) == []


@pytest.mark.parametrize(
    ("user", "limit", "status"), [("admin", 10**9, 409), ("nobody", 10**9, 401), ("admin", 1000, 413)]
)
async def test_builder_server_reads_why_it_was_refused(tmp_path: Path, user: str, limit: int, status: int) -> None:
    path = tmp_path / "full"
    with path.open("wb") as file:
        file.writelines(large(1, size=64 * 1024 * 1024))
    async with serving_site(make_directory(tmp_path / "data"), max_upload=limit) as (site, served):
        if status == 409:
            assert (await post(site, body(1)))[0] == 201
        receiver = Receiver.at(f"http://{user}:correct%20horse@127.0.0.1:{served.port}/upload", {})
        if status == 409:
            assert await receiver.post(path) == 409
        else:
            with pytest.raises((UploadFailed, UploadRefused), match=f"answered HTTP {status} "):
                await receiver.post(path)


async def test_below_a_prefix_addresses_begin_with_it(tmp_path: Path) -> None:
    async with serving_site(make_directory(tmp_path / "data"), prefix="/builds") as (site, served):
        assert (await post(site, body(1)))[0] == 201
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.port}", trust_env=False) as client:
            for path in ("/builds/job/hello/build/latest", "/job/hello/build/latest"):
                answer = await client.get(path)
                assert (answer.status_code, answer.headers["location"]) == (
                    307,
                    f"/builds/job/hello/build/{uuid_of(1)}",
                )
            page = (await client.get("/builds/")).text
            assert 'href="/builds/job/hello' in page
            assert 'href="/job/' not in page
            for kind in ("HEAD", "GET"):
                answer = await client.request(kind, f"/builds/job/hello/build/{uuid_of(1)}/exec")
                assert answer.status_code == 200


async def test_a_body_may_come_in_chunks(tmp_path: Path) -> None:
    async def pieces() -> Any:
        content = body()
        for start in range(0, len(content), 7):
            yield content[start : start + 7]

    async with serving_site(make_directory(tmp_path / "data")) as (site, served), httpx.AsyncClient() as client:
        answer = await client.post(f"http://127.0.0.1:{served.port}/upload", content=pieces(), headers=ADMIN)
        assert answer.status_code == 201
        assert faults(site) == []
