"""Drawings on the page of a build: ours in the page, those of hooks in a frame, none where nothing can be drawn."""

import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from bodies import body, uuid_of
from sites import InProcess, authorization, make_directory, open_site

from builder import execution
from builder_web import drawings

BUILD = f"/job/hello/build/{uuid_of(1)}"
SWITCH = b"""opam-version: "2.0"
roots: ["hello.1.0"]
installed: ["hello.1.0" "<script>.1"]
package "hello" {
  opam-version: "2.0"
  depends: ["<script>"]
}
"""
FILES = {"bin/hello": b"x", "opam-switch": SWITCH, "hello.debug": b"\x7fELF and no more"}


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[InProcess]:
    async with open_site(make_directory(tmp_path / "data")) as site:
        yield site


async def upload(site: InProcess, number: int, *, job: str = "hello", files: dict[str, bytes] | None = None) -> None:
    content = body(number, job=job, artifacts=files or FILES)
    answer = await site.client.request("POST", "/upload", content=content, headers=authorization("admin"))
    assert answer.status == 201


async def test_our_drawing_is_in_the_page(site: InProcess) -> None:
    await upload(site, 1)
    page = (await site.client.get(BUILD)).text
    assert '<h2 id="dependencies">' in page
    assert page.count('<svg xmlns="http://www.w3.org/2000/svg" class="graph"') == 1
    assert "&lt;script&gt;" in page
    assert "<script>" not in page
    assert "<iframe" not in page
    assert '<h2 id="treemap">' not in page, "of a damaged file nothing is drawn"


async def test_a_drawing_is_made_once_and_what_can_not_be_drawn_is_tried_once(
    site: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    await upload(site, 1)
    await site.client.get(BUILD)
    monkeypatch.setattr(drawings, "read_switch", None)
    monkeypatch.setattr(drawings, "read_contents", None)
    assert "<svg xmlns" in (await site.client.get(f"{BUILD}?again")).text
    assert (await site.client.get(f"{BUILD}/vizdependencies")).status == 200
    missing = await site.client.get(f"{BUILD}/viztreemap")
    assert missing.status == 404
    assert "nothing to draw" in missing.text


async def test_the_drawing_of_a_hook_is_in_a_frame(site: InProcess) -> None:
    await upload(site, 1)
    folder = site.directory.cache / "dependencies_7"
    folder.mkdir(parents=True)
    (folder / f"{hashlib.sha256(SWITCH).hexdigest()}.html").write_text("<script>document.title = 'theirs'</script>")
    page = (await site.client.get(BUILD)).text
    assert f'<iframe class="drawing" src="{BUILD}/vizdependencies"' in page
    assert "theirs" not in page
    document = await site.client.get(f"{BUILD}/vizdependencies")
    assert "theirs" in document.text
    policy = document.headers["content-security-policy"].split("; ")
    assert {"sandbox allow-scripts", "frame-ancestors 'self'", "default-src 'none'"} <= set(policy)


async def test_a_drawing_that_two_jobs_have_names_neither(site: InProcess) -> None:
    await upload(site, 1, job="first-job")
    await upload(site, 2, job="second-job")
    for number, job in ((1, "first-job"), (2, "second-job")):
        document = await site.client.get(f"/job/{job}/build/{uuid_of(number)}/vizdependencies")
        assert "-job" not in document.text


async def test_real_files_are_drawn(site: InProcess) -> None:
    uploads = Path(__file__).parent / "data" / "uploads"
    found = execution.decode((uploads / "hello-1.full").read_bytes())
    await site.upload("hello-1.full")
    page = (await site.client.get(f"/job/{found.job.name}/build/{found.uuid}")).text
    assert '<h2 id="dependencies">' in page
    assert '<h2 id="treemap">' in page
    assert page.count('<div class="canvas"') == 2
