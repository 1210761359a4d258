"""A disk that is full in earnest: a small one, that fills up while builds are uploaded."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from bodies import body, large
from operators import need
from program import running
from sites import authorization, make_directory

from builder_web.store import builds, opening
from builder_web.verification import DataDirectoryCheck

MB = 1024 * 1024


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB."""
    need("mount", ["mount", "umount"], root=True)
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", place], check=False, capture_output=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.decode()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


def test_a_full_disk_is_said_and_leaves_nothing_half_done(small_disk: Path) -> None:
    directory = make_directory(small_disk / "data")
    with running(directory.root) as program, httpx.Client(base_url=program.url, trust_env=False, timeout=60) as client:

        def upload(content: object) -> int:
            answer = client.post("/upload", content=content, headers=authorization("admin"))  # type: ignore[arg-type]
            return answer.status_code

        assert upload(large(1, size=32 * MB)) == 507
        assert upload(large(2, lines=32 * 1024)) == 507
        assert list(directory.staging.iterdir()) == []
        statuses = [upload(body(number, artifacts={"bin/x": b"%d" % number + bytes(MB)})) for number in range(3, 25)]
        taken = statuses.count(201)
        assert 3 < taken < 22
        assert set(statuses) == {201, 507}
        for target in ("/", "/job/hello", "/healthz"):
            assert client.get(target).status_code == 200
        assert program.stop() == 0
    with opening.reading(directory.database) as connection:
        assert list(DataDirectoryCheck(directory).faults(connection)) == []
        assert len(builds.all_builds(connection)) == taken
    assert list(directory.staging.iterdir()) == []
