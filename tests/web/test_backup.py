"""A backup that is made while the site runs, as docs/web.md tells it: the database, then the files."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from bodies import body
from sites import InProcess, authorization, make_directory, open_site

from builder_web.directory import DataDirectory
from builder_web.store import opening
from builder_web.verification import DataDirectoryCheck


async def upload(site: InProcess, number: int) -> int:
    answer = await site.client.request("POST", "/upload", content=body(number), headers=authorization("admin"))
    return answer.status


async def test_every_file_is_there_that_the_database_names(tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    async with open_site(make_directory(tmp_path / "data")) as site:
        assert await upload(site, 1) == 201
        backup.mkdir()
        with (
            closing(sqlite3.connect(site.directory.database)) as source,
            closing(sqlite3.connect(backup / "builder.sqlite3")) as target,
        ):
            source.backup(target)
        assert await upload(site, 2) == 201
        ignored = shutil.ignore_patterns("builder.sqlite3*", "_staging", "_cache")
        shutil.copytree(site.directory.root, backup, ignore=ignored, dirs_exist_ok=True)
    restored = DataDirectory(backup)
    with opening.reading(restored.database) as connection:
        said = list(DataDirectoryCheck(restored).faults(connection))
    assert len(said) == 3
    assert all(line.endswith("no build has it") for line in said)
    async with open_site(restored) as site:
        assert await upload(site, 1) == 409
        assert await upload(site, 2) == 201
    with opening.reading(restored.database) as connection:
        assert list(DataDirectoryCheck(restored).faults(connection)) == []
