"""builder-db verify-… and extract-build: what is found, each fault in a line."""

import hashlib
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from bodies import body, uuid_of
from operating import builder_db, done, refused
from sites import UPLOADS, InProcess, authorization, make_directory, open_site

INPUTS = {"opam-switch": b'opam-version: "2.0"\n', "build-environment": b"A=b\n", "system-packages": b"c\n"}
MAIN = hashlib.sha256(b"main").digest()


@pytest.fixture
async def site(tmp_path: Path) -> Any:
    async with open_site(make_directory(tmp_path / "data")) as site:
        content = body(
            1, artifacts={"bin/x": b"main", **INPUTS, "README.md": b"# Hello\n", "empty": b""}, console=(b"a", b"b")
        )
        answer = await site.client.request("POST", "/upload", content=content, headers=authorization("admin"))
        assert answer.status == 201
        yield site


def execute(site: InProcess, statement: str) -> None:
    with closing(sqlite3.connect(site.directory.database)) as connection:
        connection.execute(statement)
        connection.commit()


def faults(command: str, site: InProcess) -> list[str]:
    found = builder_db(command, "-d", site.directory.root)
    lines = found.out.splitlines()
    assert found.status == (1 if lines else 0)
    if lines:
        assert found.err.startswith(f"builder-db: {len(lines)} fault")
    return lines


def _cut(site: InProcess) -> None:
    site.directory.content(MAIN).write_bytes(b"mai")


def _remove(site: InProcess) -> None:
    site.directory.content(MAIN).unlink()


def _remove_console(site: InProcess) -> None:
    (site.directory.build("hello", str(uuid_of(1))) / "console.txt").unlink()


def _add(site: InProcess) -> None:
    (site.directory.root / "hello" / "stray").write_text("x")
    (site.directory.root / "_artifacts" / "ff").mkdir()
    (site.directory.root / "_artifacts" / "ff" / "also\n").write_text("x")


UUID = str(uuid_of(1))
DAMAGE: list[tuple[Callable[[InProcess], None], list[str]]] = [
    (lambda _: None, []),
    (_cut, [f"artifact {MAIN.hex()}: its content has the SHA-256 {hashlib.sha256(b'mai').hexdigest()}"]),
    (_remove, [f"artifact {MAIN.hex()}: No such file or directory"]),
    (_remove_console, [f"build {UUID}: hello/{UUID}/console.txt: No such file or directory"]),
    (_add, ["_artifacts/ff/also\\n: no build has it", "hello/stray: no build has it"]),
    (
        lambda site: execute(site, "UPDATE build_artifact SET size = 9 WHERE filepath = 'bin/x'"),
        [f"artifact {MAIN.hex()}: it has 4 bytes instead of 9"],
    ),
    (
        lambda site: execute(site, "UPDATE build SET script = '../../etc/passwd'"),
        [
            f"build {UUID}: ../../etc/passwd: it leads out of the directory",
            f"hello/{UUID}/script.txt: no build has it",
        ],
    ),
    (
        lambda site: execute(site, "UPDATE build SET main_binary = 999"),
        [f"build {UUID}: the main binary is none of its artifacts"],
    ),
]


@pytest.mark.parametrize(("damage", "found"), DAMAGE)
async def test_what_is_wrong_with_a_data_directory(
    site: InProcess, damage: Callable[[InProcess], None], found: list[str]
) -> None:
    damage(site)
    assert faults("verify-data-dir", site) == found


async def test_input_ids(site: InProcess) -> None:
    assert faults("verify-input-id", site) == []
    wanted = hashlib.sha256(b"".join(hashlib.sha256(content).digest() for content in INPUTS.values())).hexdigest()
    execute(site, "UPDATE build SET input_id = NULL")
    assert faults("verify-input-id", site) == [f"build {UUID}: the input id is none instead of {wanted}"]
    execute(site, "DELETE FROM build_artifact WHERE filepath = 'opam-switch'")
    assert faults("verify-input-id", site) == []


async def test_cached_drawings(site: InProcess) -> None:
    assert faults("verify-cache-dir", site) == []
    folder = site.directory.cache / "treemap_4"
    folder.mkdir(parents=True)
    (folder / f"{MAIN.hex()}.html").write_text("")
    assert faults("verify-cache-dir", site) == []
    (folder / f"{'0' * 64}.html").write_text("")
    (folder / "notes").write_text("")
    assert faults("verify-cache-dir", site) == [
        f"_cache/treemap_4/{'0' * 64}.html: no build has the artifact that it was made of",
        "_cache/treemap_4/notes: it is no drawing",
    ]


async def test_a_build_is_extracted_as_it_was_uploaded(
    site: InProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = body(
        1, artifacts={"bin/x": b"main", **INPUTS, "README.md": b"# Hello\n", "empty": b""}, console=(b"a", b"b")
    )
    monkeypatch.chdir(tmp_path)
    done("extract-build", UUID, "-d", site.directory.root)
    # of times in the console there are milliseconds
    assert (tmp_path / f"{UUID}.full").read_bytes() == content.replace(
        b"\x02\x01\x01\x0c\x01b", b"\x02\x01\x00\x0c\x01b"
    )
    done("extract-build", "--dest", "x", UUID.upper(), "-d", site.directory.root)
    assert (tmp_path / "x").read_bytes() == (tmp_path / f"{UUID}.full").read_bytes()
    assert (
        done("extract-build", "--dest", "-", UUID, "-d", site.directory.root).encode(errors="surrogateescape")
        == (tmp_path / "x").read_bytes()
    )


async def test_what_can_not_be_extracted(site: InProcess, tmp_path: Path) -> None:
    other = str(uuid_of(2))
    assert refused("extract-build", other, "-d", site.directory.root) == (1, f"there is no build {other}")
    status, line = refused("extract-build", "--dest", tmp_path / "none" / "x", UUID, "-d", site.directory.root)
    assert (status, "No such file" in line) == (1, True)
    _cut(site)
    target = tmp_path / "x"
    status, line = refused("extract-build", "--dest", target, UUID, "-d", site.directory.root)
    assert (status, "has not the size" in line) == (1, True)
    assert not target.exists()
    assert not list(tmp_path.glob("x*"))


async def test_real_uploads_are_whole(site: InProcess) -> None:
    for path in sorted(UPLOADS.glob("*.full")):
        if not path.name.startswith("bad-"):
            assert (await site.upload(path.name)).status in (201, 409), path
    for command in ("verify-data-dir", "verify-input-id", "verify-cache-dir"):
        assert faults(command, site) == []
