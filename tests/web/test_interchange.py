"""A data directory as the original leaves it opens here, and what is left here is what the original expects."""

import hashlib
import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from bodies import body
from operating import done
from replay import DATA, database
from sites import PASSWORDS, UPLOADS, authorization, open_site

from builder import execution
from builder_web import access
from builder_web.directory import DataDirectory
from builder_web.store import schema

GOLDEN = json.loads((DATA / "golden" / "database.json").read_text())
FILES = json.loads((DATA / "golden" / "files.json").read_text())


@pytest.fixture
def original(tmp_path: Path) -> DataDirectory:
    """A data directory with the rows and files that the original made, and nothing of ours."""
    root = tmp_path / "data"
    contents: dict[str, bytes] = {}
    for path in UPLOADS.glob("*.full"):
        try:
            found = execution.decode(path.read_bytes())
        except Exception:  # noqa: BLE001 - some are no executions at all
            continue
        console = b"".join(b"%.3fs:%b\n" % (line.delta / 1e9, line.line) for line in found.console)
        for content in (found.job.script, console, *(file.content for file in found.artifacts)):
            contents[hashlib.sha256(content).hexdigest()] = content
    for name, said in FILES.items():
        digest = next(part for part in said if isinstance(part, str))
        if digest in contents:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(contents[digest])
    with closing(sqlite3.connect(root / "builder.sqlite3")) as connection:
        connection.execute(f"PRAGMA application_id = {GOLDEN['application_id']}")
        connection.execute(f"PRAGMA user_version = {GOLDEN['user_version']}")
        for statement in sorted(GOLDEN["schema"], key=lambda sql: "INDEX" in sql):
            connection.execute(statement)
        for table, rows in GOLDEN["tables"].items():
            for row in rows:
                _insert(connection, table, dict(row))
        connection.commit()
    return DataDirectory(root)


def _insert(connection: sqlite3.Connection, table: str, row: dict[str, Any]) -> None:
    if row.pop("password", None):
        made = access.new_password(PASSWORDS[row["username"]].encode())
        row |= {"password_hash": made.hash, "password_salt": made.salt}
    for column in ("sha256", "input_id"):
        if row.get(column):
            row[column] = bytes.fromhex(row[column])
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", list(row.values()))


def plain(found: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {table: rows for table, rows in found.items() if not table.startswith(("web_", "sqlite_"))}


async def test_a_directory_of_the_original_opens(original: DataDirectory) -> None:
    assert done("verify-data-dir", "-d", original.root) == ""
    before = plain(database(original.root))
    async with open_site(original) as site:
        uuids = {row["uuid"]: row["job"] for row in GOLDEN["tables"]["build"]}
        jobs = {row["id"]: row["name"] for row in GOLDEN["tables"]["job"]}
        targets = ["/", "/all-builds", "/failed-builds", "/search?q=hello", "/builds.atom"]
        for uuid, job in uuids.items():
            address = f"/job/{_quote(jobs[job])}"
            build = f"{address}/build/{uuid}"
            targets += [
                address,
                f"{address}/failed",
                build,
                f"{build}/script",
                f"{build}/console/view",
                f"{build}/exec",
            ]
        for target in dict.fromkeys(targets):
            assert (await site.client.get(target)).status == 200, target
        assert plain(database(original.root)) == before
        answer = await site.client.request("POST", "/upload", content=body(), headers=authorization("admin"))
        assert answer.status == 201
    assert done("verify-data-dir", "-d", original.root) == ""
    assert done("verify-input-id", "-d", original.root) == ""


def _quote(name: str) -> str:
    return quote(name.encode("utf-8", "surrogateescape"), safe="")


async def test_what_is_left_is_what_the_original_expects(original: DataDirectory) -> None:
    async with open_site(original) as site:
        content = body(artifacts={"bin/x": b"1", "README.md": b"# Hello"})
        answer = await site.client.request("POST", "/upload", content=content, headers=authorization("admin"))
        assert answer.status == 201
    with closing(sqlite3.connect(original.database)) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (schema.APPLICATION_ID,)
        assert connection.execute("PRAGMA user_version").fetchone() == (schema.SCHEMA_VERSION,)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        query = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND tbl_name NOT LIKE 'web\\_%' ESCAPE '\\'"
        statements = {_one_form(sql) for (sql,) in connection.execute(query) if "sqlite_sequence" not in sql}
        assert statements == {_one_form(sql) for sql in GOLDEN["schema"]}
        row = connection.execute(
            "SELECT build.id, main.build, user.username, job.name, build.console FROM build "
            "JOIN build_artifact AS main ON main.id = build.main_binary JOIN user ON user.id = build.user "
            "JOIN job ON job.id = build.job ORDER BY build.id DESC LIMIT 1"
        ).fetchone()
        last = max(row["id"] for row in GOLDEN["tables"]["build"])
        assert row[:4] == (last + 1, last + 1, "admin", "hello")
        # nothing of ours holds a row of the original's: it may remove what it likes
        foreign = [
            name
            for (name,) in connection.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'web%'"
            )
            if connection.execute(f"PRAGMA foreign_key_list({name})").fetchall()
        ]
        assert foreign == []


async def test_what_the_original_did_meanwhile_is_seen(original: DataDirectory) -> None:
    async with open_site(original) as site:
        answer = await site.client.request("POST", "/upload", content=body(), headers=authorization("admin"))
        assert answer.status == 201
    with closing(sqlite3.connect(original.database)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("UPDATE build SET main_binary = NULL WHERE job = (SELECT id FROM job WHERE name = 'hello')")
        query = "DELETE FROM build_artifact WHERE build IN (SELECT build.id FROM build JOIN job ON job.id = build.job WHERE name = 'hello')"
        connection.execute(query)
        connection.execute("DELETE FROM build WHERE job = (SELECT id FROM job WHERE name = 'hello')")
        connection.commit()
    async with open_site(original) as site:
        for target in ("/", "/all-builds", "/job/hello", "/failed-builds"):
            assert (await site.client.get(target)).status == 200, target


@pytest.mark.parametrize("command", [["job-remove", "plain-tool"], ["vacuum", "except-latest", "1"]])
def test_builder_db_works_on_a_directory_that_builder_web_never_opened(
    original: DataDirectory, command: list[str]
) -> None:
    assert done(*command, "-d", original.root)
    assert done("verify-data-dir", "-d", original.root) == ""


def _one_form(sql: str) -> str:
    return re.sub(r"\s+", " ", sql).replace("( ", "(").replace(" )", ")")
