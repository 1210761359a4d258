"""Backups of a server that runs, restores, migrations by hand, and databases that can't be used."""

import gzip
import os
import shutil
import sqlite3
import tarfile
from pathlib import Path
from uuid import UUID

import forked
import pytest
import trio
from click.testing import CliRunner
from farm import DEADLINE, Reachable, environment, eventually, start_server
from scripted import build, do, info, schedule, take_job

from builder.errors import BuilderError
from builder.model import Artifact
from builder_server import backups, cli
from builder_server.administration import REVISIONS
from builder_server.keyring import Keyring
from builder_server.names import DATABASE

SOME = (Artifact(path="bin/a", content=b"x" * 100_000),)


def administer(directory: Path, *arguments: object, given: bytes = b"") -> bytes:
    """Return what a command prints."""
    done = CliRunner().invoke(cli.command, [f"--dir={directory}", *map(str, arguments)], input=given)
    if done.exception:
        raise done.exception
    return done.stdout_bytes


def refused(directory: Path, *arguments: object, given: bytes = b"") -> str:
    """Return why it was not done."""
    with pytest.raises(BuilderError) as found:
        administer(directory, *arguments, given=given)
    assert "\n" not in str(found.value)
    return str(found.value)


def does_not_start(directory: Path) -> str:
    """Return the one line with which a server says why not."""
    command = ["builder_server", f"--dir={directory}", "--port=0"]
    done = forked.run(*command, env=environment(), timeout=DEADLINE)
    assert done.returncode not in (0, 1)
    assert done.stdout == b""
    (line,) = done.stderr.decode().splitlines()
    return line


def contents(directory: Path) -> dict[str, bytes]:
    """Return what builds have written."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.glob("*/*/*") if path.is_file()}


async def farm(server: Reachable, count: int) -> list[UUID]:
    """Have builds finish, and a job that waits."""
    found = []
    for number in range(count):
        await do(server, schedule(f"job{number} ü", "p1"))
        found.append((await build(server, lines=[b"one"], artifacts=SOME))[0])
    await do(server, schedule("waits", "p2"))
    await eventually(lambda: server.query("select count(*) from build where provenance = 'signed'") == [(count,)])
    return found


async def test_there_and_back_while_the_server_runs(tmp_path: Path) -> None:
    archive, elsewhere = tmp_path / "b.tar", tmp_path / "elsewhere"
    async with start_server(tmp_path) as server:
        await farm(server, 3)
        async with take_job(server, "p2"):  # it runs: what it has written is no whole build
            assert administer(server.data_dir, "backup", archive) == f"wrote {archive}\n".encode()
        assert archive.stat().st_mode & 0o777 == 0o600
        expected = contents(server.data_dir)
        before = await info(server)
    assert administer(elsewhere, "restore", archive)
    restored = contents(elsewhere)
    assert {name: data for name, data in expected.items() if name in restored} == restored
    assert sum(name.endswith("/full") for name in restored) == 3
    async with start_server(tmp_path, data_dir=elsewhere) as server:
        after = await info(server)
        assert after.schedule == before.schedule
        assert [job.name for queue in after.queues for job in queue.jobs] == ["waits"]  # it ran, and is queued again


async def test_without_what_builds_wrote(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server:
        await farm(server, 1)
        data = administer(server.data_dir, "backup", "--only-database", "-")
    elsewhere = tmp_path / "elsewhere"
    assert administer(elsewhere, "restore", "-", given=gzip.compress(data))
    assert contents(elsewhere) == {}
    assert (elsewhere / DATABASE).exists()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory in which a server was at work, with its backup."""
    root = tmp_path_factory.mktemp("made")

    async def work() -> None:
        async with start_server(root) as server:
            await farm(server, 2)

    trio.run(work)
    assert administer(root / "data", "backup", root / "whole.tar")
    return root


@pytest.fixture
def archive(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path / "whole.tar"


@pytest.mark.parametrize("first", [0, 1, 8], ids=["all", "behind the header", "within"])
async def test_a_backup_of_a_damaged_database_leaves_the_one_before(archive: Path, tmp_path: Path, first: int) -> None:
    before = archive.read_bytes()
    with (tmp_path / "data" / DATABASE).open("r+b") as file:
        file.seek(first * 4096)
        file.write(os.urandom(4 * 4096))
    assert "it is damaged" in refused(tmp_path / "data", "backup", archive)
    assert archive.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".part")] == []


@pytest.mark.parametrize("size", [0, 100, 512, 5_000, 200_000])
async def test_an_archive_that_is_cut_off_restores_nothing_that_starts(
    archive: Path, tmp_path: Path, size: int
) -> None:
    elsewhere = tmp_path / "elsewhere"
    cut = archive.read_bytes()[:size]
    assert "no backup of a builder-server" in refused(elsewhere, "restore", "-", given=cut)
    assert not (elsewhere / DATABASE).exists()
    if size >= 5_000:
        assert "was interrupted" in does_not_start(elsewhere)
    assert administer(elsewhere, "restore", archive)  # and then it is done again
    assert len(contents(elsewhere)) == 6


