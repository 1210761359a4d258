"""Servers of two neighbouring versions on one database, while it is upgraded: whether the older one may go on."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import databases
import pytest
import sqlalchemy as sa
import trio
from farm import ROOT, start_server
from scripted import build, do, info, schedule
from stores import NOW, opened, queues, script, take
from test_server_backup import does_not_start
from test_server_relocation import engine

from builder.model import Exited, Period
from builder.runtime import migrations
from builder.runtime.migrations import upgrade
from builder_server.administration import REVISIONS
from builder_server.names import DATABASE
from builder_server.store import ServerIdentity, Store, StoreError, servers

if TYPE_CHECKING:
    from builder.runtime.postgres import Location

NEWEST = REVISIONS[-1]

pytestmark = pytest.mark.databases(alters=True)

NEXT = """
import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{before}"
{says}


def upgrade():
    op.add_column("job", sa.Column("c{revision}", sa.Text))
    op.add_column("build", sa.Column("c{revision}", sa.Integer, nullable=False, server_default="7"))


def downgrade():
    op.drop_column("build", "c{revision}")
    op.drop_column("job", "c{revision}")
"""

ADDITIVE = "is_additive = True"


@pytest.fixture
def release(tmp_path: Path) -> Callable[..., str]:
    """Return what makes a later release, with a revision for each that is named: whether that one is additive."""

    def make(*says: str) -> str:
        folder = tmp_path / f"release{len(list(tmp_path.glob('release*')))}"
        shutil.copytree(ROOT / "server/builder_server/store/migrations", folder)
        before = NEWEST
        for number, each in enumerate(says, 9001):
            path = folder / "versions" / f"{number}_made_up.py"
            path.write_text(NEXT.format(revision=number, before=before, says=each), "utf-8")
            before = str(number)
        return str(folder)

    return make


def bring(place: "Path | Location", location: str) -> None:
    """Have a server of another release open a database, once."""
    with engine(place).begin() as connection:
        upgrade(location, servers.check_idle)(connection)


def identity(name: str) -> ServerIdentity:
    return ServerIdentity(name=name, incarnation=uuid4(), version="1.0", token="")


def one(place: "Path | Location", sql: str) -> object:
    with engine(place).connect() as connection:
        return connection.scalar(sa.text(sql))


async def test_a_program_goes_on_beside_a_newer_one_that_only_added(
    tmp_path: Path, release: Callable[..., str]
) -> None:
    place = databases.place(tmp_path / "db")
    bring(place, release(ADDITIVE, ADDITIVE))
    assert one(place, "SELECT oldest FROM program") == NEWEST
    async with opened(tmp_path) as store:
        await store.schedule(script("a"), Period.DAILY, NOW)
        found = await take(store, 1)
        assert await store.finish(found.uuid, NOW, Exited(code=0))
        assert await queues(store) == {"p1": []}
    assert one(place, "SELECT version_num FROM alembic_version") == "9002"
    assert one(place, "SELECT c9002 FROM build") == 7


@pytest.mark.parametrize("says", [("",), ("", ADDITIVE), (ADDITIVE, "")], ids=["breaks", "breaks first", "breaks last"])
def test_a_program_whose_revision_is_too_old_refuses(
    tmp_path: Path, release: Callable[..., str], says: tuple[str, ...]
) -> None:
    place = databases.place(tmp_path / "db")
    bring(place, release(*says))
    assert one(place, "SELECT oldest FROM program") == {"": "9001", ADDITIVE: "9002"}[says[0]]
    with pytest.raises(StoreError, match=f"a newer version has written it .* this one knows up to {NEWEST}"):
        Store.open(place)


def test_the_newer_release_brings_it_back(tmp_path: Path, release: Callable[..., str]) -> None:
    place = databases.place(tmp_path / "db")
    later = release(ADDITIVE, "")
    bring(place, later)
    with pytest.raises(StoreError, match="a newer version"):
        Store.migrate(place, NEWEST)
    for revision, oldest in (("9001", NEWEST), (NEWEST, NEWEST), ("0009", None)):
        with engine(place).begin() as connection:
            migrations.migrate(later, revision)(connection)
        if oldest:
            assert one(place, "SELECT oldest FROM program") == oldest
    Store.open(place).close()


@pytest.mark.databases(only="postgres")
async def test_a_migration_that_breaks_waits_for_the_end_of_those_that_it_would_break(
    tmp_path: Path, release: Callable[..., str]
) -> None:
    place = databases.place(tmp_path / "db")
    async with opened(tmp_path) as store:
        for name in ("b1", "b2"):
            await store.register(identity(name))
        bring(place, release(ADDITIVE))
        later = release(ADDITIVE, "")
        with pytest.raises(StoreError, match="a server works on it, b1 and b2: stop it first"):
            bring(place, later)
        with (
            pytest.raises(StoreError, match="a server works on it, b1 and b2: stop it first"),
            engine(place).begin() as connection,
        ):
            migrations.migrate(later, "0003", servers.check_idle)(connection)
        assert one(place, "SELECT version_num FROM alembic_version") == "9001"
        databases.query(tmp_path / "db", "UPDATE server SET expires = 0 RETURNING 1")
        bring(place, later)
        assert one(place, "SELECT count(*) FROM server") == 0
        # one that was counted as dead, and wakes up, does not come back to tables that it does not know
        with pytest.raises(StoreError, match="a newer version has written it"):
            await store.register(identity("b1"))


@pytest.mark.sqlite
async def test_a_server_of_the_release_before(tmp_path: Path, release: Callable[..., str]) -> None:
    """It starts on what the newer one has left, and works; and not where that is something else."""
    async with start_server(tmp_path) as server:
        await do(server, schedule("a"))
        assert server.terminate() == 0
    bring(server.data_dir / DATABASE, release(ADDITIVE))
    async with start_server(tmp_path) as server:
        await build(server)
        await do(server, schedule("b"))
        assert [item.job.name for item in (await info(server)).schedule] == ["a", "b"]
        assert server.terminate() == 0
    with closing(sqlite3.connect(server.data_dir / DATABASE)) as database, database:
        database.execute("UPDATE program SET oldest = '9001'")
    assert "a newer version has written it (revision 9001" in await trio.to_thread.run_sync(
        does_not_start, server.data_dir
    )
