"""Files as they are: hostile ones can do nothing in the origin of the site, large ones cost nothing that was paid already."""

import base64
import datetime as dt
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest
import sqlalchemy as sa
import trio
from bodies import body, uuid_of
from sites import NOW, Client, InProcess, authorization, make_directory, open_site

from builder_web import derived
from builder_web.application import make as make_application
from builder_web.console_index import ConsoleIndex
from builder_web.store import builds, consoles, schema

BUILD = f"/job/hello/build/{uuid_of(1)}"
PAGE = b"<!doctype html><script>alert(document.domain)</script>"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[InProcess]:
    files = {
        "bin/hello": b"0123456789",
        "index.html": PAGE,
        "picture.svg": b"<svg onload='alert(1)'/>",
        "code.js": b"1",
        "manual.pdf": b"%PDF-1.7",
        "x.webm": b"1",
    }
    async with open_site(make_directory(tmp_path / "data")) as site:
        content = body(1, artifacts=files, console=(b"<script>", b"second"))
        assert (
            await site.client.request("POST", "/upload", content=content, headers=authorization("admin"))
        ).status == 201
        yield site


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/f/index.html", "text/html; charset=utf-8"),
        ("/f/picture.svg", "image/svg+xml"),
        ("/f/code.js", "application/javascript; charset=utf-8"),
        ("/f/bin/hello", "application/octet-stream"),
        ("/console", "text/plain; charset=utf-8"),
        ("/script", "text/plain; charset=utf-8"),
    ],
)
async def test_what_was_uploaded_can_not_run_in_the_origin_of_the_site(
    site: InProcess, path: str, media_type: str
) -> None:
    for method in ("GET", "HEAD"):
        answer = await site.client.request(method, BUILD + path)
        assert (answer.status, answer.headers["content-type"]) == (200, media_type)
        assert answer.headers["x-content-type-options"] == "nosniff"
        policy = answer.headers["content-security-policy"].split("; ")
        assert {"sandbox", "default-src 'none'"} <= set(policy)
        assert not any(part.startswith(("script-src", "sandbox allow")) for part in policy)


@pytest.mark.parametrize(
    ("path", "disposition"),
    [
        ("index.html", None),
        ("picture.svg", None),
        ("code.js", None),
        ("manual.pdf", "attachment"),
        ("x.webm", "attachment"),
    ],
)
async def test_what_a_sandbox_can_not_show_is_offered_for_saving(
    site: InProcess, path: str, disposition: str | None
) -> None:
    answer = await site.client.get(f"{BUILD}/f/{path}")
    assert answer.headers.get("content-disposition") == disposition


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/f/bin/hello",
        "/f/index.html",
        "/console",
        "/script",
        "/exec",
        "/all.tar.gz",
        "/console/view",
        "/script/view",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_whatever_has_a_time_is_not_sent_again_to_who_repeats_it(site: InProcess, path: str, method: str) -> None:
    found = await site.client.request(method, BUILD + path)
    known = {"if-modified-since": found.headers["last-modified"]}
    assert (await site.client.request(method, BUILD + path, headers=known)).status == 304
    assert (await site.client.request(method, BUILD + path, headers={**known, "if-none-match": '"x"'})).status == 200


@pytest.mark.parametrize(
    "path",
    ["/", "/all-builds", "/failed-builds", "/job/hello", "/builds.atom", "/job/hello/status.svg", "/search?q=h", "/robots.txt",
     "/static/style.css"],
)  # fmt: skip
async def test_lists_have_a_tag_and_a_time_as_well(site: InProcess, path: str) -> None:
    found = await site.client.get(path)
    assert (await site.client.get(path, **{"if-none-match": found.headers["etag"]})).status == 304
    assert (await site.client.get(path, **{"if-modified-since": found.headers["last-modified"]})).status == 304
    assert (await site.client.get(path, **{"if-modified-since": "Thu, 01 Jan 2099 00:00:00 GMT"})).status == 200


@pytest.mark.parametrize(
    "path", ["/", "/all-builds", "/failed-builds", "/job/hello", BUILD, f"{BUILD}/console/view", f"{BUILD}/script/view"]
)
async def test_a_page_says_its_whole_address(site: InProcess, path: str) -> None:
    html = (await site.client.get(path, host="builds.example.org:8080")).text
    whole = f"http://builds.example.org:8080{path}"
    assert f'<link rel="canonical" href="{whole}">' in html
    assert f'<meta property="og:url" content="{whole}">' in html


async def test_a_hostile_host_is_text(site: InProcess) -> None:
    html = (await site.client.get(BUILD, host='"><script>alert(1)</script>')).text
    assert "<script>alert" not in html


async def test_a_page_is_as_old_as_what_it_shows(site: InProcess) -> None:
    async def modified(minutes: int) -> str:
        later = attrs.evolve(site.site, now=lambda: NOW.plus(dt.timedelta(minutes=minutes)))
        application = make_application(later)
        return (await Client(application).get(BUILD)).headers["last-modified"]

    first = await modified(1)
    assert await modified(2) == first
    await site.client.request("POST", "/upload", content=body(2), headers=authorization("admin"))
    assert await modified(3) != first