async def test_keys_are_in_a_backup_only_where_that_is_wanted(tmp_path: Path) -> None:
    async with start_server(tmp_path) as server:
        await farm(server, 1)
        for name, options in (("without", []), ("with", ["--with-keys"]), ("both", ["--with-keys", "--only-database"])):
            administer(server.data_dir, "backup", *options, tmp_path / f"{name}.tar")
            said = administer(tmp_path / name, "restore", tmp_path / f"{name}.tar")
            assert (b"the keys that sign builds are not in it: bring them back" in said) == (name == "without")
        (key,) = Keyring(server.data_dir).all()
    assert not (tmp_path / "without" / "builder.keys").exists()
    for name in ("with", "both"):
        assert Keyring(tmp_path / name).all() == [key]
        modes = [
            (tmp_path / name / "builder.keys" / path).stat().st_mode & 0o777 for path in ("", f"{key.public.id}.pem")
        ]
        assert modes == [0o700, 0o600]


def hostile(archive: Path, path: Path, name: str, kind: bytes = tarfile.REGTYPE) -> Path:
    """Write an archive that has one file more, below a name that is none of ours."""
    with tarfile.open(archive) as whole, tarfile.open(path, "w") as to:
        for member in whole:
            to.addfile(member, whole.extractfile(member))
        more = tarfile.TarInfo(name)
        more.type, more.linkname = kind, "/etc/passwd"
        to.addfile(more)
    return path


UUID_NAME = "f6b4569d-848c-4587-89b3-ee718f659a09"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../a/full", tarfile.REGTYPE),
        (f"../{UUID_NAME}/full", tarfile.REGTYPE),
        (f"/tmp/{UUID_NAME}/full", tarfile.REGTYPE),
        (f"job/{UUID_NAME}/other", tarfile.REGTYPE),
        ("keys/x.pem", tarfile.REGTYPE),
        (f"keys/{'ab' * 32}.pem", tarfile.SYMTYPE),
        (f"job/{UUID_NAME}/full", tarfile.SYMTYPE),
        (f"job/{UUID_NAME}/full", tarfile.FIFOTYPE),
        (f"{DATABASE}/{UUID_NAME}/full", tarfile.REGTYPE),
        (f"job/{UUID_NAME.upper()}/full", tarfile.REGTYPE),
    ],
)
async def test_no_name_of_an_archive_reaches_elsewhere(archive: Path, tmp_path: Path, name: str, kind: bytes) -> None:
    elsewhere = tmp_path / "elsewhere"
    said = refused(elsewhere, "restore", hostile(archive, tmp_path / "hostile.tar", name, kind))
    assert "is in no backup" in said
    assert not (elsewhere / DATABASE).exists()


async def test_a_restore_is_refused_where_a_server_has_its_database(archive: Path, tmp_path: Path) -> None:
    assert "there is a database in" in refused(tmp_path / "data", "restore", archive)
    async with start_server(tmp_path):
        assert "another server uses" in refused(tmp_path / "data", "restore", archive)
    assert "can't restore" in refused(tmp_path / "new", "restore", tmp_path / "missing.tar")


def test_what_another_user_would_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if os.geteuid() == 0:
        os.chown(elsewhere, 1, 1)
        for command in (("restore", tmp_path / "missing.tar"), ("migrate", "--to=0003"), ("import",)):
            assert "belongs to user 1" in refused(elsewhere, *command)


async def test_a_migration_by_hand_there_and_back(archive: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for revision in (*reversed(REVISIONS), *REVISIONS):
        said = administer(data, "migrate", "--to", revision)
        assert said.decode() == f"the database is at revision {revision}\n"
    async with start_server(tmp_path) as server:
        assert "another server uses" in refused(data, "migrate")
        assert len((await info(server)).schedule) == 3


def test_every_revision_can_be_chosen() -> None:
    versions = Path(backups.__file__).parent / "store" / "migrations" / "versions"
    assert sorted(path.name[:4] for path in versions.glob("0*.py")) == [*REVISIONS]


async def test_a_database_of_a_newer_version(archive: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with sqlite3.connect(data / DATABASE) as database:
        database.execute("update alembic_version set version_num = '9999'")
        database.execute("update program set oldest = '9999'")
    database.close()
    for arguments in (("migrate",), ("migrate", "--to", REVISIONS[0])):
        assert "a newer version has written it (revision 9999" in refused(data, *arguments)
    assert f"'migrate --to {REVISIONS[-1]}'" in does_not_start(data)


@pytest.mark.parametrize("first", [0, 1])
async def test_a_damaged_database_and_the_way_back(archive: Path, tmp_path: Path, first: int) -> None:
    data = tmp_path / "data"
    with (data / DATABASE).open("r+b") as file:
        file.seek(first * 4096)
        file.write(os.urandom(4 * 4096))
    said = does_not_start(data)
    assert "it is damaged" in said
    assert "bring back a backup" in said
    for path in data.glob(f"{DATABASE}*"):
        path.rename(tmp_path / path.name)
    assert administer(data, "restore", archive)
    async with start_server(tmp_path) as server:
        assert len((await info(server)).schedule) == 3


async def test_a_database_that_was_emptied_is_not_taken_for_a_new_one(archive: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    os.truncate(data / DATABASE, 0)
    assert "is empty, and there are builds beside it" in does_not_start(data)
    (data / DATABASE).unlink()
    assert administer(data, "restore", archive)
    async with start_server(tmp_path) as server:
        assert len((await info(server)).schedule) == 3


async def test_a_server_that_was_killed_before_its_first_database_starts(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / DATABASE).touch()
    async with start_server(tmp_path) as server:
        assert (await info(server)).schedule == ()
