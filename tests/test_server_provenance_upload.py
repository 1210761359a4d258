"""builder-server and receivers that name a place for what it has signed: what goes there, and what never does."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from endpoints import CREDENTIALS, Endpoint, serving

from builder_server.receiver import Receiver, UploadFailed, UploadRefused


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving() as endpoint:
        yield endpoint


@pytest.fixture
def files(tmp_path: Path) -> Path:
    (tmp_path / "full").write_bytes(b"full")
    (tmp_path / "provenance.json").write_bytes(b"signed")
    return tmp_path


async def post(endpoint: Endpoint, files: Path) -> int:
    async def provenance() -> Path:
        return files / "provenance.json"

    return await Receiver.at(endpoint.url(), {}).post(files / "full", provenance)


@pytest.mark.parametrize("status", [201, 409])
async def test_it_is_posted_to_the_place_that_the_answer_names(endpoint: Endpoint, files: Path, status: int) -> None:
    endpoint.status, endpoint.provenance = status, "/job/a/provenance"
    assert await post(endpoint, files) == status
    assert [(each.path, each.body) for each in endpoint.requests] == [
        ("/upload?token=1", b"full"),
        ("/job/a/provenance", b"signed"),
    ]
    assert endpoint.requests[1].headers["Authorization"] == CREDENTIALS


@pytest.mark.parametrize(
    "place", ["", "http://other.example/x", "//other.example/x", "https://127.0.0.1/x", "http://[x"]
)
async def test_nothing_goes_elsewhere(endpoint: Endpoint, files: Path, place: str) -> None:
    endpoint.provenance = place
    assert await post(endpoint, files) == 201
    assert len(endpoint.requests) == 1


async def test_what_became_of_it_becomes_of_the_upload(endpoint: Endpoint, files: Path) -> None:
    endpoint.provenance = "provenance"
    for status, error in ((400, UploadRefused), (503, UploadFailed), (302, UploadFailed)):
        endpoint.first = [201, status]
        with pytest.raises(error):
            await post(endpoint, files)
    assert endpoint.requests[-1].path == "/provenance"


async def test_what_is_not_signed_is_not_asked_for(endpoint: Endpoint, files: Path) -> None:
    """A receiver of another kind has no such place: nobody waits for a signature there."""

    async def never() -> Path:
        raise AssertionError

    assert await Receiver.at(endpoint.url(), {}).post(files / "full", never) == 201
