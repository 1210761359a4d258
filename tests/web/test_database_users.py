"""builder-db user-… and access-…, and what they mean for uploads."""

import os
import pty
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from bodies import body
from operating import builder_db, done, refused
from sites import InProcess, authorization, make_directory, open_site

from builder_web.directory import DataDirectory


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    done("migrate", "-d", root)
    return root


async def upload(site: InProcess, name: str, password: str, number: int = 1, job: str = "hello") -> int:
    headers = authorization(name, password)
    answer = await site.client.request("POST", "/upload", content=body(number, job=job), headers=headers)
    return answer.status


async def test_a_user_from_beginning_to_end(root: Path) -> None:
    done("user-add", "-d", root, "--unrestricted", "boss", password=b"b")
    done("user-add", "-d", root, "partner", password=b"p\n")
    assert done("user-list", "-d", root) == "boss\tunrestricted\npartner\trestricted: no jobs\n"
    async with open_site(DataDirectory(root)) as site:
        assert await upload(site, "boss", "b", 1) == 201
        assert await upload(site, "partner", "p", 2) == 401
        done("access-add", "-d", root, "partner", "hello")
        done("access-add", "-d", root, "partner", "hello")  # it is there already
        assert done("user-list", "-d", root) == "boss\tunrestricted\npartner\trestricted: hello\n"
        assert await upload(site, "partner", "p", 2) == 201
        assert await upload(site, "partner", "p", 3, "other") == 401
        done("access-remove", "-d", root, "partner", "hello")
        assert await upload(site, "partner", "p", 3) == 401

        done("user-update", "-d", root, "partner", password=b"new")  # it stays restricted
        assert done("user-list", "-d", root).splitlines()[1] == "partner\trestricted: no jobs"
        assert await upload(site, "partner", "p", 3) == 401
        done("user-update", "-d", root, "--unrestricted", "partner", password=b"new")
        assert await upload(site, "partner", "new", 3) == 201
        done("user-update", "-d", root, "partner", password=b"newer")  # it stays unrestricted
        assert await upload(site, "partner", "newer", 4, "fourth") == 201
        done("user-update", "-d", root, "--restricted", "partner", password=b"newer")
        assert await upload(site, "partner", "newer", 5) == 401

        done("user-disable", "-d", root, "boss")
        assert done("user-list", "-d", root).splitlines()[0] == "boss\trestricted: no jobs, disabled"
        assert await upload(site, "boss", "b", 6) == 401
        assert await upload(site, "boss", "", 6) == 401
        done("user-update", "-d", root, "--unrestricted", "boss", password=b"b")
        assert await upload(site, "boss", "b", 6) == 201


def test_what_is_not_there_or_there_already(root: Path) -> None:
    done("user-add", "-d", root, "ann", password=b"x")
    assert refused("user-add", "-d", root, "ann", password=b"x") == (
        1,
        "there is a user 'ann' already; change it with: builder-db user-update ann",
    )
    for args in (["user-update", "x"], ["user-remove", "x"], ["user-disable", "x"], ["access-add", "x", "hello"]):
        assert refused(*args, "-d", root, password=b"x") == (
            1,
            "there is no user 'x'; builder-db user-list names all",
        )
    status, line = refused("access-add", "-d", root, "ann", "none")
    assert (status, line) == (1, "there is no job 'none': it begins to exist with its first build")
    done("user-remove", "-d", root, "ann")
    assert done("user-list", "-d", root) == ""


async def test_a_user_who_owns_builds_is_not_removed(root: Path) -> None:
    done("user-add", "-d", root, "--unrestricted", "ann", password=b"x")
    async with open_site(DataDirectory(root)) as site:
        assert await upload(site, "ann", "x") == 201
    status, line = refused("user-remove", "-d", root, "ann")
    assert (status, "builder-db user-disable ann" in line) == (1, True)


@pytest.mark.parametrize("password", [b"", b"\n", b"\r\n"])
def test_no_password_is_none(root: Path, password: bytes) -> None:
    status, line = refused("user-add", "-d", root, "ann", password=password)
    assert (status, "no password on standard input" in line) == (1, True)
    assert done("user-list", "-d", root) == ""


async def test_a_password_may_be_any_bytes(root: Path) -> None:
    done("user-add", "-d", root, "--unrestricted", "ann", password="pä:s s\t".encode() + b"\r\nnext line")
    async with open_site(DataDirectory(root)) as site:
        assert await upload(site, "ann", "pä:s s\t") == 201


def test_costs_are_those_that_were_asked_for(root: Path) -> None:
    done("user-add", "-d", root, "--scrypt-n", "2", "--scrypt-r", "1", "--scrypt-p", "3", "ann", password=b"x")
    import sqlite3

    connection = sqlite3.connect(root / "builder.sqlite3")
    query = "SELECT scrypt_n, scrypt_r, scrypt_p, length(password_hash), length(password_salt) FROM user"
    assert connection.execute(query).fetchall() == [(2, 1, 3, 32, 16)]
    connection.close()


def test_a_terminal_is_asked_twice_and_shows_nothing(root: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "builder_web.administration"]
    with subprocess.Popen(
        [*command, "user-add", "-d", root, "ann"], stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        shown = b""
        for prompt in (b"Password: ", b"confirmation: "):
            while not shown.endswith(prompt):
                assert select.select([ours], [], [], 30)[0], shown
                shown += os.read(ours, 1000)
            os.write(ours, b"secret\n")
        assert process.wait(timeout=30) == 0
    os.close(ours)
    assert b"secret" not in shown
    assert done("user-list", "-d", root) == "ann\trestricted: no jobs\n"


def test_the_environment_names_the_directory(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUILDER_WEB_DATADIR", str(root))
    done("user-add", "ann", password=b"x")
    assert done("user-list") == "ann\trestricted: no jobs\n"


@pytest.mark.parametrize("args", [["--help"], ["vacuum", "--help"], ["vacuum", "older-than", "--help"], ["--version"]])
def test_help(args: list[str]) -> None:
    found: Any = builder_db(*args)
    assert (found.status, found.err) == (0, "")
    assert found.out


def test_make_directory_is_what_migrate_makes(tmp_path: Path) -> None:
    assert done("user-list", "-d", make_directory(tmp_path / "other").root) == (
        "admin\tunrestricted\nlimited\trestricted: no jobs\n"
    )
