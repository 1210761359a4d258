"""The history as the store has it: every way to ask for it is the order of an index, so that it does not grow slower."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from stores import NOW, complete, database, opened, script

from builder.extension.builds import HistoryPlace, ShowHistory
from builder.model import Period

pytestmark = pytest.mark.databases

ASKED = {
    "all": ShowHistory(count=5),
    "a job": ShowHistory(count=5, name="a"),
    "a platform": ShowHistory(count=5, platform="p1"),
    "a job on a platform": ShowHistory(count=5, name="a", platform="p1"),
    "failed": ShowHistory(count=5, failed=True),
    "failed, of a job on a platform": ShowHistory(count=5, name="a", platform="p1", failed=True),
    "since": ShowHistory(count=5, since=NOW),
    "behind": ShowHistory(count=5, behind=HistoryPlace(at=NOW, key="5")),
}


@pytest.mark.sqlite
@pytest.mark.parametrize("what", ASKED)
async def test_no_page_looks_at_all_builds(tmp_path: Path, what: str) -> None:
    said: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, values: Any, *_: object) -> None:
        if statement.startswith("SELECT"):
            said.append((statement, values))

    async with opened(tmp_path) as store:
        await store.schedule(script("a"), Period.DAILY, NOW)
        await complete(store, 1)
        sa.event.listen(database(store)._readers, "before_cursor_execute", note)
        await store.history(ASKED[what])
        await store.find_builds("0000", 2)
    with sqlite3.connect(tmp_path / "db") as connection:
        plans = [
            [row[3] for row in connection.execute(f"explain query plan {statement}", values)]
            for statement, values in said
        ]
    connection.close()
    assert len(plans) >= 2
    for plan in plans:
        # a page itself may be sorted, and is walked; tables are entered by an index
        walks = [step for step in plan if step.startswith("SCAN ") and "USING INDEX" not in step]
        assert {*walks} <= {"SCAN anon_1"}, plan
        assert sum("TEMP B-TREE FOR ORDER BY" in step for step in plan) <= 1, plan
    if ASKED[what].name or ASKED[what].platform or ASKED[what].failed:
        assert any(step.startswith("SEARCH build USING") for step in plans[0]), plans[0]
