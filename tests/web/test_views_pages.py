"""What the pages of a site say of its builds."""

import datetime as dt
import re
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import pytest
from bodies import body, uuid_of
from sites import NOW, InProcess, authorization, make_directory, open_site

from builder.model import Exited, Instant
from builder_web.views import jobs

HOUR_MS = 3600 * 1000
PAST = re.compile(r'aria-label="(Last [^"]*)"')


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[InProcess]:
    async with open_site(make_directory(tmp_path / "data")) as site:
        yield site


async def upload(site: InProcess, number: int, *, ago: int, output: bytes | None, job: str = "hello") -> None:
    """Upload a build of so many hours ago."""
    started = Instant(NOW.ms - ago * HOUR_MS)
    files = {} if output is None else {"bin/hello": output}
    content = body(number, job=job, artifacts=files, started=started, result=Exited(code=0 if output else 1))
    answer = await site.client.request("POST", "/upload", content=content, headers=authorization("admin"))
    assert answer.status == 201


async def test_failures_are_news_for_a_week(site: InProcess) -> None:
    week = jobs.LATELY // dt.timedelta(hours=1)
    await upload(site, 1, ago=week + 1, output=None)
    await upload(site, 2, ago=week + 2, output=b"x")
    assert "Failed lately" not in (await site.client.get("/")).text
    for number in range(3, 12):
        await upload(site, number, ago=week - number, output=None, job="other")
    page = (await site.client.get("/")).text
    lately = page.partition('<section class="lately"')[2].partition("</section>")[0]
    assert lately.count("<li>") == 5
    assert str(uuid_of(1)) not in lately
    assert ">9 failures lately<" in page


async def test_a_platform_can_be_chosen_where_builds_failed(site: InProcess) -> None:
    for number, platform in enumerate(["debian-12", "freebsd-14", "plan 9"], 1):
        files = {"bin/hello": b"1"} if platform == "freebsd-14" else {}
        content = body(number, platform=platform, artifacts=files)
        await site.client.request("POST", "/upload", content=content, headers=authorization("admin"))
    choices = re.compile(r'<a href="(/failed-builds[^"]*)"( aria-current="true")?><bdi>([^<]*)</bdi>')
    assert choices.findall((await site.client.get("/failed-builds")).text) == [
        ("/failed-builds", ' aria-current="true"', "All platforms"),
        ("/failed-builds?platform=debian-12", "", "debian-12"),
        ("/failed-builds?platform=plan%209", "", "plan 9"),
    ]
    page = (await site.client.get("/failed-builds?platform=plan%209")).text
    assert ("/failed-builds?platform=plan%209", ' aria-current="true"', "plan 9") in choices.findall(page)
    assert str(uuid_of(3)) in page
    assert str(uuid_of(1)) not in page
    assert "All platforms" in (await site.client.get("/failed-builds?platform=nowhere")).text


async def test_the_last_builds_are_on_the_first_page(site: InProcess) -> None:
    for number, output in enumerate([b"a", b"a", None, b"a", b"b"], 1):
        await upload(site, number, ago=20 - number, output=output)
    page = (await site.client.get("/")).text
    assert PAST.findall(page) == ["Last 5 builds on debian-12: 2 same output, 2 new output, 1 failed"]


async def test_of_a_long_past_the_last_thirty_builds_are_shown(site: InProcess) -> None:
    for number in range(1, 36):
        await upload(site, number, ago=50 - number, output=b"same")
    assert PAST.findall((await site.client.get("/")).text) == ["Last 30 builds on debian-12: 30 same output"]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("/nowhere", "There is no page at this address"),
        ("/job/nobody", "There is no job nobody here"),
        ("/job/nobody/failed", "There is no job nobody here"),
        ("/job/nobody/builds.atom", "There is no job nobody here"),
        ("/job/nobody/build/latest", "There is no job nobody here"),
        ("/job/failing/build/latest", "No build of failing has succeeded."),
        ("/job/hello/build/latest?platform=plan9", "No build of hello has succeeded on plan9."),
        (f"/job/hello/build/{uuid_of(77)}", f"There is no build {uuid_of(77)} here"),
        ("/job/hello/build/77", "A build is named by its UUID"),
        (f"/job/failing/build/{uuid_of(1)}", f"Build {uuid_of(1)} is one of the job hello."),
        (f"/job/hello/build/{uuid_of(1)}/f/bin/none", "This build has no file bin/none."),
        (f"/job/failing/build/{uuid_of(2)}/main-binary", "This build has no main binary"),
        (f"/job/hello/build/{uuid_of(1)}/vizdependencies", "This build has no opam-switch"),
        (f"/job/hello/build/{uuid_of(1)}/viztreemap", "This build has no file with symbols"),
        (f"/compare/{uuid_of(1)}/{uuid_of(77)}", f"There is no build {uuid_of(77)} here"),
        ("/hash?sha256=77", "That is no SHA256"),
        (f"/hash/{'0' * 64}", "No build has a file with that SHA256"),
        (f"/job/{quote('<script>')}", "There is no job &lt;script&gt; here"),
        ("/job/%ff%00", "it is not UTF-8"),
        (f"/job/hello/build/{uuid_of(1)}/f/%ff", "it is not UTF-8"),
        ("/job/a%00%e2%80%ae", "There is no job a\\x00\\u202e here"),
    ],
)
async def test_it_is_said_what_is_missing(site: InProcess, address: str, said: str) -> None:
    await upload(site, 1, ago=2, output=b"x")
    await upload(site, 2, ago=1, output=None, job="failing")
    answer = await site.client.get(address)
    assert answer.status == 404
    assert said in answer.text
    assert "etag" not in answer.headers
    is_known = re.search("/job/(hello|failing)/", address) is not None and "%ff" not in address
    assert ("See the builds of" in answer.text) == is_known


async def test_the_page_of_a_hash_says_how_many_builds_have_it(site: InProcess) -> None:
    for number in range(1, 6):
        await upload(site, number, ago=number, output=b"same")
    found = re.search("/hash/[0-9a-f]{64}", (await site.client.get("/job/hello")).text)
    assert found
    page = (await site.client.get(f"{found[0]}?count=2&start=2")).text
    assert "in 5 builds" in page
    assert "3–4" in page


async def test_badges_and_feeds_are_not_sent_twice(site: InProcess) -> None:
    await upload(site, 1, ago=1, output=b"x")
    for address in (
        "/job/hello/status.svg",
        "/job/hello/reproducibility.svg",
        "/builds.atom",
        "/job/hello/failed.atom",
    ):
        found = await site.client.get(address)
        assert found.headers["x-content-type-options"] == "nosniff"
        assert (await site.client.get(address, **{"if-none-match": found.headers["etag"]})).status == 304
