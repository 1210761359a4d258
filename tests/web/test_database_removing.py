"""builder-db vacuum and job-remove: what is kept, and what goes from the disk."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import trio
from bodies import STARTED, body
from operating import done, refused
from sites import InProcess, authorization, make_directory, open_site

from builder.model import Instant
from builder_web import policies
from builder_web.directory import DataDirectory
from builder_web.store import builds, users
from builder_web.store.opening import writing
from builder_web.store.removal import Policy

DAY = 24 * 3600 * 1000
HISTORY = ["ok", "ok", "bad", "ok", "bad", "ok", "bad", "bad"]
"""Of a job, the oldest first."""


async def upload(site: InProcess, number: int, outcome: str, job: str = "hello", platform: str = "debian-12") -> None:
    files = {"bin/x": b"%d" % number, "same": b"same"} if outcome == "ok" else {"log": b"%d" % number}
    content = body(number, job=job, platform=platform, artifacts=files, started=Instant(STARTED.ms + number * DAY))
    answer = await site.client.request("POST", "/upload", content=content, headers=authorization("admin"))
    assert answer.status == 201


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("template") / "data"

    async def fill() -> None:
        async with open_site(make_directory(root)) as site:
            for number, outcome in enumerate(HISTORY):
                await upload(site, number, outcome)
            for number in range(20, 23):
                await upload(site, number, "ok", platform="freebsd-14")
            await upload(site, 30, "ok", job="other")

    trio.run(fill)
    return root


@pytest.fixture
async def site(template: Path, tmp_path: Path) -> Any:
    shutil.copytree(template, tmp_path / "data")
    async with open_site(DataDirectory(tmp_path / "data")) as site:
        yield site


async def kept(site: InProcess) -> list[int]:
    found = await site.store.ask(builds.all_builds)
    return sorted(int(one.uuid[-12:], 16) for one in found)


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["except-latest", "100"], [*range(8), 20, 21, 22, 30]),
        (["except-latest", "2"], [6, 7, 21, 22, 30]),
        (["except-latest", "0"], []),
        (["except-latest", "2", "--platform", "freebsd-14"], [*range(8), 21, 22, 30]),
        (["except-latest", "0", "--job", "other", "--job", "none"], [*range(8), 20, 21, 22]),
        (["except-latest-successful", "1"], [5, 6, 7, 22, 30]),  # and not one more
        (["except-latest-successful", "2"], [3, 4, 5, 6, 7, 21, 22, 30]),
        (["except-latest-successful", "4"], [*range(8), 20, 21, 22, 30]),
        (["except-latest-successful", "5"], [*range(8), 20, 21, 22, 30]),
        (["except-latest-successful", "0"], []),
        (["older-than", "2026-11-10"], [4, 5, 6, 7, 20, 21, 22, 30]),
        (["older-than", "2026-11-10T21:20:00Z"], [4, 5, 6, 7, 20, 21, 22, 30]),
        (["older-than", "2026-11-10T21:20:01Z"], [5, 6, 7, 20, 21, 22, 30]),
    ],
)
async def test_vacuum_keeps_what_it_says(site: InProcess, words: list[str], left: list[int]) -> None:
    gone = len(await kept(site)) - len(left)
    said = done("vacuum", *words, "-d", site.directory.root)
    assert said.count("removed ") == gone
    assert await kept(site) == left
    assert done("verify-data-dir", "-d", site.directory.root) == ""
    main = await site.client.get("/all-builds", accept="application/json")
    assert main.status == 200
    assert done("vacuum", *words, "-d", site.directory.root) == ""


async def test_a_content_goes_with_the_last_build_that_has_it(site: InProcess) -> None:
    contents = site.directory.root / "_artifacts"
    assert len(list(contents.glob("*/*"))) == 8 + 3 + 1 + 1
    done("vacuum", "except-latest-successful", "1", "--platform", "freebsd-14", "-d", site.directory.root)
    assert len(list(contents.glob("*/*"))) == 8 + 1 + 1 + 1
    done("vacuum", "except-latest", "0", "-d", site.directory.root)
    assert list(contents.iterdir()) == []
    assert sorted(path.name for path in site.directory.root.iterdir() if path.is_dir()) == ["_artifacts", "_staging"]


async def test_a_job_goes_with_all_that_is_its(site: InProcess) -> None:
    with writing(site.directory.database) as connection:
        users.allow(connection, "limited", "hello")
    assert done("job-remove", "hello", "-d", site.directory.root) == "removed hello with 11 builds\n"
    assert await kept(site) == [30]
    assert (await site.client.get("/job/hello")).status == 404
    assert not (site.directory.root / "hello").exists()
    assert done("verify-data-dir", "-d", site.directory.root) == ""
    assert done("user-list", "-d", site.directory.root).endswith("limited\trestricted: no jobs\n")
    assert refused("job-remove", "hello", "-d", site.directory.root) == (1, "there is no job 'hello'")
    await upload(site, 1, "ok")  # it may begin anew, with the same build
    assert done("verify-data-dir", "-d", site.directory.root) == ""
    assert done("job-remove", "hello", "-d", site.directory.root) == "removed hello with 1 build\n"


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("except-latest-successful 5", Policy(latest_successful=5)),
        (" except-latest 5 --job 'a b' --job c --platform=d", Policy(latest=5, jobs=("a b", "c"), platform="d")),
        ("older-than 2026-11-06", Policy(newer_than=Instant(1_793_923_200_000))),
    ],
)
def test_the_words_of_a_policy(text: str, policy: Policy) -> None:
    assert policies.parse(text) == policy


def test_an_age_counts_back_from_now() -> None:
    age = policies.parse("older-than 90d").newer_than_age
    assert age is not None
    assert age.days == 90


@pytest.mark.parametrize(
    "text", ["", " ", "all", "except-latest", "except-latest x", "older-than -1d", "'", "--help", "older-than 1d x"]
)
def test_words_that_are_no_policy(text: str) -> None:
    with pytest.raises(ValueError, match=" "):
        policies.parse(text)
