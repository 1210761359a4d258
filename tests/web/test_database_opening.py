"""builder-db migrate, and directories that no command opens."""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from operating import done, refused
from sites import make_directory

COMMANDS = [
    ["user-list"],
    ["user-remove", "x"],
    ["user-disable", "x"],
    ["access-add", "x", "y"],
    ["access-remove", "x", "y"],
    ["job-remove", "x"],
    ["vacuum", "except-latest", "1"],
    ["vacuum", "older-than", "2026-01-01"],
    ["vacuum", "except-latest-successful", "1"],
    ["extract-build", "b00d0000-0000-4000-8000-000000000001"],
    ["verify-input-id"],
    ["verify-data-dir"],
    ["verify-cache-dir"],
]
names = pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command[:2]))


def test_migrate_makes_a_database_once(tmp_path: Path) -> None:
    root = tmp_path / "new" / "data"
    done("migrate", "-d", root)
    done("user-add", "-d", root, "ann", password=b"secret")
    before = (root / "builder.sqlite3").read_bytes()
    for _ in range(2):
        done("migrate", "-d", root)
    assert (root / "builder.sqlite3").read_bytes() == before
    assert done("user-list", "-d", root) == "ann\trestricted: no jobs\n"


def test_an_empty_file_is_no_database_yet(tmp_path: Path) -> None:
    (tmp_path / "builder.sqlite3").touch()
    done("migrate", "-d", tmp_path)
    assert done("user-list", "-d", tmp_path) == ""


def test_a_directory_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    status, line = refused("migrate", "-d", tmp_path / "file" / "data")
    assert (status, "Not a directory" in line) == (1, True)
    status, line = refused("migrate", "-d", tmp_path / "file")
    assert (status, "is a file" in line) == (2, True)


@names
def test_without_a_database_what_to_do_is_told(tmp_path: Path, command: list[str]) -> None:
    for root in (tmp_path, tmp_path / "none"):
        assert refused(*command, "-d", root) == (
            2,
            f"there is no {root}/builder.sqlite3; make one with: builder-db migrate --datadir {root}",
        )
    assert not list(tmp_path.iterdir())


def changed(root: Path, pragma: str, value: int) -> Path:
    directory = make_directory(root)
    with closing(sqlite3.connect(directory.database)) as connection:
        connection.execute(f"PRAGMA {pragma} = {value}")
    return directory.database


@pytest.mark.parametrize("command", [["migrate"], *COMMANDS], ids=lambda command: " ".join(command[:2]))
@pytest.mark.parametrize(
    ("pragma", "value", "what_to_do"),
    [
        ("user_version", 17, "with the original's builder-migrations"),
        ("user_version", 19, "use a newer builder-web"),
        ("application_id", 0, "no database of builder-web"),
    ],
)
def test_another_database_is_refused_and_left_as_it_is(
    tmp_path: Path, command: list[str], pragma: str, value: int, what_to_do: str
) -> None:
    root = tmp_path / "data"
    database = changed(root, pragma, value)
    before = database.read_bytes()
    status, line = refused(*command, "-d", root)
    assert (status, what_to_do in line) == (2, True), line
    assert database.read_bytes() == before


@names
def test_a_file_that_is_no_database(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "builder.sqlite3").write_bytes(b"no database" * 1000)
    status, line = refused(*command, "-d", tmp_path)
    assert (status, "file is not a database" in line) == (2, True), line


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["frobnicate"], "No such command"),
        (["user-add"], "Missing argument 'USERNAME'"),
        (["user-add", "a:b"], "colon"),
        (["user-add", ""], "empty"),
        (["user-add", "--scrypt-n", "3", "ann"], "scrypt can't have these costs"),
        (["user-add", "--scrypt-n", "1", "ann"], "--scrypt-n"),
        (["access-add", "ann"], "Missing argument 'JOB'"),
        (["vacuum", "except-latest", "-1"], "No such option"),
        (["vacuum", "except-latest", "x"], "is no whole number"),
        (["vacuum", "older-than", "yesterday"], "neither a date such as 2026-01-31 nor an age such as 90d"),
        (["extract-build", "not-a-uuid"], "not a valid UUID"),
        (["migrate", "more"], "unexpected extra argument"),
    ],
)
def test_wrong_arguments(tmp_path: Path, args: list[str], reason: str) -> None:
    make_directory(tmp_path / "data")
    status, line = refused(*args, *(["-d", str(tmp_path / "data")] if args != ["frobnicate"] else []), password=b"x")
    assert (status, reason in line) == (2, True), line


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A data directory that this process may only read."""
    if os.geteuid():
        pytest.skip("only root can become somebody else")
    root = Path(tempfile.mkdtemp(dir="/tmp"))
    data = make_directory(root / "data").root
    done("user-list", "-d", data)  # what it imports may be out of reach later
    refused("job-remove", "-d", data, "x")
    for name in ("-wal", "-shm"):
        (data / f"builder.sqlite3{name}").unlink(missing_ok=True)
    root.chmod(0o755)
    os.seteuid(65534)
    try:
        yield data
    finally:
        os.seteuid(0)
        shutil.rmtree(root)


def test_a_directory_that_can_only_be_read(unprivileged: Path) -> None:
    for args in (["job-remove", "x"], ["user-remove", "admin"], ["user-disable", "admin"]):
        status, line = refused(*args, "-d", unprivileged)
        assert (status, "readonly database" in line or "unable to open" in line) == (5, True), line
    status, line = refused("migrate", "-d", unprivileged / "new")
    assert (status, "Permission denied" in line) == (1, True)


def test_a_path_with_every_character_that_means_something_elsewhere(tmp_path: Path) -> None:
    root = tmp_path / "a?b#c%20d e'f"
    done("migrate", "-d", root)
    assert done("user-list", "-d", root) == ""
    assert done("verify-data-dir", "-d", root) == ""
