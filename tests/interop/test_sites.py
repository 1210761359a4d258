"""One data directory, opened by the original's builder-web and by ours in turn; uploads to both."""

import http.client
import json
import os
import socket
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from attrs import frozen
from check_peer import WEB, require
from peers import DEADLINE, Farm, binary, end, free_port, wait_until

from builder import execution
from builder.model import Artifact, ConsoleLine, Execution, Exited, Instant, ScriptJob

pytestmark = pytest.mark.interop

KINDS = ("ours", "theirs")
PAIRS = [("ours", "theirs"), ("theirs", "ours")]
PASSWORD = "secret"
AUTHORIZATION = "Basic " + b64encode(f"user:{PASSWORD}".encode()).decode()
ENVIRONMENT = {"MIOU_DOMAINS": "3"}
"""The original takes as many cores as there are, and needs more than one to answer while it takes an upload."""


@pytest.fixture(autouse=True)
def _peer_programs() -> None:
    require(WEB)


@frozen
class Site:
    """A builder-web of one kind that runs."""

    port: int

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def upload(self, body: bytes, password: str = PASSWORD) -> int:
        given = "Basic " + b64encode(f"user:{password}".encode()).decode()
        return self.request("POST", "/upload", body, Authorization=given)[0]

    def json(self, path: str) -> Any:
        status, content = self.request("GET", path, Accept="application/json")
        assert status == 200, (path, status, content)
        return json.loads(content)

    def artifact(self, uuid: UUID) -> bytes:
        status, content = self.request("GET", f"/job/hello/build/{uuid}/f/bin/hello")
        assert status == 200, (status, content)
        return content


def administer(kind: str, data: Path, *arguments: str, said: str = "") -> str:
    """Run a builder-db, and return what it said."""
    done = subprocess.run(
        [binary(kind, "builder-db"), *arguments, "-d", str(data)],
        input=said,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, (kind, arguments, done.stdout, done.stderr)
    return done.stdout + done.stderr


def make_directory(kind: str, data: Path) -> Path:
    """Make a data directory with a user by a builder-db."""
    data.mkdir()
    administer(kind, data, "migrate")
    administer(kind, data, "user-add", "--unrestricted", "user", said=PASSWORD)
    return data


@contextmanager
def running(kind: str, data: Path) -> Iterator[Site]:
    """Run a builder-web on a data directory until the block ends."""
    port, configuration, log = free_port(), data.with_name("etc"), data.with_name(f"builder-web-{kind}.log")
    configuration.mkdir(exist_ok=True)
    options = ["-h", "127.0.0.1", "-p", str(port), "-d", str(data), "-c", str(configuration)]

    def accepts() -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
            return True
        assert process.poll() is None, log.read_text(errors="replace")
        return False

    with log.open("ab") as target:
        process = subprocess.Popen(
            [binary(kind, "builder-web"), *options],
            stdout=target,
            stderr=target,
            start_new_session=True,
            env=os.environ | ENVIRONMENT,
        )
    try:
        wait_until(accepts, f"{kind} builder-web listening")
        yield Site(port)
        process.terminate()
        process.wait(DEADLINE)
    finally:
        end(process)


def build(content: bytes = b"hello") -> tuple[UUID, bytes]:
    """Return a new build of the job ``hello``, and its upload."""
    uuid = uuid4()
    made = Execution(
        job=ScriptJob(name="hello", platform="debian-12", script=b"#!/bin/sh\nmake\n"),
        uuid=uuid,
        console=(ConsoleLine(delta=1_000_000, line=b"made"),),
        started=Instant(1_794_000_000_000),
        finished=Instant(1_794_000_060_000),
        result=Exited(code=0),
        artifacts=(Artifact(path="bin/hello", content=content), Artifact(path="doc/notes", content=b"notes")),
    )
    return uuid, execution.encode(made)


def said_of(site: Site, uuids: list[UUID]) -> list[Any]:
    """Return all that a site says of builds in JSON, and its bytes of what they left."""
    job = sorted(site.json("/job/hello")["builds"], key=lambda one: one["uuid"])
    assert [one["uuid"] for one in job] == sorted(map(str, uuids))
    return [job, *((site.json(f"/job/hello/build/{uuid}"), site.artifact(uuid)) for uuid in uuids)]


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_one_directory_in_turn(tmp_path: Path, first: str, second: str) -> None:
    data = make_directory(first, tmp_path / "data")
    uuids: list[UUID] = []
    before: list[Any] = []
    body = b""
    for kind in (first, second, first, second):
        with running(kind, data) as site:
            if uuids:
                assert said_of(site, uuids) == before
                assert site.upload(body) == 409
            uuid, body = build(b"hello %d" % len(uuids))  # a job's page has a build for each output
            assert site.upload(body, password="wrong") == 401
            assert site.upload(body) == 201
            uuids.append(uuid)
            before = said_of(site, uuids)
    administer("ours", data, "verify-data-dir")
    assert "user" in administer(second, data, "user-list")


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_a_directory_of_one_is_administered_by_the_other(tmp_path: Path, first: str, second: str) -> None:
    data = make_directory(first, tmp_path / "data")
    administer(second, data, "user-update", "--unrestricted", "user", said="another")
    uuid, body = build()
    with running(first, data) as site:
        assert site.upload(body) == 401
        assert site.upload(body, password="another") == 201
    extracted = tmp_path / "extracted"
    administer(second, data, "extract-build", "--dest", str(extracted), str(uuid))
    found = execution.decode(extracted.read_bytes())
    assert sorted((file.path, file.content) for file in found.artifacts) == [
        ("bin/hello", b"hello"),
        ("doc/notes", b"notes"),
    ]
    administer(second, data, "job-remove", "hello")
    with running(first, data) as site:
        assert site.request("GET", "/job/hello", Accept="application/json")[0] == 404
        assert site.upload(body, password="another") == 201


@pytest.mark.parametrize("kind", KINDS)
def test_builder_server_uploads_to_both(tmp_path: Path, kind: str) -> None:
    data = make_directory(kind, tmp_path / "data")
    root = tmp_path / "farm"
    root.mkdir()
    with running(kind, data) as site:
        farm = Farm(root, "ours", upload=f"http://user:{PASSWORD}@127.0.0.1:{site.port}/upload")
        try:
            farm.start_server()
            script = farm.script("#!/bin/sh\nmkdir bin\nprintf hello > bin/hello\n")
            farm.client("ours", "schedule", "hello", "p1", script)
            assert farm.start_worker("ours").wait(DEADLINE) == 0
            wait_until(lambda: "uploaded (HTTP 201)" in farm_log(farm), "an upload")
            wait_until(lambda: not farm.fulls("hello"), "no local copy")
        finally:
            farm.close()
        (found,) = site.json("/job/hello")["builds"]
        assert site.artifact(UUID(found["uuid"])) == b"hello"


def farm_log(farm: Farm) -> str:
    return (farm.root / "builder-server-ours.log").read_text(errors="replace")