async def test_a_file_is_sent_in_parts_and_not_twice(site: InProcess) -> None:
    address = f"{BUILD}/f/bin/hello"
    whole = await site.client.get(address)
    assert whole.headers["etag"] == base64.b64encode(hashlib.sha256(b"0123456789").digest()).decode()
    assert whole.headers["last-modified"].endswith("GMT")
    part = await site.client.get(address, range="bytes=2-4")
    assert (part.status, part.content, part.headers["content-range"]) == (206, b"234", "bytes 2-4/10")
    end = await site.client.get(f"{BUILD}/console", range="bytes=-7")
    assert (end.status, end.content) == (206, b"second\n")
    assert (await site.client.get(address, range="bytes=99-")).status == 416
    assert (await site.client.get(address, **{"if-none-match": whole.headers["etag"]})).status == 304
    head = await site.client.request("HEAD", address)
    assert (head.content, head.headers["content-length"]) == (b"", "10")


async def test_a_script_is_read_once_for_its_etag(site: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await site.client.get(f"{BUILD}/script")
    assert first.headers["etag"] == hashlib.sha256(first.content).hexdigest()
    monkeypatch.setattr(hashlib, "file_digest", None)
    assert (await site.client.get(f"{BUILD}/script")).headers["etag"] == first.headers["etag"]


async def test_a_console_is_read_once_for_its_etag(site: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    first = await site.client.get(f"{BUILD}/console")
    assert first.headers["etag"] == hashlib.sha256(first.content).hexdigest()
    monkeypatch.setattr(ConsoleIndex, "of", None)
    again = await site.client.get(f"{BUILD}/console", **{"if-none-match": first.headers["etag"]})
    assert again.status == 304
    assert (await site.client.get(f"{BUILD}/console/view")).status == 200


async def test_the_lines_of_a_console_are_known_once_it_was_uploaded(
    site: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = await site.store.ask(builds.find, str(uuid_of(1)))
    assert build
    assert await site.store.ask(consoles.find, build.id) == ConsoleIndex.of(site.directory.below(build.console))
    monkeypatch.setattr(ConsoleIndex, "of", None)
    assert (await site.client.get(f"{BUILD}/console/view")).status == 200


async def forget_consoles(site: InProcess) -> None:
    """Have a site know as little of consoles as of those that another program has received."""
    await site.store.database.write(lambda connection: connection.execute(sa.delete(schema.console)))


async def test_of_all_who_ask_at_once_one_reads_the_console(site: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    await forget_consoles(site)
    read: list[Path] = []
    of = ConsoleIndex.of

    def count(path: Path) -> ConsoleIndex:
        read.append(path)
        return of(path)

    monkeypatch.setattr(ConsoleIndex, "of", count)
    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(site.client.get, f"{BUILD}/console/view?line={number}")
    assert len(read) == 1


async def test_large_consoles_of_another_program_are_read_before_somebody_asks(
    site: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, line in ((2, b"x" * 200), (3, b"short"), (4, b"y" * 200)):
        content = body(number, console=(line,))
        answer = await site.client.request("POST", "/upload", content=content, headers=authorization("admin"))
        assert answer.status == 201
    await forget_consoles(site)
    monkeypatch.setattr(derived, "LARGE", 100)
    monkeypatch.setattr(derived, "_LOOKED_AT", 1)
    gone = await site.store.ask(builds.find, str(uuid_of(2)))
    assert gone
    site.directory.below(gone.console).unlink()
    await derived.note_consoles(site.store, site.directory)
    known = await site.store.ask(lambda connection: connection.scalars(sa.select(schema.console.c.build)).all())
    large = await site.store.ask(builds.find, str(uuid_of(4)))
    assert large
    assert known == [large.id]


async def test_an_index_is_kept_as_it_was_made(site: InProcess) -> None:
    await forget_consoles(site)
    build = await site.store.ask(builds.find, str(uuid_of(1)))
    assert build
    made = await derived.console_of(site.store, site.directory, build)
    assert await site.store.ask(consoles.find, build.id) == made


@pytest.mark.parametrize("path", ["/exec", "/all.tar.gz", "", "/console/view", "/script/view"])
async def test_whatever_did_not_change_is_not_sent_again(site: InProcess, path: str) -> None:
    found = await site.client.get(BUILD + path)
    assert found.status == 200
    again = await site.client.get(BUILD + path, **{"if-none-match": found.headers["etag"]})
    assert (again.status, again.content) == (304, b"")


async def test_the_head_of_an_archive_does_not_read_its_files(site: InProcess) -> None:
    site.directory.content(hashlib.sha256(b"0123456789").digest()).unlink()
    answer = await site.client.request("HEAD", f"{BUILD}/all.tar.gz")
    assert (answer.status, answer.content) == (200, b"")
    assert "content-length" not in answer.headers  # it is not known


async def test_a_file_that_is_gone_is_no_fault_of_the_site(site: InProcess) -> None:
    build = site.directory.build("hello", str(uuid_of(1)))
    for name in ("console.txt", "script.txt"):
        (build / name).unlink()
    for path in ("/console", "/console/view", "/script", "/script/view"):
        answer = await site.client.get(BUILD + path)
        assert answer.status == 404
        assert "no longer on the disk" in answer.text
