"""What the search finds: jobs, files, packages, hashes; as fast for a million files as for ten."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from bodies import body
from sites import InProcess, authorization, make_directory, open_site

from builder_web import derived
from builder_web.store import builds, finding, packages, removal

SWITCH = b"""opam-version: "2.0"
roots: ["hello.1.0"]
installed: ["hello.1.0" "dune.3.17.2" "ocaml.4.14.2"]
"""
NEWER = b"""opam-version: "2.0"
roots: ["hello.1.0"]
installed: ["hello.1.0" "dune.3.18.0" "dune-site.1"]
"""


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[InProcess]:
    async with open_site(make_directory(tmp_path / "data")) as site:
        yield site


async def upload(site: InProcess, number: int, **artifacts: bytes) -> None:
    files = {"bin/hello": b"x", **{name.replace("_", "-"): content for name, content in artifacts.items()}}
    content = body(number, artifacts=files)
    answer = await site.client.request("POST", "/upload", content=content, headers=authorization("admin"))
    assert answer.status == 201


async def found(site: InProcess, text: str) -> list[str]:
    return [str(package) for package, _ in await site.store.ask(finding.packages, text, count=20)]


async def test_packages_are_found_by_parts_of_name_and_version(site: InProcess) -> None:
    await upload(site, 1, opam_switch=SWITCH)
    await upload(site, 2, opam_switch=NEWER)
    assert await found(site, "dune") == []
    await derived.note_switches(site.store, site.directory)
    assert await found(site, "dune") == ["dune.3.18.0", "dune.3.17.2", "dune-site.1"]
    assert await found(site, "dune.3.17") == ["dune.3.17.2"]
    assert await found(site, "AML") == ["ocaml.4.14.2"]
    assert await found(site, "%") == []
    assert await site.store.ask(packages.unread, count=10) == []
    answer = await site.client.get("/search?q=dune+3.18")
    assert "<b>dune</b>.3.18.0" in answer.text
    assert "3.17.2" not in answer.text


async def test_the_package_leads_to_the_last_build_that_has_it(site: InProcess) -> None:
    for number in (1, 2, 3):
        await upload(site, number, opam_switch=SWITCH if number < 3 else NEWER)
    await derived.note_switches(site.store, site.directory)
    ((_, build),) = await site.store.ask(finding.packages, "dune.3.17.2", count=20)
    newest = await site.store.ask(builds.newest, "hello", None, 3)
    assert build.id == sorted(one.id for one in newest)[1]


async def test_a_switch_that_says_nothing_is_read_once(site: InProcess) -> None:
    await upload(site, 1, opam_switch=b"\xff no export")
    await derived.note_switches(site.store, site.directory)
    assert await site.store.ask(packages.unread, count=10) == []


async def test_what_was_removed_is_not_found(site: InProcess) -> None:
    await upload(site, 1, opam_switch=SWITCH)
    await upload(site, 2, opam_switch=NEWER, log=b"said")
    await derived.note_switches(site.store, site.directory)
    gone = await site.store.ask(builds.newest, "hello", None, 10)
    newest = max(gone, key=lambda one: one.id)
    await site.store.database.write(lambda connection: removal.remove(connection, [newest]))
    assert await found(site, "dune") == ["dune.3.17.2"]
    assert await site.store.ask(finding.files, "log", count=5) == []
    assert [file.path for _, file in await site.store.ask(finding.files, "bin", count=5)] == ["bin/hello"]


async def test_what_another_program_did_is_noticed_at_the_start(tmp_path: Path) -> None:
    directory = make_directory(tmp_path / "data")
    async with open_site(directory) as site:
        await upload(site, 1, opam_switch=SWITCH)
        await upload(site, 2, other=b"1")
    with sqlite3.connect(directory.database) as connection:
        connection.execute("DELETE FROM build_artifact WHERE filepath = 'other'")
        connection.execute("INSERT INTO build_artifact (filepath, sha256, size, build) VALUES ('added', x'00', 1, 1)")
    async with open_site(directory) as site:
        assert await site.store.ask(finding.files, "other", count=5) == []
        assert [file.path for _, file in await site.store.ask(finding.files, "add", count=5)] == ["added"]


async def test_hashes_are_found_by_their_first_digits(site: InProcess) -> None:
    await upload(site, 1, note=b"said")
    (file,) = [file for _, file in await site.store.ask(finding.files, "note", count=5)]
    digest = file.digest.hex()
    assert digest in (await site.client.get(f"/search?q=sha256:{digest[:9].upper()}")).text
    answer = await site.client.get(f"/search?q={digest}")
    assert (answer.status, answer.headers["location"]) == (302, f"/hash/{digest}")


@pytest.mark.parametrize("query", ["", "%20", "%", "_", "/", "'%22<script>", "%ff%00", "x" * 5000, "sha256:", "0" * 63])
async def test_every_text_can_be_searched_for(site: InProcess, query: str) -> None:
    await upload(site, 1, opam_switch=SWITCH)
    answer = await site.client.get(f"/search?q={query}")
    assert answer.status == 200
    assert "<script>" not in answer.text


async def test_versions_are_in_their_order(site: InProcess) -> None:
    for number, version in enumerate((b"3.9.1", b"3.17.0", b"3.17.0+rc1", b"3.10~beta2"), 1):
        await upload(site, number, opam_switch=SWITCH.replace(b"3.17.2", version))
    await derived.note_switches(site.store, site.directory)
    assert await found(site, "dune") == ["dune.3.17.0+rc1", "dune.3.17.0", "dune.3.10~beta2", "dune.3.9.1"]
